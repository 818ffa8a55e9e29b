"""Verified webhooks of processors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from integrations.base.checkouts import CheckoutStatus, Delay
from integrations.base.money import MoneyStatement


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorWebhook:
    """A verified webhook. `decides` says that `money` may be recorded as it stands; otherwise read the checkout first.

    What does not decide is a hint: it names what to read, a checkout or (`charge_external_id`) a charge.
    """

    # The event's own id, unique per connection: a repeat of it changes nothing. None: the vendor gives events no id, so that
    # each webhook is a hint to read again. Never the id of the payment, which all its events share.
    external_id: str | None
    type: str
    created_at: datetime | None = None  # when the vendor made the event; None: it does not say
    decides: bool = False
    money: Sequence[MoneyStatement] = ()
    checkout_external_id: str | None = None
    checkout_status: CheckoutStatus | None = None
    delay: Delay | None = None  # as Checkout has it
    charge_external_id: str | None = None  # of a hint without a checkout: what `read_charge` shall read
    request_reference: str | None = None
    vendor_account: str | None = None  # Stripe Connect: must equal the connection's
    # The business took these credentials' rights back at the vendor. Unless it `decides`, `check` is asked first.
    disconnected: bool = False
    # The event as JSON to be stored, where it is not the body that came in (list_events; a body that only points; one of a batch).
    raw: bytes = b""
    test_mode: bool | None = (
        None  # what the vendor says; None: it does not say. The other mode than the connection's is foreign
    )
