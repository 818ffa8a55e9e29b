"""When a queued message may go out: order, rate limits, and pauses of a connection."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from tortoise.expressions import Q

from models.tables import ChannelConnection, Message
from services.connections import availability, providers
from services.core import jobs, merged_rows

# A message queued for longer does not hold up later ones.
STUCK: Final = timedelta(hours=1)
# A message queued for longer fails: its text may be out of date.
WAIT_LIMIT: Final = timedelta(hours=6)


@jobs.after_set_back
async def _forget_pauses(now: datetime) -> None:
    # Written by a clock that was ahead, they would last too long.
    await ChannelConnection.filter(next_send_at__gt=now).update(next_send_at=None)


async def earlier_waits(message: Message) -> bool:
    """Whether an earlier message of this conversation and channel is still queued."""
    beside = await merged_rows.messages_of(message)
    return await beside.filter(
        channel_connection_id=message.channel_connection_id,
        direction="OUTBOUND",
        seq__lt=message.seq,
        delivery_status__in=["QUEUED", "SENDING"],
        occurred_at__gt=datetime.now(UTC) - STUCK,
    ).exists()


async def wait_for_turn(message: Message, connection: ChannelConnection) -> float | None:
    """Seconds until this connection may send again; None: now, and the turn is taken."""
    limits = availability.limits_of(connection)
    if limits.recipient_messages_per_s is not None:
        recipient_s = await _recipient_waits(message, timedelta(seconds=1 / limits.recipient_messages_per_s))
        if recipient_s:
            return recipient_s
    pace = limits.messages_per_s
    paused_s = paused_for(connection)
    if pace is None:
        return paused_s or None
    if not paused_s:
        free = ChannelConnection.filter(id=connection.id, next_send_at=connection.next_send_at)
        if await free.update(next_send_at=datetime.now(UTC) + timedelta(seconds=1 / pace)):
            return None
        paused_s = paused_for(await providers.channel_connection(connection.id))  # another message took the turn
    # Return after the messages ahead, so that not all retry at every turn.
    ahead = await Message.filter(
        channel_connection_id=connection.id, direction="OUTBOUND", delivery_status="QUEUED", seq__lt=message.seq
    ).count()
    return paused_s + ahead / pace


async def _recipient_waits(message: Message, gap: timedelta) -> float:
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


def paused_for(connection: ChannelConnection) -> float:
    """Seconds until this connection may send; 0: now."""
    until = connection.next_send_at
    return 0.0 if until is None else max(0.0, (until - datetime.now(UTC)).total_seconds())


def waited_too_long(message: Message) -> bool:
    return message.occurred_at < datetime.now(UTC) - WAIT_LIMIT


async def pause(connection: ChannelConnection, seconds: float) -> None:
    """Send nothing on this connection for this long; a longer pause stays."""
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    await ChannelConnection.filter(Q(next_send_at=None) | Q(next_send_at__lt=until), id=connection.id).update(
        next_send_at=until
    )
