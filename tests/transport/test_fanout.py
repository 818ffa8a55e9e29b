"""Shared execution of subscriptions."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any
from unittest.mock import AsyncMock

import orjson
import pytest
import strawberry
from graphql import GraphQLError
from websockets.frames import Frame, Opcode

from integrations.broadcast import open_bus
from resolvers.transport.fanout import Sharing, plan
from resolvers.transport.http import GraphQLView, get_view
from resolvers.transport.limits import Limits
from resolvers.transport.schema import Schema, schema_options
from resolvers.transport.server import Server, listen, server_config
from resolvers.transport.sinks import (
    BURST_BYTES,
    BURST_EVENTS,
    QUEUED_EVENTS,
    Burst,
    Outbox,
    Sink,
    frame_head,
    next_head,
)
from services.core.event_hub import Hub, ResyncNeeded, Start, follow
from tests.services.core.test_event_hub import ACCOUNT, OTHER, Log
from tests.transport.room import Client, Room, World, _no_signals


@dataclass
class Member:
    name: str
    account: Any = ACCOUNT
    role: str = "AGENT"
    expires_at: None = None

    @property
    def limit_key(self) -> str:
        return self.name


class FeedWorld(World):
    def __init__(self) -> None:
        super().__init__()
        self.log = Log()
        self.hub: Hub = None  # type: ignore[assignment]
        self.executed = 0
        self.feeds = 0
        self.people: dict[str, Any] = {
            "ada": Member("Ada"),
            "ben": Member("Ben"),
            "owner": Member("Olga", role="OWNER"),
            "other_account": Member("Fay", account=OTHER),
        }

    def commit(self, account: Any = ACCOUNT, count: int = 1, **fields: Any) -> int:
        seq = self.log.commit(account, count, **fields)
        self.hub.announce(account, seq)
        return seq


@dataclass
class FeedContext:
    world: FeedWorld
    connection_params: dict[str, Any] | None = None
    viewer: Any = None
    request_id: str = ""
    position: int | None = None
    names: list[str] = field(default_factory=list)
    planned_s: float | None = None

    def for_event(self) -> "FeedContext":
        return FeedContext(self.world, self.connection_params, self.viewer, self.request_id, self.position)


Info = strawberry.Info[FeedContext, None]


@strawberry.type
class Subscribed:
    seq: int


@strawberry.type
class Resync:
    seq: int


@strawberry.type
class Changed:
    seq: int
    size: strawberry.Private[int] = 0

    @strawberry.field
    def body(self, info: Info) -> str:
        info.context.world.executed += 1
        return "ü" * self.size

    @strawberry.field
    def role(self, info: Info) -> str:
        return str(info.context.viewer.role)

    @strawberry.field
    def mine(self, info: Info) -> str:
        return str(info.context.viewer.name)

    @strawberry.field
    def fails(self, info: Info) -> str | None:
        raise ZeroDivisionError("secret")


FeedEvent = Annotated[Subscribed | Resync | Changed, strawberry.union("FeedEvent")]


async def feed(info: Info, after: int | None, kind: str | None) -> AsyncGenerator[Any, None]:
    context = info.context
    context.world.feeds += 1
    wants = None if kind is None else (lambda event: bool(event.kind == kind))
    try:
        async with aclosing(follow(context.world.hub, context.viewer.account, after, wants)) as items:
            async for item in items:
                context.position = item.seq
                if isinstance(item, Start):
                    yield Subscribed(seq=item.seq)
                elif isinstance(item, ResyncNeeded):
                    yield Resync(seq=item.seq)
                else:
                    yield Changed(seq=item.seq, size=item.data.get("size", 0))
    finally:
        context.world.finished.append("feed")


@strawberry.type
class Query:
    ok: bool = True


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def events(
        self, info: Info, after: int | None = None, kind: str | None = None
    ) -> AsyncGenerator[FeedEvent, None]:
        return feed(info, after, kind)

    @strawberry.subscription
    async def room(self, info: Info, id: str, after: int | None = None) -> AsyncGenerator[FeedEvent, None]:
        if info.context.viewer.account != ACCOUNT or id != "ours":
            raise GraphQLError("Not found.", extensions={"code": "NOT_FOUND"})
        return feed(info, after, None)

    @strawberry.subscription
    async def alone(self, info: Info, after: int | None = None) -> AsyncGenerator[FeedEvent, None]:
        return feed(info, after, None)


SHARING = Sharing(
    fields=frozenset({"events", "room"}),
    personal=frozenset({("Changed", "mine")}),
    scope=lambda viewer: (viewer.account, viewer.role),
    position=lambda context: context.position,
    ends=lambda event: isinstance(event, Resync),
)


def make_schema() -> Schema:
    return Schema(query=Query, subscription=Subscription, **schema_options(production=False))


@dataclass
class FeedRoom(Room):
    world: FeedWorld

    @property
    def streams(self) -> int:
        fanout = self.view.admission.fanout
        assert fanout is not None
        return len(fanout)


LIMITS = Limits(
    sockets_per_token=1_000, messages_per_s=1_000, requests_per_s=100_000, requests_burst=100_000, stalled_s=0.3
)


@asynccontextmanager
async def open_feed(*, shared: bool = True) -> AsyncIterator[FeedRoom]:
    world = FeedWorld()
    bus = await open_bus("memory://")
    world.hub = Hub(bus, world.log.read, world.log.heads, poll_s=0.2)
    await world.hub.start()
    view: GraphQLView = get_view(
        make_schema(),
        get_context=lambda request, parameters: FeedContext(world),
        authenticate=world.authenticate,
        limits=LIMITS,
        sharing=SHARING if shared else None,
    )

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await view(scope, receive, send)

    listener = listen("127.0.0.1", 0)
    config = server_config(app, lifespan="off", log_config=None, loop="none", timeout_graceful_shutdown=5)
    server = Server(config)
    server.capture_signals = _no_signals  # type: ignore[method-assign, assignment]
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(10):
            while not server.started:
                await asyncio.sleep(0.005)
        yield FeedRoom(world, view, server, listener.getsockname()[1], serving)
    finally:
        server.should_exit = True
        await asyncio.wait_for(serving, 15)
        listener.close()
        await world.hub.stop()
        await bus.aclose()


@pytest.fixture
async def room() -> AsyncIterator[FeedRoom]:
    async with open_feed() as running:
        yield running


FEED = """subscription Feed($after: Int, $kind: String) {
  events(after: $after, kind: $kind) {
    __typename ... on Subscribed { seq } ... on Resync { seq } ... on Changed { seq body role }
  }
}"""


def event(id: str, type_name: str, seq: int, **more: Any) -> Any:
    found = {"__typename": type_name, "seq": seq, **more}
    return {"id": id, "type": "next", "payload": {"data": {"events": found}}}


def changed(id: str, seq: int, body: str = "", role: str = "AGENT") -> Any:
    return event(id, "Changed", seq, body=body, role=role)


async def eventually(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def subscribed(client: Client, id: str, seq: int, query: str = FEED, **variables: Any) -> None:
    await client.subscribe(id, query, variables=variables)
    await client.hear(event(id, "Subscribed", seq))


# ------------------------------------------------------------------------------------------------------ what is sent
@pytest.mark.parametrize("shared", [True, False])
async def test_the_messages_are_the_same_with_and_without_sharing(shared: bool) -> None:
    async with open_feed(shared=shared) as room, room.socket("ada") as ada, room.socket("ben") as ben:
        room.world.log.commit(count=3)
        await subscribed(ada, "a", 3)
        await subscribed(ben, 'b "ü"', 3)
        for seq, size in enumerate((0, 30, 60, 100, 40_000), start=4):
            room.world.commit(data={"size": size})
            await ada.hear(changed("a", seq, "ü" * size))
            await ben.hear(changed('b "ü"', seq, "ü" * size))
        await ben.subscribe("late", FEED, variables={"after": 1})
        await ben.hear(event("late", "Subscribed", 1))
        sizes = (0, 0, 0, 30, 60, 100, 40_000)
        for seq, size in enumerate(sizes, start=2):
            await ben.hear(changed("late", seq, "ü" * size))
        room.world.commit()
        for client, ids in ((ada, ["a"]), (ben, ['b "ü"', "late"])):
            heard = [await client.next() for _ in ids]
            assert sorted(heard, key=str) == sorted([changed(id, 9) for id in ids], key=str)


async def test_one_execution_serves_a_hundred_sockets(room: FeedRoom) -> None:
    async with AsyncExitStack() as stack:
        clients = []
        for number in range(100):
            client = await stack.enter_async_context(room.socket("ada" if number % 2 else "ben"))
            await subscribed(client, "1", 0)
            clients.append(client)
        assert room.streams == 1
        before = room.world.executed
        for seq in range(1, 11):
            room.world.commit()
            for client in clients:
                await client.hear(changed("1", seq))
        assert room.world.executed - before == 10
    await eventually(lambda: room.streams == 0)


async def test_roles_accounts_and_variables_are_not_mixed(room: FeedRoom) -> None:
    async with (
        room.socket("ada") as ada,
        room.socket("owner") as owner,
        room.socket("other_account") as other_account,
        room.socket("ben") as ben,
    ):
        for client in (ada, owner, other_account):
            await subscribed(client, "1", 0)
        await subscribed(ben, "1", 0, kind="card.created")
        assert room.streams == 4
        room.world.commit(OTHER)
        await other_account.hear(changed("1", 1))
        room.world.commit()
        await ada.hear(changed("1", 1))
        await owner.hear(changed("1", 1, role="OWNER"))
        room.world.commit(kind="card.created")
        await ben.hear(changed("1", 2))
        await ada.hear(changed("1", 2))


async def test_what_depends_on_the_person_is_executed_for_each(room: FeedRoom) -> None:
    query = FEED.replace("role }", "role mine }")
    async with room.socket("ada") as ada, room.socket("ben") as ben:
        await subscribed(ada, "1", 0, query)
        await subscribed(ben, "1", 0, query)
        assert room.streams == 0
        room.world.commit()
        assert (await ada.next())["payload"]["data"]["events"]["mine"] == "Ada"
        assert (await ben.next())["payload"]["data"]["events"]["mine"] == "Ben"


@pytest.mark.parametrize(("token", "id"), [("other_account", "ours"), ("ada", "theirs")])
async def test_who_may_not_listen_gets_the_stock_error_and_no_event(room: FeedRoom, token: str, id: str) -> None:
    query = "subscription($id: String!, $after: Int) { room(id: $id, after: $after) { ... on Changed { seq } } }"
    async with room.socket("ada") as allowed, room.socket(token) as refused:
        await allowed.subscribe("1", query, variables={"id": "ours"})
        await allowed.hear({"id": "1", "type": "next", "payload": {"data": {"room": {}}}})
        await refused.subscribe("1", query, variables={"id": id})
        answer = await refused.next()
        assert answer["type"] == "error"
        assert answer["payload"][0]["extensions"] == {"code": "NOT_FOUND"}
        room.world.commit()
        await allowed.hear({"id": "1", "type": "next", "payload": {"data": {"room": {"seq": 1}}}})
        await refused.say({"type": "ping"})
        await refused.hear({"type": "pong"})


async def test_a_resync_ends_the_operation_and_nothing_follows(room: FeedRoom) -> None:
    room.world.log.commit(count=1_500)
    async with room.socket("ada") as ada, room.socket("ben") as ben:
        await subscribed(ada, "1", 1_500)
        await ben.subscribe("1", FEED, variables={"after": 3})
        await ben.hear(event("1", "Resync", 1_500))
        await ben.hear({"id": "1", "type": "complete"})
        room.world.commit()
        await ada.hear(changed("1", 1_501))
        await ben.say({"type": "ping"})
        await ben.hear({"type": "pong"})


async def test_an_error_in_one_field_is_masked_and_the_stream_goes_on(room: FeedRoom) -> None:
    query = "subscription { events { ... on Changed { seq fails } } }"
    async with room.socket("ada") as ada, room.socket("ben") as ben:
        for client in (ada, ben):
            await client.subscribe("1", query)
            await client.next()
        for seq in (1, 2):
            room.world.commit()
            for client in (ada, ben):
                message = await client.next()
                assert message["payload"]["data"] == {"events": {"seq": seq, "fails": None}}
                assert message["payload"]["errors"][0]["extensions"]["code"] == "INTERNAL"
                assert "secret" not in str(message)
    assert room.world.feeds == 2


async def test_leaving_detaches_and_the_last_one_ends_the_execution(room: FeedRoom) -> None:
    async with room.socket("ada") as ada, room.socket("ben") as ben:
        await subscribed(ada, "1", 0)
        await subscribed(ben, "1", 0)
        await eventually(lambda: room.world.finished == ["feed"])
        await ada.say({"type": "complete", "id": "1"})
        await ada.say({"type": "ping"})
        await ada.hear({"type": "pong"})
        room.world.commit()
        await ben.hear(changed("1", 1))
        await ada.say({"type": "ping"})
        await ada.hear({"type": "pong"})
        assert room.streams == 1
    await eventually(lambda: room.world.finished == ["feed"] * 2)
    assert room.streams == 0


async def test_an_execution_that_breaks_sends_its_clients_back_with_1013(room: FeedRoom) -> None:
    async with room.socket("ada") as ada, room.socket("ben") as ben:
        await subscribed(ada, "1", 0)
        await subscribed(ben, "1", 0)
        await eventually(lambda: len(room.world.finished) == 1)
        await room.world.hub.stop()
        assert await ada.closed() == (1013, "Too slow, resume by cursor")
        assert await ben.closed() == (1013, "Too slow, resume by cursor")
    assert room.streams == 0


async def test_a_client_that_stops_reading_is_cut_off_with_bounded_memory_and_delays_nobody(room: FeedRoom) -> None:
    async with room.socket("ada") as quick, room.socket("ben", max_queue=1) as stalled:
        await subscribed(quick, "1", 0)
        await subscribed(stalled, "1", 0)
        stalled.connection.transport.pause_reading()
        for seq in range(1, 401):
            room.world.commit(data={"size": 20_000})
            await quick.hear(changed("1", seq, "ü" * 20_000))
        await eventually(lambda: len(room.view.admission.connections) == 1)
        room.world.commit()
        await quick.hear(changed("1", 401))
        stalled.connection.transport.abort()


@pytest.mark.slow
async def test_two_hundred_clients_with_reconnects_each_see_every_number_once(room: FeedRoom) -> None:
    last = 300

    async def client(index: int) -> list[int]:
        seen: list[int] = []
        token = "ada" if index % 2 else "ben"
        await asyncio.sleep(index % 40 * 0.01)
        while not seen or seen[-1] < last:
            async with room.socket(token) as socket:
                start = seen[-1] if seen else 0
                await socket.subscribe("1", FEED, variables={"after": start})
                async with asyncio.timeout(60):
                    message = orjson.loads(await socket.connection.recv())
                    assert message == event("1", "Subscribed", start)
                    for _ in range(60 + index if index % 3 else last):
                        if seen and seen[-1] == last:
                            break
                        message = orjson.loads(await socket.connection.recv())
                        seen.append(message["payload"]["data"]["events"]["seq"])
        return seen

    clients = [asyncio.create_task(client(index)) for index in range(200)]
    for _ in range(last):
        room.world.commit()
        await asyncio.sleep(0.01)
    async with asyncio.timeout(90):
        seen = await asyncio.gather(*clients)
    assert all(each == list(range(1, last + 1)) for each in seen)
    # Alone it would be 60,000; what is left is one for each number and what each client missed before it came.
    assert room.world.executed < 30_000


# ------------------------------------------------------------------------------------------------------------ analysis
@pytest.mark.parametrize(
    ("query", "name", "after"),
    [
        ("subscription { events { __typename } }", None, None),
        ("subscription A($a: Int) { events(after: $a) { __typename } }", "A", "a"),
        ("subscription($a: Int, $ab: String) { events(after: $a, kind: $ab) { __typename } }", None, "a"),
        ("query Q { ok } subscription S { x: events { __typename } }", "S", None),
    ],
)
def test_what_may_be_shared(query: str, name: str | None, after: str | None) -> None:
    found = plan(make_schema()._schema, SHARING, query, name)
    assert found is not None
    assert found.after == after


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("{ ok }", None),
        ("subscription {", None),
        ("subscription { alone { __typename } }", None),
        ("subscription { events { __typename } room(id: 1) { __typename } }", None),
        ("subscription { ...F } fragment F on Subscription { events { __typename } }", None),
        ("subscription { events @skip(if: false) { __typename } }", None),
        ("subscription { events(after: 5) { __typename } }", None),
        ("subscription($a: Int) { events(after: $a) { ... on Changed @skip(if: $a) { seq } } }", None),
        ("subscription { events { ... on Changed { mine } } }", None),
        ("subscription { events { ...F } } fragment F on Changed { x: mine }", None),
        ("subscription { events { ...F } } fragment F on FeedEvent { ... on Nothing { mine } }", None),
        ("subscription A { events { __typename } } subscription B { events { __typename } }", None),
        ("subscription A { events { __typename } }", "B"),
    ],
)
def test_what_is_executed_alone(query: str, name: str | None) -> None:
    assert plan(make_schema()._schema, SHARING, query, name) is None


# -------------------------------------------------------------------------------------------------------------- frames
@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65_535, 65_536, 100_000])
def test_a_frame_head_is_what_the_library_writes(length: int) -> None:
    payload = b"x" * length
    assert frame_head(length) + payload == Frame(Opcode.TEXT, payload).serialize(mask=False)


async def test_a_sink_holds_so_many_events_and_then_ends() -> None:
    sink = Sink("1", None, 0)
    for seq in range(1, QUEUED_EVENTS + 10):
        sink.offer(Burst([(seq, next_head(b"{}"))]))
    assert sink.ended
    assert len(sink.queue) == QUEUED_EVENTS
    sent: list[str] = []

    async def send(text: str) -> None:
        sent.append(text)

    await sink.deliver(100, send)
    assert len(sent) == QUEUED_EVENTS - 100
    assert orjson.loads(sent[0]) == {"type": "next", "payload": {}, "id": "1"}


async def test_a_sink_holds_at_most_one_mebibyte() -> None:
    sink = Sink("1", None, 0)
    for seq in range(1, 10):
        sink.offer(Burst([(seq, b"x" * 200_000)]))
    assert sink.ended
    assert len(sink.queue) == 5


# ---------------------------------------------------------------------------------------------- one write per client
class Wire:
    """A transport that keeps its writes, and the protocol above it."""

    def __init__(self) -> None:
        self.transport: Any = self
        self.writable = asyncio.Event()
        self.writable.set()
        self.close_sent = False
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def is_closing(self) -> bool:
        return False


def frames(*numbers: int, id: str = "1") -> bytes:
    texts = [b'{"type":"next","payload":{"n":%d},"id":"%s"}' % (number, id.encode()) for number in numbers]
    return b"".join(frame_head(len(text)) + text for text in texts)


@asynccontextmanager
async def outbox(*sinks: Sink, last: int = 0) -> AsyncIterator[tuple[Outbox, list[str]]]:
    """An outbox that hands out to live sinks, and what they queued and then sent."""
    sent: list[str] = []

    async def send(text: str) -> None:
        sent.append(text)

    made = Outbox()
    made.sinks.update(sinks)
    tasks = [asyncio.create_task(sink.deliver(last, send)) for sink in sinks]
    tasks.append(asyncio.create_task(made.run(200)))
    await asyncio.sleep(0)
    try:
        yield made, sent
    finally:
        for task in tasks:
            task.cancel()


async def put(box: Outbox, *numbers: int) -> None:
    for number in numbers:
        await box.put(number, next_head(b'{"n":%d}' % number))


async def test_events_of_one_turn_leave_in_one_write_per_client() -> None:
    wires = [Wire(), Wire()]
    async with outbox(*(Sink(id, wire, 0) for id, wire in zip(("1", "other"), wires, strict=True))) as (box, _):
        await put(box, 1, 2, 3)
        await eventually(lambda: wires[1].writes)
        await put(box, 4)
        await eventually(lambda: len(wires[1].writes) == 2)
    assert wires[0].writes == [frames(1, 2, 3), frames(4)]
    assert wires[1].writes == [frames(1, 2, 3, id="other"), frames(4, id="other")]


async def test_a_client_that_knows_a_part_gets_only_the_rest() -> None:
    wire = Wire()
    async with outbox(Sink("1", wire, 2), last=2) as (box, sent):
        await put(box, 1, 2, 3, 4)
        await eventually(lambda: len(sent) == 2)
        await put(box, 5)
        await eventually(lambda: wire.writes)
    assert [orjson.loads(text)["payload"]["n"] for text in sent] == [3, 4]
    assert wire.writes == [frames(5)]


async def test_a_client_with_a_full_buffer_gets_nothing_written_past_its_queue() -> None:
    wire = Wire()
    wire.writable.clear()
    sink = Sink("1", wire, 0)
    async with outbox(sink) as (box, sent):
        await put(box, 1, 2)
        await eventually(lambda: len(sent) == 2)
    assert wire.writes == []


async def test_a_burst_is_cut_where_it_would_fill_a_buffer() -> None:
    wire = Wire()
    async with outbox(Sink("1", wire, 0)) as (box, _):
        await put(box, *range(1, BURST_EVENTS + 2))
        await eventually(lambda: len(wire.writes) == 2)
        for number in (100, 101):
            await box.put(number, b"x" * BURST_BYTES)
        await eventually(lambda: len(wire.writes) == 4)
    assert wire.writes[1] == frames(BURST_EVENTS + 1)


async def test_a_full_outbox_makes_its_execution_wait_and_ends_when_all_is_handed_out() -> None:
    wire, box = Wire(), Outbox()
    sink = Sink("1", wire, 0)
    box.sinks.add(sink)
    delivering = asyncio.create_task(sink.deliver(0, AsyncMock()))
    await put(box, *range(1, QUEUED_EVENTS + 1))
    waiting = asyncio.create_task(put(box, QUEUED_EVENTS + 1))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    handing_out = asyncio.create_task(box.run(200))
    await waiting
    box.finish()
    await handing_out
    assert b"".join(wire.writes) == frames(*range(1, QUEUED_EVENTS + 2))
    delivering.cancel()


# ---------------------------------------------------------------------------------------------- the first message
async def test_subscribers_without_a_cursor_share_the_first_message_of_their_position(room: FeedRoom) -> None:
    async with room.socket("ada") as ada, room.socket("ben") as ben:
        await subscribed(ada, "1", 0)
        before = room.world.feeds
        await subscribed(ben, "1", 0)
        await subscribed(ben, "2", 0)
        assert room.world.feeds == before
        room.world.commit(count=2)
        for seq in (1, 2):
            await ada.hear(changed("1", seq))
        # Their streams are the same; the position is a new one.
        await subscribed(ada, "3", 2)
        assert room.world.feeds == before + 1
        await subscribed(ada, "4", 1, after=1)
        await ada.hear(changed("4", 2))
        room.world.commit()
        heard = [await ada.next() for _ in "134"]
        assert sorted(heard, key=str) == sorted([changed(id, 3) for id in "134"], key=str)


async def test_a_default_of_the_cursor_is_a_cursor() -> None:
    found = plan(make_schema()._schema, SHARING, FEED.replace("$after: Int", "$after: Int = 1"), None)
    assert found is not None
    assert found.resumes(None)
    assert found.resumes({"after": 0})
    assert not found.resumes({"after": None})
