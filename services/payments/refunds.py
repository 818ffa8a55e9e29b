"""Refunds that the team asks for, stored with their key before the processor is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from integrations.base import RefundReason
from models import errors
from models.ids import public_id, uuid7
from models.money import Money
from models.tables import (
    ActivityCard,
    Message,
    MoneyFact,
    PaymentRequest,
    Refund,
)
from services.connections import availability, providers
from services.core import idempotency, merged_rows, validation
from services.core.permissions import Actor
from services.core.unit_of_work import Change, change
from services.payments import payment_views, refund_outcomes
from services.payments.payment_views import PaymentView
from services.thread import request_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Refunded:
    """A refund now; `payment` is None until the processor has named its id."""

    request: PaymentRequest
    refund: Refund
    payment: PaymentView | None
    card: ActivityCard | None
    message: Message | None


async def refund(
    actor: Actor,
    *,
    payment_id: UUID,
    amount: str | None,
    reason: str,
    tell_contact_on: UUID | None,
    idempotency_key: str,
) -> Refunded:
    """Refund a charge or part of it. Safe to repeat with the same idempotency key.

    `amount`: decimal text; None: all that is left. Raises: Forbidden, NotFound, NotRefundable, RefundExceedsPayment, Invalid,
    AmountTooSmall, ProcessorRejected, ProcessorUnavailable, and the channel's refusals.
    """
    actor.require("refund")
    given = {"payment": payment_id, "amount": amount, "reason": reason, "channel": tell_contact_on}

    async def run(save: idempotency.Save) -> Refunded:
        row = await _check_and_prepare(actor, payment_id, amount, RefundReason(reason), tell_contact_on, save)
        await refund_outcomes.ask(row, actor, caller_reports=True)
        return await _load_result(row.id, actor)

    async def rebuild(ids: dict[str, Any]) -> Refunded:
        return await _load_result(UUID(ids["refund"]), actor)

    return await idempotency.once(actor, "refundPayment", idempotency_key, given, run, rebuild)


async def _check_and_prepare(
    actor: Actor,
    payment_id: UUID,
    amount: str | None,
    reason: RefundReason,
    channel_id: UUID | None,
    save: idempotency.Save,
) -> Refund:
    fact = await MoneyFact.get_or_none(id=payment_id, account_id=actor.account_id)
    rows = [fact.payment_request_id] if fact is not None else []
    async with change(actor.account_id, actor=actor.ref, queue_on=rows) as changed:
        request: PaymentRequest | None = None
        charge: PaymentView | None = None
        left = 0
        refusals = errors.Refusals()
        with refusals:
            if fact is None:
                raise errors.NotFound(field="paymentId")
            request = await request_rows.lock(fact.account_id, fact.payment_request_id)
            views = (await payment_views.payments(actor.account_id, [request.id]))[request.id]
            charge = next((view for view in views if view.id == payment_id), None)
            if charge is None:
                raise errors.NotFound(field="paymentId")
            _refuse_kind(charge)
            left = (await refundable(actor.account_id, {request.id: views}))[request.id].get(payment_id, 0)
            if left <= 0:
                raise errors.NotRefundable(
                    "Nothing of this payment is left to refund.", current=public_id("pay", charge.id), field="paymentId"
                )
        with refusals:
            amount_minor = _read_amount(amount, charge, left, await changed.locale())
        with refusals:
            if channel_id is not None:
                await _refuse_channel(actor, request, channel_id, changed.now)
        refusals.raise_any()
        assert fact is not None and request is not None and charge is not None  # noqa: S101, PT018 (refused above)
        row = await prepare(changed, actor, request, charge, amount_minor, reason, channel_id=channel_id)
        # The refundable amount has changed.
        refund_outcomes.announce(changed, request)
        await save({"refund": str(row.id)})
    return row


async def prepare(
    changed: Change,
    actor: Actor,
    request: PaymentRequest,
    charge: PaymentView,
    amount_minor: int,
    reason: RefundReason,
    *,
    channel_id: UUID | None = None,
) -> Refund:
    """Store a refund with its key and job, under the request's lock.

    After the commit call `submit`, or `refund_outcomes.ask` if the caller reports the processor's refusal.

    Raises: ProcessorUnavailable.
    """
    assert charge.connection_id is not None  # noqa: S101 (what a person recorded is refused before)
    providers.processor(await providers.processor_connection(charge.connection_id, actor.account_id))
    row_id = uuid7()
    row = await Refund.create(
        id=row_id,
        account_id=actor.account_id,
        payment_request_id=request.id,
        money_fact_id=charge.id,
        charge_external_id=charge.processor_reference,
        processor_connection_id=charge.connection_id,
        idempotency_key=public_id("rfd", row_id),
        amount_minor=amount_minor,
        currency=charge.currency,
        reason=reason.value,
        requested_by_id=actor.user_id,
        requested_by=actor.ref.stored(),
        channel_connection_id=channel_id,
        created_at=changed.now,
        updated_at=changed.now,
    )
    await refund_outcomes.check_later(row, changed.now + refund_outcomes.FIRST_CHECK)  # after a lost answer or a crash
    return row


async def submit(row: Refund, actor: Actor) -> None:
    """Ask the processor for a prepared refund."""
    await refund_outcomes.ask(row, actor, caller_reports=False)


def _refuse_kind(charge: PaymentView) -> None:
    if charge.kind != "CHARGE" or charge.status != "SUCCEEDED":
        raise errors.NotRefundable(current=public_id("pay", charge.id), field="paymentId")
    if charge.connection_id is None:
        raise errors.NotRefundable(
            "This payment was recorded manually: undo the record instead.",
            current=public_id("pay", charge.id),
            field="paymentId",
        )


def _read_amount(amount: str | None, charge: PaymentView | None, left: int, locale: str) -> int:
    if amount is None:
        return left
    currency = charge.currency if charge is not None else None
    least = Money(1, currency) if currency is not None else None
    most = Money(left, currency) if currency is not None and left > 0 else None
    money = validation.parse_amount(amount, currency, field="amount", minimum=least, maximum=most)
    if money.amount_minor <= 0:
        raise errors.AmountTooSmall(minimum=least, maximum=most, field="amount")
    if most is not None and most.amount_minor < money.amount_minor:  # nothing left is refused already
        raise errors.RefundExceedsPayment(
            f"At most {most.formatted(locale)} is left of this payment.", refundable=most, field="amount"
        )
    return money.amount_minor


async def refundable(account_id: UUID, payments: Mapping[UUID, Sequence[PaymentView]]) -> dict[UUID, dict[UUID, int]]:
    """What is still refundable of each charge, by request and payment id, in minor units above 0."""
    found = {request_id: payment_views.refundable(views) for request_id, views in payments.items()}
    asked = [request_id for request_id, left in found.items() if left]
    rows = Refund.filter(
        account_id=account_id, payment_request_id__in=asked, status__in=refund_outcomes.UNDECIDED, external_id=None
    )
    for row in await rows if asked else ():
        left = found[row.payment_request_id]
        if row.money_fact_id in left:
            left[row.money_fact_id] -= row.amount_minor
    return {request_id: {id: rest for id, rest in left.items() if rest > 0} for request_id, left in found.items()}


async def _refuse_channel(actor: Actor, request: PaymentRequest | None, channel_id: UUID, now: datetime) -> None:
    connection = await providers.channel_connection(channel_id, actor.account_id)
    if request is None:
        return
    conversation = await merged_rows.conversation_of(request.account_id, request.conversation_id)
    able = await availability.capability(actor, conversation, connection, payment_request=False, now=now)
    availability.refuse(able, conversation.id, connection.id)


async def _load_result(refund_id: UUID, actor: Actor) -> Refunded:
    row = await Refund.get(id=refund_id, account_id=actor.account_id)
    if row.status == "FAILED" and row.external_id is None:
        raise errors.ProcessorRejected(row.failure_reason, field="paymentId")
    request = await PaymentRequest.get(id=row.payment_request_id)
    views = (await payment_views.payments(row.account_id, [request.id]))[request.id]
    mine = (row.processor_connection_id, "REFUND", row.external_id)
    payment = next((v for v in views if (v.connection_id, v.kind, v.processor_reference) == mine), None)
    facts = [fact.id for fact in await refund_outcomes.facts_of(row)]
    card = await ActivityCard.filter(account_id=row.account_id, money_fact_id__in=facts).order_by("-seq").first()
    message = await Message.get_or_none(id=row.message_id) if row.message_id is not None else None
    return Refunded(request=request, refund=row, payment=payment, card=card, message=message)
