"""The job that sends a queued message through its provider."""

from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import structlog
from tortoise.expressions import Q

from integrations.base import Channel, IntegrationError, OutboundMessage
from models import database_errors
from models.errors import ContactOptedOut, Refusal
from models.tables import ChannelConnection, Job, Message
from services.connections import availability, providers
from services.core import configuration, jobs, merged_rows
from services.core.permissions import system_actor
from services.core.unit_of_work import change
from services.messaging import contacts, copies, opt_outs, outbound, pacing
from services.messaging.delivery import CONNECTION_REASONS, RATE_LIMITED, advance
from services.messaging.look_ups import NOT_SENT, mark_unknown

log = structlog.get_logger(__name__)

SEND_ATTEMPTS: Final = 5
WAIT_FOR_EARLIER_S: Final = 0.5
PAUSE_S: Final = 10.0  # of a connection after a rate limit without a time
LONGEST_PAUSE_S: Final = 3600.0
GRACE_S: Final = 5.0  # beyond the provider's own time-out

NOT_SENT_TEXT: Final = "An internal error prevented this message from being sent. Send it again."
MAYBE_SENT_TEXT: Final = "An internal error interrupted sending. This message may or may not have been sent."


async def enqueue(message: Message, *, again: bool = False) -> None:
    """Plan the sending of a QUEUED message; call in the transaction that inserts it."""
    await jobs.enqueue(
        "message.send",
        {"message_id": str(message.id)},
        account_id=message.account_id,
        key=f"message.send:{message.id}",
        max_attempts=SEND_ATTEMPTS,
        again=again,
    )


async def _send_died(job: jobs.JobContext, error: str) -> None:
    message = await Message.get_or_none(id=UUID(job.payload["message_id"]))
    if message is not None:
        await _end_without_job(message)


async def _end_without_job(message: Message) -> None:
    if message.delivery_status == "SENDING":
        await mark_unknown(message, MAYBE_SENT_TEXT)
    elif message.delivery_status == "QUEUED":
        await advance(message, "FAILED", only_from="QUEUED", error_code=NOT_SENT, error_message=NOT_SENT_TEXT)


async def sweep_stranded(now: datetime) -> None:
    """Enqueue messages that lost their job again, or end them."""
    for id in await jobs.without_job("message", "t.delivery_status IN ('QUEUED', 'SENDING')", "message.send:"):
        message = await Message.get(id=id)
        log.warning("message_without_job", message_id=str(id), status=message.delivery_status)
        died = await Job.exists(key=f"message.send:{id}", status="dead")
        if message.delivery_status == "QUEUED" and not died and abs(now - message.occurred_at) < pacing.STUCK:
            await enqueue(message, again=True)
        else:  # an old message may be out of date: a person decides
            await _end_without_job(message)


@jobs.handler("message.send", on_dead=_send_died)
async def _send_job(job: jobs.JobContext) -> None:
    message = await Message.get(id=UUID(job.payload["message_id"]), account_id=job.account_id)
    if message.delivery_status == "SENDING":  # an earlier run died between the call and its answer
        await mark_unknown(message)
        return
    if message.delivery_status != "QUEUED":
        return
    connection = await providers.channel_connection(message.channel_connection_id, message.account_id)
    channel = await _ready_channel(message, connection)
    if channel is None:
        return
    built = await _claim(message, connection)  # commits SENDING: a crash leaves UNKNOWN, never a second send
    if built is not None:
        await _send(channel, built, message, connection, last=job.last_attempt)


async def _ready_channel(message: Message, connection: ChannelConnection) -> Channel | None:
    if await pacing.earlier_waits(message):
        raise jobs.Later(max(WAIT_FOR_EARLIER_S, pacing.paused_for(connection)))
    refusal = await _refusal(message, connection)
    if refusal is not None:
        await advance(message, "FAILED", error_code=refusal.code, error_message=refusal.message)
        return None
    channel = providers.usable_channel(connection)
    if channel is None:
        await advance(message, "FAILED", error_code="CHANNEL_UNAVAILABLE", error_message="The channel can't be used.")
        await providers.note_channel(connection, "The channel can't be used: connect it again.")
        return None
    wait_s = await pacing.wait_for_turn(message, connection)
    if wait_s is None:
        return channel
    if not pacing.waited_too_long(message):
        raise jobs.Later(wait_s)
    await advance(message, "FAILED", error_code=RATE_LIMITED, error_message="The provider was too busy for hours.")
    return None


async def _refusal(message: Message, connection: ChannelConnection) -> Refusal | None:
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
        availability.refuse(able, conversation.id, connection.id, template=message.template_id is not None)
    except Refusal as refusal:
        return refusal
    return None


async def _claim(message: Message, connection: ChannelConnection) -> OutboundMessage | None:
    message.attempt_id = secrets.token_hex(16)
    message.sending_at = datetime.now(UTC)
    before, message.cc = message.cc, await copies.remaining(message) or None
    mark = _mark_sending if message.cc == before else _mark_sending_to_fewer
    built = await outbound.build(message, connection)
    return built if await database_errors.retry_transient(lambda: mark(message)) else None


async def _mark_sending(message: Message) -> bool:
    # This attempt may be committed although the database's answer was lost.
    ours = Q(delivery_status="QUEUED") | Q(delivery_status="SENDING", attempt_id=message.attempt_id)
    marked = await Message.filter(ours, id=message.id).update(
        delivery_status="SENDING", attempt_id=message.attempt_id, sending_at=message.sending_at, cc=message.cc
    )
    return marked > 0


async def _mark_sending_to_fewer(message: Message) -> bool:
    async with change(message.account_id, queue_on=[message.id]) as changed:
        marked = await _mark_sending(message)
        if marked:
            copies.announce(changed, message)
    return marked


async def _send(
    channel: Channel, built: OutboundMessage, message: Message, connection: ChannelConnection, *, last: bool
) -> None:
    try:
        async with asyncio.timeout(configuration.current().environment.timeout_s + GRACE_S):
            result = await channel.send(built)
    except TimeoutError:
        await mark_unknown(message)
    except IntegrationError as error:
        await _handle_failure(message, connection, error, last=last)
    else:
        # The vendor has accepted it: store that first, however long the database is away.
        await database_errors.retry_transient(
            lambda: advance(message, result.status.value, external_id=result.external_id, relay_id=result.relay_id)
        )
        if result.refused_cc:
            await copies.record_failed(message, result.refused_cc)
        await providers.note_channel(connection, None)


async def _handle_failure(
    message: Message, connection: ChannelConnection, error: IntegrationError, *, last: bool
) -> None:
    if error.ambiguous:
        await mark_unknown(message)
        return
    wait_s = error.retry_after_s
    if error.reason == RATE_LIMITED:
        wait_s = min(max(wait_s or PAUSE_S, 1.0), LONGEST_PAUSE_S)
    waits = error.retryable and wait_s is not None and not pacing.waited_too_long(message)
    again = waits or (error.retryable and not last)
    # The message first: a later failure of the database leaves no doubt about it.
    await database_errors.retry_transient(lambda: _put_back(message) if again else _fail(message, error))
    if error.reason == RATE_LIMITED and wait_s is not None:
        await pacing.pause(connection, wait_s)
    if again:
        if waits and wait_s is not None:
            raise jobs.Later(wait_s)  # the vendor named a time: this uses up no attempt
        raise error
    if error.reason in CONNECTION_REASONS:
        await providers.note_channel(connection, error.message or error.reason)
    log.warning("message_failed", message_id=str(message.id), provider=error.provider, reason=error.reason)


async def _put_back(message: Message) -> None:
    await Message.filter(id=message.id, delivery_status="SENDING", attempt_id=message.attempt_id).update(
        delivery_status="QUEUED", attempt_id=None, sending_at=None
    )


async def _fail(message: Message, error: IntegrationError) -> None:
    await advance(
        message,
        "FAILED",
        reason=error.reason,
        error_code=error.code or error.reason,
        error_message=error.message or error.reason,
    )
