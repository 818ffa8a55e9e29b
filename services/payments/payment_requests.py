"""Payment requests: create, copy the link, discard, available actions."""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from models import database, errors, ledger, rows, vault
from models.ids import public_id, uuid7
from models.ledger import Facet, Status
from models.money import CURRENCIES, Money
from models.tables import (
    Account,
    ChannelConnection,
    CheckoutSession,
    PaymentRequest,
    ProcessorConnection,
)
from services.connections import providers
from services.core import idempotency, validation
from services.core.permissions import Actor, allows
from services.core.unit_of_work import change
from services.payments import projection, request_pricing, request_recipients
from services.thread import contact_totals, payment_links, request_rows

NAME_LIMIT = 255  # characters
DESCRIPTION_LIMIT = 2000
TOKEN_BYTES = 16
DUE_WITHIN = timedelta(days=3653)  # ten years; a later date is a typo


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    currency: str
    currencies: list[str]
    processor: ProcessorConnection | None
    test_mode: bool


# ------------------------------------------------------------------------------------------------------------ create
async def defaults(actor: Actor) -> Defaults:
    account = await Account.get(id=actor.account_id)
    connection = await providers.default_processor(actor.account_id)
    taken = []
    if connection is not None:
        processor = providers.processor(connection)
        taken = [code for code in sorted(CURRENCIES) if processor.amount_limits(code) is not None]
    return Defaults(
        currency=account.default_currency,
        currencies=taken or [account.default_currency],
        processor=connection,
        test_mode=connection.test_mode if connection is not None else False,
    )


async def create(
    actor: Actor,
    *,
    product_name: str,
    amount: str,
    idempotency_key: str,
    contact_id: UUID | None = None,
    conversation_id: UUID | None = None,
    new_contact: request_recipients.NewContact | None = None,
    channel_id: UUID | None = None,
    currency: str | None = None,
    description: str | None = None,
    due_at: datetime | None = None,
    processor: str | None = None,
    processor_id: UUID | None = None,
) -> PaymentRequest:
    """Create a DRAFT with a live link, and the new contact if there is one. Safe to repeat with the same idempotency key.

    The recipient is one of `contact_id`, `conversation_id` and `new_contact`, or a contact and its own conversation.
    `amount`: decimal text; `processor`: a kind; `processor_id`: one connection. Raises: the refusals of each field.
    """
    actor.require("request_payment")
    given = _Given(
        to=request_recipients.Given(contact=contact_id, conversation=conversation_id, new=new_contact),
        channel=channel_id,
        product=product_name,
        amount=amount,
        currency=currency,
        description=description,
        due=due_at,
        processor=processor,
        processor_id=processor_id,
    )

    async def run(save: idempotency.Save) -> PaymentRequest:
        checked = await _check_input(actor, await rows.get(Account, "WHERE id = ?", actor.account_id), given)
        return await _store(actor, checked, save)

    async def rebuild(ids: dict[str, Any]) -> PaymentRequest:
        return await get(actor, UUID(ids["payment_request"]))

    return await idempotency.once(actor, "createPaymentRequest", idempotency_key, asdict(given), run, rebuild)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """Its names and values are hashed with the idempotency key."""

    to: request_recipients.Given
    channel: UUID | None
    product: str
    amount: str
    currency: str | None
    description: str | None
    due: datetime | None
    processor: str | None
    processor_id: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _CheckedInput:
    to: request_recipients.Recipient
    channel_id: UUID | None
    product_name: str
    description: str | None
    money: Money
    due_at: datetime | None
    connection: ProcessorConnection


async def _check_input(actor: Actor, account: Account, given: _Given) -> _CheckedInput:
    to: request_recipients.Recipient | None = None
    connection: ProcessorConnection | None = None
    refusals = errors.Refusals()
    with refusals:
        to = await request_recipients.check(actor, given.to)
    with refusals:
        named = "WHERE id = ? AND account_id = ?"
        if given.channel is not None and not await rows.find(ChannelConnection, named, given.channel, account.id):
            raise errors.NotFound(field="channelId")
    with refusals:
        name = validation.required(given.product, limit=NAME_LIMIT, field="productName")
    with refusals:
        details = validation.optional(given.description, limit=DESCRIPTION_LIMIT, field="description", lines=True)
    with refusals:
        _refuse_due_date(given.due, datetime.now(UTC))
    with refusals:
        connection = await request_pricing.connection(account.id, given.processor, given.processor_id)
    with refusals:
        wanted = (account.default_currency if given.currency is None else given.currency).upper()
        money = request_pricing.price(given.amount, wanted, connection, locale=account.locale)
    refusals.raise_any()
    assert to is not None and connection is not None  # noqa: S101, PT018 (refused above)
    return _CheckedInput(
        to=to,
        channel_id=given.channel,
        product_name=name,
        description=details,
        money=money,
        due_at=given.due,
        connection=connection,
    )


def _refuse_due_date(due_at: datetime | None, now: datetime) -> None:
    if due_at is not None and due_at < now:
        raise errors.Invalid("The due date is in the past.", field="dueAt")
    if due_at is not None and due_at > now + DUE_WITHIN:
        raise errors.Invalid("The due date is too far away.", field="dueAt")


async def _store(actor: Actor, checked: _CheckedInput, save: idempotency.Save) -> PaymentRequest:
    token = secrets.token_urlsafe(TOKEN_BYTES)
    async with request_recipients.changing(actor, checked.to) as (changed, contact, conversation):
        ((count, prefix),) = await database.records(
            "UPDATE account SET request_count = request_count + 1 WHERE id = ? RETURNING request_count, number_prefix",
            actor.account_id,
        )
        request = PaymentRequest(
            id=uuid7(),
            account_id=actor.account_id,
            conversation_id=conversation.id,
            contact_id=contact.id,
            number=f"{prefix}{int(count):07d}",
            token_hash=vault.digest(token),
            token=vault.seal(actor.account_id, token),
            product_name=checked.product_name,
            description=checked.description,
            amount_minor=checked.money.amount_minor,
            currency=checked.money.currency,
            test_mode=checked.connection.test_mode,
            processor_connection_id=checked.connection.id,
            channel_connection_id=checked.channel_id,
            created_by_id=actor.user_id,
            created_by=actor.ref.stored(),
            due_at=checked.due_at,
            status=Status.DRAFT.value,
            created_at=changed.now,
            updated_at=changed.now,
        )
        request.fold()
        await rows.add([request])
        changed.request_event("created", request, previous_status=None, facets=())
        if await contact_totals.update(actor.account_id, contact.id):  # its first request in this currency
            changed.event("contact.updated", conversation_id=conversation.id, contact_id=contact.id)
        await save({"payment_request": str(request.id)})
    return request


# -------------------------------------------------------------------------------------------------------------- link
async def record_link_copied(actor: Actor, payment_request_id: UUID) -> PaymentRequest:
    """Record that the link was copied; the status stays. Safe to repeat.

    Raises: Forbidden, NotFound, AlreadyPaid, AlreadyVoid.
    """
    actor.require("request_payment")
    async with change(actor.account_id, actor=actor.ref, queue_on=[payment_request_id]) as changed:
        request = await request_rows.lock_visible(actor.account_id, payment_request_id)
        payment_links.refuse_closed(request)
        if request.link_copied_at is None:
            request.link_copied_at = changed.now
            request.version += 1
            await rows.update(request, ["link_copied_at", "version", "updated_at"])
            changed.request_event("link_copied", request, previous_status=request.status, facets=(Facet.DELIVERY,))
        return request


async def discard(actor: Actor, payment_request_id: UUID) -> PaymentRequest:
    """Hide a draft that was never copied, sent or opened. Raises: AlreadySent."""
    actor.require("request_payment")
    async with change(actor.account_id, actor=actor.ref, queue_on=[payment_request_id]) as changed:
        request = await request_rows.lock_visible(actor.account_id, payment_request_id)
        opened = await CheckoutSession.exists(payment_request_id=request.id)
        if (
            request.status != Status.DRAFT
            or request.link_copied_at is not None
            or request.first_viewed_at is not None
            or opened
        ):
            raise errors.AlreadySent(current=public_id("pr", request.id), field="paymentRequestId")
        request.discarded_at = changed.now
        request.version += 1
        await request.save(update_fields=["discarded_at", "version", "updated_at"])
        await contact_totals.lock_contact(actor.account_id, request.contact_id)
        await contact_totals.update(actor.account_id, request.contact_id)
        changed.request_event("discarded", request, previous_status=request.status, facets=(Facet.DISCARDED,))
        return request


# ------------------------------------------------------------------------------------------------------------- queries
def available_actions(
    request: PaymentRequest, role: str, *, refundable: bool = False, resolvable: bool = False
) -> list[tuple[str, str | None]]:
    """Actions that this role may take now, each with the status that follows (None: unchanged)."""
    if role == "VIEWER" or request.discarded_at is not None:
        return []
    actions: list[tuple[str, str | None]] = []
    if payment_links.is_alive(request):
        actions.append(("SEND", Status.SENT.value if request.status == Status.DRAFT else None))
        actions.append(("COPY_LINK", None))
        if projection.is_releasable(request):
            actions.append(("RELEASE_LINK", None))
        if ledger.is_payable(request.status, released=request.released_at is not None):
            actions.append(("VOID", Status.VOID.value))
            actions.append(("RECORD_OUTSIDE_PAYMENT", Status.PAID.value))
    if refundable and allows(role, "refund"):
        actions.append(("REFUND", None))
    held = request.status == Status.PROCESSING and request.released_at is None
    closing = request.status == Status.VOID or request.void_requested_at is not None
    if resolvable and not held and not closing:
        actions.append(("RESOLVE_MISMATCH", None if request.status == Status.PAID else Status.PAID.value))
    return actions


async def get(actor: Actor, payment_request_id: UUID) -> PaymentRequest:
    """Raises: NotFound (also for a discarded request)."""
    visible = "WHERE id = ? AND account_id = ? AND discarded_at IS NULL"
    request = await rows.first(PaymentRequest, visible, payment_request_id, actor.account_id)
    if request is None:
        raise errors.NotFound(field="paymentRequestId")
    return request
