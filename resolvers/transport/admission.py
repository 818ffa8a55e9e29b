"""Admission of GraphQL clients: authentication, request limits, open connections."""

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.types import Scope

from resolvers.transport.connections import Connections
from resolvers.transport.executor import Viewer
from resolvers.transport.fanout import Fanout
from resolvers.transport.limits import Limits
from services.core.rate_limits import RateLimiter, network_of

VERIFIED: Final = 10_000  # tokens that are remembered as verified

Authenticate = Callable[[str], Awaitable[Any]]
IsSigned = Callable[[str], bool]
CredentialOf = Callable[[Mapping[str, Any]], str | None]


def token_of(parameters: Mapping[str, Any]) -> str | None:
    value = next((value for name, value in parameters.items() if name.lower() == "authorization"), None)
    if not isinstance(value, str):
        return None
    scheme, _, token = value.strip().partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def key_of(token: str) -> str:
    """The key of the token's limits: hashed, to keep tokens out of memory dumps."""
    return hashlib.blake2b(token.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Admission:
    limits: Limits
    authenticate: Authenticate
    connections: Connections
    requests: RateLimiter
    fanout: Fanout | None
    credential_of: CredentialOf = token_of
    is_signed: IsSigned | None = None
    verified: OrderedDict[str, None] = field(default_factory=OrderedDict)

    async def viewer_of(self, token: str | None, network: str) -> Viewer | None:
        """The viewer of a valid token, or None. Raises: TooManyRequests."""
        unverified = f"network:{network}"
        if token is None:
            self._take(unverified)
            return None
        key = key_of(token)
        trusted = key in self.verified or (self.is_signed is not None and self.is_signed(token))
        if not trusted:
            self._take(unverified)
        viewer: Viewer | None = await self.authenticate(token)
        if viewer is None:
            self.verified.pop(key, None)
            if trusted:
                self._take(unverified)
            return None
        self.verified[key] = None
        self.verified.move_to_end(key)
        if len(self.verified) > VERIFIED:
            self.verified.popitem(last=False)
        return viewer

    def count(self, viewer: Viewer) -> None:
        """Raises: TooManyRequests."""
        self._take(viewer.limit_key)

    def _take(self, key: str) -> None:
        if not self.requests.take(key):
            raise TooManyRequests


class TooManyRequests(Exception):
    pass


def network_in(scope: Scope) -> str:
    known: str | None = scope.get("state", {}).get("client_address")
    client = scope.get("client")
    return network_of(known or (client[0] if client else ""))
