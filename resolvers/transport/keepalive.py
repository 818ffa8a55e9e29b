"""Pings to all WebSockets of one server from one timer."""

import asyncio
from typing import Final, Protocol

# A socket is pinged once per interval; the sockets are spread over this many turns.
TURNS: Final = 20
PING: Final = b"\x89\x00"  # a final frame without payload. Source: RFC 6455, 5.5.2


class Peer(Protocol):
    def ping(self) -> None: ...


class Keepalive:
    def __init__(self, interval_s: float) -> None:
        self._turn_s = interval_s / TURNS
        self._turns: list[dict[Peer, None]] = [{} for _ in range(TURNS)]
        self._turn_of: dict[Peer, int] = {}
        self._joined = 0
        self._now = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, peer: Peer) -> None:
        self._joined += 1
        turn = self._turn_of[peer] = self._joined % TURNS
        self._turns[turn][peer] = None
        if self._timer is None:
            self._wait()

    def remove(self, peer: Peer) -> None:
        """Idempotent."""
        turn = self._turn_of.pop(peer, None)
        if turn is not None:
            del self._turns[turn][peer]
        if not self._turn_of and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._turn_s, self._ping)

    def _ping(self) -> None:
        self._wait()
        self._now = (self._now + 1) % TURNS
        for peer in tuple(self._turns[self._now]):
            peer.ping()
