"""The List-Unsubscribe address of emails (RFC 8058). GET changes nothing, because scanners open addresses."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from models.errors import NotFound
from services.messaging import opt_outs
from web import lengthened
from web.pages import PAGE_HEADERS, error_page, render

TOKEN_LENGTH: Final = 43  # characters: 32 bytes in base64url


async def show(request: Request) -> Response:
    rest = request.path_params["rest"]
    for token in lengthened.tokens(rest, TOKEN_LENGTH):
        try:
            name, _ = await opt_outs.written_by(token)
        except NotFound:
            continue
        return (
            _page(name, done=False) if token == rest else RedirectResponse(f"/unsubscribe/{token}", 303, PAGE_HEADERS)
        )
    return error_page(404)


async def unsubscribe(request: Request) -> Response:
    """Opt out. Idempotent. Mail programs send no Origin and follow no redirect."""
    for token in lengthened.tokens(request.path_params["rest"], TOKEN_LENGTH):
        try:
            return _page(await opt_outs.unsubscribe(token), done=True)
        except NotFound:
            continue
    return error_page(404)


def _page(name: str, *, done: bool) -> Response:
    return render("unsubscribe.html", business=name, done=done)


routes = [
    Route("/unsubscribe/{rest:rest}", show, methods=["GET"]),
    Route("/unsubscribe/{rest:rest}", unsubscribe, methods=["POST"]),
]
