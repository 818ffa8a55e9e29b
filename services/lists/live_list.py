"""One live list: its first items in memory, and the events that its watchers get."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, Self
from uuid import UUID

from models.event_log import LogEntry
from services.core.event_hub import SlowConsumer
from services.lists import subjects, view_log
from services.lists.subjects import Amounts, Sums, Wanted
from services.lists.touched import Touched, Touches
from services.lists.window import Key, Outcome, Placed, Window, id_of

QUEUED: Final = 256  # events of a watcher, when a further batch comes
COUNTED: Final = 10_000  # items
FIGURES_S: Final = 1.0  # between two events with counts and sums


@dataclass(frozen=True, slots=True)
class Figures:
    total: int
    sums: Mapping[tuple[str, bool], Sums]  # by currency and test mode


@dataclass(frozen=True, slots=True, kw_only=True)
class ListEvent:
    """`seq`: everything up to it was delivered. `number` grows with the process's events; 0: one of several that repeat."""

    number: int
    seq: int
    entry: LogEntry | None  # its cause, if it is one entry
    memo: dict[Any, Any] = field(
        default_factory=dict, compare=False, repr=False
    )  # for readers, of all lists' same changes


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemPlaced(ListEvent):
    id: UUID
    entered: bool
    key: Key
    before: Key | None  # of the item in front of it


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemLeft(ListEvent):
    id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class FiguresChanged(ListEvent):
    """`figures` None: there are more items than are counted. `renamed`: the view has another name."""

    figures: Figures | None
    renamed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ListChanged(ListEvent):
    """The view has another filter or order. Nothing else follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListDeleted(ListEvent):
    """Nothing else follows."""


_numbers = count(1)


@dataclass(frozen=True, slots=True)
class _Change:
    entry: LogEntry
    id: UUID
    placed: Placed

    def event(self, number: int, seq: int, memo: dict[Any, Any]) -> ListEvent:
        key = self.placed.key
        if key is None:
            return ItemLeft(number=number, seq=seq, entry=self.entry, id=self.id)
        return ItemPlaced(
            number=number,
            seq=seq,
            entry=self.entry,
            memo=memo,
            id=self.id,
            entered=self.placed.outcome is Outcome.ENTERED,
            key=key,
            before=self.placed.before,
        )


class Watcher:
    """One reader's events, in order."""

    __slots__ = ("_ended", "_failure", "_queue", "_wake", "view_id")

    def __init__(self, view_id: UUID) -> None:
        self.view_id = view_id
        self._queue: deque[ListEvent] = deque()
        self._wake = asyncio.Event()
        self._ended = False
        self._failure: Exception | None = None

    @property
    def queued(self) -> int:
        return len(self._queue)

    def offer(self, events: Sequence[ListEvent]) -> bool:
        """False: it reads too slowly and gets no more."""
        if len(self._queue) >= QUEUED:
            self.end(SlowConsumer(SlowConsumer.__doc__))
            return False
        self._queue.extend(events)
        self._wake.set()
        return True

    def take_all(self) -> list[ListEvent]:
        taken = list(self._queue)
        self._queue.clear()
        return taken

    def end(self, failure: Exception | None = None) -> None:
        """What is queued is still read, then the failure."""
        self._ended = True
        self._failure = self._failure or failure
        self._wake.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ListEvent:
        while not self._queue:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        return self._queue.popleft()


class LiveList:
    """One filter and order of one account."""

    def __init__(self, account_id: UUID, wanted: Wanted, most: int) -> None:
        self.account_id = account_id
        self.wanted = wanted
        self.window = Window(most)
        self.seq = 0  # everything up to it is applied; set by `advance`
        self.number = next(_numbers)  # of the newest event
        self.users = 0
        self.watchers: set[Watcher] = set()
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.reading: asyncio.Task[None] | None = None
        self.missed = Touches()  # while it was read
        self.figures_at: float | None = None  # when the next event with figures is due
        self._advanced = asyncio.Event()
        self._over = False
        self._figures_sent_at = float("-inf")
        self._cause: LogEntry | None = None  # the newest entry that changed it
        self._amounts: dict[int, Amounts] = {}
        self._sums: dict[tuple[str, bool], Sums] = {}

    @property
    def is_ready(self) -> bool:
        return self.ready.done()

    def advance(self, seq: int) -> None:
        if seq > self.seq:
            self.seq = seq
            self._advanced.set()
            self._advanced = asyncio.Event()

    async def reached(self, seq: int) -> None:
        """Wait until everything up to `seq` is applied, or the list has ended."""
        while self.seq < seq and not self._over:
            await self._advanced.wait()

    def end(self, failure: Exception | None) -> None:
        """It is followed no more."""
        self._over = True
        self._advanced.set()
        for watcher in self.watchers:
            watcher.end(failure)

    # ---------------------------------------------------------------------------------------------------------- items
    async def read(self) -> None:
        """Read the list, or what comes after the items that it holds."""
        rows = await subjects.read(self.account_id, self.wanted, self.window.most + 1)
        unknown = [row for row in rows if id_of(row.key) not in self.window]
        self.window.extend((row.key for row in unknown), whole=len(rows) <= self.window.most)
        for row in unknown:
            if id_of(row.key) in self.window:
                self._add_sums(id_of(row.key), row.amounts)

    def apply(self, touches: Sequence[Touched], seq: int, now: float, memo: dict[Any, Any]) -> None:
        """Bring the touched items to their places. `seq`: the newest entry. `memo`: one for all lists."""
        changes = [change for touched in touches for change in self._changes(touched)]
        events: list[ListEvent] = []
        for n, change in enumerate(changes):
            # Everything up to a position must have been delivered: an entry counts with its last item.
            entry_seq = change.entry.seq
            is_last = n + 1 == len(changes) or changes[n + 1].entry.seq > entry_seq
            self.advance(entry_seq if is_last else entry_seq - 1)
            events.append(change.event(self._next(), self.seq, memo))
            self._cause = change.entry
        self.advance(seq)
        if events:
            self.offer(events)
            if self.figures_at is None:
                self.figures_at = max(now, self._figures_sent_at + FIGURES_S)

    def _changes(self, touched: Touched) -> Iterator[_Change]:
        id, snapshot = touched.id, touched.snapshot
        key = subjects.place(self.wanted, snapshot) if snapshot is not None else None
        placed = self.window.put(id.int, key)
        self._remove_sums(id.int)
        if snapshot is not None and id.int in self.window:
            self._add_sums(id.int, subjects.amounts(snapshot))
        shown = touched.direct or placed.outcome is not Outcome.STAYED
        if placed.outcome is not Outcome.NOTHING and shown:
            yield _Change(touched.entry, id, placed)
        if placed.pushed_out is not None:
            self._remove_sums(placed.pushed_out)
            yield _Change(touched.entry, UUID(int=placed.pushed_out), Placed(Outcome.LEFT))

    def resumed(self, touched: Mapping[UUID, LogEntry], seq: int) -> list[ListEvent]:
        """What a reader needs that has everything up to `seq`: each of these items at its place, or gone, and the figures.

        In the order of the list, so that the item in front of each is known by then. Only the last one has a position: a
        reader that is cut off before it begins again.
        """
        here: list[tuple[Key, Key | None, UUID]] = []
        gone: list[ListEvent] = []
        for id, entry in touched.items():
            place = self.window.find(id.int)
            if place is None:
                gone.append(ItemLeft(number=0, seq=seq, entry=entry, id=id))
            else:
                here.append((*place, id))
        placed = [
            ItemPlaced(number=0, seq=seq, entry=touched[id], id=id, entered=False, key=key, before=before)
            for key, before, id in sorted(here, key=lambda found: found[0])
        ]
        last = FiguresChanged(number=self.number, seq=max(seq, self.seq), entry=None, figures=self.figures)
        return [*gone, *placed, last]

    # -------------------------------------------------------------------------------------------------------- figures
    @property
    def figures(self) -> Figures | None:
        """None: there are more than COUNTED."""
        total = len(self.window)
        if not self.window.whole or total > COUNTED:
            return None
        return Figures(total, dict(sorted(self._sums.items())))

    def _figures_changed(self, *, renamed: bool = False) -> FiguresChanged:
        return FiguresChanged(
            number=self._next(), seq=self.seq, entry=self._cause, figures=self.figures, renamed=renamed
        )

    def send_figures(self, now: float) -> None:
        """Send them if they are due."""
        if self.figures_at is not None and now >= self.figures_at:
            self.figures_at = None
            self._figures_sent_at = now
            self.offer([self._figures_changed()])

    def _add_sums(self, id: int, amounts: Amounts | None) -> None:
        if amounts is not None:
            self._amounts[id] = amounts
            self._count(amounts, 1)

    def _remove_sums(self, id: int) -> None:
        if (amounts := self._amounts.pop(id, None)) is not None:
            self._count(amounts, -1)

    def _count(self, amounts: Amounts, sign: int) -> None:
        group, more = amounts
        sums = self._sums.get(group, Sums()).plus(more, sign)
        if sums.items:
            self._sums[group] = sums
        else:
            del self._sums[group]

    # ------------------------------------------------------------------------------------------------------- watchers
    def _next(self) -> int:
        self.number = next(_numbers)
        return self.number

    def offer(self, events: Sequence[ListEvent], view_id: UUID | None = None) -> None:
        """`view_id`: only to the watchers of this view."""
        for watcher in tuple(self.watchers):
            if (view_id is None or watcher.view_id == view_id) and not watcher.offer(events):
                self.watchers.discard(watcher)

    def view_changed(self, entry: LogEntry) -> None:
        view_id = view_log.view_of(entry)
        if view_log.is_deleted(entry) or view_log.changes_items(entry):
            kind = ListDeleted if view_log.is_deleted(entry) else ListChanged
            self.offer([kind(number=self._next(), seq=entry.seq, entry=entry)], view_id)
            self._end(view_id)
        else:
            self.offer([self._figures_changed(renamed=True)], view_id)

    def _end(self, view_id: UUID) -> None:
        for watcher in [watcher for watcher in self.watchers if watcher.view_id == view_id]:
            watcher.end()
            self.watchers.discard(watcher)
