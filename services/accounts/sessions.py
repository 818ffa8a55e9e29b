"""Access tokens (JWT) and single-use refresh tokens, one family per sign-in."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import structlog

from models import database
from models.errors import Forbidden, NotFound, SignInFailed
from models.ids import public_id
from models.tables import RefreshToken, User
from models.vault import digest
from services.accounts import credential_cache
from services.accounts.clients import Client
from services.core import audit_log
from services.core.configuration import Derived, current
from services.core.permissions import Actor

log = structlog.get_logger(__name__)

ALGORITHM: Final = "HS256"
AUDIENCE: Final = "paythread-api"
ISSUER: Final = "paythread"
TOKEN_LIMIT: Final = 2048  # characters of a bearer token; longer ones are invalid
NO_CLIENT: Final = Client()
LISTED: Final = 100  # sessions, the last used ones
REFRESH_REFUSED: Final = "This refresh token is used, revoked or expired; sign in again."


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    access_token: str
    access_expires_at: datetime
    refresh_token: str
    refresh_expires_at: datetime
    user_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A sign-in; its id is the family's."""

    id: UUID
    created_at: datetime
    last_used_at: datetime
    device: str | None
    network: str | None
    current: bool


def _token_keys(secret_keys: tuple[str, ...]) -> list[bytes]:
    return [hashlib.sha256(b"paythread access token\x00" + key.encode()).digest() for key in secret_keys]


_keys = Derived(lambda c: c.secret_keys, _token_keys)


async def refresh(refresh_token: str, client: Client = NO_CLIENT) -> Tokens:
    """Exchange a refresh token; a second use revokes its family. Raises: SignInFailed."""
    now = datetime.now(UTC)
    if len(refresh_token) > TOKEN_LIMIT:
        raise SignInFailed(REFRESH_REFUSED)
    row = await RefreshToken.get_or_none(token_hash=digest(refresh_token))
    if row is None or row.expires_at <= now:
        raise SignInFailed(REFRESH_REFUSED)
    async with database.transaction():
        # Lock the user before the token, as `revoke_all` does: a token issued meanwhile is either revoked there or refused here.
        active = User.filter(id=row.user_id, account_id=row.account_id, disabled_at=None)
        user = await active.select_for_update(no_key=True).first()
        # Compare and set: of two concurrent uses only one counts.
        first = await RefreshToken.filter(id=row.id, used_at=None, revoked_at=None).update(used_at=now)
        if first and user is not None:
            return await issue(user, row.family_id, client, signed_in_at=row.signed_in_at or row.created_at)
        await RefreshToken.filter(family_id=row.family_id, revoked_at=None).update(revoked_at=now)
    credential_cache.forget()
    log.warning("refresh_token_reused", family_id=str(row.family_id))
    raise SignInFailed(REFRESH_REFUSED)


async def sign_out(actor: Actor, refresh_token: str | None, everywhere: bool) -> None:
    """Revoke this session, or all of the user's."""
    if actor.user_id is None:
        return
    now = datetime.now(UTC)
    async with database.transaction():
        if everywhere:
            await revoke_all(actor.user_id)
        else:
            families = {UUID(actor.credential)}
            if refresh_token is not None:
                row = await RefreshToken.get_or_none(token_hash=digest(refresh_token), user_id=actor.user_id)
                families |= {row.family_id} if row is not None else set()
            await RefreshToken.filter(family_id__in=list(families), user_id=actor.user_id, revoked_at=None).update(
                revoked_at=now
            )
    credential_cache.forget()


async def listed(actor: Actor) -> list[Session]:
    """The viewer's sessions, last used first."""
    if actor.user_id is None:
        return []
    # Each live family has one token that is neither used nor revoked: its newest.
    live = RefreshToken.filter(user_id=actor.user_id, used_at=None, revoked_at=None, expires_at__gt=datetime.now(UTC))
    return [_session(actor, row) for row in await live.order_by("-created_at", "-id").limit(LISTED)]


async def find(actor: Actor, id: UUID) -> Session | None:
    """A session of the viewer."""
    if actor.user_id is None:
        return None
    row = await RefreshToken.filter(
        user_id=actor.user_id, family_id=id, used_at=None, revoked_at=None, expires_at__gt=datetime.now(UTC)
    ).first()
    return _session(actor, row) if row is not None else None


def _session(actor: Actor, row: RefreshToken) -> Session:
    return Session(
        id=row.family_id,
        created_at=row.signed_in_at or row.created_at,
        last_used_at=row.created_at,
        device=row.device,
        network=row.network,
        current=str(row.family_id) == actor.credential,
    )


async def revoke(actor: Actor, id: UUID) -> None:
    """End a session of the viewer; idempotent. Raises: Forbidden, NotFound."""
    if actor.user_id is None:
        raise Forbidden("Only a person has sign-ins.")
    if not await RefreshToken.exists(user_id=actor.user_id, family_id=id):
        raise NotFound(field="id")
    async with database.transaction():
        # As in `revoke_all`: a refresh that runs now waits, then finds its token revoked.
        await User.filter(id=actor.user_id).select_for_update(no_key=True).get()
        open_ones = RefreshToken.filter(user_id=actor.user_id, family_id=id, revoked_at=None)
        if await open_ones.update(revoked_at=datetime.now(UTC)):
            await audit_log.record(actor, "session.revoked", public_id("ses", id))
    credential_cache.forget()


async def revoke_all(user_id: UUID) -> None:
    """Call inside a transaction. Sockets end within seconds."""
    await database.execute("UPDATE user_account SET token_version = token_version + 1 WHERE id = ?", user_id)
    await RefreshToken.filter(user_id=user_id, revoked_at=None).update(revoked_at=datetime.now(UTC))


async def revoke_others(user_id: UUID, family_id: UUID) -> None:
    """End all sessions but one. Call inside a transaction that holds the user's row."""
    others = RefreshToken.filter(user_id=user_id, revoked_at=None).exclude(family_id=family_id)
    await others.update(revoked_at=datetime.now(UTC))


async def issue(
    user: User, family_id: UUID, client: Client = NO_CLIENT, *, signed_in_at: datetime | None = None
) -> Tokens:
    import jwt  # loads 2 MB: with the first sign-in

    now = datetime.now(UTC)
    access_expires_at = (now + current().access_token_life).replace(microsecond=0)
    refresh_token = secrets.token_urlsafe(32)
    row = await RefreshToken.create(
        account_id=user.account_id,
        user_id=user.id,
        family_id=family_id,
        token_hash=digest(refresh_token),
        expires_at=now + current().refresh_token_life,
        signed_in_at=signed_in_at or now,
        device=client.device,
        network=client.network,
    )
    claims = {
        "sub": str(user.id),
        "acc": str(user.account_id),
        "fam": str(family_id),
        "ver": user.token_version,
        "iss": ISSUER,
        "aud": AUDIENCE,
        "iat": now,
        "exp": access_expires_at,
    }
    return Tokens(
        access_token=jwt.encode(claims, _keys.get()[0], algorithm=ALGORITHM),
        access_expires_at=access_expires_at,
        refresh_token=refresh_token,
        refresh_expires_at=row.expires_at,
        user_id=user.id,
    )


# Looked up, not read from the token, so that a revocation works within seconds.
@dataclass(frozen=True, slots=True)
class _UserState:
    account_id: UUID
    name: str
    role: str
    token_version: int
    valid: bool


async def actor_of(token: str) -> Actor | None:
    claims = claims_of(token)
    if claims is None:
        return None
    try:
        user_id, account_id, family_id = UUID(claims["sub"]), UUID(claims["acc"]), UUID(claims["fam"])
    except (ValueError, TypeError, AttributeError):
        return None
    state = await _user_state(user_id, str(family_id))
    if state is None or not state.valid or state.account_id != account_id or state.token_version != claims["ver"]:
        return None
    return Actor(
        account_id=account_id,
        role=state.role,
        user_id=user_id,
        name=state.name,
        kind="user",
        credential=str(family_id),
        expires_at=datetime.fromtimestamp(claims["exp"], UTC),
        token_version=state.token_version,
    )


async def valid_among(actors: Sequence[Actor]) -> set[Actor]:
    if not actors:
        return set()
    of_users, users = database.among("id", list({actor.user_id for actor in actors}))
    of_families, families = database.among("family_id", list({UUID(actor.credential) for actor in actors}))
    found = await database.records(
        "SELECT id, account_id, role, token_version FROM user_account"  # noqa: S608 (only constants are put in)
        f" WHERE disabled_at IS NULL AND {of_users}",
        users,
    )
    revoked = await database.records(
        f"SELECT DISTINCT family_id FROM refresh_token WHERE revoked_at IS NOT NULL AND {of_families}",  # noqa: S608 (only constants are put in)
        families,
    )
    now = {database.to_uuid(id): (database.to_uuid(account_id), role, int(ver)) for id, account_id, role, ver in found}
    ended = {str(database.to_uuid(family_id)) for (family_id,) in revoked}
    return {
        actor
        for actor in actors
        if actor.credential not in ended
        and actor.user_id is not None
        and now.get(actor.user_id) == (actor.account_id, actor.role, actor.token_version)
    }


def claims_of(token: str) -> dict[str, Any] | None:
    import jwt  # as in `issue`

    for key in _keys.get():
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                options={"require": ["sub", "acc", "fam", "ver", "iat", "exp"]},
            )
        except jwt.InvalidSignatureError:
            continue  # perhaps signed with an older key
        except jwt.InvalidTokenError:
            return None
        return claims
    return None


async def _user_state(user_id: UUID, family_id: str) -> _UserState | None:
    known: _UserState | None = credential_cache.get(("user", str(user_id), family_id))
    if known is not None:
        return known
    found = await database.rows(
        "SELECT account_id, name, role, token_version, disabled_at, EXISTS (SELECT 1 FROM refresh_token t"
        " WHERE t.family_id = ? AND t.revoked_at IS NOT NULL) AS revoked FROM user_account WHERE id = ?",
        UUID(family_id),
        user_id,
    )
    if not found:
        return None
    row = found[0]
    state = _UserState(
        account_id=database.to_uuid(row["account_id"]),
        name=row["name"],
        role=row["role"],
        token_version=int(row["token_version"]),
        valid=row["disabled_at"] is None and not row["revoked"],
    )
    credential_cache.put(("user", str(user_id), family_id), state)
    return state
