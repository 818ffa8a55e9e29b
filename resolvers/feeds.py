"""What all feeds share: the hub, and cursors."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypeAlias

from models.event_log import Cursor as EventCursor
from models.event_log import CursorInvalid, LogEntry
from schema.context import Context
from schema.events import EventCause
from schema.failures import bad_request
from schema.scalars import Cursor
from services.core.actors import parse
from services.core.event_hub import Hub

Common: TypeAlias = dict[str, Any]  # the fields of every event


def logged(entry: LogEntry, cursor: Cursor) -> Common:
    by = parse(entry.actor) if entry.actor is not None else None
    cause = EventCause[by.kind] if by is not None else EventCause.SYSTEM
    return {"cursor": cursor, "occurred_at": entry.at, "cause": cause, "by": by}


def unlogged(cursor: Cursor) -> Common:
    """For an event without an entry in the log."""
    return {"cursor": cursor, "occurred_at": datetime.now(UTC), "cause": EventCause.SYSTEM, "by": None}


def hub_of(context: Context) -> Hub:
    if context.hub is None:
        raise RuntimeError("a subscription needs the hub")
    return context.hub


def cursor_at(context: Context, position: EventCursor) -> Cursor:
    context.event_position = position
    return Cursor(position.encode())


def position_of(after: str | None, here: EventCursor) -> EventCursor | None:
    """Raises: ApiError BAD_REQUEST."""
    try:
        return EventCursor.decode(after, here.account_id) if after is not None else None
    except CursorInvalid as error:
        raise bad_request("`after` is not a cursor of this account.") from error


def number_of(context: Context) -> int | None:
    """The last event's number: the feed's own, or its position in the log."""
    if context.event_number is not None:
        return context.event_number
    return context.event_position.seq if context.event_position is not None else None
