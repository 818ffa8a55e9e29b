"""Allowed origins: one rule for preflights, requests and WebSockets."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp
from strawberry.http.websocket_origin import is_same_origin, normalize_allowed_origins, normalize_origin

from services.core.rate_limits import RateLimiter

log = structlog.get_logger(__name__)

MAX_AGE_S: Final = 600
# Of our answers' headers, those that a client may need and that browsers hide from pages by default.
EXPOSED: Final = ("x-request-id", "retry-after")
LOCAL: Final = re.compile(r"https?://(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?", re.ASCII)
LONGEST: Final = 100


class Origins:
    def __init__(self, allowed: Sequence[str], *, local: bool, remedy: str) -> None:
        self._allowed = normalize_allowed_origins(allowed)
        self._local = local
        self._remedy = remedy
        # Clients can invent origins: log one line a minute for each, and 30 a minute in all.
        self._lines_of_one = RateLimiter(1 / 60, 1, keys=1_000)
        self._lines = RateLimiter(0.5, 30, keys=1)

    def lists(self, origin: str) -> bool:
        if "*" in self._allowed or (self._local and LOCAL.fullmatch(origin)):
            return True
        return normalize_origin(origin) in self._allowed

    def allow(self, headers: Mapping[str, str]) -> bool:
        """Whether to answer. Programs send no Origin and may call."""
        origin = headers.get("origin")
        if origin is None or headers.get("sec-fetch-site") == "same-origin":
            return True
        return is_same_origin(origin, headers.get("host")) or self.lists(origin)

    def refuse(self, origin: str) -> str:
        shown = re.sub(r"[^!-~]", "?", normalize_origin(origin) or origin)[:LONGEST]
        text = f"origin {shown} refused: {self._remedy}"
        if self._lines_of_one.take(shown) and self._lines.take(""):
            log.warning(text)
        return text


class Cors(CORSMiddleware):
    """Preflights and CORS headers for `Origins`. Allows any request header, because tracing tools add their own."""

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        super().__init__(
            app,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            allow_private_network=True,
            expose_headers=EXPOSED,
            max_age=MAX_AGE_S,
        )
        self._origins = origins

    def is_allowed_origin(self, origin: str) -> bool:
        return self._origins.lists(origin)

    def preflight_response(self, request_headers: Headers) -> Response:
        origin = request_headers["origin"]
        if not self._origins.lists(origin):
            headers: dict[str, Any] = {"Vary": self.preflight_headers["Vary"]}
            return PlainTextResponse(self._origins.refuse(origin), status_code=400, headers=headers)
        return super().preflight_response(request_headers)
