"""Webhooks of processors and channels. Bodies go to the services unchanged and are never logged."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from models.errors import NotFound
from models.ids import PREFIXES, parse_public_id
from services.core import webhooks
from services.core.rate_limits import RateLimiter
from services.messaging import inbound
from services.payments import processor_webhooks
from settings import Settings
from web import metrics

log = structlog.get_logger(__name__)


class Forgeries:
    """Bad signatures by connection and address. After many, still checks some, because the vendor may share the address."""

    FAILURES_PER_S: Final = 0.5
    FAILURES: Final = 30
    CHECKS_PER_S: Final = 20
    CHECKS: Final = 200

    def __init__(self) -> None:
        self._failures = RateLimiter(self.FAILURES_PER_S, self.FAILURES)
        self._checks = RateLimiter(self.CHECKS_PER_S, self.CHECKS)

    def many(self, key: str) -> bool:
        return not self._failures.allows(key)

    def may_check(self, key: str) -> bool:
        return self._checks.take(key)

    def add(self, key: str) -> None:
        self._failures.take(key)


async def processor(request: Request) -> Response:
    name, text = request.path_params["processor"], request.path_params["connection"]
    connection_id = parse_public_id(text, PREFIXES["Processor"])
    if connection_id is None:
        return _answer("unknown", "not found", 404)
    forgeries, key = _counted(request, text)
    if forgeries.many(key) and not forgeries.may_check(key):
        return _too_many(name)
    try:
        await processor_webhooks.receive(
            name, connection_id, await request.body(), dict(request.headers), dict(request.query_params)
        )
    except NotFound:
        return _answer("unknown", "not found", 404)
    except webhooks.BadSignature as error:
        return _forged(request, name, text, error)
    except webhooks.BadPayload as error:
        return _refuse(name, text, "bad_payload", error)
    except webhooks.NotVerifiable as error:
        return _refuse(name, text, "not_verifiable", error, status=503)
    return _answer(name, "ok", 200)


async def channel(request: Request) -> Response:
    """Takes delivery statuses, messages and the vendor's check of the address."""
    settings: Settings = request.app.state.settings
    name, text = request.path_params["provider"], request.path_params["connection"]
    connection_id = parse_public_id(text, PREFIXES["Channel"])
    if connection_id is None:
        return _answer("unknown", "not found", 404)
    path = request.scope.get("raw_path", request.url.path.encode()).decode("latin-1").partition("?")[0]
    query = request.url.query
    forgeries, key = _counted(request, text)
    if forgeries.many(key) and not forgeries.may_check(key):
        return _too_many(name)
    called = inbound.WebhookRequest(
        method=request.method,
        # Vendors sign the public address, which a proxy may change on the way.
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
    except webhooks.BadSignature as error:
        return _forged(request, name, text, error)
    except webhooks.BadPayload as error:
        return _refuse(name, text, "bad_payload", error)
    except webhooks.NotVerifiable as error:
        return _refuse(name, text, "not_verifiable", error, status=503)
    metrics.webhooks_total.labels(name, "ok").inc()
    return Response(taken.answer_body, 200, media_type=taken.answer_type)


def _counted(request: Request, connection: str) -> tuple[Forgeries, str]:
    state = request.app.state
    if not hasattr(state, "forgeries"):
        state.forgeries = Forgeries()
    return state.forgeries, f"{connection} {request.scope['state']['client_address']}"


def _forged(request: Request, provider: str, connection: str, error: Exception) -> Response:
    forgeries, key = _counted(request, connection)
    if forgeries.many(key):
        return _too_many(provider)  # without a log line
    forgeries.add(key)
    return _refuse(provider, connection, "bad_signature", error)


def _too_many(provider: str) -> Response:
    metrics.webhooks_total.labels(provider, "too_many").inc()
    return PlainTextResponse("too many bad signatures\n", 429, {"retry-after": "2"})


def _refuse(provider: str, connection: str, result: str, error: Exception, *, status: int = 400) -> Response:
    # The reason is our code ("signature_stale"), never the vendor's text. `connection` was parsed: it cannot forge a log line.
    log.warning(
        "webhook refused",
        provider=provider,
        connection=connection,
        result=result,
        reason=str(error)[:80],
    )
    return _answer(provider, result.replace("_", " "), status, result)


def _answer(provider: str, text: str, status: int, result: str = "") -> Response:
    # "unknown" for unchecked names: a metric must have few labels.
    metrics.webhooks_total.labels(provider, result or ("ok" if status == 200 else "not_found")).inc()
    return PlainTextResponse(text + "\n", status)


routes: Final = [
    Route("/webhooks/{processor}/{connection}", processor, methods=["POST"]),
    Route("/inbound/{provider}/{connection}", channel, methods=["GET", "POST"]),
]
