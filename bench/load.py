"""The load: HTTP requests over a few connections, and many WebSockets read by one epoll. Loopback only."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import uvloop

from bench.processes import Failed

HOST = "127.0.0.1"


# ---------------------------------------------------------------------------------------------------------------- HTTP
@dataclass(slots=True)
class Answers:
    """What came back: seconds of each good answer, and how many were not."""

    seconds: list[float] = field(default_factory=list)
    bad: int = 0
    first_bad: str = ""
    lasted_s: float = 0.0


def request(method: str, path: str, body: bytes = b"", headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """One HTTP/1.1 request."""
    lines = [f"{method} {path} HTTP/1.1", f"host: {HOST}", *(f"{name}: {value}" for name, value in headers)]
    if body:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def graphql(query: str, variables: object, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """One GraphQL operation as a POST to /graphql."""
    body = orjson.dumps({"query": query, "variables": variables})
    return request("POST", "/graphql", body, [("content-type", "application/json"), *headers])


def answer_end(data: bytes) -> int:
    """The length of the first whole answer in the data; 0 if its end has not come."""
    head = data.find(b"\r\n\r\n")
    if head < 0:
        return 0
    lines = data[:head].lower()
    at = lines.find(b"\r\ncontent-length:")
    if at >= 0:
        size = int(lines[at + 17 :].partition(b"\r\n")[0])
        return head + 4 + size if len(data) >= head + 4 + size else 0
    if b"transfer-encoding: chunked" in lines:
        at = head + 4
        while (line := data.find(b"\r\n", at)) >= 0:
            size = int(data[at:line].partition(b";")[0], 16)
            at = line + 2 + size + 2
            if size == 0:
                return at if len(data) >= at else 0
        return 0
    return head + 4


class _Connection(asyncio.Protocol):
    def __init__(self, requests: Iterator[bytes], answers: Answers, until: float, failing: bytes) -> None:
        self.requests, self.answers, self.until, self.failing = requests, answers, until, failing
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.buffer = b""
        self.sent_at = 0.0

    def connection_made(self, transport: Any) -> None:  # uvloop's is no asyncio.Transport
        self.transport = transport
        self._next()

    def _next(self) -> None:
        wanted = next(self.requests, None) if time.perf_counter() < self.until else None
        if wanted is None:
            self._end()
            return
        self.sent_at = time.perf_counter()
        self.transport.write(wanted)

    def data_received(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data
        size = answer_end(self.buffer)
        if size == 0:
            return
        answer, self.buffer = self.buffer[:size], self.buffer[size:]
        if answer[9:12] == b"200" and self.failing not in answer:
            self.answers.seconds.append(time.perf_counter() - self.sent_at)
        else:
            self.answers.bad += 1
            self.answers.first_bad = self.answers.first_bad or answer[:300].decode(errors="replace")
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.answers.bad += 1
            self.answers.first_bad = self.answers.first_bad or f"connection lost: {exc}"
            self.done.set_result(None)

    def _end(self) -> None:
        if not self.done.done():
            self.done.set_result(None)
        self.transport.close()


def send_all(
    port: int, requests: Iterator[bytes], *, connections: int, seconds: float, failing: bytes = b'"errors":['
) -> Answers:
    """Send requests over so many connections, one at a time on each, until none is left or the time is over. Raises: Failed."""

    async def run() -> Answers:
        answers = Answers()
        loop = asyncio.get_running_loop()
        started = time.perf_counter()
        made = [
            (
                await loop.create_connection(
                    lambda: _Connection(requests, answers, started + seconds, failing), HOST, port
                )
            )[1]
            for _ in range(connections)
        ]
        await asyncio.wait_for(asyncio.gather(*(one.done for one in made)), seconds + 60)
        answers.lasted_s = time.perf_counter() - started
        return answers

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            answers = runner.run(run())
    except (OSError, TimeoutError) as error:
        raise Failed(f"requests: {type(error).__name__} {error}") from error
    if not answers.seconds or answers.bad > len(answers.seconds) / 100:
        raise Failed(f"{answers.bad} bad answers; the first: {' '.join(answers.first_bad.split())[:300]}")
    return answers


def ask(port: int, wanted: bytes, *, timeout_s: float = 30.0) -> bytes:
    """One request on a connection of its own; returns the whole answer. Raises: OSError."""
    with socket.create_connection((HOST, port), timeout=timeout_s) as connection:
        connection.sendall(wanted)
        data = b""
        while answer_end(data) == 0:
            more = connection.recv(65536)
            if not more:
                raise ConnectionError("closed without a whole answer")
            data += more
        return data


# ----------------------------------------------------------------------------------------------------------- WebSocket
_UPGRADE = (
    b"GET /graphql HTTP/1.1\r\nhost: 127.0.0.1\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-protocol: graphql-transport-ws\r\n\r\n"
)
_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10
_AT_A_TIME = 64  # sockets that are being opened


def frame(payload: bytes, opcode: int = _TEXT) -> bytes:
    """A client's frame. The mask is zero, so that the payload stays as it is."""
    size = len(payload)
    head = bytes([0x80 | opcode, 0x80 | size]) if size < 126 else struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
    return head + b"\0\0\0\0" + payload


def frames(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The server's whole frames in the data as (opcode, payload), and what is left."""
    found, at = [], 0
    while len(data) - at >= 2:
        size, start = data[at + 1] & 127, at + 2
        if size == 126:
            if len(data) < start + 2:
                break
            size, start = int.from_bytes(data[start : start + 2]), start + 2
        elif size == 127:
            if len(data) < start + 8:
                break
            size, start = int.from_bytes(data[start : start + 8]), start + 8
        if len(data) < start + size:
            break
        found.append((data[at] & 15, data[start : start + size]))
        at = start + size
    return found, data[at:]


@dataclass(slots=True)
class _Client:
    socket: socket.socket
    init: bytes
    state: str = "upgrading"
    buffer: bytes = b""


class Sockets:
    """Many subscribers of one document.

    `marker`: bytes that only the awaited event holds. `begun`: bytes of the first message of a subscription, if it has one; otherwise
    a socket is ready when the server has read its subscription.
    """

    def __init__(
        self, port: int, count: int, document: str, *, marker: bytes, begun: bytes = b"", tokens: Sequence[str] = ()
    ) -> None:
        self.port, self.count, self.marker, self.begun = port, count, marker, begun
        subscribe = {"id": "1", "type": "subscribe", "payload": {"query": document}}
        # The answer to this ping shows that the server has read the subscription.
        self.subscribe = frame(orjson.dumps(subscribe)) + frame(b'{"type":"ping"}')
        inits = [{"Authorization": f"Bearer {token}"} for token in tokens] or [{}]
        self.inits = [frame(orjson.dumps({"type": "connection_init", "payload": one})) for one in inits]
        self.epoll = select.epoll()
        self.clients: dict[int, _Client] = {}
        self.ready = 0
        self.received = 0

    def open(self, *, timeout_s: float) -> float:
        """Connect and subscribe all; returns the seconds. Raises: Failed."""
        started = time.perf_counter()
        while self.ready < self.count:
            while len(self.clients) < self.count and len(self.clients) - self.ready < _AT_A_TIME:
                self._connect(len(self.clients))
            self._poll(0.5)
            if time.perf_counter() - started > timeout_s:
                raise Failed(f"{self.ready} of {self.count} sockets ready after {timeout_s:.0f} s")
        return time.perf_counter() - started

    def deliver(self, trigger: Callable[[], None], *, timeout_s: float) -> float:
        """Trigger one event and wait until every socket has it; returns the seconds. Raises: Failed."""
        self.received = 0
        started = time.perf_counter()
        trigger()
        while self.received < self.count:
            self._poll(0.5)
            if time.perf_counter() - started > timeout_s:
                raise Failed(f"an event reached {self.received} of {self.count} sockets in {timeout_s:.0f} s")
        return time.perf_counter() - started

    def idle(self, seconds: float) -> None:
        """Read for a while, so that late first events and pings are out of the way."""
        until = time.perf_counter() + seconds
        while (left := until - time.perf_counter()) > 0:
            self._poll(left)

    def close(self) -> None:
        """Close all; a second call does nothing."""
        for client in self.clients.values():
            client.socket.close()
        self.clients.clear()
        self.epoll.close()

    def _connect(self, number: int) -> None:
        try:
            made = socket.create_connection((HOST, self.port), timeout=10)
        except OSError as error:
            raise Failed(f"socket {number}: {error}") from error
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setblocking(False)
        made.send(_UPGRADE)
        self.clients[made.fileno()] = _Client(made, self.inits[number % len(self.inits)])
        self.epoll.register(made.fileno(), select.EPOLLIN)

    def _poll(self, timeout_s: float) -> None:
        for number, _ in self.epoll.poll(timeout_s, 1024):
            client = self.clients[number]
            try:
                data = client.socket.recv(65536)
            except OSError as error:
                raise Failed(f"a socket broke: {error}") from error
            if not data:
                raise Failed(f"the server closed a socket that was {client.state}")
            if client.state == "ready" and not client.buffer and data[0] == 0x81 and self.marker in data:
                one, left = frames(data)
                if len(one) == 1 and not left:
                    self.received += 1
                    continue
            client.buffer += data
            self._read(client)

    def _read(self, client: _Client) -> None:
        if client.state == "upgrading":
            head, end, rest = client.buffer.partition(b"\r\n\r\n")
            if not end:
                return
            if b" 101 " not in head[:20]:
                raise Failed(f"no upgrade: {head[:80].decode(errors='replace')}")
            client.buffer, client.state = rest, "upgraded"
            client.socket.send(client.init)
        found, client.buffer = frames(client.buffer)
        for opcode, payload in found:
            if opcode == _PING:
                client.socket.send(frame(payload, _PONG))
            elif opcode == _CLOSE:
                raise Failed(f"the server closed a socket: {payload[2:].decode(errors='replace')}")
            elif opcode == _TEXT:
                self._message(client, payload)

    def _message(self, client: _Client, payload: bytes) -> None:
        if self.marker in payload:
            self.received += 1
            return
        kind = orjson.loads(payload).get("type")
        if kind == "connection_ack":
            client.socket.send(self.subscribe)
        elif client.state != "ready" and (self.begun in payload if self.begun else kind == "pong"):
            client.state = "ready"
            self.ready += 1
        elif kind == "ping":
            client.socket.send(frame(b'{"type":"pong"}'))
        elif kind in ("error", "complete"):
            raise Failed(f"the subscription ended: {payload[:200].decode(errors='replace')}")


class HttpTrigger:
    """Sends the trigger, and reads its answer before the next one."""

    KEPT_S = 1.0  # servers close a connection that was idle for some seconds

    def __init__(self, port: int) -> None:
        self._port = port
        self._request = request("POST", "/trigger", b"{}", [("content-type", "application/json")])
        self._socket: socket.socket | None = None
        self._used_at = 0.0

    def __call__(self) -> None:
        if self._socket is not None:
            self._finish(self._socket)
        if self._socket is None or time.perf_counter() - self._used_at > self.KEPT_S:
            self.close()
            self._socket = socket.create_connection((HOST, self._port), timeout=30)
        self._socket.sendall(self._request)
        self._used_at = time.perf_counter()

    def _finish(self, connection: socket.socket) -> None:
        data = b""
        while answer_end(data) == 0:
            more = connection.recv(65536)
            if not more:
                raise Failed("the server closed the trigger's connection")
            data += more

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()


class PipeTrigger:
    """Writes a line to a process, which commits one event for each."""

    def __init__(self, into: int, out: int) -> None:
        self._into, self._out, self._waiting = into, out, False

    def __call__(self) -> None:
        if self._waiting and not os.read(self._out, 100):
            raise Failed("the process that commits events has ended")
        os.write(self._into, b"\n")
        self._waiting = True

    def close(self) -> None:
        """The process belongs to its starter."""
