"""The event bus: carries hints "account X has reached number N" between processes over memory, Redis or PostgreSQL.

The event log in the database is authoritative; readers must read it after each GAP. Only `Broadcast` of the broadcaster package is
used: its Redis and PostgreSQL back ends silently lose messages (after a restart, with redis-py 8, at a first double subscribe).
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

# Reconnect after 0.05 s, doubling to 5 s, times 0.5 to 1.5, so that processes do not reconnect in step.
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
    """The account's event log may have new entries up to `seq`."""

    account_id: UUID
    seq: int


GAP: Final = Hint(UUID(int=0), 0)
"""The bus was disconnected until now, so every followed account must be read once."""


class Bus(Protocol):
    """A bus for the hub. One consumer per process calls `subscribe`."""

    @property
    def connected(self) -> bool:
        """Whether hints of other processes currently arrive, as far as known."""

    async def publish(self, hint: Hint) -> None:
        """Notify all processes, including this one. May raise any error of the transport; a lost hint is harmless."""

    def subscribe(self) -> AsyncIterator[Hint]:
        """Hints in any order, with `GAP` after each (re)connect. Ends when the bus is closed."""

    async def aclose(self) -> None:
        """End `subscribe` and close the connections. May be called twice."""


class UnsupportedBusError(ValueError):
    """EVENTS_URL must start with memory://, redis://, rediss://, postgres:// or postgresql://."""


class _SupervisedBackend(BroadcastBackend):
    """A back end with one task that connects, subscribes, sends GAP and reads, and restarts on any error."""

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
        # Opens nothing: the server may be down at start, and the supervisor keeps trying.
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
        # A full queue drops the hint, to bound memory. The reader's poll finds the entries.
        with suppress(asyncio.QueueFull):
            self._queue.put_nowait(Event(channel, message))

    async def _supervise(self, channel: str) -> None:
        while True:
            try:
                await self._listen(channel)
            except Exception as error:  # noqa: BLE001 the loop's top: reconnect after any error
                # Only the class: the message contains host names and may contain the URL.
                log.warning("event bus connection lost, reconnecting", error=type(error).__name__)
            self.connected = False
            await asyncio.sleep(self._delay_s * random.uniform(0.5, 1.5))  # noqa: S311 jitter, not a secret
            self._delay_s = min(self._delay_s * 2, LAST_DELAY_S)


class RedisBackend(_SupervisedBackend):
    """Redis pub/sub. Source: redis.io/docs/latest/develop/pubsub; redis-py 8.1."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        # Publishing waits for one of a few connections; the plain pool would fail on the 101st concurrent publish.
        self._publisher = self._client(PUBLISH_CONNECTIONS)

    def _client(self, connections: int) -> Redis:
        # No retries inside redis-py: it would reconnect and resubscribe without reporting the gap.
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
                    # redis-py reconnected by itself; messages in between are lost.
                    self._confirmed(channel)
            elif pinged_at is not None and now - pinged_at >= REDIS_PONG_S:
                # A half-open connection swallows pings without an error.
                raise TimeoutError("Redis does not answer")
            elif pinged_at is None and now - heard_at >= SILENCE_S:
                pinged_at = now
                await pubsub.ping()


class PostgresBackend(_SupervisedBackend):
    """LISTEN on a separate connection, NOTIFY through a pool. Source: postgresql.org/docs/current/sql-notify.html."""

    def __init__(self, url: str) -> None:
        # The ORM's database URL also works; only its scheme differs.
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
    """A `Bus` over one `Broadcast` with one subscription, opened before the first publish."""

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
        # Close the subscription first: broadcaster's disconnect leaves readers waiting forever.
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
    """Open and subscribe to the bus of `events_url`. If its server is down, the bus keeps trying to connect.

    `memory://` reaches only this process and never sends GAP. Raises: UnsupportedBusError.
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
