"""Finds the actor of an access token or API key."""

from __future__ import annotations

from collections.abc import Sequence
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


async def still_valid(actors: Sequence[Actor]) -> list[bool]:
    """Whether each actor's credential and role are those of now, in few statements and past the cache."""
    now = datetime.now(UTC)
    valid = await api_keys.valid_among([actor for actor in actors if actor.kind == "api_key"])
    valid |= await sessions.valid_among([actor for actor in actors if actor.kind == "user"])
    return [
        actor.kind == "system" or (actor in valid and (actor.expires_at is None or actor.expires_at > now))
        for actor in actors
    ]
