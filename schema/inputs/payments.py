"""Inputs about money that has arrived."""

from __future__ import annotations

from datetime import datetime

import strawberry

from schema.describe import limited
from schema.inputs.descriptions import KEY
from schema.scalars import (
    Decimal,
    MismatchResolution,
    OutsideMethod,
    RefundReason,
)
from services.payments import offline_payments


@strawberry.input(description="The payment to refund, and the amount.")
class RefundPaymentInput:
    idempotency_key: str = strawberry.field(description=KEY)
    payment_id: strawberry.ID = strawberry.field(description="A payment of kind CHARGE that has succeeded.")
    amount: Decimal | None = strawberry.field(
        default=None, description="Decimal text in the payment's currency. Default: the full rest."
    )
    reason: RefundReason = strawberry.field(description="Why.")
    tell_contact_on: strawberry.ID | None = strawberry.field(
        default=None, description="The channel on which the contact gets a message about it. Default: no message."
    )


@strawberry.input(description="Money that was received outside the link.")
class RecordOutsidePaymentInput:
    idempotency_key: str = strawberry.field(description=KEY)
    payment_request_id: strawberry.ID = strawberry.field(description="The payment request that it is for.")
    method: OutsideMethod = strawberry.field(description="How it was paid.")
    amount: Decimal | None = strawberry.field(
        default=None, description="Decimal text in the request's currency, at most what is due. Default: what is due."
    )
    note: str | None = strawberry.field(default=None, description=limited("For the team.", offline_payments.NOTE_LIMIT))
    received_at: datetime | None = strawberry.field(default=None, description="When it was received. Default: now.")


@strawberry.input(description="What to do with a request's unresolved money.")
class ResolveMismatchInput:
    idempotency_key: str = strawberry.field(description=KEY)
    payment_request_id: strawberry.ID = strawberry.field(
        description="The payment request. The decision covers all its unresolved money; money that arrives later needs"
        " another."
    )
    resolution: MismatchResolution = strawberry.field(description="The decision.")


@strawberry.input(description="The manually recorded payment to undo.")
class UndoOutsidePaymentInput:
    payment_id: strawberry.ID = strawberry.field(description="A payment that was recorded manually.")
