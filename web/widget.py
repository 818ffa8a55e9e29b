"""Files of the chat widget: the loader that a site includes, and the page in its frame."""

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
    return FileResponse(
        LOADER,
        media_type="text/javascript",
        headers={"cache-control": "public, max-age=3600", "cross-origin-resource-policy": "cross-origin"},
    )


async def sites(request: Request) -> Response:
    row = await identity.widget(request.path_params["key"])
    listed = orjson.dumps(row.allowed_origins if row is not None else []).decode()
    headers = {"cache-control": "no-store", "cross-origin-resource-policy": "cross-origin"}
    return Response(f'Paythread("sites", {listed});\n', media_type="text/javascript", headers=headers)


async def frame(request: Request) -> Response:
    """No site may show the page of an unknown, disconnected or empty widget."""
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
