"""What each figure of the dashboard and of a contact's totals means, as conditions for SQL. Both add up by these and no others.

requested    amounts of requests that were sent and are neither void nor discarded; a dashboard's range goes by when they were sent
outstanding  what is still due of open requests: amounts less what was paid and what the team waived
paid         money that arrived: every succeeded charge and every record by hand that stands, whether its request counts it or not
             (part payments, excess, late and mismatching money); a range goes by when the money moved
refunded     succeeded refunds of that money
lost         lost disputes of that money
fees         what processors kept of that money
net          paid - refunded - lost - fees; refunds and lost disputes of one charge take at most the charge
paid count   requests that are paid in full; a range goes by when they became so
"""

from __future__ import annotations

from typing import Final

# Of payment_request.
REQUESTED: Final = "status NOT IN ('DRAFT', 'VOID') AND discarded_at IS NULL"
SENT_AT: Final = "coalesce(sent_at, created_at)"  # void before it was sent, and paid all the same: it never was
OPEN: Final = "status IN ('SENT', 'PROCESSING', 'PARTIALLY_PAID') AND discarded_at IS NULL"
LEFT: Final = "amount_minor - amount_paid_minor - waived_minor"
DUE: Final = f"{OPEN} AND {LEFT} > 0"
PAID_IN_FULL: Final = "status = 'PAID'"

# Of money_fact, called f. A processor never takes a succeeded charge back; a person can undo a record by hand.
STANDS: Final = (
    "NOT EXISTS (SELECT 1 FROM money_fact undone WHERE f.processor_connection_id IS NULL"
    " AND undone.processor_connection_id IS NULL AND undone.account_id = f.account_id AND undone.kind = f.kind"
    " AND undone.external_id = f.external_id AND undone.outcome = 'CANCELED')"
)
ARRIVED: Final = "f.kind = 'CHARGE' AND f.outcome = 'SUCCEEDED'"
