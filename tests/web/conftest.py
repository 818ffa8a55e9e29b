"""The HTTP routes on a real server and database, without GraphQL."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tortoise.models import Model

from app import middleware_stack
from integrations.base import Environment
from integrations.broadcast import open_bus
from models import database, event_log, tables, vault
from resolvers.transport.server import Server, listen, server_config
from services.connections import providers
from services.core import job_runner
from services.core.event_hub import Hub
from services.messaging import messages
from services.sandbox import webhooks as sandbox_webhooks
from settings import Settings
from tests.configured import configure
from web import (
    checkout,
    graphiql,
    health,
    index,
    log_setup,
    middleware,
    pages,
    phone,
    sandbox,
    team_pages,
    unsubscribe,
    webhooks,
    widget,
)
from web import site as site_page

# Importing it registers the job handlers that a story needs.
assert messages is not None

TABLES = sorted(
    model._meta.db_table
    for model in vars(tables).values()
    if isinstance(model, type) and issubclass(model, Model) and not getattr(model._meta, "abstract", True)
)


async def snapshot() -> dict[str, list[str]]:
    return {
        table: sorted(repr(row) for row in await database.rows(f"SELECT * FROM {table}"))  # noqa: S608 (only constants are put in)
        for table in [*TABLES, "event"]
    }


@dataclass
class Site:
    base_url: str
    settings: Settings
    app: Starlette
    http: httpx2.AsyncClient
    log: io.StringIO

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]

    async def run_jobs(self) -> int:
        return await job_runner.Runner().run_due()


async def _breaks(request: Request) -> Response:
    raise RuntimeError("planted secret 4242424242424242")


async def _busy(request: Request) -> Response:
    raise TimeoutError


async def _echo(request: Request) -> Response:
    return Response(str(len(await request.body())), media_type="text/plain")


@asynccontextmanager
async def _serve(**overrides: Any) -> AsyncIterator[Site]:
    listener = listen("127.0.0.1", 0)
    port = int(listener.getsockname()[1])
    base_url = f"http://127.0.0.1:{port}"
    values = {"environment": "test", "port": port, "public_url": base_url, "sandbox_url": base_url, **overrides}
    settings = Settings(_env_file=None, **values)  # type: ignore[call-arg]
    vault.open_vault(settings.keys)
    configure(
        settings,
        environment=Environment(public_url=settings.base_url, sandbox_url=settings.sandbox_base_url, timeout_s=5),
        sandbox_open=True,
    )
    log = io.StringIO()
    log_setup.configure("info", log)
    app = Starlette(
        routes=[
            *index.routes,
            *checkout.routes,
            *unsubscribe.routes,
            *team_pages.routes,
            *webhooks.routes,
            *health.routes,
            *graphiql.routes,
            *sandbox.routes,
            *phone.routes,
            *site_page.routes,
            *widget.routes,
            *pages.routes,
            Route("/breaks", _breaks),
            Route("/busy", _busy),
            Route("/echo", _echo, methods=["POST"]),
        ],
        middleware=middleware_stack(settings),
        exception_handlers=middleware.exception_handlers,
    )
    bus = await open_bus("memory://")
    hub = Hub(bus, event_log.read, event_log.heads)
    await hub.start()
    app.state.settings = settings
    app.state.hub = hub
    server = Server(server_config(app, lifespan="off", log_config=None, loop="none"))
    serving = asyncio.create_task(server._serve([listener]))
    while not server.started:
        assert not serving.done(), serving.result()
        await asyncio.sleep(0.005)
    async with httpx2.AsyncClient(base_url=base_url, trust_env=False, timeout=10) as http:
        try:
            yield Site(base_url, settings, app, http, log)
        finally:
            server.should_exit = True
            await serving
            await hub.stop()
            await bus.aclose()
            await providers.aclose()
            await sandbox_webhooks.aclose()


Serve = Callable[..., AbstractAsyncContextManager[Site]]


@pytest.fixture
def serve(database: str) -> Serve:
    def start(**overrides: Any) -> AbstractAsyncContextManager[Site]:
        return _serve(database_url=database, **overrides)

    return start


@pytest.fixture
async def site(serve: Serve) -> AsyncIterator[Site]:
    async with serve() as running:
        yield running
