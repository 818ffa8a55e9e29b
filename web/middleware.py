"""ASGI middleware: request ids, security headers, request logs, throttling of guessed payment links; body limits."""

from __future__ import annotations

import logging
import secrets
import time
from typing import Final

import limits
import structlog
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.database_errors import is_transient
from services.core.rate_limits import MovingWindows, network_of
from services.messaging.inbound import CALLBACK_LIMIT
from settings import Settings
from web import metrics
from web.pages import error_response, http_error

log = structlog.get_logger("web.requests")

DEFAULT_BODY: Final = 128 * 1024
BODY_LIMITS: Final = (
    ("/webhooks/", 512 * 1024),
    ("/inbound/smtp_email/", 14 * 1024 * 1024),  # an email with attachments; as services/messaging/mail.py reads it
    ("/inbound/", CALLBACK_LIMIT),
    ("/p/", 4 * 1024),
    ("/unsubscribe/", 4 * 1024),
    ("/join", 4 * 1024),
    ("/reset-password", 4 * 1024),
    ("/confirm-email", 4 * 1024),
    ("/widget/", 32 * 1024),
    ("/demo/", 16 * 1024),
    ("/sandbox/pay/", 4 * 1024),
    ("/sandbox/", 64 * 1024),
)
UNKNOWN_LINKS: Final = limits.parse("20/minute")

# Defaults of every answer; pages set stricter ones.
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


exception_handlers: Final = {HTTPException: http_error}


def stack(settings: Settings) -> list[Middleware]:
    """Outermost first."""
    return [Middleware(Watch, settings=settings), Middleware(UnknownLinks)]


def body_limit(path: str) -> int:
    """In bytes."""
    return next((limit for prefix, limit in BODY_LIMITS if path.startswith(prefix)), DEFAULT_BODY)


def refuse_body(status: int, scope: Scope) -> Response:
    """The answer to a body that is too large (413) or too slow (408)."""
    return error_response(status, Headers(scope=scope).get("accept", ""))


def client_address(scope: Scope, *, trust_proxy: bool) -> str:
    """The client's IP address. `trust_proxy`: the last of X-Forwarded-For, which our proxy adds."""
    if trust_proxy:
        forwarded = Headers(scope=scope).getlist("x-forwarded-for")
        if forwarded:
            return forwarded[-1].rpartition(",")[2].strip()
    client = scope.get("client")
    return client[0] if client else "unknown"


def route_of(scope: Scope) -> str:
    """The path with parameter names in place of values, so without tokens and ids."""
    if "endpoint" not in scope:
        return "(none)"
    path: str = scope["path"]
    for name, value in scope.get("path_params", {}).items():
        path = path.replace(f"/{value}" if value else "/", f"/{{{name}}}", 1)
    return path


class Watch:
    """Sets request ids and headers, logs requests, and answers uncaught errors with 500 or 503."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._trust_proxy = settings.trust_proxy
        self._warned = False
        hsts = {"strict-transport-security": HSTS} if settings.base_url.startswith("https://") else {}
        self._headers = [(name.encode(), value.encode()) for name, value in (HEADERS | hsts).items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(8)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        if not (self._trust_proxy or self._warned) and "x-forwarded-for" in Headers(scope=scope):
            self._warned = True  # any client can send the header: log once
            log.warning("X-Forwarded-For is ignored: set TRUST_PROXY=true if your proxy sends it")
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
                headers = list(message["headers"])
                present = {name for name, _ in headers}
                headers += [header for header in self._headers if header[0] not in present]
                headers.append((b"x-request-id", request_id.encode()))
                message["headers"] = headers
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        except Exception as error:
            again = is_transient(error)
            log.log(
                logging.WARNING if again else logging.ERROR,
                "request failed",
                exc_info=None if again else error,  # a database's message may quote values
                method=scope["method"],
                route=route_of(scope),
                error=type(error).__name__,
            )
            if status:
                raise  # the answer has begun: only closing the connection can signal the error
            accept = Headers(scope=scope).get("accept", "")
            await error_response(503 if again else 500, accept, reference=request_id)(scope, receive, send_on)
        finally:
            self._record(scope, status, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = route_of(scope)
        metrics.count_request(scope["method"] if scope["method"] in _METHODS else "other", route, status, seconds)
        log.info(
            "request",
            method=scope["method"],
            route=route,
            status=status,
            duration_ms=round(seconds * 1000, 1),
        )


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"})


class UnknownLinks:
    """Answers 429 in place of 404 after too many unknown links. Known links always work."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._windows = MovingWindows("")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(("/p/", "/unsubscribe/", "/attachments/")):
            await self._app(scope, receive, send)
            return
        replaced = False

        async def send_on(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start" and message["status"] == 404:
                replaced = not await self._windows.hit(UNKNOWN_LINKS, scope["state"]["client_address"])
                if replaced:
                    await error_response(429, Headers(scope=scope).get("accept", ""))(scope, receive, send)
            if not replaced:
                await send(message)

        await self._app(scope, receive, send_on)
