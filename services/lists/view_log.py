"""The log's entries about views."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final
from uuid import UUID

from models.event_log import LogEntry
from services.core.unit_of_work import Change

CREATED: Final = "view.created"
UPDATED: Final = "view.updated"
DELETED: Final = "view.deleted"
_KINDS: Final = frozenset({CREATED, UPDATED, DELETED})
_OF_ITEMS: Final = frozenset({"conditions", "order_field", "descending"})  # columns


def log(changed: Change, kind: str, view_id: UUID, fields: Collection[str] = ()) -> None:
    """`fields`: those that changed."""
    changed.event(kind, data={"view_id": str(view_id), "fields": sorted(fields)})


def is_about_a_view(entry: LogEntry) -> bool:
    return entry.kind in _KINDS


def view_of(entry: LogEntry) -> UUID:
    return UUID(entry.data["view_id"])


def is_deleted(entry: LogEntry) -> bool:
    return entry.kind == DELETED


def changes_items(entry: LogEntry) -> bool:
    """Whether the view's items may be others now."""
    return entry.kind == UPDATED and not _OF_ITEMS.isdisjoint(entry.data["fields"])
