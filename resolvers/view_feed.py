"""The feed of a live view."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Hashable, Mapping
from contextlib import aclosing
from typing import Any
from uuid import UUID

from models.errors import NotFound
from models.event_log import Cursor as EventCursor
from models.ids import parse_public_id
from models.tables import SavedView
from resolvers.access.reads import access
from resolvers.feeds import cursor_at, hub_of, logged, position_of, unlogged
from schema.connections import keyset_of
from schema.context import Info
from schema.events import Event, ResyncRequired, Subscribed
from schema.failures import not_found
from schema.reasons import ResyncReason
from schema.scalars import Cursor
from schema.view import LiveFigures, wanted_of
from schema.view_events import ViewChanged, ViewItemEntered, ViewItemLeft, ViewItemMoved
from services.core.event_hub import ResyncNeeded
from services.core.permissions import Actor
from services.lists import subjects, views
from services.lists.live_list import FiguresChanged, ItemLeft, ItemPlaced, ListChanged, ListDeleted, ListEvent, LiveList
from services.lists.orders import Order
from services.lists.subjects import Subject, Wanted
from services.lists.watching import Started, watch
from services.lists.window import Key


def row_id(public_id: Any) -> UUID | None:
    if not isinstance(public_id, str):
        return None
    return parse_public_id(public_id, "prv") or parse_public_id(public_id, "cvv")


async def audience(viewer: Actor, arguments: Mapping[str, Any]) -> Hashable | None:
    """All who may use a shared view; of another one its owner. None: not this viewer."""
    found = await find(viewer, arguments.get("viewId"))
    return (found.owner_user_id,) if found is not None else None


async def find(viewer: Actor, public_id: Any) -> SavedView | None:
    id = row_id(public_id)
    row = await views.find(viewer, id) if id is not None else None
    return row if row is not None and views.public_id_of(row) == public_id else None


class _View:
    """The view as it was last read."""

    def __init__(self, viewer: Actor, row: SavedView) -> None:
        self._viewer = viewer
        self.row = row

    async def current(self) -> Wanted | None:
        found = await views.find(self._viewer, self.row.id)
        if found is None:
            return None
        self.row = found
        return wanted_of(found)


async def view_feed(info: Info, row: SavedView, after: str | None) -> AsyncGenerator[Any, None]:
    context, viewer = info.context, access(info).viewer
    here = await access(info).position()
    resume = position_of(after, here)
    if resume is not None and resume.epoch != here.epoch:
        yield ResyncRequired(**unlogged(cursor_at(context, here)), reason=ResyncReason.OTHER_EPOCH)
        return
    view, live = _View(viewer, row), None
    least = resume.seq if resume is not None else 0

    def cursor(seq: int) -> Cursor:
        # The reader of the log may lag behind a cursor of another process.
        return cursor_at(context, EventCursor(here.epoch, here.account_id, max(seq, least)))

    try:
        items = watch(hub_of(context), here.account_id, row.id, view.current, resume.seq if resume else None)
        async with aclosing(items) as found:
            async for item in found:
                if isinstance(item, ResyncNeeded):
                    context.event_number = 0
                    yield ResyncRequired(**unlogged(cursor(item.seq)), reason=ResyncReason[item.reason.value])
                    return
                context.event_number = item.number
                if isinstance(item, Started):
                    live = item.list
                    yield Subscribed(**unlogged(cursor(item.seq)))
                elif live is not None:
                    context.feed_is_over = isinstance(item, ListChanged | ListDeleted)
                    if isinstance(item, FiguresChanged) and item.renamed:
                        await view.current()
                    if (event := _event(item, cursor(item.seq), view.row, live)) is not None:
                        yield event
    except NotFound:
        raise not_found() from None


def _event(item: ListEvent, cursor: Cursor, row: SavedView, live: LiveList) -> Event | None:
    """None for the end without an event."""
    figures: LiveFigures = lambda: live.figures  # noqa: E731 (typed)
    common = logged(item.entry, cursor) if item.entry is not None else unlogged(cursor)
    if isinstance(item, ItemPlaced):
        kind = ViewItemEntered if item.entered else ViewItemMoved
        order, of_requests = live.wanted.order, live.wanted.subject is Subject.PAYMENT_REQUEST
        return kind(
            **common,
            view_row=row,
            live=figures,
            memo=item.memo,
            request_row=item.id if of_requests else None,
            conversation_row=None if of_requests else item.id,
            place=_place(order, item.key),
            after_cursor=_place(order, item.before) if item.before is not None else None,
        )
    if isinstance(item, ItemLeft):
        return ViewItemLeft(**common, view_row=row, live=figures, item_row=item.id)
    if isinstance(item, FiguresChanged):
        return ViewChanged(**common, view_row=row, live=figures)
    if isinstance(item, ListChanged):
        return ResyncRequired(**common, reason=ResyncReason.VIEW_CHANGED)
    return None


def _place(order: Order, key: Key) -> Cursor:
    return keyset_of(order).cursor(*subjects.place_of(order, key))
