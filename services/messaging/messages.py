"""What the team writes: a message is committed QUEUED with its job, its links bound to their requests. sending.py sends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from integrations import inbound_mail
from models import database
from models.errors import AlreadyPaid, AlreadyVoid, Forbidden, Invalid, NotFound, Refusal, Refusals
from models.ids import uuid7
from models.ledger import Status
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
from services.core.unit_of_work import change
from services.messaging import composer, copies, resending, sending
from services.messaging.composer import Template
from services.thread import contact_totals, payment_links

BODY_LIMIT: Final = 50_000  # characters, whatever the channel takes
SUBJECT_LIMIT: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class SentMessage:
    """A message on its way, and the cards that its links logged."""

    message: Message
    cards: list[ActivityCard]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """A message as it was asked for, each part found or checked by itself. `carried`: the requests whose links are in it.

    `templated`: a template was asked for, also one that is refused (then `template` is None).
    """

    conversation: Conversation
    connection: ChannelConnection
    words: str
    title: str | None
    cc: Sequence[str]
    template: Template | None
    templated: bool
    carried: Sequence[PaymentRequest]


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
    """Commit a message as QUEUED, with its job; links of ours in the text bind their requests: each becomes SENT and logs its card.

    With a `template` the contact gets that, and the thread shows `body`. `cc`: who gets a copy of an e-mail. Safe to repeat with the
    same `idempotency_key`; a caller with a key of its own gives `save` instead (ids: {"message"}). `must_bind` names a request whose
    link is in the text and which must still be open.
    Raises: NotFound, Forbidden, Blank, TooLong, Invalid, AlreadyPaid, AlreadyVoid, and the refusals of capability.py.
    """
    if not actor.may("message"):
        raise forbidden(
            await refusal(
                actor, conversation_id=conversation_id, channel_id=channel_id, body=body, cc=cc, template=template
            )
        )

    async def run(keep: idempotency.Save | None) -> SentMessage:
        return await _write(
            actor,
            conversation_id=conversation_id,
            channel_id=channel_id,
            body=body,
            subject=subject,
            cc=cc,
            template=template,
            must_bind=must_bind,
            save=keep,
        )

    if idempotency_key is None:
        return await run(save)

    given = {
        "conversation": conversation_id,
        "channel": channel_id,
        "body": body,
        "subject": subject,
        "template": template,
    } | ({"cc": list(cc)} if cc else {})
    return await idempotency.once(
        actor, "sendMessage", idempotency_key, given, run, lambda ids: _sent(actor.account_id, ids)
    )


async def resend_message(
    actor: Actor,
    *,
    message_id: UUID,
    channel_id: UUID,
    idempotency_key: str,
    confirm_possible_duplicate: bool = False,
) -> SentMessage:
    """Send a message that failed again, or one whose outcome nobody knows, on the same or another channel: same text, same links.

    Of several who do it at once one succeeds. An UNKNOWN one may have arrived: once the look-ups have given up a person decides,
    before that, and for a program, only with `confirm_possible_duplicate`. Raises: NotFound, Forbidden, Invalid (has not failed, or is
    repeated already), ConfirmationRequired, TooLong, AlreadyPaid, AlreadyVoid, and the refusals of capability.py.
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
        try:
            return await _write(
                actor,
                conversation_id=message.conversation_id,
                channel_id=channel_id,
                body=message.body,
                subject=message.subject,
                cc=(),
                template=resending.template_of(message, channel_id),
                must_bind=None,
                save=keep,
                repeat=resending.Repeat(message=message, confirmed=confirm_possible_duplicate),
            )
        except Refusal as found:
            for one in found.all:
                if one.field is not None and one.field[0] in ("body", "template"):
                    one.field = ("channelId",)  # neither is given here: the channel is wrong for it
            raise

    given = {"message": message_id, "channel": channel_id, "confirmed": confirm_possible_duplicate}
    return await idempotency.once(
        actor, "resendMessage", idempotency_key, given, run, lambda ids: _sent(actor.account_id, ids)
    )


async def _sent(account_id: UUID, ids: dict[str, Any]) -> SentMessage:
    """What an earlier call with the same key has made."""
    message = await Message.get(id=UUID(ids["message"]), account_id=account_id)
    cards = ActivityCard.filter(account_id=account_id, message_id=message.id, kind="PAYMENT_REQUEST")
    return SentMessage(message=message, cards=await cards.order_by("seq"))


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
    """What `send_message` would refuse this with now; None: it would be accepted. Reads only."""
    try:
        draft = await _read(
            actor,
            conversation_id=conversation_id,
            channel_id=channel_id,
            body=body,
            subject=None,
            cc=cc,
            template=template,
            must_bind=must_bind,
        )
        await _admit(actor, draft, draft.carried, must_bind=must_bind, now=datetime.now(UTC))
    except Refusal as found:
        return found
    return None


def forbidden(found: Refusal | None) -> Refusal:
    """What a role that may not send is refused with: the reason that the composer shows, else FORBIDDEN, before any id is told of."""
    if found is None or found.code not in availability.REASONS:
        return Forbidden()
    found.others = ()
    return found


async def _read(
    actor: Actor,
    *,
    conversation_id: UUID,
    channel_id: UUID,
    body: str,
    subject: str | None,
    cc: Sequence[str],
    template: Template | None,
    must_bind: UUID | None,
) -> _Draft:
    conversation = await merged_rows.conversation(actor.account_id, conversation_id)
    connection: ChannelConnection | None = None
    filled: Template | None = None
    words, title, copied = body, subject, list[str]()
    refusals = Refusals()
    with refusals:
        if conversation is None:
            raise NotFound(field="conversationId")
    with refusals:
        connection = await providers.channel_connection(channel_id, actor.account_id)
    with refusals:
        words = validation.required(body, limit=BODY_LIMIT, field="body", message=True)
    with refusals:
        title = validation.optional(subject, limit=SUBJECT_LIMIT, field="subject")
    with refusals:
        copied = copies.addresses(cc)
        if conversation is not None and connection is not None:
            copied = await copies.checked(conversation, connection, copied)
    with refusals:
        filled = composer.checked(template) if template is not None else None
    if conversation is None or connection is None:
        refusals.raise_any()
    assert conversation is not None and connection is not None  # noqa: S101, PT018 (refused above)
    carried = await payment_links.carried(
        actor.account_id, "\n".join([words, *(filled.values if filled is not None else ())])
    )
    with refusals:
        if any(request.conversation_id not in merged_rows.ids_of(conversation) for request in carried):
            raise Invalid("This text holds the payment link of another contact.", field="body")
        if must_bind is not None and must_bind not in {request.id for request in carried}:
            if await PaymentRequest.filter(id=must_bind, discarded_at__not_isnull=True).exists():
                raise NotFound(field="paymentRequestId")
            raise Invalid("The payment link is missing in this text.", field="body")
    draft = _Draft(
        conversation=conversation,
        connection=connection,
        words=words,
        title=title,
        cc=copied,
        template=filled,
        templated=template is not None,
        carried=carried,
    )
    if refusals:
        with refusals:  # `_admit` would refuse the rest later
            await _admit(actor, draft, carried, must_bind=must_bind, now=datetime.now(UTC))
    refusals.raise_any()
    return draft


async def _admit(
    actor: Actor, draft: _Draft, requests: Sequence[PaymentRequest], *, must_bind: UUID | None, now: datetime
) -> availability.Capability:
    """The rules about the moment: is the request open, may and can this be sent, does it fit. Raises: the refusal."""
    refusals = Refusals()
    for request in requests:
        if request.id == must_bind:
            with refusals:
                _refuse_closed(request)
    asking = [request for request in requests if payment_links.is_open(request)]
    able = await availability.capability(
        actor,
        draft.conversation,
        draft.connection,
        payment_request=bool(asking),
        now=now,
        processor_ids={request.processor_connection_id for request in asking},
    )
    with refusals:
        availability.refuse(able, template=draft.templated)
        if draft.template is not None:
            composer.refuse_without_links(draft.words, draft.template, requests)
            composer.refuse_long("".join(draft.template.values), draft.connection, field=("template", "variables"))
    with refusals:
        composer.refuse_long(draft.words, draft.connection, field="body")
    refusals.raise_any()
    return able


async def _write(
    actor: Actor,
    *,
    conversation_id: UUID,
    channel_id: UUID,
    body: str,
    subject: str | None,
    cc: Sequence[str],
    template: Template | None,
    must_bind: UUID | None,
    save: idempotency.Save | None,
    repeat: resending.Repeat | None = None,
) -> SentMessage:
    draft = await _read(
        actor,
        conversation_id=conversation_id,
        channel_id=channel_id,
        body=body,
        subject=subject,
        cc=cc,
        template=template,
        must_bind=must_bind,
    )
    connection, contact_id = draft.connection, draft.conversation.contact_id
    if repeat is not None and copies.allowed(connection):
        draft = replace(draft, cc=await copies.remaining(repeat.message))

    locked = [*(request.id for request in draft.carried), contact_id, draft.conversation.id]
    # The bindings point at the message, which the change inserts at its own end: hence a transaction around it.
    async with turn(actor.account_id, locked), database.transaction():
        async with change(actor.account_id, actor_id=actor.user_id) as changed:
            requests = await payment_links.lock_requests(actor.account_id, [request.id for request in draft.carried])
            if must_bind is not None and must_bind not in {request.id for request in requests}:
                raise NotFound(field="paymentRequestId")  # discarded in the meantime
            contact = await contact_totals.lock_contact(actor.account_id, contact_id)
            conversation = await Conversation.filter(contact_id=contact.id).select_for_update(no_key=True).get()
            draft = replace(draft, conversation=conversation)
            refusals = Refusals()
            with refusals:
                if repeat is not None:
                    await resending.refuse(actor, repeat, now=changed.now)
                    if requests and not any(payment_links.is_open(request) for request in requests):
                        _refuse_closed(requests[0], "messageId")  # it asks for money that nobody owes any more
            with refusals:
                able = await _admit(actor, draft, requests, must_bind=must_bind, now=changed.now)
            refusals.raise_any()
            address = await availability.address_of(conversation, connection)
            assert address is not None  # noqa: S101 (refused above)
            message = Message(
                id=uuid7(),
                account_id=actor.account_id,
                conversation_id=conversation.id,
                contact_id=conversation.contact_id,
                direction="OUTBOUND",
                kind=connection.kind,
                channel_connection_id=connection.id,
                address=address.address,
                subject=draft.title or (await _subject(conversation, requests) if able.needs_subject else None),
                body=draft.words,
                cc=list(draft.cc) or None,
                template_id=draft.template.id if draft.template is not None else None,
                template_variables=dict(draft.template.variables) if draft.template is not None else None,
                delivery_status="QUEUED",
                retry_of_id=resending.first_of(repeat.message) if repeat is not None else None,
                author_id=actor.user_id,
                author_name=actor.name,
                occurred_at=changed.now,
            )
            changed.message(message)
            if repeat is not None:
                for one in [
                    repeat.message,
                    *await resending.family_of(repeat.message),
                ]:  # they can't be repeated any more
                    changed.event("message.updated", conversation_id=conversation.id, message_id=one.id)
            bound = [
                await payment_links.bind_sent(changed, request, message)
                for request in requests
                if payment_links.is_open(request)
            ]
            if (
                conversation.draft is not None and repeat is None and actor.kind != "system"
            ):  # it was the draft that was sent
                await Conversation.filter(id=conversation.id).update(draft=None)
                changed.event(
                    "conversation.updated", conversation_id=conversation.id, contact_id=conversation.contact_id
                )
            await sending.enqueue(message)
        await MessagePaymentRequest.bulk_create(
            [
                MessagePaymentRequest(
                    id=uuid7(), account_id=actor.account_id, message_id=message.id, payment_request_id=request.id
                )
                for request in requests
            ]
        )
        if save is not None:
            await save({"message": str(message.id)})
    return SentMessage(message=message, cards=[card for card in bound if card is not None])


def _refuse_closed(request: PaymentRequest, field: str = "paymentRequestId") -> None:
    if request.status == Status.PAID:
        raise AlreadyPaid(field=field)
    if not payment_links.is_open(request):
        raise AlreadyVoid(field=field)


async def _subject(conversation: Conversation, requests: Sequence[PaymentRequest]) -> str:
    """What a letter asks for, else "Re: " and the subject of the contact's last letter: mail programs thread by it."""
    account = await Account.get(id=conversation.account_id)
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
            return inbound_mail.reply_subject(last.subject)[:SUBJECT_LIMIT]
    return f"{'Payment requests' if requests else 'Message'} from {account.name}"[:SUBJECT_LIMIT]
