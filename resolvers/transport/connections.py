"""Open connections of one endpoint: counted per token, closed at expiry, revocation and shutdown."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import structlog

from resolvers.transport.executor import Viewer
from resolvers.transport.limits import Limits

log = structlog.get_logger(__name__)

FORBIDDEN: Final = 4403
STILL_VALID_S: Final = 3.0
CHECKED_CONCURRENTLY: Final = 20
# Clients reconnect when they are closed: the other processes sign them on at this pace.
ENDED_PER_S: Final = 200
ENDED_EVERY_S: Final = 0.05

StillValid = Callable[[Any], Awaitable[bool]]


class Connection(Protocol):
    def end(self, code: int, reason: str) -> None:
        """Close soon, without blocking. `code`: of WebSocket."""


@dataclass(slots=True)
class _Seat:
    key: str
    viewer: Viewer | None
    timer: asyncio.TimerHandle | None


class Connections:
    def __init__(
        self, limits: Limits, still_valid: StillValid | None = None, *, check_s: float = STILL_VALID_S
    ) -> None:
        self._limits = limits
        self._still_valid = still_valid
        self._check_s = check_s
        self._seats: dict[Connection, _Seat] = {}
        self._by_key: dict[str, set[Connection]] = {}
        self._watch: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._seats)

    def admit(self, connection: Connection, key: str, viewer: Viewer | None) -> bool:
        """False if the token or the process is at its limit."""
        same = self._by_key.get(key, set())
        if len(same) >= self._limits.sockets_per_token or len(self._seats) >= self._limits.sockets:
            return False
        timer = None
        expires_at = viewer.expires_at if viewer is not None else None
        if expires_at is not None:
            left_s = max(0.0, (expires_at - datetime.now(UTC)).total_seconds())
            timer = asyncio.get_running_loop().call_later(left_s, connection.end, FORBIDDEN, "Token expired")
        self._seats[connection] = _Seat(key, viewer, timer)
        self._by_key.setdefault(key, set()).add(connection)
        if self._still_valid is not None and viewer is not None and self._watch is None:
            self._watch = asyncio.create_task(self._check_regularly(), name="connections:still-valid")
        return True

    def leave(self, connection: Connection) -> None:
        """Idempotent."""
        seat = self._seats.pop(connection, None)
        if seat is None:
            return
        if seat.timer is not None:
            seat.timer.cancel()
        same = self._by_key[seat.key]
        same.discard(connection)
        if not same:
            del self._by_key[seat.key]
        if not self._seats and self._watch is not None:
            self._watch.cancel()
            self._watch = None

    async def end_all(self, code: int, reason: str, *, within_s: float = 0.0) -> None:
        """Close all evenly, ENDED_PER_S or faster if `within_s` would not suffice."""
        seated = tuple(self._seats)
        over_s = min(within_s, len(seated) / ENDED_PER_S)
        portion = math.ceil(len(seated) * ENDED_EVERY_S / over_s) if over_s else max(1, len(seated))
        for first in range(0, len(seated), portion):
            if first:
                await asyncio.sleep(ENDED_EVERY_S)
            for connection in seated[first : first + portion]:
                if connection in self._seats:
                    connection.end(code, reason)

    async def _check_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._check_s)
            keys = tuple(self._by_key)
            for first in range(0, len(keys), CHECKED_CONCURRENTLY):
                await asyncio.gather(*(self._check(key) for key in keys[first : first + CHECKED_CONCURRENTLY]))

    async def _check(self, key: str) -> None:
        # One token may have sockets of two viewers: its role changed between their sign-ons.
        viewers: list[Viewer] = []
        for connection in self._by_key.get(key, ()):
            seated = self._seats[connection].viewer
            if seated is not None and seated not in viewers:
                viewers.append(seated)
        for viewer in viewers:
            try:
                if self._still_valid is None or await self._still_valid(viewer):
                    continue
            except Exception as error:  # noqa: BLE001 top of the loop; a failed check closes nothing
                log.warning("checking a credential failed", error=type(error).__name__)
                continue
            for connection in tuple(self._by_key.get(key, ())):
                if self._seats[connection].viewer == viewer:
                    connection.end(FORBIDDEN, "Access was revoked")
