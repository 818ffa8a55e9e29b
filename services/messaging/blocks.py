"""Contacts who block or unblock us at the vendor without a message. inbound.py handles STOP and START."""

from __future__ import annotations

from datetime import datetime
from uuid import uuid5

from integrations.base import Blocking
from models import tables
from models.errors import Refusal
from models.storable import storable
from models.tables import ChannelConnection
from services.core import validation
from services.core.unit_of_work import Change, change
from services.messaging import contacts, opt_outs


async def record(connection: ChannelConnection, told: Blocking) -> None:
    """Record a block or its end. Safe to repeat; a block older than the contact's last message is ignored.

    Callbacks come late and repeatedly: one older than the newest known block or unblock changes nothing. An address without a contact
    counts once one writes from it.
    """
    try:
        address = contacts.normalise(connection.kind, told.address, None)
    except Refusal:
        address = storable(told.address).strip()[: validation.ADDRESS_LIMIT]
    async with change(connection.account_id, rows=[uuid5(connection.id, address)]) as changed:
        held = await contacts.held_address(connection.account_id, connection.kind, address)
        if held is not None:
            await contacts.lock(connection.account_id, held.contact_id)
            wrote = held.last_inbound_at
            if told.blocked and told.occurred_at is not None and wrote is not None and told.occurred_at < wrote:
                return
        if not await _newest(changed, connection, address, told.occurred_at):
            return
        if told.blocked:
            await opt_outs.opt_out(changed, connection.id, connection.kind, address, blocked=True)
        else:
            await opt_outs.opt_in(changed, connection.id, connection.kind, address, blocked=True)


async def _newest(changed: Change, connection: ChannelConnection, address: str, at: datetime | None) -> bool:
    """Whether no later callback is known; stores its time. One without a time counts as new."""
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
