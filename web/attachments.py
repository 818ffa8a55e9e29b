"""Contacts' files under signed addresses that expire. 404 for every invalid address."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from services.messaging import attachments

HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "sandbox; default-src 'none'; frame-ancestors 'none'",
    "cache-control": "private, no-store",
    "cross-origin-resource-policy": "cross-origin",  # an inbox of another origin shows the picture
}


async def attachment(request: Request) -> Response:
    """Pictures inline, everything else as a download."""
    query = request.query_params
    found = await attachments.opened(request.path_params["attachment"], query.get("e", ""), query.get("s", ""))
    if found is None:
        return PlainTextResponse("not found\n", 404)
    text = "; charset=utf-8" if found.content_type == "text/plain" else ""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._- ") else "_" for c in found.name)
    place = "inline" if found.inline else "attachment"
    return Response(
        found.content,
        headers={
            **HEADERS,
            "content-type": found.content_type + text,
            "content-disposition": f"{place}; filename=\"{plain}\"; filename*=UTF-8''{quote(found.name, safe='')}",
        },
    )


routes: Final = [Route("/attachments/{attachment}", attachment, methods=["GET"])]
