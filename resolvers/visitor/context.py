"""The context of the visitor API's resolvers."""

from __future__ import annotations

from typing import Any, TypeAlias

import strawberry

from schema.failures import ApiError
from services.core.event_hub import Hub
from services.web_chat.identity import Visit


class VisitorContext:
    def __init__(self, *, hub: Hub | None, client_address: str = "", request_id: str = "") -> None:
        self.hub = hub
        self.client_address = client_address
        self.request_id = request_id
        self.viewer: Visit | None = None
        self.connection_params: dict[str, Any] | None = None
        self.planned_s: float | None = None

    def for_event(self) -> VisitorContext:
        # It caches no reads, so events need no copy.
        return self

    @property
    def visit(self) -> Visit:
        """Raises: ApiError UNAUTHENTICATED, IDENTITY_REQUIRED."""
        if self.viewer is None:
            raise ApiError("UNAUTHENTICATED", "Call startVisit, then send its token as Authorization: Bearer.")
        if self.viewer.external_id is not None and self.viewer.identity is None:
            raise ApiError("IDENTITY_REQUIRED", "Also send the identity, as Paythread-Identity.")
        return self.viewer


VisitorInfo: TypeAlias = strawberry.Info[VisitorContext, None]
