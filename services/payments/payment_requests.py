"""The payment request as a use-case: defaults, create, compose, preview, send, copy, discard. Voiding: voids.py; money: recorder.py."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from integrations.base import AmountLimits
from models import database, errors, ledger, vault
from models.ids import uuid7
from models.ledger import Status
from models.money import CURRENCIES, Money
from models.tables import (
    Account,
    ActivityCard,
    ChannelConnection,
    CheckoutSession,
    Conversation,
    Message,
    PaymentRequest,
    ProcessorConnection,
)
from services.connections import providers
from services.core import idempotency, merged_rows, validation
from services.core.permissions import Actor, allows
from services.core.unit_of_work import change
from services.messaging import composer, messages
from services.messaging.composer import Template
from services.payments import projection
from services.thread import contact_totals, payment_links, request_rows

NAME_LIMIT = 255  # characters
DESCRIPTION_LIMIT = 2000
TOKEN_BYTES = 16
DUE_WITHIN = timedelta(
    days=3653
)  # ten years; beyond it is a slip, and a date that no time zone may push over the calendar


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What the dialog shows before anything is typed."""

    currency: str
    currencies: list[str]
    processor: ProcessorConnection | None
    test_mode: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposerInsert:
    """What the dialog's Send puts into the message box."""

    text: str
    checkout_url: str
    measure: composer.Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A message as it would go out now. `refusal`: what sending it would be refused with; None: it would be accepted."""

    text: str
    measure: composer.Measure
    refusal: errors.Refusal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A request, the message that carries its link, and the card, if this was the first sending."""

    request: PaymentRequest
    message: Message
    card: ActivityCard | None


# ------------------------------------------------------------------------------------------------------------ create
async def defaults(actor: Actor) -> Defaults:
    """Currency, allowed currencies and processor of a new request."""
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
    contact_id: UUID,
    product_name: str,
    amount: str,
    idempotency_key: str,
    conversation_id: UUID | None = None,
    channel_id: UUID | None = None,
    currency: str | None = None,
    description: str | None = None,
    due_at: datetime | None = None,
    processor: str | None = None,
    processor_id: UUID | None = None,
) -> PaymentRequest:
    """Make a DRAFT with a live link; nothing is sent, no card. `amount` is a decimal text; `processor` a kind (STRIPE …).

    `processor_id` is a certain connection, where several of a kind are connected.

    Safe to repeat with the same idempotency key. Raises: the refusals of each field.
    """
    actor.require("request_payment")
    given = {
        "contact": contact_id,
        "conversation": conversation_id,
        "channel": channel_id,
        "product": product_name,
        "amount": amount,
        "currency": currency,
        "description": description,
        "due": due_at,
        "processor": processor,
        "processor_id": processor_id,
    }

    async def run(save: idempotency.Save) -> PaymentRequest:
        account = await Account.get(id=actor.account_id)
        contact = await merged_rows.contact(actor.account_id, contact_id)
        conversation = await Conversation.get_or_none(contact_id=contact.id) if contact is not None else None
        connection: ProcessorConnection | None = None
        refusals = errors.Refusals()
        with refusals:
            if conversation is None:
                raise errors.NotFound(field="contactId")
        with refusals:
            named = (
                await merged_rows.conversation(actor.account_id, conversation_id)
                if conversation_id is not None
                else None
            )
            if conversation_id is not None and (
                named is None or (conversation is not None and named.id != conversation.id)
            ):
                raise errors.NotFound(field="conversationId")
        with refusals:
            channel = ChannelConnection.filter(id=channel_id, account_id=actor.account_id)
            if channel_id is not None and not await channel.exists():
                raise errors.NotFound(field="channelId")
        with refusals:
            name = validation.required(product_name, limit=NAME_LIMIT, field="productName")
        with refusals:
            words = validation.optional(description, limit=DESCRIPTION_LIMIT, field="description", lines=True)
        with refusals:
            if due_at is not None and due_at < datetime.now(UTC):
                raise errors.Invalid("The due date is in the past.", field="dueAt")
            if due_at is not None and due_at > datetime.now(UTC) + DUE_WITHIN:
                raise errors.Invalid("The due date is too far away.", field="dueAt")
        with refusals:
            connection = await _connection(actor.account_id, processor, processor_id)
        with refusals:
            money = _price(
                amount,
                (account.default_currency if currency is None else currency).upper(),
                connection,
                locale=account.locale,
            )
        refusals.raise_any()
        assert conversation is not None and connection is not None  # noqa: S101, PT018 (refused above)
        token = secrets.token_urlsafe(TOKEN_BYTES)
        async with change(actor.account_id, actor_id=actor.user_id, rows=[conversation.contact_id]) as changed:
            contact = await contact_totals.lock_contact(actor.account_id, conversation.contact_id)
            conversation = await Conversation.get(contact_id=contact.id)
            counted = await database.rows(
                "UPDATE account SET request_count = request_count + 1 WHERE id = ? RETURNING request_count, number_prefix",
                actor.account_id,
            )
            request = await PaymentRequest.create(
                id=uuid7(),
                account_id=actor.account_id,
                conversation_id=conversation.id,
                contact_id=contact.id,
                number=f"{counted[0]['number_prefix']}{int(counted[0]['request_count']):07d}",
                token_hash=vault.digest(token),
                token=vault.seal(actor.account_id, token),
                product_name=name,
                description=words,
                amount_minor=money.amount_minor,
                currency=money.currency,
                test_mode=connection.test_mode,
                processor_connection_id=connection.id,
                channel_connection_id=channel_id,
                created_by_id=actor.user_id,
                due_at=due_at,
                status=Status.DRAFT.value,
                created_at=changed.now,
                updated_at=changed.now,
            )
            await contact_totals.update(actor.account_id, contact.id)
            changed.request_event("created", request, previous_status=None)
            await save({"payment_request": str(request.id)})
        return request

    async def rebuild(ids: dict[str, Any]) -> PaymentRequest:
        return await _get(actor, UUID(ids["payment_request"]))

    return await idempotency.once(actor, "createPaymentRequest", idempotency_key, given, run, rebuild)


async def _connection(account_id: UUID, kind: str | None, connection_id: UUID | None) -> ProcessorConnection:
    """The processor of a new request: the named connection, one of the named kind, or the default."""
    if connection_id is not None:
        row = await ProcessorConnection.get_or_none(id=connection_id, account_id=account_id)
        if row is None:
            raise errors.NotFound(field="processorId")
        if kind not in (None, providers.processor_kind(row)):
            raise errors.Invalid("The connection of processorId is of another kind.", field="processor")
        if not providers.usable(row):
            raise errors.NoProcessorConfigured(
                "This processor is not connected: connect it again in Settings → Payments (configureProcessor), or choose another.",
                field="processorId",
            )
        return row
    if kind is None:
        connection = await providers.default_processor(account_id)
        if connection is None:
            raise errors.NoProcessorConfigured
        return connection
    found = await ProcessorConnection.filter(account_id=account_id)
    chosen = providers.first_choice([row for row in found if providers.processor_kind(row) == kind])
    if chosen is None:
        raise errors.NoProcessorConfigured(
            "No processor of this kind is connected: connect one in Settings → Payments (configureProcessor), or choose another."
            " A test connection beside a live one must be named (processorId).",
            field="processor",
        )
    return chosen


def _price(amount: str, currency: str, connection: ProcessorConnection | None, *, locale: str) -> Money:
    """The amount as money that this processor takes; without a processor, as money.

    Raises: Invalid, CurrencyNotSupported, AmountTooSmall, AmountTooLarge.
    """
    known = currency in CURRENCIES
    limits = None
    refusals = errors.Refusals()
    with refusals:
        if not known:
            raise errors.CurrencyNotSupported("This is not an ISO 4217 currency.", field=("amount", "currency"))
        if connection is not None:
            limits = providers.processor(connection).amount_limits(currency)
            if limits is None:
                raise errors.CurrencyNotSupported(field=("amount", "currency"))
    with refusals:
        money = validation.parse_amount(amount, currency if known else None, field=("amount", "amount"))
        if limits is not None:
            _refuse_beyond(limits, money, locale)
        elif money.amount_minor == 0:
            raise errors.AmountTooSmall(field=("amount", "amount"))
    refusals.raise_any()
    return money


def _refuse_beyond(limits: AmountLimits, money: Money, locale: str) -> None:
    """Raises: AmountTooSmall, AmountTooLarge, Invalid (a step that the processor does not take)."""
    least = max(1, limits.minimum_minor)
    if money.amount_minor < least:
        smallest = Money(least, money.currency).formatted(locale)
        raise errors.AmountTooSmall(f"The smallest amount is {smallest}.", field=("amount", "amount"))
    if limits.maximum_minor is not None and money.amount_minor > limits.maximum_minor:
        largest = Money(limits.maximum_minor, money.currency).formatted(locale)
        raise errors.AmountTooLarge(f"The largest amount is {largest}.", field=("amount", "amount"))
    if money.amount_minor % limits.step_minor:
        raise errors.Invalid("The processor does not take this many decimals.", field=("amount", "amount"))


# -------------------------------------------------------------------------------------------------------------- link
async def compose(actor: Actor, request: PaymentRequest, channel_id: UUID) -> ComposerInsert | None:
    """The text for this channel with the link in it; stores and sends nothing. None once its link is closed. Raises: NotFound."""
    if not payment_links.is_open(request) or request.discarded_at is not None:
        return None
    connection = await providers.channel_connection(channel_id, actor.account_id)
    account = await Account.get(id=actor.account_id)
    words = composer.compose(account, request, connection, None)
    return ComposerInsert(
        text=words, checkout_url=payment_links.checkout_url(request), measure=composer.measure(words, connection)
    )


async def preview(
    actor: Actor,
    *,
    conversation_id: UUID,
    channel_id: UUID,
    body: str | None = None,
    payment_request_id: UUID | None = None,
    template: Template | None = None,
) -> Preview:
    """What would go out: with a payment request as `send` composes it, else as it is. Stores and sends nothing. Raises: NotFound."""
    connection = await providers.channel_connection(channel_id, actor.account_id)
    words = body or ""
    if payment_request_id is not None:
        request = await _get(actor, payment_request_id)
        words, template = await _composed(request, connection, body, template)
    refusal = await messages.refusal(
        actor,
        conversation_id=conversation_id,
        channel_id=channel_id,
        body=words,
        template=template,
        must_bind=payment_request_id,
    )
    if isinstance(refusal, errors.NotFound):
        raise refusal
    words = words.strip()
    return Preview(text=words, measure=composer.measure(words, connection), refusal=refusal)


async def _composed(
    request: PaymentRequest, connection: ChannelConnection, body: str | None, template: Template | None
) -> tuple[str, Template | None]:
    account = await Account.get(id=request.account_id)
    filled = composer.compose_template(account, request, connection, template) if template is not None else None
    return composer.compose(account, request, connection, body), filled


async def record_link_copied(actor: Actor, payment_request_id: UUID) -> PaymentRequest:
    """Remember that the link was copied; nothing is sent, the status stays. Safe to repeat.

    Raises: Forbidden, NotFound, AlreadyPaid, AlreadyVoid: a closed link asks for nothing.
    """
    actor.require("request_payment")
    async with change(actor.account_id, actor_id=actor.user_id, rows=[payment_request_id]) as changed:
        request = await request_rows.lock_visible(actor.account_id, payment_request_id)
        _refuse_closed(request)
        if request.link_copied_at is None:
            request.link_copied_at = changed.now
            request.version += 1
            await request.save(update_fields=["link_copied_at", "version", "updated_at"])
            changed.request_event("link_copied", request, previous_status=request.status)
        return request


async def discard(actor: Actor, payment_request_id: UUID) -> PaymentRequest:
    """Hide a draft that nobody has seen: never copied, bound or opened. Its number stays, its link answers 404."""
    actor.require("request_payment")
    async with change(actor.account_id, actor_id=actor.user_id, rows=[payment_request_id]) as changed:
        request = await request_rows.lock_visible(actor.account_id, payment_request_id)
        opened = await CheckoutSession.exists(payment_request_id=request.id)
        if (
            request.status != Status.DRAFT
            or request.link_copied_at is not None
            or request.first_viewed_at is not None
            or opened
        ):
            raise errors.AlreadySent(field="paymentRequestId")
        request.discarded_at = changed.now
        request.version += 1
        await request.save(update_fields=["discarded_at", "version", "updated_at"])
        await contact_totals.lock_contact(actor.account_id, request.contact_id)
        await contact_totals.update(actor.account_id, request.contact_id)
        changed.request_event("discarded", request, previous_status=request.status)
        return request


# -------------------------------------------------------------------------------------------------------------- send
async def send(
    actor: Actor,
    *,
    payment_request_id: UUID,
    channel_id: UUID,
    idempotency_key: str,
    body: str | None = None,
    template: Template | None = None,
) -> Sent:
    """Compose and send in one step; may repeat a SENT one (new message, no new card). Refuses PAID and VOID.

    With a `template` one of its variables carries the link: `{link}` in a value becomes it.
    """
    if not actor.may("request_payment"):
        raise messages.forbidden(await _told(actor, payment_request_id, channel_id, body, template))
    given = {"request": payment_request_id, "channel": channel_id, "body": body, "template": template}

    async def run(save: idempotency.Save) -> Sent:
        request: PaymentRequest | None = None
        connection: ChannelConnection | None = None
        refusals = errors.Refusals()
        with refusals:
            request = await _get(actor, payment_request_id)
            _refuse_closed(request)
        with refusals:
            connection = await providers.channel_connection(channel_id, actor.account_id)
        with refusals:
            validation.optional(body, limit=messages.BODY_LIMIT, field="body", message=True)
        with refusals:
            if template is not None:
                composer.checked(template)
        if refusals and request is not None and connection is not None:
            with refusals:
                await _refuse_sending(actor, request, connection, body, template)
        refusals.raise_any()
        assert request is not None and connection is not None  # noqa: S101, PT018 (refused above)
        account = await Account.get(id=actor.account_id)
        words, filled = await _composed(request, connection, body, template)
        sent = await messages.send_message(
            actor,
            conversation_id=request.conversation_id,
            channel_id=channel_id,
            body=words,
            template=filled,
            subject=f"{account.name}: {request.product_name}" if connection.kind == "EMAIL" else None,
            must_bind=request.id,
            save=save,
        )
        card = next((c for c in sent.cards if c.payment_request_id == request.id), None)
        return Sent(request=await _get(actor, payment_request_id), message=sent.message, card=card)

    async def rebuild(ids: dict[str, Any]) -> Sent:
        message = await Message.get(id=UUID(ids["message"]), account_id=actor.account_id)
        card = await ActivityCard.get_or_none(
            account_id=actor.account_id, message_id=message.id, payment_request_id=payment_request_id
        )
        return Sent(request=await _get(actor, payment_request_id), message=message, card=card)

    return await idempotency.once(actor, "sendPaymentRequest", idempotency_key, given, run, rebuild)


async def _refuse_sending(
    actor: Actor,
    request: PaymentRequest,
    connection: ChannelConnection,
    body: str | None,
    template: Template | None,
) -> None:
    """Raises: what sending this would be refused with now. Reads only."""
    words, filled = await _composed(request, connection, body, template)
    refusal = await messages.refusal(
        actor,
        conversation_id=request.conversation_id,
        channel_id=connection.id,
        body=words,
        template=filled,
        must_bind=request.id,
    )
    if refusal is not None:
        raise refusal


async def _told(
    actor: Actor, payment_request_id: UUID, channel_id: UUID, body: str | None, template: Template | None
) -> errors.Refusal | None:
    """What the composer tells somebody who may not send this; None where there is nothing to tell of."""
    try:
        request = await _get(actor, payment_request_id)
        found = await preview(
            actor,
            conversation_id=request.conversation_id,
            channel_id=channel_id,
            body=body,
            payment_request_id=payment_request_id,
            template=template,
        )
    except errors.NotFound:
        return None
    return found.refusal


def _refuse_closed(request: PaymentRequest) -> None:
    if request.status == Status.PAID:
        raise errors.AlreadyPaid(field="paymentRequestId")
    if request.status == Status.VOID or request.void_requested_at is not None:
        raise errors.AlreadyVoid(field="paymentRequestId")


# ------------------------------------------------------------------------------------------------------------- shared
def available_actions(
    request: PaymentRequest, role: str, *, refundable: bool = False, resolvable: bool = False
) -> list[tuple[str, str | None]]:
    """What a viewer of this role may do now, with the status that follows (None: it stays).

    `refundable`: something of its charges can still be given back (`refunds.refundable`); `resolvable`: money that does not
    count can be accepted (`mismatches.resolvable`).
    """
    if role == "VIEWER" or request.discarded_at is not None:
        return []
    actions: list[tuple[str, str | None]] = []
    if payment_links.is_open(request):
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


async def _get(actor: Actor, payment_request_id: UUID) -> PaymentRequest:
    request = await PaymentRequest.get_or_none(id=payment_request_id, account_id=actor.account_id, discarded_at=None)
    if request is None:
        raise errors.NotFound(field="paymentRequestId")
    return request
