"""Mutations: refunds, outside payments, mismatches."""

from __future__ import annotations

from typing import Annotated

import strawberry

from models import tables
from resolvers.mutations.arguments import optional_row_id, row_id
from resolvers.mutations.fields import mutation
from schema.context import Info
from schema.inputs.payments import (
    RecordOutsidePaymentInput,
    RefundPaymentInput,
    ResolveMismatchInput,
    UndoOutsidePaymentInput,
)
from schema.payloads import (
    RecordOutsidePaymentPayload,
    RefundPaymentPayload,
    ResolveMismatchPayload,
    UndoOutsidePaymentPayload,
)
from schema.payment import Payment, Refund
from schema.payment_request import PaymentRequest
from schema.thread import ActivityCard, Message
from services.payments import mismatches, offline_payments, refunds


async def _refund(info: Info, row: tables.Refund) -> Refund:
    view = await info.context.reads.refund(row.id)
    if view is None:
        raise RuntimeError("a refund that was just stored")
    return Refund.from_view(view)


@strawberry.type
class PaymentMutations:
    @mutation(
        "Refund a payment in full or in part. The request stays PAID and is never payable again. For owners and admins.",
        renamed={"channelId": "tellContactOn"},
        not_found="tellContactOn",
    )
    async def refund_payment(
        self,
        info: Info,
        input: Annotated[RefundPaymentInput, strawberry.argument(description="The payment to refund.")],
    ) -> RefundPaymentPayload:
        done = await refunds.refund(
            info.context.actor,
            payment_id=row_id(input.payment_id, "pay"),
            amount=input.amount,
            reason=input.reason.name,
            tell_contact_on=optional_row_id(input.tell_contact_on, "chn"),
            idempotency_key=input.idempotency_key,
        )
        return RefundPaymentPayload(
            payment_request=PaymentRequest.from_row(done.request),
            refund=await _refund(info, done.refund),
            payment=Payment.from_view(done.payment) if done.payment is not None else None,
            activity_card=ActivityCard.from_row(done.card) if done.card is not None else None,
            message=Message.from_row(done.message) if done.message is not None else None,
        )

    @mutation(
        "Record money that was received outside the link: cash, a cheque, a transfer. It counts like a payment on the link."
    )
    async def record_outside_payment(
        self,
        info: Info,
        input: Annotated[RecordOutsidePaymentInput, strawberry.argument(description="The payment that was received.")],
    ) -> RecordOutsidePaymentPayload:
        done = await offline_payments.record(
            info.context.actor,
            payment_request_id=row_id(input.payment_request_id, "pr"),
            method=input.method.name,
            amount=input.amount,
            note=input.note,
            received_at=input.received_at,
            idempotency_key=input.idempotency_key,
        )
        return RecordOutsidePaymentPayload(
            payment_request=PaymentRequest.from_row(done.request),
            payment=Payment.from_view(done.payment),
            activity_card=ActivityCard.from_row(done.card) if done.card is not None else None,
        )

    @mutation(
        "Resolve money that arrived and differs from the request (PaymentRequest.unresolved): accept it as paid or as part"
        " payment, or refund the difference. Money that arrives later needs a new decision."
    )
    async def resolve_mismatch(
        self,
        info: Info,
        input: Annotated[ResolveMismatchInput, strawberry.argument(description="The request and the decision.")],
    ) -> ResolveMismatchPayload:
        done = await mismatches.resolve(
            info.context.actor,
            payment_request_id=row_id(input.payment_request_id, "pr"),
            resolution=input.resolution.name,
            idempotency_key=input.idempotency_key,
        )
        return ResolveMismatchPayload(
            payment_request=PaymentRequest.from_row(done.request),
            activity_card=ActivityCard.from_row(done.card) if done.card is not None else None,
            refund=await _refund(info, done.refund) if done.refund is not None else None,
        )

    @mutation("Undo a manually recorded payment; the request may become payable again. Safe to repeat.")
    async def undo_outside_payment(
        self,
        info: Info,
        input: Annotated[UndoOutsidePaymentInput, strawberry.argument(description="The payment to undo.")],
    ) -> UndoOutsidePaymentPayload:
        done = await offline_payments.undo(info.context.actor, payment_id=row_id(input.payment_id, "pay"))
        return UndoOutsidePaymentPayload(
            payment_request=PaymentRequest.from_row(done.request),
            payment=Payment.from_view(done.payment),
            activity_card=ActivityCard.from_row(done.card) if done.card is not None else None,
        )
