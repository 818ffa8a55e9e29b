"""Movements of money, and the amounts that a processor accepts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class MoneyKind(StrEnum):
    CHARGE = "CHARGE"
    REFUND = "REFUND"
    DISPUTE = "DISPUTE"


class MoneyOutcome(StrEnum):
    PENDING = "PENDING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


@dataclass(frozen=True, slots=True, kw_only=True)
class MoneyStatement:
    """What a processor reports about one movement of money."""

    kind: MoneyKind
    external_id: str  # of the payment, refund or dispute, never of the event
    outcome: MoneyOutcome
    amount_minor: int  # positive, in the ISO 4217 minor unit
    currency: str
    checkout_external_id: str | None = None
    request_reference: str | None = None  # the reference that `create_checkout` put on the vendor's object
    charge_external_id: str | None = None  # of a refund or dispute: its charge
    fee_minor: int | None = None
    method_summary: str | None = None  # "Visa •••• 4242"; never more of the card
    failure_code: str | None = None
    # For the team, never for a contact: why it failed (sentences in integrations/declines.py), or what a pending movement waits for.
    failure_message: str | None = None
    response_due_at: datetime | None = None  # of a dispute that awaits the business's response
    dispute_reason: str | None = None  # of a dispute: the vendor's code
    inquiry: bool = False  # of a dispute: an inquiry, which takes no money yet and can be resolved by a refund
    reversal: bool = False  # of a refund: the vendor itself took the money back; a won dispute ends it
    # Of a dispute: the time of this change, not of the dispute's start. The latest change wins, also after a decision.
    occurred_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AmountLimits:
    """Inclusive bounds in minor units."""

    minimum_minor: int = 1
    maximum_minor: int | None = None  # None: not known
    step_minor: int = 1  # amounts are its multiples
