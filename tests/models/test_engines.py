"""The engines' corrections and transactions. Repeat on every Tortoise upgrade."""

# ruff: noqa: PT012  (what has to raise is a whole transaction)

import asyncio
import contextlib
import random
import sqlite3
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import pytest
from tortoise.connection import get_connections
from tortoise.exceptions import IntegrityError, OperationalError, TransactionManagementError

from models import database, database_url, engine_sqlite, tables
from models.database import execute, in_transaction, open_database, rows, transaction
from models.database_errors import is_transient

LOST = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)

HANG_S = 10  # "for ever", in tests that show that nothing hangs

TABLES = {
    "sqlite": [
        "CREATE TABLE counter (id INTEGER PRIMARY KEY, n INTEGER NOT NULL)",
        "CREATE TABLE parent (id INTEGER PRIMARY KEY)",
        "CREATE TABLE child (parent_id INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)",
        "CREATE TABLE sample (id TEXT, at TIMESTAMP, flag BOOLEAN, data JSON, price TEXT, word TEXT)",
    ],
    "postgres": [
        "CREATE TABLE counter (id INTEGER PRIMARY KEY, n INTEGER NOT NULL)",
        "CREATE TABLE parent (id INTEGER PRIMARY KEY)",
        "CREATE TABLE child (parent_id INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)",
        "CREATE TABLE sample (id UUID, at TIMESTAMPTZ, flag BOOLEAN, data JSONB, price NUMERIC, word TEXT)",
    ],
}


@pytest.fixture(scope="module")
def bare_postgres(new_postgres_database: Callable[[], str]) -> str:
    return new_postgres_database()


@pytest.fixture(params=["sqlite", "postgres"])
def bare_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'bare.db'}"
    url: str = request.getfixturevalue("bare_postgres")
    return url


@pytest.fixture
async def bare(bare_url: str) -> AsyncIterator[str]:
    async with open_database(bare_url, **({"pool_max": 5} if bare_url.startswith("postgres") else {})):
        for name in ("sample", "child", "parent", "counter"):
            await execute(f"DROP TABLE IF EXISTS {name}")
        for statement in TABLES[database.dialect()]:
            await execute(statement)
        await execute("INSERT INTO counter (id, n) VALUES (1, 0)")
        yield bare_url


@pytest.fixture
async def bare_sqlite(tmp_path: Path) -> AsyncIterator[Path]:
    path = tmp_path / "bare.db"
    async with open_database(f"sqlite:///{path}"):
        for statement in TABLES["sqlite"]:
            await execute(statement)
        await execute("INSERT INTO counter (id, n) VALUES (1, 0)")
        yield path


async def count() -> int:
    return int((await rows("SELECT n FROM counter WHERE id = 1"))[0]["n"])


async def cancel_at_random(work: Callable[[], Any], rounds: int, longest_s: float, seed: int) -> int:
    """Return how many rounds were cancelled in time."""
    chance = random.Random(seed)
    cut = 0
    for _ in range(rounds):
        task = asyncio.ensure_future(work())
        # Some cancels hit before the first step, most somewhere inside: yields are finer than any timer.
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        if chance.random() < 0.7:
            await asyncio.sleep(chance.random() * longest_s)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            cut += 1
    return cut


async def idle_in_pool() -> tuple[int, int]:
    """(size, idle) once running releases have ended."""
    pool: Any = database._client()._pool
    for _ in range(200):
        if pool.get_size() == pool.get_idle_size():
            break
        await asyncio.sleep(0.01)
    return pool.get_size(), pool.get_idle_size()


# --- 2.1, the traps --------------------------------------------------------------------------------------------------


async def test_a_transaction_cancelled_while_it_begins_leaves_nothing_locked(bare: str) -> None:
    async def work() -> None:
        async with transaction():
            await execute("UPDATE counter SET n = n + 1 WHERE id = 1")

    async with asyncio.timeout(HANG_S):
        cut = await cancel_at_random(work, rounds=250, longest_s=0.002, seed=1)
        assert cut > 50
        before = await count()
        async with transaction():
            await execute("UPDATE counter SET n = n + 1 WHERE id = 1")
        assert await count() == before + 1
    if bare.startswith("postgres"):
        size, idle = await idle_in_pool()
        assert size == idle


async def test_transactions_cancelled_in_parallel_leave_nothing_locked(bare: str) -> None:
    async def work() -> None:
        async with transaction():
            await rows("SELECT n FROM counter")

    async with asyncio.timeout(HANG_S):
        await asyncio.gather(*(cancel_at_random(work, rounds=30, longest_s=0.004, seed=seed) for seed in range(8)))
        async with transaction():
            await execute("UPDATE counter SET n = 7 WHERE id = 1")
        assert await count() == 7
    if bare.startswith("postgres"):
        size, idle = await idle_in_pool()
        assert size == idle


async def test_reading_then_writing_loses_nothing_against_other_connections_on_sqlite(bare_sqlite: Path) -> None:
    def increment() -> None:
        with contextlib.closing(sqlite3.connect(bare_sqlite, isolation_level=None, timeout=HANG_S)) as other:
            for _ in range(100):
                other.execute("BEGIN IMMEDIATE")
                other.execute("UPDATE counter SET n = n + 1 WHERE id = 1")
                other.execute("COMMIT")

    others = [asyncio.create_task(asyncio.to_thread(increment)) for _ in range(3)]
    for _ in range(100):
        async with transaction():
            n = await count()  # read, then write: a deferred BEGIN turns this into "database is locked" at once
            await execute("UPDATE counter SET n = ? WHERE id = 1", n + 1)
    await asyncio.gather(*others)
    assert await count() == 400


async def test_a_cancelled_bulk_insert_leaves_no_transaction_open_on_sqlite(bare_sqlite: Path) -> None:
    client: Any = database._client()
    values = [[n] for n in range(2, 3_000)]

    async def work() -> None:
        await client.execute_many("INSERT OR IGNORE INTO counter (id, n) VALUES (?, 0)", values)

    async with asyncio.timeout(HANG_S):
        assert await cancel_at_random(work, rounds=30, longest_s=0.003, seed=2) > 5
        await execute("UPDATE counter SET n = 42 WHERE id = 1")
    assert client._connection.in_transaction is False
    with contextlib.closing(sqlite3.connect(bare_sqlite)) as other:  # seen by another connection: committed
        assert other.execute("SELECT n FROM counter WHERE id = 1").fetchone() == (42,)


async def test_a_failed_commit_leaves_no_transaction_open(bare: str) -> None:
    for _ in range(2):
        with pytest.raises(IntegrityError):
            async with transaction():
                await execute("INSERT INTO child (parent_id) VALUES (99)")  # checked at COMMIT
    if bare.startswith("sqlite"):
        client: Any = database._client()
        assert client._connection.in_transaction is False
    await execute("INSERT INTO parent (id) VALUES (1)")
    async with transaction():
        await execute("INSERT INTO child (parent_id) VALUES (1)")
    if bare.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(bare.removeprefix("sqlite:///"))) as other:
            assert other.execute("SELECT count(*) FROM parent").fetchone() == (1,)
    assert await rows("SELECT parent_id FROM child") == [{"parent_id": 1}]


async def test_a_first_connection_that_fails_tells_so_each_time_on_sqlite(tmp_path: Path) -> None:
    client = engine_sqlite.SafeSqliteClient(str(tmp_path / "missing" / "x.db"), connection_name="sqlite")
    async with asyncio.timeout(HANG_S):
        for _ in range(3):
            with pytest.raises(OperationalError, match="unable to open"):
                await client.execute_query("SELECT 1")
    assert client._lock.locked() is False


async def test_a_first_connection_that_is_cancelled_can_be_made_again_on_sqlite(tmp_path: Path) -> None:
    client = engine_sqlite.SafeSqliteClient(str(tmp_path / "x.db"), connection_name="sqlite", busy_timeout=1)
    try:
        async with asyncio.timeout(HANG_S):
            for steps in range(12):
                task = asyncio.ensure_future(client.execute_query("SELECT 1"))
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                assert client._lock.locked() is False
            # Half opened it would lack its pragmas.
            assert [tuple(row) for row in (await client.execute_query("PRAGMA foreign_keys"))[1]] == [(1,)]
            assert [tuple(row) for row in (await client.execute_query("PRAGMA busy_timeout"))[1]] == [(1,)]
    finally:
        await client.close()


async def test_a_pragma_that_fails_leaves_no_half_open_connection_on_sqlite(tmp_path: Path) -> None:
    client = engine_sqlite.SafeSqliteClient(str(tmp_path / "x.db"), **{"connection_name": "sqlite", "bad pragma": "x"})  # type: ignore[arg-type]
    for _ in range(2):
        with pytest.raises(OperationalError):
            await client.execute_query("SELECT 1")
        assert client._connection is None


async def test_a_timed_out_task_goes_on_with_its_own_connection_on_postgres(bare_postgres: str) -> None:
    # The timeout fires during the release.
    async with open_database(bare_postgres, pool_max=5):
        chance = random.Random(3)
        errors: list[BaseException] = []
        timeouts = 0

        async def work() -> None:
            nonlocal timeouts
            for _ in range(40):
                try:
                    async with asyncio.timeout(chance.random() * 0.004):
                        async with transaction():
                            await rows("SELECT 1 AS one")
                except TimeoutError:
                    timeouts += 1
                try:
                    assert await rows("SELECT 1 AS one") == [{"one": 1}]
                    assert not in_transaction()
                except (asyncpg.InterfaceError, asyncpg.PostgresError, AssertionError) as error:
                    errors.append(error)

        async with asyncio.timeout(HANG_S):
            await asyncio.gather(*(work() for _ in range(8)))
        assert errors == []
        assert timeouts > 0
        size, idle = await idle_in_pool()
        assert size == idle


async def test_a_commit_that_is_cancelled_leaves_nothing_open(bare: str) -> None:
    async def work() -> None:
        async with transaction():
            with contextlib.suppress(IntegrityError):
                await execute("INSERT INTO child (parent_id) VALUES (99)")
            # The cancel falls into a COMMIT that will fail.
            asyncio.get_running_loop().call_soon(task.cancel)

    async with asyncio.timeout(HANG_S):
        for _ in range(20):
            task = asyncio.ensure_future(work())
            with contextlib.suppress(asyncio.CancelledError, IntegrityError):
                await task
        await execute("UPDATE counter SET n = 5 WHERE id = 1")
    if bare.startswith("sqlite"):
        client: Any = database._client()
        assert client._connection.in_transaction is False
    assert await rows("SELECT parent_id FROM child") == []
    assert await count() == 5


async def test_an_error_of_the_transaction_machinery_rolls_back_too(bare: str) -> None:
    with pytest.raises(TransactionManagementError):
        async with transaction():
            await execute("UPDATE counter SET n = 9 WHERE id = 1")
            raise TransactionManagementError("raised by a caller")
    assert await count() == 0
    async with transaction():
        await execute("UPDATE counter SET n = 1 WHERE id = 1")
    assert await count() == 1


async def test_select_for_update_loses_no_update_on_postgres(postgres_database: str, new_account: Any) -> None:
    async def work(account_id: Any) -> None:
        for _ in range(20):
            async with transaction():
                account = await tables.Account.select_for_update().get(id=account_id)
                account.request_count += 1
                await account.save(update_fields=["request_count"])

    async with open_database(postgres_database, pool_max=5):
        account = await new_account()
        await asyncio.gather(*(work(account.id) for _ in range(5)))
        assert (await tables.Account.get(id=account.id)).request_count == 100


@pytest.fixture
def new_account() -> Any:
    async def make() -> tables.Account:
        return await tables.Account.create(
            name="A", default_currency="USD", link_message_template="{link}", event_epoch="e"
        )

    return make


# --- opening ---------------------------------------------------------------------------------------------------------


async def test_the_database_is_seen_by_tasks_that_did_not_open_it(bare_url: str) -> None:
    # As in an ASGI server: the lifespan opens it in its own task.
    opened, close = asyncio.Event(), asyncio.Event()

    async def lifespan() -> None:
        async with open_database(bare_url):
            opened.set()
            await close.wait()

    task = asyncio.create_task(lifespan())
    await opened.wait()
    assert await rows("SELECT 1 AS one") == [{"one": 1}]
    async with transaction():
        assert in_transaction()
    close.set()
    await task
    with pytest.raises(RuntimeError, match="no database is open"):
        await rows("SELECT 1 AS one")


async def test_opening_the_same_database_again_shares_it(bare: str) -> None:
    async with open_database(bare):
        await execute("UPDATE counter SET n = 3 WHERE id = 1")
    assert await count() == 3


async def test_opening_another_database_beside_is_refused(bare: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="another database is open"):
        async with open_database(f"sqlite:///{tmp_path / 'other.db'}"):
            pass
    assert await count() == 0


async def test_a_database_that_cannot_be_opened_can_be_tried_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'later' / 'x.db'}"
    with pytest.raises(OperationalError):
        async with open_database(url):
            pass
    (tmp_path / "later").mkdir()
    async with open_database(url):
        assert await rows("SELECT 1 AS one") == [{"one": 1}]


async def test_sqlite_opens_with_wal_foreign_keys_and_full_sync(bare_sqlite: Path) -> None:
    assert await rows("PRAGMA journal_mode") == [{"journal_mode": "wal"}]
    assert await rows("PRAGMA foreign_keys") == [{"foreign_keys": 1}]
    assert await rows("PRAGMA synchronous") == [{"synchronous": 2}]
    assert await rows("PRAGMA busy_timeout") == [{"timeout": 30}]


async def test_postgres_opens_with_time_limits(bare_postgres: str) -> None:
    async with open_database(bare_postgres, lock_timeout_ms=1_500):
        assert await rows("SHOW lock_timeout") == [{"lock_timeout": "1500ms"}]
        assert await rows("SHOW statement_timeout") == [{"statement_timeout": "30s"}]
        assert await rows("SHOW idle_in_transaction_session_timeout") == [
            {"idle_in_transaction_session_timeout": "1min"}
        ]


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///data/paythread.db", "data/paythread.db"),
        ("sqlite:////var/lib/x%20y.db", "/var/lib/x y.db"),
    ],
)
def test_sqlite_urls(url: str, path: str) -> None:
    assert database_url.sqlite_path(url) == path


def test_postgres_urls() -> None:
    full = database_url.postgres_arguments("postgres://us%40er:p%2Fw@db.example:6000/pay?ssl=require")
    assert full == {
        "host": "db.example",
        "port": 6000,
        "user": "us@er",
        "password": "p/w",
        "database": "pay",
        "ssl": "require",
        "server_settings": {"application_name": "paythread"},
    }
    socket = database_url.postgres_arguments("postgresql://postgres:@/pay?host=/run/pg&sslmode=disable")
    assert (socket["host"], socket["port"], socket["password"], socket["ssl"]) == ("/run/pg", 5432, None, "disable")


@pytest.mark.parametrize(
    "url",
    [
        "mysql://x/y",
        "sqlite://:memory:",
        "sqlite://relative.db",
        "sqlite:///",
        "postgres://user:hunter2@host/",
        "postgres://user:hunter2@host:port/db",
        "postgres://user:hunter2@host/db?ssl=perhaps",
        "postgres://user:hunter2@host/db?unknown=1",
    ],
)
def test_wrong_urls_are_refused_without_repeating_the_password(url: str) -> None:
    with pytest.raises(database_url.InvalidDatabaseUrl) as refused:
        database.tortoise_config(url)
    assert "hunter2" not in str(refused.value)


# --- transactions ----------------------------------------------------------------------------------------------------


async def test_inner_transactions_are_savepoints(bare: str) -> None:
    async with transaction():
        await execute("UPDATE counter SET n = 1 WHERE id = 1")
        with pytest.raises(ZeroDivisionError):
            async with transaction():
                await execute("UPDATE counter SET n = 2 WHERE id = 1")
                raise ZeroDivisionError
        assert await count() == 1
        async with transaction():
            async with transaction():
                await execute("UPDATE counter SET n = n + 10 WHERE id = 1")
            assert in_transaction()
    assert await count() == 11
    assert not in_transaction()


async def test_after_commit_runs_in_order_after_the_outermost_commit_only(bare: str) -> None:
    ran: list[str] = []
    async with transaction():
        database.after_commit(lambda: ran.append("first"))
        async with transaction():
            database.after_commit(lambda: ran.append("inner"))
        with pytest.raises(ZeroDivisionError):
            async with transaction():
                async with transaction():
                    database.after_commit(lambda: ran.append("in a savepoint that rolls back"))
                raise ZeroDivisionError
        database.after_commit(lambda: ran.append(f"last, inside {in_transaction()}"))
        assert ran == []
    assert ran == ["first", "inner", "last, inside False"]


async def test_after_commit_never_runs_after_a_rollback(bare: str) -> None:
    ran: list[str] = []
    with pytest.raises(ZeroDivisionError):
        async with transaction():
            database.after_commit(lambda: ran.append("x"))
            raise ZeroDivisionError
    with pytest.raises(IntegrityError):  # the commit itself fails
        async with transaction():
            database.after_commit(lambda: ran.append("y"))
            await execute("INSERT INTO child (parent_id) VALUES (99)")
    assert ran == []


async def test_after_commit_runs_at_once_outside_a_transaction(bare: str) -> None:
    ran: list[str] = []
    database.after_commit(lambda: ran.append("now"))
    assert ran == ["now"]


async def test_failing_after_commit_work_fails_nobody(bare: str, caplog: pytest.LogCaptureFixture) -> None:
    ran: list[str] = []

    def fail() -> None:
        raise ZeroDivisionError

    async with transaction():
        await execute("UPDATE counter SET n = 1 WHERE id = 1")
        database.after_commit(fail)
        database.after_commit(lambda: ran.append("next"))
    assert ran == ["next"]
    assert await count() == 1
    assert [record.message for record in caplog.records] == ["after-commit work failed"]


async def test_after_commit_work_sees_the_commit_and_may_start_tasks(bare: str) -> None:
    started: list[asyncio.Task[int]] = []
    async with transaction():
        await execute("UPDATE counter SET n = 6 WHERE id = 1")
        database.after_commit(lambda: started.append(asyncio.create_task(count())))
    assert await started[0] == 6


async def test_after_commit_in_a_foreign_transaction_is_refused(bare: str) -> None:
    ran: list[str] = []
    async with database._client()._in_transaction():
        with pytest.raises(RuntimeError, match="did not open"):
            database.after_commit(lambda: ran.append("x"))
    assert ran == []


async def test_tasks_inside_share_the_transaction(bare: str) -> None:
    async def add() -> None:
        await execute("UPDATE counter SET n = n + 1 WHERE id = 1")

    with pytest.raises(ZeroDivisionError):
        async with transaction():
            await asyncio.gather(*(add() for _ in range(10)))
            assert await count() == 10
            raise ZeroDivisionError
    assert await count() == 0


async def test_a_task_that_outlives_its_transaction_is_told(bare: str) -> None:
    go = asyncio.Event()

    async def late() -> None:
        await go.wait()
        assert not in_transaction()
        with pytest.raises(RuntimeError, match="outlived"):
            database.after_commit(lambda: None)
        async with transaction():
            await execute("UPDATE counter SET n = 1 WHERE id = 1")

    async with transaction():
        task = asyncio.create_task(late())
    go.set()
    with pytest.raises(RuntimeError, match="outlived"):
        await task
    assert await count() == 0


# --- raw SQL ---------------------------------------------------------------------------------------------------------


class Colour(StrEnum):
    RED = "red"


async def test_raw_values_come_back_the_same_on_both_engines(bare: str) -> None:
    id_, at, data = uuid4(), datetime(2026, 11, 23, 10, 0, 0, 123456, UTC), {"a": [1, "ü", None]}
    changed = await execute(
        "INSERT INTO sample (id, at, flag, data, price, word) VALUES (?, ?, ?, ?, ?, ?)",
        *(id_, at, True, data, Decimal("1.50"), Colour.RED),
    )
    assert changed == 1
    (row,) = await rows("SELECT * FROM sample WHERE id = ? AND at = ? AND flag = ?", id_, at, True)
    assert database.to_uuid(row["id"]) == id_
    assert database.to_time(row["at"]) == at
    assert database.to_time(row["at"]).tzinfo == UTC
    assert database.to_bool(row["flag"]) is True
    assert database.to_json(row["data"]) == data
    assert Decimal(row["price"]) == Decimal("1.50")
    assert row["word"] == "red"
    for read in (database.to_uuid, database.to_time, database.to_bool, database.to_json):
        assert read(None) is None


async def test_times_of_any_offset_are_stored_and_ordered_as_utc(bare: str) -> None:
    noon = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
    east, west = timezone(timedelta(hours=9)), timezone(timedelta(hours=-8))
    moments = [noon, noon + timedelta(microseconds=1), noon + timedelta(minutes=1), noon + timedelta(hours=1)]
    for moment, zone in zip(moments, (west, UTC, east, west), strict=True):
        await execute("INSERT INTO sample (at) VALUES (?)", moment.astimezone(zone))
    found = await rows("SELECT at FROM sample ORDER BY at")
    assert [database.to_time(row["at"]) for row in found] == moments
    late = await rows("SELECT at FROM sample WHERE at > ?", (noon + timedelta(seconds=30)).astimezone(east))
    assert len(late) == 2


async def test_instances_and_raw_rows_agree(database_url: str, new_account: Any) -> None:
    async with open_database(database_url):
        account = await new_account()
        connection = await tables.ProcessorConnection.create(
            account_id=account.id, processor="sandbox", display_name="S", test_mode=True, credentials="x"
        )
        (raw,) = await rows(
            "SELECT * FROM processor_connection WHERE id = ? AND account_id = ? AND created_at = ? AND test_mode = ?",
            *(connection.id, account.id, connection.created_at, True),
        )
        assert database.to_uuid(raw["id"]) == connection.id
        assert await execute("UPDATE account SET name = ? WHERE id = ?", "B", account.id) == 1
        assert (await tables.Account.get(id=account.id, created_at=account.created_at)).name == "B"
        now = datetime.now(timezone(timedelta(hours=5)))
        await tables.ProcessorConnection.filter(id=connection.id).update(last_webhook_at=now)
        assert len(await rows("SELECT 1 AS one FROM processor_connection WHERE last_webhook_at = ?", now)) == 1


async def test_execute_counts_the_rows_that_the_statement_changed(bare: str) -> None:
    assert await execute("INSERT INTO parent (id) VALUES (?), (?), (?)", 1, 2, 3) == 3
    assert await execute("UPDATE parent SET id = id + 10 WHERE id > ?", 1) == 2
    assert await execute("INSERT INTO parent (id) VALUES (?) ON CONFLICT DO NOTHING", 1) == 0
    assert await execute("DELETE FROM parent WHERE id = ?", 99) == 0
    async with transaction():
        assert await execute("DELETE FROM parent") == 3


async def test_returning_gives_the_rows(bare: str) -> None:
    assert await rows("UPDATE counter SET n = n + ? WHERE id = ? RETURNING n", 5, 1) == [{"n": 5}]
    assert await rows("INSERT INTO parent (id) VALUES (?) RETURNING id", 4) == [{"id": 4}]


async def test_question_marks_in_literals_names_and_comments_are_no_placeholders(bare: str) -> None:
    found = await rows("SELECT '?' AS a, 'it''s ?' AS \"b?\", ? AS c -- why?\n, 2 AS d", "x")
    assert found == [{"a": "?", "b?": "it's ?", "c": "x", "d": 2}]


def test_placeholders_are_as_many_as_asked_for() -> None:
    assert database.placeholders(3) == "?, ?, ?"
    with pytest.raises(ValueError, match="empty IN list"):
        database.placeholders(0)


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_busy_file_is_transient_and_a_broken_rule_is_not(bare_sqlite: Path) -> None:
    with contextlib.closing(sqlite3.connect(bare_sqlite, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await execute("PRAGMA busy_timeout = 1")
        with pytest.raises(TransactionManagementError) as at_begin:
            async with transaction():
                pass
        with pytest.raises(OperationalError) as at_write:
            await execute("UPDATE counter SET n = 1")
        other.execute("ROLLBACK")
    assert is_transient(at_begin.value)
    assert is_transient(at_write.value)
    with pytest.raises(IntegrityError) as rule:
        await execute("INSERT INTO counter (id, n) VALUES (1, 1)")
    with pytest.raises(OperationalError) as syntax:
        await execute("SELEC")
    with pytest.raises(OverflowError) as large:
        await execute("UPDATE counter SET n = ?", 2**63)
    assert not any(is_transient(error.value) for error in (rule, syntax, large))
    assert not is_transient(ValueError())


async def test_a_full_disk_is_transient_on_sqlite(bare_sqlite: Path) -> None:
    (pages,) = await rows("PRAGMA page_count")
    await execute(f"PRAGMA max_page_count = {pages['page_count']}")
    with pytest.raises(OperationalError) as at_write:
        await execute("CREATE TABLE blob AS SELECT zeroblob(1000000) AS bytes")
    assert is_transient(at_write.value)
    await execute("PRAGMA query_only = ON")
    with pytest.raises(OperationalError) as read_only:
        await execute("UPDATE counter SET n = 1")
    await execute("PRAGMA query_only = OFF")
    assert is_transient(read_only.value)


async def test_lost_locked_and_cancelled_are_transient_on_postgres(bare_postgres: str) -> None:
    async with open_database(bare_postgres, lock_timeout_ms=50, pool_max=3):
        await execute("CREATE TABLE IF NOT EXISTS counter (id INTEGER PRIMARY KEY, n INTEGER NOT NULL)")
        await execute("DELETE FROM counter")
        await execute("INSERT INTO counter (id, n) VALUES (1, 0), (2, 0)")
        other = await asyncpg.connect(**database_url.postgres_arguments(bare_postgres))
        try:
            held = other.transaction()
            await held.start()
            await other.execute("UPDATE counter SET n = 1 WHERE id = 1")
            with pytest.raises(asyncpg.LockNotAvailableError) as locked:
                await execute("UPDATE counter SET n = 2 WHERE id = 1")
            await held.rollback()
            with pytest.raises(asyncpg.QueryCanceledError) as cancelled:
                async with transaction():
                    await execute("SET LOCAL statement_timeout = 20")
                    await execute("SELECT pg_sleep(5)")
            with pytest.raises(asyncpg.InsufficientResourcesError) as full:
                async with transaction():
                    await execute("SET LOCAL work_mem = '64kB'")
                    await execute("SET LOCAL temp_file_limit = '64kB'")
                    await rows("SELECT n FROM generate_series(1, 100000) AS n ORDER BY md5(n::text)")
            with pytest.raises(TransactionManagementError) as standby:
                async with transaction():
                    await execute("SET LOCAL transaction_read_only = on")
                    await execute("UPDATE counter SET n = 2 WHERE id = 1")
            with pytest.raises(LOST) as lost:
                async with transaction():
                    pid = (await rows("SELECT pg_backend_pid() AS pid"))[0]["pid"]
                    await other.execute("SELECT pg_terminate_backend($1)", pid)
                    while True:
                        await rows("SELECT pg_sleep(0.01)")
        finally:
            await other.close()
        assert all(is_transient(error.value) for error in (locked, cancelled, full, lost))
        assert is_transient(standby.value)
        assert await count() == 0  # the pool has replaced the connection
        with pytest.raises(IntegrityError) as rule:
            await execute("INSERT INTO counter (id, n) VALUES (1, 1)")
        with pytest.raises(OperationalError) as syntax:
            await execute("SELEC")
        assert not is_transient(rule.value)
        assert not is_transient(syntax.value)


async def test_nothing_of_ours_stays_in_the_context_after_a_transaction(bare: str) -> None:
    before = get_connections()._get_storage()
    async with transaction():
        assert get_connections()._get_storage() is not before
    assert get_connections()._get_storage() is before


async def test_a_read_on_the_event_loops_thread_waits_elsewhere_for_a_busy_file(
    bare: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = sqlite3.OperationalError("database is locked")
    busy.sqlite_errorcode = sqlite3.SQLITE_BUSY

    def refuse(*_: object) -> list[tuple[Any, ...]]:
        raise OperationalError(busy) from busy

    monkeypatch.setattr(engine_sqlite.SafeSqliteClient, "read_directly", refuse)
    assert [tuple(row) for row in await database.records("SELECT 1 AS one")] == [(1,)]
    busy.sqlite_errorcode = sqlite3.SQLITE_IOERR
    if bare.startswith("sqlite"):
        with pytest.raises(OperationalError):
            await database.records("SELECT 1 AS one")
