"""Messages of a thread: sending with link detection, the jobs that hand them to providers, their statuses, and what contacts write.

A message is committed QUEUED with its job, and SENDING with an attempt id before the vendor is called: whatever dies in between
leaves UNKNOWN, which is looked up and never sent again by itself.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import structlog

from integrations.base import (
    Author,
    Channel,
    ChannelWebhook,
    InboundMessage,
    IntegrationError,
    OutboundMessage,
    PayloadInvalid,
    SignatureInvalid,
    StatusUpdate,
    WebhookRequest,
)
from integrations.base import external_id as stored_id
from integrations.registry import UnknownProvider
from models import database
from models.errors import AlreadyPaid, AlreadyVoid, Invalid, NotFound, Refusal, TooLong
from models.ids import parse_public_id, public_id, uuid7
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
from models.vault import VaultError
from services import (
    capability,
    connections,
    contacts,
    idempotency,
    jobs,
    links,
    simulator,
    summaries,
    text,
)
from services.actors import Actor, system_actor
from services.changes import Change, change
from services.processor_events import BadPayload, BadSignature

__all__ = ["BadPayload", "BadSignature", "SentMessage", "WebhookRequest", "receive", "record_status", "send_message"]

log = structlog.get_logger(__name__)

BODY_LIMIT: Final = 50_000  # characters, whatever the channel takes
SUBJECT_LIMIT: Final = 255
SEND_ATTEMPTS: Final = 5
WAIT_FOR_EARLIER_S: Final = 0.5
WINDOW_CLOSED: Final = "window_closed"  # a provider's reason
# A message that is still queued after this does not hold up those behind it.
STUCK: Final = timedelta(hours=1)
LOOK_UPS_S: Final = (60, 300, 900)  # after an answer was lost
GRACE_S: Final = 5.0  # beyond the provider's own time-out
THREAD_LIMIT: Final = 200  # of an e-mail's references
WEBHOOK_SEEN_EVERY: Final = timedelta(seconds=30)

# Delivery status only moves up this list; FAILED is final, and reachable until DELIVERED.
RANK: Final = {"QUEUED": 0, "SENDING": 1, "UNKNOWN": 2, "SENT": 3, "DELIVERED": 4, "READ": 5}


@dataclass(frozen=True, slots=True, kw_only=True)
class SentMessage:
    """A message on its way, and the cards that its links logged."""

    message: Message
    cards: list[ActivityCard]


# --------------------------------------------------------------------------------------------------------------- send
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
            requests = await _lock_requests(actor.account_id, [request.id for request in carried])
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
            await jobs.enqueue(
                "message.send",
                {"message_id": str(message.id)},
                account_id=actor.account_id,
                key=f"message.send:{message.id}",
                max_attempts=SEND_ATTEMPTS,
            )
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


async def _lock_requests(account_id: UUID, request_ids: Sequence[UUID]) -> list[PaymentRequest]:
    """Lock and read again, in the order that every transaction uses; without what was discarded in the meantime."""
    if not request_ids:
        return []
    return (
        await PaymentRequest.filter(id__in=list(request_ids), account_id=account_id, discarded_at=None)
        .order_by("id")
        .select_for_update(no_key=True)
    )


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


# --------------------------------------------------------------------------------------------------- to the provider
@jobs.handler("message.send")
async def _send_job(job: jobs.JobContext) -> None:
    """Hand one message to its provider, at most once per attempt that may have been accepted.

    Key: the compare-and-set QUEUED to SENDING. Only what surely never left is tried again.
    """
    message = await Message.get(id=UUID(job.payload["message_id"]), account_id=job.account_id)
    if message.delivery_status == "SENDING":  # a run before this one died between the call and its answer
        await _lost(message)
        return
    if message.delivery_status != "QUEUED":
        return
    if await _earlier_waits(message):
        raise jobs.Later(WAIT_FOR_EARLIER_S)
    connection = await connections.channel_connection(message.channel_connection_id, message.account_id)
    obstacle = await _obstacle(message, connection)
    if obstacle is not None:
        await _advance(message, "FAILED", error_code=obstacle.code, error_message=obstacle.message)
        return
    channel = _channel(connection)
    if channel is None:
        await _advance(message, "FAILED", error_code="CHANNEL_UNAVAILABLE", error_message="The channel can't be used.")
        return
    message.attempt_id = secrets.token_hex(16)
    message.sending_at = datetime.now(UTC)
    outbound = await _outbound(message, connection)
    taken = await Message.filter(id=message.id, delivery_status="QUEUED").update(
        delivery_status="SENDING", attempt_id=message.attempt_id, sending_at=message.sending_at
    )
    if not taken:
        return
    try:
        async with asyncio.timeout(connections.environment().timeout_s + GRACE_S):
            result = await channel.send(outbound)
    except TimeoutError:
        await _lost(message)
    except IntegrationError as error:
        await _not_sent(message, error, last=job.last_attempt)
    else:
        await _advance(message, result.status.value, external_id=result.external_id)


async def _earlier_waits(message: Message) -> bool:
    """Messages of one conversation and channel go out in order."""
    return await Message.filter(
        conversation_id=message.conversation_id,
        channel_connection_id=message.channel_connection_id,
        direction="OUTBOUND",
        seq__lt=message.seq,
        delivery_status__in=["QUEUED", "SENDING"],
        occurred_at__gt=datetime.now(UTC) - STUCK,
    ).exists()


async def _obstacle(message: Message, connection: ChannelConnection) -> Refusal | None:
    """What has come between the commit and the call: an opt-out, a closed window, a disconnected channel."""
    conversation = await Conversation.get(id=message.conversation_id)
    able = await capability.capability(
        system_actor(message.account_id),
        conversation,
        connection,
        payment_request=False,
        now=datetime.now(UTC),
        by_person=message.author_id is not None,
    )
    try:
        capability.refuse(able)
    except Refusal as refusal:
        return refusal
    return None


def _channel(connection: ChannelConnection) -> Channel | None:
    try:
        return connections.channel(connection)
    except (UnknownProvider, IntegrationError, VaultError, ValueError) as error:
        log.error("channel_unavailable", connection=str(connection.id), error=type(error).__name__)
        return None


async def _outbound(message: Message, connection: ChannelConnection) -> OutboundMessage:
    account = await Account.get(id=message.account_id)
    held = await ContactAddress.get_or_none(contact_id=message.contact_id, kind=message.kind)
    button = await links.button(message.account_id, message.body)
    thread = await _thread(message) if message.kind == "EMAIL" else _Thread()
    reference = public_id("msg", message.id)
    return OutboundMessage(
        message_id=reference,
        attempt_id=message.attempt_id or "",
        to=message.address,
        body=message.body,
        subject=message.subject,
        # A callback that overtakes the vendor's own answer finds its message by this; the signature covers the address.
        status_url=f"{connections.inbound_url(connection)}?m={reference}",
        sender_name=account.name,
        # Who has no user (an API key, the system) is a program: vendors allow it less.
        author=Author.AUTOMATION if message.author_id is None else Author.PERSON,
        last_inbound_at=None if held is None else held.last_inbound_at,
        link_url=None if button is None else button[0],
        link_label=None if button is None else button[1],
        reply_to=_reply_to(connection),
        in_reply_to=thread.answers,
        references=thread.references,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Thread:
    """What an e-mail answers (the contact's last) and the thread before it, oldest first: external ids."""

    answers: str | None = None
    references: Sequence[str] = ()


async def _thread(message: Message) -> _Thread:
    earlier = Message.filter(
        conversation_id=message.conversation_id, kind="EMAIL", seq__lt=message.seq, external_id__not_isnull=True
    ).exclude(delivery_status="FAILED")
    newest = await earlier.order_by("-seq").limit(THREAD_LIMIT)
    received = (known.external_id for known in newest if known.direction == "INBOUND")
    return _Thread(
        answers=next(received, None),
        references=[known.external_id for known in reversed(newest) if known.external_id is not None],
    )


def _reply_to(connection: ChannelConnection) -> str | None:
    """Where an e-mail's answers go: what its credentials say, else the address that the team knows it by."""
    if connection.kind != "EMAIL":
        return None
    try:
        named = connections.credentials_of(connection).get("reply_to")
        return named or text.email(connection.sender, field="sender")
    except (Refusal, VaultError):  # the sender is a name
        return None


async def _not_sent(message: Message, error: IntegrationError, *, last: bool) -> None:
    if error.ambiguous:
        await _lost(message)
        return
    if error.retryable and not last:
        await Message.filter(id=message.id, delivery_status="SENDING").update(
            delivery_status="QUEUED", attempt_id=None, sending_at=None
        )
        raise error  # the runner comes back after its pause
    log.warning("message_failed", message_id=str(message.id), provider=error.provider, reason=error.reason)
    await _advance(
        message,
        "FAILED",
        reason=error.reason,
        error_code=error.code or error.reason,
        error_message=error.message or error.reason,
    )


async def _lost(message: Message) -> None:
    """The vendor may or may not have it: UNKNOWN, then look it up; never sent again by itself."""
    async with change(message.account_id) as changed:
        await _advance(message, "UNKNOWN")
        for seconds in LOOK_UPS_S:
            await jobs.enqueue(
                "message.resolve",
                {"message_id": str(message.id)},
                account_id=message.account_id,
                key=f"message.resolve:{message.id}:{seconds}",
                due_at=changed.now + timedelta(seconds=seconds),
            )


@jobs.handler("message.resolve")
async def _resolve_job(job: jobs.JobContext) -> None:
    """Ask the vendor what became of a message whose answer was lost. Key: the message is still UNKNOWN."""
    message = await Message.get(id=UUID(job.payload["message_id"]), account_id=job.account_id)
    if message.delivery_status != "UNKNOWN" or message.sending_at is None:
        return
    connection = await connections.channel_connection(message.channel_connection_id, message.account_id)
    channel = _channel(connection)
    if channel is None:
        return
    try:
        found = await channel.look_up(await _outbound(message, connection), sent_after=message.sending_at)
    except IntegrationError as error:
        log.warning("message_look_up_failed", provider=error.provider, reason=error.reason)
        if error.retryable:
            raise
        return
    if found is None:
        return
    if await Message.exists(channel_connection_id=connection.id, external_id=stored_id(found.external_id)):
        return
    await _apply(message, found)


# ------------------------------------------------------------------------------------------------------------- status
async def record_status(connection: ChannelConnection, update: StatusUpdate, *, message_id: UUID | None = None) -> None:
    """What a verified callback says about messages of this connection; they never step back. Safe to repeat.

    `message_id`: from the callback's address, for one that comes before the vendor's own answer; else the callback itself may
    name our message. With `up_to` it speaks of all that went to an address until then.
    """
    ours = Message.filter(account_id=connection.account_id, channel_connection_id=connection.id, direction="OUTBOUND")
    if update.up_to is not None:
        reached = ours.filter(
            address=update.address, sending_at__lte=update.up_to, delivery_status__in=["SENT", "DELIVERED"]
        )
        for message in await reached.order_by("seq"):
            await _advance(message, update.status.value)
        return
    found = await ours.get_or_none(external_id=stored_id(update.external_id))
    if found is None:
        named = message_id or parse_public_id(update.message_id or "", "msg")
        found = await ours.get_or_none(id=named, external_id=None) if named is not None else None
    if found is None:
        log.info("status_of_unknown_message", connection=str(connection.id))
        return
    await _apply(found, update)


async def _apply(message: Message, update: StatusUpdate) -> None:
    await _advance(
        message,
        update.status.value,
        external_id=update.external_id,
        reason="opted_out" if update.opted_out else update.reason,
        error_code=update.error_code,
        error_message=update.error_message,
    )


def forward(before: str, after: str) -> bool:
    """Whether a delivery status may become this one."""
    if before == "FAILED":
        return False
    if after == "FAILED":
        return RANK[before] < RANK["DELIVERED"]
    return RANK[after] > RANK[before]


async def _advance(
    known: Message,
    status: str,
    *,
    external_id: str | None = None,
    reason: str | None = None,
    error_code: str | None = None,
    error_message: str | None = None,
) -> None:
    """Move a message forward, with the delivery state of the requests whose link it carries; else change nothing.

    `reason`: why it failed, where that has consequences. "opted_out" is remembered once, so that a late repeat does not undo a
    START; "window_closed" stands in place of the vendor's number, and the request's card says it.
    """
    account_id = known.account_id
    bindings = await MessagePaymentRequest.filter(account_id=account_id, message_id=known.id)
    async with change(account_id) as changed:
        requests = await _lock_requests(account_id, [binding.payment_request_id for binding in bindings])
        message = await Message.filter(id=known.id, account_id=account_id).select_for_update(no_key=True).get()
        if external_id and message.external_id is None:
            message.external_id = stored_id(external_id)
            await message.save(update_fields=["external_id"])
            if status == "SENT":
                connection = await connections.channel_connection(message.channel_connection_id, account_id)
                await simulator.enqueue_delivery(connection, external_id, message.address)
        if not forward(message.delivery_status, status):
            return
        message.delivery_status = status
        message.error_code = (reason if reason == WINDOW_CLOSED else error_code or "")[:40] or None
        message.error_message = (error_message or "")[:300] or None
        await message.save(update_fields=["delivery_status", "error_code", "error_message", "updated_at"])
        changed.event(
            "message.updated",
            conversation_id=message.conversation_id,
            contact_id=message.contact_id,
            message_id=message.id,
        )
        for request in requests:
            await links.delivery_changed(changed, request, message)
        if reason == "opted_out":
            await _opt(changed, message.contact_id, message.conversation_id, message.kind, opted_out=True)


# ------------------------------------------------------------------------------------------------------------ inbound
async def receive(provider: str, connection_id: UUID, request: WebhookRequest) -> ChannelWebhook:
    """Take one callback of a channel: verify, then statuses and messages, each once. Returns after the commits.

    Also of a disconnected channel: a STOP must not be lost. A vendor that has one address per app speaks of several of its accounts in
    one callback: what concerns the account's other connections is handed on. Raises: NotFound, BadSignature, BadPayload.
    """
    connection = await ChannelConnection.get_or_none(id=connection_id, provider=provider)
    if connection is None or not connections.allowed(connection):
        raise NotFound
    webhook = await _take(connection, request)
    for vendor_account in webhook.others:
        other = await connections.beside(connection, vendor_account)
        if other is None:
            log.info("callback_of_unconnected_account", connection=str(connection.id))
            continue
        try:
            await _take(other, request)
        except (NotFound, BadSignature, BadPayload) as error:  # another app's secret, or unreadable credentials
            log.warning("callback_not_handed_on", connection=str(other.id), error=type(error).__name__)
    return webhook


async def _take(connection: ChannelConnection, request: WebhookRequest) -> ChannelWebhook:
    channel = _channel(connection)
    if channel is None:
        raise NotFound
    try:
        webhook = channel.receive(request)
    except SignatureInvalid as error:
        raise BadSignature(error.reason) from error
    except PayloadInvalid as error:
        raise BadPayload(error.reason) from error
    if connection.last_webhook_at is None or request.now - connection.last_webhook_at > WEBHOOK_SEEN_EVERY:
        await ChannelConnection.filter(id=connection.id).update(last_webhook_at=request.now)
    hint = parse_public_id(request.query.get("m", ""), "msg")
    for update in webhook.statuses:
        await record_status(connection, update, message_id=hint)
    for message in webhook.messages:
        await _store_inbound(connection, message, request.now)
    return webhook


async def _store_inbound(connection: ChannelConnection, inbound: InboundMessage, now: datetime) -> None:
    """A contact wrote. Key: (connection, external id)."""
    if await _stored(connection, inbound):
        return
    try:
        address = contacts.normalise(connection.kind, inbound.sender, None)
    except Refusal:  # a short code, a name: whatever the vendor calls the sender
        address = inbound.sender.replace("\x00", "").strip()[: contacts.ADDRESS_LIMIT]
    body = inbound.body.replace("\x00", "").strip()
    if not body and inbound.attachments:
        body = f"[{len(inbound.attachments)} attachment{'s' if len(inbound.attachments) > 1 else ''}]"
    async with change(connection.account_id) as changed:
        contact, conversation = await contacts.find_or_create_by_address(
            changed, connection, connection.kind, address, inbound.sender_name
        )
        if await _stored(connection, inbound):  # by the same callback on another process, while we waited for the lock
            return
        written_at = min(inbound.occurred_at or now, now)
        held = await ContactAddress.get(contact_id=contact.id, kind=connection.kind)
        if held.last_inbound_at is None or held.last_inbound_at < written_at:
            await ContactAddress.filter(id=held.id).update(last_inbound_at=written_at)
        if inbound.opt_out is not None:
            await _opt(changed, contact.id, conversation.id, connection.kind, opted_out=inbound.opt_out)
        changed.message(
            Message(
                id=uuid7(),
                account_id=connection.account_id,
                conversation_id=conversation.id,
                contact_id=contact.id,
                direction="INBOUND",
                kind=connection.kind,
                channel_connection_id=connection.id,
                address=address,
                subject=(inbound.subject or "").replace("\x00", "").strip()[:SUBJECT_LIMIT] or None,
                body=body,
                delivery_status="DELIVERED",
                external_id=stored_id(inbound.external_id),
                occurred_at=written_at,
            )
        )
        await Conversation.filter(id=conversation.id).update(unread_count=conversation.unread_count + 1)
        changed.event("conversation.updated", conversation_id=conversation.id, contact_id=contact.id)


async def _stored(connection: ChannelConnection, inbound: InboundMessage) -> bool:
    return await Message.exists(channel_connection_id=connection.id, external_id=stored_id(inbound.external_id))


async def _opt(changed: Change, contact_id: UUID, conversation_id: UUID, kind: str, *, opted_out: bool) -> None:
    """Withdraw or give again the consent to messages on one kind of channel."""
    held = ContactAddress.filter(account_id=changed.account_id, contact_id=contact_id, kind=kind)
    if opted_out:
        count = await held.filter(opted_out_at=None).update(opted_out_at=changed.now)
    else:
        count = await held.filter(opted_out_at__not_isnull=True).update(opted_out_at=None)
    if count:
        changed.event("contact.updated", conversation_id=conversation_id, contact_id=contact_id)
