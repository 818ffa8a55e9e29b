"""Live lists: follows each distinct filter and order that someone watches, one evaluation per list and change.

A list starts with a query. Then each entry of the account's log names the items that it may have changed: they are read once for
all lists of the account, and each list decides in memory where they belong. An item's newest state decides, so an entry may be
applied late, twice, or together with others.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID
from weakref import WeakKeyDictionary

import structlog

from models.event_log import LogEntry
from services.core.event_hub import FIRST_DELAY_S, LAST_DELAY_S, Hub
from services.lists import snapshots, view_log
from services.lists.live_list import QUEUED, LiveList, Watcher
from services.lists.matching import ConversationSnapshot, Snapshot
from services.lists.subjects import Subject, Wanted
from services.lists.touched import Touched, Touches

log = structlog.get_logger(__name__)

WINDOW: Final = 20_000  # items of one list
WINDOWS: Final = 500_000  # items of all lists of the process: a list that starts later may get fewer
SMALLEST: Final = 1_000
FACETS: Final = 20_000  # conversations
PACE_STEP_S: Final = 0.005
PACE_STEPS: Final = 200


@dataclass(slots=True)
class Counters:
    """For /metrics."""

    changes: int = 0  # changed items that were read
    evaluations: int = 0  # of one item by one list
    lists: int = 0
    watchers: int = 0
    items: int = 0  # in memory
    _taken: tuple[int, int] = (0, 0)

    def take_new(self) -> tuple[int, int]:
        """Changes and evaluations since the last call."""
        before, self._taken = self._taken, (self.changes, self.evaluations)
        return self.changes - before[0], self.evaluations - before[1]


class _Facets:
    """What requests' filters read of conversations and contacts, as last seen."""

    def __init__(self) -> None:
        self._of: OrderedDict[UUID, object] = OrderedDict()

    def are_new(self, seen: ConversationSnapshot) -> bool:
        return self._of.get(seen.id) != _facets(seen)

    def keep(self, seen: Iterable[ConversationSnapshot]) -> None:
        for one in seen:
            self._of[one.id] = _facets(one)
            self._of.move_to_end(one.id)
            if len(self._of) > FACETS:
                self._of.popitem(last=False)

    def forget(self) -> None:
        self._of.clear()


def _facets(seen: ConversationSnapshot) -> object:
    # Texts may be long.
    return seen.assignee_id, seen.contact_ids, seen.tags, hash(seen.contact_search)


class AccountLists:
    """An account's live lists, and the reader of the log that they share."""

    def __init__(self, hub: Hub, account_id: UUID, room: Callable[[], int], counters: Counters) -> None:
        self.account_id = account_id
        self.lists: dict[Wanted, LiveList] = {}
        self.users = 0
        self._hub = hub
        self._room = room
        self._counters = counters
        self._noted = 0  # the newest entry
        self._touches = Touches()
        self._about_views: list[LogEntry] = []
        self._read_lists: list[LiveList] = []  # ready when the next batch is applied
        self._facets = _Facets()
        self._wake = asyncio.Event()
        self._attached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(), name="live-lists")

    @property
    def is_over(self) -> bool:
        return self._task.done()

    async def close(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    @asynccontextmanager
    async def watching(self, wanted: Wanted, view_id: UUID) -> AsyncIterator[tuple[LiveList, Watcher]]:
        await asyncio.shield(self._attached)
        live = self.lists.get(wanted)
        if live is None:
            live = self.lists[wanted] = LiveList(self.account_id, wanted, self._room())
            self._start_reading(live)
        live.users += 1
        watcher = Watcher(view_id)
        try:
            await asyncio.shield(live.ready)
            live.watchers.add(watcher)
            yield live, watcher
        finally:
            live.watchers.discard(watcher)
            live.users -= 1
            if not live.users:
                if self.lists.get(wanted) is live:
                    del self.lists[wanted]
                if live.reading is not None:
                    live.reading.cancel()

    # ---------------------------------------------------------------------------------------------------- the log
    async def _run(self) -> None:
        failure: Exception | None = None
        try:
            async with self._hub.listen(self.account_id, self._note) as entries:
                self._noted = max(self._noted, entries.position)
                self._attached.set_result(None)
                over = asyncio.ensure_future(anext(entries, None))  # nothing is queued: it ends with the hub
                try:
                    while not over.done():
                        await self._wait(over)
                        await self._work()
                finally:
                    over.cancel()
        except Exception as error:  # noqa: BLE001 the task's top
            log.error("live lists broke", error=type(error).__name__)
            failure = error
        finally:
            self._end(failure)

    def _end(self, failure: Exception | None) -> None:
        lists = tuple(self.lists.values())
        for ready in (self._attached, *(live.ready for live in lists)):
            if not ready.done():
                ready.set_exception(failure or RuntimeError("live lists have ended"))
                ready.exception()  # it may have no reader
        for live in lists:
            live.end(failure)

    def _note(self, entry: LogEntry) -> bool:
        # Entries are not queued: a burst costs one reading per item, and can't overflow.
        self._noted = entry.seq
        self._touches.note(entry)
        if view_log.is_about_a_view(entry):
            self._about_views.append(entry)
        self._wake.set()
        return False

    async def _wait(self, over: asyncio.Future[Any]) -> None:
        due = [live.figures_at for live in self.lists.values() if live.figures_at is not None]
        timeout = max(0.0, min(due) - asyncio.get_running_loop().time()) if due else None
        woken = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait({woken, over}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()

    async def _work(self) -> None:
        self._wake.clear()
        delay_s = FIRST_DELAY_S
        while self._touches or self._about_views or self._read_lists:
            seq, touches, self._touches = self._noted, self._touches, Touches()
            starting, self._read_lists = self._read_lists, []
            for live in starting:
                touches.add(live.missed)
                live.missed = Touches()
            try:
                batch = await self._read(touches)
            except Exception as error:  # noqa: BLE001 the loop's top; the database may be away
                log.warning("reading changed items failed", error=type(error).__name__)
                self._touches.add(touches)
                self._read_lists += starting
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, LAST_DELAY_S)
                continue
            delay_s = FIRST_DELAY_S
            self._apply(batch, seq, starting)
            await self._pace()
        now = asyncio.get_running_loop().time()
        for live in tuple(self.lists.values()):
            if live.is_ready:
                live.advance(self._noted)
                live.send_figures(now)

    async def _read(self, touches: Touches) -> Mapping[Subject, Sequence[Touched]]:
        """Each touched item once, in the order of the entries."""
        wanted = tuple(self.lists)
        subjects = {one.subject for one in wanted}
        found: dict[Subject, Sequence[Touched]] = {}
        spreads = any(one.spreads for one in wanted)
        if not spreads:
            self._facets.forget()
        touches.add_conversations_of(await snapshots.conversations_of(self.account_id, touches.contacts))
        conversations: Mapping[UUID, ConversationSnapshot] = {}
        if spreads or Subject.CONVERSATION in subjects:
            conversations = await snapshots.of_conversations(self.account_id, touches.conversations)
        if Subject.CONVERSATION in subjects:
            found[Subject.CONVERSATION] = _in_order(touches.conversations, conversations)
        if Subject.PAYMENT_REQUEST in subjects:
            spreading = {id: one for id, one in conversations.items() if id in touches.spreading} if spreads else {}
            changed = {id: one for id, one in spreading.items() if self._facets.are_new(one)}
            of = await snapshots.requests_of(self.account_id, changed.values())
            beside = {request_id: touches.spreading[conversation_id] for request_id, conversation_id in of.items()}
            requests = await snapshots.of_requests(self.account_id, {*touches.requests, *beside})
            found[Subject.PAYMENT_REQUEST] = _in_order(touches.requests, requests, beside)
            # Only now: a failed reading is repeated.
            self._facets.keep(changed.values())
        return found

    def _apply(self, batch: Mapping[Subject, Sequence[Touched]], seq: int, starting: Sequence[LiveList]) -> None:
        about_views = [entry for entry in self._about_views if entry.seq <= seq]
        self._about_views = [entry for entry in self._about_views if entry.seq > seq]
        now, memo = asyncio.get_running_loop().time(), dict[Any, Any]()
        for touches in batch.values():
            self._counters.changes += len(touches)
        for live in tuple(self.lists.values()):
            touched = batch.get(live.wanted.subject, ())
            if not live.is_ready and live not in starting:
                live.missed.add_items(touched, are_requests=live.wanted.subject is Subject.PAYMENT_REQUEST)
                continue
            if live.reading is not None:
                # What was read may be older: decide again.
                live.missed.add_items(touched, are_requests=live.wanted.subject is Subject.PAYMENT_REQUEST)
            live.apply(touched, seq, now, memo)
            self._counters.evaluations += len(touched)
            if not live.is_ready:
                live.ready.set_result(None)
            for entry in about_views:
                live.view_changed(entry)
            if live.window.wants_more and live.reading is None:
                self._start_reading(live)

    async def _pace(self) -> None:
        # A long batch must not overflow watchers that keep up.
        watchers = [watcher for live in self.lists.values() for watcher in live.watchers]
        for _ in range(PACE_STEPS):
            await asyncio.sleep(0)
            if all(watcher.queued <= QUEUED // 2 for watcher in watchers):
                return
            await asyncio.sleep(PACE_STEP_S)

    # ---------------------------------------------------------------------------------------------------- reading
    def _start_reading(self, live: LiveList) -> None:
        live.reading = asyncio.create_task(self._read_list(live), name="live-lists:read")

    async def _read_list(self, live: LiveList) -> None:
        try:
            await live.read()
        except Exception as error:  # noqa: BLE001 a watcher gets it
            if live.is_ready:
                log.warning("reading more of a live list failed", error=type(error).__name__)
                return
            live.ready.set_exception(error)
            live.ready.exception()  # it may have no reader
            if self.lists.get(live.wanted) is live:
                del self.lists[live.wanted]
        else:
            self._read_lists.append(live)
            self._wake.set()
        finally:
            live.reading = None


class LiveLists:
    """The live lists of one hub."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._accounts: dict[UUID, AccountLists] = {}
        self._counters = Counters()

    @property
    def counters(self) -> Counters:
        lists = [live for account in self._accounts.values() for live in account.lists.values()]
        self._counters.lists = len(lists)
        self._counters.watchers = sum(len(live.watchers) for live in lists)
        self._counters.items = sum(len(live.window) for live in lists)
        return self._counters

    @asynccontextmanager
    async def watching(
        self, account_id: UUID, wanted: Wanted, view_id: UUID
    ) -> AsyncIterator[tuple[LiveList, Watcher]]:
        """A list, and a watcher that gets what comes after its `seq`. Await nothing before both were looked at."""
        account = self._accounts.get(account_id)
        if account is None or account.is_over:
            account = self._accounts[account_id] = AccountLists(self._hub, account_id, self._room, self._counters)
        account.users += 1
        try:
            async with account.watching(wanted, view_id) as found:
                yield found
        finally:
            account.users -= 1
            if not account.users:
                if self._accounts.get(account_id) is account:
                    del self._accounts[account_id]
                await account.close()

    def _room(self) -> int:
        return max(SMALLEST, min(WINDOW, WINDOWS - self.counters.items))


_of_hubs: WeakKeyDictionary[Hub, LiveLists] = WeakKeyDictionary()


def of(hub: Hub) -> LiveLists:
    found = _of_hubs.get(hub)
    if found is None:
        found = _of_hubs[hub] = LiveLists(hub)
    return found


def _in_order(
    direct: Mapping[UUID, LogEntry], found: Mapping[UUID, Snapshot], beside: Mapping[UUID, LogEntry] | None = None
) -> list[Touched]:
    touched = [Touched(id, entry, found.get(id), direct=True) for id, entry in direct.items()]
    for id, entry in (beside or {}).items():
        if id not in direct:
            touched.append(Touched(id, entry, found.get(id), direct=False))
    return sorted(touched, key=lambda one: one.entry.seq)
