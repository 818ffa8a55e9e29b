"""Payments outside every processor (cash, a cheque): users record them and can undo the record."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from models import errors
from models.ids import public_id, uuid7
from models.ledger import Status
from models.money import Money
from models.tables import ActivityCard, MoneyFact, PaymentRequest
from services.core import audit_log, idempotency, validation
from services.core.permissions import Actor
from services.core.unit_of_work import change
from services.payments import captures, payment_views, recorder
from services.payments.payment_views import PaymentView
from services.thread import request_rows

NOTE_LIMIT: Final = 500  # characters
EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Method(StrEnum):
    """How the payment was made. The API has the same values."""

    CASH = "CASH"
    CARD = "CARD"
    CHEQUE = "CHEQUE"
    BANK_TRANSFER = "BANK_TRANSFER"
    OTHER = "OTHER"


SUMMARIES: Final = {
    Method.CASH: "Cash",
    Method.CARD: "Card",
    Method.CHEQUE: "Cheque",
    Method.BANK_TRANSFER: "Bank transfer",
    Method.OTHER: "Other",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    request: PaymentRequest
    payment: PaymentView
    card: ActivityCard | None  # None: logged before


async def record(
    actor: Actor,
    *,
    payment_request_id: UUID,
    method: str,
    idempotency_key: str,
    amount: str | None = None,
    note: str | None = None,
    received_at: datetime | None = None,
) -> Recorded:
    """Record a payment and close the open checkouts. Safe to repeat with the same idempotency key.

    `amount`: decimal text; None: all that is due. Raises: Forbidden, NotFound, AlreadyPaid, AlreadyVoid, PaymentInProgress, Invalid,
    TooLong, AmountTooSmall, AmountTooLarge.
    """
    actor.require("request_payment")
    given = {"request": payment_request_id, "method": method, "amount": amount, "note": note, "received": received_at}

    async def run(save: idempotency.Save) -> Recorded:
        refusals = errors.Refusals()
        with refusals:
            note_text = validation.optional(note, limit=NOTE_LIMIT, field="note", lines=True)
        with refusals:
            if received_at is not None and not EARLIEST <= received_at <= datetime.now(UTC):
                raise errors.Invalid("The date of receipt must be between 1970 and now.", field="receivedAt")
        async with change(actor.account_id, actor=actor.ref, queue_on=[payment_request_id]) as changed:
            request, amount_minor = await _lock_due(
                actor, payment_request_id, amount, refusals, locale=await changed.locale()
            )
            fact = _charge_fact(
                request, Method(method), amount_minor, note=note_text, received_at=received_at or changed.now
            )
            fact.recorded_at, fact.recorded_by_id = changed.now, actor.user_id
            fact.recorded_by = actor.ref.stored()
            recorded = await recorder.record_manual(changed, request, fact)
            paid = {"amount_minor": amount_minor, "currency": request.currency, "method": method}
            detail = {"request": request.number, **paid}
            await audit_log.record(actor, "outside_payment.record", public_id("pay", fact.id), detail)
            await save({"fact": str(fact.id)})
        # A request that was never sent logs its own card first.
        return await _load_result(actor, fact.id, recorded.cards[-1] if recorded.cards else None)

    async def rebuild(ids: dict[str, Any]) -> Recorded:
        fact_id = UUID(ids["fact"])
        card = await ActivityCard.get_or_none(account_id=actor.account_id, money_fact_id=fact_id)
        return await _load_result(actor, fact_id, card)

    return await idempotency.once(actor, "recordOutsidePayment", idempotency_key, given, run, rebuild)


async def _lock_due(
    actor: Actor, payment_request_id: UUID, amount: str | None, refusals: errors.Refusals, *, locale: str
) -> tuple[PaymentRequest, int]:
    request: PaymentRequest | None = None
    with refusals:
        request = await request_rows.lock_visible(actor.account_id, payment_request_id)
        _refuse_unpayable(request)
        if await captures.is_under_way(request.id):
            raise errors.PaymentInProgress(current=public_id("pr", request.id), field="paymentRequestId")
    with refusals:
        amount_minor = _read_amount(amount, request, locale)
    refusals.raise_any()
    assert request is not None  # noqa: S101 (refused above)
    return request, amount_minor


def _charge_fact(
    request: PaymentRequest, method: Method, amount_minor: int, *, note: str | None, received_at: datetime
) -> MoneyFact:
    fact_id = uuid7()
    return MoneyFact(
        id=fact_id,
        account_id=request.account_id,
        payment_request_id=request.id,
        contact_id=request.contact_id,
        kind="CHARGE",
        external_id=public_id("pay", fact_id),
        outcome="SUCCEEDED",
        amount_minor=amount_minor,
        currency=request.currency,
        counted=True,
        method_summary=SUMMARIES[method],
        test_mode=request.test_mode,
        source="manual",
        occurred_at=received_at,
        note=note,
    )


async def undo(actor: Actor, *, payment_id: UUID) -> Recorded:
    """Undo a manual record by a second fact, CANCELED. Safe to repeat.

    Raises: Forbidden, NotFound, Invalid.
    """
    actor.require("request_payment")
    fact = await MoneyFact.get_or_none(id=payment_id, account_id=actor.account_id)
    if fact is None:
        raise errors.NotFound(field="paymentId")
    if fact.processor_connection_id is not None or fact.outcome != "SUCCEEDED":
        raise errors.Invalid("This payment was not recorded manually: refund it instead.", field="paymentId")
    async with change(actor.account_id, actor=actor.ref, queue_on=[fact.payment_request_id]) as changed:
        request = await request_rows.lock_visible(actor.account_id, fact.payment_request_id)
        opposite = MoneyFact(
            id=uuid7(),
            account_id=fact.account_id,
            payment_request_id=fact.payment_request_id,
            contact_id=fact.contact_id,
            kind=fact.kind,
            external_id=fact.external_id,
            outcome="CANCELED",
            amount_minor=fact.amount_minor,
            currency=fact.currency,
            counted=True,
            method_summary=fact.method_summary,
            test_mode=fact.test_mode,
            source="manual",
            occurred_at=changed.now,
            recorded_at=changed.now,
            recorded_by_id=actor.user_id,
            recorded_by=actor.ref.stored(),
        )
        undone = await recorder.record_manual(changed, request, opposite)
        if undone.cards:
            await audit_log.record(
                actor, "outside_payment.undo", public_id("pay", fact.id), {"request": request.number}
            )
    return await _load_result(actor, fact.id, undone.cards[-1] if undone.cards else None)


def _refuse_unpayable(request: PaymentRequest) -> None:
    if request.status == Status.PAID:
        raise errors.AlreadyPaid(current=public_id("pr", request.id), field="paymentRequestId")
    if request.status == Status.VOID or request.void_requested_at is not None:
        raise errors.AlreadyVoid(current=public_id("pr", request.id), field="paymentRequestId")
    if request.status == Status.PROCESSING and request.released_at is None:
        raise errors.PaymentInProgress(current=public_id("pr", request.id), field="paymentRequestId")


def _read_amount(amount: str | None, request: PaymentRequest | None, locale: str) -> int:
    due = None
    if request is not None:
        due = Money(request.amount_minor - request.amount_paid_minor - request.waived_minor, request.currency)
    if amount is None:
        return due.amount_minor if due is not None else 0
    least = Money(1, due.currency) if due is not None else None
    most = due if due is not None and due.amount_minor > 0 else None  # a closed request is refused elsewhere
    money = validation.parse_amount(
        amount, due.currency if due is not None else None, field="amount", minimum=least, maximum=most
    )
    if money.amount_minor <= 0:
        raise errors.AmountTooSmall(minimum=least, maximum=most, field="amount")
    if most is not None and most.amount_minor < money.amount_minor:
        raise errors.AmountTooLarge(
            f"Only {most.formatted(locale)} is due.", minimum=least, maximum=most, field="amount"
        )
    return money.amount_minor


async def _load_result(actor: Actor, fact_id: UUID, card: ActivityCard | None) -> Recorded:
    payment = (await payment_views.by_facts(actor.account_id, [fact_id]))[fact_id]
    return Recorded(request=await PaymentRequest.get(id=payment.payment_request_id), payment=payment, card=card)
