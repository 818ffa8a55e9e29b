"""Signing in, staying signed in, signing out, API keys: who a credential speaks for. What they may do stands in actors.py.

Access tokens are short JWTs; what they say about role and validity is looked up (cached at most CACHE_S), so that a revocation
works within seconds. Attempts are limited by name and network, so that strangers do not lock anybody out.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import jwt
import limits
import structlog
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from models import database
from models.errors import Invalid, NotFound, RateLimited, Refusals, SignInFailed
from models.ids import public_id, uuid7
from models.tables import ApiKey, RefreshToken, User
from models.vault import digest
from services.core import audit_log, idempotency, validation
from services.core.configuration import Derived, LoginLimits, current
from services.core.permissions import ROLES, Actor
from services.core.rate_limits import Counts, network_of, site_of
from services.core.unit_of_work import change

log = structlog.get_logger(__name__)

ALGORITHM: Final = "HS256"
AUDIENCE: Final = "paythread-api"
ISSUER: Final = "paythread"
CACHE_S: Final = 2.0  # with the sockets' check every 3 s: nothing outlives a revocation or role change by more than 5 s
CACHE_SIZE: Final = 10_000
KEY_PREFIX: Final = "ptk_"
TOKEN_LIMIT: Final = 2048  # characters of a bearer that is looked at
PASSWORD_LIMIT: Final = 256
KEY_NAME_LIMIT: Final = 120
REFRESH_REFUSED: Final = "This refresh token is used, revoked or expired; sign in again."
USED_EVERY: Final = timedelta(minutes=1)
KEY_LIFE: Final = timedelta(days=365)  # of an API key, unless its maker says otherwise
KEY_LIFE_LIMIT: Final = timedelta(days=730)
# An attempt on a name that is tried from many networks, unless it has signed in from this one before.
DELAY_S: Final = 5.0
# Of one name at a time; more are refused. The strangers' thread hashes about as many in DELAY_S, so none waits for 10 s.
WAITING: Final = 25
SITE_TIMES: Final = 4  # an IPv6 /48 may try this many times what one network may
KNOWN_FOR: Final = limits.parse("1/30 days")

# What an unknown name is checked against, so that it costs the same hash. It fits no password.
_NOBODY: Final = "$argon2id$v=19$m=65536,t=3,p=4$bm9ib2R5LW5vYm9keS0wMQ$bm9ib2R5bm9ib2R5bm9ib2R5bm9ib2R5bm9ib2R5bm8"
_hasher = PasswordHasher()
# At most two hashes at once: each takes 64 MiB and a core for 150 ms. Strangers never wait before known networks.
_threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="argon2")
_strangers = ThreadPoolExecutor(max_workers=1, thread_name_prefix="argon2-strangers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What a client keeps. The refresh token works once."""

    access_token: str
    access_expires_at: datetime
    refresh_token: str
    refresh_expires_at: datetime
    user_id: UUID


def _times(limit: limits.RateLimitItem, factor: int) -> limits.RateLimitItem:
    return type(limit)(limit.amount * factor, limit.multiples, limit.namespace)


class _Limits:
    def __init__(self, settings: LoginLimits) -> None:
        self.per_name = limits.parse(settings.per_name)
        self.per_address = limits.parse(settings.per_address)
        self.per_name_site = _times(self.per_name, SITE_TIMES)
        self.per_address_site = _times(self.per_address, SITE_TIMES)
        self.per_name_everywhere = limits.parse(settings.per_name_everywhere)
        self.counts = Counts(settings.redis)
        self.waiting: Counter[str] = Counter()


def _token_keys(secret_keys: tuple[str, ...]) -> list[bytes]:
    return [hashlib.sha256(b"paythread access token\x00" + key.encode()).digest() for key in secret_keys]


_limits = Derived(lambda c: c.login_limits, _Limits)
_keys = Derived(lambda c: c.secret_keys, _token_keys)
_clock = time.monotonic
_sleep = asyncio.sleep
_cache: dict[tuple[str, ...], tuple[float, Any]] = {}


async def aclose() -> None:
    """Close the connection of the limits' counts. Call at stop."""
    if (made := _limits.existing()) is not None:
        await made.counts.aclose()


# ---------------------------------------------------------------------------------------------------------- passwords
async def hash_password(password: str) -> str:
    """Argon2id with the library's parameters, in a thread."""
    return await asyncio.get_running_loop().run_in_executor(_threads, _hasher.hash, password)


def _fits(hashed: str, password: str) -> bool:
    try:
        return _hasher.verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False


# ------------------------------------------------------------------------------------------------------------ sign in
async def sign_in(email: str, password: str, *, client_address: str | None) -> Tokens:
    """Tokens of a new family. Raises: SignInFailed (the same for an unknown name), RateLimited."""
    name = email.strip().lower()
    network = network_of(client_address or "")
    threads = _threads if await _admit(digest(name), network) else _strangers
    user = await User.get_or_none(email=name) if "\x00" not in name and len(name) <= validation.EMAIL_LIMIT else None
    hashed = user.password_hash if user is not None and user.disabled_at is None else _NOBODY
    fits = await asyncio.get_running_loop().run_in_executor(threads, _fits, hashed, password[:PASSWORD_LIMIT])
    if user is None or user.disabled_at is not None or not fits:
        raise SignInFailed
    await _limits.get().counts.hit(KNOWN_FOR, "known", digest(name), network)
    async with database.transaction():
        # The password may have been changed, or the user disabled, while the hash was worked out.
        same = User.filter(id=user.id, password_hash=user.password_hash, disabled_at=None)
        if (fresh := await same.select_for_update(no_key=True).first()) is None:
            raise SignInFailed
        return await _issue(fresh, uuid4())


async def _admit(name: str, network: str) -> bool:
    """Count an attempt before it costs a hash; delay it where the name is tried from many networks. Raises: RateLimited.

    Returns whether the name has signed in from this network before.
    From a network that the name has signed in from, only its own attempts there count: others can neither lock it out nor
    slow it down, whatever they try and from where.
    """
    attempts = _limits.get()
    known = not await attempts.counts.test(KNOWN_FOR, "known", name, network)
    allowed = await attempts.counts.hit(attempts.per_name, "name", name, network)
    if network and not known:
        allowed = await attempts.counts.hit(attempts.per_address, "address", network) and allowed
        if allowed and (site := site_of(network)) is not None:
            allowed = await attempts.counts.hit(attempts.per_name_site, "name", name, site)
            allowed = await attempts.counts.hit(attempts.per_address_site, "address", site) and allowed
    if not allowed:
        raise RateLimited
    if known or await attempts.counts.hit(attempts.per_name_everywhere, "everywhere", name):
        return known
    if attempts.waiting[name] >= WAITING:
        raise RateLimited
    attempts.waiting[name] += 1
    try:
        await _sleep(DELAY_S)
    finally:
        attempts.waiting[name] -= 1
        if not attempts.waiting[name]:
            del attempts.waiting[name]
    return False


async def refresh(refresh_token: str) -> Tokens:
    """New tokens for a refresh token, which is used up. A second use revokes its whole family. Raises: SignInFailed."""
    now = datetime.now(UTC)
    if len(refresh_token) > TOKEN_LIMIT:
        raise SignInFailed(REFRESH_REFUSED)
    row = await RefreshToken.get_or_none(token_hash=digest(refresh_token))
    if row is None or row.expires_at <= now:
        raise SignInFailed(REFRESH_REFUSED)
    async with database.transaction():
        # The user before the token, as in revoke_all: a token issued meanwhile is either seen there or refused here.
        active = User.filter(id=row.user_id, account_id=row.account_id, disabled_at=None)
        user = await active.select_for_update(no_key=True).first()
        # Compare and set: of two at once only one is the first.
        first = await RefreshToken.filter(id=row.id, used_at=None, revoked_at=None).update(used_at=now)
        if first and user is not None:
            return await _issue(user, row.family_id)
        await RefreshToken.filter(family_id=row.family_id, revoked_at=None).update(revoked_at=now)
    _cache.clear()
    log.warning("refresh_token_reused", family_id=str(row.family_id))
    raise SignInFailed(REFRESH_REFUSED)


async def sign_out(actor: Actor, refresh_token: str | None, everywhere: bool) -> None:
    """Revoke the family of this sign-in (and of the given refresh token), or every token of the user. Safe to repeat."""
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
    _cache.clear()


async def revoke_all(user_id: UUID) -> None:
    """Revoke every access and refresh token of a user, inside the caller's transaction; open sockets end within seconds."""
    await database.execute("UPDATE user_account SET token_version = token_version + 1 WHERE id = ?", user_id)
    await RefreshToken.filter(user_id=user_id, revoked_at=None).update(revoked_at=datetime.now(UTC))


def forget_cached() -> None:
    """Look the state of every user and key up again in this process; other processes follow within CACHE_S."""
    _cache.clear()


async def _issue(user: User, family_id: UUID) -> Tokens:
    now = datetime.now(UTC)
    access_expires_at = (now + current().access_token_life).replace(microsecond=0)
    refresh_token = secrets.token_urlsafe(32)
    row = await RefreshToken.create(
        account_id=user.account_id,
        user_id=user.id,
        family_id=family_id,
        token_hash=digest(refresh_token),
        expires_at=now + current().refresh_token_life,
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


# ------------------------------------------------------------------------------------------------------- authenticate
@dataclass(frozen=True, slots=True)
class _UserState:
    account_id: UUID
    name: str
    role: str
    token_version: int
    valid: bool


@dataclass(frozen=True, slots=True)
class _KeyState:
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


async def authenticate(bearer: str) -> Actor | None:
    """Who this access token or API key speaks for; None for anything that is not valid now."""
    if len(bearer) > TOKEN_LIMIT or not bearer.isascii():
        return None
    if bearer.startswith(KEY_PREFIX):
        return await _key_actor(bearer)
    claims = _claims(bearer)
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


def is_signed(bearer: str) -> bool:
    """Whether this is an access token that we have signed and that has not expired. Looks nothing up."""
    return (
        len(bearer) <= TOKEN_LIMIT
        and bearer.isascii()
        and not bearer.startswith(KEY_PREFIX)
        and _claims(bearer) is not None
    )


async def still_valid(actor: Actor) -> bool:
    """Whether an earlier `authenticate` would give the same actor now; at most CACHE_S late. For open sockets."""
    if actor.kind == "system":
        return True
    if actor.expires_at is not None and actor.expires_at <= datetime.now(UTC):
        return False
    if actor.kind == "api_key":
        key = await _key_state_by_id(UUID(actor.credential))
        return key is not None and key.valid and key.role == actor.role
    if actor.user_id is None:
        return False
    state = await _user_state(actor.user_id, actor.credential)
    return (
        state is not None
        and state.valid
        and state.role == actor.role
        and state.token_version == actor.token_version
        and state.account_id == actor.account_id
    )


def _claims(token: str) -> dict[str, Any] | None:
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


def _cached(key: tuple[str, ...]) -> Any:
    found = _cache.get(key)
    return found[1] if found is not None and found[0] > _clock() else None


def _remember(key: tuple[str, ...], value: Any) -> None:
    if len(_cache) >= CACHE_SIZE:
        _cache.clear()
    _cache[key] = (_clock() + CACHE_S, value)


async def _user_state(user_id: UUID, family_id: str) -> _UserState | None:
    known: _UserState | None = _cached(("user", str(user_id), family_id))
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
    _remember(("user", str(user_id), family_id), state)
    return state


async def _key_actor(token: str) -> Actor | None:
    hashed = digest(token)
    state: _KeyState | None = _cached(("key", hashed))
    if state is None:
        row = await ApiKey.get_or_none(token_hash=hashed)
        if row is None:
            return None
        state = _state_of(row)
        _remember(("key", hashed), state)
        now = datetime.now(UTC)
        if state.valid and (row.last_used_at is None or abs(now - row.last_used_at) > USED_EVERY):
            await ApiKey.filter(id=row.id).update(last_used_at=now)
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


async def _key_state_by_id(key_id: UUID) -> _KeyState | None:
    known: _KeyState | None = _cached(("key id", str(key_id)))
    if known is not None:
        return known
    row = await ApiKey.get_or_none(id=key_id)
    if row is None:
        return None
    state = _state_of(row)
    _remember(("key id", str(key_id)), state)
    return state


def _state_of(row: ApiKey) -> _KeyState:
    return _KeyState(
        row.id, row.account_id, row.name, row.role, row.revoked_at is None, row.expires_at, row.manages_keys
    )


# ----------------------------------------------------------------------------------------------------------- API keys
async def create_api_key(
    actor: Actor,
    *,
    name: str,
    role: str,
    expires_at: datetime | None = None,
    manages_keys: bool = False,
    token: str | None = None,
    save: idempotency.Save | None = None,
) -> tuple[ApiKey, str]:
    """A new key and its clear text, which is shown once and never stored; `token` is the demo's, which must be known beforehand.

    A key that makes a key gives it no more than it has: no longer life, and not the right to make others.
    Raises: Forbidden, Blank, TooLong, Invalid.
    """
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
    async with change(actor.account_id, actor_id=actor.user_id) as changed:
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


async def create_api_key_once(
    actor: Actor,
    *,
    name: str,
    role: str,
    expires_at: datetime | None = None,
    manages_keys: bool = False,
    idempotency_key: str | None,
) -> tuple[ApiKey, str | None]:
    """`create_api_key`, safe to repeat with the same idempotency key: the repeat gives the key without its clear text."""
    actor.require("keys")

    async def run(save: idempotency.Save) -> tuple[ApiKey, str | None]:
        return await create_api_key(
            actor, name=name, role=role, expires_at=expires_at, manages_keys=manages_keys, save=save
        )

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
        raise Invalid("A key ends after two years at most, and no later than the key that makes it.", field="expiresAt")
    return wanted


async def revoke_api_key(actor: Actor, key_id: UUID) -> ApiKey:
    """The key stops working, here at once and elsewhere within CACHE_S. Safe to repeat. Raises: Forbidden, NotFound."""
    actor.require("keys")
    async with change(actor.account_id, actor_id=actor.user_id) as changed:
        row = await ApiKey.get_or_none(id=key_id, account_id=actor.account_id)
        if row is None:
            raise NotFound(field="apiKeyId")
        if row.revoked_at is None:
            row.revoked_at = datetime.now(UTC)
            await ApiKey.filter(id=row.id).update(revoked_at=row.revoked_at)
            changed.event("api_key.updated")
            await audit_log.record(actor, "api_key.revoked", public_id("key", row.id))
    _cache.clear()
    return row
