"""Demo page /demo/site: like a business's own, with the chat widget. Only in the demo."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models.ids import public_id
from models.tables import ChannelConnection
from settings import Settings
from web import demo
from web.pages import error_page, render

# The policy of docs/howto/add-web-chat.md, and this page's own style sheet.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; frame-src 'self'; style-src 'self'; img-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


async def show(request: Request) -> Response:
    settings: Settings = request.app.state.settings
    if not settings.demo_open:
        return error_page(404)
    access = demo.access(request)
    row = None
    if access is not None:
        found = ChannelConnection.filter(account_id=access.account_id, provider="web_chat", connected=True)
        row = await found.order_by("id").first()
    return render("site.html", policy=POLICY, key=public_id("chn", row.id) if row is not None else None)


routes: Final = [Route("/demo/site", show, methods=["GET"])]
