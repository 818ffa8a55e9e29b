"""In a large account every statement of a hot operation reads few rows by an index, on both engines.

The statements are those that the operations execute.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import UUID

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import pytest

from models import database, event_log, migrate
from models.database_url import postgres_arguments
from models.engine_postgres import SafePostgresClient
from models.engine_postgres import SafeTransaction as PostgresTransaction
from models.engine_sqlite import SafeSqliteClient
from models.engine_sqlite import SafeTransaction as SqliteTransaction
from models.ids import public_id
from services.connections import providers
from services.payments import figure_counts
from tests import growth, large_account
from tests.flows import documents, harness
from tests.large_account import LargeAccount
from tests.models.test_drift import MODELS

ITEMS = 8_000  # thread items of the large account
OTHERS = 5  # small accounts beside it
MOST_ROWS = 1_000  # that a statement reads of one table; PostgreSQL
MOST_STEPS = 25_000  # of SQLite's virtual machine in one statement

# Tables with few rows per account; every other one grows. Not here: figure_change, which a job empties every ten seconds.
SMALL = {"account", "user_account", "channel_connection", "processor_connection", "api_key", "tick"}
GROWING = {*MODELS, "event", "search_text", "figure_count"} - SMALL

Executed = dict[str, Sequence[Any]]  # SQL -> the values of its first execution
EXECUTE = ("execute_insert", "execute_query", "execute_query_dict", "execute_affected", "records", "read_directly")

# By create, send and the webhook.
WRITTEN = {
    "account",
    "activity_card",
    "conversation",
    "event",
    "message",
    "money_fact",
    "payment_request",
    "processor_event",
}

# An account-wide read, and a scan: both must be refused.
REFUSED = (
    "SELECT count(product_name) FROM payment_request WHERE account_id = {mark}",
    "SELECT id FROM payment_request WHERE product_name = {mark}",
)


@contextmanager
def recorded() -> Iterator[Executed]:
    """The statements of this block, on both engines."""
    seen: Executed = {}
    with ExitStack() as stack:
        for client in (SafeSqliteClient, SqliteTransaction, SafePostgresClient, PostgresTransaction):
            for name in EXECUTE:
                if hasattr(client, name):
                    stack.enter_context(mock.patch.object(client, name, _recording(getattr(client, name), seen)))
        yield seen


def _recording(method: Any, seen: Executed) -> Any:
    def call(client: Any, query: str, values: Sequence[Any] | None = None) -> Any:
        if not query.startswith(("SAVEPOINT", "RELEASE", "ROLLBACK")):
            seen.setdefault(query, list(values or ()))
        return method(client, query, values)

    return call


async def hot_statements(url: str) -> tuple[UUID, Executed]:
    """Fill an empty database with a large account and small ones; record the hot operations in the large one, which is returned."""
    async with database.open_database(url, **({"synchronous": "OFF"} if url.startswith("sqlite") else {})):
        large_account.configure(url)
        for number in range(1, OTHERS + 1):
            await large_account.new_account(number=number)
        large = await large_account.new_account(payable=4)
        await large_account.fill(large, ITEMS)
        while await figure_counts.fold(datetime.now(UTC)):
            pass
        try:
            with recorded() as seen:
                for plans in (True, False):
                    operations = growth.Operations(large, plans=plans)
                    for once in operations.all().values():
                        await once()
                    await other_operations(operations, large)
        finally:
            await providers.aclose()
    # PostgreSQL gets several changes in one statement.
    written = {table for sql in seen for table in re.findall(r'(?:INSERT INTO|UPDATE) "?(\w+)', sql)}
    assert written >= WRITTEN, "a way to the database is not recorded"
    return large.actor.account_id, seen


async def other_operations(operations: growth.Operations, large: LargeAccount) -> None:
    """Operations that are hot and not measured: later pages, single objects, and the team's other changes."""
    conversation, contact = public_id("cnv", large.conversation_id), public_id("cnt", large.contact_id)
    for field in ("conversations", "contacts", "paymentRequests", "notifications"):
        document = f"query($after: Cursor) {{ {field}(first: 5, after: $after) {{ pageInfo {{ endCursor }} nodes {{ id }} }} }}"
        page = await operations.run(document, {"after": None})
        await operations.run(document, {"after": page["pageInfo"]["endCursor"]})
    orders = {
        "conversations": ("ConversationOrder", ("CREATED_AT", "WAITING_SINCE")),
        "contacts": ("ContactOrder", ("CREATED_AT", "UPDATED_AT", "NAME")),
        "paymentRequests": ("PaymentRequestOrder", ("UPDATED_AT", "DUE_AT", "PAID_AT", "AMOUNT_DUE")),
    }
    for field, (kind, names) in orders.items():
        document = f"""query($after: Cursor, $order: {kind}) {{ {field}(first: 5, after: $after, orderBy: $order) {{
          pageInfo {{ endCursor }} nodes {{ id }} }} }}"""
        for name in names:
            for direction in ("ASC", "DESC"):
                given: dict[str, Any] = {"order": {"field": name, "direction": direction}}
                page = await operations.run(document, given)
                await operations.run(document, {**given, "after": page["pageInfo"]["endCursor"]})
    thread = """query($id: ID!, $before: Cursor) { conversation(id: $id) { thread(last: 5, before: $before) {
      pageInfo { startCursor } nodes { id } } } }"""
    page = (await operations.run(thread, {"id": conversation}))["thread"]
    await operations.run(thread, {"id": conversation, "before": page["pageInfo"]["startCursor"]})
    payments = "query($id: ID!) { contact(id: $id) { paymentRequests(first: 1) { nodes { id } } } }"
    (paid,) = (await operations.run(payments, {"id": contact}))["paymentRequests"]["nodes"]
    ledger = """query($id: ID!, $after: Cursor) { contact(id: $id) { payments(first: 2, after: $after) {
      totalCount pageInfo { endCursor } nodes { id refundable { amount } charge { id } } } } }"""
    page = (await operations.run(ledger, {"id": contact, "after": None}))["payments"]
    await operations.run(ledger, {"id": contact, "after": page["pageInfo"]["endCursor"]})
    request = await large.new_request()
    await large.send(request)
    await operations.run(documents.REQUEST, {"id": paid["id"]})
    await operations.run(documents.CONTACT, {"id": contact})
    await operations.run(documents.CHANNELS, {"id": conversation})
    await operations.run(documents.DEFAULTS)
    sent = {"conversationId": conversation, "channelId": public_id("chn", large.channel_id), "body": "Hello"}
    for document, input in (
        (documents.SEND_MESSAGE, {**sent, "idempotencyKey": harness.key()}),
        (documents.MARK_READ, {"conversationId": conversation}),
        (documents.SAVE_DRAFT, {"conversationId": conversation, "text": "a draft"}),
        (documents.VOID, {"paymentRequestId": public_id("pr", request.id)}),
        (documents.CREATE_CONTACT, {"name": "Ana Gray", "email": f"{harness.key()}@example.test"}),
    ):
        await operations.run(document, {"input": input})
    await event_log.read(large.actor.account_id, after=0, limit=100)


# --- SQLite ----------------------------------------------------------------------------------------------------------


def refused_by_sqlite(path: Path, executed: Mapping[str, Sequence[Any]]) -> list[str]:
    """Statements that scan a growing table or work long. Every execution is rolled back."""
    refused = []
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for sql, values in executed.items():
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
            scans = [line for line in plan if line.startswith("SCAN ") and line.split()[1] in GROWING]
            steps = 0 if sql.startswith("INSERT") else _steps(connection, sql, values)
            if scans or steps > MOST_STEPS:
                refused.append(f"{steps} steps, {plan}: {sql}")
    return refused


def _steps(connection: sqlite3.Connection, sql: str, values: Sequence[Any]) -> int:
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 100

    connection.execute("BEGIN")
    connection.set_progress_handler(count, 100)
    try:
        connection.execute(sql, values).fetchall()
    finally:
        connection.set_progress_handler(None, 0)
        connection.execute("ROLLBACK")
    return steps


async def test_sqlite_reads_few_rows_with_any_statistics(sqlite_template: Path, tmp_path: Path) -> None:
    path = tmp_path / "large.db"
    shutil.copyfile(sqlite_template, path)
    account, executed = await hot_statements(f"sqlite:///{path}")
    assert len(executed) > 100
    bad = {sql.format(mark="?"): [str(account)] for sql in REFUSED}
    for change in ("SELECT 1", "ANALYZE", "DROP TABLE sqlite_stat1"):
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(change)
        assert refused_by_sqlite(path, executed) == [], change
        assert len(refused_by_sqlite(path, bad)) == 2, change


# --- PostgreSQL ------------------------------------------------------------------------------------------------------

NO_STATISTICS = """DELETE FROM pg_statistic
WHERE starelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)"""


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


def _literal(value: Any) -> str:
    if value is None:
        return "NULL"
    text = "{" + ", ".join(map(str, value)) + "}" if isinstance(value, tuple) else str(value)
    return "'" + text.replace("'", "''") + "'"


async def _plan(connection: Any, sql: str, values: Sequence[Any], *, execute_it: bool) -> list[dict[str, Any]]:
    """The nodes of the plan that read growing tables; executed: as of a statement that was prepared and executed often."""
    literals = ", ".join(_literal(value) for value in values)
    execute = f"EXECUTE hot({literals})" if values else "EXECUTE hot"
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(f"PREPARE hot AS {sql}")
        options = ""
        if execute_it:
            # After five executions PostgreSQL may take one plan for all values.
            await connection.execute(";".join([f"EXPLAIN {execute}"] * 5))
            options = "ANALYZE, TIMING OFF, "
        text = await connection.fetchval(f"EXPLAIN ({options}FORMAT JSON) {execute}")
    finally:
        await transaction.rollback()
        await connection.execute("DEALLOCATE ALL")
    (explained,) = json.loads(text)
    return [node for node in _nodes(explained["Plan"]) if node.get("Relation Name") in GROWING]


async def refused_by_postgres(
    connection: Any, executed: Mapping[str, Sequence[Any]], filled: set[str], *, execute: bool
) -> list[str]:
    """Statements that scan a growing table or, executed, read many rows of one. Every execution is rolled back."""
    refused = []
    for sql, values in executed.items():
        for node in await _plan(connection, sql, values, execute_it=execute and "INSERT INTO" not in sql):
            read = (node.get("Actual Rows", 0) + node.get("Rows Removed by Filter", 0)) * node.get("Actual Loops", 1)
            scan = node["Node Type"] == "Seq Scan"
            if scan and node["Relation Name"] not in filled:  # right for an empty table: is there an index?
                await connection.execute("SET enable_seqscan = off")
                again = await _plan(connection, sql, values, execute_it=False)
                await connection.execute("SET enable_seqscan = on")
                scan = any(other["Node Type"] == "Seq Scan" for other in again)
            if scan or read > MOST_ROWS:
                refused.append(f"{read} rows, {node['Node Type']} of {node['Relation Name']}: {sql}")
    return refused


@pytest.fixture
def empty_postgres(new_postgres_database: Callable[[], str]) -> str:
    return new_postgres_database()


async def test_postgres_reads_few_rows_and_scans_nothing(empty_postgres: str) -> None:
    await migrate.migrate(empty_postgres)
    account, executed = await hot_statements(empty_postgres)
    assert len(executed) > 100
    bad = {sql.format(mark="$1"): [account] for sql in REFUSED}
    connection = await asyncpg.connect(**postgres_arguments(empty_postgres), statement_cache_size=0)
    try:
        await connection.execute("ANALYZE")
        counted = await connection.fetch("SELECT relname FROM pg_class WHERE relkind = 'r' AND reltuples > 1000")
        filled = {row["relname"] for row in counted}
        assert filled > {"message", "activity_card", "payment_request", "conversation", "contact", "event"}
        # The planner takes the tables for a hundred times as large as they are.
        await connection.execute("UPDATE pg_class SET reltuples = reltuples * 100 WHERE reltuples > 0")
        assert await refused_by_postgres(connection, executed, filled, execute=True) == []
        assert len(await refused_by_postgres(connection, bad, filled, execute=True)) == 2
        # Before its first ANALYZE the planner may take an account for small, but an index is there.
        await connection.execute(NO_STATISTICS)
        assert await refused_by_postgres(connection, executed, filled, execute=False) == []
    finally:
        await connection.close()
