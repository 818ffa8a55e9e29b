"""Orders to refund a charge."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class RefundReason(StrEnum):
    """Why money is refunded; a provider omits a reason that its vendor lacks."""

    DUPLICATE = "DUPLICATE"
    FRAUDULENT = "FRAUDULENT"
    REQUESTED_BY_CONTACT = "REQUESTED_BY_CONTACT"
    SERVICE_PROBLEM = "SERVICE_PROBLEM"
    OTHER = "OTHER"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundOrder:
    idempotency_key: str  # stored before the call
    request_reference: str
    charge_external_id: str  # the id from the charge's statement
    checkout_external_id: str | None = None  # the charge's checkout, if known: some vendors look up the charge by it
    amount_minor: int
    currency: str
    reason: RefundReason | None = None
