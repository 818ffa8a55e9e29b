"""Authentication: the actor of a credential, an access token or an API key. `permissions.py` decides what it may do."""

from __future__ import annotations

from datetime import UTC, datetime

from services.accounts import api_keys, sessions
from services.accounts.api_keys import KEY_PREFIX
from services.accounts.sessions import TOKEN_LIMIT
from services.core.permissions import Actor


async def authenticate(bearer: str) -> Actor | None:
    """The actor of an access token or API key; None if it is not valid now."""
    if len(bearer) > TOKEN_LIMIT or not bearer.isascii():
        return None
    return await (api_keys.actor_of(bearer) if bearer.startswith(KEY_PREFIX) else sessions.actor_of(bearer))


def is_signed(bearer: str) -> bool:
    """An access token that this server signed and that has not expired. Looks nothing up."""
    return (
        len(bearer) <= TOKEN_LIMIT
        and bearer.isascii()
        and not bearer.startswith(KEY_PREFIX)
        and sessions.claims_of(bearer) is not None
    )


async def still_valid(actor: Actor) -> bool:
    """Whether `authenticate` would return the same actor now; at most CACHE_S late."""
    if actor.kind == "system":
        return True
    if actor.expires_at is not None and actor.expires_at <= datetime.now(UTC):
        return False
    return await (api_keys.still_valid(actor) if actor.kind == "api_key" else sessions.still_valid(actor))
