"""The subscribers of one shared stream: their queues, and the frames that are written to them."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

import orjson

from resolvers.transport.server import SocketProtocol

QUEUED_EVENTS: Final = 256
QUEUED_BYTES: Final = 1_048_576
# Written together. More would fill a client's buffer in one step.
BURST_EVENTS: Final = 64
BURST_BYTES: Final = 65_536


@lru_cache(4_096)
def frame_head(length: int) -> bytes:
    """The head of an unmasked, final WebSocket text frame. Source: RFC 6455, 5.2."""
    if length < 126:
        return bytes((0x81, length))
    if length < 65_536:
        return b"\x81\x7e" + length.to_bytes(2, "big")
    return b"\x81\x7f" + length.to_bytes(8, "big")


def next_head(payload: bytes) -> bytes:
    return b'{"type":"next","payload":' + payload


def next_tail(operation_id: str) -> bytes:
    return b',"id":' + orjson.dumps(operation_id) + b"}"


class Burst:
    """Events that each client gets in one write: (number, head of the message)."""

    __slots__ = ("_framed", "events", "first", "last")

    def __init__(self, events: Sequence[tuple[int, bytes]]) -> None:
        self.events = events
        self.first = events[0][0]
        self.last = events[-1][0]
        self._framed: dict[int, list[bytes]] = {}

    def bytes_for(self, tail: bytes) -> bytes:
        length = len(tail)
        framed = self._framed.get(length)
        if framed is None:
            framed = self._framed[length] = [frame_head(len(head) + length) + head for _, head in self.events]
        return tail.join(framed) + tail


class Sink:
    """One operation's bounded queue on a shared stream; bypassed while its transport is writable."""

    __slots__ = (
        "_bytes",
        "_live",
        "_protocol",
        "_sending",
        "_tail",
        "_wake",
        "attached_at",
        "ended",
        "last",
        "overflowed",
        "queue",
    )

    def __init__(self, operation_id: str, protocol: SocketProtocol | None, attached_at: int) -> None:
        self.attached_at = attached_at
        self.last = attached_at
        self.ended = False
        self.overflowed = False
        self.queue: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._tail = next_tail(operation_id)
        self._protocol = protocol
        self._live = False
        self._sending = False
        self._wake = asyncio.Event()

    def offer(self, burst: Burst) -> None:
        """Write the events or queue them. A full queue ends the sink."""
        protocol = self._protocol
        if self._live and not self.queue and not self._sending and not self.ended and protocol is not None:
            if protocol.close_sent or protocol.transport.is_closing():
                # The socket's task notices that itself.
                return
            if protocol.writable.is_set() and burst.first > self.last:
                self.last = burst.last
                protocol.transport.write(burst.bytes_for(self._tail))
                return
        for seq, head in burst.events:
            if seq > self.last:
                self._queue(seq, head)

    def _queue(self, seq: int, head: bytes) -> None:
        if self.ended:
            return
        if len(self.queue) >= QUEUED_EVENTS or self._bytes + len(head) > QUEUED_BYTES:
            self.overflowed = True
            self.end()
            return
        self.queue.append((seq, head))
        self._bytes += len(head)
        self._wake.set()

    def end(self) -> None:
        """Accept no more events; deliver those queued."""
        self.ended = True
        self._wake.set()

    def message(self, head: bytes) -> str:
        return (head + self._tail).decode()

    async def deliver(self, last: int, send: Callable[[str], Any]) -> None:
        """Send events after `last` until the sink ends."""
        self.last = last
        self._live = True
        while True:
            while self.queue:
                seq, head = self.queue.popleft()
                self._bytes -= len(head)
                if seq <= self.last:
                    continue
                self.last = seq
                self._sending = True
                try:
                    await send(self.message(head))
                finally:
                    self._sending = False
            if self.ended:
                return
            self._wake.clear()
            await self._wake.wait()


class Outbox:
    """Hands one stream's events to all its sinks: those of one turn of the loop together, in order."""

    def __init__(self) -> None:
        self.sinks: set[Sink] = set()
        self._events: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._over = False

    async def put(self, seq: int, head: bytes) -> None:
        """Wait while it is full."""
        while self._events and (len(self._events) >= QUEUED_EVENTS or self._bytes > QUEUED_BYTES):
            self._emptied.clear()
            await self._emptied.wait()
        self._events.append((seq, head))
        self._bytes += len(head)
        self._filled.set()

    def finish(self) -> None:
        """`run` ends when all events are handed out."""
        self._over = True
        self._filled.set()

    async def run(self, sinks_per_turn: int) -> None:
        while True:
            while self._events:
                burst = self._take()
                for number, sink in enumerate(tuple(self.sinks), start=1):
                    sink.offer(burst)
                    if number % sinks_per_turn == 0:
                        await asyncio.sleep(0)
            if self._over:
                return
            self._filled.clear()
            await self._filled.wait()

    def _take(self) -> Burst:
        taken: list[tuple[int, bytes]] = []
        size = 0
        while (
            self._events and len(taken) < BURST_EVENTS and (not taken or size + len(self._events[0][1]) <= BURST_BYTES)
        ):
            taken.append(self._events.popleft())
            size += len(taken[-1][1])
        self._bytes -= size
        self._emptied.set()
        return Burst(taken)
