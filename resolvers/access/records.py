"""Rows of the viewer's account with selected columns, by position."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Any
from uuid import UUID

from models import database, tables
from models.event_log import Cursor as EventCursor
from resolvers.access.pages import ThreadColumns, counts, list_count, list_statement, thread_count, thread_statement
from resolvers.access.scope import AccountScope
from schema.connections import Page, Slice
from services.core.permissions import Actor
from services.lists.queries import ListQuery
from services.team import notes

Record = Sequence[Any]


class Records(AccountScope):
    """Every record begins with its id."""

    def __init__(self, viewer: Actor, position: EventCursor | None = None, memo: dict[Any, Any] | None = None) -> None:
        """`memo`: reads of rows by id that several executions share; of this account only."""
        super().__init__(viewer)
        self._position = position
        self._memo = memo

    async def position(self) -> EventCursor:
        """The log position at the first call. Call before any other read."""
        if self._position is None:
            found = await database.records("SELECT event_epoch, event_seq FROM account WHERE id = ?", self._account_id)
            self._position = EventCursor(found[0][0], self._account_id, int(found[0][1]))
        return self._position

    async def by_id(self, model: type[tables.Row], columns: Sequence[str], ids: Collection[object]) -> Sequence[Record]:
        return await self._matching(model, columns, "id", ids, order="")

    async def children(
        self, model: type[tables.Row], columns: Sequence[str], parent: str, ids: Collection[object], *, order: str
    ) -> Sequence[Record]:
        return await self._matching(model, columns, parent, ids, order=f" ORDER BY {order}")

    async def through(
        self, model: type[tables.Row], columns: Sequence[str], joined: tuple[str, str, str], ids: Collection[object]
    ) -> Sequence[Record]:
        """The rows that a table joins with `ids`, then the id. `joined`: the table, its columns of the ids and of the rows."""
        wanted = _repeated(ids)
        if not wanted:
            return ()
        sql = _through_sql(model, tuple(columns), joined, len(wanted))
        return await self._read(sql, *wanted)

    async def _matching(
        self, model: type[tables.Row], columns: Sequence[str], column: str, ids: Collection[object], *, order: str
    ) -> Sequence[Record]:
        wanted = _repeated(ids)
        if not wanted:
            return ()
        sql = _matching_sql(model, tuple(columns), column, len(wanted), order)
        return await self._read(sql, *wanted)

    async def _read(self, sql: str, *wanted: object) -> Sequence[Record]:
        if self._memo is None:
            return await database.records(sql, self._account_id, *wanted)
        key = sql, wanted
        reading = self._memo.get(key)
        if reading is None:
            reading = self._memo[key] = asyncio.ensure_future(database.records(sql, self._account_id, *wanted))
        # One execution's end must not end the reading of the others.
        found: Sequence[Record] = await asyncio.shield(reading)
        return found

    async def thread(self, conversations: Sequence[UUID], page: Page, selected: ThreadColumns) -> Slice[Record]:
        """The place of the item's model in THREAD, its number in the thread, then every column, sorted by name."""
        with_notes = notes.may_read(self.viewer)
        sql, values = thread_statement(self._account_id, conversations, page, selected, with_notes)
        return page.cut(await database.records(sql, *values))

    async def listed(
        self, columns: tuple[str, ...], query: ListQuery, page: Page
    ) -> tuple[Slice[Record], Callable[[Record], tuple[object, ...]]]:
        """The rows, perhaps with more values behind `columns`, and what reads a row's place in the order."""
        sql, values, read_key = await list_statement(self._account_id, query, page, columns)
        read = database.scanned_records if query.may_scan else database.records
        return page.cut(await read(sql, *values)), read_key

    async def list_counts(self, queries: Sequence[ListQuery]) -> Sequence[int | None]:
        return await counts([await list_count(self._account_id, query) for query in queries])

    async def thread_counts(self, threads: Sequence[Sequence[UUID]]) -> Sequence[int | None]:
        with_notes = notes.may_read(self.viewer)
        return await counts([thread_count(self._account_id, conversations, with_notes) for conversations in threads])


@lru_cache(maxsize=1024)
def _matching_sql(model: type[tables.Row], columns: tuple[str, ...], column: str, count: int, order: str) -> str:
    return (
        f"SELECT {', '.join(columns)} FROM {model._meta.db_table}"  # noqa: S608 (only constants are put in)
        f" WHERE {database.OF_ACCOUNT} AND {column} IN ({database.placeholders(count)}){order}"
    )


@lru_cache(maxsize=256)
def _through_sql(model: type[tables.Row], columns: tuple[str, ...], joined: tuple[str, str, str], count: int) -> str:
    table, parent, child = joined
    return (
        f"SELECT {', '.join(f'r.{name}' for name in columns)}, l.{parent} FROM {table} l"  # noqa: S608 (only constants are put in)
        f" JOIN {model._meta.db_table} r ON r.id = l.{child}"
        f" WHERE (l.account_id = ?) = TRUE AND l.{parent} IN ({database.placeholders(count)}) ORDER BY r.id"
    )


def _repeated(ids: Collection[object]) -> list[object]:
    # Few different statements: a repeated id changes nothing.
    wanted = list(ids)
    size = 1 << (len(wanted) - 1).bit_length() if wanted else 0
    return wanted + wanted[-1:] * (size - len(wanted))
