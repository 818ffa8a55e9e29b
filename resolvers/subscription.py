"""The root of subscriptions: entries of the account's event log as events for clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import strawberry

from models import tables
from models.event_log import Cursor as EventCursor
from models.event_log import LogEntry
from models.ids import parse_public_id, public_id
from resolvers import view_feed
from resolvers.access.reads import access
from resolvers.feeds import Common, cursor_at, hub_of, logged, position_of, unlogged
from schema.context import Info
from schema.describe import subscription
from schema.events import (
    AccountUpdated,
    ContactMerged,
    ContactPaymentEvent,
    ContactUpdated,
    ConversationEvent,
    ConversationUpdated,
    DashboardEvent,
    DashboardUpdated,
    Event,
    InboxEvent,
    MessageUpdated,
    NotificationAdded,
    NotificationEvent,
    NotificationsRead,
    PaymentRequestFacet,
    PaymentRequestUpdated,
    ResyncRequired,
    Subscribed,
    ThreadItemAdded,
)
from schema.failures import not_found
from schema.inputs.ranges import LAST_30_DAYS, GroupBy, PeriodArgument, board_of
from schema.reasons import ResyncReason
from schema.scalars import Cursor, PaymentRequestStatus
from schema.view_events import ViewEvent
from services.accounts import users
from services.core import merged_rows
from services.core.event_hub import ResyncNeeded, Start, Wants, follow
from services.core.permissions import Actor
from services.messaging import contact_merging
from services.payments import dashboard
from services.payments.dashboard import Board
from services.team import notes

DASHBOARD_INTERVAL_S = 1.0

# Fields that depend on the user, not only on account and role: an operation that selects one can't be shared.
PERSONAL_FIELDS = frozenset(
    {("Conversation", "following"), ("NotificationAdded", "viewer"), ("NotificationsRead", "viewer")}
)

AfterEvent = Annotated[
    Cursor | None,
    strawberry.argument(
        description=(
            "The newest cursor you have, from an event or an eventCursor: what came since is delivered first. Left out:"
            " from now on."
        )
    ),
]


def _thread_item(event: LogEntry, common: Common) -> Event | None:
    if event.conversation_id is None or event.contact_id is None:
        return None
    return ThreadItemAdded(
        **common,
        message_row=event.message_id if event.kind == "message.created" else None,
        card_row=event.card_id if event.kind == "activity.created" else None,
        note_row=UUID(event.data["note_id"]) if event.kind == "note.created" else None,
        conversation_row=event.conversation_id,
        contact_row=event.contact_id,
    )


def _payment_request(event: LogEntry, common: Common) -> Event | None:
    if event.payment_request_id is None:
        return None
    previous = event.data.get("previous_status")
    return PaymentRequestUpdated(
        **common,
        payment_request_row=event.payment_request_id,
        new_row=event.payment_request_id if previous is None else None,
        card_row=event.card_id,
        previous_status=PaymentRequestStatus[previous] if previous is not None else None,
        changed=_facets(event),
    )


def _facets(event: LogEntry) -> list[PaymentRequestFacet]:
    # An entry of an older version may be about any; of a newer one, about some that this version does not know.
    named = event.data.get("changed")
    return [facet for facet in PaymentRequestFacet if named is None or facet.name in named]


def _message(event: LogEntry, common: Common) -> Event | None:
    if event.message_id is None or event.conversation_id is None:
        return None
    return MessageUpdated(
        **common,
        message_row=event.message_id,
        conversation_row=event.conversation_id,
    )


def _contact(event: LogEntry, common: Common) -> Event | None:
    return ContactUpdated(**common, contact_row=event.contact_id) if event.contact_id is not None else None


def _merged(event: LogEntry, common: Common) -> Event | None:
    if event.contact_id is None or event.conversation_id is None:
        return None
    return ContactMerged(
        **common,
        contact_row=event.contact_id,
        conversation_row=event.conversation_id,
        merged_contact_id=strawberry.ID(public_id("cnt", UUID(event.data["contact_id"]))),
        merged_conversation_id=strawberry.ID(public_id("cnv", UUID(event.data["conversation_id"]))),
    )


def _conversation(event: LogEntry, common: Common) -> Event | None:
    if event.conversation_id is None:
        return None
    return ConversationUpdated(**common, conversation_row=event.conversation_id)


def _account(event: LogEntry, common: Common) -> Event | None:
    return AccountUpdated(**common)


def _notification(event: LogEntry, common: Common) -> Event | None:
    if event.notification_id is None:
        return None
    return NotificationAdded(**common, notification_row=event.notification_id)


def _notifications_read(event: LogEntry, common: Common) -> Event | None:
    return NotificationsRead(**common)


# Unknown kinds are skipped: the log may hold entries of another release.
_EVENT_MAKERS: dict[str, Callable[[LogEntry, Common], Event | None]] = {
    "activity.created": _thread_item,
    "message.created": _thread_item,
    "note.created": _thread_item,
    "message.updated": _message,
    "contact.updated": _contact,
    contact_merging.MERGED: _merged,
    "conversation.updated": _conversation,
    "account.updated": _account,
    "processor.updated": _account,
    "channel.updated": _account,
    "api_key.updated": _account,
    users.UPDATED: _account,
    "notification.created": _notification,
    "notification.read": _notifications_read,
}


def _is_request(kind: str) -> bool:
    return kind.startswith("payment_request.")


def client_event(event: LogEntry, cursor: Cursor) -> Event | None:
    """None for a kind that clients do not receive."""
    make = _payment_request if _is_request(event.kind) else _EVENT_MAKERS.get(event.kind)
    if make is None:
        return None
    return make(event, logged(event, cursor))


class _ContactEvents:
    """Filters the events of one contact and of those merged with it."""

    def __init__(self, row: tables.Contact | tables.Conversation, wants: Wants) -> None:
        self._ids: set[UUID | None] = set(merged_rows.ids_of(row))
        self._name = "contact_id" if isinstance(row, tables.Contact) else "conversation_id"
        self._wants = wants
        # Until attached, all contacts pass: a merge may be logged between reading the row and attaching.
        self._attached = False

    def attached(self, row: tables.Contact | tables.Conversation | None) -> None:
        self._ids.update(merged_rows.ids_of(row) if row is not None else ())
        self._attached = True

    def __call__(self, event: LogEntry) -> bool:
        if event.kind == contact_merging.MERGED:
            both = {getattr(event, self._name), UUID(event.data[self._name])}
            if both & self._ids:
                self._ids |= both
                return True
        if not self._wants(event):
            return False
        id = getattr(event, self._name)
        # Events of the account can change the channels' availability.
        of_account = event.contact_id is None and event.conversation_id is None
        return of_account or not self._attached or id in self._ids


def _of_team(viewer: Actor) -> Wants:
    """All but personal events, and notes for viewers who may not read them."""
    hidden = ("notification.",) if notes.may_read(viewer) else ("notification.", "note.")
    return lambda event: not event.kind.startswith(hidden)


async def _feed(
    info: Info, after: str | None, wants: Wants, on_attached: Callable[[], Awaitable[None]] | None = None
) -> AsyncGenerator[Any, None]:
    context = info.context
    reads = access(info)
    account_id = reads.viewer.account_id
    here = await reads.position()
    resume = position_of(after, here)
    if resume is not None and resume.epoch != here.epoch:
        yield ResyncRequired(**unlogged(cursor_at(context, here)), reason=ResyncReason.OTHER_EPOCH)
        return
    async with aclosing(follow(hub_of(context), account_id, resume.seq if resume is not None else None, wants)) as feed:
        async for item in feed:
            cursor = cursor_at(context, EventCursor(here.epoch, account_id, item.seq))
            if isinstance(item, Start):
                if on_attached is not None:
                    await on_attached()
                yield Subscribed(**unlogged(cursor))
            elif isinstance(item, ResyncNeeded):
                yield ResyncRequired(**unlogged(cursor), reason=ResyncReason[item.reason.value])
            elif (on_attached is None or wants(item)) and (found := client_event(item, cursor)) is not None:
                yield found


async def _dashboard(info: Info, board: Board) -> AsyncGenerator[Any, None]:
    context = info.context
    reads = access(info)
    account_id = reads.viewer.account_id
    epoch = (await reads.position()).epoch
    loop = asyncio.get_running_loop()
    async with aclosing(follow(hub_of(context), account_id, None, _changes_figures)) as feed:
        next_number: asyncio.Future[int | None] | None = None
        try:
            seq = await _next_seq(feed)
            if seq is None:
                return
            yield Subscribed(**unlogged(cursor_at(context, EventCursor(epoch, account_id, seq))))
            next_number = asyncio.ensure_future(_next_seq(feed))
            while True:
                day_ends = await dashboard.day_ends(account_id, datetime.now(UTC))
                began = loop.time()
                yield DashboardUpdated(**unlogged(cursor_at(context, EventCursor(epoch, account_id, seq))), board=board)
                # Figures that are slow to add up take a fifth of the time at most.
                next_update_at = loop.time() + max(DASHBOARD_INTERVAL_S, 4 * (loop.time() - began))
                with hub_of(context).moments.waiting_for(day_ends) as midnight:
                    waiting: set[asyncio.Future[Any]] = {next_number, midnight}
                    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if not next_number.done():
                    continue
                newest = next_number.result()
                while newest is not None:
                    seq = newest
                    next_number = asyncio.ensure_future(_next_seq(feed))
                    left = next_update_at - loop.time()
                    if left <= 0:
                        break
                    await asyncio.wait({next_number}, timeout=left)
                    if not next_number.done():
                        break
                    newest = next_number.result()
                if newest is None:
                    return
        finally:
            if next_number is not None and not next_number.done():
                next_number.cancel()
                with suppress(asyncio.CancelledError):
                    await next_number


def _changes_figures(event: LogEntry) -> bool:
    return _is_request(event.kind) or event.kind in ("account.updated", "processor.updated")


async def _next_seq(feed: AsyncGenerator[Start | ResyncNeeded | LogEntry, None]) -> int | None:
    async for item in feed:
        return item.seq
    return None


@strawberry.type(
    description=(
        "Live events. The first event is Subscribed; after a lost connection pass the newest cursor as"
        " `after`. Over WebSocket (graphql-transport-ws) or server-sent events."
    )
)
class Subscription:
    @subscription(
        "Everything in the account that this role may see; the same for all viewers of one role, so that one"
        " execution serves them all."
    )
    async def inbox_events(self, info: Info, after: AfterEvent = None) -> AsyncGenerator[InboxEvent, None]:
        return _feed(info, after, _of_team(access(info).viewer))

    @subscription("What happens in one conversation, and to its contact's requests and record.")
    async def conversation_events(
        self,
        info: Info,
        conversation_id: Annotated[strawberry.ID, strawberry.argument(description="The conversation.")],
        after: AfterEvent = None,
    ) -> AsyncGenerator[ConversationEvent, None]:
        reads = access(info)
        found = parse_public_id(conversation_id, "cnv")
        row = await reads.conversation(found) if found is not None else None
        if row is None:
            raise not_found()
        wants = _ContactEvents(row, _of_team(reads.viewer))

        async def on_attached() -> None:
            wants.attached(await merged_rows.conversation(row.account_id, row.id))

        return _feed(info, after, wants, on_attached)

    @subscription("What changes in one contact's Payments tab and totals.")
    async def contact_payment_events(
        self,
        info: Info,
        contact_id: Annotated[strawberry.ID, strawberry.argument(description="The contact.")],
        after: AfterEvent = None,
    ) -> AsyncGenerator[ContactPaymentEvent, None]:
        reads = access(info)
        found = parse_public_id(contact_id, "cnt")
        row = await reads.contact(found) if found is not None else None
        if row is None:
            raise not_found()
        wants = _ContactEvents(row, lambda event: _is_request(event.kind) or event.kind == "contact.updated")

        async def on_attached() -> None:
            wants.attached(await merged_rows.contact(row.account_id, row.id))

        return _feed(info, after, wants, on_attached)

    @subscription("The viewer's own notifications: the only feed that differs by user.")
    async def notification_events(
        self, info: Info, after: AfterEvent = None
    ) -> AsyncGenerator[NotificationEvent, None]:
        user_id: UUID | None = access(info).viewer.user_id

        def wants(event: LogEntry) -> bool:
            return user_id is not None and event.user_id == user_id and event.kind.startswith("notification.")

        return _feed(info, after, wants)

    @subscription(
        "The dashboard's figures, immediately, after changes of money, requests and settings, and at the"
        " account's midnight. At most one update a second."
    )
    async def dashboard_events(
        self, info: Info, period: PeriodArgument = LAST_30_DAYS, group_by: GroupBy = None
    ) -> AsyncGenerator[DashboardEvent, None]:
        access(info)
        return _dashboard(info, board_of(period, group_by))

    @subscription(
        "What happens to a view's items: they enter, move and leave, each with its place. One evaluation serves all who follow"
        " the same filter and order. A live view follows its first 20,000 items. Ends (complete) when the view is deleted."
    )
    async def view_events(
        self,
        info: Info,
        view_id: Annotated[strawberry.ID, strawberry.argument(description="The view.")],
        after: AfterEvent = None,
    ) -> AsyncGenerator[ViewEvent, None]:
        row = await view_feed.find(access(info).viewer, view_id)
        if row is None:
            raise not_found()
        return view_feed.view_feed(info, row, after)
