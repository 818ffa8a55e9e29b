"""SQL conditions for the figures of the dashboard and of contacts' totals, which docs/glossary.md defines."""

from __future__ import annotations

from typing import Final

from models import ledger

# Of payment_request.
REQUESTED: Final = "status NOT IN ('DRAFT', 'VOID') AND discarded_at IS NULL"
SENT_AT: Final = "coalesce(sent_at, created_at)"  # a request that was voided before it was sent can be paid
OUTSTANDING: Final = f"{ledger.OUTSTANDING_SQL} AND discarded_at IS NULL"
LEFT: Final = "amount_minor - amount_paid_minor - waived_minor"
DUE: Final = f"{OUTSTANDING} AND {LEFT} > 0"
PAID_IN_FULL: Final = "status = 'PAID'"

# Of money_fact, as f. Only manual records can be undone, never a processor's charge.
NOT_UNDONE: Final = (
    "NOT EXISTS (SELECT 1 FROM money_fact undone WHERE f.processor_connection_id IS NULL"
    " AND undone.processor_connection_id IS NULL AND undone.account_id = f.account_id AND undone.kind = f.kind"
    " AND undone.external_id = f.external_id AND undone.outcome = 'CANCELED')"
)
ARRIVED: Final = "f.kind = 'CHARGE' AND f.outcome = 'SUCCEEDED'"
