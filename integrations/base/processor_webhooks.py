"""Events from a processor's verified webhooks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from integrations.base.checkouts import CheckoutStatus, Delay
from integrations.base.money import MoneyStatement


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorWebhook:
    """One event. `decides`: its `money` is final; otherwise a checkout or charge is read, and `money` adds what only the event reports."""

    # The event's id, unique per connection; a repeated event changes nothing. None: the vendor's events have no id, so each is a
    # hint to read. Never the payment's id, which all its events share.
    external_id: str | None
    type: str
    created_at: datetime | None = None  # when the vendor created the event; None: not known
    decides: bool = False
    money: Sequence[MoneyStatement] = ()
    checkout_external_id: str | None = None
    checkout_status: CheckoutStatus | None = None
    delay: Delay | None = None  # as in Checkout
    charge_external_id: str | None = None  # of a hint without a checkout: the charge for `read_charge`
    request_reference: str | None = None
    vendor_account: str | None = None  # Stripe Connect: ignored unless it is the connection's account
    # The business revoked these credentials' access at the vendor. Unless `decides` is set, Paythread calls `check` first.
    disconnected: bool = False
    # The JSON to store if it is not the received body: from `list_events`, read for a thin event, or one event of a batch.
    raw: bytes = b""
    test_mode: bool | None = None  # None: the vendor does not say. The connection ignores events of the other mode
