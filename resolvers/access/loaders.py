"""Rows by id and their children, batched and cached per operation."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID

from strawberry.dataloader import DataLoader

from models import database, rows, tables, vault
from models.event_log import Cursor as EventCursor
from models.rows import columns, instance, names
from models.storable import storable
from resolvers.access import contact_payments
from resolvers.access.pages import counts, list_count
from resolvers.access.scope import AccountScope
from schema.connections import Page, Slice
from services.accounts import sessions
from services.connections import availability, providers
from services.connections.availability import Reach
from services.core import merged_rows
from services.core.permissions import Actor
from services.lists import views
from services.lists.queries import ListQuery
from services.lists.sql import OVERDUE_OF_CONTACTS
from services.messaging import copies, resending
from services.payments import payment_views, refund_views, refunds
from services.payments.payment_views import PaymentView
from services.payments.refund_views import RefundView
from services.team import notes, notification_rules, tags
from services.team.notification_rules import Rules
from services.thread import notifications, payment_links

R = TypeVar("R", bound=tables.Row)
V = TypeVar("V")


class Loaders(AccountScope):
    def __init__(self, viewer: Actor, position: EventCursor | None) -> None:
        super().__init__(viewer)
        self._known_position = position
        self._position: asyncio.Task[EventCursor] | None = None
        self._account: asyncio.Task[tables.Account] | None = None
        self._channels: asyncio.Task[list[tables.ChannelConnection]] | None = None
        self._processors: asyncio.Task[list[tables.ProcessorConnection]] | None = None
        self._users = self._by_id(tables.User)
        self._api_keys = self._by_id(tables.ApiKey)
        self._contacts = self._by_id(tables.Contact)
        self._conversations = self._by_id(tables.Conversation)
        self._payment_requests = self._by_id(tables.PaymentRequest)
        self._messages = self._by_id(tables.Message)
        self._cards = self._by_id(tables.ActivityCard)
        self._notes = self._by_id(tables.Note)
        self._mentioned = DataLoader(self._load_mentioned)
        self._conversations_of = DataLoader(self._load_conversations_of)
        self._following = DataLoader(self._load_following)
        self._addresses = DataLoader(self._load_addresses)
        self._summaries = DataLoader(self._load_summaries)
        self._totals: DataLoader[ListQuery, int | None] = DataLoader(self._load_totals)
        self._overdue: DataLoader[tables.Contact, dict[tuple[str, bool], int]] = DataLoader(
            self._load_overdue, cache_key_fn=_id_of
        )
        self._payments = DataLoader(self._load_payments)
        self._payments_of_facts = DataLoader(self._load_payments_of_facts)
        self._refunds = DataLoader(self._load_refunds)
        self._refund_rows = self._by_id(tables.Refund)
        self._attachment = DataLoader(self._load_attachment)
        self._refundable = DataLoader(self._load_refundable)
        self._requests_of_messages = DataLoader(self._load_requests_of_messages)
        self._attachments = DataLoader(self._load_attachments)
        self._other_attempts: DataLoader[tables.Message, list[tables.Message]] = DataLoader(
            self._load_other_attempts, cache_key_fn=_id_of
        )
        self._capabilities: DataLoader[tables.Conversation, list[Reach]] = DataLoader(
            self._load_capabilities, cache_key_fn=_id_of
        )
        self._suggested_cc: DataLoader[tables.Conversation, list[str]] = DataLoader(
            self._load_suggested_cc, cache_key_fn=_id_of
        )

    async def position(self) -> EventCursor:
        """The log position at the first call. Call before any other read."""
        if self._known_position is not None:
            return self._known_position
        if self._position is None:
            self._position = asyncio.ensure_future(self._read_position())
        return await self._position

    async def _read_position(self) -> EventCursor:
        found = await database.rows("SELECT event_epoch, event_seq FROM account WHERE id = ?", self._account_id)
        return EventCursor(found[0]["event_epoch"], self._account_id, int(found[0]["event_seq"]))

    async def account(self) -> tables.Account:
        if self._account is None:
            self._account = asyncio.ensure_future(self._read_account())
        return await self._account

    async def _read_account(self) -> tables.Account:
        return await tables.Account.get(id=self._account_id)

    async def user(self, id: UUID) -> tables.User | None:
        return await self._users.load(id)

    async def contact(self, id: UUID) -> tables.Contact | None:
        """For a merged contact, the kept one."""
        row = await self._contacts.load(id)
        while row is not None and row.merged_into_id is not None:
            row = await self._contacts.load(row.merged_into_id)
        return row

    async def conversation(self, id: UUID) -> tables.Conversation | None:
        row = await self._conversations.load(id)
        while row is not None and row.merged_into_id is not None:
            row = await self._conversations.load(row.merged_into_id)
        return row

    async def merged_contacts(self, contact: tables.Contact) -> list[tables.Contact]:
        """Newest merge first."""
        found = await self._contacts.load_many(merged_rows.ids_of(contact)[1:])
        return sorted(
            (row for row in found if row is not None),
            key=lambda row: (row.merged_at or row.created_at, row.id),
            reverse=True,
        )

    async def merged_contact(self, id: UUID) -> tables.Contact | None:
        row = await self._contacts.load(id)
        return row if row is not None and row.merged_into_id is not None else None

    async def payment_request(self, id: UUID) -> tables.PaymentRequest | None:
        """Includes discarded requests. For clients use `visible_request`."""
        return await self._payment_requests.load(id)

    async def visible_request(self, id: UUID) -> tables.PaymentRequest | None:
        row = await self.payment_request(id)
        return row if row is not None and row.discarded_at is None else None

    async def request_by_number(self, number: str) -> tables.PaymentRequest | None:
        return await self._visible_one("number = ?", storable(number.strip()))

    async def request_by_link(self, link: str) -> tables.PaymentRequest | None:
        token = payment_links.token_of(link)
        return await self._visible_one("token_hash = ?", vault.digest(token)) if token is not None else None

    async def _visible_one(self, where: str, value: str) -> tables.PaymentRequest | None:
        found = await rows.find(
            tables.PaymentRequest, f"WHERE account_id = ? AND {where} AND discarded_at IS NULL", self._account_id, value
        )
        return found[0] if found else None

    async def message(self, id: UUID) -> tables.Message | None:
        return await self._messages.load(id)

    async def card(self, id: UUID) -> tables.ActivityCard | None:
        return await self._cards.load(id)

    async def note(self, id: UUID) -> tables.Note | None:
        """None for viewers who may not read notes."""
        return await self._notes.load(id) if notes.may_read(self.viewer) else None

    async def tags(self) -> list[str]:
        return await tags.listed(self._account_id)

    async def mentioned(self, note_id: UUID) -> list[tables.User]:
        return await self._mentioned.load(note_id)

    async def notification(self, id: UUID) -> tables.Notification | None:
        if self.viewer.user_id is None:
            return None
        return await tables.Notification.get_or_none(id=id, account_id=self._account_id, user_id=self.viewer.user_id)

    async def api_key(self, id: UUID) -> tables.ApiKey | None:
        """None for viewers who may not manage keys."""
        if not self.viewer.may("keys"):
            return None
        return await tables.ApiKey.get_or_none(id=id, account_id=self._account_id)

    async def api_key_of_actor(self, id: UUID) -> tables.ApiKey | None:
        """For all viewers: its type hides what they may not see."""
        return await self._api_keys.load(id)

    async def session(self, id: UUID) -> sessions.Session | None:
        return await sessions.find(self.viewer, id)

    async def invitation(self, id: UUID) -> tables.Invitation | None:
        """None for viewers who may not invite."""
        if not self.viewer.may("invite"):
            return None
        return await tables.Invitation.get_or_none(id=id, account_id=self._account_id)

    async def view(self, id: UUID) -> tables.SavedView | None:
        return await views.find(self.viewer, id)

    async def channel(self, id: UUID) -> tables.ChannelConnection | None:
        return next((row for row in await self.channels() if row.id == id), None)

    async def processor(self, id: UUID) -> tables.ProcessorConnection | None:
        return next((row for row in await self.processors() if row.id == id), None)

    async def channels(self) -> list[tables.ChannelConnection]:
        if self._channels is None:
            self._channels = asyncio.ensure_future(self._read_channels())
        return await self._channels

    async def _read_channels(self) -> list[tables.ChannelConnection]:
        return await tables.ChannelConnection.filter(account_id=self._account_id).order_by("id")

    async def processors(self) -> list[tables.ProcessorConnection]:
        if self._processors is None:
            self._processors = asyncio.ensure_future(self._read_processors())
        return await self._processors

    async def _read_processors(self) -> list[tables.ProcessorConnection]:
        return await tables.ProcessorConnection.filter(account_id=self._account_id).order_by("id")

    async def default_processor(self) -> tables.ProcessorConnection | None:
        return await providers.default_processor(self._account_id)

    async def conversation_of(self, contact_id: UUID) -> tables.Conversation | None:
        return await self._conversations_of.load(contact_id)

    async def following(self, conversation_id: UUID) -> bool:
        return await self._following.load(conversation_id)

    async def addresses(self, contact_id: UUID) -> list[tables.ContactAddress]:
        return await self._addresses.load(contact_id)

    async def summaries(self, contact_id: UUID) -> list[tables.ContactSummary]:
        return await self._summaries.load(contact_id)

    async def overdue(self, contact: tables.Contact) -> dict[tuple[str, bool], int]:
        return await self._overdue.load(contact)

    async def payments(self, payment_request_id: UUID) -> list[PaymentView]:
        return await self._payments.load(payment_request_id)

    async def contact_payments(self, contact: tables.Contact, page: Page) -> Slice[PaymentView]:
        sql, values = contact_payments.page_statement(self._account_id, merged_rows.ids_of(contact), page)
        found = page.cut(await database.records(sql, *values))
        places = [(database.to_uuid(id), database.to_uuid(request_id)) for id, request_id in found.rows]
        requests = list(dict.fromkeys(request_id for _, request_id in places))
        views = {view.id: view for of_request in await self._payments.load_many(requests) for view in of_request}
        return Slice([views[id] for id, _ in places], found.has_next, found.has_previous, found.keyset, found.keys)

    async def contact_payments_count(self, contact: tables.Contact) -> int | None:
        (count,) = await counts([contact_payments.all_statement(self._account_id, merged_rows.ids_of(contact))])
        return count

    async def refunds(self, payment_request_id: UUID) -> list[RefundView]:
        return await self._refunds.load(payment_request_id)

    async def refund(self, id: UUID) -> RefundView | None:
        """By the id of a stored refund, or of the payment of one that began at the processor."""
        row = await self._refund_rows.load(id)
        payment = await self.payment_of_fact(id) if row is None else None
        request_id = row.payment_request_id if row is not None else payment.payment_request_id if payment else None
        for view in await self.refunds(request_id) if request_id is not None else ():
            if view.id == id or (payment is not None and view.payment is not None and view.payment.id == payment.id):
                return view
        return None

    async def dispute(self, id: UUID) -> PaymentView | None:
        """By the id of one of its facts."""
        view = await self.payment_of_fact(id)
        return view if view is not None and view.kind == "DISPUTE" else None

    async def attachment(self, id: UUID) -> tables.Attachment | None:
        return await self._attachment.load(id)

    async def refundable(self, payment_request_id: UUID) -> dict[UUID, int]:
        return await self._refundable.load(payment_request_id)

    async def payment_of_fact(self, money_fact_id: UUID) -> PaymentView | None:
        return await self._payments_of_facts.load(money_fact_id)

    async def attachments(self, message_id: UUID) -> list[tables.Attachment]:
        return await self._attachments.load(message_id)

    async def requests_of_message(self, message_id: UUID) -> list[tables.PaymentRequest]:
        return await self._requests_of_messages.load(message_id)

    async def other_attempts(self, message: tables.Message) -> list[tables.Message]:
        """Oldest first."""
        return await self._other_attempts.load(message)

    async def capabilities(self, conversation: tables.Conversation) -> list[Reach]:
        return await self._capabilities.load(conversation)

    async def suggested_cc(self, conversation: tables.Conversation) -> list[str]:
        return await self._suggested_cc.load(conversation)

    async def notification_rules(self) -> Rules | None:
        """None for an API key."""
        return await notification_rules.read(self.viewer.user_id) if self.viewer.user_id is not None else None

    async def unread_count(self) -> int:
        return await notifications.unread_count(self.viewer.user_id) if self.viewer.user_id is not None else 0

    def _by_id(self, model: type[R]) -> DataLoader[UUID, R | None]:
        async def load(ids: list[UUID]) -> list[R | None]:
            found = await database.rows(
                f"SELECT {columns(model)} FROM {model._meta.db_table}"  # noqa: S608 (only constants are put in)
                f" WHERE {database.OF_ACCOUNT} AND id IN ({database.placeholders(len(ids))})",
                self._account_id,
                *ids,
            )
            rows = {row.id: row for row in (instance(model, raw) for raw in found)}
            return [rows.get(id) for id in ids]

        return DataLoader(load)

    async def _load_conversations_of(self, contact_ids: list[UUID]) -> list[tables.Conversation | None]:
        rows = await self._children(tables.Conversation, "contact_id", contact_ids)
        return [rows[id][0] if rows[id] else None for id in contact_ids]

    async def _load_addresses(self, contact_ids: list[UUID]) -> list[list[tables.ContactAddress]]:
        rows = await self._children(tables.ContactAddress, "contact_id", contact_ids, order="kind")
        return [rows[id] for id in contact_ids]

    async def _load_summaries(self, contact_ids: list[UUID]) -> list[list[tables.ContactSummary]]:
        rows = await self._children(tables.ContactSummary, "contact_id", contact_ids, order="currency, test_mode")
        return [rows[id] for id in contact_ids]

    async def _children(
        self, model: type[R], parent: str, ids: Sequence[UUID], order: str = "id"
    ) -> defaultdict[UUID, list[R]]:
        found = await database.rows(
            f"SELECT {columns(model)} FROM {model._meta.db_table}"  # noqa: S608 (only constants are put in)
            f" WHERE {database.OF_ACCOUNT} AND {parent} IN ({database.placeholders(len(ids))}) ORDER BY {order}",
            self._account_id,
            *ids,
        )
        return _grouped((getattr(row, parent), row) for row in (instance(model, raw) for raw in found))

    async def _load_following(self, conversation_ids: list[UUID]) -> list[bool]:
        if self.viewer.user_id is None:
            return [False] * len(conversation_ids)
        found = await database.rows(
            "SELECT conversation_id FROM conversation_follower WHERE account_id = ? AND user_id = ?"  # noqa: S608 (only constants are put in)
            f" AND conversation_id IN ({database.placeholders(len(conversation_ids))})",
            self._account_id,
            self.viewer.user_id,
            *conversation_ids,
        )
        followed = {database.to_uuid(raw["conversation_id"]) for raw in found}
        return [id in followed for id in conversation_ids]

    async def _load_overdue(self, contacts: list[tables.Contact]) -> list[dict[tuple[str, bool], int]]:
        kept_ids = {id: contact.id for contact in contacts for id in merged_rows.ids_of(contact)}
        found = await database.rows(
            "SELECT contact_id, currency, test_mode, count(*) AS n FROM payment_request"  # noqa: S608 (only constants are put in)
            f" WHERE {database.OF_ACCOUNT} AND contact_id IN ({database.placeholders(len(kept_ids))})"
            f" AND discarded_at IS NULL AND {OVERDUE_OF_CONTACTS} GROUP BY contact_id, currency, test_mode",
            self._account_id,
            *kept_ids,
            datetime.now(UTC),
        )
        counts: defaultdict[UUID, dict[tuple[str, bool], int]] = defaultdict(dict)
        for raw in found:
            key = raw["currency"], database.to_bool(raw["test_mode"])
            counted = counts[kept_ids[database.to_uuid(raw["contact_id"])]]
            counted[key] = counted.get(key, 0) + int(raw["n"])
        return [counts[contact.id] for contact in contacts]

    async def _load_payments(self, request_ids: list[UUID]) -> list[list[PaymentView]]:
        found = await payment_views.payments(self._account_id, request_ids)
        return [found[id] for id in request_ids]

    async def _load_refunds(self, request_ids: list[UUID]) -> list[list[RefundView]]:
        payments = await self._payments.load_many(request_ids)
        found = await refund_views.of_requests(self._account_id, dict(zip(request_ids, payments, strict=True)))
        return [found[id] for id in request_ids]

    async def _load_refundable(self, request_ids: list[UUID]) -> list[dict[UUID, int]]:
        payments = await self._payments.load_many(request_ids)
        found = await refunds.refundable(self._account_id, dict(zip(request_ids, payments, strict=True)))
        return [found[id] for id in request_ids]

    async def _load_payments_of_facts(self, fact_ids: list[UUID]) -> list[PaymentView | None]:
        found = await payment_views.by_facts(self._account_id, fact_ids)
        return [found.get(id) for id in fact_ids]

    async def _load_requests_of_messages(self, message_ids: list[UUID]) -> list[list[tables.PaymentRequest]]:
        found = await database.rows(
            f"SELECT l.message_id AS of_message, {columns(tables.PaymentRequest, 'r')} FROM message_payment_request l"  # noqa: S608 (only constants are put in)
            " JOIN payment_request r ON r.id = l.payment_request_id"
            f" WHERE l.account_id = ? AND l.message_id IN ({database.placeholders(len(message_ids))}) ORDER BY r.id",
            self._account_id,
            *message_ids,
        )
        rows = _grouped((database.to_uuid(raw["of_message"]), instance(tables.PaymentRequest, raw)) for raw in found)
        return [rows[id] for id in message_ids]

    async def _load_mentioned(self, note_ids: list[UUID]) -> list[list[tables.User]]:
        found = await database.rows(
            f"SELECT l.note_id AS of_note, {columns(tables.User, 'u')} FROM note_mention l"  # noqa: S608 (only constants are put in)
            " JOIN user_account u ON u.id = l.user_id"
            f" WHERE l.account_id = ? AND l.note_id IN ({database.placeholders(len(note_ids))}) ORDER BY u.id",
            self._account_id,
            *note_ids,
        )
        rows = _grouped((database.to_uuid(raw["of_note"]), instance(tables.User, raw)) for raw in found)
        return [rows[id] for id in note_ids]

    async def _load_attachments(self, message_ids: list[UUID]) -> list[list[tables.Attachment]]:
        found = await database.rows(
            f"SELECT {_heads()} FROM attachment"  # noqa: S608 (only constants are put in)
            f" WHERE account_id = ? AND message_id IN ({database.placeholders(len(message_ids))}) ORDER BY n",
            self._account_id,
            *message_ids,
        )
        rows = _grouped((row.message_id, row) for row in (instance(tables.Attachment, raw) for raw in found))
        return [rows[id] for id in message_ids]

    async def _load_attachment(self, ids: list[UUID]) -> list[tables.Attachment | None]:
        found = await database.rows(
            f"SELECT {_heads()} FROM attachment"  # noqa: S608 (only constants are put in)
            f" WHERE {database.OF_ACCOUNT} AND id IN ({database.placeholders(len(ids))})",
            self._account_id,
            *ids,
        )
        rows = {row.id: row for row in (instance(tables.Attachment, raw) for raw in found)}
        return [rows.get(id) for id in ids]

    async def _load_other_attempts(self, messages: list[tables.Message]) -> list[list[tables.Message]]:
        firsts = list({resending.first_of(message) for message in messages})
        places = database.placeholders(len(firsts))
        # The conversation's index makes this fast.
        rows_of = [await self.conversation(id) for id in {message.conversation_id for message in messages}]
        conversations = list({id for row in rows_of if row is not None for id in merged_rows.ids_of(row)})
        found = await database.rows(
            f"SELECT {columns(tables.Message)} FROM message WHERE account_id = ?"  # noqa: S608 (only constants are put in)
            f" AND conversation_id IN ({database.placeholders(len(conversations))})"
            f" AND (retry_of_id IN ({places}) OR id IN ({places})) ORDER BY seq",
            self._account_id,
            *conversations,
            *firsts,
            *firsts,
        )
        rows = [instance(tables.Message, raw) for raw in found]
        return [
            [row for row in rows if row.id != message.id and resending.first_of(row) == resending.first_of(message)]
            for message in messages
        ]

    async def total(self, query: ListQuery) -> int | None:
        """None: more than LARGEST_COUNT."""
        return await self._totals.load(query)

    async def _load_totals(self, queries: list[ListQuery]) -> list[int | None]:
        return await counts([await list_count(self._account_id, query) for query in queries])

    async def _load_capabilities(self, conversations: list[tables.Conversation]) -> list[list[Reach]]:
        found = await availability.capabilities_of(self.viewer, conversations)
        return [found[row.id] for row in conversations]

    async def _load_suggested_cc(self, conversations: list[tables.Conversation]) -> list[list[str]]:
        found = await copies.suggested(self._account_id, conversations)
        return [found[row.id] for row in conversations]


def _heads() -> str:
    """An attachment's columns without its content."""
    return ", ".join("NULL AS content" if name == "content" else name for name in names(tables.Attachment))


def _id_of(row: tables.Row) -> UUID:
    return row.id


def _grouped(pairs: Iterable[tuple[UUID, V]]) -> defaultdict[UUID, list[V]]:
    groups: defaultdict[UUID, list[V]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return groups
