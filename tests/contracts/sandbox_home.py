"""The sandbox processor on its own server, for tests of its provider: API, hosted page, delivered webhooks."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import httpx2
import orjson
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from integrations.base import Environment
from integrations.kit.vendor import NONSENSE, RETRY_AFTER_S, FailureMode, LoopbackServer
from integrations.processors.sandbox import Credentials, Sandbox
from models import vault
from models.ids import public_id
from models.tables import ProcessorConnection, SandboxCheckout
from resolvers.transport.bodies import BodyLimit
from services.core import job_runner
from services.sandbox import webhooks as sandbox_webhooks
from tests import factories
from tests.configured import change
from web import middleware
from web import sandbox as sandbox_pages

SECRET_KEY = "sbx_test_key_of_the_home_0001"
WEBHOOK_SECRET = "sbx_whsec_of_the_home_0001"
KEYS = ["key-of-the-sandbox-home-0001"]


class SandboxHome:
    """Use inside an open database: `async with SandboxHome() as home`. Jobs run only in `deliver`."""

    connection: ProcessorConnection
    server: LoopbackServer

    def __init__(self, *, webhook_secret: str = WEBHOOK_SECRET) -> None:
        self._webhook_secret = webhook_secret
        self._failures: list[FailureMode] = []
        self._stack = contextlib.AsyncExitStack()
        self.deliveries: list[tuple[bytes, dict[str, str]]] = []
        self.door_status = 200

    async def __aenter__(self) -> Self:
        vault.open_vault(KEYS)
        routes = [*sandbox_pages.routes, Route("/webhooks/sandbox/{connection}", self._door, methods=["POST"])]
        bodies = Middleware(BodyLimit, limit_of=middleware.body_limit, refuse=middleware.refuse_body)
        app = Starlette(routes=routes, exception_handlers=middleware.exception_handlers, middleware=[bodies])
        self.server = await self._stack.enter_async_context(LoopbackServer(_Failing(app, self)))
        self._stack.push_async_callback(sandbox_webhooks.aclose)
        self.environment = Environment(public_url=self.server.url, sandbox_url=self.server.url)
        change(environment=self.environment)
        account = await factories.account(name="Acme Plumbing")
        self.connection = await factories.processor_connection(
            account, credentials={"secret_key": SECRET_KEY, "webhook_secret": self._webhook_secret}
        )
        self.http = await self._stack.enter_async_context(httpx2.AsyncClient(base_url=self.server.url, trust_env=False))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def provider(
        self, *, secret_key: str = SECRET_KEY, webhook_secret: str | None = None, timeout_s: float = 10
    ) -> Sandbox:
        """A provider of this connection. The caller closes it."""
        environment = dataclasses.replace(self.environment, timeout_s=timeout_s)
        secret = self._webhook_secret if webhook_secret is None else webhook_secret
        url = f"{self.server.url}/webhooks/sandbox/{public_id('prc', self.connection.id)}"
        return Sandbox(Credentials(secret_key, secret), environment=environment, webhook_url=url)

    def fail_next(self, mode: FailureMode) -> None:
        """Let the next API call fail, see ContractServer."""
        self._failures.append(mode)

    async def press(self, external_id: str, action: str) -> httpx2.Response:
        """Press a button of the hosted page."""
        return await self.http.post(f"/sandbox/pay/{external_id}", data={"action": action})

    async def deliver(self) -> list[tuple[bytes, dict[str, str]]]:
        """Run all due jobs; return the webhooks that they delivered, oldest first."""
        before = len(self.deliveries)
        await job_runner.Runner().run_due()
        return self.deliveries[before:]

    async def settle(self) -> None:
        """Make the pending payments due."""
        from models import database  # the module's name is a fixture's in most tests

        await database.execute("UPDATE job SET due_at = created_at WHERE kind = 'sandbox.settle'")

    async def checkouts(self) -> int:
        """How many checkouts the sandbox keeps."""
        return await SandboxCheckout.all().count()

    async def _door(self, request: Request) -> Response:
        self.deliveries.append((await request.body(), dict(request.headers)))
        return PlainTextResponse("ok", self.door_status)


class _Failing:
    """Breaks API calls on demand, before or after they are done."""

    def __init__(self, app: ASGIApp, home: SandboxHome) -> None:
        self._app = app
        self._home = home

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["path"].startswith("/sandbox/v1/") or not self._home._failures:
            await self._app(scope, receive, send)
            return
        mode = self._home._failures.pop(0)
        if mode == "rate_limit":
            slow_down = _answer(429, {"error": {"code": "rate_limited", "message": "slow down"}})
            slow_down.headers["retry-after"] = f"{RETRY_AFTER_S:.0f}"
            await slow_down(scope, receive, send)
            return
        if mode == "refuse":
            await _answer(400, {"error": {"code": "refused", "message": "no"}})(scope, receive, send)
            return
        if mode != "before_500":
            await self._app(scope, receive, _discard)
        if mode in NONSENSE:
            await Response(NONSENSE[mode])(scope, receive, send)
            return
        if mode in ("accept_then_500", "before_500"):
            await _answer(500, {"error": {"code": "internal", "message": "an error"}})(scope, receive, send)
            return
        if mode == "drop":
            self._home.server.cut(tuple(scope["client"]))
        # hang: nothing until the client gives up
        async with asyncio.timeout(10):
            while (await receive())["type"] != "http.disconnect":
                pass
        await _answer(500, {})(scope, receive, send)


async def _discard(message: Message) -> None:
    return None


def _answer(status: int, payload: Mapping[str, Any]) -> Response:
    return Response(orjson.dumps(payload), status, media_type="application/json")
