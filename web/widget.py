"""Files of the chat widget: the loader that a site includes, and the page in its frame.

The page is the same for every key; only its Content-Security-Policy differs, with the sites that may show it.
"""

from __future__ import annotations

from typing import Final

import orjson
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from services.web_chat import identity
from web.pages import STATIC, render

LOADER: Final = STATIC / "widget.js"


async def loader(request: Request) -> Response:
    """The script that sites include. Its URL is fixed, so browsers cache it for an hour only."""
    return FileResponse(
        LOADER,
        media_type="text/javascript",
        headers={"cache-control": "public, max-age=3600", "cross-origin-resource-policy": "cross-origin"},
    )


async def sites(request: Request) -> Response:
    """The allowed sites as a script for the loader; they are public in the page's header anyway."""
    row = await identity.widget(request.path_params["key"])
    listed = orjson.dumps(row.allowed_origins if row is not None else []).decode()
    headers = {"cache-control": "no-store", "cross-origin-resource-policy": "cross-origin"}
    return Response(f'Paythread("sites", {listed});\n', media_type="text/javascript", headers=headers)


async def frame(request: Request) -> Response:
    """The page in the frame. No site may show that of an unknown, disconnected or empty widget."""
    row = await identity.widget(request.path_params["key"])
    sites = " ".join(row.allowed_origins) if row is not None else "'none'"
    policy = "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            "form-action 'none'",
            "base-uri 'none'",
            f"frame-ancestors {sites}",
        )
    )
    return render("widget.html", 200 if row is not None else 404, policy=policy)


routes: Final = [
    Route("/widget.js", loader, methods=["GET"]),
    Route("/widget/{key}", frame, methods=["GET"]),
    Route("/widget/{key}/sites.js", sites, methods=["GET"]),
]
