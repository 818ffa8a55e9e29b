"""Blocks and unblocks that a vendor reports without a message."""

from __future__ import annotations

from datetime import datetime
from uuid import uuid5

from integrations.base import Blocking
from models import tables
from models.errors import Refusal
from models.storable import storable
from models.tables import ChannelConnection
from services.core import actors, validation
from services.core.unit_of_work import Change, change
from services.messaging import contacts, opt_outs


async def record(connection: ChannelConnection, report: Blocking) -> None:
    """Record a block or unblock; one older than the last message or report is ignored."""
    try:
        address = contacts.normalise(connection.kind, report.address, None)
    except Refusal:
        address = storable(report.address).strip()[: validation.ADDRESS_LIMIT]
    by = actors.channel(connection.display_name)
    async with change(connection.account_id, actor=by, queue_on=[uuid5(connection.id, address)]) as changed:
        held = await contacts.held_address(connection.account_id, connection.kind, address)
        if held is not None:
            await contacts.lock(connection.account_id, held.contact_id)
            wrote = held.last_inbound_at
            if report.blocked and report.occurred_at is not None and wrote is not None and report.occurred_at < wrote:
                return
        if not await _is_newest(changed, connection, address, report.occurred_at):
            return
        if report.blocked:
            await opt_outs.opt_out(changed, connection.id, connection.kind, address, blocked=True)
        else:
            await opt_outs.opt_in(changed, connection.id, connection.kind, address, blocked=True)


async def _is_newest(changed: Change, connection: ChannelConnection, address: str, at: datetime | None) -> bool:
    if at is None:
        return True
    at = min(at, changed.now)  # a vendor's clock that is ahead must not hide later callbacks
    known = tables.Blocking.filter(channel_connection_id=connection.id, address=address)
    if await known.filter(told_at__gt=at).exists():
        return False
    if not await known.update(told_at=at):
        await tables.Blocking.create(
            account_id=connection.account_id, channel_connection_id=connection.id, address=address, told_at=at
        )
    return True
