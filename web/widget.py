"""The chat widget's files: the loader that a site includes, and the page in its frame. What the chat does stands in the scripts themselves.

The page is the same for every key, and for none: only the header says on which sites the browser may show it.
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
    """The script for the sites. Its address never changes, so that browsers ask again after an hour."""
    return FileResponse(
        LOADER,
        media_type="text/javascript",
        headers={"cache-control": "public, max-age=3600", "cross-origin-resource-policy": "cross-origin"},
    )


async def sites(request: Request) -> Response:
    """The allowed sites, told to the loader as a script: all of them stand in the page's header for everybody to read."""
    row = await identity.widget(request.path_params["key"])
    listed = orjson.dumps(row.allowed_origins if row is not None else []).decode()
    headers = {"cache-control": "no-store", "cross-origin-resource-policy": "cross-origin"}
    return Response(f'Paythread("sites", {listed});\n', media_type="text/javascript", headers=headers)


async def frame(request: Request) -> Response:
    """The page in the frame. An unknown, a closed and an empty widget answer alike: no site may show it."""
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
