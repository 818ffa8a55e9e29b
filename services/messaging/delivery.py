"""How a message reaches its contact: the job that hands it to the provider, the look-up of lost answers, and what callbacks say.

The row says SENDING with an attempt id before the vendor is called: whatever dies in between leaves UNKNOWN, which is looked up
and never sent again by itself. What may be written at all is messages.py's.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from tortoise.expressions import Q
from tortoise.queryset import QuerySet

from integrations.base import Author, IntegrationError, OutboundMessage, StatusUpdate
from integrations.base import external_id as stored_id
from models import database
from models.errors import ContactOptedOut, Refusal
from models.ids import parse_public_id, public_id
from models.tables import Account, ChannelConnection, Job, Message, MessagePaymentRequest
from models.vault import VaultError
from services.connections import availability, providers
from services.core import jobs, merged_rows, validation
from services.core.permissions import system_actor
from services.core.unit_of_work import change
from services.messaging import contacts, copies, early_statuses, opt_outs
from services.sandbox import channels
from services.thread import contact_totals, payment_links

log = structlog.get_logger(__name__)

SEND_ATTEMPTS: Final = 5
WAIT_FOR_EARLIER_S: Final = 0.5
WINDOW_CLOSED: Final = "window_closed"  # a provider's reason
# A message that is still queued after this does not hold up those behind it.
STUCK: Final = timedelta(hours=1)
LOOK_UPS_S: Final = (60, 300, 900)  # after an answer was lost
# A status waits so long for its message's external id: the last look-up may bring it.
STATUS_WAITS: Final = timedelta(seconds=LOOK_UPS_S[-1] + 300)
RATE_LIMITED: Final = "rate_limited"  # a provider's reason
PAUSE_S: Final = 10.0  # of a connection whose vendor has had enough and names no time
LONGEST_PAUSE_S: Final = 3600.0
# A message that the vendor has not let through for so long fails: what it says may not be true any more.
WAIT_LIMIT: Final = timedelta(hours=6)
# Reasons of a failure that lie in the connection, not in the message or its recipient: Settings → Channels shows them.
_OF_THE_CONNECTION: Final = frozenset(
    {
        "unauthorized",
        "forbidden",
        "invalid_sender",
        "host_refused",
        "port_refused",
        "not_found",
        "not_supported",
        "account_inactive",
        "wrong_account",
        "trial_account",
        "sender_not_registered",
        "sender_limited",
        "tls_failed",
        "unreachable",
        RATE_LIMITED,
    }
)
GRACE_S: Final = 5.0  # beyond the provider's own time-out
THREAD_LIMIT: Final = 200  # of an e-mail's references

NOT_SENT: Final = "SENDING_FAILED"  # the error code of a message whose job died
NOT_SENT_WORDS: Final = "An error of this system kept the message from being sent. Send it again."
MAYBE_SENT_WORDS: Final = "An error of this system came between: nobody knows whether the message was sent."

# Delivery status only moves up this list; FAILED is final, and reachable until DELIVERED.
RANK: Final = {"QUEUED": 0, "SENDING": 1, "UNKNOWN": 2, "SENT": 3, "DELIVERED": 4, "READ": 5}


async def enqueue(message: Message, *, again: bool = False) -> None:
    """Have a QUEUED message sent. Call in the transaction that inserts it; `again` if its job is gone. Key: one job per message."""
    await jobs.enqueue(
        "message.send",
        {"message_id": str(message.id)},
        account_id=message.account_id,
        key=f"message.send:{message.id}",
        max_attempts=SEND_ATTEMPTS,
        again=again,
    )


async def _send_died(job: jobs.JobContext, error: str) -> None:
    """The team sees what became of the message, and may send it again. Safe to repeat."""
    message = await Message.get_or_none(id=UUID(job.payload["message_id"]))
    if message is not None:
        await _strand(message)


async def _strand(message: Message) -> None:
    """No job moves it on any more: FAILED if it surely never left, else UNKNOWN."""
    if message.delivery_status == "SENDING":
        await _lost(message, MAYBE_SENT_WORDS)
    elif message.delivery_status == "QUEUED":
        await _advance(message, "FAILED", only_from="QUEUED", error_code=NOT_SENT, error_message=NOT_SENT_WORDS)


async def sweep_stranded(now: datetime) -> None:
    """Give messages that no job moves on a job, or an end. Key: the message's status."""
    for id in await jobs.without_job("message", "t.delivery_status IN ('QUEUED', 'SENDING')", "message.send:"):
        message = await Message.get(id=id)
        log.warning("message_without_job", message_id=str(id), status=message.delivery_status)
        died = await Job.exists(key=f"message.send:{id}", status="dead")
        if message.delivery_status == "QUEUED" and not died and abs(now - message.occurred_at) < STUCK:
            await enqueue(message, again=True)
        else:  # an old one says perhaps what is not true any more: a person decides
            await _strand(message)


@jobs.after_set_back
async def _forget_pauses(now: datetime) -> None:
    """A pause that was noted by a clock ahead of time would last until then. The vendor says it again."""
    await ChannelConnection.filter(next_send_at__gt=now).update(next_send_at=None)


# --------------------------------------------------------------------------------------------------- to the provider
@jobs.handler("message.send", on_dead=_send_died)
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
    connection = await providers.channel_connection(message.channel_connection_id, message.account_id)
    if await _earlier_waits(message):
        raise jobs.Later(max(WAIT_FOR_EARLIER_S, _paused_for(connection)))
    obstacle = await _obstacle(message, connection)
    if obstacle is not None:
        await _advance(message, "FAILED", error_code=obstacle.code, error_message=obstacle.message)
        return
    channel = providers.usable_channel(connection)
    if channel is None:
        await _advance(message, "FAILED", error_code="CHANNEL_UNAVAILABLE", error_message="The channel can't be used.")
        await providers.note_channel(connection, "The channel can't be used: connect it again.")
        return
    wait_s = await _wait_for_turn(message, connection)
    if wait_s is not None:
        if _waited_too_long(message):
            await _advance(
                message, "FAILED", error_code=RATE_LIMITED, error_message="The provider was too busy for hours."
            )
            return
        raise jobs.Later(wait_s)
    message.attempt_id = secrets.token_hex(16)
    message.sending_at = datetime.now(UTC)
    message.cc = await copies.remaining(message) or None
    outbound = await _outbound(message, connection)
    if not await database.until_taken(lambda: _take(message)):
        return
    try:
        async with asyncio.timeout(providers.environment().timeout_s + GRACE_S):
            result = await channel.send(outbound)
    except TimeoutError:
        await _lost(message)
    except IntegrationError as error:
        await _not_sent(message, connection, error, last=job.last_attempt)
    else:
        # The vendor has it: that is stored before all else, however long the database is away.
        await database.until_taken(
            lambda: _advance(message, result.status.value, external_id=result.external_id, relay_id=result.relay_id)
        )
        if result.refused_cc:
            await copies.record_failed(message, result.refused_cc)
        await providers.note_channel(connection, None)


async def _take(message: Message) -> bool:
    """QUEUED becomes SENDING with this attempt; also if that was committed before and the database's answer got lost."""
    ours = Q(delivery_status="QUEUED") | Q(delivery_status="SENDING", attempt_id=message.attempt_id)
    taken = await Message.filter(ours, id=message.id).update(
        delivery_status="SENDING", attempt_id=message.attempt_id, sending_at=message.sending_at, cc=message.cc
    )
    return taken > 0


async def _put_back(message: Message) -> None:
    """It surely never left: QUEUED again."""
    await Message.filter(id=message.id, delivery_status="SENDING", attempt_id=message.attempt_id).update(
        delivery_status="QUEUED", attempt_id=None, sending_at=None
    )


async def _earlier_waits(message: Message) -> bool:
    """Messages of one conversation and channel go out in order."""
    beside = await merged_rows.messages_of(message)
    return await beside.filter(
        channel_connection_id=message.channel_connection_id,
        direction="OUTBOUND",
        seq__lt=message.seq,
        delivery_status__in=["QUEUED", "SENDING"],
        occurred_at__gt=datetime.now(UTC) - STUCK,
    ).exists()


async def _wait_for_turn(message: Message, connection: ChannelConnection) -> float | None:
    """Seconds until this connection may send again; None: now, and the turn is taken. Key: compare-and-set on `next_send_at`.

    A vendor's rate limit (429) and the pace of ChannelLimits.messages_per_s are in the same column. Of one recipient's messages the
    time of the last is enough: they go out in order.
    """
    limits = availability.limits_of(connection)
    if limits.recipient_messages_per_s is not None:
        recipient_s = await _recipient_waits(message, timedelta(seconds=1 / limits.recipient_messages_per_s))
        if recipient_s:
            return recipient_s
    pace = limits.messages_per_s
    paused_s = _paused_for(connection)
    if pace is None:
        return paused_s or None
    if not paused_s:
        free = ChannelConnection.filter(id=connection.id, next_send_at=connection.next_send_at)
        if await free.update(next_send_at=datetime.now(UTC) + timedelta(seconds=1 / pace)):
            return None
        paused_s = _paused_for(await providers.channel_connection(connection.id))  # another message was quicker
    # Each comes back when those before it have gone, instead of all of them at every turn.
    ahead = await Message.filter(
        channel_connection_id=connection.id, direction="OUTBOUND", delivery_status="QUEUED", seq__lt=message.seq
    ).count()
    return paused_s + ahead / pace


async def _recipient_waits(message: Message, gap: timedelta) -> float:
    """Seconds until a message is `gap` behind the one before it to the same recipient; 0: it is."""
    now = datetime.now(UTC)
    before = Message.filter(
        conversation_id=message.conversation_id,
        channel_connection_id=message.channel_connection_id,
        direction="OUTBOUND",
        sending_at__gt=now - gap,
    )
    last = await before.exclude(id=message.id).order_by("-sending_at").first()
    if last is None or last.sending_at is None:
        return 0.0
    return min(last.sending_at + gap - now, gap).total_seconds()  # a clock that was set back


def _paused_for(connection: ChannelConnection) -> float:
    """Seconds until something may go out on this connection; 0: now."""
    until = connection.next_send_at
    return 0.0 if until is None else max(0.0, (until - datetime.now(UTC)).total_seconds())


def _waited_too_long(message: Message) -> bool:
    return message.occurred_at < datetime.now(UTC) - WAIT_LIMIT


async def _pause(connection: ChannelConnection, seconds: float) -> None:
    """Send nothing on this connection for so long; a longer pause stays."""
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    await ChannelConnection.filter(Q(next_send_at=None) | Q(next_send_at__lt=until), id=connection.id).update(
        next_send_at=until
    )


async def _obstacle(message: Message, connection: ChannelConnection) -> Refusal | None:
    """What has come between the commit and the call: an opt-out, a closed window, a disconnected channel."""
    conversation = await merged_rows.conversation_of(message.account_id, message.conversation_id)
    able = await availability.capability(
        system_actor(message.account_id),
        conversation,
        connection,
        address=await contacts.held_address(message.account_id, message.kind, message.address),
        payment_request=False,
        now=datetime.now(UTC),
        by_person=message.author_id is not None,
    )
    if able.reason == ContactOptedOut.code and await opt_outs.is_confirmation(message):
        return None
    try:
        availability.refuse(able, template=message.template_id is not None)
    except Refusal as refusal:
        return refusal
    return None


async def _outbound(message: Message, connection: ChannelConnection) -> OutboundMessage:
    account = await Account.get(id=message.account_id)
    held = await contacts.held_address(message.account_id, message.kind, message.address)
    button = await payment_links.button(message.account_id, message.body)
    thread = await _thread(message) if message.kind == "EMAIL" else _Thread()
    reference = public_id("msg", message.id)
    return OutboundMessage(
        message_id=reference,
        attempt_id=message.attempt_id or "",
        to=message.address,
        body=message.body,
        template_id=message.template_id,
        template_variables=message.template_variables or {},
        subject=message.subject,
        # A callback that overtakes the vendor's own answer finds its message by this; the signature covers the address.
        status_url=f"{providers.inbound_url(connection)}?m={reference}",
        sender_name=account.name,
        # Who has no user (an API key, the system) is a program: vendors allow it less.
        author=Author.AUTOMATION if message.author_id is None else Author.PERSON,
        last_inbound_at=None if held is None else held.last_inbound_at,
        link_url=None if button is None else button[0],
        link_label=None if button is None else button[1],
        reply_to=_reply_to(connection),
        in_reply_to=thread.answers,
        references=thread.references,
        # The address of one-click unsubscribe names the contact: it is not given to whoever else gets the letter.
        unsubscribe_url=opt_outs.unsubscribe_url(message) if message.kind == "EMAIL" and not message.cc else None,
        cc=message.cc or (),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Thread:
    """What an e-mail answers (the contact's last) and the thread before it, oldest first: external ids."""

    answers: str | None = None
    references: Sequence[str] = ()


async def _thread(message: Message) -> _Thread:
    beside = await merged_rows.messages_of(message)
    earlier = beside.filter(kind="EMAIL", seq__lt=message.seq, external_id__not_isnull=True).exclude(
        delivery_status="FAILED"
    )
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
        named = providers.credentials_of(connection).get("reply_to")
        return named or validation.email(connection.sender, field="sender")
    except (Refusal, VaultError):  # the sender is a name
        return None


async def _not_sent(message: Message, connection: ChannelConnection, error: IntegrationError, *, last: bool) -> None:
    if error.ambiguous:
        await _lost(message)
        return
    wait_s = error.retry_after_s
    if error.reason == RATE_LIMITED:
        wait_s = min(max(wait_s or PAUSE_S, 1.0), LONGEST_PAUSE_S)
    waits = error.retryable and wait_s is not None and not _waited_too_long(message)
    again = waits or (error.retryable and not last)
    # The message first: an error of the database after it leaves no message in doubt that surely never left.
    await database.until_taken(lambda: _put_back(message) if again else _fail(message, error))
    if error.reason == RATE_LIMITED and wait_s is not None:
        await _pause(connection, wait_s)
    if again:
        if waits and wait_s is not None:
            raise jobs.Later(wait_s)  # the vendor named a time: no attempt is used up by it
        raise error  # the runner comes back after its pause
    if error.reason in _OF_THE_CONNECTION:
        await providers.note_channel(connection, error.message or error.reason)
    log.warning("message_failed", message_id=str(message.id), provider=error.provider, reason=error.reason)


async def _fail(message: Message, error: IntegrationError) -> None:
    await _advance(
        message,
        "FAILED",
        reason=error.reason,
        error_code=error.code or error.reason,
        error_message=error.message or error.reason,
    )


async def _lost(message: Message, why: str | None = None) -> None:
    """The vendor may or may not have it: UNKNOWN, then look it up; never sent again by itself."""
    async with change(message.account_id) as changed:
        await _advance(message, "UNKNOWN", error_code=NOT_SENT if why else None, error_message=why)
        for seconds in LOOK_UPS_S:
            await jobs.enqueue(
                "message.resolve",
                {"message_id": str(message.id)},
                account_id=message.account_id,
                key=f"message.resolve:{message.id}:{seconds}",
                due_at=changed.now + timedelta(seconds=seconds),
            )


@jobs.handler(
    "message.resolve", on_dead="the message stays UNKNOWN: a callback resolves it, or a person sends it again"
)
async def _resolve_job(job: jobs.JobContext) -> None:
    """Ask the vendor what became of a message whose answer was lost. Key: the message is still UNKNOWN."""
    message = await Message.get(id=UUID(job.payload["message_id"]), account_id=job.account_id)
    if message.delivery_status != "UNKNOWN" or message.sending_at is None:
        return
    connection = await providers.channel_connection(message.channel_connection_id, message.account_id)
    channel = providers.usable_channel(connection)
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
    name our message. With `up_to` it speaks of all that went to an address until then. A status that comes before the external id
    of its message is kept and applied later.
    """
    if not await _record(connection, update, message_id):
        await early_statuses.keep(connection, update, message_id, STATUS_WAITS)


@jobs.handler("message.status", on_dead="the message keeps the status that it has")
async def _status_job(job: jobs.JobContext) -> None:
    """Apply a status that came before its message's external id. Safe to repeat: messages never step back.

    While a message of the connection has no id yet, it may be that one. Without any the status is of a message that is not ours.
    """
    update, message_id, until = early_statuses.read(job)
    connection = await providers.channel_connection(UUID(job.payload["connection_id"]), job.account_id)
    waits = await _nameless(connection).exists()  # before: an id that comes in between is found below
    if not await _record(connection, update, message_id) and waits and datetime.now(UTC) < until:
        raise jobs.Later(early_statuses.TRY_AGAIN.total_seconds())


def _nameless(connection: ChannelConnection) -> QuerySet[Message]:
    """Messages that the vendor may have, whose external id is not known yet."""
    return Message.filter(
        account_id=connection.account_id,
        channel_connection_id=connection.id,
        direction="OUTBOUND",
        external_id=None,
        delivery_status__in=["SENDING", "UNKNOWN"],
        sending_at__gt=datetime.now(UTC) - STATUS_WAITS,
    )


async def _record(connection: ChannelConnection, update: StatusUpdate, message_id: UUID | None) -> bool:
    """Whether the status has reached all messages that it speaks of."""
    ours = Message.filter(account_id=connection.account_id, channel_connection_id=connection.id, direction="OUTBOUND")
    if update.up_to is not None:
        until = {"address": update.address, "sending_at__lte": update.up_to}
        waits = await _nameless(connection).filter(**until).exists()
        reached = ours.filter(**until, delivery_status__in=["SENT", "DELIVERED"])
        for message in await reached.order_by("seq"):
            await _advance(message, update.status.value)
        return not waits
    found = await ours.get_or_none(external_id=stored_id(update.external_id)) or await by_relay(
        connection, [update.external_id]
    )
    if found is None:
        named = message_id or parse_public_id(update.message_id or "", "msg")
        found = await ours.get_or_none(id=named, external_id=None) if named is not None else None
    if found is None:
        log.info("status_of_unknown_message", connection=str(connection.id))
        return False
    if copies.is_copy(found, update.address):
        await _apply_to_copy(found, update)
    else:
        await _apply(found, update)
    return True


async def _apply_to_copy(message: Message, update: StatusUpdate) -> None:
    """A status of a copy says nothing about the contact's own letter, but that it was sent."""
    address = update.address or ""
    if update.status.value == "FAILED":
        await copies.record_failed(message, [address])
        return
    if update.answered:
        await copies.record_answered(message, address)
    await _advance(message, "SENT", external_id=update.external_id)


async def _apply(message: Message, update: StatusUpdate) -> None:
    if update.reason in _OF_THE_CONNECTION:
        connection = await providers.channel_connection(message.channel_connection_id, message.account_id)
        await providers.note_channel(connection, update.error_message or update.reason)
    await _advance(
        message,
        update.status.value,
        external_id=update.external_id,
        reason="opted_out" if update.opted_out else update.reason,
        error_code=update.error_code,
        error_message=update.error_message,
        answered=update.answered,
    )


async def by_relay(connection: ChannelConnection, references: Sequence[str]) -> Message | None:
    """The message that one of these ids names by what its relay calls it; relays put a domain of theirs behind it."""
    names = {part for one in references for part in (one.strip("<>"), one.strip("<>").partition("@")[0]) if part}
    if connection.kind != "EMAIL" or not names:
        return None
    return await Message.filter(
        account_id=connection.account_id, channel_connection_id=connection.id, relay_id__in=sorted(names)
    ).first()


def forward(before: str, after: str, *, answered: bool = False) -> bool:
    """Whether a delivery status may become this one. An answer to the very message outweighs a report that it failed."""
    if before == "FAILED":
        return answered and after != "FAILED"
    if after == "FAILED":
        return RANK[before] < RANK["DELIVERED"]
    return RANK[after] > RANK[before]


async def _advance(
    known: Message,
    status: str,
    *,
    external_id: str | None = None,
    relay_id: str | None = None,
    reason: str | None = None,
    error_code: str | None = None,
    error_message: str | None = None,
    answered: bool = False,
    only_from: str | None = None,
) -> None:
    """Move a message forward, with the delivery state of the requests whose link it carries; else change nothing.

    `only_from`: only if it has this status now.

    `reason`: why it failed, where that has consequences. "opted_out" is remembered once, so that a late repeat does not undo a
    START; "window_closed" stands in place of the vendor's number, and the request's card says it.
    """
    account_id = known.account_id
    bindings = await MessagePaymentRequest.filter(account_id=account_id, message_id=known.id)
    locked = [*(binding.payment_request_id for binding in bindings), known.id]
    async with change(account_id, rows=locked) as changed:
        requests = await payment_links.lock_requests(account_id, [binding.payment_request_id for binding in bindings])
        if reason == "opted_out":
            await contact_totals.lock_contact(account_id, known.contact_id)
        message = await Message.filter(id=known.id, account_id=account_id).select_for_update(no_key=True).get()
        if only_from is not None and message.delivery_status != only_from:
            return
        if external_id and message.external_id is None:
            message.external_id = stored_id(external_id)
            message.relay_id = relay_id
            # An echo that came first, in words that the vendor has changed, stands in the thread as somebody else's.
            await Message.filter(
                channel_connection_id=message.channel_connection_id, external_id=message.external_id
            ).update(external_id=None)
            await message.save(update_fields=["external_id", "relay_id"])
            await early_statuses.wake(message.channel_connection_id, message.external_id)
            if status == "SENT":
                connection = await providers.channel_connection(message.channel_connection_id, account_id)
                await channels.enqueue_delivery(connection, external_id, message.address)
        if not forward(message.delivery_status, status, answered=answered):
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
            await payment_links.delivery_changed(changed, request, message)
        if reason == "opted_out":
            await opt_outs.opt_out(changed, message.channel_connection_id, message.kind, message.address, blocked=True)
