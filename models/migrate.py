"""Applies `migrations/` once, in order, under a lock. Rules: migrations/README.md."""

import asyncio
import hashlib
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from models import sqlite_statistics
from models.database_url import Dialect, dialect_of, postgres_arguments, sqlite_path

FOLDER = Path(__file__).parent / "migrations"

LOCK_WAIT_S = 60.0
# PostgreSQL: a statement that waits for a table's lock blocks every query behind it, so it gives up and tries again.
TABLE_LOCK_S = 2.0
PAUSE_S = 1.0
# What runs CONCURRENTLY blocks no session while it waits for older transactions, such as a backup's.
CONCURRENT_LOCK_S = 600.0
_LOCK_KEY = 0x70617974_68726561  # "paythrea": a constant that no other program uses in this database

_FILE = re.compile(r"(?P<name>(?P<number>\d{4})_[a-z0-9_]+)\.(?P<dialect>sqlite|postgres)\.sql")
_RECORD = (
    "CREATE TABLE IF NOT EXISTS schema_migration"
    " (name VARCHAR(200) NOT NULL PRIMARY KEY, checksum VARCHAR(64) NOT NULL, applied_at {type} NOT NULL)"
)


class MigrationError(RuntimeError):
    """Database and migration files do not fit; nothing was changed."""


class BadFiles(MigrationError):
    """A file is missing for one engine, misnumbered, or without `-- down`."""


class EditedMigration(MigrationError):
    """An applied file was changed: write a new migration."""


class NewerDatabase(MigrationError):
    """A newer release migrated the database: run or roll back with that."""


class LockTimeout(MigrationError):
    """Other sessions kept a lock for too long; the step that waited for it can be repeated."""


class BrokenReferences(MigrationError):
    """The migration would leave broken foreign keys."""


@dataclass(frozen=True, slots=True)
class Migration:
    name: str
    up: str
    down: str
    checksum: str
    in_transaction: bool
    needs_fts5: bool


async def migrate(database_url: str, *, folder: Path = FOLDER) -> list[str]:
    """Apply pending migrations; several processes may call it. Raises: MigrationError."""
    return await _execute_plan(database_url, folder, _unapplied)


async def rollback(database_url: str, to: str | None, *, folder: Path = FOLDER) -> list[str]:
    """Roll back migrations after `to` (None: all), newest first. Raises: ValueError (`to` is not applied), MigrationError."""

    def plan(migrations: list[Migration], applied: list[str]) -> list[Migration]:
        if to is not None and to not in applied:
            raise ValueError(f"{to!r} is not applied")
        keep = 0 if to is None else applied.index(to) + 1
        return list(reversed(migrations[keep : len(applied)]))

    return await _execute_plan(database_url, folder, plan, up=False)


async def pending(database_url: str, *, folder: Path = FOLDER) -> list[str]:
    """Raises: MigrationError."""
    dialect = dialect_of(database_url)
    migrations = read(folder, dialect)
    if dialect == "sqlite":
        recorded = await asyncio.to_thread(_sqlite_record, sqlite_path(database_url))
    else:
        async with _connected(database_url) as connection:
            recorded = await _postgres_record(connection)
    return [migration.name for migration in _unapplied(migrations, _verify(migrations, recorded))]


def read(folder: Path, dialect: Dialect) -> list[Migration]:
    """Raises: BadFiles."""
    halves: dict[str, set[str]] = {}
    found: list[Migration] = []
    for path in sorted(folder.glob("*.sql")):
        match = _FILE.fullmatch(path.name)
        if match is None:
            raise BadFiles(f"{path.name} is not named NNNN_name.sqlite.sql or NNNN_name.postgres.sql")
        halves.setdefault(match["name"], set()).add(match["dialect"])
        if match["dialect"] == dialect:
            found.append(_parse(match["name"], path.read_text(encoding="utf-8")))
    for name, dialects in halves.items():
        if len(dialects) != 2:
            raise BadFiles(f"{name} exists for {dialects.pop()} only")
    for place, migration in enumerate(found, start=1):
        if int(migration.name[:4]) != place:
            raise BadFiles(f"{migration.name} should have the number {place:04}")
    return found


def _parse(name: str, text: str) -> Migration:
    lines = text.splitlines()
    if lines.count("-- down") != 1:
        raise BadFiles(f"{name} needs exactly one line `-- down`")
    middle = lines.index("-- down")
    return Migration(
        name=name,
        up="\n".join(lines[:middle]),
        down="\n".join(lines[middle + 1 :]),
        # Of the lines: different line endings are no edit.
        checksum=hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        in_transaction="-- no-transaction" not in lines,
        needs_fts5="-- needs fts5" in lines,
    )


def _verify(migrations: list[Migration], recorded: dict[str, str]) -> list[str]:
    known = {migration.name: migration for migration in migrations}
    for name, checksum in recorded.items():
        if name not in known:
            raise NewerDatabase(f"the database has {name}, which this version of the code does not know")
        if known[name].checksum != checksum:
            raise EditedMigration(f"{name} was edited after it was applied; write a new migration instead")
    applied = sorted(recorded)
    if applied != [migration.name for migration in migrations[: len(applied)]]:
        raise MigrationError("the database has a later migration without an earlier one")
    return applied


_Plan = Callable[[list[Migration], list[str]], list[Migration]]


def _unapplied(migrations: list[Migration], applied: list[str]) -> list[Migration]:
    return migrations[len(applied) :]


async def _execute_plan(database_url: str, folder: Path, plan: _Plan, *, up: bool = True) -> list[str]:
    dialect = dialect_of(database_url)
    migrations = read(folder, dialect)
    if dialect == "sqlite":
        return await asyncio.to_thread(_run_sqlite, sqlite_path(database_url), migrations, plan, up)
    return await _run_postgres(database_url, migrations, plan, up)


# --- SQLite ----------------------------------------------------------------------------------------------------------


@contextmanager
def _sqlite(path: str) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, isolation_level=None, timeout=LOCK_WAIT_S)
    try:
        yield connection
    finally:
        connection.close()


def _sqlite_record(path: str) -> dict[str, str]:
    if not Path(path).exists():
        return {}
    with _sqlite(path) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'schema_migration'").fetchall():
            return {}
        return dict(connection.execute("SELECT name, checksum FROM schema_migration").fetchall())


def _run_sqlite(path: str, migrations: list[Migration], plan: _Plan, up: bool) -> list[str]:
    Path(path).absolute().parent.mkdir(parents=True, exist_ok=True)
    with _sqlite(path) as connection:
        # Before BEGIN: the pragma does nothing inside a transaction, and dropping a table would cascade.
        connection.execute("PRAGMA foreign_keys = OFF")
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                raise LockTimeout(f"another process wrote to the database for {LOCK_WAIT_S:.0f} s") from error
            raise
        try:
            connection.execute(_RECORD.format(type="TIMESTAMP"))
            recorded = dict(connection.execute("SELECT name, checksum FROM schema_migration").fetchall())
            steps = plan(migrations, _verify(migrations, recorded))
            for step in steps:
                if not step.needs_fts5 or _has_fts5(connection):
                    for statement in _sqlite_statements(step.up if up else step.down):
                        connection.execute(statement)
                if up:
                    now = datetime.now(UTC).isoformat(" ")
                    connection.execute("INSERT INTO schema_migration VALUES (?, ?, ?)", (step.name, step.checksum, now))
                else:
                    connection.execute("DELETE FROM schema_migration WHERE name = ?", (step.name,))
            if steps:
                broken = connection.execute("PRAGMA foreign_key_check").fetchall()
                if broken:
                    raise BrokenReferences(f"{len(broken)} rows, the first in table {broken[0][0]}")
            sqlite_statistics.fix(connection)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        _use_wal(connection)
    return [step.name for step in steps]


def _has_fts5(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT 1 FROM pragma_module_list WHERE name = 'fts5'").fetchall())


def _sqlite_statements(script: str) -> Iterator[str]:
    statement = ""
    for piece in re.split(r"(?<=;)", script):
        statement += piece
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if re.sub(r"--[^\n]*", "", statement).strip():
        raise BadFiles(f"a statement does not end: {statement.strip()[:80]!r}")


def _use_wal(connection: sqlite3.Connection) -> None:
    # SQLite does not wait for other connections here.
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


# --- PostgreSQL ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _connected(database_url: str) -> AsyncIterator[Any]:
    import asyncpg  # type: ignore[import-untyped]  # it ships no types; here on PostgreSQL only

    # The advisory lock belongs to the session, so connect directly, not through the pool.
    connection = await asyncpg.connect(**postgres_arguments(database_url), timeout=30)
    try:
        yield connection
    finally:
        await connection.close()


async def _postgres_record(connection: Any) -> dict[str, str]:
    if await connection.fetchval("SELECT to_regclass('schema_migration')") is None:
        return {}
    return dict(await connection.fetch("SELECT name, checksum FROM schema_migration"))


async def _run_postgres(database_url: str, migrations: list[Migration], plan: _Plan, up: bool) -> list[str]:
    async with _connected(database_url) as connection:
        deadline = time.monotonic() + LOCK_WAIT_S
        while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK_KEY):
            if time.monotonic() > deadline:
                raise LockTimeout(f"another process kept the migration lock for {LOCK_WAIT_S:.0f} s")
            await asyncio.sleep(0.05)
        steps = plan(migrations, _verify(migrations, await _postgres_record(connection)))
        if steps:
            await connection.execute(_RECORD.format(type="TIMESTAMPTZ"))
        for step in steps:
            if step.in_transaction:
                await _until_unlocked(step, partial(_apply, connection, step, up))
            else:
                await _apply_by_statement(connection, step, up)
        return [step.name for step in steps]  # closing the connection releases the lock


async def _apply(connection: Any, step: Migration, up: bool) -> None:
    await _limit_waits(connection, TABLE_LOCK_S)
    async with connection.transaction():
        await connection.execute(step.up if up else step.down)
        await _record(connection, step, up)


async def _apply_by_statement(connection: Any, step: Migration, up: bool) -> None:
    for statement in re.sub(r"--[^\n]*", "", step.up if up else step.down).split(";"):
        if "CONCURRENTLY" in statement.upper():
            await _limit_waits(connection, CONCURRENT_LOCK_S)
            await connection.execute(statement)
        elif statement.strip():
            await _limit_waits(connection, TABLE_LOCK_S)
            await _until_unlocked(step, partial(connection.execute, statement))
    await _record(connection, step, up)


async def _limit_waits(connection: Any, seconds: float) -> None:
    await connection.execute(f"SET lock_timeout = {round(seconds * 1000)}")


async def _until_unlocked(step: Migration, attempt: Callable[[], Awaitable[object]]) -> None:
    import asyncpg  # on PostgreSQL only

    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            await attempt()
            return
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
            if time.monotonic() > deadline:
                raise LockTimeout(
                    f"{step.name}: other sessions kept its tables locked for {LOCK_WAIT_S:.0f} s"
                ) from error
        await asyncio.sleep(PAUSE_S)


async def _record(connection: Any, step: Migration, up: bool) -> None:
    if up:
        now = datetime.now(UTC)
        await connection.execute("INSERT INTO schema_migration VALUES ($1, $2, $3)", step.name, step.checksum, now)
    else:
        await connection.execute("DELETE FROM schema_migration WHERE name = $1", step.name)
