"""Email sign-in, limited by name and network."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from uuid import uuid4

import limits
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from models import database
from models.errors import RateLimited, SignInFailed
from models.tables import User
from models.vault import digest
from services.accounts import sessions
from services.accounts.clients import Client
from services.accounts.sessions import Tokens
from services.core import validation
from services.core.configuration import Derived, LoginLimits
from services.core.rate_limits import Limit, MovingWindows, network_of, site_of

PASSWORD_LIMIT: Final = 256
# Delay of an attempt from an unknown network on a name that many networks try.
DELAY_S: Final = 5.0
# Delayed attempts per name; more are refused. The thread for unknown networks hashes about as many in DELAY_S: none waits 10 s.
WAITING: Final = 25
SITE_TIMES: Final = 4  # an IPv6 /48 may try this many times what one network may
KNOWN_FOR: Final = limits.parse("1/30 days")

# Checked for an unknown name, so that it takes as long as a known one. It matches no password.
_UNKNOWN_USER: Final = (
    "$argon2id$v=19$m=65536,t=3,p=4$bm9ib2R5LW5vYm9keS0wMQ$bm9ib2R5bm9ib2R5bm9ib2R5bm9ib2R5bm9ib2R5bm8"
)
_hasher = PasswordHasher()
# Two hashes at a time: each takes 64 MiB and a core for 150 ms. Unknown networks never delay known ones.
_threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="argon2")
_unknown_threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="argon2-unknown")


def _scaled(limit: limits.RateLimitItem, factor: int) -> limits.RateLimitItem:
    return type(limit)(limit.amount * factor, limit.multiples, limit.namespace)


class _Limits:
    def __init__(self, settings: LoginLimits) -> None:
        self.per_name = limits.parse(settings.per_name)
        self.per_address = limits.parse(settings.per_address)
        self.per_name_site = _scaled(self.per_name, SITE_TIMES)
        self.per_address_site = _scaled(self.per_address, SITE_TIMES)
        self.per_name_everywhere = limits.parse(settings.per_name_everywhere)
        self.counts = MovingWindows(settings.redis)
        self.waiting: Counter[str] = Counter()


_limits = Derived(lambda c: c.login_limits, _Limits)
_sleep = asyncio.sleep


async def limits_reachable() -> bool:
    """Whether Redis counts the attempts, if it is configured."""
    return await _limits.get().counts.reachable()


async def aclose() -> None:
    if (made := _limits.existing()) is not None:
        await made.counts.aclose()


async def hash_password(password: str) -> str:
    return await asyncio.get_running_loop().run_in_executor(_threads, _hasher.hash, password)


def _matches(hashed: str, password: str) -> bool:
    try:
        return _hasher.verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False


async def sign_in(email: str, password: str, *, client_address: str | None, user_agent: str | None = None) -> Tokens:
    """Start a token family. Raises: SignInFailed, RateLimited."""
    name = email.strip().lower()
    network = network_of(client_address or "")
    threads = _threads if await _admit(digest(name), network) else _unknown_threads
    user = await User.get_or_none(email=name) if "\x00" not in name and len(name) <= validation.EMAIL_LIMIT else None
    hashed = user.password_hash if user is not None and user.disabled_at is None else _UNKNOWN_USER
    matches = await asyncio.get_running_loop().run_in_executor(threads, _matches, hashed, password[:PASSWORD_LIMIT])
    if user is None or user.disabled_at is not None or not matches:
        raise SignInFailed
    await _limits.get().counts.hit(KNOWN_FOR, "known", digest(name), network)
    async with database.transaction():
        # The password may have changed, or the user been disabled, while the hash was computed.
        same = User.filter(id=user.id, password_hash=user.password_hash, disabled_at=None)
        if (fresh := await same.select_for_update(no_key=True).first()) is None:
            raise SignInFailed
        return await sessions.issue(fresh, uuid4(), Client.of(client_address, user_agent))


async def matches(user: User, password: str, *, client_address: str | None) -> bool:
    """Whether it is the user's password; counted like a sign-in. Raises: RateLimited."""
    known = await _admit(digest(user.email), network_of(client_address or ""))
    threads = _threads if known else _unknown_threads
    given = password[:PASSWORD_LIMIT]
    return await asyncio.get_running_loop().run_in_executor(threads, _matches, user.password_hash, given)


async def _hit(attempts: _Limits, used: Sequence[Limit]) -> bool:
    return all([await attempts.counts.hit(limit, *key) for limit, key in used])


async def _admit(name: str, network: str) -> bool:
    # From a known network only the name's own attempts count: strangers can't lock the user out.
    attempts = _limits.get()
    known = not await attempts.counts.test(KNOWN_FOR, "known", name, network)
    used: list[Limit] = [(attempts.per_name, ("name", name, network))]
    if network and not known:
        used.append((attempts.per_address, ("address", network)))
    allowed = await _hit(attempts, used)
    if allowed and network and not known and (site := site_of(network)) is not None:
        used = [(attempts.per_name_site, ("name", name, site)), (attempts.per_address_site, ("address", site))]
        allowed = await _hit(attempts, used)
    if not allowed:
        raise RateLimited(retry_after_s=await attempts.counts.retry_after_s(used))
    if known or await attempts.counts.hit(attempts.per_name_everywhere, "everywhere", name):
        return known
    if attempts.waiting[name] >= WAITING:
        raise RateLimited(retry_after_s=math.ceil(DELAY_S))
    attempts.waiting[name] += 1
    try:
        await _sleep(DELAY_S)
    finally:
        attempts.waiting[name] -= 1
        if not attempts.waiting[name]:
            del attempts.waiting[name]
    return False
