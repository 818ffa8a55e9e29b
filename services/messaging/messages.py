"""Messages that the team writes: checked, then committed as QUEUED with a job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from models import database, rows
from models.errors import Forbidden, Invalid, NotFound, Refusal, Refusals
from models.ids import uuid7
from models.tables import (
    Account,
    ActivityCard,
    ChannelConnection,
    Conversation,
    Message,
    MessagePaymentRequest,
    PaymentRequest,
)
from services.connections import availability, providers
from services.core import idempotency, merged_rows, validation
from services.core.permissions import Actor
from services.core.turns import turn
from services.core.unit_of_work import Change, change
from services.messaging import composer, copies, resending, sending
from services.messaging.composer import Template
from services.thread import contact_totals, payment_links, request_rows

BODY_LIMIT: Final = 50_000  # characters, whatever the channel takes
SUBJECT_LIMIT: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class SentMessage:
    """A queued message, and the activity cards that its payment links logged."""

    message: Message
    cards: list[ActivityCard]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Input:
    conversation_id: UUID
    channel_id: UUID
    body: str
    subject: str | None = None
    cc: Sequence[str] = ()
    template: Template | None = None
    must_bind: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    conversation: Conversation
    connection: ChannelConnection
    body: str
    subject: str | None
    cc: Sequence[str]
    template: Template | None
    templated: bool  # a template was given, even a refused one
    must_bind: UUID | None
    requests: Sequence[PaymentRequest] = ()  # whose links it carries


async def send_message(
    actor: Actor,
    *,
    conversation_id: UUID,
    channel_id: UUID,
    body: str,
    subject: str | None = None,
    cc: Sequence[str] = (),
    template: Template | None = None,
    idempotency_key: str | None = None,
    must_bind: UUID | None = None,
    save: idempotency.Save | None = None,
) -> SentMessage:
    """Commit a message as QUEUED with its job; requests whose links it carries become SENT.

    `template`: the contact receives it, and the thread shows `body`. `must_bind`: an open request whose link must be in the text.
    `save`: for a caller that has an idempotency key itself; it stores {"message": id}.
    Raises: NotFound, Forbidden, Blank, TooLong, Invalid, AlreadyPaid, AlreadyVoid, the refusals of availability.py.
    """
    given = _Input(
        conversation_id=conversation_id,
        channel_id=channel_id,
        body=body,
        subject=subject,
        cc=cc,
        template=template,
        must_bind=must_bind,
    )
    if not actor.may("message"):
        raise forbidden(await _refusal(actor, replace(given, subject=None, must_bind=None)))
    if idempotency_key is None:
        return await _commit(actor, given, save=save)
    fields = {
        "conversation": conversation_id,
        "channel": channel_id,
        "body": body,
        "subject": subject,
        "template": template,
    } | ({"cc": list(cc)} if cc else {})
    return await idempotency.once(
        actor,
        "sendMessage",
        idempotency_key,
        fields,
        lambda keep: _commit(actor, given, save=keep),
        lambda ids: _stored_message(actor.account_id, ids),
    )


async def resend_message(
    actor: Actor,
    *,
    message_id: UUID,
    channel_id: UUID,
    idempotency_key: str,
    confirm_possible_duplicate: bool = False,
) -> SentMessage:
    """Send a FAILED or UNKNOWN message again on any channel; of several callers one succeeds.

    `confirm_possible_duplicate`: for an UNKNOWN message, required until the look-ups are over, and always from automation.
    Raises: ConfirmationRequired, and what `send_message` raises.
    """
    actor.require("message")

    async def run(keep: idempotency.Save | None) -> SentMessage:
        message = await Message.get_or_none(id=message_id, account_id=actor.account_id)
        refusals = Refusals()
        with refusals:
            if message is None:
                raise NotFound(field="messageId")
        with refusals:
            await providers.channel_connection(channel_id, actor.account_id)
        refusals.raise_any()
        assert message is not None  # noqa: S101 (refused above)
        given = _Input(
            conversation_id=message.conversation_id,
            channel_id=channel_id,
            body=message.body,
            subject=message.subject,
            template=resending.template_of(message, channel_id),
        )
        repeat = resending.Repeat(message=message, confirmed=confirm_possible_duplicate)
        try:
            return await _commit(actor, given, save=keep, repeat=repeat)
        except Refusal as found:
            for one in found.all:
                if one.field is not None and one.field[0] in ("body", "template"):
                    one.field = ("channelId",)  # the caller gave neither: the channel cannot carry them
            raise

    fields = {"message": message_id, "channel": channel_id, "confirmed": confirm_possible_duplicate}
    return await idempotency.once(
        actor, "resendMessage", idempotency_key, fields, run, lambda ids: _stored_message(actor.account_id, ids)
    )


async def _stored_message(account_id: UUID, ids: dict[str, Any]) -> SentMessage:
    message = await Message.get(id=UUID(ids["message"]), account_id=account_id)
    cards = ActivityCard.filter(account_id=account_id, message_id=message.id, kind="PAYMENT_REQUEST")
    return SentMessage(message=message, cards=await cards.order_by("seq"))


# --------------------------------------------------------------------------------------------------------------- decide
async def refusal(
    actor: Actor,
    *,
    conversation_id: UUID,
    channel_id: UUID,
    body: str,
    cc: Sequence[str] = (),
    template: Template | None = None,
    must_bind: UUID | None = None,
) -> Refusal | None:
    """What `send_message` would raise now; None: it would accept."""
    given = _Input(
        conversation_id=conversation_id, channel_id=channel_id, body=body, cc=cc, template=template, must_bind=must_bind
    )
    return await _refusal(actor, given)


async def _refusal(actor: Actor, given: _Input) -> Refusal | None:
    try:
        draft = await _read_draft(actor, given)
        await _check_now(actor, draft, now=datetime.now(UTC))
    except Refusal as found:
        return found
    return None


def forbidden(found: Refusal | None) -> Refusal:
    """The refusal for a role that may not send; it reveals no ids."""
    if found is None or found.code not in availability.REASONS:
        return Forbidden()
    found.others = ()
    return found


async def _read_draft(actor: Actor, given: _Input) -> _Draft:
    refusals = Refusals()
    draft = await _parse_fields(actor, given, refusals)
    texts = [draft.body, *(draft.template.values if draft.template is not None else ())]
    draft = replace(draft, requests=await payment_links.carried(actor.account_id, "\n".join(texts)))
    with refusals:
        await _refuse_wrong_links(draft)
    if refusals:
        with refusals:  # already refused: also report what sending would refuse later
            await _check_now(actor, draft, now=datetime.now(UTC))
    refusals.raise_any()
    return draft


async def _parse_fields(actor: Actor, given: _Input, refusals: Refusals) -> _Draft:
    conversation = await merged_rows.conversation(actor.account_id, given.conversation_id)
    connection: ChannelConnection | None = None
    template: Template | None = None
    body, subject, cc = given.body, given.subject, list[str]()
    with refusals:
        if conversation is None:
            raise NotFound(field="conversationId")
    with refusals:
        connection = await providers.channel_connection(given.channel_id, actor.account_id)
    with refusals:
        body = validation.required(given.body, limit=BODY_LIMIT, field="body", message=True)
    with refusals:
        subject = validation.optional(given.subject, limit=SUBJECT_LIMIT, field="subject")
    with refusals:
        cc = copies.addresses(given.cc)
        if conversation is not None and connection is not None:
            cc = await copies.checked(conversation, connection, cc)
    with refusals:
        template = composer.checked(given.template) if given.template is not None else None
    if conversation is None or connection is None:
        refusals.raise_any()
    assert conversation is not None and connection is not None  # noqa: S101, PT018 (refused above)
    return _Draft(
        conversation=conversation,
        connection=connection,
        body=body,
        subject=subject,
        cc=cc,
        template=template,
        templated=given.template is not None,
        must_bind=given.must_bind,
    )


async def _refuse_wrong_links(draft: _Draft) -> None:
    if any(request.conversation_id not in merged_rows.ids_of(draft.conversation) for request in draft.requests):
        raise Invalid("This text contains another contact's payment link.", field="body")
    if draft.must_bind is not None and draft.must_bind not in {request.id for request in draft.requests}:
        if await rows.find(PaymentRequest, "WHERE id = ? AND discarded_at IS NOT NULL", draft.must_bind):
            raise NotFound(field="paymentRequestId")
        raise Invalid("The payment link is missing from this text.", field="body")


async def _check_now(actor: Actor, draft: _Draft, *, now: datetime) -> availability.Capability:
    refusals = Refusals()
    for request in draft.requests:
        if request.id == draft.must_bind:
            with refusals:
                payment_links.refuse_closed(request)
    asking = [request for request in draft.requests if payment_links.is_alive(request)]
    able = await availability.capability(
        actor,
        draft.conversation,
        draft.connection,
        payment_request=bool(asking),
        now=now,
        processor_ids={request.processor_connection_id for request in asking},
    )
    with refusals:
        availability.refuse(
            able, draft.conversation.id, draft.connection.id, payment_request=bool(asking), template=draft.templated
        )
        if draft.template is not None:
            composer.refuse_without_links(draft.body, draft.template, draft.requests)
            composer.refuse_long("".join(draft.template.values), draft.connection, field=("template", "variables"))
    with refusals:
        composer.refuse_long(draft.body, draft.connection, field="body")
    refusals.raise_any()
    return able


# ---------------------------------------------------------------------------------------------------------------- write
async def _commit(
    actor: Actor, given: _Input, *, save: idempotency.Save | None, repeat: resending.Repeat | None = None
) -> SentMessage:
    draft = await _read_draft(actor, given)
    if repeat is not None and copies.allowed(draft.connection):
        draft = replace(draft, cc=await copies.remaining(repeat.message))
    locked = [*(request.id for request in draft.requests), draft.conversation.contact_id, draft.conversation.id]
    # A binding refers to the message, which the change inserts at its end.
    async with turn(actor.account_id, locked), database.transaction():
        async with change(actor.account_id, actor=actor.ref) as changed:
            draft = await _lock(actor, draft)
            able = await _check_locked(actor, draft, repeat, now=changed.now)
            message = await _message(actor, draft, able, repeat, now=changed.now)
            changed.message(message)
            cards = await _announce(actor, changed, draft, message, repeat)
            await sending.enqueue(message)
        await rows.add(
            [
                MessagePaymentRequest(
                    id=uuid7(), account_id=actor.account_id, message_id=message.id, payment_request_id=request.id
                )
                for request in draft.requests
            ]
        )
        if save is not None:
            await save({"message": str(message.id)})
    return SentMessage(message=message, cards=cards)


async def _lock(actor: Actor, draft: _Draft) -> _Draft:
    requests = await request_rows.lock_all(actor.account_id, [request.id for request in draft.requests])
    if draft.must_bind is not None and draft.must_bind not in {request.id for request in requests}:
        raise NotFound(field="paymentRequestId")
    contact = await contact_totals.lock_contact(actor.account_id, draft.conversation.contact_id)
    conversation = await rows.get(Conversation, "WHERE contact_id = ?", contact.id, lock=True)
    return replace(draft, conversation=conversation, requests=requests)


async def _check_locked(
    actor: Actor, draft: _Draft, repeat: resending.Repeat | None, *, now: datetime
) -> availability.Capability:
    refusals = Refusals()
    with refusals:
        if repeat is not None:
            await resending.refuse(actor, repeat, now=now)
            if draft.requests and not any(payment_links.is_alive(request) for request in draft.requests):
                payment_links.refuse_closed(
                    draft.requests[0], field="messageId"
                )  # nothing in this message is due any more
    with refusals:
        able = await _check_now(actor, draft, now=now)
    refusals.raise_any()
    return able


async def _message(
    actor: Actor,
    draft: _Draft,
    able: availability.Capability,
    repeat: resending.Repeat | None,
    *,
    now: datetime,
) -> Message:
    conversation, connection, template = draft.conversation, draft.connection, draft.template
    address = await availability.address_of(conversation, connection)
    assert address is not None  # noqa: S101 (availability refuses a contact without an address)
    return Message(
        id=uuid7(),
        account_id=actor.account_id,
        conversation_id=conversation.id,
        contact_id=conversation.contact_id,
        direction="OUTBOUND",
        kind=connection.kind,
        channel_connection_id=connection.id,
        address=address.address,
        subject=draft.subject or (await _default_subject(conversation, draft.requests) if able.needs_subject else None),
        body=draft.body,
        cc=list(draft.cc) or None,
        template_id=template.id if template is not None else None,
        template_variables=dict(template.variables) if template is not None else None,
        delivery_status="QUEUED",
        retry_of_id=resending.first_of(repeat.message) if repeat is not None else None,
        author_id=actor.user_id,
        author=actor.ref.stored(),
        author_name=actor.name,
        occurred_at=now,
    )


async def _default_subject(conversation: Conversation, requests: Sequence[PaymentRequest]) -> str:
    account = await rows.get(Account, "WHERE id = ?", conversation.account_id)
    if len(requests) == 1:
        return f"{account.name}: {requests[0].product_name}"[:SUBJECT_LIMIT]
    if not requests:
        received = Message.filter(
            conversation_id__in=merged_rows.ids_of(conversation),
            kind="EMAIL",
            direction="INBOUND",
            subject__not_isnull=True,
        )
        last = await received.order_by("-seq").first()
        if last is not None and last.subject:
            from integrations import inbound_mail  # loads 2 MB: with the first reply by email

            return inbound_mail.reply_subject(last.subject)[:SUBJECT_LIMIT]  # mail programs thread by it
    return f"{'Payment requests' if requests else 'Message'} from {account.name}"[:SUBJECT_LIMIT]


async def _announce(
    actor: Actor, changed: Change, draft: _Draft, message: Message, repeat: resending.Repeat | None
) -> list[ActivityCard]:
    conversation = draft.conversation
    if repeat is not None:  # the family can no longer be sent again
        for one in [repeat.message, *await resending.family_of(repeat.message)]:
            changed.event("message.updated", conversation_id=conversation.id, message_id=one.id)
    asking = [request for request in draft.requests if payment_links.is_alive(request)]
    cards = [await payment_links.bind_sent(changed, request, message) for request in asking]
    if conversation.draft is not None and repeat is None and actor.kind != "system":
        await database.execute("UPDATE conversation SET draft = NULL WHERE id = ?", conversation.id)
        changed.event("conversation.updated", conversation_id=conversation.id, contact_id=conversation.contact_id)
    return [card for card in cards if card is not None]
