"""Refusals of GraphQL requests over HTTP, before execution."""

from collections.abc import Mapping

from cross_web import HTTPException

from resolvers.transport.negotiation import EVENTS


class Refusal(HTTPException):
    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, message)
        self.code = code
        self.headers = dict(headers or {})


class SubscriptionRefused(Refusal):
    """A subscription's request accepts no event stream."""

    def __init__(self) -> None:
        message = f"A subscription needs a WebSocket (graphql-transport-ws) or server-sent events (Accept: {EVENTS})."
        super().__init__(400, "BAD_REQUEST", message)
