"""Callbacks from channels: verified, then each status and each contact's message is applied once."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar
from uuid import UUID, uuid5

import orjson
import structlog

from integrations.base import (
    Blocking,
    ChannelWebhook,
    DeliveryStatus,
    InboundMessage,
    MessageChange,
    PayloadInvalid,
    SignatureInvalid,
    StatusUpdate,
    WebhookRequest,
    WrittenElsewhere,
)
from integrations.base import external_id as stored_id
from integrations.sms import asks_help
from models import database_errors
from models.errors import NotFound, Refusal
from models.ids import parse_public_id, uuid7
from models.storable import storable
from models.tables import ChannelConnection, Contact, ContactAddress, Conversation, Message
from services.connections import invitations, providers
from services.core import actors, jobs, merged_rows, turns, validation
from services.core.permissions import system_actor
from services.core.unit_of_work import Change, change
from services.core.webhooks import HELD_AGAIN, VENDOR_WAITS_S, BadPayload, BadSignature, NotVerifiable
from services.messaging import (
    attachments,
    blocks,
    contact_names,
    contacts,
    copies,
    delivery,
    early_statuses,
    message_changes,
    messages,
    opt_outs,
    sending,
)
from services.messaging.contacts import PHONE_KINDS
from services.messaging.message_changes import NO_TEXT
from services.messaging.messages import SUBJECT_LIMIT

__all__ = ["WebhookRequest", "receive", "store"]

log = structlog.get_logger(__name__)

SMALL_BODY: Final = 4096  # bytes; parsed without a thread
EMAIL_REFUSED: Final = {
    "too_large": "An email was rejected: it is too large, or has too many lines.",
    "too_many_parts": "An email was rejected: it has too many parts.",
}
EMAIL_UNREADABLE: Final = "An email was rejected: it can't be read."
WEBHOOK_SEEN_EVERY: Final = timedelta(seconds=30)
CALLBACK_LIMIT: Final = 2 * 1024 * 1024  # bytes: vendors put 50 and more long messages in one; an email may have more
KEPT_BODY: Final = CALLBACK_LIMIT  # the sender of a longer email must send it again
AGAIN_AFTER_S: Final = 3600.0  # for a kept callback whose attempts are used up
EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)  # a message that claims to be older is dated now
HELP_AGAIN: Final = timedelta(minutes=10)
CLOCK_SKEW: Final = timedelta(minutes=5)  # between the clocks of two servers


_Part = TypeVar("_Part", StatusUpdate, InboundMessage, WrittenElsewhere, MessageChange, Blocking)


async def receive(provider: str, connection_id: UUID, request: WebhookRequest) -> ChannelWebhook:
    """Verify one callback, then apply its statuses and messages; returns after the commits.

    Raises: NotFound, BadSignature, BadPayload, NotVerifiable.
    """
    # Read disconnected channels too, so that no STOP is lost.
    connection = await ChannelConnection.get_or_none(id=connection_id, provider=provider)
    if connection is None or not providers.allowed(connection):
        raise NotFound
    webhook = await _verify_and_handle(connection, request)
    for vendor_account in webhook.others:  # the vendor has one callback URL for several accounts
        other = await providers.connection_to(connection, vendor_account)
        if other is None:
            log.info("callback_of_unconnected_account", connection=str(connection.id))
            continue
        try:
            await _verify_and_handle(other, request)
        except (BadSignature, BadPayload, NotVerifiable) as error:  # another app's secret, or unreadable credentials
            log.warning("callback_not_handed_on", connection=str(other.id), error=type(error).__name__)
    return webhook


async def _verify_and_handle(connection: ChannelConnection, request: WebhookRequest) -> ChannelWebhook:
    webhook = await _verify(connection, request)
    if connection.last_webhook_at is None or abs(request.now - connection.last_webhook_at) > WEBHOOK_SEEN_EVERY:
        await providers.note_webhook(connection, request.now)
    try:
        with turns.patience(VENDOR_WAITS_S):
            await _handle(connection, webhook, _message_id_hint(request), request.now)
    except Exception as error:  # most often a locked row
        if not database_errors.is_transient(error) or len(request.body) > KEPT_BODY:
            raise
        log.warning("callback_postponed", connection=str(connection.id), error=type(error).__name__)
        await _postpone(connection, request)  # most vendors send a callback once
    return webhook


def _message_id_hint(request: WebhookRequest) -> UUID | None:
    return parse_public_id(request.query.get("m", ""), "msg")


async def _verify(connection: ChannelConnection, request: WebhookRequest) -> ChannelWebhook:
    channel = providers.usable_channel(connection)
    if channel is None:  # its package or its credentials are unusable, perhaps temporarily
        raise NotVerifiable("provider_unavailable")
    try:
        # A large or hostile body takes up to seconds: parse it in a thread.
        if len(request.body) <= SMALL_BODY:
            return _without_naive_times(channel.receive(request), connection)
        return _without_naive_times(await asyncio.to_thread(channel.receive, request), connection)
    except SignatureInvalid as error:
        raise BadSignature(error.reason) from error
    except PayloadInvalid as error:
        if connection.kind == "EMAIL" and connection.last_error is None:  # an error that stops sending has priority
            await providers.note_channel(connection, EMAIL_REFUSED.get(error.reason, EMAIL_UNREADABLE))
        raise BadPayload(error.reason) from error


def _without_naive_times(webhook: ChannelWebhook, connection: ChannelConnection) -> ChannelWebhook:
    def kept(parts: Sequence[_Part]) -> Sequence[_Part]:
        odd = [one for one in parts if one.occurred_at is not None and one.occurred_at.utcoffset() is None]
        if odd:
            log.error("time_without_zone", connection=str(connection.id), provider=connection.provider)
        return [replace(one, occurred_at=None) if one in odd else one for one in parts] if odd else parts

    return replace(
        webhook,
        statuses=kept(webhook.statuses),
        messages=kept(webhook.messages),
        elsewhere=kept(webhook.elsewhere),
        changes=kept(webhook.changes),
        blockings=kept(webhook.blockings),
    )


async def _handle(connection: ChannelConnection, webhook: ChannelWebhook, hint: UUID | None, now: datetime) -> None:
    for update in webhook.statuses:
        await delivery.record_status(connection, update, message_id=hint)
    # Threads show messages as stored: a question must precede a colleague's answer.
    written: list[InboundMessage | WrittenElsewhere] = [*webhook.messages, *webhook.elsewhere]
    for message in sorted(written, key=lambda one: one.occurred_at or now):
        if isinstance(message, InboundMessage):
            await store(connection, message, now)
        else:
            await _store_elsewhere(connection, message, now)
    for reported in webhook.changes:
        await message_changes.record(connection, reported)
    for blocking in webhook.blockings:
        await blocks.record(connection, blocking)


async def _postpone(connection: ChannelConnection, request: WebhookRequest) -> None:
    kept = {
        "method": request.method,
        "public_url": request.public_url,
        "headers": dict(request.headers),
        "body": base64.b64encode(request.body).decode(),
        "now": request.now.isoformat(),
        "query": dict(request.query),
    }
    await jobs.enqueue(
        "inbound.handle",
        {"connection_id": str(connection.id)},
        account_id=connection.account_id,
        key=f"inbound:{connection.id}:{hashlib.sha256(request.public_url.encode() + request.body).hexdigest()}",
        due_at=datetime.now(UTC) + HELD_AGAIN,
        again=True,
        secret=orjson.dumps(kept).decode(),  # private text, and perhaps vendor credentials
    )


async def _handle_died(job: jobs.JobContext, error: str) -> None:
    log.error("callback_unhandled", connection=job.payload["connection_id"])
    raise jobs.Later(AGAIN_AFTER_S)


@jobs.handler("inbound.handle", on_dead=_handle_died)
async def _handle_job(job: jobs.JobContext) -> None:
    connection = await ChannelConnection.get(id=UUID(job.payload["connection_id"]))
    kept = orjson.loads(job.secret)
    kept |= {"body": base64.b64decode(kept["body"]), "now": datetime.fromisoformat(kept["now"])}
    request = WebhookRequest(**kept)
    await _handle(connection, await _verify(connection, request), _message_id_hint(request), request.now)


async def store(connection: ChannelConnection, inbound: InboundMessage, now: datetime) -> None:
    """Store a contact's message from a verified callback or a known visitor, once per external id."""
    if connection.kind != "EMAIL" and await _is_stored(connection, inbound):
        return
    received = _parse_message(connection, inbound, now)
    answered = await _answered_by_email(connection, inbound)
    token = inbound.link_token
    invited = None if token is None else invitations.contact_of(token, connection.id, now)
    async with change(connection.account_id, queue_on=[uuid5(connection.id, received.address)]) as changed:
        if answered is None:
            contact, conversation = await contacts.find_or_create_by_address(
                changed, connection, connection.kind, received.address, inbound.sender_name, invited=invited
            )
        else:  # the contact that we wrote to, whatever the sender's address
            contact, conversation = await contacts.lock(connection.account_id, answered.contact_id)
        changed.actor = actors.contact(contact.id)
        # Again under the lock: another process may have stored it.
        if (external_id := await _external_id_to_store(connection, inbound, received)) is None:
            return
        await contact_names.ask(connection, contact, received.address)
        held = await _record_address(changed, contact, conversation, received, now)
        newly_out = held is not None and held.opted_out_at is None
        if inbound.opt_out is not None:
            await _apply_opt_out(changed, connection, received.address, answered, out=inbound.opt_out)
        message = await _inbound_message(contact, conversation, inbound, received)
        message.channel_connection_id, message.external_id = connection.id, external_id
        files = inbound.attachments
        if await message_changes.removed_early(connection, inbound.external_id):
            message.update_from_dict({"subject": None, "quoted_text": None, "removed_at": now})
            message.body, files = message_changes.REMOVED, ()
        changed.message(message)
        await attachments.keep(changed, message, files)
        await Conversation.filter(id=conversation.id).update(unread_count=conversation.unread_count + 1)
        changed.event("conversation.updated", conversation_id=conversation.id, contact_id=contact.id)
        if connection.kind in PHONE_KINDS and asks_help(received.body) and not inbound.help_answered:
            await _answer_help(connection, conversation.id, changed.now)
        if inbound.stop_unanswered and newly_out and providers.usable(connection):
            await _confirm_stop(changed, message)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Received:
    kind: str
    address: str
    subject: str | None
    body: str
    written_at: datetime


def _parse_message(connection: ChannelConnection, inbound: InboundMessage, now: datetime) -> _Received:
    try:
        address = contacts.normalise(connection.kind, inbound.sender, None)
    except Refusal:  # a short code, a name: whatever the vendor calls the sender
        address = inbound.sender.replace("\x00", "").strip()[: validation.ADDRESS_LIMIT]
    body = inbound.body.replace("\x00", "").strip()
    if not body and inbound.attachments:
        body = _files_text(inbound.attachments)
    elif not body and connection.kind != "EMAIL":  # an email has its subject
        body = NO_TEXT
    if (left_out := len(inbound.attachments) - attachments.COUNT_LIMIT) > 0:
        body = f"{body}\n[{left_out} more attachment{'s' if left_out > 1 else ''} left out]"
    return _Received(
        kind=connection.kind,
        address=address,
        subject=(inbound.subject or "").replace("\x00", "").strip()[:SUBJECT_LIMIT] or None,
        body=body,
        written_at=_written_at(inbound.occurred_at, now),
    )


async def _record_address(
    changed: Change, contact: Contact, conversation: Conversation, received: _Received, now: datetime
) -> ContactAddress | None:
    held = await _address_written_from(contact, received.kind, received.address)
    if held is None:
        return None
    last = held.last_inbound_at
    # A late message must not shorten the window; a future time comes from a wrong clock.
    if last is None or last < received.written_at or last > now + CLOCK_SKEW:
        await ContactAddress.filter(id=held.id).update(last_inbound_at=received.written_at)
    await contacts.answered_from(changed, contact, conversation, held, received.written_at)
    return held


async def _apply_opt_out(
    changed: Change, connection: ChannelConnection, address: str, answered: Message | None, *, out: bool
) -> None:
    record = opt_outs.opt_out if out else opt_outs.opt_in
    # A person in Cc decides only for their own address.
    copied = answered is None or copies.is_copy(answered, address)
    for one in {address, address if copied or answered is None else answered.address}:
        await record(changed, connection.id, connection.kind, one)


async def _inbound_message(
    contact: Contact, conversation: Conversation, inbound: InboundMessage, received: _Received
) -> Message:
    replied = await _replied_to(conversation, inbound.in_reply_to)
    return Message(
        id=uuid7(),
        account_id=contact.account_id,
        conversation_id=conversation.id,
        contact_id=contact.id,
        direction="INBOUND",
        kind=received.kind,
        address=received.address,
        subject=received.subject,
        body=received.body,
        quoted_text=(inbound.quoted or "").replace("\x00", "") or None,
        cc=list(inbound.cc) or None,
        delivery_status="DELIVERED",
        reply_to_id=None if replied is None else replied.id,
        occurred_at=received.written_at,
    )


async def _address_written_from(contact: Contact, kind: str, address: str) -> ContactAddress | None:
    held = await contacts.held_address(contact.account_id, kind, address)
    if held is not None and held.contact_id == contact.id:
        return held
    return await ContactAddress.get_or_none(contact_id=contact.id, kind=kind, in_use=True)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _files_text(files: Sequence[object]) -> str:
    return f"[{len(files)} attachment{'s' if len(files) > 1 else ''}]" if files else ""


async def _store_elsewhere(connection: ChannelConnection, written: WrittenElsewhere, now: datetime) -> None:
    body = storable(written.body).strip()
    address = written.recipient[: validation.ADDRESS_LIMIT]
    external_id = stored_id(written.external_id)
    stored = Message.filter(channel_connection_id=connection.id, external_id=external_id)
    if await stored.exists():
        return
    mine = Message.filter(channel_connection_id=connection.id, direction="OUTBOUND")
    under_way = mine.filter(address=address, external_id=None, delivery_status__in=["SENDING", "UNKNOWN"])
    for own in await under_way.order_by("seq"):  # an echo may overtake the answer to our own call
        if written.template or _one_line(body).startswith(_one_line(own.body)):
            ours = StatusUpdate(external_id=written.external_id, status=DeliveryStatus.SENT)
            await delivery.record_status(connection, ours, message_id=own.id)
            return
    by, rows_locked = actors.channel(connection.display_name), [uuid5(connection.id, address)]
    async with change(connection.account_id, actor=by, queue_on=rows_locked) as changed:
        contact, conversation = await contacts.find_or_create_by_address(
            changed, connection, connection.kind, address, None
        )
        if await stored.exists():  # by the same callback on another process
            return
        await contact_names.ask(connection, contact, address)
        message = Message(
            id=uuid7(),
            account_id=connection.account_id,
            conversation_id=conversation.id,
            contact_id=contact.id,
            direction="OUTBOUND",
            kind=connection.kind,
            channel_connection_id=connection.id,
            address=address,
            body=body or _files_text(written.attachments) or NO_TEXT,
            delivery_status="SENT",
            external_id=external_id,
            author_name=written.author[: contacts.NAME_LIMIT],
            author=actors.channel(written.author[: contacts.NAME_LIMIT]).stored(),
            occurred_at=_written_at(written.occurred_at, now),
        )
        replied = await _replied_to(conversation, written.in_reply_to)
        message.reply_to_id = None if replied is None else replied.id
        files = written.attachments
        if await message_changes.removed_early(connection, written.external_id):
            message.body, message.removed_at, files = message_changes.REMOVED, now, ()
        changed.message(message)
        await attachments.keep(changed, message, files)
        await early_statuses.wake(connection.id, external_id)


def _written_at(vendor_time: datetime | None, now: datetime) -> datetime:
    return vendor_time.astimezone(UTC) if vendor_time is not None and EARLIEST < vendor_time <= now else now


async def _answer_help(connection: ChannelConnection, conversation_id: UUID, now: datetime) -> None:
    actor = system_actor(connection.account_id)
    text = await opt_outs.help_text(connection.account_id)
    if await Message.exists(
        conversation_id__in=merged_rows.ids_of(
            await merged_rows.conversation_of(connection.account_id, conversation_id)
        ),
        channel_connection_id=connection.id,
        direction="OUTBOUND",
        body=text,
        occurred_at__gt=now - HELP_AGAIN,  # a machine may answer us with HELP again and again
        occurred_at__lt=now + HELP_AGAIN,  # ignore answers dated by a clock that was ahead
    ):
        return
    try:
        await messages.send_message(actor, conversation_id=conversation_id, channel_id=connection.id, body=text)
    except Refusal as refusal:
        log.info("help_not_answered", connection=str(connection.id), reason=refusal.code)


async def _confirm_stop(changed: Change, stop: Message) -> None:
    message = Message(
        id=uuid7(),
        account_id=stop.account_id,
        conversation_id=stop.conversation_id,
        contact_id=stop.contact_id,
        direction="OUTBOUND",
        kind=stop.kind,
        channel_connection_id=stop.channel_connection_id,
        address=stop.address,
        body=await opt_outs.stop_text(stop.account_id),
        delivery_status="QUEUED",
        reply_to_id=stop.id,
        author_name=system_actor(stop.account_id).name,
        author=actors.PAYTHREAD.stored(),
        occurred_at=changed.now,
    )
    changed.message(message)
    await sending.enqueue(message)


async def _replied_to(conversation: Conversation, external_id: str | None) -> Message | None:
    if external_id is None:
        return None
    said = Message.filter(conversation_id__in=merged_rows.ids_of(conversation), external_id=stored_id(external_id))
    return await said.order_by("-seq").first()


async def _answered_by_email(connection: ChannelConnection, inbound: InboundMessage) -> Message | None:
    if connection.kind != "EMAIL":
        return None
    if inbound.in_reply_to is not None:  # an id that only the recipients have seen
        return await Message.get_or_none(
            channel_connection_id=connection.id, external_id=stored_id(inbound.in_reply_to), direction="OUTBOUND"
        )
    return await delivery.by_relay(connection, inbound.references)


async def _external_id_to_store(
    connection: ChannelConnection, inbound: InboundMessage, received: _Received
) -> str | None:
    known = await Message.get_or_none(channel_connection_id=connection.id, external_id=stored_id(inbound.external_id))
    if known is None:
        return stored_id(inbound.external_id)
    # Scanners and broken mailers reuse a Message-ID: hash other content instead.
    sizes = [one.get("size", "") for one in inbound.attachments]
    if connection.kind != "EMAIL" or (
        (known.address, known.subject, known.body) == (received.address, received.subject, received.body)
        and [str(size) for size in await attachments.sizes(known.id)] == sizes[: attachments.COUNT_LIMIT]
    ):
        return None
    content = "\0".join([inbound.external_id, received.address, received.subject or "", received.body, *sizes])
    other = f"sha256:{hashlib.sha256(content.encode('utf-8', 'surrogatepass')).hexdigest()}"
    return None if await Message.exists(channel_connection_id=connection.id, external_id=other) else other


async def _is_stored(connection: ChannelConnection, inbound: InboundMessage) -> bool:
    return await Message.exists(channel_connection_id=connection.id, external_id=stored_id(inbound.external_id))
