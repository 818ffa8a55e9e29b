"""The network behind simulated channels: delivers messages and writes as a contact, by signed callbacks over HTTP.

Magic recipients, which behave differently, are in integrations/channels/simulated.py.
"""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid4

from integrations.base import DeliveryStatus, IntegrationError
from integrations.channels import simulated
from models.ids import public_id
from models.tables import ChannelConnection
from services.connections import providers
from services.core import configuration, jobs


async def enqueue_delivery(row: ChannelConnection, message_external_id: str, to: str) -> None:
    """Plan the delivery of an accepted message, on simulated channels only. Call in the transaction that stores the id.

    Key: the message's external id.
    """
    if row.provider != simulated.NAME:
        return
    await jobs.enqueue(
        "simulator.deliver",
        {"connection_id": str(row.id), "external_id": message_external_id, "to": to},
        account_id=row.account_id,
        key=f"simulator.deliver:{message_external_id}",
    )


@jobs.handler("simulator.deliver", on_dead="the simulated network has lost a callback, as real ones do")
async def _deliver_job(job: jobs.JobContext) -> None:
    """Report the outcome of one message. Safe to repeat: a status never steps back."""
    to: str = job.payload["to"]
    outcome = simulated.outcome_of(to)
    if outcome is None:
        return
    try:
        await deliver(UUID(job.payload["connection_id"]), job.payload["external_id"], to, outcome)
    except IntegrationError as error:
        if not error.retryable:
            raise jobs.Permanent(str(error)) from error
        raise


async def deliver(connection_id: UUID, message_external_id: str, to: str, status: DeliveryStatus) -> None:
    """Post a signed status callback: SENT, DELIVERED, READ or FAILED.

    The caller has checked whose connection it is. Raises: NotFound, NotSimulated, IntegrationError.
    """
    now = datetime.now(UTC)
    await _post(connection_id, simulated.status_body(message_external_id, to, status, at=now), now)


async def contact_writes(connection_id: UUID, sender: str, body: str) -> str:
    """Post a signed inbound message from `sender`, the contact's address on this channel; return its external id.

    The caller has checked whose connection it is. Raises: NotFound, NotSimulated, IntegrationError.
    """
    now = datetime.now(UTC)
    external_id = f"sim_in_{uuid4().hex}"
    await _post(connection_id, simulated.inbound_body(sender, body, at=now, external_id=external_id), now)
    return external_id


class NotSimulated(Exception):
    """This connection belongs to a real provider: its callbacks cannot be simulated."""


async def _post(connection_id: UUID, body: bytes, now: datetime) -> None:
    row = await providers.channel_connection(connection_id)
    if row.provider != simulated.NAME:
        raise NotSimulated(row.provider)
    await simulated.call_back(
        environment=configuration.current().environment,
        connection=public_id("chn", row.id),
        secret=providers.credentials_of(row)["secret"],
        body=body,
        at=now,
    )
