"""Pages of lists, with their filters and searches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, TypeVar
from uuid import UUID

from models import database, tables
from models.database import to_time, to_uuid
from models.database_url import Dialect
from models.rows import columns, from_record, instance, names
from resolvers.access.rows import THREAD, columns_of_each
from resolvers.access.scope import AccountScope
from schema.connections import LARGEST_COUNT, Page, Slice
from schema.failures import ApiError
from services.core import merged_rows
from services.lists import message_search, queries, views
from services.lists.message_search import MessageSearch
from services.lists.orders import List
from services.lists.queries import ListQuery
from services.team import notes

R = TypeVar("R", bound=tables.Row)
ThreadColumns = tuple[tuple[str, ...], ...]  # of each model in THREAD
_ALL_COLUMNS: Final[ThreadColumns] = tuple(names(model) for model in THREAD)


class Pages(AccountScope):
    async def thread(self, conversation: tables.Conversation, page: Page) -> Slice[tables.ThreadRow]:
        sql, values = thread_statement(
            self._account_id, merged_rows.ids_of(conversation), page, _ALL_COLUMNS, notes.may_read(self.viewer)
        )
        return page.cut([_thread_row(raw) for raw in await database.rows(sql, *values)])

    async def thread_count(self, conversation: tables.Conversation) -> int | None:
        (count,) = await counts(
            [thread_count(self._account_id, merged_rows.ids_of(conversation), notes.may_read(self.viewer))]
        )
        return count

    async def payment_requests(self, query: ListQuery, page: Page) -> Slice[tables.PaymentRequest]:
        return await self._list(tables.PaymentRequest, query, page)

    async def conversations(self, query: ListQuery, page: Page) -> Slice[tables.Conversation]:
        return await self._list(tables.Conversation, query, page)

    async def contacts(self, query: ListQuery, page: Page) -> Slice[tables.Contact]:
        return await self._list(tables.Contact, query, page)

    async def _list(self, model: type[R], query: ListQuery, page: Page) -> Slice[R]:
        sql, values, read_key = await list_statement(self._account_id, query, page, names(model))
        found = await (database.scanned_records if query.may_scan else database.records)(sql, *values)
        width = len(names(model))
        return page.cut([from_record(model, raw[:width]) for raw in found], [read_key(raw) for raw in found])

    async def messages(self, wanted: MessageSearch, page: Page) -> Slice[tables.Message]:
        where, values, _ = await message_search.condition(self._account_id, wanted)
        sql = f"SELECT {columns(tables.Message)} FROM message WHERE {where}{page.where}{page.order}"  # noqa: S608 (only constants are put in)
        found = await database.scanned_records(sql, *values, *page.values)
        rows = [from_record(tables.Message, raw) for raw in found]
        return page.cut(rows, [(row.seq,) for row in rows])

    async def messages_count(self, wanted: MessageSearch) -> int | None:
        where, values, _ = await message_search.condition(self._account_id, wanted)
        (count,) = await counts([(f"SELECT 1 FROM message WHERE {where}", values)])  # noqa: S608 (only constants are put in)
        return count

    async def notifications(self, page: Page) -> Slice[tables.Notification]:
        if self.viewer.user_id is None:
            return page.cut([])
        return await self._page(tables.Notification, page, _OF_USER, [self._account_id, self.viewer.user_id])

    async def users(self, page: Page) -> Slice[tables.User]:
        return await self._page(tables.User, page, "account_id = ?", [self._account_id])

    async def users_count(self) -> int | None:
        return await self._count(tables.User)

    async def api_keys(self, page: Page) -> Slice[tables.ApiKey]:
        if not self.viewer.may("keys"):
            raise ApiError("FORBIDDEN", "Your role does not allow this.")
        return await self._page(tables.ApiKey, page, "account_id = ?", [self._account_id])

    async def api_keys_count(self) -> int | None:
        return await self._count(tables.ApiKey)

    async def invitations(self, page: Page) -> Slice[tables.Invitation]:
        if not self.viewer.may("invite"):
            raise ApiError("FORBIDDEN", "Your role does not allow this.")
        return await self._page(tables.Invitation, page, "account_id = ?", [self._account_id])

    async def invitations_count(self) -> int | None:
        return await self._count(tables.Invitation)

    async def _count(self, model: type[tables.Row]) -> int | None:
        """The account's rows."""
        statement = f"SELECT 1 FROM {model._meta.db_table} WHERE account_id = ?"  # noqa: S608 (only constants are put in)
        (count,) = await counts([(statement, [self._account_id])])
        return count

    async def _page(self, model: type[R], page: Page, where: str, values: Sequence[object]) -> Slice[R]:
        sql = f"SELECT {columns(model)} FROM {model._meta.db_table} WHERE {where}{page.where}{page.order}"  # noqa: S608 (only constants are put in)
        found = await database.rows(sql, *values, *page.values)
        return page.cut([instance(model, raw) for raw in found])

    async def notifications_count(self) -> int | None:
        if self.viewer.user_id is None:
            return 0
        values = [self._account_id, self.viewer.user_id]
        (count,) = await counts([(f"SELECT 1 FROM notification WHERE {_OF_USER}", values)])  # noqa: S608 (only constants are put in)
        return count

    async def views(self, page: Page) -> Slice[tables.SavedView]:
        sql = f"SELECT {columns(tables.SavedView)} FROM saved_view WHERE {_SEEN}{page.where}{page.order}"  # noqa: S608 (only constants are put in)
        found = await database.rows(sql, self._account_id, views.owner_of(self.viewer), *page.values)
        return page.cut([instance(tables.SavedView, raw) for raw in found])

    async def views_count(self) -> int | None:
        values = [self._account_id, views.owner_of(self.viewer)]
        (count,) = await counts([(f"SELECT 1 FROM saved_view WHERE {_SEEN}", values)])  # noqa: S608 (only constants are put in)
        return count


_SEEN: Final = "account_id = ? AND (owner_user_id IS NULL OR owner_user_id = ?)"
_OF_USER: Final = "account_id = ? AND user_id = ?"
_TABLES: Final[dict[List, str]] = {
    "payment_requests": "payment_request",
    "contact_payment_requests": "payment_request",
    "conversations": "conversation",
    "contacts": "contact",
}
_READ: Final[dict[type, Callable[[Any], Any]]] = {UUID: to_uuid, datetime: to_time}
_VALUES_OF_COUNTS: Final = 10_000  # of one statement


async def list_statement(
    account_id: UUID, query: ListQuery, page: Page, names: tuple[str, ...]
) -> tuple[str, list[object], Callable[[Sequence[Any]], tuple[object, ...]]]:
    """The page's SELECT of these columns, perhaps with more behind them, its values, and what reads a record's place in the order."""
    keyset, table = page.keyset, _TABLES[query.order.list]
    selected = tuple(dict.fromkeys([*names, *(name for name, _ in keyset.columns)]))
    places = [(selected.index(name), _READ.get(kind)) for name, kind in keyset.columns]
    parts, segments = await queries.parts(account_id, query), page.segments
    if query.has_values_only:
        segments = segments[:1]  # the others are of rows without a value
    head = f"SELECT {', '.join(selected)} FROM {table} WHERE"  # noqa: S608 (only constants are put in)
    if len(parts) == len(segments) == 1:
        ((where, values, _),), ((more, bounds, order),) = parts, segments
        sql, given = f"{head} {where}{more}{order}", [*values, *bounds]
    else:
        branches = [
            (f"SELECT id FROM {table} WHERE {where}{more}{order}", [*values, *bounds])  # noqa: S608 (only constants are put in)
            for where, values, _ in parts
            for more, bounds, order in segments
        ]
        ids = " UNION ALL ".join(f"SELECT id FROM ({branch}) AS s{n}" for n, (branch, _) in enumerate(branches))  # noqa: S608 (only constants are put in)
        sql = f"{head} {database.OF_ACCOUNT} AND id IN ({ids}){page.order}"
        given = [account_id, *(value for _, values in branches for value in values)]

    def read_key(record: Sequence[Any]) -> tuple[object, ...]:
        return tuple(record[place] if read is None else read(record[place]) for place, read in places)

    return sql, given, read_key


async def list_count(account_id: UUID, query: ListQuery) -> database.Statement:
    """What `counts` takes."""
    where, values, _ = await queries.condition(account_id, query)
    return f"SELECT 1 FROM {_TABLES[query.order.list]} WHERE {where}", values  # noqa: S608 (only constants are put in)


def thread_count(account_id: UUID, conversations: Sequence[UUID], with_notes: bool) -> database.Statement:
    """What `counts` takes."""
    of = f"account_id = ? AND conversation_id IN ({database.placeholders(len(conversations))})"
    kinds = _kinds(with_notes)
    sql = " UNION ALL ".join(f"SELECT 1 FROM {model._meta.db_table} WHERE {of}" for model in kinds)  # noqa: S608 (only constants are put in)
    return sql, [account_id, *conversations] * len(kinds)


def _kinds(with_notes: bool) -> Sequence[type[tables.Row]]:
    return THREAD if with_notes else [model for model in THREAD if model is not tables.Note]


async def counts(statements: Sequence[database.Statement]) -> list[int | None]:
    """The number of rows of each SELECT; None: more than LARGEST_COUNT. Few statements in all."""
    found: list[int | None] = []
    batch: list[database.Statement] = []
    for n, statement in enumerate(statements):
        batch.append(statement)
        if n == len(statements) - 1 or sum(len(values) for _, values in batch) > _VALUES_OF_COUNTS:
            found += await _counts(batch)
            batch = []
    return found


async def _counts(statements: Sequence[database.Statement]) -> list[int | None]:
    parts = [
        f"(SELECT count(*) FROM ({sql} LIMIT {LARGEST_COUNT + 1}) AS c{n}) AS n{n}"  # noqa: S608 (only constants are put in)
        for n, (sql, _) in enumerate(statements)
    ]
    (record,) = await database.scanned_records(
        f"SELECT {', '.join(parts)}", *(value for _, values in statements for value in values)
    )
    return [int(count) if count <= LARGEST_COUNT else None for count in record]


def thread_statement(
    account_id: UUID, conversations: Sequence[UUID], page: Page, selected: ThreadColumns, with_notes: bool
) -> tuple[str, list[object]]:
    """A page of the thread. Columns: the place of the item's model in THREAD, item_seq, then all selected, sorted by name."""
    kinds = len(_kinds(with_notes))
    sql = _thread_sql(len(conversations), kinds, page.where, page.order, selected, database.dialect())
    return sql, [value for id in conversations for _ in range(kinds) for value in (account_id, id, *page.values)]


@lru_cache(maxsize=256)
def _thread_sql(
    conversations: int, kinds: int, where: str, order: str, selected: ThreadColumns, dialect: Dialect
) -> str:
    every = sorted({name for columns in selected for name in columns})
    branches = []
    for n in range(conversations):
        for kind, (model, own) in enumerate(zip(THREAD[:kinds], selected[:kinds], strict=True)):
            table = model._meta.db_table
            branch = (
                f"SELECT {kind} AS item_kind, seq AS item_seq, {columns_of_each(own, every)}"  # noqa: S608 (only constants are put in)
                f" FROM {table} WHERE account_id = ? AND conversation_id = ?{where}"
            )
            if dialect == "postgres":
                # PostgreSQL sorts whole branches of different column types; SQLite merges them by their indexes.
                branch = f"SELECT * FROM ({branch}{order}) AS {table}_{n}"  # noqa: S608 (only constants are put in)
            branches.append(branch)
    return " UNION ALL ".join(branches) + order.replace(" seq ", " item_seq ")


def _thread_row(raw: dict[str, Any]) -> tables.ThreadRow:
    row: tables.ThreadRow = instance(THREAD[raw["item_kind"]], raw)
    return row
