"""What each figure of the dashboard and of a contact's totals means, as SQL conditions. Both use only these.

requested    amounts of requests that were sent and are neither void nor discarded; in a range by the time of sending
outstanding  what is still due of open requests: amount less paid and waived
paid         every succeeded charge and every manual record that was not undone, counted by its request or not (part payments,
             excess, late and mismatching payments); in a range by the time of the payment
refunded     succeeded refunds of paid
lost         lost disputes of paid
fees         the processors' fees of paid
net          paid - refunded - lost - fees; refunds and lost disputes of one charge take at most the charge
paid count   requests paid in full; in a range by the time when they became so
"""

from __future__ import annotations

from typing import Final

# Of payment_request.
REQUESTED: Final = "status NOT IN ('DRAFT', 'VOID') AND discarded_at IS NULL"
SENT_AT: Final = "coalesce(sent_at, created_at)"  # a request voided before it was sent, and paid, was never sent
OPEN: Final = "status IN ('SENT', 'PROCESSING', 'PARTIALLY_PAID') AND discarded_at IS NULL"
LEFT: Final = "amount_minor - amount_paid_minor - waived_minor"
DUE: Final = f"{OPEN} AND {LEFT} > 0"
PAID_IN_FULL: Final = "status = 'PAID'"

# Of money_fact, as f. A processor never undoes a succeeded charge; a person can undo a manual record.
STANDS: Final = (
    "NOT EXISTS (SELECT 1 FROM money_fact undone WHERE f.processor_connection_id IS NULL"
    " AND undone.processor_connection_id IS NULL AND undone.account_id = f.account_id AND undone.kind = f.kind"
    " AND undone.external_id = f.external_id AND undone.outcome = 'CANCELED')"
)
ARRIVED: Final = "f.kind = 'CHARGE' AND f.outcome = 'SUCCEEDED'"
