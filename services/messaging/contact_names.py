"""Asks the vendor for the name of a contact that is named by its address."""

from __future__ import annotations

from typing import Final
from uuid import UUID

import structlog

from integrations.base import Channel, IntegrationError
from models.ids import public_id
from models.storable import storable
from models.tables import ChannelConnection, Contact, Conversation
from services.connections import providers
from services.core import jobs, merged_rows
from services.core.unit_of_work import change
from services.messaging.contacts import NAME_LIMIT
from services.thread import contact_totals

log = structlog.get_logger(__name__)

ATTEMPTS: Final = 3


async def ask(connection: ChannelConnection, contact: Contact, address: str) -> None:
    """Ask once per contact; call in the transaction that stores the contact's message."""
    if contact.name != address:
        return
    channel = providers.usable_channel(connection)
    if channel is None or type(channel).name_of is Channel.name_of:
        return
    await jobs.enqueue(
        "contact.name",
        {"contact_id": str(contact.id), "connection_id": str(connection.id), "address": address},
        account_id=contact.account_id,
        key=f"contact.name:{contact.id}",
        max_attempts=ATTEMPTS,
    )


@jobs.handler("contact.name", on_dead="the contact keeps its address as its name")
async def _name_job(job: jobs.JobContext) -> None:
    address = job.payload["address"]
    if job.account_id is None:
        return
    contact = await merged_rows.contact(job.account_id, UUID(job.payload["contact_id"]))
    if contact is None or contact.name != address:
        return
    connection = await providers.channel_connection(UUID(job.payload["connection_id"]), contact.account_id)
    channel = providers.usable_channel(connection) if providers.usable(connection) else None
    if channel is None:
        return
    try:
        name = storable(await channel.name_of(address) or "").strip()[:NAME_LIMIT]
    except IntegrationError as error:
        log.info("contact_name_not_told", provider=error.provider, reason=error.reason)
        if error.retryable and not job.last_attempt:
            raise
        return
    if not name:
        return
    async with change(contact.account_id) as changed:
        contact = await contact_totals.lock_contact(contact.account_id, contact.id)
        if contact.name != address:
            return
        contact.name = name
        contact.version += 1
        await contact.save(update_fields=["name", "version", "updated_at"])
        conversation = await Conversation.get(contact_id=contact.id)
        changed.event("contact.updated", conversation_id=conversation.id, contact_id=contact.id)
        log.info("contact_named", contact_id=public_id("cnt", contact.id))
