"""Caches users and keys for CACHE_S."""

from __future__ import annotations

import time
from typing import Any, Final

# With the sockets' check every 3 s, nothing outlives a revocation or role change by more than 5 s.
CACHE_S: Final = 2.0
CACHE_SIZE: Final = 10_000

_clock = time.monotonic
_cache: dict[tuple[str, ...], tuple[float, Any]] = {}


def forget() -> None:
    """Other processes follow within CACHE_S."""
    _cache.clear()


def get(key: tuple[str, ...]) -> Any:
    found = _cache.get(key)
    return found[1] if found is not None and found[0] > _clock() else None


def put(key: tuple[str, ...], value: Any) -> None:
    if len(_cache) >= CACHE_SIZE:
        _cache.clear()
    _cache[key] = (_clock() + CACHE_S, value)
