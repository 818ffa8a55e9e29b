"""Plans for the events of subscriptions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final
from uuid import UUID

from graphql import FieldNode

from models.tables import Row
from resolvers.access.records import Record
from resolvers.plans.compiler import Compiler, Root
from resolvers.plans.selections import ActorSelection, Built, RowSelection, Run, key_of
from resolvers.plans.types import TYPES
from resolvers.transport.executor import NotPlanned
from schema.connections import CONTACT_REQUESTS, CONVERSATIONS, PAYMENT_REQUESTS, THREAD, Keyset
from schema.scalars import time_text

# Event -> field -> the attribute that holds its value.
_VALUES: Final[dict[str, dict[str, str]]] = {
    "Subscribed": {},
    "ResyncRequired": {"reason": "reason"},
    "ThreadItemAdded": {},
    "PaymentRequestUpdated": {},
    "MessageUpdated": {},
    "ContactUpdated": {},
    "ContactMerged": {
        "mergedContactId": "merged_contact_id",
        "mergedConversationId": "merged_conversation_id",
    },
    "ConversationUpdated": {},
    "ViewItemEntered": {"afterCursor": "after_cursor"},
    "ViewItemMoved": {"afterCursor": "after_cursor"},
    "ViewItemLeft": {"id": "id_of_item"},
    "ViewChanged": {},
}
Candidates = tuple[tuple[str, str], ...]  # of (type, attribute with the row's id)


@dataclass(frozen=True)
class _Row:
    candidates: Candidates
    nullable: bool = False


@dataclass(frozen=True)
class _Edge:
    type_name: str
    keyset: Keyset
    candidates: Candidates
    nullable: bool = False
    cursor: str | None = None  # the event's attribute with it; None: the row's place by the keyset


_CONTACT: Final = _Row((("Contact", "contact_row"),))
_CONVERSATION: Final = _Row((("Conversation", "conversation_row"),))
_REQUEST: Final = "PaymentRequest"
_OF_VIEW_ITEMS: Final[dict[str, _Row | _Edge]] = {
    "edge": _Edge("PaymentRequestEdge", PAYMENT_REQUESTS, ((_REQUEST, "request_row"),), nullable=True, cursor="place"),
    "conversationEdge": _Edge(
        "ConversationEdge", CONVERSATIONS, (("Conversation", "conversation_row"),), nullable=True, cursor="place"
    ),
}
# Event -> field -> what it reads.
_ROWS: Final[dict[str, dict[str, _Row | _Edge]]] = {
    "ThreadItemAdded": {
        "edge": _Edge(
            "ThreadEdge", THREAD, (("Message", "message_row"), ("ActivityCard", "card_row"), ("Note", "note_row"))
        ),
        "conversation": _CONVERSATION,
        "contact": _CONTACT,
    },
    "PaymentRequestUpdated": {
        "paymentRequest": _Row(((_REQUEST, "payment_request_row"),)),
        "paymentRequestEdge": _Edge("PaymentRequestEdge", CONTACT_REQUESTS, ((_REQUEST, "new_row"),), nullable=True),
        "card": _Row((("ActivityCard", "card_row"),), nullable=True),
    },
    "MessageUpdated": {"message": _Row((("Message", "message_row"),)), "conversation": _CONVERSATION},
    "ContactUpdated": {"contact": _CONTACT},
    "ContactMerged": {"contact": _CONTACT, "conversation": _CONVERSATION},
    "ConversationUpdated": {"conversation": _CONVERSATION},
    "ViewItemEntered": _OF_VIEW_ITEMS,
    "ViewItemMoved": _OF_VIEW_ITEMS,
}


# Fields of every event.
_COMMON: Final[dict[str, Callable[[Any], Any]]] = {
    "cursor": lambda event: event.cursor,
    "occurredAt": lambda event: time_text(event.occurred_at),
    "cause": lambda event: event.cause.name,
}


def event_reader(compiler: Compiler, event: type, nodes: list[FieldNode]) -> Root:
    """Raises: NotPlanned."""
    type_name = event.__name__
    if type_name not in _VALUES:
        raise NotPlanned
    values = _VALUES[type_name]
    rows = _ROWS.get(type_name, {})
    parts: list[tuple[str, Callable[[Any], Any] | _EventRow | _EventEdge | _EventActor]] = []
    for name, found in compiler.fields(nodes, type_name).items():
        field = found[0].name.value
        reads = rows.get(field)
        if field == "__typename":
            parts.append((name, lambda event: type_name))
        elif field in _COMMON:
            parts.append((name, _COMMON[field]))
        elif field == "actor":
            parts.append((name, _EventActor(compiler.actor(found))))
        elif field == "previousStatus" and type_name == "PaymentRequestUpdated":
            parts.append((name, _previous_status))
        elif field == "changed" and type_name == "PaymentRequestUpdated":
            parts.append((name, lambda event: [facet.name for facet in event.changed]))
        elif field == "view":
            parts.append((name, _view(compiler, found)))
        elif field in values:
            parts.append((name, _attribute(values[field])))
        elif isinstance(reads, _Edge):
            parts.append((name, _edge(compiler, reads, found)))
        elif reads is not None:
            selections = [(compiler.rows(row_type, found), attribute) for row_type, attribute in reads.candidates]
            parts.append((name, _EventRow(selections, reads.nullable)))
        else:
            raise NotPlanned

    async def read(run: Run) -> Built:
        event = run.event
        return {
            name: await part.read(run) if isinstance(part, _EventRow | _EventEdge | _EventActor) else part(event)
            for name, part in parts
        }

    return read


def _attribute(name: str) -> Callable[[Any], Any]:
    def read(event: Any) -> Any:
        value = getattr(event, name)
        return value.name if isinstance(value, Enum) else value

    return read


def _previous_status(event: Any) -> str | None:
    return event.previous_status.name if event.previous_status is not None else None


@dataclass(frozen=True)
class _EventActor:
    selection: ActorSelection

    async def read(self, run: Run) -> Built | None:
        by = run.event.by
        return (await self.selection.load(run, [by]))[by]


class _EventRow:
    def __init__(self, selections: list[tuple[RowSelection, str]], nullable: bool) -> None:
        self._selections = selections
        self._nullable = nullable

    async def read(self, run: Run) -> Built | None:
        for selection, attribute in self._selections:
            id: UUID | None = getattr(run.event, attribute)
            if id is not None:
                found = await run.records.by_id(selection.type.model, selection.columns, [id])
                if found:
                    return (await selection.build(run, found))[0]
                break
        if not self._nullable:
            raise NotPlanned
        return None


def _edge(compiler: Compiler, edge: _Edge, nodes: list[FieldNode]) -> _EventEdge:
    selected = compiler.fields(nodes, edge.type_name)
    parts = [(name, found[0].name.value) for name, found in selected.items()]
    kinds = []
    for row_type, attribute in edge.candidates:
        built = {
            name: compiler.rows(row_type, found) for name, found in selected.items() if found[0].name.value == "node"
        }
        keys = [column for column, _ in edge.keyset.columns] if edge.cursor is None else []
        columns = dict.fromkeys(["id", *keys])
        columns |= dict.fromkeys(column for selection in built.values() for column in selection.columns)
        kinds.append(_EdgeKind(TYPES[row_type].model, attribute, tuple(columns), built))
    return _EventEdge(edge, parts, kinds)


@dataclass(frozen=True)
class _EdgeKind:
    model: type[Row]
    attribute: str
    columns: tuple[str, ...]
    nodes: dict[str, RowSelection]  # by response name


class _EventEdge:
    def __init__(self, edge: _Edge, parts: list[tuple[str, str]], kinds: list[_EdgeKind]) -> None:
        self._edge = edge
        self._parts = parts  # (response name, field)
        self._kinds = kinds

    async def read(self, run: Run) -> Built | None:
        for kind in self._kinds:
            id: UUID | None = getattr(run.event, kind.attribute)
            if id is not None:
                return await self._read(run, kind, id)
        if not self._edge.nullable:
            raise NotPlanned
        return None

    async def _read(self, run: Run, kind: _EdgeKind, id: UUID) -> Built:
        found = await run.records.by_id(kind.model, kind.columns, [id])
        if not found:
            raise NotPlanned
        built: Built = {}
        for name, field in self._parts:
            if field == "node":
                built[name] = (await kind.nodes[name].build_at(run, found, kind.columns, 0))[0]
            elif field == "cursor":
                built[name] = self._cursor(run, kind, found[0])
            else:
                built[name] = self._edge.type_name
        return built

    def _cursor(self, run: Run, kind: _EdgeKind, record: Record) -> str:
        if self._edge.cursor is not None:
            return str(getattr(run.event, self._edge.cursor))
        return self._edge.keyset.cursor(*key_of(self._edge.keyset, kind.columns, record))


# What events say of their view without another read.
_OF_VIEWS: Final[dict[str, Callable[[Any], Any]]] = {
    "id": lambda event: event.view_id,
    "name": lambda event: event.view_row.name,
    "totalCount": lambda event: event.total_count,
}


def _view(compiler: Compiler, nodes: list[FieldNode]) -> Callable[[Any], Built]:
    by_subject: dict[str, list[tuple[str, Callable[[Any], Any]]]] = {}
    for subject, type_name in (("PAYMENT_REQUEST", "PaymentRequestView"), ("CONVERSATION", "ConversationView")):
        parts = by_subject[subject] = []
        for name, found in compiler.fields(nodes, type_name).items():
            field = found[0].name.value
            if field == "__typename":
                parts.append((name, _constant(type_name)))
            elif field in _OF_VIEWS:
                parts.append((name, _OF_VIEWS[field]))
            else:
                raise NotPlanned
    return lambda event: {name: part(event) for name, part in by_subject[event.view_row.subject]}


def _constant(value: str) -> Callable[[Any], str]:
    return lambda event: value
