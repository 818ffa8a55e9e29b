"""Finds the actor of an access token or API key."""

from __future__ import annotations

from datetime import UTC, datetime

from services.accounts import api_keys, sessions
from services.accounts.api_keys import KEY_PREFIX
from services.accounts.sessions import TOKEN_LIMIT
from services.core.permissions import Actor


async def authenticate(bearer: str) -> Actor | None:
    if len(bearer) > TOKEN_LIMIT or not bearer.isascii():
        return None
    return await (api_keys.actor_of(bearer) if bearer.startswith(KEY_PREFIX) else sessions.actor_of(bearer))


def is_signed(bearer: str) -> bool:
    """Whether this server signed the token and it has not expired."""
    return (
        len(bearer) <= TOKEN_LIMIT
        and bearer.isascii()
        and not bearer.startswith(KEY_PREFIX)
        and sessions.claims_of(bearer) is not None
    )


async def still_valid(actor: Actor) -> bool:
    """At most CACHE_S late."""
    if actor.kind == "system":
        return True
    if actor.expires_at is not None and actor.expires_at <= datetime.now(UTC):
        return False
    return await (api_keys.still_valid(actor) if actor.kind == "api_key" else sessions.still_valid(actor))
