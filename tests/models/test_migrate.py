"""The migration runner: each promise on both engines."""

# ruff: noqa: ASYNC240, S608  (a few small local files; no SQL here comes from outside)

import asyncio
import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import pytest

from models import migrate
from models.database_url import postgres_arguments, sqlite_path
from models.migrate import BadFiles, BrokenReferences, EditedMigration, MigrationError, NewerDatabase
from tests.conftest import run_on

ENGINES = ("sqlite", "postgres")


@pytest.fixture(scope="module")
def bare_postgres(new_postgres_database: Callable[[], str]) -> str:
    return new_postgres_database()


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path, own_loop: asyncio.Runner) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new' / 'paythread.db'}"
    found: str = request.getfixturevalue("bare_postgres")
    own_loop.run(run_on(found, "DROP SCHEMA public CASCADE; CREATE SCHEMA public"))
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "migrations"
    path.mkdir()
    return path


def write(folder: Path, name: str, up: str, down: str = "", *, postgres: str | None = None) -> None:
    for dialect, text in (("sqlite", up), ("postgres", postgres or up)):
        (folder / f"{name}.{dialect}.sql").write_text(f"{text}\n-- down\n{down}\n")


async def ask(url: str, sql: str) -> list[tuple[Any, ...]]:
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(sqlite_path(url), isolation_level=None)) as connection:
            connection.execute("PRAGMA foreign_keys = ON")
            return [tuple(row) for row in connection.execute(sql).fetchall()]
    postgres = await asyncpg.connect(**postgres_arguments(url))
    try:
        return [tuple(row) for row in await postgres.fetch(sql)]
    finally:
        await postgres.close()


async def tables_of(url: str) -> set[str]:
    if url.startswith("sqlite"):
        return {name for (name,) in await ask(url, "SELECT name FROM sqlite_master WHERE type = 'table'")}
    return {name for (name,) in await ask(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


RULES = (sqlite3.IntegrityError, asyncpg.IntegrityConstraintViolationError)


async def test_of_four_racing_runners_one_applies_and_three_do_nothing(url: str) -> None:
    done = await asyncio.gather(*(migrate.migrate(url) for _ in range(4)))
    names = [migration.name for migration in migrate.read(migrate.FOLDER, "sqlite")]
    assert sorted(done) == [[], [], [], names]
    assert await ask(url, "SELECT name FROM schema_migration ORDER BY name") == [(name,) for name in names]


async def test_up_down_and_up_again(url: str) -> None:
    names = await migrate.migrate(url)
    assert "payment_request" in await tables_of(url)
    assert await migrate.rollback(url, None) == list(reversed(names))
    assert await tables_of(url) == {"schema_migration"}
    if url.startswith("postgres"):
        functions = "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        assert await ask(url, functions) == []
    assert await migrate.pending(url) == names
    assert await migrate.migrate(url) == names
    assert await migrate.pending(url) == []
    assert await migrate.migrate(url) == []


async def test_rollback_stops_at_the_named_migration(url: str, folder: Path) -> None:
    for number in (1, 2, 3):
        write(folder, f"{number:04}_step", f"CREATE TABLE t{number} (id INT);", f"DROP TABLE t{number};")
    await migrate.migrate(url, folder=folder)
    with pytest.raises(ValueError, match="not applied"):
        await migrate.rollback(url, "0009_unknown", folder=folder)
    assert await migrate.rollback(url, "0001_step", folder=folder) == ["0003_step", "0002_step"]
    assert await tables_of(url) == {"schema_migration", "t1"}
    assert await migrate.pending(url, folder=folder) == ["0002_step", "0003_step"]


async def test_an_edited_file_is_refused(url: str, folder: Path) -> None:
    write(folder, "0001_a", "CREATE TABLE a (id INT);", "DROP TABLE a;")
    await migrate.migrate(url, folder=folder)
    write(folder, "0001_a", "CREATE TABLE a (id BIGINT);", "DROP TABLE a;")
    write(folder, "0002_b", "CREATE TABLE b (id INT);", "DROP TABLE b;")
    for refused in (migrate.migrate(url, folder=folder), migrate.pending(url, folder=folder)):
        with pytest.raises(EditedMigration, match="0001_a"):
            await refused
    with pytest.raises(EditedMigration):
        await migrate.rollback(url, None, folder=folder)
    assert await tables_of(url) == {"schema_migration", "a"}


async def test_another_line_ending_is_no_edit(url: str, folder: Path) -> None:
    write(folder, "0001_a", "CREATE TABLE a (id INT);\n", "DROP TABLE a;")
    await migrate.migrate(url, folder=folder)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert await migrate.migrate(url, folder=folder) == []


async def test_a_failing_step_leaves_nothing(url: str, folder: Path) -> None:
    write(folder, "0001_a", "CREATE TABLE a (id INT);", "DROP TABLE a;")
    await migrate.migrate(url, folder=folder)
    write(folder, "0002_b", "CREATE TABLE b (id INT); INSERT INTO a VALUES (1); INSERT INTO nowhere VALUES (1);")
    with pytest.raises((sqlite3.OperationalError, asyncpg.UndefinedTableError)):
        await migrate.migrate(url, folder=folder)
    assert await tables_of(url) == {"schema_migration", "a"}
    assert await ask(url, "SELECT id FROM a") == []
    assert await migrate.pending(url, folder=folder) == ["0002_b"]
    write(folder, "0002_b", "CREATE TABLE b (id INT);")
    assert await migrate.migrate(url, folder=folder) == ["0002_b"]


async def test_a_database_newer_than_the_code_is_refused(url: str, folder: Path) -> None:
    write(folder, "0001_a", "CREATE TABLE a (id INT);", "DROP TABLE a;")
    write(folder, "0002_b", "CREATE TABLE b (id INT);", "DROP TABLE b;")
    await migrate.migrate(url, folder=folder)
    for path in folder.glob("0002*"):
        path.unlink()
    for refused in (migrate.migrate(url, folder=folder), migrate.pending(url, folder=folder)):
        with pytest.raises(NewerDatabase, match="0002_b"):
            await refused
    assert await tables_of(url) == {"schema_migration", "a", "b"}


async def test_a_gap_in_what_was_applied_is_refused(url: str, folder: Path) -> None:
    write(folder, "0001_a", "CREATE TABLE a (id INT);", "DROP TABLE a;")
    await migrate.migrate(url, folder=folder)
    for path in sorted(folder.iterdir()):
        path.rename(folder / path.name.replace("0001_a", "0002_a"))
    write(folder, "0001_before", "CREATE TABLE b (id INT);")
    with pytest.raises(MigrationError):
        await migrate.migrate(url, folder=folder)
    assert await tables_of(url) == {"schema_migration", "a"}


PARENT = """
CREATE TABLE parent (id INT PRIMARY KEY, name VARCHAR(10) NOT NULL, code INT UNIQUE);
CREATE UNIQUE INDEX parent_name ON parent (name) WHERE id > 0;
CREATE TABLE child (id INT PRIMARY KEY, parent_id INT NOT NULL REFERENCES parent (id) ON DELETE CASCADE);
INSERT INTO parent VALUES (1, 'one', 11), (2, 'two', 22);
INSERT INTO child VALUES (10, 1), (20, 2), (21, 2);
"""
PARENT_TRIGGER = {
    "sqlite": """
CREATE TRIGGER parent_stays BEFORE DELETE ON parent
BEGIN
    SELECT RAISE(ABORT, 'a parent; stays');
    SELECT 1;
END;
""",
    "postgres": """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'a parent; stays' USING ERRCODE = 'integrity_constraint_violation'; END $$;
CREATE TRIGGER parent_stays BEFORE DELETE ON parent FOR EACH ROW EXECUTE FUNCTION refuse();
""",
}
ALTER_PARENT = {
    "sqlite": """
CREATE TABLE parent_new (id INT PRIMARY KEY, name VARCHAR(10), code INT UNIQUE, CHECK (length(name) > 0));
INSERT INTO parent_new SELECT * FROM parent;
DROP TABLE parent;
ALTER TABLE parent_new RENAME TO parent;
CREATE UNIQUE INDEX parent_name ON parent (name) WHERE id > 0;
"""
    + PARENT_TRIGGER["sqlite"],
    "postgres": """
ALTER TABLE parent ALTER COLUMN name DROP NOT NULL;
ALTER TABLE parent ADD CHECK (length(name) > 0);
""",
}


async def test_altering_a_parent_keeps_children_indexes_uniques_and_triggers(url: str, folder: Path) -> None:
    write(folder, "0001_a", PARENT + PARENT_TRIGGER["sqlite"], postgres=PARENT + PARENT_TRIGGER["postgres"])
    await migrate.migrate(url, folder=folder)
    write(folder, "0002_b", ALTER_PARENT["sqlite"], postgres=ALTER_PARENT["postgres"])
    assert await migrate.migrate(url, folder=folder) == ["0002_b"]
    assert await ask(url, "SELECT id, parent_id FROM child ORDER BY id") == [(10, 1), (20, 2), (21, 2)]
    assert await ask(url, "SELECT id, name, code FROM parent ORDER BY id") == [(1, "one", 11), (2, "two", 22)]
    await ask(url, "INSERT INTO parent VALUES (3, NULL, 33)")  # the change itself
    for refused in (
        "INSERT INTO parent VALUES (4, 'one', 44)",  # partial unique index
        "INSERT INTO parent VALUES (4, 'four', 11)",  # unique column
        "INSERT INTO parent VALUES (4, '', 44)",  # the new check
        "INSERT INTO child VALUES (30, 99)",  # foreign key
        "DELETE FROM parent WHERE id = 1",  # trigger
    ):
        with pytest.raises(RULES):
            await ask(url, refused)
    assert await ask(url, "SELECT count(*) FROM parent") == [(3,)]


async def test_rows_that_would_point_to_nothing_are_refused_on_sqlite(tmp_path: Path, folder: Path) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    write(folder, "0001_a", PARENT)
    await migrate.migrate(url, folder=folder)
    write(folder, "0002_b", "DELETE FROM parent WHERE id = 2;")
    with pytest.raises(BrokenReferences, match="child"):
        await migrate.migrate(url, folder=folder)
    assert await ask(url, "SELECT count(*) FROM parent") == [(2,)]


async def test_a_file_without_transaction_builds_an_index_concurrently(url: str, folder: Path) -> None:
    write(folder, "0001_a", "CREATE TABLE a (id INT, note TEXT);", "DROP TABLE a;")
    write(
        folder,
        "0002_b",
        "CREATE INDEX a_id ON a (id);",
        "DROP INDEX a_id;",
        postgres="-- no-transaction\n"
        "DROP INDEX IF EXISTS a_id; -- safe to repeat; an interrupted build leaves an invalid one\n"
        "CREATE INDEX CONCURRENTLY a_id ON a (id);",
    )
    assert await migrate.migrate(url, folder=folder) == ["0001_a", "0002_b"]
    assert await migrate.rollback(url, "0001_a", folder=folder) == ["0002_b"]
    assert await migrate.migrate(url, folder=folder) == ["0002_b"]


async def test_looking_for_what_is_pending_makes_no_file(tmp_path: Path) -> None:
    path = tmp_path / "not" / "there.db"
    names = await migrate.pending(f"sqlite:///{path}")
    assert names[0] == "0001_initial"
    assert not path.parent.exists()


async def test_looking_for_what_is_pending_changes_nothing_on_postgres(bare_postgres: str) -> None:
    await run_on(bare_postgres, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    assert (await migrate.pending(bare_postgres))[0] == "0001_initial"
    assert await tables_of(bare_postgres) == set()


async def test_a_migrated_sqlite_file_uses_write_ahead_logging(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    await migrate.migrate(url)
    assert await ask(url, "PRAGMA journal_mode") == [("wal",)]


async def test_a_lock_that_is_never_released_ends_in_an_error(
    url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "0001_a", "CREATE TABLE a (id INT);")
    await migrate.migrate(url, folder=folder)
    write(folder, "0002_b", "CREATE TABLE b (id INT);")
    monkeypatch.setattr(migrate, "LOCK_WAIT_S", 0.1)
    async with contextlib.AsyncExitStack() as stack:
        if url.startswith("sqlite"):
            other = stack.enter_context(contextlib.closing(sqlite3.connect(sqlite_path(url), isolation_level=None)))
            other.execute("BEGIN IMMEDIATE")
        else:
            connection = await asyncpg.connect(**postgres_arguments(url))
            stack.push_async_callback(connection.close)
            await connection.execute("SELECT pg_advisory_lock($1)", migrate._LOCK_KEY)
        with pytest.raises(migrate.LockTimeout):
            await migrate.migrate(url, folder=folder)
    assert await migrate.migrate(url, folder=folder) == ["0002_b"]


def test_our_files_exist_for_both_engines_in_order() -> None:
    names = {dialect: [m.name for m in migrate.read(migrate.FOLDER, dialect)] for dialect in ("sqlite", "postgres")}
    assert names["sqlite"] == names["postgres"]
    assert names["sqlite"][0] == "0001_initial"


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"0001_a.sqlite.sql": "-- down"}, "sqlite only"),
        ({"0001_a.sqlite.sql": "", "0001_a.postgres.sql": "-- down"}, "exactly one line"),
        ({"0002_a.sqlite.sql": "-- down", "0002_a.postgres.sql": "-- down"}, "0001"),
        ({"1_a.sqlite.sql": "-- down"}, "not named"),
        ({f"0001_{n}.{d}.sql": "-- down" for n in "ab" for d in ENGINES}, "0002"),
    ],
)
def test_a_wrong_folder_is_refused(folder: Path, files: dict[str, str], complaint: str) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)
    with pytest.raises(BadFiles, match=complaint):
        migrate.read(folder, "sqlite")


async def test_a_statement_without_end_is_refused_on_sqlite(tmp_path: Path, folder: Path) -> None:
    write(folder, "0001_a", "CREATE TABLE a (id INT);\nCREATE TABLE b (id INT)")
    with pytest.raises(BadFiles, match="does not end"):
        await migrate.migrate(f"sqlite:///{tmp_path / 'x.db'}", folder=folder)


async def test_sqlite_has_fixed_statistics_whatever_analyze_wrote(sqlite_template: Path, tmp_path: Path) -> None:
    path = tmp_path / "paythread.db"
    shutil.copyfile(sqlite_template, path)
    with closing(sqlite3.connect(path)) as connection:
        stored = connection.execute("SELECT * FROM sqlite_stat1 ORDER BY tbl, idx").fetchall()
        connection.execute("ANALYZE")  # as an operator would; the file is empty
        assert connection.execute("SELECT * FROM sqlite_stat1 ORDER BY tbl, idx").fetchall() != stored
        connection.commit()
    await migrate.migrate(f"sqlite:///{path}")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM sqlite_stat1 ORDER BY tbl, idx").fetchall() == stored
        plan = connection.execute(
            "EXPLAIN QUERY PLAN SELECT * FROM payment_request WHERE account_id = 'a' AND id IN ('b', 'c')"
        )
        assert [row[3] for row in plan] == [
            "SEARCH payment_request USING INDEX sqlite_autoindex_payment_request_1 (id=?)"
        ]
