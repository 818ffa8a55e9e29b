"""A small schema behind the real view on a real uvicorn server."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NewType

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import orjson
import strawberry
from graphql import GraphQLError
from tortoise.exceptions import OperationalError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from resolvers.transport.http import GraphQLView, get_view
from resolvers.transport.limits import Limits
from resolvers.transport.schema import Schema, schema_options
from resolvers.transport.server import Server, listen, server_config
from services.core.event_hub import SlowConsumer

SECRET = "4242424242424242"
AWAY = OperationalError(
    asyncpg.CannotConnectNowError(f"the database of {SECRET} is starting up")
)  # as Tortoise wraps it


@dataclass
class Person:
    name: str
    expires_at: datetime | None = None

    @property
    def limit_key(self) -> str:
        return self.name


@dataclass
class Ctx:
    world: "World"
    connection_params: dict[str, Any] | None = None
    viewer: Any = None
    request_id: str = ""
    seen: list[str] = field(default_factory=list)
    planned_s: float | None = None

    def for_event(self) -> "Ctx":
        return Ctx(self.world, self.connection_params, self.viewer, self.request_id)


class World:
    """Records the resolvers' side effects."""

    def __init__(self) -> None:
        self.status = "SENT"
        self.calls: list[str] = []
        self.finished: list[str] = []
        self.go = asyncio.Event()
        self.people = {"good": Person("Ada"), "other": Person("Grace")}
        self.revoked: set[str] = set()
        self.checked = 0
        self.authentication_fails: Exception | None = None

    async def authenticate(self, token: str) -> Person | None:
        if self.authentication_fails is not None:
            raise self.authentication_fails
        return self.people.get(token)

    async def still_valid(self, people: Sequence[Person]) -> list[bool]:
        self.checked += 1
        return [person.name not in self.revoked for person in people]

    def context(self, request: Any, parameters: dict[str, Any] | None) -> Ctx:
        return Ctx(self)


def parse_even(value: Any) -> int:
    if not isinstance(value, int) or value % 2:
        raise ValueError("must be even")
    return value


Even = NewType("Even", int)
EVEN = strawberry.scalar(name="Even", description="An even number.", serialize=int, parse_value=parse_even)

Info = strawberry.Info[Ctx, None]


@strawberry.type
class Item:
    name: str
    number: int

    @strawberry.field
    def items(self, first: int = 1) -> list["Item"]:
        return [Item(name=f"{self.name}.{index}", number=index) for index in range(first)]


@strawberry.type
class Page:
    nodes: list[Item]


@strawberry.type
class Query:
    @strawberry.field
    def hello(self, name: str = "world") -> str:
        return f"hello {name}"

    @strawberry.field
    def me(self, info: Info) -> str | None:
        return info.context.viewer.name if info.context.viewer else None

    @strawberry.field
    def crash(self) -> str:
        raise ZeroDivisionError(f"division of {SECRET}")

    @strawberry.field
    def crash_softly(self) -> str | None:
        raise ZeroDivisionError(f"division of {SECRET}")

    @strawberry.field
    def away(self) -> str | None:
        raise AWAY

    @strawberry.field
    def refuse(self) -> str | None:
        raise GraphQLError("Not yours.", extensions={"code": "FORBIDDEN"})

    @strawberry.field
    def even(self, value: Even) -> int:
        return value

    @strawberry.field
    async def slow(self, info: Info) -> str:
        await info.context.world.go.wait()
        return "done"

    @strawberry.field
    def item(self, info: Info) -> Item:
        info.context.world.calls.append("item")
        return Item(name="i", number=1)

    @strawberry.field
    def page(self, first: int | None = None, last: int | None = None) -> Page:
        return Page(nodes=[])


@strawberry.type
class Mutation:
    @strawberry.mutation
    def bump(self, info: Info) -> int:
        info.context.world.calls.append("bump")
        return len(info.context.world.calls)

    @strawberry.mutation
    def bump_away(self) -> int:
        raise AWAY


@strawberry.type
class Card:
    number: int

    @strawberry.field
    def status(self, info: Info) -> str:
        # Remembers its first answer for as long as the context lives, as a data loader does.
        if not info.context.seen:
            info.context.seen.append(info.context.world.status)
        return info.context.seen[0]


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(self, info: Info, to: int) -> AsyncGenerator[int, None]:
        try:
            for number in range(1, to + 1):
                yield number
        finally:
            info.context.world.finished.append("count")

    @strawberry.subscription
    async def forever(self, info: Info) -> AsyncGenerator[int, None]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            info.context.world.finished.append("forever")

    @strawberry.subscription
    async def flood(self, info: Info, size: int = 10_000) -> AsyncGenerator[str, None]:
        try:
            while True:
                yield "x" * size
        finally:
            info.context.world.finished.append("flood")

    @strawberry.subscription
    async def boom(self) -> AsyncGenerator[int, None]:
        yield 1
        raise ZeroDivisionError(f"division of {SECRET}")

    @strawberry.subscription
    async def away(self, after: int = 1) -> AsyncGenerator[int, None]:
        for number in range(after):
            yield number
        raise AWAY

    @strawberry.subscription
    async def too_slow(self) -> AsyncGenerator[int, None]:
        yield 1
        raise SlowConsumer(SlowConsumer.__doc__)

    @strawberry.subscription
    async def cards(self, info: Info) -> AsyncGenerator[Card, None]:
        yield Card(number=1)
        await info.context.world.go.wait()
        yield Card(number=2)


def make_schema(*, production: bool = False, limits: Limits | None = None) -> Schema:
    return Schema(
        query=Query,
        mutation=Mutation,
        subscription=Subscription,
        **schema_options(production=production, limits=limits, scalar_map={Even: EVEN}),
    )


@dataclass
class Room:
    world: World
    view: GraphQLView
    server: Server
    port: int
    serving: asyncio.Task[None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/graphql"

    @asynccontextmanager
    async def socket(
        self, token: str | None = "good", *, subprotocols: tuple[str, ...] = ("graphql-transport-ws",), **options: Any
    ) -> AsyncIterator["Client"]:
        protocols = [Subprotocol(name) for name in subprotocols]
        async with connect(
            f"ws://127.0.0.1:{self.port}/graphql", subprotocols=protocols or None, proxy=None, **options
        ) as connection:
            client = Client(connection)
            if token is not None:
                await client.say({"type": "connection_init", "payload": {"Authorization": f"Bearer {token}"}})
                await client.hear({"type": "connection_ack"})
            yield client


class Client:
    """One socket with bounded waits."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def say(self, message: object) -> None:
        await self.connection.send(message if isinstance(message, str | bytes) else orjson.dumps(message).decode())

    async def subscribe(self, id: str, query: str, **payload: Any) -> None:
        await self.say({"type": "subscribe", "id": id, "payload": {"query": query, **payload}})

    async def next(self) -> Any:
        async with asyncio.timeout(10):
            return orjson.loads(await self.connection.recv())

    async def hear(self, expected: object) -> None:
        message = await self.next()
        if message != expected:
            raise AssertionError(f"heard {message}, expected {expected}")

    async def closed(self) -> tuple[int, str]:
        async with asyncio.timeout(10):
            while True:
                try:
                    await self.connection.recv()
                except ConnectionClosed:
                    return self.connection.close_code or 0, self.connection.close_reason or ""


@asynccontextmanager
async def open_room(
    *,
    production: bool = False,
    limits: Limits | None = None,
    server_options: dict[str, Any] | None = None,
    check_s: float = 3.0,
    stop_options: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Room]:
    world = World()
    view = get_view(
        make_schema(production=production, limits=limits),
        get_context=world.context,
        authenticate=world.authenticate,
        still_valid=world.still_valid,
        limits=limits,
        **options,
    )
    view.admission.connections._check_s = check_s

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await view(scope, receive, send)

    listener = listen("127.0.0.1", 0)
    options_of_server: dict[str, Any] = {"timeout_graceful_shutdown": 5, **(server_options or {})}
    config = server_config(app, lifespan="off", log_config=None, loop="none", **options_of_server)
    server = Server(config, before_shutdown=[view.end_streams], **(stop_options or {}))
    # The tests' own loop and signals: pytest owns both.
    server.capture_signals = _no_signals  # type: ignore[method-assign, assignment]
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(10):
            while not server.started:
                await asyncio.sleep(0.005)
        yield Room(world, view, server, listener.getsockname()[1], serving)
    finally:
        server.should_exit = True
        await asyncio.wait_for(serving, 15)
        listener.close()


class _no_signals:
    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        return
