"""What stands before every door: request ids, body limits, the brake on guessed links, security headers, one log line a request.

Plain ASGI, so that streams and WebSockets pass untouched. What a request may do is decided behind it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import OrderedDict
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.database_errors import is_transient
from services.core.rate_limits import network_of
from services.messaging.inbound import CALLBACK_LIMIT
from settings import Settings
from web import metrics
from web.pages import error_response, http_error

log = structlog.get_logger("web.requests")

BODY_TIMEOUT_S: Final = 10.0
DEFAULT_BODY: Final = 128 * 1024
BODY_LIMITS: Final = (
    ("/webhooks/", 512 * 1024),
    (
        "/inbound/smtp_email/",
        14 * 1024 * 1024,
    ),  # a letter with its files, as far as it is read (services/messaging/mail.py)
    ("/inbound/", CALLBACK_LIMIT),
    ("/p/", 4 * 1024),
    ("/unsubscribe/", 4 * 1024),
    ("/widget/", 32 * 1024),
    ("/demo/", 16 * 1024),
    ("/sandbox/", 64 * 1024),
)

UNKNOWN_LINKS: Final = 20
UNKNOWN_LINKS_WINDOW_S: Final = 60.0
ADDRESSES: Final = 50_000  # how many addresses the brake remembers: its memory is bounded, too

# For every answer that does not say something else; pages bring their own, stricter ones.
HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "strict-origin",
    "x-robots-tag": "noindex, nofollow",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "private, no-store",
    "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}
HSTS: Final = "max-age=31536000; includeSubDomains"


# For Starlette(exception_handlers=…): unknown addresses and wrong methods, as a page or as a line of text.
exception_handlers: Final = {HTTPException: http_error}


def middleware(settings: Settings) -> list[Middleware]:
    """The layers, outermost first, for Starlette(middleware=…)."""
    return [
        Middleware(Watch, settings=settings),
        Middleware(UnknownLinks),
        Middleware(BodyLimit),
    ]


def body_limit(path: str) -> int:
    """How many bytes a request to this path may have."""
    return next((limit for prefix, limit in BODY_LIMITS if path.startswith(prefix)), DEFAULT_BODY)


def client_address(scope: Scope, *, trust_proxy: bool) -> str:
    """The client's IP address; behind a proxy of ours the last one that it added, which no client can forge."""
    if trust_proxy:
        forwarded = Headers(scope=scope).getlist("x-forwarded-for")
        if forwarded:
            return forwarded[-1].rpartition(",")[2].strip()
    client = scope.get("client")
    return client[0] if client else "unknown"


def route_of(scope: Scope) -> str:
    """The path with its parameters' names in place of their values: no token, no id; the same for every request of a route."""
    if "endpoint" not in scope:
        return "(none)"
    path: str = scope["path"]
    for name, value in scope.get("path_params", {}).items():
        path = path.replace(f"/{value}" if value else "/", f"/{{{name}}}", 1)
    return path


class Watch:
    """Outermost: gives ids, adds headers, logs and counts, and turns what nobody caught into a plain 500 or 503.

    `scope["state"]` gets `request_id` and `client_address` (of an IPv6 client: its /64 network); resolvers and web read them
    from `request.state`.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._trust_proxy = settings.trust_proxy
        self._warned = False
        self._headers = dict(HEADERS)
        if settings.base_url.startswith("https://"):
            self._headers["strict-transport-security"] = HSTS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(8)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        if not (self._trust_proxy or self._warned) and "x-forwarded-for" in Headers(scope=scope):
            self._warned = True  # any client can send the header: one line is enough
            log.warning("X-Forwarded-For is ignored: set TRUST_PROXY=true if your proxy sends it")
        # Only ever a key of limits.
        state["client_address"] = network_of(client_address(scope, trust_proxy=self._trust_proxy))
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            if scope["type"] == "http":
                await self._http(scope, receive, send, request_id)
            else:
                await self._socket(scope, receive, send)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if not status:
                status = {"websocket.accept": 101, "websocket.close": 403}.get(message["type"]) or message["status"]
                log.info("socket", route=route_of(scope), status=status)
            await send(message)

        await self._app(scope, receive, send_on)

    async def _http(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        started = time.perf_counter()
        status = 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                headers["x-request-id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        except Exception as error:
            again = is_transient(error)
            log.log(
                logging.WARNING if again else logging.ERROR,
                "request failed",
                exc_info=None if again else error,  # a database's own words may quote values
                method=scope["method"],
                route=route_of(scope),
                error=type(error).__name__,
            )
            if status:
                raise  # the answer has begun: only closing the connection tells the client that it is broken
            accept = Headers(scope=scope).get("accept", "")
            await error_response(503 if again else 500, accept, reference=request_id)(scope, receive, send_on)
        finally:
            self._record(scope, status, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = route_of(scope)
        metrics.requests_total.labels(scope["method"] if scope["method"] in _METHODS else "other", route, status).inc()
        metrics.request_seconds.labels(route).observe(seconds)
        log.info(
            "request",
            method=scope["method"],
            route=route,
            status=status,
            duration_ms=round(seconds * 1000, 1),
        )


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"})


class UnknownLinks:
    """A limit on guessing: an address that met many unknown links is told 429 instead of 404 for a minute.

    A link that exists always works: the token has 128 bits, so that the brake protects the database and not the secret,
    and one guesser behind a shared address must not keep his neighbours from paying.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._misses: OrderedDict[str, list[float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(("/p/", "/unsubscribe/", "/attachments/")):
            await self._app(scope, receive, send)
            return
        replaced = False

        async def send_on(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start" and message["status"] == 404:
                replaced = self._over(scope["state"]["client_address"])
                if replaced:
                    await error_response(429, Headers(scope=scope).get("accept", ""))(scope, receive, send)
            if not replaced:
                await send(message)

        await self._app(scope, receive, send_on)

    def _over(self, network: str) -> bool:
        """Count one unknown link; whether it is one too many."""
        now = time.monotonic()
        recent = [at for at in self._misses.pop(network, ()) if now - at < UNKNOWN_LINKS_WINDOW_S]
        over = len(recent) >= UNKNOWN_LINKS
        if not over:
            recent.append(now)
        self._misses[network] = recent
        if len(self._misses) > ADDRESSES:
            self._misses.popitem(last=False)
        return over


class BodyLimit:
    """Reads the whole body before the application sees the request: not too large, not too slow.

    /graphql limits its bodies itself, equally: pages of other origins can read a refusal only with its CORS headers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/graphql":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        length = headers.get("content-length", "")
        if length in ("", "0") and "transfer-encoding" not in headers:
            await self._app(scope, receive, send)
            return
        limit = body_limit(scope["path"])
        if length.isdecimal() and int(length) > limit:
            await self._refuse(413, scope, receive, send)
            return
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return  # nobody is left to answer
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > limit:
                        await self._refuse(413, scope, receive, send)
                        return
        except TimeoutError:
            await self._refuse(408, scope, receive, send)
            return
        given = False

        async def receive_again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self._app(scope, receive_again, send)

    async def _refuse(self, status: int, scope: Scope, receive: Receive, send: Send) -> None:
        response = error_response(status, Headers(scope=scope).get("accept", ""))
        response.headers["connection"] = "close"  # what is still coming is not read
        await response(scope, receive, send)
