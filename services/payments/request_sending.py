"""Sends a payment request: composes the text with its link, previews it, sends the message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from models import errors, rows
from models.tables import Account, ActivityCard, ChannelConnection, Message, PaymentRequest
from services.connections import providers
from services.core import idempotency, validation
from services.core.permissions import Actor
from services.messaging import composer, messages
from services.messaging.composer import Template
from services.payments import payment_requests
from services.thread import payment_links


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposerInsert:
    text: str
    checkout_url: str
    measure: composer.Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    text: str
    measure: composer.Measure
    refusal: errors.Refusal | None  # why sending would be refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    request: PaymentRequest
    message: Message
    card: ActivityCard | None  # of the first sending


async def compose(actor: Actor, request: PaymentRequest, channel_id: UUID) -> ComposerInsert | None:
    """The text with the link; None once the link is closed. Raises: NotFound."""
    if not payment_links.is_alive(request) or request.discarded_at is not None:
        return None
    connection = await providers.channel_connection(channel_id, actor.account_id)
    account = await rows.get(Account, "WHERE id = ?", actor.account_id)
    message_text = composer.compose(account, request, connection, None)
    return ComposerInsert(
        text=message_text,
        checkout_url=payment_links.checkout_url(request),
        measure=composer.measure(message_text, connection),
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
    """The message as `send` would compose it, or `body` without a payment request. Raises: NotFound."""
    connection = await providers.channel_connection(channel_id, actor.account_id)
    message_text = body or ""
    if payment_request_id is not None:
        request = await payment_requests.get(actor, payment_request_id)
        message_text, template = await _compose_message(request, connection, body, template)
    refusal = await messages.refusal(
        actor,
        conversation_id=conversation_id,
        channel_id=channel_id,
        body=message_text,
        template=template,
        must_bind=payment_request_id,
    )
    if isinstance(refusal, errors.NotFound):
        raise refusal
    message_text = message_text.strip()
    return Preview(text=message_text, measure=composer.measure(message_text, connection), refusal=refusal)


async def _compose_message(
    request: PaymentRequest, connection: ChannelConnection, body: str | None, template: Template | None
) -> tuple[str, Template | None]:
    account = await rows.get(Account, "WHERE id = ?", request.account_id)
    filled = composer.compose_template(account, request, connection, template) if template is not None else None
    return composer.compose(account, request, connection, body), filled


async def send(
    actor: Actor,
    *,
    payment_request_id: UUID,
    channel_id: UUID,
    idempotency_key: str,
    body: str | None = None,
    template: Template | None = None,
) -> Sent:
    """Compose and send; sending again makes a new message and no new card.

    `{link}` in a template's variable becomes the link. Raises: AlreadyPaid, AlreadyVoid, and what `send_message` raises.
    """
    if not actor.may("request_payment"):
        raise messages.forbidden(await _refusal_of(actor, payment_request_id, channel_id, body, template))
    given = {"request": payment_request_id, "channel": channel_id, "body": body, "template": template}

    async def run(save: idempotency.Save) -> Sent:
        request, connection = await _check(actor, payment_request_id, channel_id, body, template)
        account = await rows.get(Account, "WHERE id = ?", actor.account_id)
        message_text, filled = await _compose_message(request, connection, body, template)
        sent = await messages.send_message(
            actor,
            conversation_id=request.conversation_id,
            channel_id=channel_id,
            body=message_text,
            template=filled,
            subject=f"{account.name}: {request.product_name}" if connection.kind == "EMAIL" else None,
            must_bind=request.id,
            save=save,
        )
        card = next((c for c in sent.cards if c.payment_request_id == request.id), None)
        return Sent(request=await payment_requests.get(actor, payment_request_id), message=sent.message, card=card)

    async def rebuild(ids: dict[str, Any]) -> Sent:
        message = await Message.get(id=UUID(ids["message"]), account_id=actor.account_id)
        card = await ActivityCard.get_or_none(
            account_id=actor.account_id, message_id=message.id, payment_request_id=payment_request_id
        )
        return Sent(request=await payment_requests.get(actor, payment_request_id), message=message, card=card)

    return await idempotency.once(actor, "sendPaymentRequest", idempotency_key, given, run, rebuild)


async def _check(
    actor: Actor, payment_request_id: UUID, channel_id: UUID, body: str | None, template: Template | None
) -> tuple[PaymentRequest, ChannelConnection]:
    request: PaymentRequest | None = None
    connection: ChannelConnection | None = None
    refusals = errors.Refusals()
    with refusals:
        request = await payment_requests.get(actor, payment_request_id)
        payment_links.refuse_closed(request)
    with refusals:
        connection = await providers.channel_connection(channel_id, actor.account_id)
    with refusals:
        validation.optional(body, limit=messages.BODY_LIMIT, field="body", message=True)
    with refusals:
        if template is not None:
            composer.checked(template)
    if refusals and request is not None and connection is not None:
        with refusals:  # already refused: also report what sending would refuse later
            await _refuse_sending(actor, request, connection, body, template)
    refusals.raise_any()
    assert request is not None and connection is not None  # noqa: S101, PT018 (refused above)
    return request, connection


async def _refuse_sending(
    actor: Actor,
    request: PaymentRequest,
    connection: ChannelConnection,
    body: str | None,
    template: Template | None,
) -> None:
    message_text, filled = await _compose_message(request, connection, body, template)
    refusal = await messages.refusal(
        actor,
        conversation_id=request.conversation_id,
        channel_id=connection.id,
        body=message_text,
        template=filled,
        must_bind=request.id,
    )
    if refusal is not None:
        raise refusal


async def _refusal_of(
    actor: Actor, payment_request_id: UUID, channel_id: UUID, body: str | None, template: Template | None
) -> errors.Refusal | None:
    try:
        request = await payment_requests.get(actor, payment_request_id)
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
