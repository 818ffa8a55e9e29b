"""The conversation that a visitor of the chat widget sees and writes in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from tortoise.expressions import Q
from tortoise.queryset import QuerySet

from integrations.base import InboundMessage, StatusUpdate
from integrations.channels import web_chat
from models.errors import Invalid, Refusals
from models.event_log import Cursor
from models.ids import public_id
from models.money import Money
from models.tables import (
    Account,
    ChannelConnection,
    ContactAddress,
    Conversation,
    Message,
    MessagePaymentRequest,
    PaymentRequest,
    Visitor,
)
from services.connections import providers
from services.core import actors, merged_rows, validation
from services.core.unit_of_work import change
from services.messaging import contacts, delivery, inbound
from services.payments import checkout_page
from services.thread import payment_links
from services.web_chat import visits
from services.web_chat.identity import KIND, IdentityRequired, Visit, WidgetClosed, open_widget

BODY_LIMIT: Final = web_chat.MAX_LENGTH
PAGE: Final = 50
SHOWN_AT_ONCE: Final = 200
_CLIENT_ID: Final = re.compile(r"[A-Za-z0-9_-]{8,64}")
# Visitors read messages from SENT on, never FAILED ones.
_READABLE: Final = ("SENT", "DELIVERED", "READ")


# --------------------------------------------------------------------------------------------------------------- read
@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A payment request as the contact sees it."""

    request: PaymentRequest
    state: str  # open, processing, review (the team must decide), paid, void
    amount: Money
    due: Money
    pay_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A message as the visitor sees it."""

    row: Message
    author: str | None  # None: the visitor
    client_message_id: str | None
    cards: Sequence[Card] = field(default=())


async def position(visit: Visit) -> Cursor:
    """The newest position of the event log; read it before anything else."""
    account = await Account.get(id=visit.account_id)
    return Cursor(account.event_epoch, account.id, account.event_seq)


async def business(visit: Visit) -> Account:
    return await Account.get(id=visit.account_id)


async def page(visit: Visit, *, before: int | None = None, after: int | None = None) -> tuple[list[Shown], bool]:
    """Messages of this widget, oldest first, and whether there are more. `before`, `after`: log numbers.

    Raises: IdentityRequired.
    """
    contact_id = await visits.contact_of(visit)
    if contact_id is None:
        return [], False
    found = await _readable(visit, contact_id)
    if before is not None:
        found = found.filter(seq__lt=before)
    if after is not None:
        found = found.filter(seq__gt=after)
    rows = await found.order_by("seq" if after is not None else "-seq").limit(PAGE + 1)
    more, rows = len(rows) > PAGE, rows[:PAGE]
    return await _shown(visit, contact_id, sorted(rows, key=lambda row: row.seq)), more


async def message(visit: Visit, message_id: UUID) -> Shown | None:
    contact_id = await visits.contact_of(visit)
    if contact_id is None:
        return None
    rows = await (await _readable(visit, contact_id)).filter(id=message_id)
    return (await _shown(visit, contact_id, rows))[0] if rows else None


async def card(visit: Visit, request_id: UUID) -> Card | None:
    contact_id = await visits.contact_of(visit)
    if contact_id is None:
        return None
    bound = await MessagePaymentRequest.filter(account_id=visit.account_id, payment_request_id=request_id).values_list(
        "message_id", flat=True
    )
    if not bound:
        return None
    readable = await _readable(visit, contact_id)
    if not await readable.filter(id__in=list(bound)).exists():
        return None
    ids = await merged_rows.contact_ids(visit.account_id, contact_id)
    request = await PaymentRequest.get_or_none(id=request_id, contact_id__in=ids, discarded_at=None)
    return _card(request) if request is not None else None


async def _readable(visit: Visit, contact_id: UUID) -> QuerySet[Message]:
    conversation = await Conversation.get(contact_id=contact_id)
    found = Message.filter(
        Q(direction="INBOUND") | Q(delivery_status__in=_READABLE),
        account_id=visit.account_id,
        conversation_id__in=merged_rows.ids_of(conversation),
        channel_connection_id=visit.connection_id,
    )
    if not conversation.merged_ids or await ContactAddress.filter(contact_id=contact_id, kind=KIND).count() < 2:
        return found
    # The team may have merged the wrong visitors: each sees only its own messages.
    return found.filter(address__in=await _own_addresses(visit))


async def _own_addresses(visit: Visit) -> list[str]:
    browsers = [visit.visitor_id]
    if visit.external_id is not None:
        same = Visitor.filter(channel_connection_id=visit.connection_id, external_id=visit.external_id)
        browsers += [row.id for row in await same.only("id")]
    widget_key = public_id("chn", visit.connection_id)
    return [visit.address, *(web_chat.address_of(public_id("vis", id), widget_key) for id in browsers)]


async def _shown(visit: Visit, contact_id: UUID, rows: Sequence[Message]) -> list[Shown]:
    account = await business(visit)
    bindings = await MessagePaymentRequest.filter(
        account_id=visit.account_id, message_id__in=[row.id for row in rows if row.direction == "OUTBOUND"]
    )
    requests = {
        request.id: request
        for request in await PaymentRequest.filter(
            id__in=[binding.payment_request_id for binding in bindings],
            contact_id__in=await merged_rows.contact_ids(visit.account_id, contact_id),
            discarded_at=None,
        )
    }
    own = f"{visit.visitor_id.hex}:"
    return [
        Shown(
            row=row,
            author=_author(row, account),
            client_message_id=(row.external_id or "").removeprefix(own)
            if (row.external_id or "").startswith(own)
            else None,
            cards=[
                _card(requests[binding.payment_request_id])
                for binding in bindings
                if binding.message_id == row.id and binding.payment_request_id in requests
            ],
        )
        for row in rows
    ]


def _author(row: Message, account: Account) -> str | None:
    if row.direction == "INBOUND":
        return None
    # Automated messages come from the business: the name of an API key is internal.
    return row.author_name if row.author_id is not None and row.author_name else account.name


def _card(request: PaymentRequest) -> Card:
    left = max(0, request.amount_minor - request.amount_paid_minor - request.waived_minor)
    return Card(
        request=request,
        state=checkout_page.state_of(request),
        amount=Money(request.amount_minor, request.currency),
        due=Money(left, request.currency),
        pay_url=payment_links.checkout_url(request),
    )


# -------------------------------------------------------------------------------------------------------------- write
async def write(visit: Visit, *, client_message_id: str, body: str, client_address: str) -> Shown:
    """Store a visitor's message, once per `client_message_id`.

    Raises: IdentityRequired, WidgetClosed, Blank, TooLong, Invalid, RateLimited.
    """
    visit.require_identity()
    refusals = Refusals()
    with refusals:
        if _CLIENT_ID.fullmatch(client_message_id) is None:
            raise Invalid("8 to 64 letters, digits, - and _.", field="clientMessageId")
    with refusals:
        text = validation.required(body, limit=BODY_LIMIT, field="body", message=True)
    refusals.raise_any()
    connection = await open_widget(visit.connection_id)
    if connection is None:
        raise WidgetClosed
    external_id = f"{visit.visitor_id.hex}:{client_message_id}"
    row = await Message.get_or_none(channel_connection_id=connection.id, external_id=external_id)
    if row is None:
        await visits.count_use(client_address, visit.visitor_id)
        await _store(connection, visit, external_id, text)
        row = await Message.get(channel_connection_id=connection.id, external_id=external_id)
    return (await _shown(visit, row.contact_id, [row]))[0]


async def _store(connection: ChannelConnection, visit: Visit, external_id: str, text: str) -> None:
    async with change(visit.account_id, queue_on=[visit.visitor_id]) as changed:
        # Lock the visitor before the contact, as visits.start does. A visitor bound to a person meanwhile must not write under
        # the old address, in a conversation that they no longer see.
        same = Visitor.filter(id=visit.visitor_id, external_id=visit.external_id).select_for_update(no_key=True)
        if await same.get_or_none() is None:
            raise IdentityRequired
        first = await visits.held_contact_id(visit) is None
        contact, conversation = await contacts.find_or_create_by_address(
            changed, connection, KIND, visit.address, visit.name
        )
        changed.actor = actors.contact(contact.id)
        if first:
            if visit.identity is not None:
                await visits.store_vouched_email(contact, visit)
            # Before the message, so that connected widgets recognize it as theirs.
            visits.announce_contact(changed, visit, contact.id, conversation.id)
        await Visitor.filter(id=visit.visitor_id).update(contact_id=contact.id)
        await inbound.store(
            connection,
            InboundMessage(external_id=external_id, sender=visit.address, body=text, occurred_at=changed.now),
            changed.now,
        )


async def mark_shown(visit: Visit, message_id: UUID, *, read: bool) -> None:
    """Mark everything up to this message DELIVERED or, with `read`, READ.

    Raises: IdentityRequired, Invalid.
    """
    contact_id = await visits.contact_of(visit)
    if contact_id is None:
        raise Invalid("This message is not in this conversation.", field="upTo")
    readable = await _readable(visit, contact_id)
    newest = await readable.get_or_none(id=message_id)
    if newest is None:
        raise Invalid("This message is not in this conversation.", field="upTo")
    behind = ["SENT", "DELIVERED"] if read else ["SENT"]
    waiting = readable.filter(direction="OUTBOUND", seq__lte=newest.seq, delivery_status__in=behind)
    rows = await waiting.order_by("seq").limit(SHOWN_AT_ONCE)
    connection = await providers.channel_connection(visit.connection_id, visit.account_id)
    status = web_chat.STATES["read" if read else "shown"]
    for row in rows:
        if row.external_id is not None:
            await delivery.record_status(connection, StatusUpdate(external_id=row.external_id, status=status))
