"""The event bus over memory, Redis and PostgreSQL loses nothing while connected, and reports gaps."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from integrations import broadcast
from integrations.broadcast import GAP, Bus, Hint, UnsupportedBusError, open_bus, redis_backend
from integrations.broadcast.backend import QUEUE_SIZE
from integrations.broadcast.redis_backend import RedisBackend
from tests.servers import PostgresServer, RedisServer

ACCOUNT = UUID("0190d1c0-0000-7000-8000-000000000001")


class Reader:
    """Reads the bus's one subscription in a task."""

    def __init__(self, bus: Bus) -> None:
        self.hints: list[Hint] = []
        self._changed = asyncio.Condition()
        self.task = asyncio.create_task(self._read(bus))

    async def _read(self, bus: Bus) -> None:
        async for hint in bus.subscribe():
            async with self._changed:
                self.hints.append(hint)
                self._changed.notify_all()

    async def until(self, count: int, hint: Hint | None = None) -> list[Hint]:
        """Wait for `count` GAPs (hint = GAP) or `count` real hints; return the real ones."""
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(lambda: len(self._of(hint)) >= count)
        return self.real

    def _of(self, hint: Hint | None) -> list[Hint]:
        return self.real if hint is None else [each for each in self.hints if each == hint]

    @property
    def real(self) -> list[Hint]:
        return [hint for hint in self.hints if hint != GAP]


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[tuple[Bus, Reader]]:
    bus = await open_bus(url)
    reader = Reader(bus)
    try:
        yield bus, reader
    finally:
        await bus.aclose()
        await asyncio.wait_for(reader.task, 5)


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=["redis", "postgres"])
def server_url(request: pytest.FixtureRequest) -> str:
    server: RedisServer | PostgresServer = request.getfixturevalue(f"{request.param}_server")
    return server.url


async def test_memory_bus_delivers_to_its_own_process_in_order() -> None:
    async with reading("memory://") as (bus, reader):
        for seq in range(1, 101):
            await bus.publish(Hint(ACCOUNT, seq))
        assert await reader.until(100) == [Hint(ACCOUNT, seq) for seq in range(1, 101)]
        assert GAP not in reader.hints


async def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(UnsupportedBusError, match="EVENTS_URL must start with memory"):
        await open_bus("kafka://127.0.0.1:9092")


async def test_closing_ends_the_reader_and_twice_is_harmless() -> None:
    bus = await open_bus("memory://")
    reader = Reader(bus)
    await asyncio.sleep(0)
    await bus.aclose()
    await bus.aclose()
    await asyncio.wait_for(reader.task, 5)
    assert reader.hints == []


async def test_gap_is_the_first_thing_said_and_every_hint_published_after_it_arrives(server_url: str) -> None:
    async with reading(server_url) as (bus, reader):
        await reader.until(1, GAP)
        assert reader.hints == [GAP]
        for seq in range(1, 21):
            await bus.publish(Hint(ACCOUNT, seq))
        assert await reader.until(20) == [Hint(ACCOUNT, seq) for seq in range(1, 21)]
        assert reader.hints.count(GAP) == 1


async def test_two_hundred_concurrent_publishes_reach_two_processes(server_url: str) -> None:
    accounts = [uuid4() for _ in range(200)]
    async with reading(server_url) as (bus, mine), reading(server_url) as (_, theirs):
        await mine.until(1, GAP)
        await theirs.until(1, GAP)
        await asyncio.gather(*(bus.publish(Hint(account, 7)) for account in accounts))
        assert sorted(await mine.until(200)) == sorted(Hint(account, 7) for account in accounts)
        assert sorted(await theirs.until(200)) == sorted(mine.real)


async def test_after_a_redis_restart_gap_is_said_again_and_twenty_of_twenty_arrive(redis_server: RedisServer) -> None:
    async with reading(redis_server.url) as (bus, reader):
        await reader.until(1, GAP)
        redis_server.kill()
        with pytest.raises(RedisError):
            await bus.publish(Hint(ACCOUNT, 1))
        redis_server.start()
        await reader.until(2, GAP)
        for seq in range(2, 22):
            await bus.publish(Hint(ACCOUNT, seq))
        assert await reader.until(20) == [Hint(ACCOUNT, seq) for seq in range(2, 22)]


async def test_after_redis_cut_our_connections_gap_is_said_again_and_twenty_of_twenty_arrive(
    redis_server: RedisServer,
) -> None:
    async with reading(redis_server.url) as (bus, reader), Redis.from_url(redis_server.url) as admin:
        await reader.until(1, GAP)
        await admin.client_kill_filter(_type="pubsub")
        await reader.until(2, GAP)
        for seq in range(1, 21):
            await bus.publish(Hint(ACCOUNT, seq))
        assert await reader.until(20) == [Hint(ACCOUNT, seq) for seq in range(1, 21)]


async def test_a_redis_that_stops_answering_is_left(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_backend, "SILENCE_S", 0.1)
    monkeypatch.setattr(redis_backend, "REDIS_PONG_S", 0.1)
    deaf = await Deaf.in_front_of(redis_server.port)
    try:
        async with reading(f"redis://127.0.0.1:{deaf.port}/0") as (_, reader):
            await reader.until(1, GAP)
            deaf.swallow()
            await reader.until(2, GAP)
            assert deaf.accepted >= 2
    finally:
        await deaf.aclose()


async def test_after_a_postgres_restart_gap_is_said_again_and_twenty_of_twenty_arrive(
    postgres_server: PostgresServer,
) -> None:
    async with reading(postgres_server.url) as (bus, reader):
        await reader.until(1, GAP)
        await asyncio.to_thread(postgres_server.restart)
        await reader.until(2, GAP)
        for seq in range(1, 21):
            await bus.publish(Hint(ACCOUNT, seq))
        assert await reader.until(20) == [Hint(ACCOUNT, seq) for seq in range(1, 21)]


async def test_after_postgres_ended_all_sessions_gap_is_said_again_and_twenty_of_twenty_arrive(
    postgres_server: PostgresServer,
) -> None:
    async with reading(postgres_server.url) as (bus, reader):
        await reader.until(1, GAP)
        admin = await asyncpg.connect(postgres_server.url)
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
        await reader.until(2, GAP)
        for seq in range(1, 21):
            await bus.publish(Hint(ACCOUNT, seq))
        assert await reader.until(20) == [Hint(ACCOUNT, seq) for seq in range(1, 21)]
        await admin.close()


async def test_a_server_that_is_down_at_the_start_is_found_later() -> None:
    server = RedisServer()
    async with reading(server.url) as (bus, reader):
        await asyncio.sleep(0)
        assert reader.hints == []
        with server:
            await reader.until(1, GAP)
            await bus.publish(Hint(ACCOUNT, 1))
            assert await reader.until(1) == [Hint(ACCOUNT, 1)]


async def test_what_others_say_on_the_channel_is_ignored(redis_server: RedisServer) -> None:
    async with reading(redis_server.url) as (bus, reader), Redis.from_url(redis_server.url) as stranger:
        await reader.until(1, GAP)
        for message in ("", "hello", f"{ACCOUNT}:", f"{ACCOUNT}:x", b"\xff\xfe"):
            await stranger.publish(broadcast.CHANNEL, message)
        await bus.publish(Hint(ACCOUNT, 3))
        assert await reader.until(1) == [Hint(ACCOUNT, 3)]


async def test_a_reader_that_does_not_read_costs_bounded_memory() -> None:
    backend = RedisBackend("redis://127.0.0.1:1/0")
    for number in range(QUEUE_SIZE + 500):
        backend.received("c", str(number))
    assert backend._queue.qsize() == QUEUE_SIZE
    assert (await backend.next_published()).message == "0"
    await backend.disconnect()


class Deaf:
    """A TCP relay that can swallow what it receives on open connections."""

    def __init__(self, target: int) -> None:
        self.accepted = 0
        self._target = target
        self._deaf: set[asyncio.StreamWriter] = set()
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def in_front_of(cls, target: int) -> "Deaf":
        relay = cls(target)
        relay._server = await asyncio.start_server(relay._accept, "127.0.0.1", 0)
        return relay

    _server: asyncio.Server

    @property
    def port(self) -> int:
        return int(self._server.sockets[0].getsockname()[1])

    def swallow(self) -> None:
        self._deaf |= self._open

    async def aclose(self) -> None:
        self._server.close()
        for writer in self._open:
            writer.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._open |= {writer, upstream_writer}
        for source, sink in ((reader, upstream_writer), (upstream_reader, writer)):
            task = asyncio.create_task(self._copy(source, sink))
            self._tasks.add(task)

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65_536):
                if sink not in self._deaf:
                    sink.write(data)
        except ConnectionError:
            pass
        sink.close()
