"""`./dev bench views`: many sockets on live views while the account changes, and whether they show what a query shows.

The server is a process of its own; this process changes data through the API and reads every socket.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from models import migrate
from models.database import open_database
from services.accounts import accounts
from tests import servers
from tests.conftest import database_beside, run_on
from tests.flows import documents as d
from tests.flows import harness
from tests.flows.harness import PASSWORD, Product, key
from tests.flows.test_live_views import CREATE, EVENTS, Screen

SOCKETS_PER_KEY = 20
CLOSE, PING, PONG = 8, 9, 10
UPGRADE = (
    b"GET /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
)
CONTACTS = 150
REQUESTS = [
    {},
    *({"status": [status]} for status in ("DRAFT", "PARTIALLY_PAID", "PAID")),
    {"not": {"status": ["PAID", "VOID"]}},
    {"needsAttention": True},
    {"assigneeIds": [None]},
    {"tags": ["vip"]},
    {"search": "maria"},
    {"amount": {"currency": "USD", "minimum": "50.00"}},
]
TALKS = [
    {},
    {"closed": False},
    {"closed": True},
    {"unread": True},
    {"assigneeIds": [None]},
    {"not": {"assigneeIds": [None]}},
    {"tags": ["vip"]},
    {"tags": ["late"]},
    {"hasOpenRequest": True},
    {"search": "maria"},
]
_PAGE = "pageInfo { hasNextPage endCursor }"
PAGE = f"""query($id: ID!, $after: Cursor) {{ node(id: $id) {{ ... on View {{ totalCount eventCursor }}
  ... on PaymentRequestView {{ items(first: 100, after: $after) {{ edges {{ cursor node {{ id status }} }} {_PAGE} }} }}
  ... on ConversationView {{ items(first: 100, after: $after) {{ edges {{ cursor node {{ id unreadCount }} }} {_PAGE} }} }} }} }}"""
FEED = EVENTS.replace("... on Event { cursor }", "... on Event { cursor occurredAt }")


class Counting(asyncio.Protocol):
    """One subscription on a socket; its events are only counted."""

    def __init__(self, token: str, view: str) -> None:
        self.events = 0
        self.closed: str | None = None
        self.subscribed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._token, self._view = token, view
        self._buffer = b""
        self._upgraded = False
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.write(UPGRADE)

    def data_received(self, data: bytes) -> None:
        buffer, at = self._buffer + data, 0
        if not self._upgraded:
            head, end, buffer = buffer.partition(b"\r\n\r\n")
            if not end:
                self._buffer = head
                return
            self._upgraded = True
            self._transport.write(frame(_init(self._token).encode()))
        while len(buffer) - at >= 2:
            length, head_length = buffer[at + 1], 2
            if length == 126:
                if len(buffer) - at < 4:
                    break
                length, head_length = int.from_bytes(buffer[at + 2 : at + 4], "big"), 4
            end_at = at + head_length + length
            if len(buffer) < end_at:
                break
            self._frame(buffer[at] & 0xF, buffer, at + head_length, end_at)
            at = end_at
        self._buffer = buffer[at:]

    def _frame(self, opcode: int, buffer: bytes, start: int, end: int) -> None:
        if opcode == PING:
            self._transport.write(frame(buffer[start:end], PONG))
        elif opcode == CLOSE:
            self.closed = buffer[start + 2 : end].decode(errors="replace")
        elif self.subscribed.done():
            self.events += 1
        elif b"connection_ack" in buffer[start:end]:
            self._transport.write(frame(_subscribe(self._view, None).encode()))
        elif b'"Subscribed"' in buffer[start:end]:
            self.subscribed.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = self.closed or "connection lost"


class Load:
    """The sockets, and what they received: one of each view keeps a screen, the others count."""

    def __init__(self, product: Product, views: list[str]) -> None:
        self.product = product
        self.views = views
        self.screens: list[Screen] = []
        self.lags: list[float] = []
        self.shown = 0
        self._counting: list[Counting] = []
        self._sockets: list[ClientConnection] = []
        self._transports: list[asyncio.Transport] = []
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def events(self) -> int:
        return self.shown + sum(one.events for one in self._counting)

    async def open(self, keys: list[str], count: int) -> None:
        for n, view in enumerate(self.views):
            screen = Screen(await whole(self.product, view))
            self.screens.append(screen)
            url = self.product.base_url.replace("http", "ws", 1) + "/graphql"
            socket = await connect(url, subprotocols=["graphql-transport-ws"], compression=None, max_queue=None)  # type: ignore[list-item]  # its NewType
            await socket.send(_init(keys[n // SOCKETS_PER_KEY]))
            await socket.recv()
            await socket.send(_subscribe(view, screen.cursor))
            assert '"Subscribed"' in str(await socket.recv())
            self._sockets.append(socket)
            self._tasks.append(asyncio.create_task(self._read(socket, screen)))
        for n in range(len(self.views), count):
            await self._count(keys[n // SOCKETS_PER_KEY], self.views[n % len(self.views)])

    async def _count(self, token: str, view: str) -> None:
        port = int(self.product.base_url.rpartition(":")[2])
        transport, counting = await asyncio.get_running_loop().create_connection(
            lambda: Counting(token, view), "127.0.0.1", port
        )
        async with asyncio.timeout(30):
            await counting.subscribed
        self._transports.append(transport)
        self._counting.append(counting)

    async def _read(self, socket: ClientConnection, screen: Screen) -> None:
        async for message in socket:
            self.shown += 1
            (event,) = json.loads(message)["payload"]["data"].values()
            screen.take(event)
            if event["__typename"].startswith("ViewItem"):
                self.lags.append((datetime.now(UTC) - datetime.fromisoformat(event["occurredAt"])).total_seconds())

    async def differences(self) -> int:
        wrong = 0
        for view, screen in zip(self.views, self.screens, strict=True):
            fresh = await whole(self.product, view)
            wrong += screen.edges != fresh["items"]["edges"] or screen.total != fresh["totalCount"]
        return wrong

    async def close(self) -> None:
        screens = [f"a screen: {task}" for task in self._tasks if task.done()]
        broken = Counter([*screens, *(one.closed for one in self._counting if one.closed is not None)])
        for task in self._tasks:
            task.cancel()
        for transport in self._transports:
            transport.abort()
        await asyncio.gather(*self._tasks, *(socket.close() for socket in self._sockets), return_exceptions=True)
        assert not broken, f"sockets ended: {dict(broken)}"


def _init(token: str) -> str:
    return json.dumps({"type": "connection_init", "payload": {"Authorization": f"Bearer {token}"}})


def _subscribe(view: str, after: str | None) -> str:
    payload = {"query": FEED, "variables": {"id": view, "after": after}}
    return json.dumps({"type": "subscribe", "id": "1", "payload": payload})


def frame(payload: bytes, opcode: int = 1) -> bytes:
    """A masked frame (RFC 6455, 5.2) with a mask of zeros; by default a text."""
    length = bytes((0x80 | len(payload),)) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return bytes((0x80 | opcode,)) + length + bytes(4) + payload


async def whole(product: Product, view: str) -> dict[str, Any]:
    found: dict[str, Any] = await product.one(PAGE, {"id": view})
    page = found["items"]["pageInfo"]
    while page["hasNextPage"]:
        more = (await product.one(PAGE, {"id": view, "after": page["endCursor"]}))["items"]
        found["items"]["edges"] += more["edges"]
        page = more["pageInfo"]
    return found


class Changes:
    """Random changes through the API, at a rate."""

    def __init__(self, product: Product, contacts: list[dict[str, Any]], user: str) -> None:
        self.product, self.contacts, self.user = product, contacts, user
        self.requests: list[str] = []
        self.done = 0
        self._rng = random.Random(12)

    async def run(self, rate: float, seconds: float) -> None:
        started, running = time.perf_counter(), set[asyncio.Task[None]]()
        for n in itertools.count():
            at = started + n / rate
            if at > started + seconds:
                break
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            while len(running) >= 16:
                _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            running.add(asyncio.create_task(self.one()))
        await asyncio.gather(*running)

    async def one(self) -> None:
        acts: tuple[Callable[[str, str], Awaitable[Any]], ...] = (
            self.create,
            self.pay,
            self.assign,
            self.close,
            self.reopen,
            self.tag,
        )
        contact = self._rng.choice(self.contacts)
        await self._rng.choice(acts)(contact["id"], contact["conversation"]["id"])
        self.done += 1

    async def create(self, contact: str, _: str) -> None:
        given = {
            "idempotencyKey": key(),
            "for": {"contactId": contact},
            "productName": "Deep clean",
            "amount": {"amount": "60.00"},
        }
        payload = await self.product.ok(d.CREATE, given)
        self.requests.append(payload["paymentRequest"]["id"])

    async def pay(self, *_: str) -> None:
        if self.requests:
            given = {
                "idempotencyKey": key(),
                "paymentRequestId": self._rng.choice(self.requests),
                "method": "CASH",
                "amount": "10.00",
            }
            await self.product.one(d.RECORD_OUTSIDE, {"input": given})

    async def assign(self, _: str, conversation: str) -> None:
        await self.product.ok(d.ASSIGN, {"conversationId": conversation, "userId": self._rng.choice([None, self.user])})

    async def close(self, _: str, conversation: str) -> None:
        await self._run("closeConversation", "CloseConversationInput", {"conversationId": conversation})

    async def reopen(self, _: str, conversation: str) -> None:
        await self._run("reopenConversation", "ReopenConversationInput", {"conversationId": conversation})

    async def tag(self, contact: str, _: str) -> None:
        add, remove = self._rng.sample(["vip", "late", "new"], 2)
        await self._run(
            "updateContactTags", "UpdateContactTagsInput", {"contactId": contact, "add": [add], "remove": [remove]}
        )

    async def _run(self, name: str, kind: str, given: dict[str, Any]) -> None:
        await self.product.ok(f"mutation($input: {kind}!) {{ {name}(input: $input) {{ {d.ERRORS} }} }}", given)


async def counters(product: Product) -> dict[str, float]:
    lines = [line.split() for line in (await product.http.get("/metrics")).text.splitlines()]
    return {
        line[0].removeprefix("paythread_live_view_"): float(line[1])
        for line in lines
        if line[0].startswith("paythread_live_view_")
    }


async def prepared(product: Product) -> tuple[list[dict[str, Any]], list[str], str]:
    """Contacts, views and the owner's id."""
    await product.ok(d.CONFIGURE_PROCESSOR, {"credentials": {"sandbox": True}})
    contacts = [
        (
            await product.ok(
                d.CREATE_CONTACT, {"name": f"{('Maria', 'Omar', 'Zoe')[n % 3]} {n}", "phone": f"+1415555{1000 + n}"}
            )
        )["contact"]
        for n in range(CONTACTS)
    ]
    lists = [
        *({"paymentRequests": {"filter": one}} for one in REQUESTS),
        *({"conversations": {"filter": one}} for one in TALKS),
    ]
    views = [(await product.ok(CREATE, {"name": "View", "list": one, "shared": True}))["view"]["id"] for one in lists]
    user = (await product.one("{ viewer { user { id } } }"))["user"]["id"]
    return contacts, views, user


async def keys_of(product: Product, count: int) -> list[str]:
    document = f"mutation($input: CreateApiKeyInput!) {{ createApiKey(input: $input) {{ secret {d.ERRORS} }} }}"
    return [(await product.ok(document, {"name": f"{n}", "role": "AGENT"}))["secret"] for n in range(count)]


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(url: str, bus: str, sockets: int, rate: float, seconds: float) -> int:
    await migrate.migrate(url)
    async with open_database(url):
        email = f"owner-{key()}@example.com"
        await accounts.create_account(name="Acme", currency="USD", email=email, password=PASSWORD, user_name="Olga")
    async with harness.process(url, bus, GRAPHQL_LIMIT="100000") as (product, server):
        product.token = await product.sign_in(email)
        contacts, views, user = await prepared(product)
        load, changes = Load(product, views), Changes(product, contacts, user)
        await load.open(await keys_of(product, -(-sockets // SOCKETS_PER_KEY)), sockets)
        assert server._process is not None
        before, cpu, started = await counters(product), cpu_s(server._process.pid), time.perf_counter()
        received = load.events
        await changes.run(rate, seconds)
        lasted, used = time.perf_counter() - started, cpu_s(server._process.pid) - cpu
        await asyncio.sleep(3)
        after, wrong = await counters(product), await load.differences()
        delivered = load.events - received
        await load.close()
    read, decided = (after[f"{name}_total"] - before[f"{name}_total"] for name in ("changes", "evaluations"))
    lags = sorted(load.lags)
    kinds = f"{len(REQUESTS)} of requests, {len(TALKS)} of conversations"
    rows = {
        "sockets, views": f"{sockets:,}, {len(views)} ({int(after['lists'])} distinct: {kinds})",
        "changes by mutations": f"{changes.done:,}, {changes.done / lasted:,.0f} per second",
        "changed items read; evaluations of each": f"{read:,.0f}; {decided / read:.2f}",
        "executions that follow lists": f"{after['watchers']:.0f}",
        "events delivered": f"{delivered:,}, {delivered / lasted:,.0f} per second",
        "server's CPU": f"{used / lasted:.2f} of a core, mutations included",
        "from a change's time to a socket": f"p50 {lags[len(lags) // 2] * 1e3:,.0f} ms, p99 {lags[len(lags) * 99 // 100] * 1e3:,.0f} ms",
        "views that differ from a query": str(wrong),
    }
    sys.stdout.write(
        "| live views | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows.items())
    )
    return 1 if wrong or decided != read * len(REQUESTS) else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev bench views", description=__doc__)
    parser.add_argument("--engine", choices=("sqlite", "postgres"), default="postgres")
    parser.add_argument("--sockets", type=int, default=1_000)
    parser.add_argument("--rate", type=float, default=100.0, help="mutations per second")
    parser.add_argument("--seconds", type=float, default=20.0)
    chosen = parser.parse_args()
    with contextlib.ExitStack() as stack:
        if chosen.engine == "sqlite":
            url, bus = f"sqlite:///{stack.enter_context(tempfile.TemporaryDirectory())}/paythread.db", "memory://"
        else:
            server, bus = stack.enter_context(servers.postgres()), stack.enter_context(servers.redis())
            name = f"live_views_{key()[:8]}"
            asyncio.run(run_on(server, f"CREATE DATABASE {name}"))
            stack.callback(lambda: asyncio.run(run_on(server, f"DROP DATABASE {name} WITH (FORCE)")))
            url = database_beside(server, name)
        return asyncio.run(measure(url, bus, chosen.sockets, chosen.rate, chosen.seconds))


if __name__ == "__main__":
    sys.exit(main())
