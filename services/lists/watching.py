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
        # What the reader has seen may be newer than the list, but not than the log's end now. Once the list is there, too, it
        # is as new as the reader for every item, and what was applied since the watcher exists is in its queue.
        head = (await hub.heads([started.list.account_id])).get(started.list.account_id, 0)
        hub.expect(started.list.account_id, head)
        missed = await _missed(hub, started.list, watcher.view_id, after_seq, head)
        if isinstance(missed, ResyncNeeded):
            yield missed
            return
        await started.list.reached(head)
        # From here to the figures nothing is awaited.
        queued = watcher.take_all()
        last = [event for event in queued if isinstance(event, ListChanged | ListDeleted)]
        since = {e.id: e.entry for e in queued if isinstance(e, ItemPlaced | ItemLeft) and e.entry is not None}
        resumed = last or started.list.resumed({**missed, **since}, after_seq)
        yield Started(0, after_seq, started.list)
        for event in resumed:
            yield event
        if last:
            return
    async for event in watcher:
        yield event
        if isinstance(event, ListChanged | ListDeleted):
            return


async def _missed(
    hub: Hub, of: LiveList, view_id: UUID, after_seq: int, head: int
) -> Mapping[UUID, LogEntry] | ResyncNeeded:
    """The list's items that the entries after `after_seq` up to `head` touched."""
    if after_seq > head:
        return ResyncNeeded(ResyncReason.AHEAD_OF_LOG, head)
    if head - after_seq > BACKLOG:
        return ResyncNeeded(ResyncReason.TOO_FAR_BEHIND, head)
    entries = await hub.read_log(of.account_id, after_seq, head - after_seq) if head > after_seq else ()
    if [entry.seq for entry in entries] != list(range(after_seq + 1, head + 1)):
        return ResyncNeeded(ResyncReason.EXPIRED, head)
    touches = Touches()
    for entry in entries:
        touches.note(entry)
        if view_log.is_about_a_view(entry) and view_log.view_of(entry) == view_id and view_log.changes_items(entry):
            return ResyncNeeded(ResyncReason.VIEW_CHANGED, head)
    items = await _items(of.account_id, of.wanted, touches)
    return items if len(items) <= MOST_RESUMED else ResyncNeeded(ResyncReason.TOO_FAR_BEHIND, head)


async def _items(account_id: UUID, wanted: Wanted, touches: Touches) -> Mapping[UUID, LogEntry]:
    touches.add_conversations_of(await snapshots.conversations_of(account_id, touches.contacts))
    if wanted.subject is Subject.CONVERSATION:
        return touches.conversations
    if not wanted.spreads:
        return touches.requests
    conversations = await snapshots.of_conversations(account_id, touches.spreading)
    beside = await snapshots.requests_of(account_id, conversations.values())
    return {id: touches.spreading[conversation] for id, conversation in beside.items()} | touches.requests
