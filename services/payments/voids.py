"""Voids in two phases: forbid new checkouts, close the open ones, then set VOID."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog

from integrations.base import CheckoutStatus, IntegrationError
from models import errors, ledger
from models.ids import public_id
from models.ledger import CardKind, Facet, Status
from models.tables import ActivityCard, CheckoutSession, PaymentRequest
from services.connections import processor_health, providers
from services.core import jobs, validation
from services.core.actors import of_void
from services.core.permissions import Actor
from services.core.unit_of_work import change
from services.payments import captures, recorder
from services.thread import activity_cards, contact_totals, request_rows

log = structlog.get_logger(__name__)

REASON_LIMIT = 500  # characters
NO_ANSWER = timedelta(minutes=2)  # then an unanswered creation is abandoned; a call lasts seconds
AGAIN_AFTER = timedelta(seconds=30)  # at least; then a tenth of the elapsed time
VOID_AGAIN_AFTER = timedelta(seconds=60), timedelta(minutes=10)  # bounds of the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Voided:
    request: PaymentRequest
    card: ActivityCard | None  # None while a payment keeps the void pending


async def void(
    actor: Actor,
    *,
    payment_request_id: UUID,
    reason: str | None = None,
    expected_version: int | None = None,
    confirm_partially_paid: bool = False,
) -> Voided:
    """Forbid new checkouts, close the open ones, then set VOID; a payment that comes first wins.

    Raises: AlreadyPaid, AlreadyVoid, PaymentInProgress, ConfirmationRequired, VersionConflict.
    """
    actor.require("request_payment")
    refusals = errors.Refusals()
    with refusals:
        reason_text = validation.optional(reason, limit=REASON_LIMIT, field="reason", lines=True)
    async with change(actor.account_id, actor=actor.ref, queue_on=[payment_request_id]) as changed:
        request = await _lock_voidable(actor, payment_request_id, refusals, expected_version, confirm_partially_paid)
        request.void_requested_at = changed.now
        request.void_requested_by_id, request.void_requested_by = actor.user_id, actor.ref.stored()
        request.void_reason = reason_text
        request.version += 1
        written = ["void_requested_at", "void_requested_by_id", "void_requested_by", "void_reason"]
        await request.save(update_fields=[*written, "version", "updated_at"])
        await jobs.enqueue(
            "payment_request.finish_void",
            {"payment_request_id": str(request.id)},
            account_id=request.account_id,
            key=f"finish_void:{request.id}:{request.version}",
            due_at=changed.now + timedelta(seconds=20),  # if this process dies in between
        )
        changed.request_event("updated", request, previous_status=request.status, facets=(Facet.VOID,))
    done = await finish_void(actor.account_id, payment_request_id)
    if done.request.status == Status.PAID:
        raise errors.AlreadyPaid(
            "The payment arrived first; the request is paid.",
            current=public_id("pr", request.id),
            field="paymentRequestId",
        )
    return done


async def _lock_voidable(
    actor: Actor,
    payment_request_id: UUID,
    refusals: errors.Refusals,
    expected_version: int | None,
    confirm_partially_paid: bool,
) -> PaymentRequest:
    request: PaymentRequest | None = None
    with refusals:
        request = await request_rows.lock_visible(actor.account_id, payment_request_id)
        _refuse_unvoidable(request)
    if request is not None:
        with refusals:
            if expected_version is not None and request.version != expected_version:
                raise errors.VersionConflict(current=public_id("pr", request.id), field="expectedVersion")
        with refusals:
            if (request.status == Status.PARTIALLY_PAID or request.unresolved) and not confirm_partially_paid:
                raise errors.ConfirmationRequired(current=public_id("pr", request.id), field="confirmPartiallyPaid")
    refusals.raise_any()
    assert request is not None  # noqa: S101 (refused above)
    return request


def _refuse_unvoidable(request: PaymentRequest) -> None:
    if request.status == Status.PAID:
        raise errors.AlreadyPaid(current=public_id("pr", request.id), field="paymentRequestId")
    if request.status == Status.VOID:
        raise errors.AlreadyVoid(current=public_id("pr", request.id), field="paymentRequestId")
    if request.void_requested_at is not None:
        raise errors.AlreadyVoid(
            "A void of this payment request is in progress.",
            current=public_id("pr", request.id),
            field="paymentRequestId",
        )
    if request.status == Status.PROCESSING and request.released_at is None:
        raise errors.PaymentInProgress(current=public_id("pr", request.id), field="paymentRequestId")


async def finish_void(account_id: UUID, payment_request_id: UUID) -> Voided:
    """Run the second phase; the sweeper repeats it until it is decided. Safe to repeat."""
    sure = True
    for session in await CheckoutSession.filter(
        payment_request_id=payment_request_id, account_id=account_id, status__in=["OPENING", "OPEN"]
    ).order_by("n"):
        sure = await close_session(session, source="void") and sure
    async with change(account_id, queue_on=[payment_request_id]) as changed:
        request = await request_rows.lock(account_id, payment_request_id)
        if request.status in (Status.PAID, Status.VOID) or request.void_requested_at is None:
            return Voided(request=request, card=None)
        left = CheckoutSession.filter(payment_request_id=request.id, status__in=["OPENING", "OPEN", "PROCESSING"])
        in_flight = await left.filter(released_at=None).exists()
        if in_flight or not sure or not ledger.is_payable(request.status, released=request.released_at is not None):
            return Voided(request=request, card=None)  # stays voidPending
        before = request.status
        changed.actor = (
            of_void(request.void_requested_by, request.void_requested_by_id, request.void_requested_at) or changed.actor
        )
        await contact_totals.lock_contact(account_id, request.contact_id)
        request_rows.mark_void(request, changed.now)
        request.version += 1
        await request.save(update_fields=[*request_rows.VOID_COLUMNS, "version", "updated_at"])
        card = await changed.log_card(
            request,
            CardKind.REQUEST_VOIDED,
            text=activity_cards.voided(request),
            key=str(request.id),
        )
        await contact_totals.update(account_id, request.contact_id)
        logged = card.id if card else None
        changed.request_event("voided", request, previous_status=before, facets=(Facet.VOID,), card_id=logged)
        changed.event("contact.updated", conversation_id=request.conversation_id, contact_id=request.contact_id)
        return Voided(request=request, card=card)


async def close_session(session: CheckoutSession, *, source: str) -> bool:
    """Close a checkout at its processor and record it; False: it may still be paid."""
    connection = await providers.processor_connection(session.processor_connection_id, session.account_id)
    if session.external_id is None:
        # The creation is unanswered, so no payer has its URL; the opener closes it after the answer.
        # abs: the clock may have been set back.
        if abs(datetime.now(UTC) - session.created_at) < NO_ANSWER:
            return False
        given_up = await CheckoutSession.filter(id=session.id, status="OPENING", external_id=None).update(
            status="ABANDONED", next_check_at=None
        )
        return given_up > 0
    try:
        # A capture under way is decided first: its outcome counts.
        if (begun := await captures.block(session)) is not None:
            state = await captures.capture(begun, source=source)
            if state.status != CheckoutStatus.OPEN:
                return True
            if await captures.block(session) is not None:
                return False
        state = await providers.processor(connection).expire_checkout(session.external_id)
    except (IntegrationError, errors.ProcessorUnavailable) as error:
        if isinstance(error, IntegrationError):
            await processor_health.refused(connection, error)
        log.warning("checkout_close_failed", error=type(error).__name__, reason=getattr(error, "reason", None))
        return False
    await recorder.record(
        connection,
        state.money,
        source=source,
        checkout=recorder.CheckoutReport(external_id=state.external_id, status=state.status),
        request_reference=state.request_reference,
    )
    return state.status != CheckoutStatus.OPEN


@jobs.handler("payment_request.finish_void", on_dead="sweeper.voids finishes every pending void")
async def _finish_void_job(job: jobs.JobContext) -> None:
    assert job.account_id is not None  # noqa: S101 (enqueued with it)
    done = await finish_void(job.account_id, UUID(job.payload["payment_request_id"]))
    asked_at = done.request.void_requested_at
    if asked_at is not None and done.request.status not in (Status.PAID, Status.VOID):
        age = datetime.now(UTC) - asked_at
        raise jobs.Later(min(max(VOID_AGAIN_AFTER[0], age / 10), VOID_AGAIN_AFTER[1]).total_seconds())


async def _expire_died(job: jobs.JobContext, error: str) -> None:
    raise jobs.Later(VOID_AGAIN_AFTER[1].total_seconds())  # a payable checkout must be closed


@jobs.handler("checkout.expire", on_dead=_expire_died)
async def _expire_job(job: jobs.JobContext) -> None:
    session = await CheckoutSession.get(id=UUID(job.payload["session_id"]))
    if session.status in ("OPENING", "OPEN") and not await close_session(session, source="sweeper"):
        # Retried at growing intervals.
        now = datetime.now(UTC)
        age = now - (session.closing_at or session.capturing_at or now)
        raise jobs.Later(max(AGAIN_AFTER, age / 10).total_seconds())
