"""What a processor reports about movements of money, and which amounts it takes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class MoneyKind(StrEnum):
    """What moved. Same words as the ledger's."""

    CHARGE = "CHARGE"
    REFUND = "REFUND"
    DISPUTE = "DISPUTE"


class MoneyOutcome(StrEnum):
    """How it stands at the processor now."""

    PENDING = "PENDING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


@dataclass(frozen=True, slots=True, kw_only=True)
class MoneyStatement:
    """What a processor says about one movement of money: the recorder's only input.

    `external_id` is the money's own id (payment intent, capture, refund, dispute), never the event's.
    Amounts are positive integers in the currency's ISO 4217 minor unit.
    """

    kind: MoneyKind
    external_id: str
    outcome: MoneyOutcome
    amount_minor: int
    currency: str
    checkout_external_id: str | None = None
    request_reference: str | None = None  # the reference that we put on the vendor's object
    charge_external_id: str | None = None  # of a refund or dispute: the charge that it concerns
    fee_minor: int | None = None
    method_summary: str | None = None  # "Visa •••• 4242"; never more of the card
    failure_code: str | None = None
    # In plain words for the team, never for a contact: why it failed (integrations/declines.py has sentences), or what a pending
    # one waits for.
    failure_message: str | None = None
    response_due_at: datetime | None = None  # of a dispute that waits for the business's answer
    dispute_reason: str | None = None  # of a dispute: the vendor's word
    inquiry: bool = False  # of a dispute: so far a question, which takes no money; a refund can settle it
    reversal: bool = False  # of a refund: the vendor took the money back by itself; a dispute that is won ends it
    # Of a dispute: when the vendor came to this word, not when the dispute began. The latest word stands, also after a decision.
    occurred_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AmountLimits:
    """Inclusive bounds in minor units; None = none known. `step` 10 for Stripe's three-decimal currencies."""

    minimum_minor: int = 1
    maximum_minor: int | None = None
    step_minor: int = 1
