"""Creates, revokes and checks API keys."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from models import database, rows
from models.errors import Invalid, NotFound, Refusals
from models.ids import public_id, uuid7
from models.tables import ApiKey
from models.vault import digest
from services.accounts import credential_cache
from services.core import audit_log, idempotency, validation
from services.core.permissions import ROLES, Actor
from services.core.unit_of_work import change

KEY_PREFIX: Final = "ptk_"
KEY_NAME_LIMIT: Final = 120
USED_EVERY: Final = timedelta(minutes=1)  # how often `last_used_at` is stored
KEY_LIFE: Final = timedelta(days=365)  # by default
KEY_LIFE_LIMIT: Final = timedelta(days=730)


async def create(
    actor: Actor,
    *,
    name: str,
    role: str,
    expires_at: datetime | None = None,
    manages_keys: bool = False,
    token: str | None = None,
    save: idempotency.Save | None = None,
) -> tuple[ApiKey, str]:
    """Create a key and return its clear text. Raises: Forbidden, Blank, TooLong, Invalid."""
    actor.require("keys")
    refusals = Refusals()
    with refusals:
        title = validation.required(name, limit=KEY_NAME_LIMIT, field="name")
    with refusals:
        if role not in ROLES:
            raise Invalid("This is not a role.", field="role")
    with refusals:
        if manages_keys and role != "OWNER":
            raise Invalid("Only a key of role OWNER can manage keys.", field="managesKeys")
        if manages_keys and actor.kind == "api_key":
            raise Invalid("Only a person can let a key manage keys.", field="managesKeys")
    with refusals:
        ends_at = _key_end(actor, expires_at)
    refusals.raise_any()
    token = token or KEY_PREFIX + secrets.token_urlsafe(32)
    async with change(actor.account_id, actor=actor.ref) as changed:
        row = await ApiKey.create(
            id=uuid7(),
            account_id=actor.account_id,
            name=title,
            role=role,
            token_hash=digest(token),
            hint=token[-4:],
            expires_at=ends_at,
            manages_keys=manages_keys,
        )
        changed.event("api_key.updated")
        detail = {"role": role, "name": title, "expires_at": ends_at.isoformat(), "manages_keys": manages_keys}
        await audit_log.record(actor, "api_key.created", public_id("key", row.id), detail)
        if save is not None:
            await save({"api_key": str(row.id)})
    return row, token


async def create_once(
    actor: Actor,
    *,
    name: str,
    role: str,
    expires_at: datetime | None = None,
    manages_keys: bool = False,
    idempotency_key: str | None,
) -> tuple[ApiKey, str | None]:
    """A repeat returns no clear text."""
    actor.require("keys")

    async def run(save: idempotency.Save) -> tuple[ApiKey, str | None]:
        return await create(actor, name=name, role=role, expires_at=expires_at, manages_keys=manages_keys, save=save)

    async def rebuild(ids: dict[str, Any]) -> tuple[ApiKey, str | None]:
        return await ApiKey.get(id=UUID(ids["api_key"]), account_id=actor.account_id), None

    given = {"name": name, "role": role, "expires": expires_at, "manages": manages_keys}
    return await idempotency.once(actor, "createApiKey", idempotency_key, given, run, rebuild)


def _key_end(actor: Actor, wanted: datetime | None) -> datetime:
    now = datetime.now(UTC)
    latest = now + KEY_LIFE_LIMIT
    if actor.kind == "api_key" and actor.expires_at is not None:
        latest = min(latest, actor.expires_at)
    if wanted is None:
        return min(now + KEY_LIFE, latest)
    if wanted <= now:
        raise Invalid("This time has passed.", field="expiresAt")
    if wanted > latest:
        raise Invalid("A key expires within two years, and no later than the key that creates it.", field="expiresAt")
    return wanted


async def revoke(actor: Actor, key_id: UUID) -> ApiKey:
    """Raises: Forbidden, NotFound."""
    actor.require("keys")
    async with change(actor.account_id, actor=actor.ref) as changed:
        row = await ApiKey.get_or_none(id=key_id, account_id=actor.account_id)
        if row is None:
            raise NotFound(field="apiKeyId")
        if row.revoked_at is None:
            row.revoked_at = datetime.now(UTC)
            await ApiKey.filter(id=row.id).update(revoked_at=row.revoked_at)
            changed.event("api_key.updated")
            await audit_log.record(actor, "api_key.revoked", public_id("key", row.id))
    credential_cache.forget()
    return row


# ------------------------------------------------------------------------------------------------------- authenticate
@dataclass(frozen=True, slots=True)
class _State:
    id: UUID
    account_id: UUID
    name: str
    role: str
    not_revoked: bool
    expires_at: datetime | None
    manages_keys: bool

    @property
    def valid(self) -> bool:
        return self.not_revoked and (self.expires_at is None or self.expires_at > datetime.now(UTC))


async def actor_of(token: str) -> Actor | None:
    hashed = digest(token)
    state: _State | None = credential_cache.get(("key", hashed))
    if state is None:
        row = await rows.first(ApiKey, "WHERE token_hash = ?", hashed)
        if row is None:
            return None
        state = _state_of(row)
        credential_cache.put(("key", hashed), state)
        now = datetime.now(UTC)
        if state.valid and (row.last_used_at is None or abs(now - row.last_used_at) > USED_EVERY):
            await database.execute("UPDATE api_key SET last_used_at = ? WHERE id = ?", now, row.id)
    if not state.valid:
        return None
    return Actor(
        account_id=state.account_id,
        role=state.role,
        user_id=None,
        name=state.name,
        kind="api_key",
        credential=str(state.id),
        expires_at=state.expires_at,
        manages_keys=state.manages_keys,
    )


async def valid_among(actors: Sequence[Actor]) -> set[Actor]:
    if not actors:
        return set()
    of_keys, ids = database.among("id", list({UUID(actor.credential) for actor in actors}))
    found = await database.records(
        f"SELECT id, account_id, role, expires_at FROM api_key WHERE revoked_at IS NULL AND {of_keys}",  # noqa: S608 (only constants are put in)
        ids,
    )
    now = datetime.now(UTC)
    valid = {
        (str(database.to_uuid(id)), database.to_uuid(account_id), role)
        for id, account_id, role, expires_at in found
        if expires_at is None or database.to_time(expires_at) > now
    }
    return {actor for actor in actors if (actor.credential, actor.account_id, actor.role) in valid}


def _state_of(row: ApiKey) -> _State:
    return _State(row.id, row.account_id, row.name, row.role, row.revoked_at is None, row.expires_at, row.manages_keys)
