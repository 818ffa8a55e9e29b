"""uvicorn with limits on request heads, aborted dead sockets, and streams that end before shutdown."""

import asyncio
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request

from resolvers.transport.keepalive import PING, Keepalive

HEAD_S: Final = 10.0
HEAD_BYTES: Final = 65_536
HEADERS: Final = 100
SOCKET_MESSAGE_BYTES: Final = 131_072
PING_S: Final = 20.0  # a client has as long to answer
GRACE_S: Final = 15
# Linux: drop a connection whose peer acknowledges nothing for this long, even if idle.
TCP_USER_TIMEOUT_MS: Final = 30_000
# The kernel's send buffer for a client that does not read. If it grows automatically, it takes megabytes before our
# buffer fills and the limit for slow clients starts. Linux doubles this value.
SEND_BUFFER_BYTES: Final = 65_536

_NOT_ASCII: Final = re.compile(rb"[\x80-\xff]")

PROTOCOL_EXTENSION: Final = "paythread.protocol"


EndStreams = Callable[[float], Awaitable[None]]  # with the seconds that it may take


class SocketProtocol(Protocol):
    """The server's side of a WebSocket."""

    transport: asyncio.Transport
    writable: asyncio.Event
    close_sent: bool


class HeadTooLarge(Exception): ...


class HeadTimeout(HttpToolsProtocol):
    head_s = HEAD_S
    head_bytes = HEAD_BYTES
    headers_most = HEADERS
    _counted = 0
    _timer: asyncio.TimerHandle | None = None
    _head_left = HEAD_BYTES
    _in_head = True
    _in_request_line = True  # what comes next begins or continues one

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()

    def data_received(self, data: bytes) -> None:
        if self._in_request_line:
            # curl and some link previews send an unescaped quotation mark after a link; the parser refuses it.
            line, end, rest = data.partition(b"\n")
            data = _NOT_ASCII.sub(lambda found: b"%%%02X" % found[0][0], line) + end + rest
            self._in_request_line = not end
        super().data_received(data)
        if self._in_head:
            # Judged after parsing: a small head may come in one piece with a large body.
            self._head_left -= len(data)
            if self._head_left < 0 and not self.transport.is_closing():
                self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._counted = 0
        self._arm()

    # The parser has no limits of its own: a large head that comes in one piece is counted here, as are trailers.
    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        if len(self.headers) >= self.headers_most:
            raise HeadTooLarge
        super().on_header(name, value)

    def _count(self, size: int) -> None:
        self._counted += size
        if self._counted > self.head_bytes:
            raise HeadTooLarge

    def send_400_response(self, msg: str) -> None:
        if not isinstance(getattr(sys.exception(), "__context__", None), HeadTooLarge):
            super().send_400_response(msg)
        elif self._in_head:
            text = b"The head of this request is too large."
            self.transport.write(
                b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
                b"content-length: %d\r\nconnection: close\r\n\r\n%s" % (len(text), text)
            )
            self.transport.close()
        else:
            self.transport.abort()  # trailers: the answer may have begun

    def on_message_complete(self) -> None:
        self._in_request_line = True
        super().on_message_complete()

    def on_headers_complete(self) -> None:
        self._disarm()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def _arm(self) -> None:
        self._disarm()
        self._in_head = True
        self._head_left = self.head_bytes
        self._timer = self.loop.call_later(self.head_s, self.transport.abort)

    def _disarm(self) -> None:
        self._in_head = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


_keepalives: WeakKeyDictionary[uvicorn.Config, Keepalive] = WeakKeyDictionary()


class SocketServer(WebSocketsSansIOProtocol):
    """Aborts a WebSocket whose client stops answering, and exposes the transport to the application."""

    _keepalive: Keepalive | None = None
    _pong_missing = False

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        scope: Any = getattr(self, "scope", None)
        if scope is not None:
            # The application's task starts in the next turn of the loop, so it sees this.
            scope["extensions"][PROTOCOL_EXTENSION] = self

    async def send(self, message: Any) -> None:
        await super().send(message)
        if self.close_sent:
            # uvicorn forgets this after a denial response, and then logs an error for each refused socket.
            self.handshake_complete = True

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc is not None and getattr(self, "scope", None) is None:
            # The library refused the head (a line over 8 KiB). uvicorn would neither send its answer nor end the connection.
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    # uvicorn's own pings take two timers and a new frame each, and close with 1011, which the npm client never retries.
    def start_keepalive(self) -> None:
        if self.ping_interval:
            keepalive = self._keepalive = _keepalives.get(self.config)
            if keepalive is None:
                keepalive = self._keepalive = _keepalives[self.config] = Keepalive(self.ping_interval)
            keepalive.add(self)

    def stop_keepalive(self) -> None:
        if self._keepalive is not None:
            self._keepalive.remove(self)

    def ping(self) -> None:
        if self.close_sent or self.transport.is_closing():
            return
        if self._pong_missing:
            # A closing frame would wait behind what the client does not read.
            self.transport.abort()
            return
        self._pong_missing = True
        self.transport.write(PING)

    def handle_pong(self, event: Frame) -> None:
        self._pong_missing = False


class Server(uvicorn.Server):
    """Stops in steps: `on_stop` and `drain_s` seconds of service, no new connections, `before_shutdown`, the rest."""

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        before_shutdown: Iterable[EndStreams] = (),
        on_stop: Callable[[], None] | None = None,
        drain_s: float = 0.0,
        spread_s: float = 0.0,
    ) -> None:
        super().__init__(config)
        self._before_shutdown = tuple(before_shutdown)
        self._on_stop = on_stop
        self._drain_s = drain_s
        self._spread_s = spread_s

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        with super().capture_signals():
            yield
            # Without SIGTERM: the process must exit with status 0.
            self._captured_signals = [number for number in self._captured_signals if number != signal.SIGTERM]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._on_stop is not None:
            self._on_stop()
        await self._drain()
        # Before clients are asked to reconnect: the others must take them.
        for listener in (*self.servers, *(sockets or ())):
            listener.close()
        within_s = 0.0 if self._hurried() else self._spread_s
        await asyncio.gather(*(end_streams(within_s) for end_streams in self._before_shutdown))
        await super().shutdown(sockets)

    async def _drain(self) -> None:
        until = time.monotonic() + self._drain_s
        # The second signal only sets a flag, as in uvicorn.
        while time.monotonic() < until and not self._hurried():  # noqa: ASYNC110
            await asyncio.sleep(0.1)

    def _hurried(self) -> bool:
        # Ctrl-C: no load balancer waits for this process.
        return signal.SIGINT in self._captured_signals


def server_config(app: Any, **options: Any) -> uvicorn.Config:
    """uvicorn's settings; `options` override them."""
    settings: dict[str, Any] = {
        "http": HeadTimeout,
        "ws": SocketServer,
        "loop": "uvloop" if os.name == "posix" else "asyncio",
        "ws_max_size": SOCKET_MESSAGE_BYTES,
        "ws_per_message_deflate": False,
        "ws_ping_interval": PING_S,
        # Without it one open event stream blocks SIGTERM forever.
        "timeout_graceful_shutdown": GRACE_S,
        "server_header": False,
        "access_log": False,
        # It would believe X-Forwarded-For from every local client; web/middleware.py reads it, and only with TRUST_PROXY.
        "proxy_headers": False,
    }
    return uvicorn.Config(app, **{**settings, **options})


@asynccontextmanager
async def served(app: Any, listener: socket.socket) -> AsyncIterator[None]:
    server = Server(server_config(app, lifespan="off", log_config=None, loop="none", timeout_graceful_shutdown=2))
    serving = asyncio.create_task(server._serve([listener]), name="served")
    try:
        yield
    finally:
        server.should_exit = True
        await serving


def listen(host: str, port: int, *, backlog: int = 2_048) -> socket.socket:
    """A listening socket with limits for dead and slow peers. Port 0: any. Raises: OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio disables Nagle's algorithm only if the protocol is given as TCP; otherwise each answer takes 44 ms more.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # Accepted connections inherit it.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TCP_USER_TIMEOUT_MS)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        listener.bind((host, port))
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
