"""Compiled selections: the records they read and the dicts they build."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, cast
from uuid import UUID

from graphql.execution.values import VariableValues

from models.database import to_json, to_time, to_uuid
from resolvers.access.pages import ThreadColumns
from resolvers.access.records import Record, Records
from resolvers.plans.readers import By, Objects, OneColumn, RowType, Through
from resolvers.transport.executor import NotPlanned
from schema.connections import Keyset, Slice, keyset_of
from schema.inputs.lists import list_query
from services.core.actors import UNKNOWN_NAME, ActorRef, Kind
from services.lists.orders import List
from services.lists.queries import ListQuery
from services.payments.payment_views import PaymentView

Built = dict[str, Any]
Arguments = Callable[["Run"], dict[str, Any]]


class Run:
    __slots__ = ("_until", "cursor", "event", "payments", "records", "values")

    def __init__(self, records: Records, values: VariableValues, event: Any = None) -> None:
        self.records = records
        self.values = values
        self.event = event
        self.cursor = ""  # the log position, where it is selected
        self.payments: dict[UUID, Sequence[PaymentView]] = {}  # by request, once read
        self._until: datetime | None = None

    @property
    def until(self) -> datetime | None:
        """When the answer changes without an event; None: never."""
        return self._until

    def changes_at(self, when: datetime) -> None:
        if self._until is None or when < self._until:
            self._until = when


ColumnAt = Callable[[str], int]  # a column's index in a record


class Link(Protocol):
    """`load` returns objects below each record, by the value of `column`."""

    @property
    def column(self) -> str: ...

    async def load(self, run: Run, records: Sequence[Record], position: ColumnAt) -> Mapping[Any, Any]: ...


@dataclass
class RowSelection:
    type: RowType
    columns: tuple[str, ...]  # of a record that is read by id; the first is the id
    links: list[Link]
    # make(record, run, *loaded links) of a record with `columns`; `make_for` generates it for other positions.
    make: Callable[..., Built]
    make_for: Callable[[Sequence[str], int], Callable[..., Built]]
    _made: dict[tuple[Sequence[str], int], Callable[..., Built]] = field(default_factory=dict)

    async def build(self, run: Run, records: Sequence[Record]) -> list[Built]:
        return await self._build(run, records, self.columns, 0, self.make)

    async def build_at(self, run: Run, records: Sequence[Record], columns: tuple[str, ...], offset: int) -> list[Built]:
        key = columns, offset
        make = self._made.get(key)
        if make is None:
            make = self._made[key] = self.make_for(columns, offset)
        return await self._build(run, records, columns, offset, make)

    async def _build(
        self, run: Run, records: Sequence[Record], columns: tuple[str, ...], offset: int, make: Callable[..., Built]
    ) -> list[Built]:
        def position(name: str) -> int:
            return offset + columns.index(name)

        if self.type.replaced is not None:
            replaced = position(self.type.replaced)
            if any(record[replaced] is not None for record in records):
                raise NotPlanned
        if not self.links or not records:
            return [make(record, run) for record in records]
        loaded = [await link.load(run, records, position) for link in self.links]
        return [make(record, run, *loaded) for record in records]


@dataclass
class OneLink:
    column: str
    selection: RowSelection

    async def load(self, run: Run, records: Sequence[Record], position: ColumnAt) -> Mapping[Any, Any]:
        ids = _keys(records, position(self.column))
        selection = self.selection
        found = await run.records.by_id(selection.type.model, selection.columns, ids)
        built = await selection.build(run, found)
        linked: dict[Any, Any] = {record[0]: made for record, made in zip(found, built, strict=True)}
        linked[None] = None
        return linked


@dataclass
class ColumnLink:
    reader: OneColumn

    @property
    def column(self) -> str:
        return self.reader.column

    async def load(self, run: Run, records: Sequence[Record], position: ColumnAt) -> Mapping[Any, Any]:
        ids = _keys(records, position(self.column))
        found = await run.records.by_id(self.reader.model, ("id", self.reader.wanted), ids)
        shown = self.reader.shown
        return {record[0]: record[1] if shown is None else shown(record[1]) for record in found}


@dataclass
class ActorSelection:
    """What is selected of each member of the union Actor."""

    rows: Mapping[str, RowSelection]  # by kind
    system: Callable[[str], Built]  # of its name

    async def load(self, run: Run, refs: Iterable[ActorRef | None]) -> dict[ActorRef | None, Built | None]:
        wanted = dict.fromkeys(refs)
        made: dict[ActorRef | None, Built | None] = {None: None}
        for kind, selection in self.rows.items():
            ids = [ref.id for ref in wanted if ref is not None and ref.kind == kind and ref.id is not None]
            found = await run.records.by_id(selection.type.model, selection.columns, ids)
            for record, built in zip(found, await selection.build(run, found), strict=True):
                made[ActorRef(cast("Kind", kind), to_uuid(record[0]))] = built
        for ref in wanted:
            if ref is not None and ref not in made:
                made[ref] = self.system(ref.name or UNKNOWN_NAME)
        return made


@dataclass
class ByLink:
    reader: By
    selection: ActorSelection
    column: str = "id"

    async def load(self, run: Run, records: Sequence[Record], position: ColumnAt) -> Mapping[Any, Any]:
        id, positions = position("id"), [position(name) for name in self.reader.columns]
        refs = {record[id]: self.reader.ref(*(record[at] for at in positions)) for record in records}
        made = await self.selection.load(run, refs.values())
        return {key: made[ref] for key, ref in refs.items()}


@dataclass
class ObjectReader:
    """Builds one object. `actors`: those of its fields, and what is selected of each."""

    make: Callable[[Any, Sequence[Mapping[ActorRef | None, Built | None]]], Built]
    actors: Sequence[tuple[Callable[[Any], ActorRef | None], ActorSelection]]


@dataclass
class ObjectsLink:
    reader: Objects
    of_one: ObjectReader

    @property
    def column(self) -> str:
        return self.reader.columns[0]

    async def load(self, run: Run, records: Sequence[Record], position: ColumnAt) -> Mapping[Any, Any]:
        positions = [position(name) for name in self.reader.columns]
        values = {record[positions[0]]: tuple(record[at] for at in positions) for record in records}
        values.pop(None, None)
        if not values:
            return {}
        found = await self.reader.load(run, list(values.values()))
        many = self.reader.many
        groups = {key: found[key] if many else [found[key]] if found[key] is not None else [] for key in values}
        everything = [one for group in groups.values() for one in group]
        actors = [await selection.load(run, map(ref, everything)) for ref, selection in self.of_one.actors]
        make = self.of_one.make
        made = {key: [make(one, actors) for one in group] for key, group in groups.items()}
        return made if many else {key: group[0] if group else None for key, group in made.items()}


@dataclass
class ThroughLink:
    selection: RowSelection
    reader: Through
    column: str = "id"

    async def load(self, run: Run, records: Sequence[Record], position: ColumnAt) -> Mapping[Any, Any]:
        keys = _keys(records, position(self.column))
        reader, selection = self.reader, self.selection
        joined = reader.table, reader.parent, reader.child
        found = await run.records.through(selection.type.model, selection.columns, joined, keys)
        return _grouped(keys, found, await selection.build(run, found))


@dataclass
class FirstChildLink:
    children: ChildrenLink
    column: str = "id"

    async def load(self, run: Run, records: Sequence[Record], position: ColumnAt) -> Mapping[Any, Any]:
        found = await self.children.load(run, records, position)
        return {key: made[0] for key, made in found.items() if made}


@dataclass
class ChildrenLink:
    selection: RowSelection
    parent: str
    order: str
    column: str = "id"

    async def load(self, run: Run, records: Sequence[Record], position: ColumnAt) -> Mapping[Any, Any]:
        columns = (*self.selection.columns, self.parent)
        keys = _keys(records, position(self.column))
        found = await run.records.children(self.selection.type.model, columns, self.parent, keys, order=self.order)
        return _grouped(keys, found, await self.selection.build(run, found))


def _grouped(keys: Iterable[Any], records: Sequence[Record], built: Sequence[Built]) -> Mapping[Any, list[Built]]:
    """By the last value of each record."""
    groups: dict[Any, list[Built]] = {key: [] for key in keys}
    for record, made in zip(records, built, strict=True):
        groups[record[-1]].append(made)
    return groups


def _keys(records: Sequence[Record], position: int) -> dict[Any, None]:
    keys = dict.fromkeys([record[position] for record in records])
    keys.pop(None, None)
    return keys


# ------------------------------------------------------------------------------------------------------- connections
@dataclass
class ConnectionSelection:
    edges: list[Callable[..., list[Built]]]  # (cursors, *lists of nodes), for each response name of `edges`
    make: Callable[..., Built]  # (run, edges, page info, total count, *lists of nodes)
    needs_cursors: bool

    def build(
        self,
        run: Run,
        page: Slice[Record],
        keys: Sequence[tuple[Any, ...]],
        lists: list[list[Any]],
        total: int | None,
    ) -> Built:
        cursors: Sequence[Any] = [page.keyset.cursor(*key) for key in keys] if self.needs_cursors else keys
        ends = (cursors[0], cursors[-1]) if cursors else (None, None)
        edges = [make(cursors, *lists) for make in self.edges]
        return self.make(run, edges, (page.has_next, page.has_previous, *ends), total, *lists)


Parents = Sequence[UUID]  # the row above, then those merged into it


class NodeLists(Protocol):
    """Reads a page and builds the selected lists of nodes."""

    async def read(
        self, run: Run, parents: Parents, arguments: dict[str, Any]
    ) -> tuple[Slice[Record], list[tuple[Any, ...]], list[list[Any]]]: ...

    async def totals(self, run: Run, parents: Sequence[Parents], arguments: dict[str, Any]) -> Sequence[int | None]:
        """Of each list; None: too many to count."""
        ...


@dataclass
class ThreadNodes:
    keyset: Keyset
    lists: list[tuple[RowSelection, ...]]  # of each model in THREAD
    selected: ThreadColumns
    columns: tuple[str, ...]  # all, as the statement returns them

    async def read(
        self, run: Run, parents: Sequence[UUID], arguments: dict[str, Any]
    ) -> tuple[Slice[Record], list[tuple[Any, ...]], list[list[Any]]]:
        page = self.keyset.page(**arguments, from_end=True)
        found = await run.records.thread(parents, page, self.selected)
        kinds = [[record for record in found.rows if record[0] == kind] for kind in range(len(self.selected))]
        lists = []
        for selections in self.lists:
            built = [
                iter(await selection.build_at(run, records, self.columns, 2))
                for selection, records in zip(selections, kinds, strict=True)
            ]
            lists.append([next(built[record[0]]) for record in found.rows])
        return found, [(record[1],) for record in found.rows], lists

    async def totals(self, run: Run, parents: Sequence[Parents], arguments: dict[str, Any]) -> Sequence[int | None]:
        return await run.records.thread_counts(parents)


@dataclass
class RowNodes:
    name: List
    lists: list[RowSelection]
    columns: tuple[str, ...]

    async def read(
        self, run: Run, parents: Parents, arguments: dict[str, Any]
    ) -> tuple[Slice[Record], list[tuple[Any, ...]], list[list[Any]]]:
        query = self._query(parents, arguments)
        bounds: dict[str, Any] = {name: arguments.get(name) for name in ("first", "after", "last", "before")}
        page = keyset_of(query.order).page(**bounds)
        found, read_key = await run.records.listed(self.columns, query, page)
        lists = [await selection.build_at(run, found.rows, self.columns, 0) for selection in self.lists]
        return found, [read_key(record) for record in found.rows], lists

    async def totals(self, run: Run, parents: Sequence[Parents], arguments: dict[str, Any]) -> Sequence[int | None]:
        return await run.records.list_counts([self._query(above, arguments) for above in parents])

    def _query(self, parents: Parents, arguments: dict[str, Any]) -> ListQuery:
        contacts = tuple(parents) if self.name == "contact_payment_requests" else None
        return list_query(self.name, arguments.get("filter"), arguments.get("order_by"), contacts)


def key_of(keyset: Keyset, columns: tuple[str, ...], record: Record) -> tuple[Any, ...]:
    """A record's place in the order."""
    return tuple(_READ[kind](record[columns.index(name)]) for name, kind in keyset.columns)


_READ: dict[type, Callable[[Any], Any]] = {UUID: to_uuid, datetime: to_time, int: int}


@dataclass
class Connection:
    selection: ConnectionSelection
    nodes: NodeLists
    arguments: Arguments
    counts: bool  # whether the total is selected
    column: str = "id"

    async def read(self, run: Run) -> Built:
        (total,) = await self._totals(run, [()])
        return await self._read(run, (), total)

    async def load(self, run: Run, records: Sequence[Record], position: ColumnAt) -> Mapping[Any, Any]:
        id, merged = position("id"), position("merged_ids")
        above = [[UUID(str(record[id])), *map(UUID, to_json(record[merged]) or ())] for record in records]
        totals = await self._totals(run, above)
        return {
            record[id]: await self._read(run, parents, total)
            for record, parents, total in zip(records, above, totals, strict=True)
        }

    async def _totals(self, run: Run, above: Sequence[Parents]) -> Sequence[int | None]:
        return (
            await self.nodes.totals(run, above, self.arguments(run)) if self.counts and above else [None] * len(above)
        )

    async def _read(self, run: Run, parents: Parents, total: int | None) -> Built:
        page, keys, lists = await self.nodes.read(run, parents, self.arguments(run))
        return self.selection.build(run, page, keys, lists, total)
