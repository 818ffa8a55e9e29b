"""Orders to refund a charge."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class RefundReason(StrEnum):
    """Why money is refunded. A provider omits a reason that its vendor does not know."""

    DUPLICATE = "DUPLICATE"
    FRAUDULENT = "FRAUDULENT"
    REQUESTED_BY_CONTACT = "REQUESTED_BY_CONTACT"
    SERVICE_PROBLEM = "SERVICE_PROBLEM"
    OTHER = "OTHER"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundOrder:
    """What a processor needs to refund a charge in full or in part. The key is stored before the call."""

    idempotency_key: str
    request_reference: str
    charge_external_id: str  # the id from the charge's statement
    checkout_external_id: str | None = None  # the charge's checkout, if known: some vendors look up the charge by it
    amount_minor: int
    currency: str
    reason: RefundReason | None = None
