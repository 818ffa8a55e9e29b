"""HTML pages: templates, headers, error pages, static files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from web.texts import error_texts

if TYPE_CHECKING:
    from jinja2 import Environment

HERE: Final = Path(__file__).parent
STATIC: Final = HERE / "static"


@cache
def _templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # loads 2 MB: with the first page

    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,  # a misspelt name in a template is an error
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["static"] = static
    return made


# Referrer-Policy: `no-referrer` would make a form send `Origin: null`; this sends the origin and never the token in the path.
PAGE_HEADERS: Final[Mapping[str, str]] = {
    "referrer-policy": "strict-origin",
    "x-content-type-options": "nosniff",
    "cache-control": "private, no-store",
    "x-robots-tag": "noindex, nofollow",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cross-origin-opener-policy": "same-origin",
}


def content_security_policy(*, form_actions: Sequence[str] = (), images: Sequence[str] = (), connect: str = "") -> str:
    """`form_actions`: origins that a form may lead to, including redirects."""
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            " ".join(("img-src 'self'", *images)),
            f"connect-src 'self' {connect}".rstrip(),
            " ".join(("form-action 'self'", *dict.fromkeys(form_actions))),
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    )


@lru_cache(maxsize=64)
def static(name: str) -> str:
    """The versioned URL of a static file; browsers may cache it forever."""
    version = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={version}"


def text_of(name: str, **context: object) -> str:
    return _templates().get_template(name).render(**context)


def render(
    name: str,
    status: int = 200,
    *,
    form_actions: Sequence[str] = (),
    policy: str | None = None,
    headers: Mapping[str, str] | None = None,
    **context: object,
) -> Response:
    """A template as a page. `policy` replaces the whole Content-Security-Policy."""
    return HTMLResponse(
        text_of(name, **context),
        status,
        {
            **PAGE_HEADERS,
            "content-security-policy": policy or content_security_policy(form_actions=form_actions),
            **(headers or {}),
        },
    )


def error_page(
    status: int, *, title: str | None = None, text: str | None = None, reference: str | None = None
) -> Response:
    """An error page that repeats nothing of the request. `reference`: the request's id."""
    usual_title, usual_text = error_texts(status)
    headers = {"retry-after": "60"} if status in (429, 503) else None
    return render(
        "error.html",
        status,
        headers=headers,
        code=status,
        title=title or usual_title,
        text=text or usual_text,
        reference=reference,
    )


def wants_html(accept: str) -> bool:
    return "text/html" in accept


def error_response(status: int, accept: str, *, reference: str | None = None) -> Response:
    """An error as a page or as a line of text, by the Accept header."""
    if wants_html(accept):
        return error_page(status, reference=reference)
    title, _ = error_texts(status)
    return PlainTextResponse(f"{title}\n", status, {"retry-after": "60"} if status in (429, 503) else None)


async def http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    response = error_response(error.status_code, request.headers.get("accept", ""))
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response


class _Files(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        versioned = scope.get("query_string", b"").startswith(b"v=")
        response.headers["cache-control"] = "public, max-age=31536000, immutable" if versioned else "no-cache"
        return response


routes: Final = [Mount("/static", _Files(directory=STATIC), name="static")]
