"""What heals by itself: checkouts that are not final are read, undelivered events fetched, voids finished, unhandled events repeated.

It calls the processors gently (a few reads at once, back-off per checkout) and records through the one recorder.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog

from integrations.base import IntegrationError
from models import event_log
from models.ledger import Status
from models.tables import (
    CheckoutSession,
    IdempotencyKey,
    PaymentRequest,
    ProcessorConnection,
    ProcessorEvent,
)
from services import checkout, connections, jobs, processor_events, voids

log = structlog.get_logger(__name__)

BATCH = 100
READS_AT_ONCE = 5
EVENTS_EVERY = timedelta(seconds=60)
EVENTS_BACK = timedelta(days=30)  # how far a vendor's list is read the first time
NO_CREATE_ANSWER = timedelta(minutes=5)
_every = timedelta(seconds=300)


def configure(*, every_s: float) -> None:
    """Set the seconds between two reads of a checkout that is not final."""
    global _every
    _every = timedelta(seconds=every_s)


@jobs.periodic("sweeper.checkouts", 15)
async def sweep_checkouts(job: jobs.JobContext) -> None:
    """Read every checkout whose time has come. A repeat reads again and changes nothing."""
    await sweep(datetime.now(UTC))


async def sweep(now: datetime) -> int:
    """Read what is due at `now`; return how many checkouts were read."""
    due = (
        await CheckoutSession.filter(status__in=["OPENING", "OPEN", "PROCESSING"], next_check_at__lte=now)
        .order_by("next_check_at")
        .limit(BATCH)
    )
    gate = asyncio.Semaphore(READS_AT_ONCE)

    async def one(session: CheckoutSession) -> None:
        async with gate:
            await _check(session, now)

    await asyncio.gather(*(one(session) for session in due))
    return len(due)


async def _check(session: CheckoutSession, now: datetime) -> None:
    await CheckoutSession.filter(id=session.id, next_check_at=session.next_check_at).update(
        next_check_at=now + _every, checks=session.checks + 1
    )
    if session.external_id is None:
        # The creation was never answered: nobody has its address. If it was made all the same and paid, its reference tells us.
        if session.created_at < now - NO_CREATE_ANSWER:
            await CheckoutSession.filter(id=session.id, status="OPENING", external_id=None).update(
                status="ABANDONED", next_check_at=None
            )
        return
    try:
        await checkout.read_back(session, source="sweeper")
    except IntegrationError as error:
        log.warning("sweep_read_failed", provider=error.provider, reason=error.reason)


@jobs.periodic("sweeper.voids", 60)
async def sweep_voids(job: jobs.JobContext) -> None:
    """Finish voids that a crash or a silent processor left half done."""
    pending = await PaymentRequest.filter(void_requested_at__not_isnull=True, voided_at=None).exclude(
        status__in=[Status.PAID.value, Status.VOID.value]
    )
    for request in pending:
        await voids.finish_void(request.account_id, request.id)


@jobs.periodic("sweeper.events", 60)
async def sweep_events(job: jobs.JobContext) -> None:
    """Repeat unhandled events, and fetch what a vendor could not deliver. Key: the event's id."""
    now = datetime.now(UTC)
    stuck = await ProcessorEvent.filter(handled_at=None, received_at__lte=now - timedelta(seconds=60)).limit(BATCH)
    for row in stuck:
        await jobs.enqueue(
            "processor_event.handle",
            {"event_id": str(row.id)},
            account_id=row.account_id,
            key=f"processor_event:{row.id}:{row.attempts}",
        )
    for connection in await ProcessorConnection.filter(connected=True):
        await fetch_events(connection, now)


async def fetch_events(connection: ProcessorConnection, now: datetime) -> int:
    """Take over the events that the vendor could not deliver since the last look; return how many were new to us or repeated."""
    since = max(connection.events_read_until or now - EVENTS_BACK, now - EVENTS_BACK)
    try:
        events = await connections.processor(connection).list_events(since)
    except IntegrationError as error:
        log.warning("event_list_failed", provider=error.provider, reason=error.reason)
        return 0
    for event in events:
        await processor_events.take_listed(connection, event, now)
    # An hour of overlap: the vendor marks an event undelivered only after its first tries.
    await ProcessorConnection.filter(id=connection.id).update(events_read_until=now - timedelta(hours=1))
    return len(events)


@jobs.periodic("retention", 3600)
async def retain(job: jobs.JobContext) -> None:
    """Prune the event log after its retention and idempotency keys after a day."""
    now = datetime.now(UTC)
    await event_log.prune(now)
    await IdempotencyKey.filter(created_at__lt=now - timedelta(hours=24)).delete()


async def reconcile_request(account_id: UUID, payment_request_id: UUID) -> int:
    """Read every checkout of a request that the processor may know, whatever its state; return how many were read."""
    read = 0
    for session in await CheckoutSession.filter(
        payment_request_id=payment_request_id, account_id=account_id, external_id__not_isnull=True
    ).order_by("n"):
        await checkout.read_back(session, source="sweeper")
        read += 1
    return read
