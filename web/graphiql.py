"""/graphiql: the IDE without third-party requests and inline scripts. Built by `./dev inbox`."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from models.ids import PREFIXES, public_id
from models.tables import Conversation
from settings import Settings
from web import demo
from web.pages import content_security_policy, error_page, render

BUILT: Final = Path(__file__).parent.parent / "inbox" / "dist" / "graphiql"
FILES: Final = {
    "graphiql.min.js": "text/javascript",
    "graphiql.min.css": "text/css",
    "react.production.min.js": "text/javascript",
    "react-dom.production.min.js": "text/javascript",
    "graphiql.LICENSE.txt": "text/plain",
    "react.LICENSE.txt": "text/plain",
    "react-dom.LICENSE.txt": "text/plain",
}
EXAMPLES: Final = Path(__file__).parent / "static" / "examples"


async def page(request: Request) -> Response:
    settings: Settings = request.app.state.settings
    if not settings.graphiql_open:
        return error_page(404)
    if not (BUILT / "graphiql.min.js").is_file():
        return error_page(
            503,
            title="GraphiQL is not built yet",
            text="Run ./dev inbox once (it needs Node 20 and npm), then reload this page. The API works without it.",
        )
    own = urlsplit(settings.base_url)
    socket = f"{'wss' if own.scheme == 'https' else 'ws'}://{own.netloc}"
    return render(
        "graphiql.html",
        # CodeMirror's cursor and GraphiQL's icons are data: images. In some browsers 'self' does not include `ws:`.
        policy=content_security_policy(images=("data:",), connect=socket).replace(
            "base-uri", "font-src 'self' data:; base-uri"
        ),
        tabs=json.dumps(await examples(request)),
    )


async def examples(request: Request) -> list[dict[str, str]]:
    """The tabs: operation, variables and headers; in the demo with its ids and key."""
    found = demo.access(request)
    newest = await _newest(found.account_id) if found is not None else None
    contact = public_id(PREFIXES["Contact"], newest.contact_id) if newest else "cnt_…"
    conversation = public_id(PREFIXES["Conversation"], newest.id) if newest else "cnv_…"
    key = found.api_key if found else "<API key or access token>"
    variables = _variables(contact, conversation)
    headers = json.dumps({"Authorization": f"Bearer {key}"}, indent=2)
    return [
        {
            "query": (EXAMPLES / f"{name}.graphql").read_text(encoding="utf-8"),
            "variables": json.dumps(values, indent=2, ensure_ascii=False),
            "headers": headers,
        }
        for name, values in variables.items()
    ]


async def _newest(account_id: UUID) -> Conversation | None:
    conversations = Conversation.filter(account_id=account_id, merged_into_id=None)
    return await conversations.order_by("-last_activity_at", "-id").first()


def _variables(contact: str, conversation: str) -> dict[str, dict[str, object]]:
    return {
        "create_request": {
            "input": {
                # New on each visit: a repeated key returns the same request, or a mismatch for other arguments.
                "idempotencyKey": secrets.token_hex(8),
                "for": {"contactId": contact},
                "productName": "Deep clean, two rooms",
                "amount": {"amount": "25.00"},
            }
        },
        "read_thread": {"conversationId": conversation},
        "subscribe": {"conversationId": conversation},
        "list_conversations": {
            "filter": {"closed": False, "or": [{"unread": True}, {"waitingSince": {}}]},
            "orderBy": {"field": "WAITING_SINCE", "direction": "ASC"},
        },
        "save_view": {
            "input": {
                "idempotencyKey": secrets.token_hex(8),
                "name": "Unpaid, most due first",
                "shared": True,
                "list": {
                    "paymentRequests": {
                        "filter": {"status": ["SENT", "PARTIALLY_PAID"]},
                        "orderBy": {"field": "AMOUNT_DUE", "direction": "DESC"},
                    }
                },
            }
        },
    }


async def file(request: Request) -> Response:
    settings: Settings = request.app.state.settings
    name = request.path_params["name"]
    path = BUILT / name
    if not settings.graphiql_open or name not in FILES or not path.is_file():
        return error_page(404)
    return FileResponse(path, media_type=FILES[name], headers={"cache-control": "no-cache"})


routes: Final = [
    Route("/graphiql", page, methods=["GET"]),
    Route("/static/graphiql/{name}", file, methods=["GET"]),
]
