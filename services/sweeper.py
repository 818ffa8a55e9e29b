"""What heals by itself: checkouts that are not final are read, undelivered events fetched, voids finished, unhandled events repeated.

It calls the processors gently (a few reads at once, back-off per checkout) and records through the one recorder.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import structlog

from integrations.base import IntegrationError
from models import event_log
from models.ledger import Status
from models.tables import CheckoutSession, PaymentRequest, ProcessorConnection, ProcessorEvent
from services import checkout, connections, jobs, processor_events, voids

log = structlog.get_logger(__name__)

BATCH = 100
READS_AT_ONCE = 5
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

    for ended in await asyncio.gather(*(one(session) for session in due), return_exceptions=True):
        if isinstance(ended, Exception):  # one checkout must not stop the others; its time comes again
            log.error("sweep_check_failed", error=type(ended).__name__)
    return len(due)


async def _check(session: CheckoutSession, now: datetime) -> None:
    taken = await CheckoutSession.filter(id=session.id, next_check_at=session.next_check_at).update(
        next_check_at=now + _every, checks=session.checks + 1
    )
    if not taken:
        return  # another process reads it
    if session.external_id is None:
        # The creation was never answered: nobody has its address. If it was made all the same and paid, its reference tells us.
        if session.created_at < now - NO_CREATE_ANSWER:
            await CheckoutSession.filter(id=session.id, status="OPENING", external_id=None).update(
                status="ABANDONED", next_check_at=None
            )
        return
    try:
        await checkout.read_back(session, source="sweeper")
    except Exception as error:  # noqa: BLE001 (the loop's top: one checkout must not keep the others from being read)
        log.warning("sweep_read_failed", checkout_session_id=str(session.id), error=_reason(error))
        # What can't be read (a revoked key, say) is asked for less and less often.
        later = max(_every, (now - session.created_at) / 10)
        await CheckoutSession.filter(id=session.id, next_check_at=now + _every).update(next_check_at=now + later)


def _reason(error: Exception) -> str:
    return error.reason if isinstance(error, IntegrationError) else type(error).__name__


@jobs.periodic("sweeper.voids", 60)
async def sweep_voids(job: jobs.JobContext) -> None:
    """Finish voids that a crash or a silent processor left half done. Safe to repeat."""
    pending = await PaymentRequest.filter(void_requested_at__not_isnull=True, voided_at=None).exclude(
        status__in=[Status.PAID.value, Status.VOID.value]
    )
    for request in pending:
        try:
            await voids.finish_void(request.account_id, request.id)
        except Exception as error:  # noqa: BLE001 (the loop's top: one void must not hold up the others)
            log.warning("sweep_void_failed", payment_request_id=str(request.id), error=_reason(error))


@jobs.periodic("sweeper.events", 60)
async def sweep_events(job: jobs.JobContext) -> None:
    """Repeat unhandled events, and fetch what a vendor could not deliver lately. Key: the event's id."""
    now = datetime.now(UTC)
    await processor_events.repeat_unhandled(now, BATCH)
    for connection in await ProcessorConnection.filter(connected=True):
        await fetch_events(connection, now)


@jobs.periodic("sweeper.events_back", 3600)
async def sweep_events_back(job: jobs.JobContext) -> None:
    """Fetch everything that a vendor could not deliver and still has. Key: the event's id."""
    now = datetime.now(UTC)
    for connection in await ProcessorConnection.filter(connected=True):
        await fetch_events(connection, now, since=now - EVENTS_BACK)


async def fetch_events(connection: ProcessorConnection, now: datetime, *, since: datetime | None = None) -> int:
    """Take over the events that the vendor could not deliver since the last look; return how many we had not handled."""
    since = since or max(connection.events_read_until or now - EVENTS_BACK, now - EVENTS_BACK)
    try:
        events = await connections.processor(connection).list_events(since)
        handled = ProcessorEvent.filter(processor_connection_id=connection.id, handled_at__not_isnull=True)
        known = await handled.filter(external_id__in=[event.external_id for event in events])
        known_ids = {row.external_id for row in known}
        fresh = [event for event in events if event.external_id not in known_ids]
        for event in fresh:
            await processor_events.take_listed(connection, event, now)
    except Exception as error:  # noqa: BLE001 (the loop's top: one connection must not keep the others from being asked)
        log.warning("event_list_failed", provider=connection.processor, error=_reason(error))
        return 0
    # An hour of overlap: the vendor marks an event undelivered only after its first tries.
    await ProcessorConnection.filter(id=connection.id).update(events_read_until=now - timedelta(hours=1))
    return len(fresh)


@jobs.periodic("retention", 3600)
async def retain(job: jobs.JobContext) -> None:
    """Prune the event log after its retention."""
    await event_log.prune(datetime.now(UTC))
