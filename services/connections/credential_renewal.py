"""Renews channel credentials before they expire."""

from __future__ import annotations

from datetime import UTC, datetime

import structlog
from tortoise.expressions import F

from integrations.base import Channel, IntegrationError
from models.ids import public_id
from models.tables import ChannelConnection
from models.vault import VaultError
from services.connections import providers
from services.core import audit_log, jobs
from services.core.permissions import system_actor
from services.core.unit_of_work import change

log = structlog.get_logger(__name__)

DAY_S = 24 * 3600


@jobs.periodic("channels.renew", DAY_S)
async def _renew_job(job: jobs.JobContext) -> None:
    for row in await ChannelConnection.filter(connected=True).order_by("id"):
        await renew(row)


async def renew(row: ChannelConnection) -> bool:
    """Renew credentials that expire soon; return whether they changed."""
    channel = providers.usable_channel(row) if providers.usable(row) else None
    if channel is None or type(channel).renewed is Channel.renewed:
        return False
    try:
        fresh = await channel.renewed(now=datetime.now(UTC))
        if fresh is None:
            return False
        renewed = {**providers.credentials_of(row), **fresh}
    except (IntegrationError, VaultError) as error:
        reason = error.reason if isinstance(error, IntegrationError) else "unreadable"
        log.warning("channel_not_renewed", connection=str(row.id), reason=reason)
        if reason == "unauthorized":
            await providers.note_channel(row, "The access token has ended or was withdrawn: connect the channel again.")
        return False
    async with change(row.account_id) as changed:
        locked = await ChannelConnection.filter(id=row.id).select_for_update(no_key=True).get()
        stored = providers.same_credentials(locked, row)
        if stored:
            await ChannelConnection.filter(id=row.id).update(
                credentials=providers.sealed(row.account_id, renewed), version=F("version") + 1
            )
            changed.event("channel.updated")
            await audit_log.record(
                system_actor(row.account_id), "channel.renewed", public_id("chn", row.id), {"changed": sorted(fresh)}
            )
    return stored
