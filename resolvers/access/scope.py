"""The account that reads are scoped to."""

from __future__ import annotations

from services.core.permissions import Actor


class AccountScope:
    def __init__(self, viewer: Actor) -> None:
        self.viewer = viewer
        self._account_id = viewer.account_id
