"""Background repair: checkouts, lost events, voids; also queues messages and files whose job is gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import structlog

from integrations.base import Checkout, CheckoutStatus, IntegrationError
from models.ids import public_id
from models.ledger import Status
from models.tables import (
    AuditEntry,
    CheckoutSession,
    Job,
    MoneyFact,
    PaymentRequest,
    ProcessorConnection,
    ProcessorEvent,
)
from services.connections import processor_health, providers
from services.core import configuration, jobs
from services.messaging import attachments, sending
from services.payments import (
    captures,
    checkout_closing,
    checkout_reads,
    processor_events,
    processor_webhooks,
    recorder,
    refund_outcomes,
    voids,
)

log = structlog.get_logger(__name__)

BATCH: Final = 150  # per connection: what `reads_per_s` allows per round
READS_AT_ONCE: Final = 5  # per connection
LISTS_AT_ONCE: Final = 8  # of all connections: a silent vendor must not delay the others
UNSETTLED: Final = ("OPENING", "OPEN", "PROCESSING")
PAUSE_AT_MOST: Final = timedelta(hours=1)  # even if Retry-After is longer: open payments must be read
SILENT_AFTER: Final = 3  # consecutive unanswered reads that end the round
LISTS_BACK: Final = timedelta(days=30)  # how far back lists are read the first time
OVERLAP: Final = timedelta(hours=1)  # of two reads of a list; entries may appear late
NO_CREATE_ANSWER: Final = timedelta(minutes=5)
VOIDS_SWEPT_FOR: Final = timedelta(minutes=10)  # then only their jobs repeat them
DAY: Final = timedelta(days=1)
PAID_READ_FOR: Final = timedelta(days=120)  # then an unreadable paid checkout is left alone
LISTED_STILL: Final = timedelta(days=7)  # after disconnecting; late creations may still be found
_paused_until: dict[UUID, datetime] = {}  # connections whose vendor asked for a pause


class Pace:
    """Spaces calls evenly; for one event loop."""

    def __init__(self, per_s: float) -> None:
        self._gap_s = 1 / per_s
        self._next = 0.0

    async def turn(self) -> None:
        now = time.monotonic()
        at = max(now, self._next)
        self._next = at + self._gap_s
        if at > now:
            await asyncio.sleep(at - now)


@jobs.periodic("sweeper.checkouts", 15)
async def sweep_checkouts(job: jobs.JobContext) -> None:
    await sweep(datetime.now(UTC))


async def sweep(now: datetime) -> int:
    """Read the checkouts that are due, each connection at its own pace; return how many."""
    due = CheckoutSession.filter(status__in=[*UNSETTLED, "COMPLETED"], next_check_at__lte=now)
    connection_ids = await due.distinct().values_list("processor_connection_id", flat=True)
    counts = await asyncio.gather(
        *(_sweep_connection(UUID(str(one)), now) for one in connection_ids), return_exceptions=True
    )
    for count in counts:
        if isinstance(count, BaseException):  # one connection must not stop the others; it is retried
            log.error("sweep_failed", error=type(count).__name__)
    return sum(count for count in counts if isinstance(count, int))


async def _sweep_connection(connection_id: UUID, now: datetime) -> int:
    if _is_paused(connection_id, now):
        return 0
    due = CheckoutSession.filter(processor_connection_id=connection_id, next_check_at__lte=now)
    due = due.order_by("next_check_at")
    sessions = await due.filter(status__in=UNSETTLED).limit(BATCH)
    if len(sessions) < BATCH:  # paid checkouts never delay open ones
        sessions += await due.filter(status="COMPLETED").limit(BATCH - len(sessions))
    gate, pace = asyncio.Semaphore(READS_AT_ONCE), Pace(configuration.current().reads_per_s)
    silent = checked = 0

    async def one(session: CheckoutSession) -> None:
        nonlocal silent, checked
        async with gate:
            await pace.turn()
            if silent >= SILENT_AFTER or _is_paused(connection_id, now):
                return
            checked += 1
            error = await _check_checkout(session, now)
            silent = silent + 1 if error is not None and error.retryable else 0
            _note_pause(connection_id, error, now)

    for ended in await asyncio.gather(*(one(session) for session in sessions), return_exceptions=True):
        if isinstance(ended, Exception):  # one checkout must not stop the others; it is retried
            log.error("sweep_check_failed", error=type(ended).__name__)
    return checked


def _is_paused(connection_id: UUID, now: datetime) -> bool:
    return now < _paused_until.get(connection_id, now) <= now + PAUSE_AT_MOST


def _note_pause(connection_id: UUID, error: Exception | None, now: datetime) -> None:
    if isinstance(error, IntegrationError) and error.retry_after_s is not None:
        _paused_until[connection_id] = now + min(timedelta(seconds=error.retry_after_s), PAUSE_AT_MOST)


async def _note_revoked(connection: ProcessorConnection, error: Exception) -> None:
    # A missing permission for lists does not end the connection.
    if isinstance(error, IntegrationError) and error.reason in processor_health.REVOKED:
        await processor_health.refused(connection, error)


async def _check_checkout(session: CheckoutSession, now: datetime) -> IntegrationError | None:
    next_at = await _next_read(session, now)
    taken = await CheckoutSession.filter(id=session.id, next_check_at=session.next_check_at).update(
        next_check_at=next_at, checks=session.checks + 1
    )
    if not taken:
        return None
    if session.external_id is None:
        # Never answered, so no payer has its URL. If it was created, the vendor lists it.
        # abs: the clock may have been set back.
        if abs(now - session.created_at) > NO_CREATE_ANSWER:
            await CheckoutSession.filter(id=session.id, status="OPENING", external_id=None).update(
                status="ABANDONED", next_check_at=None
            )
        return None
    failed: Exception | None = None
    try:
        await checkout_reads.read_back(session, source="sweeper")
    except Exception as error:  # noqa: BLE001 (the loop's top: one checkout must not keep the others from being read)
        log.warning("sweep_read_failed", checkout_session_id=str(session.id), error=_reason(error))
        failed = error
    fresh = await CheckoutSession.get(id=session.id)
    begun_at = fresh.capturing_at if fresh.status in captures.UNDECIDED else None
    every = configuration.current().checkout_read_every
    if failed is not None and fresh.status == "COMPLETED":
        age = now - await _paid_at(fresh)
        later = now + max(every, age / 10) if age < PAID_READ_FOR else None
        await CheckoutSession.filter(id=session.id).update(next_check_at=later)
    elif failed is not None:
        # Retried at growing intervals, as after a revoked key; an unanswered capture at least daily.
        age = now - (begun_at or fresh.created_at)
        later = now + max(every, min(age / 10, DAY) if begun_at else age / 10)
        await CheckoutSession.filter(id=session.id, next_check_at__not_isnull=True).update(next_check_at=later)
    if begun_at is not None and now - begun_at > captures.NOTICE_AFTER:
        await captures.notify_unresolved(fresh)
    return failed if isinstance(failed, IntegrationError) else None


async def _next_read(session: CheckoutSession, now: datetime) -> datetime | None:
    if session.status != "COMPLETED":
        every = configuration.current().checkout_read_every
        # The set interval for a day, then growing ones: a link may stay open for months.
        return now + max(every, (now - session.created_at) * (every / DAY))
    paid_at = await _paid_at(session)
    return next((paid_at + age for age in recorder.READ_AGAIN_AFTER if paid_at + age > now), None)


async def _paid_at(session: CheckoutSession) -> datetime:
    charges = MoneyFact.filter(payment_request_id=session.payment_request_id, checkout_session_id=session.id)
    first = await charges.filter(kind="CHARGE", outcome="SUCCEEDED").order_by("id").first()
    return first.recorded_at if first is not None else session.created_at


def _reason(error: Exception) -> str:
    return error.reason if isinstance(error, IntegrationError) else type(error).__name__


@jobs.periodic("sweeper.voids", 60)
async def sweep_voids(job: jobs.JobContext) -> None:
    now = datetime.now(UTC)
    pending = await PaymentRequest.filter(void_requested_at__not_isnull=True, voided_at=None).exclude(
        status__in=[Status.PAID.value, Status.VOID.value]
    )
    for request in pending:
        asked_at = request.void_requested_at
        if asked_at is not None and asked_at < now - VOIDS_SWEPT_FOR and await _has_job(request):
            continue  # its job repeats at growing intervals
        try:
            await voids.finish_void(request.account_id, request.id)
        except Exception as error:  # noqa: BLE001 (the loop's top: one void must not hold up the others)
            log.warning("sweep_void_failed", payment_request_id=str(request.id), error=_reason(error))


async def _has_job(request: PaymentRequest) -> bool:
    return await Job.exists(key__startswith=f"finish_void:{request.id}:", status__in=["queued", "running"])


@jobs.periodic("sweeper.events", 60)
async def sweep_events(job: jobs.JobContext) -> None:
    now = datetime.now(UTC)
    await processor_events.repeat_unhandled(now, BATCH)
    await _for_each_connection(
        await ProcessorConnection.filter(connected=True), lambda connection: fetch_events(connection, now)
    )


@jobs.periodic("sweeper.events_back", 3600)
async def sweep_events_back(job: jobs.JobContext) -> None:
    """Fetch all undelivered events that vendors still have."""
    now = datetime.now(UTC)
    since = now - LISTS_BACK
    await _for_each_connection(
        await ProcessorConnection.filter(connected=True),
        lambda connection: fetch_events(connection, now, since=since),
    )


async def _for_each_connection(
    connections_: Iterable[ProcessorConnection], ask: Callable[[ProcessorConnection], Awaitable[int]]
) -> None:
    gate = asyncio.Semaphore(LISTS_AT_ONCE)

    async def one(connection: ProcessorConnection) -> None:
        async with gate:
            await ask(connection)

    for ended in await asyncio.gather(*(one(connection) for connection in connections_), return_exceptions=True):
        if isinstance(ended, Exception):  # one connection must not stop the others; it is retried
            log.error("sweep_list_failed", error=type(ended).__name__)


async def fetch_events(connection: ProcessorConnection, now: datetime, *, since: datetime | None = None) -> int:
    """Take the events undelivered since the last look; return how many were new."""
    if _is_paused(connection.id, now):
        return 0
    since = since or max(connection.events_read_until or now - LISTS_BACK, now - LISTS_BACK)
    try:
        events = await providers.processor(connection).list_events(since)
        handled = ProcessorEvent.filter(processor_connection_id=connection.id, handled_at__not_isnull=True)
        known = await handled.filter(external_id__in=[event.external_id for event in events])
        known_ids = {row.external_id for row in known}
        fresh = [event for event in events if event.external_id not in known_ids]
        for event in fresh:
            await processor_webhooks.take_listed(connection, event, now)
    except Exception as error:  # noqa: BLE001 (the loop's top: one connection must not keep the others from being asked)
        log.warning("event_list_failed", provider=connection.processor, error=_reason(error))
        await _note_revoked(connection, error)
        _note_pause(connection.id, error, now)
        return 0
    # Vendors mark an event undelivered only after their first tries.
    await ProcessorConnection.filter(id=connection.id).update(events_read_until=now - OVERLAP)
    return len(fresh)


@jobs.periodic("sweeper.unknown_checkouts", 900)
async def sweep_unknown(job: jobs.JobContext) -> None:
    now = datetime.now(UTC)
    await _for_each_connection(await listed_connections(now), lambda connection: find_unknown(connection, now))


async def listed_connections(now: datetime, account_id: UUID | None = None) -> list[ProcessorConnection]:
    """Connections that may have unknown checkouts: connected, recently disconnected, or with open ones."""
    rows = ProcessorConnection.all() if account_id is None else ProcessorConnection.filter(account_id=account_id)
    found = await rows.order_by("id")
    left = [row for row in found if not row.connected]
    if not left:
        return found
    entries = AuditEntry.filter(
        account_id__in=list({row.account_id for row in left}), action=processor_health.DISCONNECTED
    )
    lately: set[Any] = set(await entries.filter(occurred_at__gte=now - LISTED_STILL).values_list("subject", flat=True))
    sessions = CheckoutSession.filter(processor_connection_id__in=[row.id for row in left], status__in=UNSETTLED)
    open_there: set[Any] = set(await sessions.distinct().values_list("processor_connection_id", flat=True))
    return [row for row in found if row.connected or public_id("prc", row.id) in lately or row.id in open_there]


async def find_unknown(connection: ProcessorConnection, now: datetime) -> int:
    """Adopt unknown checkouts made since the last look; return how many."""
    if _is_paused(connection.id, now):
        return 0
    since = max(connection.checkouts_read_until or now - LISTS_BACK, now - LISTS_BACK)
    try:
        adopted = await adopt_since(connection, since, now)
    except Exception as error:  # noqa: BLE001 (the loop's top: one connection must not keep the others from being asked)
        log.warning("checkout_list_failed", provider=connection.processor, error=_reason(error))
        await _note_revoked(connection, error)
        _note_pause(connection.id, error, now)
        return 0
    # A creation under way is found next time.
    await ProcessorConnection.filter(id=connection.id).update(checkouts_read_until=now - OVERLAP)
    return adopted


async def adopt_since(connection: ProcessorConnection, since: datetime, now: datetime) -> int:
    """Adopt unknown checkouts made since then; return how many.

    Raises: IntegrationError, ProcessorUnavailable.
    """
    listed = await providers.processor(connection).list_checkouts(since)
    pace = Pace(configuration.current().reads_per_s)
    adopted = 0
    for state in await _unknown_checkouts(connection, listed):
        if await _may_adopt(connection, state, now):
            await pace.turn()
            await _adopt(connection, state)
            adopted += 1
    return adopted


async def _unknown_checkouts(connection: ProcessorConnection, listed: Sequence[Checkout]) -> list[Checkout]:
    candidates = [
        one
        for one in listed
        if one.request_reference
        and (one.status != CheckoutStatus.EXPIRED or one.money)
        and one.test_mode in (None, connection.test_mode)
    ]
    known: set[str | None] = set()
    for start in range(0, len(candidates), BATCH):
        ids = [one.external_id for one in candidates[start : start + BATCH]]
        rows = CheckoutSession.filter(processor_connection_id=connection.id, external_id__in=ids)
        known |= {row.external_id for row in await rows.only("id", "external_id")}
    return [one for one in candidates if one.external_id not in known]


async def _may_adopt(connection: ProcessorConnection, state: Checkout, now: datetime) -> bool:
    # A creation under way may be this checkout.
    owner = await recorder.find_request_id(connection, state.money, state.external_id, state.request_reference)
    return owner is not None and not await CheckoutSession.exists(
        payment_request_id=owner,
        status="OPENING",
        external_id=None,
        created_at__range=(now - NO_CREATE_ANSWER, now + NO_CREATE_ANSWER),
    )


async def _adopt(connection: ProcessorConnection, listed: Checkout) -> None:
    log.warning("checkout_adopted", provider=connection.processor, status=listed.status.value)
    state = await providers.processor(connection).read_checkout(listed.external_id)
    read = await captures.record_read(connection, state, source="sweeper", request_reference=listed.request_reference)
    if read.recorded.session is not None and read.state.status == CheckoutStatus.OPEN:
        await checkout_closing.expire_later(read.recorded.session)  # no payer was sent there


@jobs.periodic("sweeper.stranded", 30)
async def sweep_stranded(job: jobs.JobContext) -> None:
    """Queue messages, refunds, files and checkouts whose job is gone."""
    await sending.sweep_stranded(datetime.now(UTC))
    await refund_outcomes.sweep_stranded()
    await attachments.sweep_stranded()
    await checkout_closing.sweep_stranded()


@jobs.after_set_back
async def read_all_again(now: datetime) -> None:
    """After a clock is set back, make open checkouts due and reset the lists."""
    await CheckoutSession.filter(status__in=UNSETTLED, next_check_at__gt=now).update(next_check_at=now)
    await ProcessorConnection.filter(events_read_until__gt=now).update(events_read_until=None)
    await ProcessorConnection.filter(checkouts_read_until__gt=now).update(checkouts_read_until=None)
