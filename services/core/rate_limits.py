"""Rate limits by client network."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Final

import structlog
from limits import RateLimitItem
from limits.aio.storage import MovingWindowSupport, RedisStorage, Storage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import StorageError

log = structlog.get_logger(__name__)

REDIS_TIMEOUT_S: Final = 1.0
REDIS_RETRY_AFTER_S: Final = 5.0
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_clock = time.monotonic


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """The IPv4 address, or an IPv6 address's /64 network."""
    try:
        parsed = ipaddress.ip_address(_without_port(address).partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    inside = parsed.ipv4_mapped or parsed.sixtofour
    if inside is None and parsed in _NAT64:
        inside = ipaddress.IPv4Address(int(parsed) & 0xFFFF_FFFF)
    return str(inside or ipaddress.ip_network((parsed, 64), strict=False))


def site_of(network: str) -> str | None:
    """The /48 around an IPv6 `network_of`."""
    try:
        parsed = ipaddress.IPv6Network(network)
    except ValueError:
        return None
    return str(parsed.supernet(new_prefix=48)) if parsed.prefixlen == 64 else None


def _without_port(address: str) -> str:
    # Some proxies add the client's port: 203.0.113.7:4711, [2001:db8::1]:4711.
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address


class TokenBucket:
    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = float(burst)
        self._at = now

    def take(self, now: float) -> bool:
        if not self.allows(now):
            return False
        self._left -= 1
        return True

    def allows(self, now: float) -> bool:
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        return self._left >= 1


class RateLimiter:
    """Keeps the most recently used `keys`."""

    def __init__(
        self, rate: float, burst: int, *, keys: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._keys = keys
        self._clock = clock
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def take(self, key: str) -> bool:
        now = self._clock()
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = TokenBucket(self._rate, self._burst, now)
            if len(self._buckets) > self._keys:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        return bucket.take(now)

    def allows(self, key: str) -> bool:
        bucket = self._buckets.get(key)
        return bucket is None or bucket.allows(self._clock())


class _Windows(Storage, MovingWindowSupport):
    # The library's memory storage is slow with many keys and follows the wall clock.
    STORAGE_SCHEME = ["async+paythread"]
    KEYS: Final = 100_000

    def __init__(self) -> None:
        super().__init__()
        self._hits: OrderedDict[str, deque[float]] = OrderedDict()

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        hits = self._recent(key, expiry)
        if len(hits) + amount > limit:
            return False
        hits.extend([_clock()] * amount)
        self._hits[key] = hits
        self._hits.move_to_end(key)
        if len(self._hits) > self.KEYS:
            self._hits.popitem(last=False)
        return True

    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        hits = self._recent(key, expiry)
        return hits[0] if hits else _clock(), len(hits)

    def _recent(self, key: str, expiry: int) -> deque[float]:
        hits = self._hits.get(key) or deque()
        while hits and hits[0] <= _clock() - expiry:
            hits.popleft()
        return hits

    @property
    def base_exceptions(self) -> type[Exception]:
        return ValueError

    async def check(self) -> bool:
        return True

    async def clear(self, key: str) -> None:
        self._hits.pop(key, None)

    async def reset(self) -> int | None:
        self._hits.clear()
        return None

    # Of the other strategies; the moving window does not call them.
    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        raise NotImplementedError

    async def get(self, key: str) -> int:
        raise NotImplementedError

    async def get_expiry(self, key: str) -> float:
        raise NotImplementedError


Limit = tuple[RateLimitItem, tuple[str, ...]]  # with the key that it counts


class MovingWindows:
    """Counted in Redis, or per process while Redis fails or is not configured."""

    def __init__(self, url: str) -> None:
        self._own = MovingWindowRateLimiter(_Windows())
        self._storage: RedisStorage | None = None
        self._shared: MovingWindowRateLimiter | None = None
        self._retry_at = 0.0
        if url:
            self._storage = RedisStorage(
                f"async+{url}",
                wrap_exceptions=True,
                implementation="redispy",
                key_prefix="paythread:limits",
                socket_timeout=REDIS_TIMEOUT_S,
                socket_connect_timeout=REDIS_TIMEOUT_S,
            )
            self._shared = MovingWindowRateLimiter(self._storage)

    async def hit(self, limit: RateLimitItem, *key: str) -> bool:
        """False over the limit."""
        return await self._ask("hit", limit, key)

    async def test(self, limit: RateLimitItem, *key: str) -> bool:
        """Whether `hit` would succeed."""
        return await self._ask("test", limit, key)

    async def retry_after_s(self, used: Iterable[Limit]) -> int:
        """Whole seconds until each of these limits admits a hit; at least 1."""
        longest = 0.0
        for limit, key in used:
            reset, left = await self._stats(limit, key)
            if left < 1:
                longest = max(longest, min(reset, limit.get_expiry()))
        return max(1, math.ceil(longest))

    async def _stats(self, limit: RateLimitItem, key: tuple[str, ...]) -> tuple[float, int]:
        if self._shared is not None and time.monotonic() >= self._retry_at:
            try:
                stats = await self._shared.get_window_stats(limit, *key)
            except StorageError as error:
                self._fall_back(error)
            else:
                return stats.reset_time - time.time(), stats.remaining
        stats = await self._own.get_window_stats(limit, *key)
        return stats.reset_time - _clock(), stats.remaining

    def _fall_back(self, error: StorageError) -> None:
        self._retry_at = time.monotonic() + REDIS_RETRY_AFTER_S
        log.warning("limits are counted by this process alone", error=type(error.storage_error).__name__)

    async def _ask(self, method: str, limit: RateLimitItem, key: tuple[str, ...]) -> bool:
        if self._shared is not None and time.monotonic() >= self._retry_at:
            try:
                return bool(await getattr(self._shared, method)(limit, *key))
            except StorageError as error:
                self._fall_back(error)
        return bool(await getattr(self._own, method)(limit, *key))

    async def reachable(self) -> bool:
        """Whether Redis answers, if it is configured."""
        if self._storage is None:
            return True
        from redis.exceptions import RedisError  # 0.2 s at start where no Redis is configured

        bridge: Any = self._storage.bridge
        try:
            await bridge.get_connection().ping()
        except (RedisError, OSError):
            return False
        return True

    async def aclose(self) -> None:
        if self._storage is not None:
            bridge: Any = self._storage.bridge
            await bridge.get_connection().aclose()
