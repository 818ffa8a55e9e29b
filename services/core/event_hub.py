"""Turns the event log into live, ordered feeds."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self
from uuid import UUID

import structlog

from integrations.broadcast import GAP, Bus, Hint
from models.event_log import LogEntry
from services.core.moments import Moments

log = structlog.get_logger(__name__)

READ_BATCH: Final = 500
HEADS_BATCH: Final = 500
HEALTHY_S: Final = 10.0
FIRST_DELAY_S: Final = 0.05
LAST_DELAY_S: Final = 5.0

# A long batch (after an outage) must not overflow readers that keep up: pause for them, up to PACE_STEPS times.
PACE_EVENTS: Final = 64
PACE_STEP_S: Final = 0.005
PACE_STEPS: Final = 50


Wants = Callable[[LogEntry], bool]
ReadLog = Callable[[UUID, int, int], Awaitable[Sequence[LogEntry]]]
Heads = Callable[[Sequence[UUID]], Awaitable[dict[UUID, int]]]


class SlowConsumer(Exception):
    """This subscriber read too slowly and was dropped. All queued events were delivered; resume by cursor."""


class ResyncReason(StrEnum):
    TOO_FAR_BEHIND = "TOO_FAR_BEHIND"
    AHEAD_OF_LOG = "AHEAD_OF_LOG"
    EXPIRED = "EXPIRED"
    VIEW_CHANGED = "VIEW_CHANGED"


@dataclass(frozen=True, slots=True)
class Start:
    seq: int


@dataclass(frozen=True, slots=True)
class ResyncNeeded:
    """Fetch the state again, then subscribe from `seq`."""

    reason: ResyncReason
    seq: int


class Subscription:
    __slots__ = ("_ended", "_failure", "_queue", "_size", "_wake", "_wants", "position")

    def __init__(self, position: int, wants: Wants | None, size: int) -> None:
        self.position = position
        self._wants = wants
        self._size = size
        self._queue: deque[LogEntry] = deque()
        self._wake = asyncio.Event()
        self._ended = False
        self._failure: Exception | None = None

    @property
    def queued(self) -> int:
        return len(self._queue)

    def offer(self, event: LogEntry) -> bool:
        try:
            if self._wants is not None and not self._wants(event):
                return True
        except Exception as error:  # noqa: BLE001 one subscriber's bug goes to that subscriber, not to all others
            return self._fail(error)
        if len(self._queue) >= self._size:
            return self._fail(SlowConsumer(SlowConsumer.__doc__))
        self._queue.append(event)
        self._wake.set()
        return True

    def end(self) -> None:
        self._ended = True
        self._wake.set()

    def _fail(self, error: Exception) -> bool:
        self._failure = error
        self._wake.set()
        return False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LogEntry:
        while not self._queue:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        return self._queue.popleft()


class _Feed:
    __slots__ = ("account_id", "dirty", "last", "reader", "subscriptions")

    def __init__(self, account_id: UUID, last: int) -> None:
        self.account_id = account_id
        self.last = last
        self.dirty = False
        self.reader: asyncio.Task[None] | None = None
        self.subscriptions: set[Subscription] = set()

    def dispatch(self, event: LogEntry) -> None:
        self.last = event.seq
        failed = [subscription for subscription in self.subscriptions if not subscription.offer(event)]
        self.subscriptions.difference_update(failed)


class Hub:
    def __init__(
        self, bus: Bus, read_log: ReadLog, heads: Heads, *, poll_s: float = 1.0, queue_size: int = 256
    ) -> None:
        self.read_log = read_log
        self.heads = heads
        self.moments = Moments()
        self._bus = bus
        self._poll_s = poll_s
        self._queue_size = queue_size
        self._feeds: dict[UUID, _Feed] = {}
        self._pending: dict[UUID, int] = {}
        self._announced = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._polled_at: float | None = None

    @property
    def healthy(self) -> bool:
        return self._polled_at is not None and asyncio.get_running_loop().time() - self._polled_at < HEALTHY_S

    @property
    def hinted(self) -> bool:
        return self._bus.connected

    async def start(self) -> None:
        self._polled_at = asyncio.get_running_loop().time()
        self._tasks = [
            asyncio.create_task(self._read_bus(), name="hub:bus"),
            asyncio.create_task(self._poll(), name="hub:poll"),
            asyncio.create_task(self._publish(), name="hub:publish"),
        ]

    async def stop(self) -> None:
        self._polled_at = None
        self.moments.close()
        tasks = [*self._tasks, *(feed.reader for feed in self._feeds.values() if feed.reader is not None)]
        for feed in self._feeds.values():
            for subscription in feed.subscriptions:
                subscription.end()
        self._feeds.clear()
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task

    def announce(self, account_id: UUID, seq: int) -> None:
        """Call after committing `seq`. Never raises or waits."""
        feed = self._feeds.get(account_id)
        if feed is not None:
            self._wake(feed, seq)
        self._pending[account_id] = max(seq, self._pending.get(account_id, 0))
        self._announced.set()

    def expect(self, account_id: UUID, seq: int) -> None:
        """Read up to `seq`, which is committed, without waiting for its hint."""
        feed = self._feeds.get(account_id)
        if feed is not None:
            self._wake(feed, seq)

    @asynccontextmanager
    async def listen(self, account_id: UUID, wants: Wants | None = None) -> AsyncIterator[Subscription]:
        """Subscribe to the wanted events after `position`."""
        feed = self._feeds.get(account_id)
        if feed is None:
            head = (await self.heads([account_id])).get(account_id, 0)
            # Another listener may have made the feed while this one waited. Nothing is awaited from here on.
            feed = self._feeds.get(account_id)
            if feed is None:
                feed = self._feeds[account_id] = _Feed(account_id, head)
                # A hint that arrived during the wait woke no reader: read now.
                self._wake(feed, head + 1)
        subscription = Subscription(feed.last, wants, self._queue_size)
        feed.subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            subscription.end()
            feed.subscriptions.discard(subscription)
            if not feed.subscriptions and self._feeds.get(account_id) is feed:
                del self._feeds[account_id]
                if feed.reader is not None:
                    feed.reader.cancel()

    # ------------------------------------------------------------------------------------------------ waking
    def _wake(self, feed: _Feed, seq: int) -> None:
        if seq <= feed.last:
            return
        feed.dirty = True
        if feed.reader is None:
            feed.reader = asyncio.create_task(self._read(feed), name="hub:read")

    async def _read_bus(self) -> None:
        async for hint in self._bus.subscribe():
            if hint == GAP:
                for feed in tuple(self._feeds.values()):
                    self._wake(feed, feed.last + 1)
            elif (heard := self._feeds.get(hint.account_id)) is not None:
                self._wake(heard, hint.seq)

    async def _poll(self) -> None:
        while True:
            try:
                accounts = tuple(self._feeds)
                for first in range(0, len(accounts), HEADS_BATCH):
                    for account_id, head in (await self.heads(accounts[first : first + HEADS_BATCH])).items():
                        if (feed := self._feeds.get(account_id)) is not None:
                            self._wake(feed, head)
                self._polled_at = asyncio.get_running_loop().time()
            except Exception as error:  # noqa: BLE001 the loop's top
                log.warning("polling the event log failed", error=type(error).__name__)
            await asyncio.sleep(self._poll_s)

    async def _publish(self) -> None:
        while True:
            await self._announced.wait()
            self._announced.clear()
            pending, self._pending = self._pending, {}
            try:
                for account_id, seq in pending.items():
                    await self._bus.publish(Hint(account_id, seq))
            except Exception as error:  # noqa: BLE001 the loop's top; the other processes' polls find the events
                log.warning("publishing a hint failed", error=type(error).__name__)

    # ------------------------------------------------------------------------------------------------- reading the log
    async def _read(self, feed: _Feed) -> None:
        delay_s = FIRST_DELAY_S
        while feed.dirty:
            feed.dirty = False
            try:
                await self._read_to_end(feed)
                delay_s = FIRST_DELAY_S
            except Exception as error:  # noqa: BLE001 the loop's top
                log.warning("reading the event log failed", error=type(error).__name__)
                feed.dirty = True
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, LAST_DELAY_S)
        feed.reader = None

    async def _read_to_end(self, feed: _Feed) -> None:
        while True:
            batch = await self.read_log(feed.account_id, feed.last, READ_BATCH)
            for number, event in enumerate(batch, start=1):
                feed.dispatch(event)
                if number % PACE_EVENTS == 0:
                    await self._pace(feed)
            if len(batch) < READ_BATCH:
                return

    async def _pace(self, feed: _Feed) -> None:
        half = self._queue_size // 2
        for _ in range(PACE_STEPS):
            await asyncio.sleep(0)
            if all(subscription.queued <= half for subscription in feed.subscriptions):
                return
            await asyncio.sleep(PACE_STEP_S)


async def follow(
    hub: Hub, account_id: UUID, after_seq: int | None, wants: Wants | None = None, *, backlog_limit: int = 1_000
) -> AsyncGenerator[Start | ResyncNeeded | LogEntry, None]:
    """Yield `Start` and each wanted event after `after_seq`, or only `ResyncNeeded`. Raises: SlowConsumer."""
    # Attach before reading the backlog: an event committed in between is in one of the two.
    async with hub.listen(account_id, wants) as subscription:
        head = subscription.position
        backlog: Sequence[LogEntry] = ()
        if after_seq is not None and after_seq > head:
            # The reader may lag behind the database, so ask the database.
            head = max(head, (await hub.heads([account_id])).get(account_id, 0))
            if after_seq > head:
                yield ResyncNeeded(ResyncReason.AHEAD_OF_LOG, head)
                return
        elif after_seq is not None and after_seq < head:
            missed = head - after_seq
            if missed > backlog_limit:
                yield ResyncNeeded(ResyncReason.TOO_FAR_BEHIND, head)
                return
            backlog = await hub.read_log(account_id, after_seq, missed)
            # Numbers have no holes: missing rows were deleted by the retention.
            if [event.seq for event in backlog] != list(range(after_seq + 1, head + 1)):
                yield ResyncNeeded(ResyncReason.EXPIRED, head)
                return
        start = subscription.position if after_seq is None else after_seq
        yield Start(start)
        for event in backlog:
            if wants is None or wants(event):
                yield event
        async for event in subscription:
            if event.seq > start:
                yield event
