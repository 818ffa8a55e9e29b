"""The event bus: carries hints "account X has reached number N" between processes over memory, Redis or PostgreSQL.

It stops at hints: the truth is the event log in the database, and whoever reads hints must read the log after each
GAP. Of the broadcaster package only `Broadcast` serves; its stock Redis and PostgreSQL back ends silently lose messages
(after a restart, with redis-py 8, at a first double subscribe), so ours are supervised and say when they were deaf.
"""

import asyncio
import random
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, suppress
from typing import Any, Final, NamedTuple, Protocol, cast
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import asyncpg  # type: ignore[import-untyped]
import structlog
from broadcaster import Broadcast, BroadcastBackend, Event
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

log = structlog.get_logger(__name__)

CHANNEL: Final = "paythread_events"
QUEUE_SIZE: Final = 1_000

# Reconnect: 0.05 s doubling to 5 s, times 0.5 to 1.5, so that many processes do not return in step.
FIRST_DELAY_S: Final = 0.05
LAST_DELAY_S: Final = 5.0

CONNECT_TIMEOUT_S: Final = 2.0
COMMAND_TIMEOUT_S: Final = 5.0
SILENCE_S: Final = 5.0
REDIS_PONG_S: Final = 2.0
POSTGRES_PROBE_S: Final = 3.0
PUBLISH_CONNECTIONS: Final = 4

_GAP_MESSAGE: Final = "GAP"


class Hint(NamedTuple):
    """Something may be new for this account, up to this number of its event log."""

    account_id: UUID
    seq: int


GAP: Final = Hint(UUID(int=0), 0)
"""Not a hint about one account: the bus was deaf until now, so every listened account must be read once."""


class Bus(Protocol):
    """What the hub needs from a bus. One consumer per process calls `subscribe`."""

    @property
    def connected(self) -> bool:
        """Whether hints of other processes arrive at this moment, as far as is known."""

    async def publish(self, hint: Hint) -> None:
        """Tell all processes, this one included. Raises: whatever the transport raises; a lost hint is harmless."""

    def subscribe(self) -> AsyncIterator[Hint]:
        """Hints in no promised order, with `GAP` after each (re)connect; ends when the bus is closed."""

    async def aclose(self) -> None:
        """End `subscribe` and close the connections. Can be called twice."""


class UnsupportedBusError(ValueError):
    """EVENTS_URL must start with memory://, redis://, rediss://, postgres:// or postgresql://."""


class _SupervisedBackend(BroadcastBackend):
    """One task that connects, subscribes, waits for the confirmation, says GAP, reads; on any error it starts again."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._queue: asyncio.Queue[Event] = asyncio.Queue(QUEUE_SIZE)
        self._supervisor: asyncio.Task[None] | None = None
        self._delay_s = FIRST_DELAY_S
        self.connected = False

    @abstractmethod
    async def _listen(self, channel: str) -> None:
        """Read one connection until it fails; call `_confirmed` once subscribed, `_received` for each message."""

    async def connect(self) -> None:
        # Nothing is opened here: the server may be down when we start, and the supervisor goes on trying.
        return

    async def disconnect(self) -> None:
        if self._supervisor is not None:
            self._supervisor.cancel()
            with suppress(asyncio.CancelledError):
                await self._supervisor
            self._supervisor = None

    async def subscribe(self, group: str) -> None:
        if self._supervisor is None:
            self._supervisor = asyncio.create_task(self._supervise(group), name=f"bus:{group}")

    async def unsubscribe(self, group: str) -> None:
        return

    async def next_published(self) -> Event:
        return await self._queue.get()

    def _confirmed(self, channel: str) -> None:
        self._delay_s = FIRST_DELAY_S
        self.connected = True
        self._received(channel, _GAP_MESSAGE)

    def _received(self, channel: str, message: str) -> None:
        # A full queue drops the hint: the reader's poll finds what it was about, memory stays bounded.
        with suppress(asyncio.QueueFull):
            self._queue.put_nowait(Event(channel, message))

    async def _supervise(self, channel: str) -> None:
        while True:
            try:
                await self._listen(channel)
            except Exception as error:  # noqa: BLE001 the loop's top: whatever broke, reconnect
                # Only the class: the text of connection errors holds host names and may hold the URL.
                log.warning("event bus connection lost, reconnecting", error=type(error).__name__)
            self.connected = False
            await asyncio.sleep(self._delay_s * random.uniform(0.5, 1.5))  # noqa: S311 jitter, not a secret
            self._delay_s = min(self._delay_s * 2, LAST_DELAY_S)


class RedisBackend(_SupervisedBackend):
    """Redis pub/sub. Source: redis.io/docs/latest/develop/pubsub; redis-py 8.1."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        # Publishing waits for one of a few connections: the plain pool refuses the hundred-and-first publish at once.
        self._publisher = self._client(PUBLISH_CONNECTIONS)

    def _client(self, connections: int) -> Redis:
        # No retries inside redis-py: it would reconnect and resubscribe by itself, without telling us of the gap.
        pool = BlockingConnectionPool.from_url(
            self._url,
            max_connections=connections,
            timeout=COMMAND_TIMEOUT_S,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=COMMAND_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
        )
        return Redis.from_pool(pool)

    async def disconnect(self) -> None:
        await super().disconnect()
        await self._publisher.aclose()

    async def publish(self, channel: str, message: Any) -> None:
        await self._publisher.publish(channel, message)

    async def _listen(self, channel: str) -> None:
        client = self._client(1)
        pubsub = client.pubsub()
        try:
            await pubsub.subscribe(channel)
            await self._await_kind(pubsub, "subscribe")
            self._confirmed(channel)
            await self._read(pubsub, channel)
        finally:
            with suppress(RedisError, OSError):
                await pubsub.aclose()  # type: ignore[no-untyped-call]
            await client.aclose()

    @staticmethod
    async def _await_kind(pubsub: PubSub, kind: str) -> None:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            while True:
                message = await pubsub.get_message(timeout=CONNECT_TIMEOUT_S)
                if message is not None and message["type"] == kind:
                    return

    async def _read(self, pubsub: PubSub, channel: str) -> None:
        clock = asyncio.get_running_loop().time
        heard_at = clock()
        pinged_at: float | None = None
        while True:
            message = await pubsub.get_message(timeout=1.0)
            now = clock()
            if message is not None:
                heard_at, pinged_at = now, None
                if message["type"] == "message":
                    self._received(channel, cast(bytes, message["data"]).decode("ascii", "replace"))
                elif message["type"] == "subscribe":
                    # redis-py reconnected by itself after all: what was said in between is lost.
                    self._confirmed(channel)
            elif pinged_at is not None and now - pinged_at >= REDIS_PONG_S:
                # A half-open connection swallows pings without an error.
                raise TimeoutError("Redis does not answer")
            elif pinged_at is None and now - heard_at >= SILENCE_S:
                pinged_at = now
                await pubsub.ping()


class PostgresBackend(_SupervisedBackend):
    """LISTEN on an own connection, NOTIFY through a pool. Source: postgresql.org/docs/current/sql-notify.html."""

    def __init__(self, url: str) -> None:
        # The database URL of the ORM is welcome here: only its scheme differs.
        super().__init__(urlunsplit(urlsplit(url)._replace(scheme="postgresql")))
        self._pool: Any = None

    async def connect(self) -> None:
        await super().connect()
        self._pool = await asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=PUBLISH_CONNECTIONS,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=COMMAND_TIMEOUT_S,
        )

    async def disconnect(self) -> None:
        await super().disconnect()
        if self._pool is not None:
            await self._pool.close()
            self._pool = None

    async def publish(self, channel: str, message: Any) -> None:
        await self._pool.execute("SELECT pg_notify($1, $2)", channel, message)

    async def _listen(self, channel: str) -> None:
        connection = await asyncpg.connect(self._url, timeout=CONNECT_TIMEOUT_S, command_timeout=POSTGRES_PROBE_S)
        terminated = asyncio.Event()
        try:
            connection.add_termination_listener(lambda _: terminated.set())
            await connection.add_listener(channel, lambda _c, _pid, _channel, payload: self._received(channel, payload))
            self._confirmed(channel)
            while not await _within(terminated.wait(), SILENCE_S):
                await connection.execute("SELECT 1", timeout=POSTGRES_PROBE_S)
            raise ConnectionError("PostgreSQL ended the connection")
        finally:
            connection.terminate()


async def _within(awaitable: Awaitable[Any], seconds: float) -> bool:
    try:
        await asyncio.wait_for(awaitable, seconds)
    except TimeoutError:
        return False
    return True


class _BroadcastBus:
    """A `Bus` over one `Broadcast` with exactly one subscription, opened before anything is published."""

    def __init__(self, broadcast: Broadcast, backend: _SupervisedBackend | None = None) -> None:
        self._broadcast = broadcast
        self._backend = backend
        self._open = AsyncExitStack()
        self._subscriber: Any = None

    async def start(self) -> None:
        await self._broadcast.connect()
        self._subscriber = await self._open.enter_async_context(self._broadcast.subscribe(CHANNEL))

    @property
    def connected(self) -> bool:
        return self._backend is None or self._backend.connected

    async def publish(self, hint: Hint) -> None:
        await self._broadcast.publish(CHANNEL, f"{hint.account_id}:{hint.seq}")

    async def subscribe(self) -> AsyncIterator[Hint]:
        async for event in self._subscriber:
            hint = _parse(event.message)
            if hint is not None:
                yield hint

    async def aclose(self) -> None:
        if self._subscriber is None:
            return
        # The subscription first: broadcaster's own disconnect leaves readers waiting for ever.
        self._subscriber = None
        await self._open.aclose()
        await self._broadcast.disconnect()


def _parse(message: str) -> Hint | None:
    if message == _GAP_MESSAGE:
        return GAP
    account_id, _, seq = message.partition(":")
    try:
        return Hint(UUID(account_id), int(seq))
    except ValueError:
        log.warning("event bus message that is not ours was ignored")
        return None


async def open_bus(events_url: str) -> Bus:
    """Open the bus that `events_url` names, subscribed; a server that is down does not fail this, it is tried for ever.

    `memory://` reaches this process only. The user of a GAP is told of every (re)connect; memory never has one.

    Raises: UnsupportedBusError.
    """
    scheme = urlsplit(events_url).scheme
    backend: _SupervisedBackend | None = None
    if scheme in ("redis", "rediss"):
        backend = RedisBackend(events_url)
    elif scheme in ("postgres", "postgresql", "asyncpg"):
        backend = PostgresBackend(events_url)
    elif scheme != "memory":
        raise UnsupportedBusError(UnsupportedBusError.__doc__)
    bus = _BroadcastBus(Broadcast(backend=backend) if backend is not None else Broadcast("memory://"), backend)
    await bus.start()
    return bus
