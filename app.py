"""The ASGI application: schemas, routes, middleware, lifespan."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

# isort: off
from models import quick_imports  # noqa: F401 (before everything that imports Tortoise and structlog)

# isort: on
from commands import job_modules  # noqa: F401 (their jobs register themselves)
from integrations.broadcast import open_bus
from models import database, event_log, vault
from resolvers.assemble import SHARING, build_schema, new_context
from resolvers.transport.bodies import BodyLimit
from resolvers.transport.http import GraphQLView, get_view
from resolvers.transport.limits import Limits
from resolvers.visitor.assemble import LIMITS as VISITOR_LIMITS
from resolvers.visitor.assemble import build_visitor_schema, credential_of
from resolvers.visitor.context import VisitorContext
from services.accounts import authentication, login
from services.connections import providers
from services.core import configuration, job_runner, turns, unit_of_work
from services.core.configuration import Configuration
from services.core.event_hub import Hub
from services.payments import checkout_reads
from services.sandbox import webhooks as sandbox_webhooks
from services.team import limits as team_limits
from services.web_chat import visits
from settings import Settings
from web import (
    attachments,
    graphiql,
    health,
    index,
    log_setup,
    middleware,
    pages,
    phone,
    site,
    team_pages,
    unsubscribe,
    webhooks,
    widget,
)
from web import checkout as checkout_pages
from web import sandbox as sandbox_pages

GRAPHQL: Final = "/graphql"
WIDGET_GRAPHQL: Final = "/widget/graphql"
JOBS_WAIT_S: Final = 1.0  # for a row's lock


def create_app(settings: Settings | None = None) -> Starlette:
    settings = settings or Settings()
    log_setup.configure(settings.log_level)
    configure(settings)
    graphql, widget_graphql = _team_graphql(settings), _visitor_graphql(settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with running(settings) as hub:
            app.state.hub = hub
            yield

    app = Starlette(
        routes=_routes(settings, graphql, widget_graphql),
        middleware=middleware_stack(settings),
        exception_handlers=middleware.exception_handlers,
        lifespan=lifespan,
    )
    app.state.settings = settings
    app.state.before_shutdown = (graphql.end_streams, widget_graphql.end_streams)
    app.state.stopping = asyncio.Event()
    return app


def _team_graphql(settings: Settings) -> GraphQLView:
    def get_context(request: Request | WebSocket, connection_params: dict[str, Any] | None) -> Any:
        return new_context(
            **_request_values(request),
            user_agent=request.headers.get("user-agent", ""),
            accept_language=request.headers.get("accept-language", ""),
        )

    return get_view(
        build_schema(
            production=settings.production,
            introspection=settings.graphiql_open,
            plans=settings.compile_operations,
            sandbox=settings.sandbox_open,
        ),
        get_context=get_context,
        authenticate=authentication.authenticate,
        is_signed=authentication.is_signed,
        still_valid=authentication.still_valid,
        allowed_origins=settings.origins,
        local_origins=not settings.production,
        sharing=SHARING if settings.share_subscriptions else None,
        answer_bytes=settings.answer_cache_mb * 1_000_000,
        show_cost=settings.environment == "development",
        limits=Limits(requests_per_s=settings.graphql_limit, requests_burst=2 * settings.graphql_limit),
    )


def _visitor_graphql(settings: Settings) -> GraphQLView:
    def get_context(request: Request | WebSocket, connection_params: dict[str, Any] | None) -> Any:
        return VisitorContext(**_request_values(request))

    return get_view(
        build_visitor_schema(production=settings.production),
        get_context=get_context,
        authenticate=visits.authenticate,
        still_valid=visits.still_valid,
        # The widget's frame is served from PUBLIC_URL, whichever site shows it.
        allowed_origins=settings.origins[:1],
        origin_remedy="only pages of PUBLIC_URL may call the web chat",
        queries_by_get=False,
        limits=VISITOR_LIMITS,
        credential_of=credential_of,
        cross_origin_posts=False,
    )


def _request_values(request: Request | WebSocket) -> dict[str, Any]:
    state = request.scope.get("state", {})
    return {
        "hub": request.app.state.hub,
        "client_address": state.get("client_address", ""),
        "request_id": state.get("request_id", ""),
    }


def middleware_stack(settings: Settings) -> list[Middleware]:
    # GraphQL limits its own bodies, because other origins can read its refusals only with CORS headers.
    bodies = Middleware(
        BodyLimit, limit_of=middleware.body_limit, refuse=middleware.refuse_body, exempt={GRAPHQL, WIDGET_GRAPHQL}
    )
    return [*middleware.stack(settings), bodies]


def health_app(settings: Settings, hub: Hub) -> Starlette:
    """For the worker."""
    app = Starlette(routes=[*health.routes])
    app.state.settings, app.state.hub = settings, hub
    return app


def configure(settings: Settings) -> None:
    """Every process calls this."""
    vault.open_vault(settings.keys)
    configuration.use(Configuration.of(settings))


def opened(settings: Settings) -> AbstractAsyncContextManager[None]:
    return database.open_database(
        settings.database_url,
        pool_max=settings.database_pool_size,
        lock_timeout_ms=int(settings.database_lock_timeout_s * 1000),
    )


@asynccontextmanager
async def running(settings: Settings, *, jobs_too: bool | None = None) -> AsyncIterator[Hub]:
    """Everything that runs as long as the process; the database stops last."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(opened(settings))
        await providers.load_connected()
        stack.push_async_callback(providers.aclose)
        stack.push_async_callback(sandbox_webhooks.aclose)
        stack.push_async_callback(checkout_reads.aclose)
        stack.push_async_callback(login.aclose)
        stack.push_async_callback(visits.aclose)
        stack.push_async_callback(team_limits.aclose)
        bus = await open_bus(settings.events_url)
        stack.push_async_callback(bus.aclose)
        hub = Hub(bus, event_log.read, event_log.heads)
        await hub.start()
        stack.push_async_callback(hub.stop)
        unit_of_work.on_change(hub.announce)
        stack.callback(unit_of_work.on_change, None)
        if settings.run_jobs if jobs_too is None else jobs_too:
            runner = job_runner.Runner()
            with turns.patience(JOBS_WAIT_S):  # its jobs inherit it: they can retry, and other jobs need the slots
                await runner.start()
            stack.push_async_callback(runner.stop)
        yield hub


def _routes(settings: Settings, graphql: GraphQLView, widget_graphql: GraphQLView) -> list[BaseRoute]:
    routes: list[BaseRoute] = [
        Route(GRAPHQL, graphql, methods=None),
        WebSocketRoute(GRAPHQL, graphql),
        Route(WIDGET_GRAPHQL, widget_graphql, methods=None),
        WebSocketRoute(WIDGET_GRAPHQL, widget_graphql),
        *index.routes,
        *checkout_pages.routes,
        *unsubscribe.routes,
        *team_pages.routes,
        *webhooks.routes,
        *widget.routes,
        *attachments.routes,
        *health.routes,
    ]
    if settings.graphiql_open:
        routes += graphiql.routes
    if settings.sandbox_open:
        routes += sandbox_pages.routes
    if settings.demo_open:
        routes += [*phone.routes, *site.routes]
    return [*routes, *pages.routes]


def __getattr__(name: str) -> Callable[..., Any]:
    if name == "app":  # for `uvicorn app:app`; importing creates no application
        return create_app()
    raise AttributeError(name)
