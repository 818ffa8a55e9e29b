"""What the team writes: a message is committed QUEUED with its job, its links bound to their requests. deliveries.py hands it over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from models import database
from models.errors import AlreadyPaid, AlreadyVoid, Forbidden, Invalid, NotFound, Refusal
from models.ids import uuid7
from models.ledger import Status
from models.tables import (
    Account,
    ActivityCard,
    ChannelConnection,
    ContactAddress,
    Conversation,
    Message,
    MessagePaymentRequest,
    PaymentRequest,
)
from services import capability, composing, connections, deliveries, idempotency, links, summaries, text
from services.actors import Actor
from services.changes import change
from services.composing import Template

BODY_LIMIT: Final = 50_000  # characters, whatever the channel takes
SUBJECT_LIMIT: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class SentMessage:
    """A message on its way, and the cards that its links logged."""

    message: Message
    cards: list[ActivityCard]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """A message as it was asked for, each part found or checked by itself. `carried`: the requests whose links are in it."""

    conversation: Conversation
    connection: ChannelConnection
    words: str
    title: str | None
    template: Template | None
    carried: Sequence[PaymentRequest]


async def send_message(
    actor: Actor,
    *,
    conversation_id: UUID,
    channel_id: UUID,
    body: str,
    subject: str | None = None,
    template: Template | None = None,
    idempotency_key: str | None = None,
    must_bind: UUID | None = None,
    save: idempotency.Save | None = None,
) -> SentMessage:
    """Commit a message as QUEUED, with its job; links of ours in the text bind their requests: each becomes SENT and logs its card.

    With a `template` the contact gets that, and the thread shows `body`. Safe to repeat with the same `idempotency_key`; a caller
    with a key of its own gives `save` instead (ids: {"message"}). `must_bind` names a request whose link is in the text and which
    must still be open.
    Raises: NotFound, Forbidden, Blank, TooLong, Invalid, AlreadyPaid, AlreadyVoid, and the refusals of capability.py.
    """
    if not actor.may("message"):
        raise forbidden(
            await refusal(actor, conversation_id=conversation_id, channel_id=channel_id, body=body, template=template)
        )

    async def run(keep: idempotency.Save | None) -> SentMessage:
        return await _write(
            actor,
            conversation_id=conversation_id,
            channel_id=channel_id,
            body=body,
            subject=subject,
            template=template,
            must_bind=must_bind,
            save=keep,
        )

    if idempotency_key is None:
        return await run(save)

    async def rebuild(ids: dict[str, Any]) -> SentMessage:
        message = await Message.get(id=UUID(ids["message"]), account_id=actor.account_id)
        cards = ActivityCard.filter(account_id=actor.account_id, message_id=message.id, kind="PAYMENT_REQUEST")
        return SentMessage(message=message, cards=await cards.order_by("seq"))

    given = {
        "conversation": conversation_id,
        "channel": channel_id,
        "body": body,
        "subject": subject,
        "template": template,
    }
    return await idempotency.once(actor, "sendMessage", idempotency_key, given, run, rebuild)


async def refusal(
    actor: Actor,
    *,
    conversation_id: UUID,
    channel_id: UUID,
    body: str,
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
            template=template,
            must_bind=must_bind,
        )
        await _admit(actor, draft, draft.carried, must_bind=must_bind, now=datetime.now(UTC))
    except Refusal as found:
        return found
    return None


def forbidden(found: Refusal | None) -> Refusal:
    """What a role that may not send is refused with: the reason that the composer shows, else FORBIDDEN, before any id is told of."""
    return found if found is not None and found.code in capability.REASONS else Forbidden()


async def _read(
    actor: Actor,
    *,
    conversation_id: UUID,
    channel_id: UUID,
    body: str,
    subject: str | None,
    template: Template | None,
    must_bind: UUID | None,
) -> _Draft:
    conversation = await Conversation.get_or_none(id=conversation_id, account_id=actor.account_id)
    if conversation is None:
        raise NotFound(field="conversationId")
    connection = await connections.channel_connection(channel_id, actor.account_id)
    words = text.required(body, limit=BODY_LIMIT, field="body", lines=True)
    title = text.optional(subject, limit=SUBJECT_LIMIT, field="subject")
    filled = composing.checked(template) if template is not None else None
    carried = await links.carried(actor.account_id, "\n".join([words, *(filled.values if filled is not None else ())]))
    if any(request.contact_id != conversation.contact_id for request in carried):
        raise Invalid("This text holds the payment link of another contact.", field="body")
    if must_bind is not None and must_bind not in {request.id for request in carried}:
        if await PaymentRequest.filter(id=must_bind, discarded_at__not_isnull=True).exists():
            raise NotFound(field="paymentRequestId")
        raise Invalid("The payment link is missing in this text.", field="body")
    return _Draft(
        conversation=conversation, connection=connection, words=words, title=title, template=filled, carried=carried
    )


async def _admit(
    actor: Actor, draft: _Draft, requests: Sequence[PaymentRequest], *, must_bind: UUID | None, now: datetime
) -> capability.Capability:
    """The rules about the moment: is the request open, may and can this be sent, does it fit. Raises: the refusal."""
    for request in requests:
        if request.id == must_bind:
            _refuse_closed(request)
    able = await capability.capability(
        actor, draft.conversation, draft.connection, payment_request=any(_open(r) for r in requests), now=now
    )
    capability.refuse(able, template=draft.template is not None)
    composing.refuse_long(draft.words, draft.connection, field="body")
    if draft.template is not None:
        composing.refuse_without_links(draft.words, draft.template, requests)
        composing.refuse_long("".join(draft.template.values), draft.connection, field=("template", "variables"))
    return able


async def _write(
    actor: Actor,
    *,
    conversation_id: UUID,
    channel_id: UUID,
    body: str,
    subject: str | None,
    template: Template | None,
    must_bind: UUID | None,
    save: idempotency.Save | None,
) -> SentMessage:
    draft = await _read(
        actor,
        conversation_id=conversation_id,
        channel_id=channel_id,
        body=body,
        subject=subject,
        template=template,
        must_bind=must_bind,
    )
    connection, contact_id = draft.connection, draft.conversation.contact_id

    # The bindings point at the message, which the change inserts at its own end: hence a transaction around it.
    async with database.transaction():
        async with change(actor.account_id, actor_id=actor.user_id) as changed:
            requests = await links.lock_requests(actor.account_id, [request.id for request in draft.carried])
            if must_bind is not None and must_bind not in {request.id for request in requests}:
                raise NotFound(field="paymentRequestId")  # discarded in the meantime
            await summaries.lock_contact(actor.account_id, contact_id)
            conversation = await Conversation.filter(id=draft.conversation.id).select_for_update(no_key=True).get()
            able = await _admit(actor, draft, requests, must_bind=must_bind, now=changed.now)
            address = await ContactAddress.get(contact_id=contact_id, kind=connection.kind)
            message = Message(
                id=uuid7(),
                account_id=actor.account_id,
                conversation_id=conversation.id,
                contact_id=conversation.contact_id,
                direction="OUTBOUND",
                kind=connection.kind,
                channel_connection_id=connection.id,
                address=address.address,
                subject=draft.title or (await _subject(actor.account_id, requests) if able.needs_subject else None),
                body=draft.words,
                template_id=draft.template.id if draft.template is not None else None,
                template_variables=dict(draft.template.variables) if draft.template is not None else None,
                delivery_status="QUEUED",
                author_id=actor.user_id,
                author_name=actor.name,
                occurred_at=changed.now,
            )
            changed.message(message)
            bound = [await links.bind_sent(changed, request, message) for request in requests if _open(request)]
            if conversation.draft is not None:
                await Conversation.filter(id=conversation.id).update(draft=None)
                changed.event(
                    "conversation.updated", conversation_id=conversation.id, contact_id=conversation.contact_id
                )
            await deliveries.enqueue(message)
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


def _open(request: PaymentRequest) -> bool:
    return request.status not in (Status.PAID, Status.VOID) and request.void_requested_at is None


def _refuse_closed(request: PaymentRequest) -> None:
    if request.status == Status.PAID:
        raise AlreadyPaid(field="paymentRequestId")
    if not _open(request):
        raise AlreadyVoid(field="paymentRequestId")


async def _subject(account_id: UUID, requests: Sequence[PaymentRequest]) -> str:
    account = await Account.get(id=account_id)
    if len(requests) == 1:
        return f"{account.name}: {requests[0].product_name}"[:SUBJECT_LIMIT]
    return f"{'Payment requests' if requests else 'Message'} from {account.name}"[:SUBJECT_LIMIT]
