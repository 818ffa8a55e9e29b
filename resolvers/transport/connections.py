"""Open connections of one endpoint: counted per token, closed at expiry, revocation and shutdown."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import structlog

from resolvers.transport.executor import Viewer
from resolvers.transport.limits import Limits

log = structlog.get_logger(__name__)

FORBIDDEN: Final = 4403
STILL_VALID_S: Final = 3.0
CHECKED_TOGETHER: Final = 500
# Clients reconnect when they are closed: the other processes sign them on at this pace.
ENDED_PER_S: Final = 200
ENDED_EVERY_S: Final = 0.05

StillValid = Callable[[Sequence[Any]], Awaitable[Sequence[bool]]]  # of viewers


class Connection(Protocol):
    def end(self, code: int, reason: str) -> None:
        """Close soon, without blocking. `code`: of WebSocket."""


@dataclass(slots=True)
class _Holder:
    """One viewer with one token. A token may have two: its role changed between their sign-ons."""

    key: str
    viewer: Viewer | None
    connections: set[Connection] = field(default_factory=set)


@dataclass(slots=True)
class _Seat:
    holder: _Holder
    timer: asyncio.TimerHandle | None


class Connections:
    def __init__(
        self, limits: Limits, still_valid: StillValid | None = None, *, check_s: float = STILL_VALID_S
    ) -> None:
        self._limits = limits
        self._still_valid = still_valid
        self._check_s = check_s
        self._seats: dict[Connection, _Seat] = {}
        self._by_key: dict[str, list[_Holder]] = {}
        self._watch: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._seats)

    def admit(self, connection: Connection, key: str, viewer: Viewer | None) -> bool:
        """False if the token or the process is at its limit."""
        holders = self._by_key.get(key, [])
        of_token = sum(len(holder.connections) for holder in holders)
        if of_token >= self._limits.sockets_per_token or len(self._seats) >= self._limits.sockets:
            return False
        timer = None
        expires_at = viewer.expires_at if viewer is not None else None
        if expires_at is not None:
            left_s = max(0.0, (expires_at - datetime.now(UTC)).total_seconds())
            timer = asyncio.get_running_loop().call_later(left_s, connection.end, FORBIDDEN, "Token expired")
        holder = next((holder for holder in holders if holder.viewer == viewer), None)
        if holder is None:
            holder = _Holder(key, viewer)
            self._by_key.setdefault(key, []).append(holder)
        holder.connections.add(connection)
        self._seats[connection] = _Seat(holder, timer)
        if self._still_valid is not None and viewer is not None and self._watch is None:
            self._watch = asyncio.create_task(self._check_regularly(self._still_valid), name="connections:still-valid")
        return True

    def leave(self, connection: Connection) -> None:
        """Idempotent."""
        seat = self._seats.pop(connection, None)
        if seat is None:
            return
        if seat.timer is not None:
            seat.timer.cancel()
        holder = seat.holder
        holder.connections.discard(connection)
        if not holder.connections:
            holders = [other for other in self._by_key[holder.key] if other is not holder]
            if holders:
                self._by_key[holder.key] = holders
            else:
                del self._by_key[holder.key]
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

    async def _check_regularly(self, still_valid: StillValid) -> None:
        while True:
            await asyncio.sleep(self._check_s)
            holders = [holder for same in self._by_key.values() for holder in same if holder.viewer is not None]
            for first in range(0, len(holders), CHECKED_TOGETHER):
                await self._check(holders[first : first + CHECKED_TOGETHER], still_valid)

    @staticmethod
    async def _check(holders: list[_Holder], still_valid: StillValid) -> None:
        try:
            answers = await still_valid([holder.viewer for holder in holders])
        except Exception as error:  # noqa: BLE001 top of the loop; a failed check closes nothing
            log.warning("checking credentials failed", error=type(error).__name__)
            return
        for holder, valid in zip(holders, answers, strict=True):
            for connection in () if valid else tuple(holder.connections):
                connection.end(FORBIDDEN, "Access was revoked")
