"""Reads checkouts back from their processors, for pages and after webhooks."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog
from tortoise.expressions import Q

from integrations.base import (
    Checkout,
    CheckoutStatus,
    IntegrationError,
    MoneyKind,
    MoneyOutcome,
)
from models import errors, rows
from models.ledger import CardKind, Status
from models.tables import (
    CheckoutSession,
    MoneyFact,
    PaymentRequest,
)
from services.connections import processor_health, providers
from services.core import configuration, jobs
from services.core.unit_of_work import change
from services.payments import captures, checkout_closing, checkout_page
from services.thread import activity_cards, notifications, request_rows

log = structlog.get_logger(__name__)


ANSWER_WITHIN_S = 4.0  # how long a page waits for a processor
LEFT_ALONE_S = 10.0  # after a failure, pages do not read the connection's checkouts
LEFT_ALONE_MOST_S = 300.0  # even if Retry-After is longer
CLOSE_WITHIN_S = 3.0
CLOCKS_DIFFER = timedelta(minutes=1)  # of two processes, at most
_readings: set[asyncio.Task[None]] = set()
_silent_until: dict[UUID, float] = {}  # by connection, in monotonic seconds


async def refresh(request: PaymentRequest, *, came_back: bool = False) -> PaymentRequest:
    """Read the checkouts that are due and return the request; a slow read continues in the background."""
    if request.status in (Status.PAID, Status.VOID):
        return request
    sessions = await rows.find(
        CheckoutSession,
        "WHERE payment_request_id = ? AND status IN ('OPEN', 'PROCESSING') AND external_id IS NOT NULL ORDER BY n DESC",
        request.id,
    )
    asked = [one for one in sessions[:1] if await _claim_read(one, came_back=came_back)]
    asked += [one for one in sessions[1:] if one.released_at is not None and await _claim_read(one, came_back=False)]
    if not asked:
        return request
    readings = {asyncio.create_task(_read(session), name="checkout read"): session for session in asked}
    for reading in readings:
        _readings.add(reading)
        reading.add_done_callback(_read_ended)
    await asyncio.wait(readings, timeout=ANSWER_WITHIN_S)
    for reading, session in readings.items():
        if reading.done():
            reading.result()
        else:
            log.warning("checkout_read_slow", checkout_session_id=str(session.id))
            _silent_until[session.processor_connection_id] = time.monotonic() + LEFT_ALONE_S
    return await PaymentRequest.get(id=request.id)


async def _claim_read(session: CheckoutSession, *, came_back: bool) -> bool:
    now = datetime.now(UTC)
    rested = Q(read_at=None) | Q(read_at__lte=now - configuration.current().page_reads_every)
    rested |= Q(read_at__gt=now + CLOCKS_DIFFER)  # written by a clock that was ahead
    if came_back and await CheckoutSession.filter(id=session.id, returned_at=None).update(
        returned_at=now, next_check_at=now + configuration.current().checkout_first_check, read_at=now
    ):
        return True
    if _silent_until.get(session.processor_connection_id, 0.0) > time.monotonic():
        return False
    return bool(await CheckoutSession.filter(rested, id=session.id).update(read_at=now))


async def _read(session: CheckoutSession) -> None:
    try:
        state = await read_back(session, source="return")
    except (IntegrationError, errors.ProcessorUnavailable) as error:
        log.warning("checkout_read_failed", error=type(error).__name__, reason=getattr(error, "reason", None))
        if isinstance(error, IntegrationError) and error.retryable:
            rest_s = min(max(error.retry_after_s or 0.0, LEFT_ALONE_S), LEFT_ALONE_MOST_S)
            _silent_until[session.processor_connection_id] = time.monotonic() + rest_s
        return
    unpayable = state.status == CheckoutStatus.OPEN and state.url is None and not state.awaits_completion
    if unpayable and await captures.block(session) is None:
        await checkout_closing.expire_later(session)


def _read_ended(reading: asyncio.Task[None]) -> None:
    _readings.discard(reading)
    if not reading.cancelled() and (error := reading.exception()) is not None:  # the page may no longer wait
        log.error("checkout_read_broke", error=type(error).__name__)


async def aclose() -> None:
    """Wait briefly for reads under way, then cancel them; the sweeper repeats them."""
    readings = set(_readings)
    if readings:
        await asyncio.wait(readings, timeout=CLOSE_WITHIN_S)
        for reading in readings:
            reading.cancel()
        await asyncio.gather(*readings, return_exceptions=True)


async def returned(token: str) -> None:
    """Read the checkout of a contact who came back from the processor."""
    request = await checkout_page.find(token)
    if request is not None:
        await refresh(request, came_back=True)


async def read_back(session: CheckoutSession, *, source: str) -> Checkout:
    """Read a checkout at its processor, record it, and capture it if approved.

    Raises: IntegrationError, ProcessorUnavailable.
    """
    assert session.external_id is not None  # noqa: S101 (the callers choose such rows)
    connection = await providers.processor_connection(session.processor_connection_id, session.account_id)
    try:
        state = await providers.processor(connection).read_checkout(session.external_id)
    except IntegrationError as error:
        await processor_health.refused(connection, error)
        raise
    await processor_health.answered(connection)
    return (await captures.record_read(connection, state, source=source)).state


@jobs.handler("checkout.read_back", on_dead="sweeper.checkouts reads paid checkouts again")
async def _read_back_job(job: jobs.JobContext) -> None:
    session = await CheckoutSession.get(id=UUID(job.payload["session_id"]))
    if session.external_id is None:
        return
    state = await read_back(session, source="sweeper")
    fact = await MoneyFact.get(id=UUID(job.payload["fact_id"]))
    confirmed = any(
        (statement.kind, statement.outcome, statement.external_id)
        == (MoneyKind.CHARGE, MoneyOutcome.SUCCEEDED, fact.external_id)
        for statement in state.money
    )
    if state.status == CheckoutStatus.COMPLETED or confirmed:  # confirmed: a part may be paid
        return
    log.error("read_back_disagrees", checkout_session_id=str(session.id), status=state.status.value)
    async with change(session.account_id, queue_on=[session.payment_request_id]) as changed:
        request = await request_rows.lock(session.account_id, session.payment_request_id)
        kind, text = CardKind.PAYMENT_MISMATCH, activity_cards.unconfirmed(request, state=state.status.value)
        key = f"read_back:{job.payload['fact_id']}"
        card = await changed.log_card(request, kind, text=text, key=key, money_fact_id=UUID(job.payload["fact_id"]))
        if card is None:
            return
        title = activity_cards.NOT_CONFIRMED
        await notifications.notify(changed, request, kind, title=title, body=text, cause_key=key)
        request.version += 1
        await request.save(update_fields=["version", "updated_at"])
        before = request.status
        changed.request_event("payment_mismatch", request, previous_status=before, facets=(), card_id=card.id)
