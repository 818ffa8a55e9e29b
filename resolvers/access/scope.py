"""The account that reads are scoped to."""

from __future__ import annotations

from models import ledger
from services.core.permissions import Actor

# A condition on payment_request; its value is the time.
# For lists of the account, which payment_request_overdue serves.
OVERDUE = f"(due_at IS NOT NULL AND due_at < ? AND {ledger.OUTSTANDING_SQL})"
# For requests of given contacts: no index of the account's overdue requests serves it.
OVERDUE_OF_CONTACTS = f"(coalesce(due_at < ?, FALSE) AND {ledger.OUTSTANDING_SQL})"


class AccountScope:
    def __init__(self, viewer: Actor) -> None:
        self.viewer = viewer
        self._account_id = viewer.account_id
