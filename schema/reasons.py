"""Reasons as closed sets. A vendor's code that is not listed is OTHER."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

import strawberry

from schema.scalars import value


@strawberry.enum(description="Why a subscription can't continue from its cursor.")
class ResyncReason(Enum):
    EXPIRED = value("EXPIRED", description="The cursor is older than 30 days.")
    TOO_FAR_BEHIND = value("TOO_FAR_BEHIND", description="More than 1,000 events have followed it.")
    AHEAD_OF_LOG = value("AHEAD_OF_LOG", description="It is newer than the log: the database was restored.")
    OTHER_EPOCH = value("OTHER_EPOCH", description="It is from before the log was started anew.")
    VIEW_CHANGED = value("VIEW_CHANGED", description="The view's filter or order has changed since.")


@strawberry.enum(
    description="Why nothing can be sent, in the order in which it is checked; the first that fails is reported, here and by sending."
)
class CapabilityReason(Enum):
    CHANNEL_NOT_CONNECTED = value("CHANNEL_NOT_CONNECTED", description="The channel is not connected.")
    CHANNEL_NOT_SUPPORTED = value(
        "CHANNEL_NOT_SUPPORTED", description="Its provider is not installed here, or its credentials can't be read."
    )
    NO_PROCESSOR_CONFIGURED = value(
        "NO_PROCESSOR_CONFIGURED",
        description="No payment processor is ready: connect or choose one in Settings → Payments.",
    )
    FORBIDDEN = value("FORBIDDEN", description="The viewer's role may not send this.")
    CONTACT_HAS_NO_ADDRESS = value("CONTACT_HAS_NO_ADDRESS", description="The contact has no address on it.")
    CONTACT_OPTED_OUT = value("CONTACT_OPTED_OUT", description="The contact does not want messages on it.")
    MESSAGING_WINDOW_CLOSED = value(
        "MESSAGING_WINDOW_CLOSED", description="The contact has not written on it recently enough."
    )


@strawberry.enum(description="Why a file that the contact sent is missing.")
class AttachmentRefusal(Enum):
    TOO_LARGE = value("TOO_LARGE", description="It is larger than 10 MB.")
    TYPE_NOT_ALLOWED = value("TYPE_NOT_ALLOWED", description="Files of its type are not stored.")
    EMPTY = value("EMPTY", description="It has no content.")
    UNREADABLE = value("UNREADABLE", description="Its content or address can't be decoded.")
    NOT_GIVEN = value("NOT_GIVEN", description="The provider gave no address for it.")
    NOT_PUBLIC = value("NOT_PUBLIC", description="Its address is not a public https address.")
    UNREACHABLE = value("UNREACHABLE", description="The server that holds it can't be reached.")
    TIMEOUT = value("TIMEOUT", description="The server that holds it was too slow.")
    REFUSED = value("REFUSED", description="The server that holds it refused.")
    NOT_FETCHED = value("NOT_FETCHED", description="Every attempt to fetch it failed.")
    OTHER = value("OTHER", description="Another reason.")


@strawberry.enum(
    description="Why the payer's bank disputes a payment: the processor's reason, the same for every processor."
)
class DisputeReason(Enum):
    FRAUDULENT = value("FRAUDULENT", description="The payer says that someone else made the payment.")
    UNRECOGNIZED = value("UNRECOGNIZED", description="The payer does not recognize the payment.")
    DUPLICATE = value("DUPLICATE", description="The payer was charged twice, or has paid another way.")
    NOT_RECEIVED = value("NOT_RECEIVED", description="The payer did not receive the product or service.")
    NOT_AS_DESCRIBED = value("NOT_AS_DESCRIBED", description="The product or service is defective or differs.")
    CREDIT_NOT_PROCESSED = value("CREDIT_NOT_PROCESSED", description="A promised refund did not arrive.")
    CANCELED = value("CANCELED", description="The payer had canceled the purchase or subscription.")
    AMOUNT_DIFFERS = value("AMOUNT_DIFFERS", description="The amount is not what the payer agreed to.")
    BANK_RETURNED = value(
        "BANK_RETURNED", description="The bank returned a debit or check: no money, a wrong account or no permission."
    )
    OTHER = value("OTHER", description="Another reason: see processorReason.")


_FILES: Final[Mapping[str, AttachmentRefusal]] = {
    "too_large": AttachmentRefusal.TOO_LARGE,
    "type_not_allowed": AttachmentRefusal.TYPE_NOT_ALLOWED,
    "empty": AttachmentRefusal.EMPTY,
    "unreadable": AttachmentRefusal.UNREADABLE,
    "not_given": AttachmentRefusal.NOT_GIVEN,
    "not_public": AttachmentRefusal.NOT_PUBLIC,
    "timeout": AttachmentRefusal.TIMEOUT,
    "refused": AttachmentRefusal.REFUSED,
    "not_fetched": AttachmentRefusal.NOT_FETCHED,
    "not_https": AttachmentRefusal.NOT_PUBLIC,
    "bad_port": AttachmentRefusal.NOT_PUBLIC,
    "bad_address": AttachmentRefusal.NOT_PUBLIC,
    "connection": AttachmentRefusal.UNREACHABLE,
    "unknown_host": AttachmentRefusal.UNREACHABLE,
}
# By Stripe's, Square's and PayPal's codes. Sources: docs.stripe.com/api/disputes/object (reason),
# developer.squareup.com/reference/square/enums/DisputeReason, developer.paypal.com/docs/api/customer-disputes/v1 (reason).
_DISPUTES: Final[Mapping[str, DisputeReason]] = {
    "fraudulent": DisputeReason.FRAUDULENT,
    "unrecognized": DisputeReason.UNRECOGNIZED,
    "duplicate": DisputeReason.DUPLICATE,
    "not_received": DisputeReason.NOT_RECEIVED,
    "not_as_described": DisputeReason.NOT_AS_DESCRIBED,
    "credit_not_processed": DisputeReason.CREDIT_NOT_PROCESSED,
    "amount_differs": DisputeReason.AMOUNT_DIFFERS,
    "unauthorised": DisputeReason.FRAUDULENT,
    "emv_liability_shift": DisputeReason.FRAUDULENT,
    "no_knowledge": DisputeReason.UNRECOGNIZED,
    "duplicate_transaction": DisputeReason.DUPLICATE,
    "paid_by_other_means": DisputeReason.DUPLICATE,
    "payment_by_other_means": DisputeReason.DUPLICATE,
    "product_not_received": DisputeReason.NOT_RECEIVED,
    "merchandise_or_service_not_received": DisputeReason.NOT_RECEIVED,
    "product_unacceptable": DisputeReason.NOT_AS_DESCRIBED,
    "merchandise_or_service_not_as_described": DisputeReason.NOT_AS_DESCRIBED,
    "customer_requests_credit": DisputeReason.CREDIT_NOT_PROCESSED,
    "subscription_canceled": DisputeReason.CANCELED,
    "cancelled": DisputeReason.CANCELED,
    "canceled_recurring_billing": DisputeReason.CANCELED,
    "incorrect_amount": DisputeReason.AMOUNT_DIFFERS,
    "bank_cannot_process": DisputeReason.BANK_RETURNED,
    "check_returned": DisputeReason.BANK_RETURNED,
    "debit_not_authorized": DisputeReason.BANK_RETURNED,
    "incorrect_account_details": DisputeReason.BANK_RETURNED,
    "insufficient_funds": DisputeReason.BANK_RETURNED,
}


def of_file(code: str | None) -> AttachmentRefusal | None:
    return _FILES.get(code, AttachmentRefusal.OTHER) if code is not None else None


def of_dispute(code: str | None) -> DisputeReason | None:
    return _DISPUTES.get(code.lower(), DisputeReason.OTHER) if code is not None else None
