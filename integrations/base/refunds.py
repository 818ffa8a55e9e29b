"""Orders to refund a charge."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class RefundReason(StrEnum):
    """Why money is given back. Same words as the API's; what a vendor has no word for is not told to it."""

    DUPLICATE = "DUPLICATE"
    FRAUDULENT = "FRAUDULENT"
    REQUESTED_BY_CONTACT = "REQUESTED_BY_CONTACT"
    SERVICE_PROBLEM = "SERVICE_PROBLEM"
    OTHER = "OTHER"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundOrder:
    """Everything a processor needs to give back one charge, whole or in part. Its key is stored before the call."""

    idempotency_key: str
    request_reference: str
    charge_external_id: str  # the money's id, as its statement gave it
    checkout_external_id: str | None = None  # of the charge, where it is known: some vendors find the money by it
    amount_minor: int
    currency: str
    reason: RefundReason | None = None
