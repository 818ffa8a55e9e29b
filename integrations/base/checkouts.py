"""Orders for checkout sessions, and their state at the processor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from integrations.base.money import MoneyStatement


class CheckoutStatus(StrEnum):
    OPEN = "OPEN"  # can still be paid
    PROCESSING = "PROCESSING"  # submitted; the money is pending (bank debit)
    COMPLETED = "COMPLETED"  # paid
    FAILED = "FAILED"  # submitted; the money did not arrive. Can no longer be paid
    EXPIRED = "EXPIRED"  # nothing was submitted. Can no longer be paid


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """A started payment whose money takes days, such as a voucher, bank debit or transfer."""

    method: str | None = None  # the name that payers know ("OXXO", "SEPA Direct Debit"); None: not known
    until: datetime | None = None  # when it lapses unpaid; None: not known


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutOrder:
    idempotency_key: str
    request_reference: str  # stored on the vendor's checkout and payment; statements return it
    number: str
    product_name: str
    description: str | None
    amount_minor: int
    currency: str
    success_url: str
    cancel_url: str
    customer_email: str | None = None
    locale: str | None = None


# Fields of CheckoutOrder that a checkout can do without.
OPTIONAL_FIELDS = frozenset({"customer_email", "description", "locale"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    external_id: str
    status: CheckoutStatus
    url: str | None = None  # where the contact pays; only while OPEN
    expires_at: datetime | None = None
    request_reference: str | None = None
    money: Sequence[MoneyStatement] = ()
    awaits_completion: bool = False  # OPEN and approved: no money moves until `complete_checkout`
    delay: Delay | None = None  # of a PROCESSING checkout whose money takes days; None: not delayed, or not known
    test_mode: bool | None = None  # None: the vendor does not say. The connection ignores checkouts of the other mode
