"""Simulates a channel's network: delivers messages and writes as a contact, by signed callbacks."""

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
    """Queue a simulated delivery, in the transaction that stores the message's id."""
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
    """Post a signed status callback. Raises: NotFound, NotSimulated, IntegrationError.

    The caller has checked the connection's account.
    """
    now = datetime.now(UTC)
    await _post(connection_id, simulated.status_body(message_external_id, to, status, at=now), now)


async def contact_writes(connection_id: UUID, sender: str, body: str) -> str:
    """As `deliver`, for an inbound message; returns its external id."""
    now = datetime.now(UTC)
    external_id = f"sim_in_{uuid4().hex}"
    await _post(connection_id, simulated.inbound_body(sender, body, at=now, external_id=external_id), now)
    return external_id


class NotSimulated(Exception):
    """Callbacks of real providers cannot be simulated."""


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
