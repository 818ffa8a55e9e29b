"""One use case in one transaction, its events in commit order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from models import database, event_log, rows
from models.event_log import LogEntry
from models.ids import uuid7
from models.ledger import CardKind, Facet
from models.tables import ActivityCard, Attachment, Message, Note, NoteMention, Notification, PaymentRequest
from services.core import merged_rows
from services.core.actors import PAYTHREAD, ActorRef
from services.core.turns import turn

_current: ContextVar[Change | None] = ContextVar("change", default=None)
_announce: Callable[[UUID, int], None] | None = None


def on_change(callback: Callable[[UUID, int], None] | None) -> None:
    global _announce
    _announce = callback


# Cards that reopen a closed conversation: something happened without the team. The team's own actions (requests, voids, refunds,
# records) leave it closed.
_REOPENING = frozenset(
    {
        "PAYMENT_RECEIVED",
        "PARTIAL_PAYMENT",
        "PAYMENT_FAILED",
        "PAYMENT_MISMATCH",
        "REFUND_FAILED",
        "DISPUTE_OPENED",
        "DISPUTE_CLOSED",
        "LATE_PAYMENT",
        "EXCESS_PAYMENT",
        "DELIVERY_FAILED",
        "CHECKOUT_REFUSED",
    }
)
_INSERT_ORDER = (Message, ActivityCard, Note, Notification)  # a card may refer to a message of the same change


@dataclass(slots=True)
class _Pending:
    fields: dict[str, Any]
    row: Message | ActivityCard | Note | Notification | None = None


@dataclass(frozen=True, slots=True)
class _Shown:
    """A conversation whose preview was written."""

    id: UUID
    contact_id: UUID
    is_closed: bool


class Change:
    def __init__(self, account_id: UUID, actor: ActorRef) -> None:
        self.account_id = account_id
        self.actor = actor
        self.now = datetime.now(UTC)
        self._pending: list[_Pending] = []
        self._keys: set[str] = set()
        self._cards: dict[UUID, dict[str, str]] = {}  # request -> key -> kind, as stored
        self._attachments: list[Attachment] = []
        self._mentions: list[NoteMention] = []
        self._activity: dict[UUID, str] = {}  # conversation -> preview of its newest item
        self._reopened: set[UUID] = set()  # conversations that need attention
        self._locale: str | None = None

    async def locale(self) -> str:
        if self._locale is None:
            (row,) = await database.records("SELECT locale FROM account WHERE id = ?", self.account_id)
            self._locale = str(row[0])
        return self._locale

    def event(
        self,
        kind: str,
        *,
        conversation_id: UUID | None = None,
        contact_id: UUID | None = None,
        payment_request_id: UUID | None = None,
        message_id: UUID | None = None,
        card_id: UUID | None = None,
        payment_id: UUID | None = None,
        notification_id: UUID | None = None,
        user_id: UUID | None = None,
        data: dict[str, Any] | None = None,
    ) -> None:
        self._pending.append(
            _Pending(
                {
                    "kind": kind,
                    "conversation_id": conversation_id,
                    "contact_id": contact_id,
                    "payment_request_id": payment_request_id,
                    "message_id": message_id,
                    "card_id": card_id,
                    "payment_id": payment_id,
                    "notification_id": notification_id,
                    "user_id": user_id,
                    "data": data or {},
                }
            )
        )

    def request_event(
        self,
        name: str,
        request: PaymentRequest,
        *,
        previous_status: str | None,
        facets: Collection[Facet],
        card_id: UUID | None = None,
        payment_id: UUID | None = None,
    ) -> None:
        """`facets`: what changed beside the status."""
        names = {*facets, Facet.STATUS} if previous_status != request.status else facets
        self.event(
            f"payment_request.{name}",
            conversation_id=request.conversation_id,
            contact_id=request.contact_id,
            payment_request_id=request.id,
            card_id=card_id,
            payment_id=payment_id,
            data={"previous_status": previous_status, "changed": [facet for facet in Facet if facet in names]},
        )

    def message(self, row: Message) -> None:
        row.fold()
        self.event("message.created", conversation_id=row.conversation_id, contact_id=row.contact_id, message_id=row.id)
        self._pending[-1].row = row
        self._activity[row.conversation_id] = row.body[:160]
        if row.direction == "INBOUND":
            self._reopened.add(row.conversation_id)

    def attachment(self, row: Attachment) -> None:
        self._attachments.append(row)

    def note(self, row: Note, mentions: Sequence[NoteMention]) -> None:
        # The list row stays: a note is no activity of the contact or of money.
        self.event(
            "note.created",
            conversation_id=row.conversation_id,
            contact_id=row.contact_id,
            data={"note_id": str(row.id)},
        )
        self._pending[-1].row = row
        self._mentions += mentions

    async def card(self, row: ActivityCard) -> bool:
        """False if the card's key exists."""
        if row.key in self._keys or await self._is_logged(row):
            return False
        self._keys.add(row.key)
        self.event(
            "activity.created",
            conversation_id=row.conversation_id,
            contact_id=row.contact_id,
            payment_request_id=row.payment_request_id,
            card_id=row.id,
            payment_id=row.money_fact_id,
        )
        self._pending[-1].row = row
        self._activity[row.conversation_id] = row.text[:160]
        if row.kind in _REOPENING:
            self._reopened.add(row.conversation_id)
        return True

    async def load(self, request_id: UUID, *queries: database.Statement) -> list[Sequence[Sequence[Any]]]:
        """Read the account's locale and the locked request's cards, for `locale`, `has_card` and the check of keys.

        `queries` are read with them; returns their records.
        """
        locale, cards, *others = await database.records_together(
            ("SELECT locale FROM account WHERE id = ?", [self.account_id]),
            ("SELECT key, kind FROM activity_card WHERE payment_request_id = ?", [request_id]),
            *queries,
        )
        self._locale = str(locale[0][0])
        self._cards.setdefault(request_id, {card[0]: card[1] for card in cards})
        return others

    def has_card(self, request_id: UUID, kind: CardKind) -> bool:
        """Whether the request had a card of this kind when `load` read them."""
        return kind.value in self._cards[request_id].values()

    async def _is_logged(self, row: ActivityCard) -> bool:
        if row.payment_request_id in self._cards:
            return row.key in self._cards[row.payment_request_id]
        same = "SELECT 1 FROM activity_card WHERE account_id = ? AND key = ?"
        return bool(await database.records(same, self.account_id, row.key))

    async def log_card(
        self,
        request: PaymentRequest,
        kind: CardKind,
        *,
        text: str,
        key: str,
        money_fact_id: UUID | None = None,
        message_id: UUID | None = None,
        actor: ActorRef | None = None,
    ) -> ActivityCard | None:
        """None if the card's key exists. `actor`: if not that of the change."""
        actor = actor or self.actor
        row = rows.new(
            ActivityCard,
            id=uuid7(),
            account_id=self.account_id,
            conversation_id=request.conversation_id,
            contact_id=request.contact_id,
            kind=kind.value,
            status=request.status,
            payment_request_id=request.id,
            money_fact_id=money_fact_id,
            message_id=message_id,
            text=text[:500],
            actor_id=actor.id if actor.kind == "USER" else None,
            actor=actor.stored(),
            key=f"{kind}:{key}",
            occurred_at=self.now,
        )
        return row if await self.card(row) else None

    def notification(self, row: Notification) -> None:
        """The caller checks its key."""
        self.event(
            "notification.created",
            conversation_id=row.conversation_id,
            payment_request_id=row.payment_request_id,
            notification_id=row.id,
            user_id=row.user_id,
        )
        self._pending[-1].row = row

    async def _flush(self) -> int:
        if not self._pending:
            return 0
        shown = {id: await self._update_preview(id, preview) for id, preview in sorted(self._activity.items())}
        closed = {shown[id] for id in self._reopened if shown[id].is_closed}
        for conversation in sorted(closed, key=lambda conversation: conversation.id):
            await database.records("UPDATE conversation SET closed_at = NULL WHERE id = ?", conversation.id)
            self.event("conversation.updated", conversation_id=conversation.id, contact_id=conversation.contact_id)
        # The last statement before the inserts and the commit, so that numbers are in the order of commits.
        first, merges = await event_log.reserve_and_merges(self.account_id, len(self._pending))
        if merges:
            await self._follow_merges()
        for seq, pending in enumerate(self._pending, first):
            if pending.row is not None:
                pending.row.seq = seq
        added = [[pending.row for pending in self._pending if type(pending.row) is model] for model in _INSERT_ORDER]
        parts: list[Sequence[Any]] = [*added, self._attachments, self._mentions]
        by = self.actor.stored()
        await event_log.append(
            [
                LogEntry(account_id=self.account_id, seq=seq, at=self.now, actor=by, **pending.fields)
                for seq, pending in enumerate(self._pending, first)
            ],
            *(rows.insertion(part) for part in parts if part),
        )
        return first + len(self._pending) - 1

    async def _update_preview(self, conversation_id: UUID, preview: str) -> _Shown:
        while True:
            # A later change may have committed first: the time never moves back.
            found = await database.records(
                "UPDATE conversation SET preview = ?,"
                " last_activity_at = CASE WHEN last_activity_at > ? THEN last_activity_at ELSE ? END"
                " WHERE id = ? AND merged_into_id IS NULL RETURNING contact_id, closed_at",
                preview,
                self.now,
                self.now,
                conversation_id,
            )
            if found:
                contact_id, closed_at = found[0]
                return _Shown(conversation_id, database.to_uuid(contact_id), closed_at is not None)
            conversation_id = (await merged_rows.conversation_of(self.account_id, conversation_id)).id

    async def _follow_merges(self) -> None:
        # The account's lock excludes merges.
        for name in ("contact_id", "conversation_id"):
            ids = {pending.fields[name] for pending in self._pending if pending.fields[name] is not None}
            replaced = await merged_rows.replaced(name.removesuffix("_id"), self.account_id, ids)
            for pending in self._pending:
                pending.fields[name] = replaced.get(pending.fields[name], pending.fields[name])
                if pending.row is not None and getattr(pending.row, name, None) in replaced:
                    setattr(pending.row, name, replaced[getattr(pending.row, name)])


@asynccontextmanager
async def change(
    account_id: UUID, *, actor: ActorRef = PAYTHREAD, queue_on: Collection[UUID] = ()
) -> AsyncIterator[Change]:
    """Open the account's transaction, or join the outer change with its actor and turn; never call a vendor inside. Raises: Busy.

    `queue_on`: ids of rows that the caller then locks; changes of one row wait for each other in this process (turns.py).
    """
    outer = _current.get()
    if outer is not None and database.in_transaction():
        if outer.account_id != account_id:
            raise RuntimeError("a change belongs to one account")
        yield outer
        return
    async with turn(account_id, queue_on), database.transaction():
        made = Change(account_id, actor)
        token = _current.set(made)
        try:
            yield made
            newest = await made._flush()
        finally:
            _current.reset(token)
        if newest and _announce is not None:
            announce = _announce
            database.after_commit(lambda: announce(account_id, newest))
