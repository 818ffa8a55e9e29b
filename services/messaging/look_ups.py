"""Marks messages UNKNOWN whose sending got no answer, and looks them up at the vendor."""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog

from integrations.base import IntegrationError
from integrations.base import external_id as stored_id
from models.tables import Message
from services.connections import providers
from services.core import jobs
from services.core.unit_of_work import change
from services.messaging import delivery, outbound

log = structlog.get_logger(__name__)

NOT_SENT: Final = "SENDING_FAILED"  # the error code of a message whose job died


async def mark_unknown(message: Message, why: str | None = None) -> None:
    """Mark a message that the vendor may have accepted, and plan the look-ups."""
    async with change(message.account_id) as changed:
        await delivery.advance(message, "UNKNOWN", error_code=NOT_SENT if why else None, error_message=why)
        for seconds in delivery.LOOK_UPS_S:
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
    message = await Message.get(id=UUID(job.payload["message_id"]), account_id=job.account_id)
    if message.delivery_status != "UNKNOWN" or message.sending_at is None:
        return
    connection = await providers.channel_connection(message.channel_connection_id, message.account_id)
    channel = providers.usable_channel(connection)
    if channel is None:
        return
    try:
        found = await channel.look_up(await outbound.build(message, connection), sent_after=message.sending_at)
    except IntegrationError as error:
        log.warning("message_look_up_failed", provider=error.provider, reason=error.reason)
        if error.retryable:
            raise
        return
    if found is None:
        return
    if await Message.exists(channel_connection_id=connection.id, external_id=stored_id(found.external_id)):
        return
    await delivery.apply(message, found)
