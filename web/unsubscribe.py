"""Where an e-mail's List-Unsubscribe leads: mail programs post there in one click (RFC 8058), people press the button of its page.

GET changes nothing: link previews and mail scanners open addresses, too.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models.errors import NotFound
from services import opt_outs
from web.pages import error_page, render


async def show(request: Request) -> Response:
    """The page with the button."""
    try:
        name, _ = await opt_outs.written_by(request.path_params["token"])
    except NotFound:
        return error_page(404)
    return _page(name, done=False)


async def unsubscribe(request: Request) -> Response:
    """Opt out. By mail programs, which send no Origin and follow no redirect, and by the page's button. Safe to repeat."""
    try:
        name = await opt_outs.unsubscribe(request.path_params["token"])
    except NotFound:
        return error_page(404)
    return _page(name, done=True)


def _page(name: str, *, done: bool) -> Response:
    return render("unsubscribe.html", business=name, done=done)


routes = [
    Route("/unsubscribe/{token}", show, methods=["GET"]),
    Route("/unsubscribe/{token}", unsubscribe, methods=["POST"]),
]
