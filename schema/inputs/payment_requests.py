"""Inputs that make, list, send and end payment requests."""

from __future__ import annotations

from datetime import datetime

import strawberry

from schema.describe import limited
from schema.inputs.contacts import NewContactInput
from schema.inputs.descriptions import KEY, REQUEST
from schema.inputs.messages import MessageTemplateInput
from schema.scalars import (
    CurrencyCode,
    Decimal,
    ProcessorKind,
)
from services.messaging import messages
from services.payments import payment_requests, voids


@strawberry.input(description="An amount to ask for.")
class MoneyInput:
    amount: Decimal = strawberry.field(
        description='Decimal text, e.g. "125.00"; more decimals than the currency has are INVALID, never rounded.'
    )
    currency: CurrencyCode | None = strawberry.field(default=None, description="Default: the account's currency.")


@strawberry.input(one_of=True, description="The contact who is asked to pay.")
class PaymentRequestRecipientInput:
    contact_id: strawberry.ID | None = strawberry.field(default=strawberry.UNSET, description="A contact.")
    conversation_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="The contact of a conversation."
    )
    new_contact: NewContactInput | None = strawberry.field(
        default=strawberry.UNSET,
        description="A contact that is created in the same transaction: with the request, or not at all.",
    )


@strawberry.input(description="A new payment request.")
class CreatePaymentRequestInput:
    idempotency_key: str = strawberry.field(description=KEY)
    recipient: PaymentRequestRecipientInput = strawberry.field(name="for", description="Who is asked to pay.")
    channel_id: strawberry.ID | None = strawberry.field(
        default=None, description="The channel it is meant for; nothing is sent."
    )
    product_name: str = strawberry.field(description=limited("The product or service.", payment_requests.NAME_LIMIT))
    amount: MoneyInput = strawberry.field(description="How much.")
    description: str | None = strawberry.field(
        default=None,
        description=limited("More about it, shown on the checkout page.", payment_requests.DESCRIPTION_LIMIT),
    )
    due_at: datetime | None = strawberry.field(
        default=None,
        description=(
            "Deadline for the payment. For a last day, give the midnight that ends it in the account's time zone:"
            " pages then name that day."
        ),
    )
    processor_kind: ProcessorKind | None = strawberry.field(
        default=None, description="The kind of processor. Default: the account's default."
    )
    processor_id: strawberry.ID | None = strawberry.field(
        default=None, description="The processor, if several of one kind are connected."
    )


@strawberry.input(description="The request to send, and the channel.")
class SendPaymentRequestInput:
    idempotency_key: str = strawberry.field(description=KEY)
    payment_request_id: strawberry.ID = strawberry.field(description=REQUEST)
    channel_id: strawberry.ID = strawberry.field(description="The channel to send it on.")
    body: str | None = strawberry.field(
        default=None,
        description=limited(
            "Text around the link; {link} marks its place. Default: the account's template.", messages.BODY_LIMIT
        ),
    )
    template: MessageTemplateInput | None = strawberry.field(
        default=None, description="Sent to the contact in place of the text; the thread shows the text."
    )


@strawberry.input(description="The request to void.")
class VoidPaymentRequestInput:
    payment_request_id: strawberry.ID = strawberry.field(description=REQUEST)
    reason: str | None = strawberry.field(default=None, description=limited("Why, for the team.", voids.REASON_LIMIT))
    expected_version: int | None = strawberry.field(
        default=None, description="The version that you saw; another one gives VERSION_CONFLICT."
    )
    confirm_partially_paid: bool = strawberry.field(
        default=False,
        description="Required for a PARTIALLY_PAID request or one with unresolved money, else CONFIRMATION_REQUIRED.",
    )


@strawberry.input(description="The request whose link to free.")
class ReleasePaymentLinkInput:
    idempotency_key: str = strawberry.field(description=KEY)
    payment_request_id: strawberry.ID = strawberry.field(description=REQUEST)


@strawberry.input(description="The request whose link was copied.")
class RecordLinkCopiedInput:
    payment_request_id: strawberry.ID = strawberry.field(description=REQUEST)


@strawberry.input(description="The draft to hide.")
class DiscardPaymentRequestInput:
    payment_request_id: strawberry.ID = strawberry.field(description=REQUEST)
