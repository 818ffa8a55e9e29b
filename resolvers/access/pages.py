"""Pages of lists, with their filters and searches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, TypeVar
from uuid import UUID

from models import database, searching, tables
from models.database_url import Dialect
from models.errors import Invalid
from models.rows import columns, instance, names
from resolvers.access.rows import columns_of_both
from resolvers.access.scope import AccountScope
from schema.connections import LARGEST_COUNT, Page, Slice
from schema.context import RequestFilter
from schema.failures import ApiError, bad_request
from services.core import merged_rows
from services.lists import filters, searches
from services.lists.sql import OVERDUE, OVERDUE_OF_CONTACTS

COUNTED: Final = 10_000

R = TypeVar("R", bound=tables.Row)


class Pages(AccountScope):
    async def thread(
        self, conversation: tables.Conversation, page: Page
    ) -> Slice[tables.Message | tables.ActivityCard]:
        sql, values = thread_statement(
            self._account_id, merged_rows.ids_of(conversation), page, names(tables.Message), names(tables.ActivityCard)
        )
        return page.cut([_thread_row(raw) for raw in await database.rows(sql, *values)])

    async def contact_requests(
        self, contact: tables.Contact, page: Page, filter: RequestFilter
    ) -> Slice[tables.PaymentRequest]:
        where, values = await requests_where(self._account_id, filter, merged_rows.ids_of(contact))
        return await self._page(tables.PaymentRequest, page, where, values)

    async def contact_requests_count(self, contact: tables.Contact, filter: RequestFilter) -> int | None:
        return await self._requests_count(filter, merged_rows.ids_of(contact))

    async def payment_requests_count(self, filter: RequestFilter) -> int | None:
        return await self._requests_count(filter, None)

    async def _requests_count(self, filter: RequestFilter, contacts: Sequence[UUID] | None) -> int | None:
        sql, values = await requests_count(self._account_id, filter, contacts)
        return total(await database.scanned_records(sql, *values))

    async def payment_requests(self, page: Page, filter: RequestFilter) -> Slice[tables.PaymentRequest]:
        where, values = await requests_page_where(self._account_id, filter, None, page)
        return await self._page(tables.PaymentRequest, page, where, values)

    async def conversations(
        self, page: Page, search: str | None, closed: bool | None = None
    ) -> Slice[tables.Conversation]:
        where, values = await conversations_where(self._account_id, search, closed)
        return await self._page(tables.Conversation, page, where, values)

    async def contacts(self, page: Page, search: str | None) -> Slice[tables.Contact]:
        where, values = await contacts_where(self._account_id, search)
        return await self._page(tables.Contact, page, where, values)

    async def notifications(self, page: Page) -> Slice[tables.Notification]:
        if self.viewer.user_id is None:
            return page.cut([])
        where = "account_id = ? AND user_id = ?"
        return await self._page(tables.Notification, page, where, [self._account_id, self.viewer.user_id])

    async def invitations(self, page: Page) -> Slice[tables.Invitation]:
        if not self.viewer.may("invite"):
            raise ApiError("FORBIDDEN", "Your role does not allow this.")
        return await self._page(tables.Invitation, page, "account_id = ?", [self._account_id])

    async def invitations_count(self) -> int | None:
        counted = f"SELECT 1 FROM invitation WHERE account_id = ? LIMIT {COUNTED + 1}"  # noqa: S608 (constant)
        found = await database.rows(f"SELECT count(*) AS n FROM ({counted}) AS c", self._account_id)  # noqa: S608 (constant)
        count = int(found[0]["n"])
        return count if count <= COUNTED else None

    async def _page(self, model: type[R], page: Page, where: str, values: Sequence[object]) -> Slice[R]:
        sql = f"SELECT {columns(model)} FROM {model._meta.db_table} WHERE {where}{page.where}{page.order}"  # noqa: S608 (only constants are put in)
        found = await database.rows(sql, *values, *page.values)
        return page.cut([instance(model, raw) for raw in found])


def thread_statement(
    account_id: UUID,
    conversations: Sequence[UUID],
    page: Page,
    message_columns: tuple[str, ...],
    card_columns: tuple[str, ...],
) -> tuple[str, list[object]]:
    """A page of messages and cards. Columns: is_card, item_seq, then both kinds' columns, sorted by name."""
    sql = _thread_sql(len(conversations), page.where, page.order, message_columns, card_columns, database.dialect())
    return sql, [value for id in conversations for _ in range(2) for value in (account_id, id, *page.values)]


@lru_cache(maxsize=256)
def _thread_sql(
    conversations: int,
    where: str,
    order: str,
    message_columns: tuple[str, ...],
    card_columns: tuple[str, ...],
    dialect: Dialect,
) -> str:
    branches = []
    for n in range(conversations):
        for mark, table, own, others in (
            (0, "message", message_columns, card_columns),
            (1, "activity_card", card_columns, message_columns),
        ):
            branch = (
                f"SELECT {mark} AS is_card, seq AS item_seq, {columns_of_both(own, others)}"  # noqa: S608 (only constants are put in)
                f" FROM {table} WHERE account_id = ? AND conversation_id = ?{where}"
            )
            if dialect == "postgres":
                # PostgreSQL sorts whole branches of different column types; SQLite merges them by their indexes.
                branch = f"SELECT * FROM ({branch}{order}) AS {table}_{n}"  # noqa: S608 (only constants are put in)
            branches.append(branch)
    return " UNION ALL ".join(branches) + order.replace(" seq ", " item_seq ")


async def conversations_where(account_id: UUID, search: str | None, closed: bool | None) -> tuple[str, list[Any]]:
    """`search`: part of the contact's name, email address or phone number."""
    account, rest, values = "account_id = ?", " AND merged_into_id IS NULL", [account_id]
    if closed is not None:
        rest += f" AND closed_at IS {'NOT ' if closed else ''}NULL"
    if terms := _terms(search):
        clause, more, few = await searches.conversations_matching(account_id, terms)
        account = database.OF_ACCOUNT if few else account
        rest += f" AND {clause}"
        values += more
    return account + rest, values


async def contacts_where(account_id: UUID, search: str | None) -> tuple[str, list[Any]]:
    if terms := _terms(search):
        where, values, _ = await searches.contacts_matching(account_id, terms)
        return where, values
    return "account_id = ? AND merged_into_id IS NULL", [account_id]


async def requests_page_where(
    account_id: UUID, filter: RequestFilter, contacts: Sequence[UUID] | None, page: Page
) -> tuple[str, list[Any]]:
    """`requests_where` for one page, in as few rows as the page needs."""
    if contacts is not None or filter.overdue or filter.search or filter.status is None or len(filter.status) < 2:
        return await requests_where(account_id, filter, contacts)
    # No index has the requests of several statuses in one order: take a page of each.
    parts = [await requests_where(account_id, replace(filter, status=(status,)), None) for status in filter.status]
    pages = " UNION ALL ".join(
        f"SELECT id FROM (SELECT id FROM payment_request WHERE {where}{page.where}{page.order}) AS s{n}"  # noqa: S608 (only constants are put in)
        for n, (where, _) in enumerate(parts)
    )
    values = [value for _, of_status in parts for value in (*of_status, *page.values)]
    return f"{database.OF_ACCOUNT} AND id IN ({pages})", [account_id, *values]


async def requests_count(
    account_id: UUID, filter: RequestFilter, contacts: Sequence[UUID] | None
) -> tuple[str, list[Any]]:
    where, values = await requests_where(account_id, filter, contacts)
    counted = f"SELECT 1 FROM payment_request WHERE {where} LIMIT {LARGEST_COUNT + 1}"  # noqa: S608 (only constants are put in)
    return f"SELECT count(*) FROM ({counted}) AS counted", values  # noqa: S608 (only constants are put in)


def total(records: Sequence[Sequence[Any]]) -> int | None:
    """The result of a count that stops after LARGEST_COUNT; None: more."""
    count = int(records[0][0])
    return count if count <= LARGEST_COUNT else None


async def requests_where(
    account_id: UUID, filter: RequestFilter, contacts: Sequence[UUID] | None
) -> tuple[str, list[Any]]:
    """`contacts`: only requests to one of these."""
    clauses = ["account_id = ?" if contacts is None else database.OF_ACCOUNT, "discarded_at IS NULL"]
    values: list[Any] = [account_id]

    def add(clause: str, *more: object) -> None:
        clauses.append(clause)
        values.extend(more)

    if contacts is not None:
        add(f"contact_id IN ({database.placeholders(len(contacts))})", *contacts)
    if filter.status is not None:
        # An empty list matches nothing.
        add(f"status IN ({database.placeholders(len(filter.status))})" if filter.status else "1 = 0", *filter.status)
    if filter.overdue is not None:
        overdue = OVERDUE if contacts is None else OVERDUE_OF_CONTACTS
        add(overdue if filter.overdue else f"NOT {overdue}", datetime.now(UTC))
    if filter.created_after is not None:
        add("created_at >= ?", filter.created_after)
    if filter.created_before is not None:
        add("created_at < ?", filter.created_before)
    if filter.test_mode is not None:
        add("test_mode = ?", filter.test_mode)
    if terms := _terms(filter.search):
        matching, more, few = await searches.requests_matching(account_id, filter.search or "", terms)
        clauses[0] = database.OF_ACCOUNT if few else clauses[0]
        add(matching, *more)
    return " AND ".join(clauses), values


def _thread_row(raw: dict[str, Any]) -> tables.Message | tables.ActivityCard:
    return instance(tables.ActivityCard, raw) if raw["is_card"] else instance(tables.Message, raw)


def _terms(search: str | None) -> list[str]:
    try:
        return searching.terms(filters.checked_search(search or ""))
    except Invalid as error:
        raise bad_request(error.message) from None
