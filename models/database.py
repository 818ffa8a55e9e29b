"""The open database: transactions, raw SQL, disk space."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar, cast, overload
from uuid import UUID

import orjson
import structlog
from tortoise.backends.base.client import TransactionalDBClient
from tortoise.context import TortoiseContext, get_current_context
from tortoise.exceptions import OperationalError

from models.database_url import Dialect, dialect_of, postgres_arguments, sqlite_path
from models.engine_sqlite import SafeSqliteClient, is_busy, utc_text
from models.engine_sqlite import SafeTransaction as SqliteTransaction
from models.storable import StorableTexts, json_text, storable

if TYPE_CHECKING:  # asyncpg is loaded on PostgreSQL only
    from models.engine_postgres import SafePostgresClient
    from models.engine_postgres import SafeTransaction as PostgresTransaction

log = structlog.get_logger(__name__)

_T = TypeVar("_T")
_AnyClient: TypeAlias = "SafeSqliteClient | SqliteTransaction | SafePostgresClient | PostgresTransaction"

# One alias per engine: Tortoise caches INSERTs by alias and table, and one process may open both engines in turn.
_ALIASES: dict[Dialect, str] = {"sqlite": "sqlite", "postgres": "pg"}


CONNECT_S: Final = 10.0  # PostgreSQL: for a new connection

_SQLITE_PRAGMAS: Final = {
    "journal_mode": "WAL",
    "foreign_keys": "ON",
    "recursive_triggers": "ON",  # else REPLACE deletes rows without firing the triggers of append-only tables
}


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
    """Tortoise's configuration for a DATABASE_URL. Raises: InvalidDatabaseUrl.

    `lock_timeout_ms`: the wait for a row or file. `statement_cache_size`: 0 behind a transaction pooler.
    """
    dialect_name = dialect_of(database_url)
    alias = _ALIASES[dialect_name]
    credentials: dict[str, Any]
    if dialect_name == "sqlite":
        # Every key but these two is a pragma. WAL and foreign_keys repeat Tortoise's defaults.
        credentials = {"file_path": sqlite_path(database_url), "patience_ms": lock_timeout_ms}
        credentials |= _SQLITE_PRAGMAS | {"synchronous": synchronous}
    else:
        credentials = postgres_arguments(database_url)
        credentials["server_settings"] |= {
            "lock_timeout": str(lock_timeout_ms),
            "statement_timeout": str(int(command_timeout_s * 1000)),
            "idle_in_transaction_session_timeout": str(idle_in_transaction_timeout_ms),
            "jit": "off",  # compiling costs more than these short queries run
        }
        credentials |= {
            "minsize": pool_min,
            "maxsize": pool_max,
            "for_reads": max(1, pool_max * 3 // 10) if pool_max > 1 else 0,
            "timeout": CONNECT_S,
            "command_timeout": command_timeout_s
            + 1,  # the server's own limit ends a statement first, with a clearer error
            "statement_cache_size": statement_cache_size,
        }
    return {
        "connections": {alias: {"engine": f"models.engine_{dialect_name}", "credentials": credentials}},
        "apps": {"models": {"models": ["models.tables"], "default_connection": alias}},
        "use_tz": True,
        "timezone": "UTC",
    }


ASIDE_WITHIN_S = 5.0  # time limit of a statement of `execute_aside`


# --- opening ---------------------------------------------------------------------------------------------------------


@dataclass
class _Opened:
    url: str
    context: TortoiseContext
    loop: asyncio.AbstractEventLoop
    aside: "SafePostgresClient | None"
    users: int = 1


_opened: _Opened | None = None


@asynccontextmanager
async def open_database(database_url: str, **options: Any) -> AsyncIterator[None]:
    """Open the process's database. `options`: as `tortoise_config`. Raises: InvalidDatabaseUrl; RuntimeError (another database is open)."""
    global _opened
    loop = asyncio.get_running_loop()
    if _opened is not None:
        if _opened.url != database_url or _opened.loop is not loop:
            raise RuntimeError("another database is open in this process")
        opened = _opened
        opened.users += 1
    else:
        context = TortoiseContext()
        opened = _opened = _Opened(database_url, context, loop, _separate_client(database_url))
        try:
            with (
                context
            ):  # loading models needs a current context; requests run in other tasks and use the global fallback
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
            # An open aiosqlite connection has a thread that keeps the process alive.
            _opened = None
            await opened.context.close_connections()
            if opened.aside is not None:
                await opened.aside.close()


def _separate_client(database_url: str) -> "SafePostgresClient | None":
    # A heartbeat must not wait for the pool.
    if dialect_of(database_url) == "sqlite":
        return None
    from models.engine_postgres import SafePostgresClient

    config = tortoise_config(database_url, pool_min=0, pool_max=1, command_timeout_s=ASIDE_WITHIN_S)
    (connection,) = config["connections"].values()
    return SafePostgresClient(connection_name="aside", **connection["credentials"])


def _client() -> _AnyClient:
    context = get_current_context()
    if context is None or context.default_connection is None:
        raise RuntimeError("no database is open: use models.database.open_database")
    client = context.connections.get(context.default_connection)
    if not isinstance(client, StorableTexts):
        raise RuntimeError("the open database does not use the engine modules of models/")
    return cast("_AnyClient", client)


def dialect() -> Dialect:
    return _client().DIALECT


# --- transactions ----------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Frame:
    callbacks: list[Callable[[], None]] = field(default_factory=list)
    over: bool = False


_frame: ContextVar[_Frame | None] = ContextVar("paythread_transaction", default=None)


@asynccontextmanager
async def transaction() -> AsyncIterator[None]:
    """Open a transaction or savepoint. Never wait for the network inside: SQLite takes its write lock immediately.

    A connection lost during COMMIT may have committed, without its callbacks: repeat only with a key.
    """
    outer = _frame.get()
    if outer is not None and outer.over:
        raise RuntimeError("this task outlived the transaction that started it")
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
        _run_callback(callback)


def in_transaction() -> bool:
    frame = _frame.get()
    return frame is not None and not frame.over


def after_commit(fn: Callable[[], None]) -> None:
    """Run `fn` after the outermost commit, never after a rollback, immediately outside transactions. Its exceptions are logged."""
    frame = _frame.get()
    if frame is None:
        if isinstance(_client(), TransactionalDBClient):
            raise RuntimeError("after_commit inside a transaction that models.database.transaction did not open")
        _run_callback(fn)
    elif frame.over:
        raise RuntimeError("this task outlived the transaction that started it")
    else:
        frame.callbacks.append(fn)


def _run_callback(callback: Callable[[], None]) -> None:
    try:
        callback()
    except Exception:
        log.exception("after-commit work failed")


# --- raw SQL ---------------------------------------------------------------------------------------------------------

_PLACEHOLDER = re.compile(r"""'(?:[^']|'')*'|"[^"]*"|--[^\n]*|\?""")


@lru_cache(maxsize=1024)
def _with_numbered_placeholders(sql: str) -> str:
    count = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal count
        if match[0] != "?":
            return match[0]
        count += 1
        return f"${count}"

    return _PLACEHOLDER.sub(replace, sql)


def _json_or_same(value: object) -> object:
    return json_text(value) if isinstance(value, dict | list) else value


def _sqlite_other(value: object) -> object:
    if isinstance(value, Enum):
        return _sqlite_value(value.value)
    if isinstance(value, datetime):
        return utc_text(value)
    return _json_or_same(value)


# By exact type: most parameters are of these.
_SQLITE: Final[dict[type, Callable[[Any], object] | None]] = {
    str: storable,
    int: None,
    float: None,
    bytes: None,
    type(None): None,
    bool: int,
    UUID: str,
    Decimal: str,
    datetime: utc_text,
    dict: json_text,
    list: json_text,
}


def _sqlite_value(value: object) -> object:
    convert = _SQLITE.get(type(value), _sqlite_other)
    return value if convert is None else convert(value)


def _postgres_value(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    return storable(value) if type(value) is str else _json_or_same(value)


def _prepare(client: _AnyClient, sql: str, args: tuple[object, ...]) -> tuple[str, list[object]]:
    if client.DIALECT == "sqlite":
        return sql, [
            value if (convert := _SQLITE.get(type(value), _sqlite_other)) is None else convert(value) for value in args
        ]
    return _with_numbered_placeholders(sql), [_postgres_value(value) for value in args]


async def rows(sql: str, *args: object) -> list[dict[str, Any]]:
    """Fetch rows; the placeholder is `?`. Convert values with `to_uuid`, `to_time`, `to_bool` and `to_json`."""
    client = _client()
    query, values = _prepare(client, sql, args)
    found: list[dict[str, Any]] = await client.execute_query_dict(query, values)
    return found


def reads_directly() -> bool:
    """Whether `records` reads on the event loop's thread."""
    return isinstance(_client(), SafeSqliteClient)


async def records(sql: str, *args: object) -> Sequence[Sequence[Any]]:
    """Run a short statement by index, for hot paths; return its rows, or those of RETURNING, with columns by position.

    On SQLite it runs on the event loop's thread, except a change outside transactions.
    """
    client = _client()
    query, values = _prepare(client, sql, args)
    if type(client) is SafeSqliteClient and not query.startswith(("INSERT", "UPDATE", "DELETE")):
        try:
            return client.read_directly(query, values)
        except OperationalError as error:
            if not is_busy(error):
                raise  # else wait below, off the event loop's thread
    found: Sequence[Sequence[Any]] = await client.records(query, values)
    return found


async def scanned_records(sql: str, *args: object) -> Sequence[Sequence[Any]]:
    """As `records`, for a SELECT that may look at many rows: never on the event loop's thread."""
    client = _client()
    query, values = _prepare(client, sql, args)
    found: Sequence[Sequence[Any]] = await client.records(query, values)
    return found


Statement = tuple[str, Sequence[object]]  # SQL and its arguments


async def records_together(*queries: Statement) -> list[Sequence[Sequence[Any]]]:
    """The rows of several short SELECTs, as `records`. One round trip on PostgreSQL: times and ids come as texts."""
    if dialect() == "sqlite" or len(queries) == 1:
        return [await records(sql, *args) for sql, args in queries]
    args = [value for _, values in queries for value in values]
    (found,) = await records(_selects_in_one(tuple(sql for sql, _ in queries)), *args)
    return [[tuple(row.values()) for row in orjson.loads(text or "[]")] for text in found]


@lru_cache(maxsize=256)
def _selects_in_one(queries: tuple[str, ...]) -> str:
    # The names of one SELECT must differ: the rows come as JSON objects, whose members keep their order.
    return "SELECT " + ", ".join(f"(SELECT json_agg(q) FROM ({sql}) q)" for sql in queries)  # noqa: S608 (only constants are put in)


async def write_together(*statements: Statement) -> None:
    """Run short changes of different rows, in one round trip on PostgreSQL: none sees another's effect."""
    if dialect() == "sqlite" or len(statements) == 1:
        for sql, args in statements:
            await records(sql, *args)
    elif statements:
        args = [value for _, values in statements for value in values]
        await records(_changes_in_one(tuple(sql for sql, _ in statements)), *args)


@lru_cache(maxsize=256)
def _changes_in_one(statements: tuple[str, ...]) -> str:
    return "WITH " + ", ".join(f"w{n} AS ({sql})" for n, sql in enumerate(statements)) + " SELECT 1"


def row_lock() -> str:
    """The end of a SELECT that locks its rows. SQLite has one writer.

    `NO KEY`, as for every referenced row: two transactions that hold a foreign key's shared lock and want the full one deadlock.
    """
    return "" if dialect() == "sqlite" else " FOR NO KEY UPDATE"


async def execute(sql: str, *args: object) -> int:
    """Return the number of rows changed."""
    client = _client()
    query, values = _prepare(client, sql, args)
    count: int = await client.execute_affected(query, values)
    return count


async def execute_aside(sql: str, *args: object) -> int:
    """Run a short statement outside every transaction."""
    if _opened is None or _opened.aside is None:
        return await execute(sql, *args)
    query, values = _prepare(_opened.aside, sql, args)
    count: int = await _opened.aside.execute_affected(query, values)
    return count


# An account's condition beside ids. No index serves it on SQLite, which may otherwise read the whole account instead of the ids.
OF_ACCOUNT: Final = "(account_id = ?) = TRUE"


def placeholders(count: int) -> str:
    if count < 1:
        raise ValueError("an empty IN list: skip the query")
    return ", ".join(["?"] * count)


def among(column: str, ids: Sequence[object]) -> tuple[str, object]:
    """A condition that `column` is one of any number of ids, and its one value: the statement's text stays the same."""
    if dialect() == "sqlite":
        return f"{column} IN (SELECT value FROM json_each(?))", [id if isinstance(id, int) else str(id) for id in ids]  # noqa: S608 (only constants are put in)
    return f"{column} = ANY(?)", tuple(ids)


@overload
def to_uuid(value: None) -> None: ...
@overload
def to_uuid(value: object) -> UUID: ...
def to_uuid(value: Any) -> UUID | None:
    return value if value is None or isinstance(value, UUID) else UUID(value)


@overload
def to_time(value: None) -> None: ...
@overload
def to_time(value: object) -> datetime: ...
def to_time(value: Any) -> datetime | None:
    return value if value is None or isinstance(value, datetime) else datetime.fromisoformat(value)


@overload
def to_bool(value: None) -> None: ...
@overload
def to_bool(value: object) -> bool: ...
def to_bool(value: Any) -> bool | None:
    return None if value is None else bool(value)


def to_json(value: Any) -> Any:
    return orjson.loads(value) if isinstance(value, str | bytes) else value


# --- the disk --------------------------------------------------------------------------------------------------------


async def try_write() -> None:
    """Raises if the database can't store a small change."""
    await execute(
        "INSERT INTO tick (name, every_ms, next_at) VALUES ('probe', 1, ?)"
        " ON CONFLICT (name) DO UPDATE SET next_at = excluded.next_at",
        datetime.now(UTC),
    )
    if dialect() == "sqlite":
        return
    try:
        # A small change may fit into an existing page; a new table needs new pages.
        await execute(
            "CREATE TEMP TABLE probe ON COMMIT DROP AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 64)"
        )
    except OperationalError as error:
        import asyncpg  # type: ignore[import-untyped]  # it ships no types; here on PostgreSQL only

        if not isinstance(
            error.__cause__, asyncpg.InsufficientPrivilegeError
        ):  # this role may not create temporary tables
            raise


def free_bytes() -> int | None:
    """Free disk space; None on PostgreSQL."""
    if _opened is None or dialect_of(_opened.url) != "sqlite":
        return None
    return shutil.disk_usage(Path(sqlite_path(_opened.url)).parent).free
