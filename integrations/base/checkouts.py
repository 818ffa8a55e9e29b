"""Checkout sessions: the order that opens one, and what the processor reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from integrations.base.money import MoneyStatement


class CheckoutStatus(StrEnum):
    """State of one checkout session at its processor."""

    OPEN = "OPEN"  # can still be paid
    PROCESSING = "PROCESSING"  # submitted, money under way (bank debit)
    COMPLETED = "COMPLETED"  # paid
    FAILED = "FAILED"  # submitted, the money did not arrive; cannot be paid any more
    EXPIRED = "EXPIRED"  # cannot be paid any more, nothing was submitted


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """A payment was begun whose money takes days: a voucher to be paid, a bank debit, a transfer. Never a card's own seconds."""

    method: str | None = None  # as its payers call it: "OXXO", "SEPA Direct Debit"; None: not known
    until: datetime | None = None  # when it ends unpaid; None: the vendor does not say


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutOrder:
    """Everything a processor needs to open one checkout session."""

    idempotency_key: str
    request_reference: str  # put on the vendor's object (and on its payment), comes back in statements
    number: str
    product_name: str
    description: str | None
    amount_minor: int
    currency: str
    success_url: str
    cancel_url: str
    customer_email: str | None = None
    locale: str | None = None


OPTIONAL_FIELDS = frozenset(
    {"customer_email", "description", "locale"}
)  # of a CheckoutOrder: it can be paid without them


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """One checkout session as its processor reports it, with the money seen on it.

    `awaits_completion`: the payer has agreed, but no money moves until we call `complete_checkout`; only while OPEN.
    """

    external_id: str
    status: CheckoutStatus
    url: str | None = None  # where the contact pays; only while OPEN
    expires_at: datetime | None = None
    request_reference: str | None = None
    money: Sequence[MoneyStatement] = ()
    awaits_completion: bool = False
    delay: Delay | None = (
        None  # of a PROCESSING one whose money takes days; None: it does not, or the vendor does not say
    )
    test_mode: bool | None = (
        None  # what the vendor says; None: it does not say. The other mode than the connection's is foreign
    )
