"""What the team writes: a message is committed QUEUED with its job, its links bound to their requests. deliveries.py hands it over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from models import database
from models.errors import AlreadyPaid, AlreadyVoid, Invalid, NotFound, TooLong
from models.ids import uuid7
from models.ledger import Status
from models.tables import (
    Account,
    ActivityCard,
    ContactAddress,
    Conversation,
    Message,
    MessagePaymentRequest,
    PaymentRequest,
)
from services import capability, connections, deliveries, idempotency, links, summaries, text
from services.actors import Actor
from services.changes import change

BODY_LIMIT: Final = 50_000  # characters, whatever the channel takes
SUBJECT_LIMIT: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class SentMessage:
    """A message on its way, and the cards that its links logged."""

    message: Message
    cards: list[ActivityCard]


async def send_message(
    actor: Actor,
    *,
    conversation_id: UUID,
    channel_id: UUID,
    body: str,
    subject: str | None = None,
    idempotency_key: str | None = None,
    must_bind: UUID | None = None,
    save: idempotency.Save | None = None,
) -> SentMessage:
    """Commit a message as QUEUED, with its job; links of ours in the text bind their requests: each becomes SENT and logs its card.

    Safe to repeat with the same `idempotency_key`; a caller with a key of its own gives `save` instead (ids: {"message"}).
    `must_bind` names a request whose link is in the text and which must still be open.
    Raises: NotFound, Forbidden, Blank, TooLong, Invalid, AlreadyPaid, AlreadyVoid, and the refusals of capability.py.
    """
    actor.require("message")

    async def run(keep: idempotency.Save | None) -> SentMessage:
        return await _write(
            actor,
            conversation_id=conversation_id,
            channel_id=channel_id,
            body=body,
            subject=subject,
            must_bind=must_bind,
            save=keep,
        )

    if idempotency_key is None:
        return await run(save)

    async def rebuild(ids: dict[str, Any]) -> SentMessage:
        message = await Message.get(id=UUID(ids["message"]), account_id=actor.account_id)
        cards = ActivityCard.filter(account_id=actor.account_id, message_id=message.id, kind="PAYMENT_REQUEST")
        return SentMessage(message=message, cards=await cards.order_by("seq"))

    given = {"conversation": conversation_id, "channel": channel_id, "body": body, "subject": subject}
    return await idempotency.once(actor, "sendMessage", idempotency_key, given, run, rebuild)


async def _write(
    actor: Actor,
    *,
    conversation_id: UUID,
    channel_id: UUID,
    body: str,
    subject: str | None,
    must_bind: UUID | None,
    save: idempotency.Save | None,
) -> SentMessage:
    conversation = await Conversation.get_or_none(id=conversation_id, account_id=actor.account_id)
    if conversation is None:
        raise NotFound(field="conversationId")
    connection = await connections.channel_connection(channel_id, actor.account_id)
    words = text.required(body, limit=BODY_LIMIT, field="body", lines=True)
    title = text.optional(subject, limit=SUBJECT_LIMIT, field="subject")
    carried = await links.carried(actor.account_id, words)
    if any(request.contact_id != conversation.contact_id for request in carried):
        raise Invalid("This text holds the payment link of another contact.", field="body")
    if must_bind is not None and must_bind not in {request.id for request in carried}:
        if await PaymentRequest.filter(id=must_bind, discarded_at__not_isnull=True).exists():
            raise NotFound(field="paymentRequestId")
        raise Invalid("The payment link is missing in this text.", field="body")

    # The bindings point at the message, which the change inserts at its own end: hence a transaction around it.
    async with database.transaction():
        async with change(actor.account_id, actor_id=actor.user_id) as changed:
            requests = await links.lock_requests(actor.account_id, [request.id for request in carried])
            if must_bind is not None and must_bind not in {request.id for request in requests}:
                raise NotFound(field="paymentRequestId")  # discarded in the meantime
            for request in requests:
                if request.id == must_bind:
                    _refuse_closed(request)
            await summaries.lock_contact(actor.account_id, conversation.contact_id)
            conversation = await Conversation.filter(id=conversation.id).select_for_update(no_key=True).get()
            able = await capability.capability(
                actor, conversation, connection, payment_request=any(_open(r) for r in requests), now=changed.now
            )
            capability.refuse(able)
            _refuse_long(words, able)
            address = await ContactAddress.get(contact_id=conversation.contact_id, kind=connection.kind)
            message = Message(
                id=uuid7(),
                account_id=actor.account_id,
                conversation_id=conversation.id,
                contact_id=conversation.contact_id,
                direction="OUTBOUND",
                kind=connection.kind,
                channel_connection_id=connection.id,
                address=address.address,
                subject=title or (await _subject(actor.account_id, requests) if able.needs_subject else None),
                body=words,
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


def _refuse_long(words: str, able: capability.Capability) -> None:
    """A text over the limit is refused, never cut or split."""
    if able.max_message_length is None:
        return
    length = len(words.encode()) if able.length_in_bytes else len(words)
    if length > able.max_message_length:
        unit = "bytes" if able.length_in_bytes else "characters"
        raise TooLong(
            f"This channel takes at most {able.max_message_length} {unit}; the text has {length}.", field="body"
        )


async def _subject(account_id: UUID, requests: Sequence[PaymentRequest]) -> str:
    account = await Account.get(id=account_id)
    if len(requests) == 1:
        return f"{account.name}: {requests[0].product_name}"[:SUBJECT_LIMIT]
    return f"{'Payment requests' if requests else 'Message'} from {account.name}"[:SUBJECT_LIMIT]
