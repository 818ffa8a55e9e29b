"""The open database: configuration, opening, transactions with after-commit work, raw SQL that both engines take.

It ends at rows and statements: what they mean is the business of the modules beside it and of services.
"""

import asyncio
import logging
import random
import re
import shutil
import socket
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, overload
from urllib.parse import parse_qsl, unquote, urlsplit
from uuid import UUID

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import orjson
from tortoise.backends.base.client import TransactionalDBClient
from tortoise.context import TortoiseContext, get_current_context
from tortoise.exceptions import BaseORMException, DBConnectionError, OperationalError

from models.engine_postgres import SafePostgresClient
from models.engine_postgres import SafeTransaction as PostgresTransaction
from models.engine_sqlite import SafeSqliteClient, utc_text
from models.engine_sqlite import SafeTransaction as SqliteTransaction
from models.storable import json_text

log = logging.getLogger(__name__)

Dialect = Literal["sqlite", "postgres"]
_T = TypeVar("_T")
_AnyClient = SafeSqliteClient | SqliteTransaction | SafePostgresClient | PostgresTransaction

# One alias per engine: Tortoise caches its INSERTs by alias and table, and both engines may be open in one process's life.
_ALIASES: dict[Dialect, str] = {"sqlite": "sqlite", "postgres": "pg"}


CONNECT_S: Final = 10.0  # PostgreSQL: until a new connection is given up


class InvalidDatabaseUrl(ValueError):
    """DATABASE_URL cannot be understood; the message says what is wrong and never contains the URL (it has a password)."""


# --- configuration ---------------------------------------------------------------------------------------------------


def dialect_of(database_url: str) -> Dialect:
    """Which engine a URL names. Raises: InvalidDatabaseUrl."""
    scheme = database_url.partition("://")[0].lower()
    if scheme == "sqlite":
        return "sqlite"
    if scheme in ("postgres", "postgresql"):
        return "postgres"
    raise InvalidDatabaseUrl("DATABASE_URL must begin with sqlite:/// or postgres://")


def sqlite_path(database_url: str) -> str:
    """The file of `sqlite:///relative.db` or `sqlite:////absolute.db`. Raises: InvalidDatabaseUrl."""
    parts = urlsplit(database_url)
    path = unquote(parts.path)
    if parts.netloc or not path.startswith("/") or len(path) < 2:
        raise InvalidDatabaseUrl("SQLite: three slashes and a relative path, or four for an absolute one")
    return path[1:]


def postgres_arguments(database_url: str) -> dict[str, Any]:
    """What `asyncpg.connect` needs for the URL: host (or the folder of a Unix socket), port, user, password, database, ssl.

    Query keys: host, ssl (or its libpq name sslmode), application_name. Raises: InvalidDatabaseUrl.
    """
    parts = urlsplit(database_url)
    query = dict(parse_qsl(parts.query))
    arguments: dict[str, Any] = {}
    try:
        port = parts.port
    except ValueError:
        raise InvalidDatabaseUrl("PostgreSQL: the port is not a number") from None
    database = unquote(parts.path.removeprefix("/"))
    if not database:
        raise InvalidDatabaseUrl("PostgreSQL: the name of the database is missing")
    arguments["host"] = query.pop("host", None) or parts.hostname or "localhost"
    arguments["port"] = port or 5432
    arguments["user"] = unquote(parts.username) if parts.username else None
    arguments["password"] = unquote(parts.password) if parts.password else None
    arguments["database"] = database
    ssl = query.pop("ssl", None) or query.pop("sslmode", None)
    if ssl is not None:
        if ssl not in ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"):
            raise InvalidDatabaseUrl("PostgreSQL: ssl is disable, allow, prefer, require, verify-ca or verify-full")
        arguments["ssl"] = ssl
    name = query.pop("application_name", "paythread")
    arguments["server_settings"] = {"application_name": name}
    if query:
        raise InvalidDatabaseUrl(f"PostgreSQL: unknown parameter {sorted(query)[0]!r} in DATABASE_URL")
    return arguments


def tortoise_config(
    database_url: str,
    *,
    synchronous: Literal["FULL", "NORMAL", "OFF"] = "FULL",
    pool_min: int = 1,
    pool_max: int = 10,
    command_timeout_s: float = 30,
    lock_timeout_ms: int = 4_000,
    idle_in_transaction_timeout_ms: int = 60_000,
    statement_cache_size: int = 100,
) -> dict[str, Any]:
    """Tortoise's configuration for a DATABASE_URL, always with our engine modules.

    `lock_timeout_ms`: how long a statement waits for a row that another session holds; on SQLite, for the file.
    `synchronous` is SQLite's: FULL keeps every acknowledged commit over a power failure, OFF is for tests.
    `statement_cache_size` must be 0 behind a transaction pooler. Raises: InvalidDatabaseUrl.
    """
    dialect_name = dialect_of(database_url)
    alias = _ALIASES[dialect_name]
    credentials: dict[str, Any]
    if dialect_name == "sqlite":
        engine = "models.engine_sqlite"
        # Every key beside file_path becomes a pragma; WAL and foreign_keys are Tortoise's defaults, said here to be sure.
        credentials = {
            "file_path": sqlite_path(database_url),
            "patience_ms": lock_timeout_ms,
            "journal_mode": "WAL",
            "foreign_keys": "ON",
            "recursive_triggers": "ON",  # else REPLACE deletes rows without asking the triggers of what is append-only
            "synchronous": synchronous,
        }
    else:
        engine = "models.engine_postgres"
        credentials = postgres_arguments(database_url)
        credentials["server_settings"] |= {
            "lock_timeout": str(lock_timeout_ms),
            "statement_timeout": str(int(command_timeout_s * 1000)),
            "idle_in_transaction_session_timeout": str(idle_in_transaction_timeout_ms),
            "jit": "off",  # compiling costs more than our short queries run
        }
        credentials |= {
            "minsize": pool_min,
            "maxsize": pool_max,
            "for_reads": max(1, pool_max * 3 // 10) if pool_max > 1 else 0,
            "timeout": CONNECT_S,
            "command_timeout": command_timeout_s + 1,  # the server's own limit answers first, and more clearly
            "statement_cache_size": statement_cache_size,
        }
    return {
        "connections": {alias: {"engine": engine, "credentials": credentials}},
        "apps": {"models": {"models": ["models.tables"], "default_connection": alias}},
        "use_tz": True,
        "timezone": "UTC",
    }


ASIDE_WITHIN_S = 5.0  # a statement of `execute_aside` that takes longer fails


# --- opening ---------------------------------------------------------------------------------------------------------


@dataclass
class _Opened:
    url: str
    context: TortoiseContext
    loop: asyncio.AbstractEventLoop
    aside: SafePostgresClient | None
    users: int = 1


_opened: _Opened | None = None


@asynccontextmanager
async def open_database(database_url: str, **options: Any) -> AsyncIterator[None]:
    """Open the process's database, connect at once, close at the end; `options` are those of `tortoise_config`.

    It is visible to every task of the event loop: Tortoise's context variable would not reach requests, which run in
    other tasks than the lifespan. Opened again with the same URL (a test and the application under test) it is shared.
    Raises: InvalidDatabaseUrl; RuntimeError when another database is open; the engine's error when it can't connect.
    """
    global _opened
    loop = asyncio.get_running_loop()
    if _opened is not None:
        if _opened.url != database_url or _opened.loop is not loop:
            raise RuntimeError("another database is open in this process")
        opened = _opened
        opened.users += 1
    else:
        context = TortoiseContext()
        opened = _opened = _Opened(database_url, context, loop, _aside(database_url))
        try:
            with context:  # loading the models asks for the current context; afterwards the global one serves all tasks
                await context.init(config=tortoise_config(database_url, **options), _enable_global_fallback=True)
            await _client().execute_query("SELECT 1")
        except BaseException:
            _opened = None
            await context.close_connections()
            raise
    try:
        yield
    finally:
        opened.users -= 1
        if opened.users == 0:
            # aiosqlite's thread keeps a process alive whose connection was not closed.
            _opened = None
            await opened.context.close_connections()
            if opened.aside is not None:
                await opened.aside.close()


def _aside(database_url: str) -> SafePostgresClient | None:
    """The client of `execute_aside`: one connection, made at the first use. SQLite has one connection for everything."""
    if dialect_of(database_url) == "sqlite":
        return None
    config = tortoise_config(database_url, pool_min=0, pool_max=1, command_timeout_s=ASIDE_WITHIN_S)
    (connection,) = config["connections"].values()
    return SafePostgresClient(connection_name="aside", **connection["credentials"])


def _client() -> _AnyClient:
    """The client of the running task: the transaction's inside one, else the connection's or the pool's."""
    context = get_current_context()
    if context is None or context.default_connection is None:
        raise RuntimeError("no database is open: use models.database.open_database")
    client = context.connections.get(context.default_connection)
    if not isinstance(client, _AnyClient):
        raise RuntimeError("the open database does not use our engine modules")
    return client


def dialect() -> Dialect:
    """The engine of the open database."""
    return "sqlite" if isinstance(_client(), SafeSqliteClient | SqliteTransaction) else "postgres"


# --- transactions ----------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Frame:
    callbacks: list[Callable[[], None]] = field(default_factory=list)
    over: bool = False


_frame: ContextVar[_Frame | None] = ContextVar("paythread_transaction", default=None)


@asynccontextmanager
async def transaction() -> AsyncIterator[None]:
    """One transaction; inside another one a savepoint. Any exception rolls it back.

    SQLite takes the only write lock at once and has one connection per process: never open one only to read, never wait
    for the network inside. Cancelled or disconnected during COMMIT, the change may have been committed: repeat only with
    a key. Its after-commit work is then left out, which is why that work may only ever be a hint.
    """
    outer = _frame.get()
    if outer is not None and outer.over:
        raise RuntimeError("this task outlived the transaction in which it was started")
    frame = _Frame()
    token = _frame.set(frame)
    try:
        async with _client()._in_transaction():
            yield
    finally:
        frame.over = True
        _frame.reset(token)
    if outer is not None:
        outer.callbacks += frame.callbacks
        return
    for callback in frame.callbacks:
        _run(callback)


def in_transaction() -> bool:
    """Whether the running task is inside `transaction()`."""
    frame = _frame.get()
    return frame is not None and not frame.over


def after_commit(fn: Callable[[], None]) -> None:
    """Run `fn` after the outermost transaction has committed, in order of registration; at once when none is open.

    Never runs when that transaction, or the savepoint in which it was registered, rolls back. What `fn` raises is logged:
    the change is committed, and a failed hint must not look like a failed change.
    """
    frame = _frame.get()
    if frame is None:
        if isinstance(_client(), TransactionalDBClient):
            raise RuntimeError("after_commit inside a transaction that models.database.transaction did not open")
        _run(fn)
    elif frame.over:
        raise RuntimeError("this task outlived the transaction in which it was started")
    else:
        frame.callbacks.append(fn)


def _run(callback: Callable[[], None]) -> None:
    try:
        callback()
    except Exception:
        log.exception("after-commit work failed")


# --- raw SQL ---------------------------------------------------------------------------------------------------------

_PLACEHOLDER = re.compile(r"""'(?:[^']|'')*'|"[^"]*"|--[^\n]*|\?""")


@lru_cache(maxsize=1024)
def _numbered(sql: str) -> str:
    """`?` to $1, $2, … outside of literals, quoted names and comments."""
    count = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal count
        if match[0] != "?":
            return match[0]
        count += 1
        return f"${count}"

    return _PLACEHOLDER.sub(replace, sql)


_PLAIN = frozenset({str, int, float, bytes, type(None)})


def _sqlite_value(value: object) -> object:
    """As Tortoise's fields write it, so that raw rows and instances agree."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, Enum):
        return _sqlite_value(value.value)
    if isinstance(value, UUID | Decimal):
        return str(value)
    if isinstance(value, datetime):
        return utc_text(value)
    if isinstance(value, dict | list):
        return json_text(value)
    return value


def _postgres_value(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict | list):
        return json_text(value)
    return value


def _prepare(client: _AnyClient, sql: str, args: tuple[object, ...]) -> tuple[str, list[object]]:
    if isinstance(client, SafeSqliteClient | SqliteTransaction):
        return sql, [_sqlite_value(value) for value in args]
    return _numbered(sql), [_postgres_value(value) for value in args]


async def rows(sql: str, *args: object) -> list[dict[str, Any]]:
    """The rows of a SELECT, or of a statement with RETURNING; `?` is a placeholder on both engines.

    Arguments may be UUID, aware datetime, Decimal, bool, Enum, and dict or list for JSON columns. Values come back as
    the engine gives them: read UUIDs, times, booleans and JSON through `to_uuid`, `to_time`, `to_bool`, `to_json`.
    """
    client = _client()
    query, values = _prepare(client, sql, args)
    found: list[dict[str, Any]] = await client.execute_query_dict(query, values)
    return found


async def execute(sql: str, *args: object) -> int:
    """Run one statement as `rows` does; the number of rows that it inserted, changed or deleted itself."""
    client = _client()
    query, values = _prepare(client, sql, args)
    count: int = await client.execute_affected(query, values)
    return count


async def execute_aside(sql: str, *args: object) -> int:
    """Run one short statement as `execute` does, outside of every transaction.

    On PostgreSQL it has a connection of its own: a heartbeat must not wait until a pool whose connections all wait for locks
    has one free.
    """
    if _opened is None or _opened.aside is None:
        return await execute(sql, *args)
    query, values = _prepare(_opened.aside, sql, args)
    count: int = await _opened.aside.execute_affected(query, values)
    return count


def placeholders(count: int) -> str:
    """`?, ?, ?` for an IN list of `count` > 0 values."""
    if count < 1:
        raise ValueError("an empty IN list: answer without the database")
    return ", ".join(["?"] * count)


@overload
def to_uuid(value: None) -> None: ...
@overload
def to_uuid(value: object) -> UUID: ...
def to_uuid(value: Any) -> UUID | None:
    """A raw UUID column: text on SQLite."""
    return value if value is None or isinstance(value, UUID) else UUID(value)


@overload
def to_time(value: None) -> None: ...
@overload
def to_time(value: object) -> datetime: ...
def to_time(value: Any) -> datetime | None:
    """A raw time column, aware and UTC: text on SQLite."""
    return value if value is None or isinstance(value, datetime) else datetime.fromisoformat(value)


@overload
def to_bool(value: None) -> None: ...
@overload
def to_bool(value: object) -> bool: ...
def to_bool(value: Any) -> bool | None:
    """A raw boolean column: 0 or 1 on SQLite."""
    return None if value is None else bool(value)


def to_json(value: Any) -> Any:
    """A raw JSON column: text on both engines."""
    return orjson.loads(value) if isinstance(value, str | bytes) else value


# --- errors ----------------------------------------------------------------------------------------------------------

_TRANSIENT = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.InsufficientResourcesError,  # disk full, out of memory, too many connections
    asyncpg.PostgresSystemError,  # the server can't read or write its files
    asyncpg.OperatorInterventionError,  # shut down, restarted, starting up
    asyncpg.PostgresConnectionError,
    asyncpg.ReadOnlySQLTransactionError,  # a standby, during a failover
    asyncpg.TransactionTimeoutError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InternalClientError,  # how asyncpg answers on a connection whose end it has read, but not yet handled
    DBConnectionError,
    ConnectionError,
    TimeoutError,
    socket.gaierror,
)
# A full disk is mounted read-only by some systems, and shows as READONLY, IOERR or CANTOPEN (the files beside the database).
_TRANSIENT_SQLITE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOMEM,
    }
)


async def until_taken(work: Callable[[], Awaitable[_T]]) -> _T:
    """Run `work`, again while the database fails for the moment (a lock, a restart), for as long as that lasts.

    For what must not get lost because it can't be found out again. A key has to make a second run harmless.
    """
    delay_s = 0.1
    while True:
        try:
            return await work()
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("the database does not take a change; it is repeated", extra={"error": type(error).__name__})
        await asyncio.sleep(delay_s * random.uniform(0.75, 1.25))  # noqa: S311 (jitter)
        delay_s = min(2 * delay_s, 5.0)


_LOCKED_SQLITE = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


_DATABASE = (BaseORMException, asyncpg.PostgresError, asyncpg.InterfaceError, sqlite3.Error, OSError)


def is_transient(error: BaseException) -> bool:
    """Whether the same work may succeed when repeated: lock, time-out, deadlock, lost connection, busy file, full disk.

    A connection lost at COMMIT may have committed: repeat only what a key protects.
    """
    for seen in _chain(error):
        if isinstance(seen, _TRANSIENT):
            return True
        if isinstance(seen, asyncpg.InterfaceError) and re.search("clos(ed|ing)", str(seen)):
            return True
        if isinstance(seen, sqlite3.OperationalError):
            return _sqlite_code(seen) in _TRANSIENT_SQLITE
    return False


def is_locked(error: BaseException) -> bool:
    """Whether another session held the row or the file for too long."""
    return any(
        isinstance(seen, asyncpg.LockNotAvailableError)
        or (isinstance(seen, sqlite3.OperationalError) and _sqlite_code(seen) in _LOCKED_SQLITE)
        for seen in _chain(error)
    )


def is_full(error: BaseException) -> bool:
    """Whether the disk has no space left."""
    return any(
        isinstance(seen, asyncpg.DiskFullError)
        or (isinstance(seen, sqlite3.OperationalError) and _sqlite_code(seen) == sqlite3.SQLITE_FULL)
        for seen in _chain(error)
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        # Tortoise wraps the driver's error as its first argument, not always as the cause.
        inner = seen.args[0] if isinstance(seen, BaseORMException) and seen.args else None
        # An error of ours, such as a vendor's silence, is what it says, whatever caused it.
        cause = seen.__cause__ if isinstance(seen, _DATABASE) else None
        seen = inner if isinstance(inner, BaseException) else cause


def _sqlite_code(error: sqlite3.OperationalError) -> int:
    """The primary code, which extended ones carry in the low byte. Python's own messages have none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


# --- the disk --------------------------------------------------------------------------------------------------------


async def try_write() -> None:
    """Commit a small change that needs space on the disk. Raises: what a real one would."""
    await execute(
        "INSERT INTO tick (name, every_ms, next_at) VALUES ('probe', 1, ?)"
        " ON CONFLICT (name) DO UPDATE SET next_at = excluded.next_at",
        datetime.now(UTC),
    )
    if dialect() == "sqlite":
        return
    try:
        # A small change fits into a page that is there already; a new table needs pages of its own.
        await execute(
            "CREATE TEMP TABLE probe ON COMMIT DROP AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 64)"
        )
    except OperationalError as error:
        if not isinstance(error.__cause__, asyncpg.InsufficientPrivilegeError):  # this role may make none
            raise


def free_bytes() -> int | None:
    """The space left on the disk of the SQLite file; None on PostgreSQL, whose disk is elsewhere."""
    if _opened is None or dialect_of(_opened.url) != "sqlite":
        return None
    return shutil.disk_usage(Path(sqlite_path(_opened.url)).parent).free
