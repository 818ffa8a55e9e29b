"""The base of fake vendors: real HTTP on loopback, with network failures."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, Literal, Self
from urllib.parse import parse_qsl

import uvicorn

FailureMode = Literal[
    "accept_then_500", "hang", "trickle", "drop", "before_500", "rate_limit", "refuse", "nonsense", "empty"
]
RETRY_AFTER_S: Final = 7.0  # the wait that a 429 requests


NOT_DONE: Final[Mapping[str | None, int]] = {"before_500": 500, "refuse": 400}
NONSENSE: Final[Mapping[str | None, bytes]] = {"nonsense": b"<html>be right back</html>", "empty": b"{}"}


@dataclass(frozen=True, slots=True)
class Call:
    method: str
    path: str
    headers: Mapping[str, str]  # lower-case names
    query: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})


class LoopbackServer(uvicorn.Server):
    """A uvicorn server in the test's event loop."""

    def __init__(self, app: Any, port: int = 0) -> None:
        config = uvicorn.Config(app, interface="asgi3", log_config=None, access_log=False, lifespan="off", ws="none")
        super().__init__(config)
        self._stopping = asyncio.Event()
        self._serving = asyncio.Event()
        # The explicit protocol makes asyncio turn off Nagle's algorithm, which would delay each response by 40 ms.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Keep the test runner's signal handlers.
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._serving.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Without uvicorn's fixed wait of 100 ms.
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        for _ in range(2500):
            if not self.server_state.connections and not self.server_state.tasks:
                break
            await asyncio.sleep(0.002)

    @cached_property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.serve([self._socket]))
        waiter = asyncio.create_task(self._serving.wait())
        await asyncio.wait({self._task, waiter}, return_when=asyncio.FIRST_COMPLETED)
        if not self._serving.is_set():
            waiter.cancel()
            await self._task
            raise RuntimeError("the server did not start")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.should_exit = True
        for connection in list(self.server_state.connections):
            # Idle keep-alive connections of a client under test must not delay the stop.
            if connection.transport is not None:
                connection.transport.close()
        self._stopping.set()
        if self._task is not None:
            await self._task
        self._socket.close()

    def cut(self, client: tuple[str, int]) -> None:
        """Drop this peer's connection without a response."""
        for connection in list(self.server_state.connections):
            if getattr(connection, "client", None) == client and connection.transport is not None:
                connection.transport.abort()


class FakeVendor(ABC):
    """Use it as `async with TheVendor() as vendor:`."""

    def __init__(self) -> None:
        self.port = 0
        self.calls: list[Call] = []
        self._failures: list[tuple[FailureMode, Callable[[Call], bool] | None]] = []
        self._closing = asyncio.Event()
        self._server: LoopbackServer | None = None

    @abstractmethod
    async def handle(self, call: Call) -> Answer:
        """Answer a call."""

    def error(self, status: int) -> Answer:
        """The vendor's 400, 429 and 500."""
        return Answer(status, b"{}")

    def rate_limited(self) -> Answer:
        """The vendor's 429. Override it unless the vendor sends Retry-After."""
        answer = self.error(429)
        return replace(answer, headers={**answer.headers, "retry-after": f"{RETRY_AFTER_S:.0f}"})

    def is_prelude(self, call: Call) -> bool:
        """Whether a call only prepares another, such as a token's."""
        return False

    @property
    def url(self) -> str:
        if self._server is None:
            raise RuntimeError("the vendor is not running")
        return self._server.url

    def fail_next(self, mode: FailureMode, *, match: Callable[[Call], bool] | None = None) -> None:
        """Make the next matching call fail; by default, preludes do not match.

        These calls are carried out: accept_then_500, hang (no response), drop (connection cut), trickle (endless response),
        nonsense (200 with HTML), empty (200 with {}). These are not: before_500, rate_limit (429), refuse (400).
        """
        self._failures.append((mode, match))

    def _failure(self, call: Call) -> FailureMode | None:
        for index, (mode, match) in enumerate(self._failures):
            if match(call) if match is not None else not self.is_prelude(call):
                del self._failures[index]
                return mode
        return None

    async def serve(self, port: int) -> None:
        """Serve on 127.0.0.1 until the task is cancelled."""
        self.port = port
        async with self:
            await asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        self._server = LoopbackServer(self._app, self.port)
        await self._server.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        if self._server is not None:
            await self._server.__aexit__()
            self._server = None

    async def _app(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
        call = Call(
            method=scope["method"],
            path=scope["path"],
            headers={name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]},
            query=dict(parse_qsl(scope["query_string"].decode("ascii"), keep_blank_values=True)),
            body=body,
        )
        self.calls.append(call)
        mode = self._failure(call)
        if mode == "rate_limit":
            answer = self.rate_limited()
        elif mode in NOT_DONE:
            answer = self.error(NOT_DONE[mode])
        else:
            answer = await self.handle(call)
        if mode == "accept_then_500":
            answer = self.error(500)
        if mode in NONSENSE:
            answer = Answer(200, NONSENSE[mode])
        if mode == "drop" and self._server is not None:
            self._server.cut(tuple(scope["client"]))
        if mode in ("drop", "hang"):
            await self._until_gone(receive)
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        if mode == "trickle":
            await self._trickle(receive, send)
        await send({"type": "http.response.body", "body": answer.body})

    async def _trickle(
        self, receive: Callable[[], Awaitable[dict[str, Any]]], send: Callable[[dict[str, Any]], Awaitable[None]]
    ) -> None:
        gone = asyncio.create_task(self._until_gone(receive))
        while not gone.done():
            await send({"type": "http.response.body", "body": b" ", "more_body": True})
            await asyncio.wait({gone}, timeout=0.05)
        await gone

    async def _until_gone(self, receive: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        async def left() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        waits = {asyncio.create_task(left()), asyncio.create_task(self._closing.wait())}
        _, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
