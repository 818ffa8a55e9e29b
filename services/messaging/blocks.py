"""Contacts who block us at the vendor, or take that back, without a message. What they write (STOP, START) is inbound.py's."""

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
    """Keep that a contact has blocked us, or that this is over. Safe to repeat; a block that is older than what they wrote last is over.

    Callbacks come late and again: what is older than the newest block, or end of one, changes nothing. An address that no contact
    has yet counts when one writes from it.
    """
    try:
        address = contacts.normalise(connection.kind, told.address, None)
    except Refusal:
        address = storable(told.address).strip()[: validation.ADDRESS_LIMIT]
    async with change(connection.account_id, rows=[uuid5(connection.id, address)]) as changed:
        held = await contacts.held_address(connection.account_id, connection.kind, address)
        if held is not None:
            await contacts.locked(connection.account_id, held.contact_id)
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
    """Whether none that happened after this is known; remember its time. One without a time counts as it comes."""
    if at is None:
        return True
    at = min(at, changed.now)  # a vendor's clock that is ahead must not silence what comes next
    known = tables.Blocking.filter(channel_connection_id=connection.id, address=address)
    if await known.filter(told_at__gt=at).exists():
        return False
    if not await known.update(told_at=at):
        await tables.Blocking.create(
            account_id=connection.account_id, channel_connection_id=connection.id, address=address, told_at=at
        )
    return True
