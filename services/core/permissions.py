"""The actor of a request and its permissions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from models.errors import Forbidden
from services.core.actors import PAYTHREAD, ActorRef, user

# AGENT writes and requests payments; refunds and settings need ADMIN or OWNER.
_AGENT = frozenset({"read", "notes", "message", "request_payment"})
_ADMIN = _AGENT | {"settings", "refund", "invite"}  # to the roles AGENT and VIEWER
_PERMISSIONS: dict[str, frozenset[str]] = {
    "OWNER": _ADMIN | {"keys"},  # API keys and users
    "ADMIN": _ADMIN,
    "AGENT": _AGENT,
    "VIEWER": frozenset({"read"}),
}
ROLES = tuple(_PERMISSIONS)


def allows(role: str, permission: str) -> bool:
    return permission in _PERMISSIONS.get(role, frozenset())


def invites(role: str) -> str:
    """The permission to invite a user of this role."""
    return "keys" if "settings" in _PERMISSIONS.get(role, frozenset()) else "invite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """A caller; `credential` is the id of its API key or token family."""

    account_id: UUID
    role: str
    user_id: UUID | None
    name: str
    kind: Literal["user", "api_key", "system"]
    credential: str
    expires_at: datetime | None = None
    token_version: int = 0
    manages_keys: bool = False  # of an API key

    @property
    def limit_key(self) -> str:
        return f"{self.kind}:{self.user_id or self.credential}"

    @property
    def ref(self) -> ActorRef:
        if self.user_id is not None:
            return user(self.user_id)
        return ActorRef("API_KEY", UUID(self.credential)) if self.kind == "api_key" else PAYTHREAD

    def may(self, permission: str) -> bool:
        # A leaked API key must not create others, unless a person allowed it to manage keys.
        if permission in ("keys", "invite") and self.kind == "api_key" and not self.manages_keys:
            return False
        return allows(self.role, permission)

    def require(self, permission: str) -> None:
        if not self.may(permission):
            raise Forbidden


def system_actor(account_id: UUID) -> Actor:
    return Actor(account_id=account_id, role="OWNER", user_id=None, name="System", kind="system", credential="system")
