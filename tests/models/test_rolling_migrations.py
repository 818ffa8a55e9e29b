"""Migrations on PostgreSQL beside a running server of the version before."""

# ruff: noqa: S608  (no SQL here comes from outside)

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import pytest

from models import migrate
from models.database_url import postgres_arguments
from tests.conftest import run_on
from tests.flows import harness
from tests.flows.conftest import new_team

# Published before the rules of migrations/README.md: they are applied, so they stay as they are.
BEFORE_THE_RULES = 23
NEWEST = 3  # migrations that are applied beside traffic
SLACK_S = 4.0  # of a busy machine


@pytest.fixture
def url(new_postgres_database: Callable[[], str]) -> str:
    return new_postgres_database()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "migrations"
    path.mkdir()
    return path


def write(folder: Path, name: str, up: str) -> None:
    for dialect in ("sqlite", "postgres"):
        (folder / f"{name}.{dialect}.sql").write_text(f"{up}\n-- down\n")


@contextlib.asynccontextmanager
async def session(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(**postgres_arguments(url), timeout=30)
    try:
        yield connection
    finally:
        await connection.close()


# ------------------------------------------------------------------------------------------------------------- locks
async def test_a_step_that_cannot_lock_its_table_lets_others_pass_and_tries_again(
    url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "TABLE_LOCK_S", 0.3)
    monkeypatch.setattr(migrate, "PAUSE_S", 0.3)
    write(folder, "0001_a", "CREATE TABLE a (id INT);")
    await migrate.migrate(url, folder=folder)
    write(folder, "0002_b", "CREATE TABLE b (id INT);\nALTER TABLE a ADD COLUMN note TEXT;")
    async with session(url) as reader, session(url) as other:
        await reader.execute("BEGIN; SELECT * FROM a")
        migrating = asyncio.create_task(migrate.migrate(url, folder=folder))
        longest = 0.0
        for _ in range(30):  # some of them queue behind the step
            started = time.monotonic()
            await other.fetch("SELECT * FROM a")
            longest = max(longest, time.monotonic() - started)
            await asyncio.sleep(0.05)
        assert not migrating.done()
        assert longest < 0.3 + SLACK_S
        await reader.execute("COMMIT")
        assert await migrating == ["0002_b"]


@pytest.mark.parametrize("mark", ["", "-- no-transaction\n"])
async def test_a_table_that_is_never_free_ends_the_migration_and_leaves_it_pending(
    url: str, folder: Path, monkeypatch: pytest.MonkeyPatch, mark: str
) -> None:
    for name, seconds in (("TABLE_LOCK_S", 0.1), ("PAUSE_S", 0.05), ("LOCK_WAIT_S", 0.4)):
        monkeypatch.setattr(migrate, name, seconds)
    write(folder, "0001_a", "CREATE TABLE a (id INT);")
    await migrate.migrate(url, folder=folder)
    write(folder, "0002_b", mark + "ALTER TABLE a ADD COLUMN IF NOT EXISTS note TEXT;")
    async with session(url) as reader:
        await reader.execute("BEGIN; SELECT * FROM a")
        with pytest.raises(migrate.LockTimeout, match="0002_b"):
            await migrate.migrate(url, folder=folder)
    assert await migrate.pending(url, folder=folder) == ["0002_b"]
    assert await migrate.migrate(url, folder=folder) == ["0002_b"]


async def test_an_index_that_is_built_concurrently_waits_longer_than_a_lock(
    url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "TABLE_LOCK_S", 0.1)
    write(folder, "0001_a", "CREATE TABLE a (id INT);")
    await migrate.migrate(url, folder=folder)
    write(folder, "0002_b", "-- no-transaction\nCREATE INDEX CONCURRENTLY a_id ON a (id);")
    async with session(url) as old, session(url) as writer:
        await old.execute("BEGIN; INSERT INTO a VALUES (1)")
        migrating = asyncio.create_task(migrate.migrate(url, folder=folder))
        await asyncio.sleep(0.5)
        await writer.execute("INSERT INTO a VALUES (2)")  # no session waits for it
        assert not migrating.done()
        await old.execute("COMMIT")
        assert await migrating == ["0002_b"]
        assert await writer.fetchval("SELECT indisvalid FROM pg_index WHERE indexrelid = 'a_id'::regclass")


@pytest.mark.slow
async def test_the_newest_migrations_stop_no_one_beside_traffic(url: str) -> None:
    names = await migrate.migrate(url)
    await migrate.rollback(url, names[-NEWEST - 1])
    async with session(url) as reader, session(url) as old, session(url) as new:
        found = await reader.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        tables = sorted(row["tablename"] for row in found)
        # An answer that takes long, as a report's: it holds every table for a second and a half.
        await old.execute("BEGIN")
        for table in tables:
            await old.execute(f"SELECT count(*) FROM {table}")
        migrating = asyncio.create_task(migrate.migrate(url))
        ended = asyncio.get_running_loop().call_later(1.5, lambda: asyncio.ensure_future(old.execute("COMMIT")))
        longest = 0.0
        while not migrating.done():
            for table in tables:
                started = time.monotonic()
                await new.execute(f"BEGIN; LOCK TABLE {table} IN ROW EXCLUSIVE MODE; COMMIT")
                longest = max(longest, time.monotonic() - started)
            await asyncio.sleep(0)
        ended.cancel()
        assert await migrating == names[-NEWEST:]
        assert longest < migrate.TABLE_LOCK_S + SLACK_S


# ------------------------------------------------------------------------------------------- beside a running server
EXPAND = """
ALTER TABLE payment_request ADD COLUMN later_note TEXT;
ALTER TABLE payment_request ADD COLUMN later_flag BOOL NOT NULL DEFAULT FALSE;
ALTER TABLE payment_request ADD CONSTRAINT later_note_valid CHECK (length(later_note) < 100) NOT VALID;
CREATE TABLE later_detail (id UUID PRIMARY KEY, payment_request_id UUID NOT NULL REFERENCES payment_request (id));
"""
FILL = """-- no-transaction
UPDATE payment_request SET later_note = 'from before' WHERE later_note IS NULL;
ALTER TABLE payment_request VALIDATE CONSTRAINT later_note_valid;
DROP INDEX CONCURRENTLY IF EXISTS payment_request_later;
CREATE INDEX CONCURRENTLY payment_request_later ON payment_request (account_id, later_flag);
"""


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_a_server_goes_on_while_a_later_version_migrates_and_after_it(
    database: str, redis_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in migrate.FOLDER.glob("*.sql"):
        shutil.copy(path, folder)
    last = len(migrate.read(folder, "postgres"))
    later = [f"{last + 1:04}_expand", f"{last + 2:04}_fill"]
    for name, up in zip(later, (EXPAND, FILL), strict=True):
        write(folder, name, up)
    assert dangers(EXPAND) == dangers(FILL) == []
    try:
        async with harness.in_process(database, redis_url) as product:
            team = await new_team(product)
            await team.connect_sandbox()
            maria = await team.contact()
            migrating = asyncio.create_task(migrate.migrate(database, folder=folder))
            made = [await team.request(maria)]
            while not migrating.done():
                made.append(await team.request(maria))
            assert await migrating == later
            made.append(await team.request(maria))
            for request in (made[0], made[-1]):
                await team.pay(request)
                assert (await team.read(request))["status"] == "PAID"
            # A process of this version that starts again is served, too.
            product_state = await product.http.get("/readyz")
            assert (product_state.status_code, product_state.json()["checks"]["migrations"]) == (200, "newer")
    finally:
        await run_on(
            database,
            "DROP TABLE IF EXISTS later_detail; ALTER TABLE payment_request DROP COLUMN IF EXISTS later_note,"
            " DROP COLUMN IF EXISTS later_flag;"
            f" DELETE FROM schema_migration WHERE name IN ('{later[0]}', '{later[1]}')",
        )


# -------------------------------------------------------------------------------------------------------------- rules
def dangers(text: str) -> list[str]:
    """What a migration of PostgreSQL does that a running server of the version before does not bear."""
    own_transaction = "-- no-transaction" not in text.splitlines()
    contracts = any(line.startswith("-- contract") for line in text.splitlines())
    up = re.sub(r"\$\$.*?\$\$|'[^']*'", "''", re.sub(r"--[^\n]*", "", text.partition("\n-- down")[0]), flags=re.S)
    statements = [" ".join(statement.split()) for statement in up.split(";") if statement.strip()]
    new = {
        match[1] for match in (re.match(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+)", each) for each in statements) if match
    }
    found: list[str] = []
    for place, statement in enumerate(statements):
        table = re.match(
            r"(?:ALTER TABLE|CREATE (?:UNIQUE )?INDEX .*? ON|UPDATE|DELETE FROM) (?:ONLY )?(\w+)", statement
        )
        if table is None or table[1] not in new:
            before = statements[place - 1] if place else ""
            found += _dangers_of(statement, before, own_transaction=own_transaction, contracts=contracts)
    return found


def _dangers_of(statement: str, before: str, *, own_transaction: bool, contracts: bool) -> list[str]:
    rules = (
        (r"CREATE (UNIQUE )?INDEX (?!CONCURRENTLY)", "an index is built CONCURRENTLY"),
        (r"ADD COLUMN(?!.*\bDEFAULT\b).*\bNOT NULL\b", "a column that is NOT NULL has a DEFAULT"),
        (r"\bSET NOT NULL\b", "a CHECK (… IS NOT NULL) NOT VALID is added and validated instead of SET NOT NULL"),
        (r"ALTER COLUMN \w+ (SET DATA )?TYPE\b", "a column of another type is a new column"),
        (r"\bRENAME\b", "nothing is renamed"),
        (r"ADD (CONSTRAINT \w+ )?(CHECK|FOREIGN KEY)(?!.*\bNOT VALID$)", "a constraint is added NOT VALID"),
        (
            r"ADD (CONSTRAINT \w+ )?(UNIQUE|PRIMARY KEY)(?! USING INDEX)",
            "a key uses an index that was built CONCURRENTLY",
        ),
    )
    found = [rule for pattern, rule in rules if re.search(pattern, statement, re.I)]
    if own_transaction and re.search(r"^(UPDATE|DELETE FROM)|VALIDATE CONSTRAINT", statement, re.I):
        found.append("rows are read or changed in a file of their own, with -- no-transaction")
    if not contracts and re.search(r"\bDROP (COLUMN|TABLE)\b", statement, re.I):
        found.append("what is dropped says with -- contract since when nothing uses it")
    built = re.match(r"CREATE (?:UNIQUE )?INDEX CONCURRENTLY (\w+)", statement, re.I)
    if built is not None and before != f"DROP INDEX CONCURRENTLY IF EXISTS {built[1]}":
        found.append("an index that may be left invalid is dropped first")
    return found


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("CREATE INDEX x ON message (id);", "an index is built CONCURRENTLY"),
        ("ALTER TABLE message ADD COLUMN n INT NOT NULL;", "a column that is NOT NULL has a DEFAULT"),
        ("ALTER TABLE message ALTER COLUMN body TYPE VARCHAR(9);", "a column of another type is a new column"),
        ("ALTER TABLE message RENAME COLUMN body TO text;", "nothing is renamed"),
        ("ALTER TABLE message ADD CONSTRAINT c CHECK (n > 0);", "a constraint is added NOT VALID"),
        ("ALTER TABLE message ADD UNIQUE (n);", "a key uses an index that was built CONCURRENTLY"),
        ("UPDATE message SET n = 1;", "rows are read or changed in a file of their own, with -- no-transaction"),
        ("ALTER TABLE message DROP COLUMN n;", "what is dropped says with -- contract since when nothing uses it"),
        (
            "-- no-transaction\nCREATE INDEX CONCURRENTLY x ON message (id);",
            "an index that may be left invalid is dropped first",
        ),
        (
            "ALTER TABLE message ALTER COLUMN n SET NOT NULL;",
            "a CHECK (… IS NOT NULL) NOT VALID is added and validated instead of SET NOT NULL",
        ),
    ],
)
def test_each_rule_finds_its_danger(statement: str, rule: str) -> None:
    assert dangers(statement) == [rule]


def test_what_a_file_creates_itself_is_free() -> None:
    text = "CREATE TABLE t (n INT NOT NULL);\nCREATE INDEX t_n ON t (n);\nALTER TABLE t ADD CHECK (n > 0);\nUPDATE t SET n = 1;"
    assert dangers(text) == []
    assert dangers("-- contract: 1.4 stopped reading it\nALTER TABLE message DROP COLUMN n;") == []


def test_our_migrations_follow_the_rules() -> None:
    files = sorted(migrate.FOLDER.glob("*.postgres.sql"))
    later = [path for path in files if int(path.name[:4]) > BEFORE_THE_RULES]
    assert {path.name: found for path in later if (found := dangers(path.read_text()))} == {}
