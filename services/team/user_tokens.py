"""Tokens of links that a user gets by email: one per user and purpose, the newest one works, once."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from models.errors import LinkInvalid
from models.ids import uuid7
from models.tables import User, UserToken
from models.vault import digest
from services.core.permissions import Actor

TOKEN_LIMIT: Final = 200  # characters; a token has 43


async def renew(
    account_id: UUID, user_id: UUID, purpose: str, *, life: timedelta, email: str | None = None
) -> tuple[User, str]:
    """The user and a new token; call inside a transaction. Raises: LinkInvalid (no active user)."""
    token = secrets.token_urlsafe(32)
    user = await _lock(account_id, user_id)
    await UserToken.filter(user_id=user.id, purpose=purpose).delete()
    await UserToken.create(
        id=uuid7(),
        account_id=user.account_id,
        user_id=user.id,
        purpose=purpose,
        token_hash=digest(token),
        email=email,
        expires_at=datetime.now(UTC) + life,
    )
    return user, token


async def current(token: str, purpose: str) -> UserToken | None:
    if len(token) > TOKEN_LIMIT:
        return None
    row = await UserToken.get_or_none(token_hash=digest(token), purpose=purpose)
    return row if row is not None and row.expires_at > datetime.now(UTC) else None


async def find(token: str, purpose: str) -> UserToken:
    """Raises: LinkInvalid."""
    row = await current(token, purpose)
    if row is None:
        raise LinkInvalid(field="token")
    return row


async def use(row: UserToken) -> User:
    """The locked user; call inside a transaction. Raises: LinkInvalid, also for the second of two concurrent uses."""
    user = await _lock(row.account_id, row.user_id)
    if not await UserToken.filter(id=row.id, expires_at__gt=datetime.now(UTC)).delete():
        raise LinkInvalid(field="token")
    return user


async def _lock(account_id: UUID, user_id: UUID) -> User:
    active = User.filter(id=user_id, account_id=account_id, disabled_at=None)
    user = await active.select_for_update(no_key=True).first()
    if user is None:
        raise LinkInvalid(field="token")
    return user


def actor_of(user: User) -> Actor:
    return Actor(
        account_id=user.account_id, role=user.role, user_id=user.id, name=user.name, kind="user", credential=""
    )
