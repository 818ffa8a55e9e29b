"""Each subscriber gets every event after its position once, in order, whatever hints are lost."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from integrations.broadcast import GAP, Hint, open_bus
from models.event_log import LogEntry
from services.core.event_hub import (
    Hub,
    ResyncNeeded,
    ResyncReason,
    SlowConsumer,
    Start,
    Subscription,
    follow,
)

ACCOUNT = UUID("0190d1c0-0000-7000-8000-000000000001")
OTHER = UUID("0190d1c0-0000-7000-8000-000000000002")

AT = datetime(2026, 11, 23, tzinfo=UTC)


class Log:
    """The database in memory; counts its queries; can be slow or broken."""

    def __init__(self) -> None:
        self.rows: dict[UUID, list[LogEntry]] = {}
        self.counters: dict[UUID, int] = {}
        self.reads = 0
        self.head_queries = 0
        self.broken = False
        self.during_read: Callable[[], None] | None = None

    def commit(
        self, account_id: UUID = ACCOUNT, count: int = 1, *, kind: str = "message.received", **fields: Any
    ) -> int:
        for _ in range(count):
            seq = self.counters.get(account_id, 0) + 1
            self.counters[account_id] = seq
            entry = LogEntry(account_id=account_id, seq=seq, kind=kind, at=AT, **fields)
            self.rows.setdefault(account_id, []).append(entry)
        return self.counters[account_id]

    def prune(self, account_id: UUID, up_to: int) -> None:
        self.rows[account_id] = [row for row in self.rows[account_id] if row.seq > up_to]

    async def read(self, account_id: UUID, after: int, limit: int) -> list[LogEntry]:
        self.reads += 1
        await asyncio.sleep(0)
        if self.broken:
            raise ConnectionError("the database is away")
        found = [row for row in self.rows.get(account_id, []) if row.seq > after]
        if self.during_read is not None:
            interrupt, self.during_read = self.during_read, None
            interrupt()
        return found[:limit]

    async def heads(self, account_ids: Sequence[UUID]) -> dict[UUID, int]:
        self.head_queries += 1
        await asyncio.sleep(0)
        if self.broken:
            raise ConnectionError("the database is away")
        return {each: self.counters[each] for each in account_ids if each in self.counters}


class DeadBus:
    """Drops or refuses what is published; delivers only `hints`."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.refuses = refuses
        self.tried: list[Hint] = []
        self.hints: asyncio.Queue[Hint] = asyncio.Queue()
        self.connected = False

    async def publish(self, hint: Hint) -> None:
        self.tried.append(hint)
        if self.refuses:
            raise ConnectionError("the bus is away")

    async def subscribe(self) -> AsyncIterator[Hint]:
        while True:
            yield await self.hints.get()

    async def aclose(self) -> None:
        return


@asynccontextmanager
async def running(log: Log, bus: Any = None, **options: Any) -> AsyncIterator[Hub]:
    own = await open_bus("memory://") if bus is None else bus
    hub = Hub(own, log.read, log.heads, **options)
    await hub.start()
    try:
        yield hub
    finally:
        await hub.stop()
        await own.aclose()


async def take(subscription: Subscription | AsyncIterator[Any], count: int) -> list[Any]:
    """Numbers of events; other items unchanged."""
    found: list[Any] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            item = await anext(subscription)
            found.append(item if isinstance(item, Start | ResyncNeeded) else item.seq)
    return found


def numbers(first: int, last: int) -> list[int]:
    return list(range(first, last + 1))


async def test_an_announced_commit_reaches_every_listener_of_the_account_and_nobody_else() -> None:
    log = Log()
    async with (
        running(log, poll_s=60) as hub,
        hub.listen(ACCOUNT) as one,
        hub.listen(ACCOUNT) as two,
        hub.listen(OTHER) as other,
    ):
        assert (one.position, two.position, other.position) == (0, 0, 0)
        hub.announce(ACCOUNT, log.commit(count=3))
        assert await take(one, 3) == [1, 2, 3]
        assert await take(two, 3) == [1, 2, 3]
        assert other.queued == 0


async def test_one_hundred_subscribers_of_an_account_cost_one_read_per_wake() -> None:
    log = Log()
    async with running(log, DeadBus(), poll_s=60) as hub:
        subscriptions = [hub.listen(ACCOUNT) for _ in range(100)]
        opened = [await each.__aenter__() for each in subscriptions]
        await asyncio.sleep(0.01)
        before = log.reads
        hub.announce(ACCOUNT, log.commit(count=5))
        for subscription in opened:
            assert await take(subscription, 5) == numbers(1, 5)
        assert log.reads == before + 1
        for each in subscriptions:
            await each.__aexit__(None, None, None)


async def test_only_wanted_events_are_queued() -> None:
    log, conversation = Log(), uuid4()
    async with (
        running(log, poll_s=60) as hub,
        hub.listen(ACCOUNT, lambda event: event.conversation_id == conversation) as subscription,
    ):
        log.commit(count=300)
        hub.announce(ACCOUNT, log.commit(conversation_id=conversation))
        assert await take(subscription, 1) == [301]
        assert subscription.queued == 0


async def test_a_filter_with_a_bug_fails_its_own_subscriber_only() -> None:
    log = Log()

    def broken(event: LogEntry) -> bool:
        raise ZeroDivisionError(event.kind)

    async with running(log, poll_s=60) as hub, hub.listen(ACCOUNT, broken) as bad, hub.listen(ACCOUNT) as good:
        hub.announce(ACCOUNT, log.commit(count=2))
        assert await take(good, 2) == [1, 2]
        with pytest.raises(ZeroDivisionError):
            await anext(bad)


async def test_with_a_dead_bus_the_poll_delivers_everything() -> None:
    log = Log()
    async with running(log, DeadBus(), poll_s=0.02) as hub, hub.listen(ACCOUNT) as subscription:
        log.commit(count=700)
        assert await take(subscription, 700) == numbers(1, 700)
        log.commit(count=3)
        assert await take(subscription, 3) == [701, 702, 703]


async def test_gap_makes_every_listened_account_read_its_log() -> None:
    log, bus = Log(), DeadBus()
    async with running(log, bus, poll_s=60) as hub, hub.listen(ACCOUNT) as one, hub.listen(OTHER) as two:
        for _ in range(20):
            await asyncio.sleep(0)  # what a first listener reads by itself has been read
        log.commit(ACCOUNT, 2)
        log.commit(OTHER, 1)
        bus.hints.put_nowait(GAP)
        assert await take(one, 2) == [1, 2]
        assert await take(two, 1) == [1]


async def test_a_hint_of_another_process_wakes_its_account_only() -> None:
    log, bus = Log(), DeadBus()
    async with running(log, bus, poll_s=60) as hub, hub.listen(ACCOUNT) as one, hub.listen(OTHER) as two:
        log.commit(OTHER, 1)
        bus.hints.put_nowait(Hint(ACCOUNT, log.commit(ACCOUNT)))
        assert await take(one, 1) == [1]
        assert two.queued == 0


async def test_a_hint_that_lies_delivers_nothing() -> None:
    log, bus = Log(), DeadBus()
    async with running(log, bus, poll_s=0.02) as hub, hub.listen(ACCOUNT) as subscription:
        bus.hints.put_nowait(Hint(ACCOUNT, 99))
        await asyncio.sleep(0.05)
        assert subscription.queued == 0
        log.commit()
        assert await take(subscription, 1) == [1]


async def test_announcements_are_published_newest_per_account_and_a_refusing_bus_fails_nobody() -> None:
    log, bus = Log(), DeadBus(refuses=True)
    async with running(log, bus, poll_s=60) as hub, hub.listen(ACCOUNT) as subscription:
        for _ in range(50):
            hub.announce(ACCOUNT, log.commit())
        assert await take(subscription, 50) == numbers(1, 50)
        assert bus.tried == [Hint(ACCOUNT, 50)]
        bus.refuses = False
        hub.announce(OTHER, 7)
        hub.announce(OTHER, 6)
        await asyncio.sleep(0.01)
        assert bus.tried == [Hint(ACCOUNT, 50), Hint(OTHER, 7)]


async def test_a_commit_while_the_first_listener_attaches_is_delivered_without_waiting_for_the_poll() -> None:
    log = Log()
    log.commit(count=4)
    async with running(log, DeadBus(), poll_s=60) as hub:
        opening = asyncio.create_task(hub.listen(ACCOUNT).__aenter__())
        await asyncio.sleep(0)
        log.commit()
        subscription = await opening
        if subscription.position == 4:
            assert await take(subscription, 1) == [5]
        else:
            assert subscription.position == 5


async def test_a_slow_consumer_gets_what_was_queued_and_then_the_error_and_delays_nobody() -> None:
    log = Log()
    async with (
        running(log, poll_s=60, queue_size=256) as hub,
        hub.listen(ACCOUNT) as slow,
        hub.listen(ACCOUNT) as quick,
    ):
        hub.announce(ACCOUNT, log.commit(count=2_000))
        assert await take(quick, 2_000) == numbers(1, 2_000)
        assert slow.queued == 256
        assert await take(slow, 256) == numbers(1, 256)
        with pytest.raises(SlowConsumer):
            await anext(slow)
        hub.announce(ACCOUNT, log.commit())
        assert await take(quick, 1) == [2_001]
        assert slow.queued == 0


async def test_a_database_that_is_away_is_read_again_and_nothing_is_lost() -> None:
    log = Log()
    async with running(log, poll_s=0.02) as hub, hub.listen(ACCOUNT) as subscription:
        hub.announce(ACCOUNT, log.commit(count=2))
        assert await take(subscription, 2) == [1, 2]
        log.broken = True
        hub.announce(ACCOUNT, log.commit(count=2))
        await asyncio.sleep(0.05)
        assert subscription.queued == 0
        log.broken = False
        assert await take(subscription, 2) == [3, 4]


async def test_health_needs_a_running_hub_and_a_recent_good_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.core.event_hub.HEALTHY_S", 0.2)
    log = Log()
    bus = await open_bus("memory://")
    hub = Hub(bus, log.read, log.heads, poll_s=0.01)
    assert not hub.healthy
    await hub.start()
    assert hub.healthy
    async with hub.listen(ACCOUNT):
        log.broken = True
        async with asyncio.timeout(5):
            while hub.healthy:
                await asyncio.sleep(0.02)
        log.broken = False
        async with asyncio.timeout(5):
            while not hub.healthy:
                await asyncio.sleep(0.02)
    await hub.stop()
    assert not hub.healthy
    await bus.aclose()


async def test_stopping_the_hub_ends_every_subscription_after_what_is_queued() -> None:
    log = Log()
    async with running(log, poll_s=60) as hub, hub.listen(ACCOUNT) as subscription, hub.listen(ACCOUNT) as idle:
        hub.announce(ACCOUNT, log.commit(count=2))
        assert await take(idle, 2) == [1, 2]
        await hub.stop()
        assert [event.seq async for event in subscription] == [1, 2]
        assert [event.seq async for event in idle] == []


async def test_the_last_listener_takes_the_account_out_of_the_poll() -> None:
    log = Log()
    log.commit()
    async with running(log, DeadBus(), poll_s=0.01) as hub:
        async with hub.listen(ACCOUNT):
            await asyncio.sleep(0.05)
            assert log.head_queries > 1
        before = log.head_queries
        await asyncio.sleep(0.05)
        assert log.head_queries == before


# ------------------------------------------------------------------------------------------------------------- follow
async def test_follow_without_a_position_starts_at_the_head() -> None:
    log = Log()
    log.commit(count=5)
    async with running(log, poll_s=60) as hub, aclosing(follow(hub, ACCOUNT, None)) as feed:
        assert await take(feed, 1) == [Start(5)]
        hub.announce(ACCOUNT, log.commit(count=2))
        assert await take(feed, 2) == [6, 7]


async def test_follow_from_a_position_gives_the_backlog_then_live_without_gap_or_double() -> None:
    log = Log()
    log.commit(count=10)
    async with running(log, poll_s=60) as hub, aclosing(follow(hub, ACCOUNT, 4)) as feed:
        # Committed and announced while the backlog is being read: it is in the backlog's answer or live, never in both.
        log.during_read = lambda: hub.announce(ACCOUNT, log.commit(count=3))
        assert await take(feed, 10) == [Start(4), 5, 6, 7, 8, 9, 10, 11, 12, 13]
        hub.announce(ACCOUNT, log.commit())
        assert await take(feed, 1) == [14]


async def test_follow_filters_backlog_and_live_alike() -> None:
    log = Log()
    for number in range(1, 11):
        log.commit(kind="card.created" if number % 2 else "message.received")
    async with (
        running(log, poll_s=60) as hub,
        aclosing(follow(hub, ACCOUNT, 0, lambda event: event.kind == "card.created")) as feed,
    ):
        assert await take(feed, 6) == [Start(0), 1, 3, 5, 7, 9]
        log.commit(kind="card.created")
        hub.announce(ACCOUNT, log.commit(kind="message.received"))
        assert await take(feed, 1) == [11]


async def test_follow_from_the_head_reads_no_backlog() -> None:
    log = Log()
    log.commit(count=3)
    async with running(log, DeadBus(), poll_s=60) as hub, aclosing(follow(hub, ACCOUNT, 3)) as feed:
        assert await take(feed, 1) == [Start(3)]
        hub.announce(ACCOUNT, log.commit())
        assert await take(feed, 1) == [4]


@pytest.mark.parametrize(
    ("after", "answer"),
    [
        (0, ResyncNeeded(ResyncReason.TOO_FAR_BEHIND, 1_201)),
        (200, ResyncNeeded(ResyncReason.TOO_FAR_BEHIND, 1_201)),
        (201, ResyncNeeded(ResyncReason.EXPIRED, 1_201)),
        (299, ResyncNeeded(ResyncReason.EXPIRED, 1_201)),
        (1_202, ResyncNeeded(ResyncReason.AHEAD_OF_LOG, 1_201)),
    ],
)
async def test_follow_says_resync_and_nothing_else(after: int, answer: ResyncNeeded) -> None:
    log = Log()
    log.commit(count=1_201)
    log.prune(ACCOUNT, 300)
    async with running(log, poll_s=60) as hub:
        assert [item async for item in follow(hub, ACCOUNT, after)] == [answer]


async def test_follow_from_the_last_number_before_the_retention_is_complete() -> None:
    log = Log()
    log.commit(count=1_201)
    log.prune(ACCOUNT, 300)
    async with running(log, poll_s=60) as hub, aclosing(follow(hub, ACCOUNT, 300)) as feed:
        assert await take(feed, 902) == [Start(300), *numbers(301, 1_201)]


async def test_follow_exactly_the_limit_behind_is_served() -> None:
    log = Log()
    log.commit(count=1_000)
    async with running(log, poll_s=60) as hub, aclosing(follow(hub, ACCOUNT, 0)) as feed:
        assert await take(feed, 1_001) == [Start(0), *numbers(1, 1_000)]


async def test_a_position_that_the_reader_has_not_reached_yet_is_not_called_ahead() -> None:
    log = Log()
    log.commit(count=2)
    async with running(log, DeadBus(), poll_s=60) as hub, hub.listen(ACCOUNT):
        await asyncio.sleep(0.01)
        # Another process committed 3 and 4 and no hint has come; the client read its cursor from the database.
        log.commit(count=2)
        async with aclosing(follow(hub, ACCOUNT, 4)) as feed:
            assert await take(feed, 1) == [Start(4)]
            hub.announce(ACCOUNT, log.commit())
            assert await take(feed, 1) == [5]


async def test_two_hundred_followers_with_random_joins_and_reconnects_each_see_every_number_once() -> None:
    log = Log()
    last = 600

    async def client(hub: Hub, index: int) -> list[int]:
        seen: list[int] = []
        await asyncio.sleep(index % 20 * 0.005)
        while not seen or seen[-1] < last:
            async with aclosing(follow(hub, ACCOUNT, seen[-1] if seen else 0)) as feed:
                start = await anext(feed)
                assert start == Start(seen[-1] if seen else 0)
                # Leaves after a while, comes back with its cursor.
                for _ in range(37 + index):
                    if seen and seen[-1] == last:
                        break
                    item = await anext(feed)
                    assert isinstance(item, LogEntry)
                    seen.append(item.seq)
        return seen

    async with running(log, poll_s=0.05) as hub:
        clients = [asyncio.create_task(client(hub, index)) for index in range(200)]
        for _ in range(last):
            hub.announce(ACCOUNT, log.commit())
            await asyncio.sleep(0.001)
        async with asyncio.timeout(60):
            seen = await asyncio.gather(*clients)
    assert all(each == numbers(1, last) for each in seen)
