"""How often somebody may do something; and which addresses count as one client."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import structlog
from limits import RateLimitItem
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import StorageError

log = structlog.get_logger(__name__)

ANSWER_S: Final = 1.0  # that Redis may take
AWAY_S: Final = 5.0  # that it is not asked again after it did not answer
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


def network_of(address: str) -> str:
    """The key of a client address: an IPv4 address, or the /64 network that one IPv6 customer has.

    An IPv4 address inside an IPv6 one counts as itself; a port is left out. Anything else is returned as it is.
    """
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
    """The /48 around a key of `network_of`, which one IPv6 customer can have at most; None where it is no IPv6 network."""
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
    """`rate` a second on average, `burst` at once."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = float(burst)
        self._at = now

    def take(self, now: float) -> bool:
        """Whether one more is within the limit at this time (seconds of a clock that only goes forward)."""
        if not self.allows(now):
            return False
        self._left -= 1
        return True

    def allows(self, now: float) -> bool:
        """What `take` would answer; counts nothing."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        return self._left >= 1


class RateLimiter:
    """One `TokenBucket` for each key, at most `keys` of them: the longest unused are forgotten."""

    def __init__(
        self, rate: float, burst: int, *, keys: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._keys = keys
        self._clock = clock
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def take(self, key: str) -> bool:
        """Whether one more of this key is within the limit now."""
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
        """What `take` would answer; counts nothing."""
        bucket = self._buckets.get(key)
        return bucket is None or bucket.allows(self._clock())


class Counts:
    """Moving windows, counted in Redis for all processes (`redis://…`), else in this process.

    While Redis does not answer, this process counts for itself: nobody is kept out, and nobody gets more than one process's share.
    """

    def __init__(self, url: str) -> None:
        self._own = MovingWindowRateLimiter(MemoryStorage())
        self._storage: RedisStorage | None = None
        self._shared: MovingWindowRateLimiter | None = None
        self._away_until = 0.0
        if url:
            self._storage = RedisStorage(
                f"async+{url}",
                wrap_exceptions=True,
                implementation="redispy",
                key_prefix="paythread:limits",
                socket_timeout=ANSWER_S,
                socket_connect_timeout=ANSWER_S,
            )
            self._shared = MovingWindowRateLimiter(self._storage)

    async def hit(self, limit: RateLimitItem, *key: str) -> bool:
        """Count one; whether it is within the limit."""
        return await self._ask("hit", limit, key)

    async def test(self, limit: RateLimitItem, *key: str) -> bool:
        """Whether one more would be within the limit; counts nothing."""
        return await self._ask("test", limit, key)

    async def _ask(self, what: str, limit: RateLimitItem, key: tuple[str, ...]) -> bool:
        if self._shared is not None and time.monotonic() >= self._away_until:
            try:
                return bool(await getattr(self._shared, what)(limit, *key))
            except StorageError as error:
                self._away_until = time.monotonic() + AWAY_S
                log.warning("limits are counted by this process alone", error=type(error.storage_error).__name__)
        return bool(await getattr(self._own, what)(limit, *key))

    async def aclose(self) -> None:
        """Close the connections. Twice is harmless."""
        if self._storage is not None:
            bridge: Any = self._storage.bridge
            await bridge.get_connection().aclose()
