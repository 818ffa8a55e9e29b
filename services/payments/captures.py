"""Records what a read of a checkout found, and captures an approved one, at most once per request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import structlog

from integrations.base import Checkout, CheckoutStatus, IntegrationError, MoneyStatement
from models import database, ledger
from models.ledger import CardKind
from models.tables import CheckoutSession, PaymentRequest, ProcessorConnection, ProcessorEvent
from services.connections import processor_health, providers
from services.core import actors
from services.core.unit_of_work import change
from services.payments import checkout_closing, checkout_refusals, recorder
from services.thread import activity_cards, notifications, request_rows

log = structlog.get_logger(__name__)

UNDECIDED: Final = ("OPENING", "OPEN")  # only here does a claim matter
LIMIT: Final = 5  # captures of one checkout; after that the payer presses Pay again
AGAIN_AFTER: Final = timedelta(seconds=60)  # longer than the call takes; then the sweeper repeats it
NOTICE_AFTER: Final = timedelta(days=5, hours=1, minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    state: Checkout
    recorded: recorder.Recorded


async def record_read(
    connection: ProcessorConnection,
    state: Checkout,
    *,
    source: str,
    money: Sequence[MoneyStatement] | None = None,
    request_reference: str | None = None,
    event: ProcessorEvent | None = None,
) -> Read:
    """Record a checkout's state; capture an approved one, or close it if it must not be paid.

    `money` replaces the checkout's own. Raises: IntegrationError, ProcessorUnavailable; the state stays recorded.
    """
    if state.test_mode is not None and state.test_mode != connection.test_mode:
        raise IntegrationError(connection.processor, "mode_differs", "the checkout is of the other mode, live or test")
    waits = await _awaits_capture(connection, state)
    reference = state.request_reference or request_reference
    report = recorder.CheckoutReport(
        external_id=state.external_id, status=state.status, expires_at=state.expires_at, delay=state.delay
    )
    recorded = await recorder.record(
        connection,
        state.money if money is None else money,
        source=source,
        checkout=report,
        request_reference=reference,
        event=None if waits else event,  # handled after the capture, so that its job repeats a failure
    )
    if waits:
        if recorded.session is not None:
            state = await _capture_if_allowed(recorded.session, state, source=source)
        if event is not None:
            known = recorder.CheckoutReport(external_id=state.external_id)
            await recorder.record(
                connection, (), source=source, checkout=known, request_reference=reference, event=event
            )
    return Read(state=state, recorded=recorded)


async def _awaits_capture(connection: ProcessorConnection, state: Checkout) -> bool:
    if state.status != CheckoutStatus.OPEN:
        return False
    return state.awaits_completion or await CheckoutSession.exists(
        processor_connection_id=connection.id, external_id=state.external_id, capturing_at__not_isnull=True
    )


async def _capture_if_allowed(session: CheckoutSession, state: Checkout, *, source: str) -> Checkout:
    claim = await _claim(session, approved=state.awaits_completion)
    if claim is None:
        return state
    return await capture(claim.session, source=source, is_first_call=claim.is_new)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    session: CheckoutSession
    is_new: bool


async def _claim(session: CheckoutSession, *, approved: bool) -> _Claim | None:
    async with change(session.account_id, queue_on=[session.payment_request_id]):
        request = await request_rows.lock(session.account_id, session.payment_request_id)
        sessions = await CheckoutSession.filter(payment_request_id=request.id)
        mine = next(one for one in sessions if one.id == session.id)
        if mine.status not in UNDECIDED:
            return None
        if mine.capturing_at is not None:
            return _Claim(session=mine, is_new=False)
        if not approved or any(_is_claimed(one) for one in sessions):
            return None  # another tab's capture is decided first
        if not _may_capture(request, mine):
            await checkout_closing.expire_later(mine)
            return None
        # Not `changed.now`, which is before the wait for the lock.
        mine.capturing_at = datetime.now(UTC)
        mine.capture_n += 1
        await CheckoutSession.filter(id=mine.id).update(
            capturing_at=mine.capturing_at, capture_n=mine.capture_n, next_check_at=mine.capturing_at + AGAIN_AFTER
        )
        return _Claim(session=mine, is_new=True)


def _is_claimed(session: CheckoutSession) -> bool:
    return session.capturing_at is not None and session.status in UNDECIDED


def _may_capture(request: PaymentRequest, session: CheckoutSession) -> bool:
    return (
        ledger.is_payable(request.status, released=request.released_at is not None)
        and request.void_requested_at is None
        and request.discarded_at is None
        and session.closing_at is None
        and session.capture_n < LIMIT
        and session.amount_minor <= request.amount_minor - request.amount_paid_minor - request.waived_minor
        and not request.unresolved
    )


async def is_under_way(payment_request_id: UUID) -> bool:
    """Whether a checkout of the request is being captured. Certain only under the request's lock."""
    found = await database.records(
        "SELECT 1 FROM checkout_session WHERE payment_request_id = ? AND capturing_at IS NOT NULL"  # noqa: S608 (only constants are put in)
        f" AND status IN ({database.placeholders(len(UNDECIDED))}) LIMIT 1",
        payment_request_id,
        *UNDECIDED,
    )
    return bool(found)


async def capture(session: CheckoutSession, *, source: str, is_first_call: bool = False) -> Checkout:
    """Capture a claimed checkout. A decline clears the claim; a timeout keeps it.

    Raises: IntegrationError, ProcessorUnavailable.
    """
    assert session.external_id is not None  # noqa: S101 (only such checkouts are claimed)
    connection = await providers.processor_connection(session.processor_connection_id, session.account_id)
    processor = providers.processor(connection)
    try:
        state = await processor.complete_checkout(session.external_id, idempotency_key=capture_key(session))
    except IntegrationError as error:
        log.warning("capture_failed", provider=error.provider, reason=error.reason, ambiguous=error.ambiguous)
        # No earlier call used this key: nothing was taken.
        if is_first_call and not error.ambiguous and not error.retryable:
            await _clear_claim(session)
            await checkout_refusals.report(connection, session, error)
        else:
            await processor_health.refused(connection, error)
        raise
    by = actors.processor(connection.display_name)
    async with change(session.account_id, actor=by, queue_on=[session.payment_request_id]):
        await request_rows.lock(session.account_id, session.payment_request_id)
        await recorder.record(
            connection,
            state.money,
            source=source,
            checkout=recorder.CheckoutReport(
                external_id=state.external_id, status=state.status, expires_at=state.expires_at, delay=state.delay
            ),
            request_reference=state.request_reference,
        )
        if state.status == CheckoutStatus.OPEN and not state.awaits_completion:
            await _clear_claim(session)
    return state


def capture_key(session: CheckoutSession) -> str:
    return f"{session.idempotency_key}:capture:{session.capture_n}"


async def _clear_claim(session: CheckoutSession) -> None:
    # With its number: a late answer must not clear the claim of the next capture.
    await CheckoutSession.filter(id=session.id, capture_n=session.capture_n, status__in=UNDECIDED).update(
        capturing_at=None
    )


async def block(session: CheckoutSession) -> CheckoutSession | None:
    """Prevent new captures of a checkout; return it if a capture has already begun."""
    async with change(session.account_id, queue_on=[session.payment_request_id]) as changed:
        await request_rows.lock(session.account_id, session.payment_request_id)
        fresh = await CheckoutSession.get(id=session.id)
        if _is_claimed(fresh):
            return fresh
        await CheckoutSession.filter(id=fresh.id, closing_at=None).update(closing_at=changed.now)
        return None


async def notify_unresolved(session: CheckoutSession) -> None:
    """Ask the team to check a capture's unknown outcome at the processor, once per capture."""
    async with change(session.account_id, queue_on=[session.payment_request_id]) as changed:
        request = await request_rows.lock(session.account_id, session.payment_request_id)
        fresh = await CheckoutSession.get(id=session.id)
        if not _is_claimed(fresh):
            return
        log.error("capture_unresolved", checkout_session_id=str(session.id))
        await notifications.notify(
            changed,
            request,
            CardKind.PAYMENT_MISMATCH,
            title=activity_cards.NOT_CONFIRMED,
            body=activity_cards.capture_unconfirmed(request, await changed.locale()),
            cause_key=f"capture_unconfirmed:{fresh.id}:{fresh.capture_n}",
        )
