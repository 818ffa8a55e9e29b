"""GET /: a page that links to everything that this server offers."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models.tables import PaymentRequest
from services.thread import payment_links
from settings import Settings
from web import demo
from web.pages import render

SHOWN: Final = 8


async def index(request: Request) -> Response:
    """Production shows only the API's address and the health checks."""
    settings: Settings = request.app.state.settings
    found = demo.access(request)
    shown: list[dict[str, str]] = []
    if found is not None:
        newest = (
            await PaymentRequest.filter(account_id=found.account_id, discarded_at=None).order_by("-id").limit(SHOWN)
        )
        shown = [
            {
                "url": payment_links.checkout_url(row),
                "number": row.number,
                "product": row.product_name,
                "status": row.status.replace("_", " ").lower(),
            }
            for row in newest
        ]
    return render("index.html", graphiql=settings.graphiql_open, demo_open=settings.demo_open, demo=found, links=shown)


routes: Final = [Route("/", index, methods=["GET"])]
