"""One reader of a live list: from now on, or from where it was cut off."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from models.errors import NotFound
from models.event_log import LogEntry
from services.core.event_hub import Hub, ResyncNeeded, ResyncReason
from services.lists import live, snapshots, view_log
from services.lists.live_list import ItemLeft, ItemPlaced, ListChanged, ListDeleted, ListEvent, LiveList, Watcher
from services.lists.subjects import Subject, Wanted
from services.lists.touched import Touches

BACKLOG: Final = 1_000  # entries
MOST_RESUMED: Final = 5_000  # items


@dataclass(frozen=True, slots=True)
class Started:
    """`number` as of events."""

    number: int
    seq: int
    list: LiveList


Current = Callable[[], Awaitable[Wanted | None]]


async def watch(
    hub: Hub, account_id: UUID, view_id: UUID, current: Current, after_seq: int | None
) -> AsyncGenerator[Started | ResyncNeeded | ListEvent, None]:
    """Yield `Started`, then events; or only `ResyncNeeded`. `current`: reads what the view lists; None: it is gone.

    Ends after ListChanged and ListDeleted. Raises: NotFound, SlowConsumer.
    """
    wanted = await current()
    while wanted is not None:
        async with live.of(hub).watching(account_id, wanted, view_id) as (found, watcher):
            started = Started(found.number, found.seq, found)
            # A change of the view before the list was attached to has not reached the watcher.
            newest = await current()
            if newest == wanted:
                async for item in _events(hub, started, watcher, after_seq):
                    yield item
                return
            wanted = newest
    raise NotFound


async def _events(
    hub: Hub, started: Started, watcher: Watcher, after_seq: int | None
) -> AsyncGenerator[Started | ResyncNeeded | ListEvent, None]:
    if after_seq is None:
        yield started
    else:
        missed = await _missed(hub, started, watcher.view_id, after_seq)
        if isinstance(missed, ResyncNeeded):
            yield missed
            return
        yield Started(0, after_seq, started.list)
        # From here to the figures nothing is awaited: what was queued before is part of them.
        queued = watcher.take_all()
        last = [event for event in queued if isinstance(event, ListChanged | ListDeleted)]
        since = {e.id: e.entry for e in queued if isinstance(e, ItemPlaced | ItemLeft) and e.entry is not None}
        for event in last or started.list.resumed({**missed, **since}, after_seq):
            yield event
        if last:
            return
    async for event in watcher:
        yield event
        if isinstance(event, ListChanged | ListDeleted):
            return


async def _missed(hub: Hub, started: Started, view_id: UUID, after_seq: int) -> Mapping[UUID, LogEntry] | ResyncNeeded:
    """The list's items that entries after `after_seq` touched."""
    account_id, seq = started.list.account_id, started.seq
    if after_seq >= seq:
        # The reader of the log may lag behind the database.
        head = (await hub.heads([account_id])).get(account_id, 0) if after_seq > seq else seq
        return ResyncNeeded(ResyncReason.AHEAD_OF_LOG, head) if after_seq > head else {}
    if seq - after_seq > BACKLOG:
        return ResyncNeeded(ResyncReason.TOO_FAR_BEHIND, seq)
    entries = await hub.read_log(account_id, after_seq, seq - after_seq)
    if [entry.seq for entry in entries] != list(range(after_seq + 1, seq + 1)):
        return ResyncNeeded(ResyncReason.EXPIRED, seq)
    touches = Touches()
    for entry in entries:
        touches.note(entry)
        if view_log.is_about_a_view(entry) and view_log.view_of(entry) == view_id and view_log.changes_items(entry):
            return ResyncNeeded(ResyncReason.VIEW_CHANGED, seq)
    items = await _items(account_id, started.list.wanted, touches)
    return items if len(items) <= MOST_RESUMED else ResyncNeeded(ResyncReason.TOO_FAR_BEHIND, seq)


async def _items(account_id: UUID, wanted: Wanted, touches: Touches) -> Mapping[UUID, LogEntry]:
    touches.add_conversations_of(await snapshots.conversations_of(account_id, touches.contacts))
    if wanted.subject is Subject.CONVERSATION:
        return touches.conversations
    if not wanted.spreads:
        return touches.requests
    conversations = await snapshots.of_conversations(account_id, touches.spreading)
    beside = await snapshots.requests_of(account_id, conversations.values())
    return {id: touches.spreading[conversation] for id, conversation in beside.items()} | touches.requests
