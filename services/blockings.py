"""Contacts who block us at the vendor, or take that back, without a message. What they write (STOP, START) is inbound.py's."""

from __future__ import annotations

from uuid import uuid5

from integrations.base import Blocking
from models.errors import Refusal
from models.storable import storable
from models.tables import ChannelConnection
from services import contacts, opt_outs
from services.changes import change


async def record(connection: ChannelConnection, told: Blocking) -> None:
    """Keep that a contact has blocked us, or that this is over. Safe to repeat; a block that is older than what they wrote last is over.

    Also of an address that no contact has yet: it counts when one writes from it.
    """
    try:
        address = contacts.normalise(connection.kind, told.address, None)
    except Refusal:
        address = storable(told.address).strip()[: contacts.ADDRESS_LIMIT]
    async with change(connection.account_id, rows=[uuid5(connection.id, address)]) as changed:
        held = await contacts.held_address(connection.account_id, connection.kind, address)
        if held is not None:
            await contacts.locked(connection.account_id, held.contact_id)
            wrote = held.last_inbound_at
            if told.blocked and told.occurred_at is not None and wrote is not None and told.occurred_at < wrote:
                return
        if told.blocked:
            await opt_outs.opt_out(changed, connection.id, connection.kind, address, blocked=True)
        else:
            await opt_outs.opt_in(changed, connection.id, connection.kind, address, blocked=True)
