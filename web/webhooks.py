"""Where processors and channels call back: the raw body goes to the service as it came. Nothing of a body is ever logged.

404: no such connection, or one that takes no webhooks. 400: not from the vendor, or not what its contract says; nothing was kept.
503: it can't be told now whether it is true (the vendor is silent, the package is missing); nothing was kept, it sends again. 200: kept.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from models.errors import NotFound
from models.ids import PREFIXES, parse_public_id
from services import inbound, processor_events
from settings import Settings
from web import metrics

log = logging.getLogger(__name__)


async def processor(request: Request) -> Response:
    """One event of a payment processor."""
    name, text = request.path_params["processor"], request.path_params["connection"]
    connection_id = parse_public_id(text, PREFIXES["Processor"])
    if connection_id is None:
        return _answer("unknown", "not found", 404)
    try:
        await processor_events.receive(name, connection_id, await request.body(), dict(request.headers))
    except NotFound:
        return _answer("unknown", "not found", 404)
    except processor_events.BadSignature as error:
        return _refuse(name, text, "bad_signature", error)
    except processor_events.BadPayload as error:
        return _refuse(name, text, "bad_payload", error)
    except processor_events.NotVerifiable as error:
        return _refuse(name, text, "not_verifiable", error, status=503)
    return _answer(name, "ok", 200)


async def channel(request: Request) -> Response:
    """One callback of a messaging provider: delivery statuses, the contact's messages, or the check of the address."""
    settings: Settings = request.app.state.settings
    name, text = request.path_params["provider"], request.path_params["connection"]
    connection_id = parse_public_id(text, PREFIXES["Channel"])
    if connection_id is None:
        return _answer("unknown", "not found", 404)
    path = request.scope.get("raw_path", request.url.path.encode()).decode("latin-1").partition("?")[0]
    query = request.url.query
    called = inbound.WebhookRequest(
        method=request.method,
        # Vendors sign the address that they were given; behind a proxy ours looks different.
        public_url=f"{settings.base_url}{path}" + (f"?{query}" if query else ""),
        headers=dict(request.headers),
        body=await request.body(),
        now=datetime.now(UTC),
        query=dict(request.query_params),
    )
    try:
        taken = await inbound.receive(name, connection_id, called)
    except NotFound:
        return _answer("unknown", "not found", 404)
    except inbound.BadSignature as error:
        return _refuse(name, text, "bad_signature", error)
    except inbound.BadPayload as error:
        return _refuse(name, text, "bad_payload", error)
    except inbound.NotVerifiable as error:
        return _refuse(name, text, "not_verifiable", error, status=503)
    metrics.webhooks_total.labels(name, "ok").inc()
    return Response(taken.answer_body, 200, media_type=taken.answer_type)


def _refuse(provider: str, connection: str, result: str, error: Exception, *, status: int = 400) -> Response:
    # The reason is a word of ours ("signature_stale"), never the vendor's text. `connection` was parsed: it can't forge a line.
    log.warning(
        "webhook refused",
        extra={"provider": provider, "connection": connection, "result": result, "reason": str(error)[:80]},
    )
    return _answer(provider, result.replace("_", " "), status, result)


def _answer(provider: str, text: str, status: int, result: str = "") -> Response:
    # "unknown" for names that nobody has checked: a metric's labels must stay few.
    metrics.webhooks_total.labels(provider, result or ("ok" if status == 200 else "not_found")).inc()
    return PlainTextResponse(text + "\n", status)


routes: Final = [
    Route("/webhooks/{processor}/{connection}", processor, methods=["POST"]),
    Route("/inbound/{provider}/{connection}", channel, methods=["GET", "POST"]),
]
