"""A running Paythread for flow tests, with clients for the agent, the contact and vendors, over HTTP and WebSocket only.

The server is the production one (uvicorn with our protocol classes) on a free port, in the test's loop. `process()` runs it as a
process that a test can kill.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, Self
from unittest import mock
from uuid import uuid4

import httpx2
from websockets.asyncio.client import ClientConnection, connect

import app as application
from resolvers.assemble import build_schema
from resolvers.transport.server import Server, listen, server_config
from resolvers.visitor.assemble import build_visitor_schema
from services.core import job_runner
from settings import Settings

ROOT = Path(__file__).resolve().parents[2]
POLL_S = 0.05  # of the job runner
PASSWORD = "correct horse battery staple"
KEYS = "test-key-one-of-sixteen-or-more"


class GraphQLFailed(AssertionError):
    """The response had top-level errors."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__(json.dumps(errors))
        self.errors = errors

    @property
    def code(self) -> str | None:
        code: str | None = self.errors[0].get("extensions", {}).get("code")
        return code


class Feed:
    """One subscription on one socket."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.seen: list[dict[str, Any]] = []
        self.cursor: str | None = None

    async def next(self, *, within: float = 10) -> dict[str, Any]:
        while True:
            message = json.loads(await asyncio.wait_for(self._socket.recv(), within))
            if message["type"] == "next":
                payload = message["payload"]
                if payload.get("errors"):
                    raise GraphQLFailed(payload["errors"])
                event: dict[str, Any]
                (event,) = payload["data"].values()
                self.seen.append(event)
                self.cursor = event["cursor"]
                return event
            if message["type"] == "error":
                raise GraphQLFailed(message["payload"])
            if message["type"] == "complete":
                raise AssertionError("the feed ended")

    async def until(self, typename: str, *, within: float = 10, **fields: Any) -> dict[str, Any]:
        """The next event of this type with these field values (`__` separates levels); earlier events stay in `seen`."""
        async with asyncio.timeout(within):
            while True:
                event = await self.next(within=within)
                if event["__typename"] == typename and all(_at(event, k) == v for k, v in fields.items()):
                    return event

    async def nothing(self, *, for_s: float = 0.4) -> None:
        """Fail if an event arrives within this time."""
        with contextlib.suppress(TimeoutError):
            event = await self.next(within=for_s)
            raise AssertionError(f"unexpected event {event}")


def _at(event: Any, path: str) -> Any:
    for part in path.split("__"):
        event = event[part] if event is not None else None
    return event


class Product:
    """A running server and clients for it."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.http = httpx2.AsyncClient(base_url=base_url, timeout=15)
        self.token: str | None = None

    async def aclose(self) -> None:
        await self.http.aclose()

    # -------------------------------------------------------------------------------------------------------- GraphQL
    async def raw(self, query: str, variables: Mapping[str, Any] | None = None, *, token: str | None = None) -> Any:
        """The response of one operation."""
        headers = {"Accept": "application/json"}
        if token or self.token:
            headers["Authorization"] = f"Bearer {token or self.token}"
        answer = await self.http.post("/graphql", json={"query": query, "variables": variables or {}}, headers=headers)
        return answer.json()

    async def gql(
        self, query: str, variables: Mapping[str, Any] | None = None, *, token: str | None = None
    ) -> dict[str, Any]:
        """The data of one operation. Raises: GraphQLFailed."""
        body = await self.raw(query, variables, token=token)
        if body.get("errors"):
            raise GraphQLFailed(body["errors"])
        data: dict[str, Any] = body["data"]
        return data

    async def one(self, query: str, variables: Mapping[str, Any] | None = None, *, token: str | None = None) -> Any:
        """The value of the only root field. Raises: GraphQLFailed."""
        (value,) = (await self.gql(query, variables, token=token)).values()
        return value

    async def ok(self, query: str, input: Mapping[str, Any] | None = None, *, token: str | None = None) -> Any:
        """The payload of a mutation that takes `$input`; it must have no userErrors."""
        payload = await self.one(query, {"input": input}, token=token)
        assert payload["userErrors"] == [], payload["userErrors"]
        return payload

    @asynccontextmanager
    async def subscribe(
        self, query: str, variables: Mapping[str, Any] | None = None, *, token: str | None = None
    ) -> AsyncIterator[Feed]:
        """One subscription on a new socket; the token is sent in connection_init."""
        url = self.base_url.replace("http", "ws", 1) + "/graphql"
        async with connect(url, subprotocols=["graphql-transport-ws"], close_timeout=1) as ws:  # type: ignore[list-item]
            init = {"Authorization": f"Bearer {token or self.token}"} if token or self.token else {}
            await ws.send(json.dumps({"type": "connection_init", "payload": init}))
            assert json.loads(await asyncio.wait_for(ws.recv(), 10))["type"] == "connection_ack"
            payload = {"query": query, "variables": variables or {}}
            await ws.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))
            yield Feed(ws)

    async def sign_in(self, email: str, password: str = PASSWORD) -> str:
        payload = await self.ok(
            "mutation($input: SignInInput!) { signIn(input: $input) { accessToken userErrors { code field message } } }",
            {"email": email, "password": password},
        )
        token: str = payload["accessToken"]
        return token

    # -------------------------------------------------------------------------------------------------------- contact
    def browser(self) -> Browser:
        return Browser(self.base_url)


class Browser:
    """A contact's browser without JavaScript: open, read, submit forms. It keeps cookies and follows redirects."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.http = httpx2.AsyncClient(base_url=base_url, follow_redirects=True, timeout=15)
        self.url = base_url
        self.status = 0
        self.text = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    def _take(self, answer: httpx2.Response) -> Self:
        self.url, self.status, self.text = str(answer.url), answer.status_code, answer.text
        return self

    async def open(self, url: str) -> Self:
        return self._take(await self.http.get(url))

    async def press(self, label: str) -> Self:
        """Submit the form whose button text contains `label`."""
        for form in re.findall(r"<form\b.*?</form>", self.text, re.S):
            for attributes, inner in re.findall(r"<button\b([^>]*)>(.*?)</button>", form, re.S):
                if label.lower() in re.sub(r"<[^>]+>|\s+", " ", inner).lower():
                    return await self._submit(form, attributes)
        raise AssertionError(f"no button {label!r} on {self.url} ({self.status}):\n{self.text[:2000]}")

    async def _submit(self, form: str, button: str) -> Self:
        head = re.match(r"<form\b([^>]*)>", form)
        assert head is not None
        action = re.search(r'action="([^"]*)"', head[1])
        fields: dict[str, str] = {}
        for attributes in re.findall(r"<input\b([^>]*)>", form):
            name, value = re.search(r'name="([^"]*)"', attributes), re.search(r'value="([^"]*)"', attributes)
            if name:
                fields[name[1]] = value[1] if value else ""
        name, value = re.search(r'name="([^"]*)"', button), re.search(r'value="([^"]*)"', button)
        if name:
            fields[name[1]] = value[1] if value else ""
        target = httpx2.URL(self.url).join(action[1].replace("&amp;", "&") if action else self.url)
        origin = f"{target.scheme}://{target.netloc.decode()}"
        return self._take(await self.http.post(target, data=fields, headers={"Origin": origin}))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(port: int, database_url: str, events_url: str, **more: str) -> dict[str, str]:
    return {
        "ENVIRONMENT": "test",
        "ALLOWED_PRIVATE_HOSTS": "127.0.0.1:*",  # the mail server of the tests
        "DATABASE_URL": database_url,
        "EVENTS_URL": events_url,
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        "SECRET_KEYS": KEYS,
        "LOG_LEVEL": "error",
        "LOGIN_LIMIT": "1000/minute",
        "LOGIN_ADDRESS_LIMIT": "1000/minute",
        "TOKEN_LIMIT": "1000/minute",
        "INVITATION_LIMIT": "1000/minute",
        "RESET_LIMIT": "1000/minute",
        "GRAPHQL_LIMIT": "2000",
        "WIDGET_ADDRESS_LIMIT": "1000/minute",
        "WIDGET_VISITOR_LIMIT": "1000/minute",
        **more,
    }


# A mail server that is configured and never called, for servers without jobs.
MAIL = {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": "9", "SMTP_SECURITY": "none", "SMTP_FROM": "desk@example.com"}

_build_schema = cache(build_schema)
_build_visitor_schema = cache(build_visitor_schema)


@asynccontextmanager
async def in_process(database_url: str, events_url: str, **more: str) -> AsyncIterator[Product]:
    """Run the server in the test's loop."""
    listener = listen("127.0.0.1", 0)
    port = int(listener.getsockname()[1])
    values = {k.lower(): v for k, v in environment(port, database_url, events_url, **more).items()}
    # Building the two schemas takes 100 ms; they hold nothing of one application.
    with mock.patch.multiple(application, build_schema=_build_schema, build_visitor_schema=_build_visitor_schema):
        app = application.create_app(Settings(_env_file=None, **values))  # type: ignore[call-arg, arg-type]
    config = server_config(app, lifespan="on", log_config=None, loop="none")
    server = Server(config, before_shutdown=app.state.before_shutdown)
    with mock.patch.dict(job_runner.Runner.__init__.__kwdefaults__, poll_s=POLL_S):
        task = asyncio.create_task(server._serve([listener]))
        while not server.started:
            if task.done():
                task.result()
                raise RuntimeError("the server ended")
            await asyncio.sleep(0.005)
    product = Product(f"http://127.0.0.1:{port}")
    try:
        yield product
    finally:
        await product.aclose()
        server.should_exit = True
        await task
        listener.close()


class Process:
    """A server or worker as a separate process; `port` answers /readyz."""

    def __init__(
        self, port: int, environ: dict[str, str], arguments: tuple[str, ...] = (), *, command: str = "serve"
    ) -> None:
        self.port = port
        self._command = command
        self._environ = environ
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "cli.py",
            self._command,
            *self._arguments,
            cwd=ROOT,
            env={**os.environ, **self._environ},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(60), httpx2.AsyncClient() as http:
            while True:
                with contextlib.suppress(httpx2.TransportError):
                    if (await http.get(f"http://127.0.0.1:{self.port}/readyz")).status_code == 200:
                        return
                assert self._process.returncode is None, f"the {self._command} ended"
                await asyncio.sleep(0.05)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def ended(self, *, within: float = 20) -> int:
        """Wait for the end; return the exit code."""
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), within)

    async def kill(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
        await self._process.wait()


@asynccontextmanager
async def process(
    database_url: str, events_url: str, *, arguments: tuple[str, ...] = (), **more: str
) -> AsyncIterator[tuple[Product, Process]]:
    """Run the server as a process that can be killed and restarted on the same port."""
    port = free_port()
    server = Process(port, environment(port, database_url, events_url, **more), arguments)
    product = Product(f"http://127.0.0.1:{port}")
    try:
        await server.start()
        yield product, server
    finally:
        await product.aclose()
        await server.kill()


def key() -> str:
    """A new idempotency key."""
    return str(uuid4())
