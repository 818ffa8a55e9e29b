"""How often somebody may do something, counted in this process; and which addresses count as one client."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

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
