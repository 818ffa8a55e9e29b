"""The account that reads are scoped to."""

from __future__ import annotations

from services.core.permissions import Actor

# A condition on payment_request; its value is the time.
OVERDUE = "(due_at IS NOT NULL AND due_at < ? AND status IN ('SENT', 'PROCESSING', 'PARTIALLY_PAID'))"


class AccountScope:
    def __init__(self, viewer: Actor) -> None:
        self.viewer = viewer
        self._account_id = viewer.account_id
