"""Money that is not what was asked for: the team decides about it with one action."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import structlog

from integrations.base import IntegrationError, RefundReason
from models import errors
from models.ids import public_id, uuid7
from models.ledger import Status
from models.money import Money
from models.tables import ActivityCard, CheckoutSession, MoneyFact, PaymentRequest, Refund
from services.core import audit_log, idempotency, jobs
from services.core.permissions import Actor
from services.core.unit_of_work import Change, change
from services.payments import captures, checkout_closing, checkout_reads, payment_views, projection, recorder, refunds
from services.payments.payment_views import PaymentView
from services.thread import request_rows

log = structlog.get_logger(__name__)

AFTER_DEATH: Final = timedelta(minutes=10)  # until a dead job continues


class Resolution(StrEnum):
    """What happens to the money. The API has the same values."""

    ACCEPT_AS_PAID = "ACCEPT_AS_PAID"
    ACCEPT_AS_PART = "ACCEPT_AS_PART"
    REFUND_DIFFERENCE = "REFUND_DIFFERENCE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    request: PaymentRequest
    card: ActivityCard | None
    refund: Refund | None  # the last of several


def resolvable(views: Sequence[PaymentView], left: Mapping[UUID, int]) -> bool:
    """Whether money awaits a decision and none of it is being returned; `left`: from `refunds.refundable`."""
    waiting = [view for view in views if view.unresolved_minor]
    return bool(waiting) and all(left.get(view.id, 0) >= view.unresolved_minor for view in waiting)


async def resolve(actor: Actor, *, payment_request_id: UUID, resolution: str, idempotency_key: str) -> Resolved:
    """Decide about every payment that does not count yet. Safe to repeat with the same idempotency key.

    Raises: Forbidden, NotFound, AlreadyVoid, PaymentInProgress, NothingToResolve, ResolutionNotPossible, ProcessorUnavailable.
    """
    chosen = Resolution(resolution)
    actor.require("request_payment")
    if chosen == Resolution.REFUND_DIFFERENCE:
        actor.require("refund")

    async def run(save: idempotency.Save) -> Resolved:
        async with change(actor.account_id, actor=actor.ref, queue_on=[payment_request_id]) as changed:
            request = await _lock_resolvable(actor, payment_request_id)
            waiting = await _unresolved_charges(request)
            _refuse_unsuitable(chosen, request, waiting, await changed.locale())
            note, prepared = None, []
            if chosen == Resolution.REFUND_DIFFERENCE:
                over = sum(view.unresolved_minor for view in waiting) - _due(request)
                prepared = await _prepare_refunds(changed, actor, request, waiting, over)
                note = f"{Money(over, request.currency).formatted(await changed.locale())} goes back to the contact."
            facts = _decision_facts(
                actor, request, waiting, changed, waive=chosen != Resolution.ACCEPT_AS_PART, note=note
            )
            recorded = await recorder.record_manual(changed, request, *facts)
            await _audit(actor, request, chosen, waiting)
            # A request that was never sent logs its own card first.
            card = recorded.cards[-1] if recorded.cards else None
            ids = {"card": str(card.id) if card else None, "refund": str(prepared[-1].id) if prepared else None}
            await save(ids)
        for row in prepared:
            await refunds.submit(row, actor)
        return await _load_result(actor, payment_request_id, ids)

    async def rebuild(ids: dict[str, Any]) -> Resolved:
        return await _load_result(actor, payment_request_id, ids)

    given = {"request": payment_request_id, "resolution": chosen.value}
    return await idempotency.once(actor, "resolveMismatch", idempotency_key, given, run, rebuild)


async def _audit(actor: Actor, request: PaymentRequest, chosen: Resolution, waiting: list[PaymentView]) -> None:
    accepted = [
        {"payment": public_id("pay", view.id), "amount_minor": view.amount_minor, "currency": view.currency}
        for view in waiting
    ]
    detail = {"request": request.number, "resolution": chosen.value, "accepted": accepted}
    await audit_log.record(actor, "mismatch.resolve", public_id("pr", request.id), detail)


async def _lock_resolvable(actor: Actor, payment_request_id: UUID) -> PaymentRequest:
    request = await request_rows.lock_visible(actor.account_id, payment_request_id)
    if request.status == Status.VOID or request.void_requested_at is not None:
        raise errors.AlreadyVoid(current=public_id("pr", request.id), field="paymentRequestId")
    held = request.status == Status.PROCESSING and request.released_at is None
    if held or await captures.is_under_way(request.id):
        raise errors.PaymentInProgress(current=public_id("pr", request.id), field="paymentRequestId")
    return request


async def _unresolved_charges(request: PaymentRequest) -> list[PaymentView]:
    views = (await payment_views.payments(request.account_id, [request.id]))[request.id]
    waiting = [view for view in views if view.unresolved_minor]
    if not waiting:
        raise errors.NothingToResolve(current=public_id("pr", request.id), field="paymentRequestId")
    left = (await refunds.refundable(request.account_id, {request.id: views}))[request.id]
    if not resolvable(views, left):
        raise errors.PaymentInProgress(
            "Some of this money is being refunded or is disputed. Wait until that is decided.",
            current=public_id("pr", request.id),
            field="paymentRequestId",
        )
    return waiting


def _due(request: PaymentRequest) -> int:
    return max(0, request.amount_minor - request.amount_paid_minor - request.waived_minor)


def _refuse_unsuitable(
    chosen: Resolution, request: PaymentRequest, waiting: Sequence[PaymentView], locale: str
) -> None:
    due = _due(request)
    due_text = Money(due, request.currency).formatted(locale)
    if chosen == Resolution.ACCEPT_AS_PAID:
        return
    if any(view.currency != request.currency for view in waiting):
        raise errors.ResolutionNotPossible(
            "The payment is in another currency. Accept it as paid, or refund it.",
            current=public_id("pr", request.id),
            field="resolution",
        )
    if chosen == Resolution.ACCEPT_AS_PART and sum(view.amount_minor for view in waiting) >= due:
        raise errors.ResolutionNotPossible(
            f"The money received covers the {due_text} due. Accept it as paid.",
            current=public_id("pr", request.id),
            field="resolution",
        )
    over = sum(view.unresolved_minor for view in waiting) - due
    if chosen == Resolution.REFUND_DIFFERENCE and (over <= 0 or due == 0):
        why = (
            f"The money received is not more than the {due_text} due."
            if due
            else "Nothing is due. Refund the payment instead."
        )
        raise errors.ResolutionNotPossible(why, current=public_id("pr", request.id), field="resolution")


async def _prepare_refunds(
    changed: Change, actor: Actor, request: PaymentRequest, waiting: Sequence[PaymentView], over: int
) -> list[Refund]:
    made = []  # newest charges first: the oldest pay the request
    for view in reversed(waiting):
        part = min(over, view.unresolved_minor)
        if part > 0:
            made.append(await refunds.prepare(changed, actor, request, view, part, RefundReason.OTHER))
            over -= part
    return made


def _decision_facts(
    actor: Actor,
    request: PaymentRequest,
    waiting: Sequence[PaymentView],
    changed: Change,
    *,
    waive: bool,
    note: str | None,
) -> list[MoneyFact]:
    def fact(kind: str, external_id: str, amount_minor: int, currency: str, **more: Any) -> MoneyFact:
        return MoneyFact(
            id=uuid7(),
            account_id=request.account_id,
            payment_request_id=request.id,
            contact_id=request.contact_id,
            kind=kind,
            external_id=external_id,
            outcome="SUCCEEDED",
            amount_minor=amount_minor,
            currency=currency,
            counted=True,
            test_mode=request.test_mode,
            source="manual",
            occurred_at=changed.now,
            recorded_at=changed.now,
            recorded_by_id=actor.user_id,
            recorded_by=actor.ref.stored(),
            **more,
        )

    facts = [
        fact(
            "ACCEPTANCE",
            view.processor_reference,
            view.amount_minor,
            view.currency,
            processor_connection_id=view.connection_id,
            processor=view.processor,
            charge_external_id=view.processor_reference,
            note=note,
        )
        for view in waiting
    ]
    missing = _due(request) - sum(view.amount_minor for view in waiting if view.currency == request.currency)
    if waive and missing > 0:
        facts.append(fact("WAIVER", public_id("pr", uuid7()), missing, request.currency))
    return facts


async def _load_result(actor: Actor, payment_request_id: UUID, ids: Mapping[str, str | None]) -> Resolved:
    card, refund = ids["card"], ids["refund"]
    return Resolved(
        request=await PaymentRequest.get(id=payment_request_id, account_id=actor.account_id),
        card=await ActivityCard.get(id=UUID(card), account_id=actor.account_id) if card else None,
        refund=await Refund.get(id=UUID(refund), account_id=actor.account_id) if refund else None,
    )


# ---------------------------------------------------------------------------------------------------------------- job
async def _check_rest_died(job: jobs.JobContext, error: str) -> None:
    raise jobs.Later(AFTER_DEATH.total_seconds())  # the team must learn of the money


@jobs.handler("mismatch.judge", on_dead=_check_rest_died)
async def _check_rest(job: jobs.JobContext) -> None:
    fact = await MoneyFact.get(id=UUID(job.payload["fact_id"]), account_id=job.account_id)
    session = await CheckoutSession.get(id=fact.checkout_session_id)
    if session.external_id is not None:
        try:
            await checkout_reads.read_back(session, source="sweeper")
        except (IntegrationError, errors.ProcessorUnavailable) as error:
            log.warning("checkout_read_failed", error=type(error).__name__, reason=getattr(error, "reason", None))
    async with change(fact.account_id, queue_on=[fact.payment_request_id]) as changed:
        request = await request_rows.lock(fact.account_id, fact.payment_request_id)
        view = (await payment_views.by_facts(fact.account_id, [fact.id]))[fact.id]
        if view.unresolved_minor:
            await projection.announce_mismatch(changed, request, fact)
        session = await CheckoutSession.get(id=fact.checkout_session_id)
        if session.status in ("OPENING", "OPEN"):
            await checkout_closing.expire_later(session)
