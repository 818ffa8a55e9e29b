"""Rows of the viewer's account with selected columns, by position."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any
from uuid import UUID

from models import database, tables
from models.event_log import Cursor as EventCursor
from resolvers.access.pages import (
    contacts_where,
    conversations_where,
    requests_count,
    requests_page_where,
    thread_statement,
    total,
)
from resolvers.access.scope import AccountScope
from schema.connections import Page, Slice
from schema.context import RequestFilter
from services.core.permissions import Actor

Record = Sequence[Any]


class Records(AccountScope):
    """Every record begins with its id."""

    def __init__(self, viewer: Actor, position: EventCursor | None = None) -> None:
        super().__init__(viewer)
        self._position = position

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
        return await database.records(sql, self._account_id, *wanted)

    async def _matching(
        self, model: type[tables.Row], columns: Sequence[str], column: str, ids: Collection[object], *, order: str
    ) -> Sequence[Record]:
        wanted = _repeated(ids)
        if not wanted:
            return ()
        sql = _matching_sql(model, tuple(columns), column, len(wanted), order)
        return await database.records(sql, self._account_id, *wanted)

    async def thread(
        self,
        conversations: Sequence[UUID],
        page: Page,
        message_columns: tuple[str, ...],
        card_columns: tuple[str, ...],
    ) -> Slice[Record]:
        """Whether it is a card, its number in the thread, then every column, sorted by name."""
        sql, values = thread_statement(self._account_id, conversations, page, message_columns, card_columns)
        return page.cut(await database.records(sql, *values))

    async def conversations(
        self, columns: Sequence[str], page: Page, search: str | None, closed: bool | None
    ) -> Slice[Record]:
        where, values = await conversations_where(self._account_id, search, closed)
        return await self._page(tables.Conversation, columns, page, where, values, scans=bool(search))

    async def contacts(self, columns: Sequence[str], page: Page, search: str | None) -> Slice[Record]:
        where, values = await contacts_where(self._account_id, search)
        return await self._page(tables.Contact, columns, page, where, values, scans=bool(search))

    async def payment_requests(
        self, columns: Sequence[str], page: Page, filter: RequestFilter, contacts: Sequence[UUID] | None = None
    ) -> Slice[Record]:
        """`contacts`: only requests to one of these."""
        where, values = await requests_page_where(self._account_id, filter, contacts, page)
        scans = bool(filter.search) or filter.overdue is not None or filter.test_mode is not None
        return await self._page(tables.PaymentRequest, columns, page, where, values, scans=scans)

    async def payment_requests_count(self, filter: RequestFilter, contacts: Sequence[UUID] | None) -> int | None:
        sql, values = await requests_count(self._account_id, filter, contacts)
        return total(await database.scanned_records(sql, *values))

    async def _page(
        self,
        model: type[tables.Row],
        columns: Sequence[str],
        page: Page,
        where: str,
        values: Sequence[object],
        *,
        scans: bool,  # it may look at many rows that are not of the page
    ) -> Slice[Record]:
        read = database.scanned_records if scans else database.records
        sql = f"SELECT {', '.join(columns)} FROM {model._meta.db_table} WHERE {where}{page.where}{page.order}"  # noqa: S608 (only constants are put in)
        return page.cut(await read(sql, *values, *page.values))


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
