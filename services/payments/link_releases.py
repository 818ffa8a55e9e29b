"""Releases a link that a delayed payment (voucher, bank debit, transfer) holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog

from integrations.base import IntegrationError
from models import errors
from models.ids import public_id
from models.ledger import Status
from models.tables import ActivityCard, CheckoutSession, PaymentRequest
from services.connections import providers
from services.core import audit_log, idempotency
from services.core.actors import PAYTHREAD
from services.core.idempotency import Save
from services.core.permissions import Actor
from services.core.unit_of_work import change
from services.payments import captures, projection, recorder
from services.thread import request_rows

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    request: PaymentRequest
    card: ActivityCard | None


async def release(actor: Actor, *, payment_request_id: UUID, idempotency_key: str) -> Released:
    """Release the link of a request. Safe to repeat with the same idempotency key.

    Raises: Forbidden, NotFound, AlreadyPaid, AlreadyVoid, PaymentInProgress, Invalid, ProcessorUnavailable.
    """
    actor.require("request_payment")

    async def run(save: Save) -> Released:
        request = await _get(actor, payment_request_id)
        if not idempotency.fits(idempotency_key):
            _refuse_unreleasable(request)
            await save({"card": None})  # refuses the key before the processor is called
        return await _release(request, actor=actor, save=save)

    async def rebuild(ids: dict[str, Any]) -> Released:
        card = (
            await ActivityCard.get_or_none(id=UUID(ids["card"]), account_id=actor.account_id) if ids["card"] else None
        )
        return Released(request=await _get(actor, payment_request_id), card=card)

    given = {"request": payment_request_id}
    return await idempotency.once(actor, "releasePaymentLink", idempotency_key, given, run, rebuild)


async def release_by_contact(request: PaymentRequest) -> None:
    """As `release`, without permissions: the contact wants to pay another way."""
    await _release(request, actor=None, save=None)


async def _release(request: PaymentRequest, *, actor: Actor | None, save: Save | None) -> Released:
    _refuse_unreleasable(request)
    cards: list[ActivityCard] = []
    held = CheckoutSession.filter(payment_request_id=request.id, status="PROCESSING", released_at=None)
    for session in await held.order_by("n"):
        cards += await _cancel_payment(session)
    by = actor.ref if actor is not None else PAYTHREAD
    async with change(request.account_id, actor=by, queue_on=[request.id]) as changed:
        locked = await request_rows.lock(request.account_id, request.id)
        if locked.status == Status.PROCESSING and locked.released_at is None:
            _refuse_unreleasable(locked)  # another payment may have begun meanwhile
            cards += (await recorder.record_release(changed, locked)).cards
        elif locked.status in (Status.PAID, Status.VOID):
            _refuse_unreleasable(locked)
        if actor is not None:
            await audit_log.record(
                actor,
                "payment_link.release",
                public_id("pr", locked.id),
                {"request": locked.number, "status": locked.status},
            )
        card = cards[-1] if cards else None
        if save is not None:
            await save({"card": str(card.id) if card is not None else None})
    return Released(request=locked, card=card)


def _refuse_unreleasable(request: PaymentRequest) -> None:
    if request.status == Status.PAID:
        raise errors.AlreadyPaid(current=public_id("pr", request.id), field="paymentRequestId")
    if request.status == Status.VOID or request.void_requested_at is not None:
        raise errors.AlreadyVoid(current=public_id("pr", request.id), field="paymentRequestId")
    if request.status != Status.PROCESSING or request.released_at is not None:
        raise errors.Invalid("No payment holds this link.", field="paymentRequestId")
    if not projection.is_releasable(request):
        raise errors.PaymentInProgress(current=public_id("pr", request.id), field="paymentRequestId")


async def _cancel_payment(session: CheckoutSession) -> list[ActivityCard]:
    assert session.external_id is not None  # noqa: S101 (a checkout under way was answered)
    connection = await providers.processor_connection(session.processor_connection_id, session.account_id)
    try:
        state = await providers.processor(connection).cancel_delayed(session.external_id)
        return (await captures.record_read(connection, state, source="void")).recorded.cards
    except IntegrationError as error:
        log.warning("delayed_payment_not_canceled", provider=error.provider, reason=error.reason)
        if error.ambiguous or error.retryable:
            raise errors.ProcessorUnavailable from error
        return []  # refused for good: it stays watched, and its money would be excess or late


async def _get(actor: Actor, payment_request_id: UUID) -> PaymentRequest:
    request = await PaymentRequest.get_or_none(id=payment_request_id, account_id=actor.account_id, discarded_at=None)
    if request is None:
        raise errors.NotFound(field="paymentRequestId")
    return request
