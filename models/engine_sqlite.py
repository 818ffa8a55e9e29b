"""Tortoise's SQLite engine, corrected; see tests/models/test_engines.py."""

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, TypeVar

import aiosqlite
import structlog
from tortoise.backends.base.client import ConnectionWrapper, NestedTransactionContext, TransactionContext
from tortoise.backends.sqlite.client import (
    SqliteClient,
    SqliteTransactionContext,
    SqliteTransactionWrapper,
    translate_exceptions,
)
from tortoise.connection import ConnectionToken, get_connections
from tortoise.exceptions import BaseORMException, IntegrityError, OperationalError, TransactionManagementError

from models.database_url import Dialect
from models.storable import StorableTexts, texts

log = structlog.get_logger(__name__)

T = TypeVar("T")

# SQLite's own wait occupies the process's only connection: keep it short, and retry without holding the connection.
BUSY_MS: Final = 30
AGAIN_S: Final = (0.01, 0.04)
SAVEPOINT: Final = "inner_transaction"
STATEMENTS_KEPT: Final = 256  # prepared statements per connection


def utc_text(value: datetime) -> str:
    """UTC: texts sort as times."""
    return (value.astimezone(UTC) if value.tzinfo is not None else value).isoformat(" ")


# Replaces Tortoise's adapter, which keeps the value's own offset.
sqlite3.register_adapter(datetime, utc_text)


class SafeConnectionWrapper(ConnectionWrapper[aiosqlite.Connection]):
    """Releases its lock when the connection can't be opened."""

    async def __aenter__(self) -> aiosqlite.Connection:
        await self._lock.acquire()
        try:
            self.connection = self.client._connection
            await self.ensure_connection()
        except BaseException:
            self._lock.release()
            raise
        return self.connection


class ImmediateTransactionContext(SqliteTransactionContext):
    """Holds the connection's lock from BEGIN IMMEDIATE to the end of COMMIT."""

    __slots__ = ()

    async def __aenter__(self) -> "SafeTransaction":
        begun: SafeTransaction = await self.connection._parent.patiently(self._begin)
        return begun

    async def _begin(self) -> "SafeTransaction":
        await self._trxlock.acquire()
        token: ConnectionToken | None = None
        try:
            self.connection._connection = self.connection._parent._connection
            await self.ensure_connection()
            token = self.token = get_connections().set(self.connection_name, self.connection)
            await self.connection.begin()
        except BaseException:
            get_connections().reset(token)  # reset(None) does nothing
            self.connection._parent._undo(self.connection._connection)
            raise
        client: SafeTransaction = self.connection
        return client

    async def __aexit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        # Reset first: this task's next queries must not find the finished transaction.
        get_connections().reset(self.token)
        try:
            if not self.connection._finalized:
                if exc_type:
                    await self.connection.rollback()
                else:
                    await self.connection.commit()
        except BaseException:
            self.connection._parent._undo(self.connection._connection)
            raise
        self._trxlock.release()


class SafeTransaction(StorableTexts, SqliteTransactionWrapper):
    DIALECT: ClassVar[Dialect] = "sqlite"

    def _in_transaction(self) -> TransactionContext:
        return NestedTransactionContext(SafeTransaction(self))

    async def savepoint(self) -> None:
        # One name, so that the prepared statements are used again: the newest savepoint of a name is meant.
        self._savepoint = SAVEPOINT
        await self.records(f"SAVEPOINT {SAVEPOINT}", ())

    async def release_savepoint(self) -> None:
        await self.records(f"RELEASE {SAVEPOINT}", ())

    async def savepoint_rollback(self) -> None:
        # On the connection's thread, after a cancelled task's statement, which may still run.
        await super().savepoint_rollback()
        await self._connection.execute(f"RELEASE {SAVEPOINT}")

    async def begin(self) -> None:
        # A deferred transaction that reads, then writes, fails with "database is locked" if another process wrote in
        # between, whatever the busy timeout.
        try:
            await self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            raise TransactionManagementError(error) from error

    async def commit(self) -> None:
        try:
            await super().commit()
        except sqlite3.Error as error:
            # A failed COMMIT (deferred foreign key, full disk) leaves the transaction open on the shared connection.
            await self.rollback()
            if isinstance(error, sqlite3.IntegrityError):
                raise IntegrityError(error) from error
            raise OperationalError(error) from error

    @translate_exceptions
    async def execute_affected(self, query: str, values: Sequence[object]) -> int:
        return await _affected(self, query, texts(values))

    @translate_exceptions
    async def records(self, query: str, values: Sequence[object]) -> Sequence[Sequence[Any]]:
        """Run a short statement on the event loop's thread: a visit to the connection's own thread costs more.

        The transaction holds the connection, so no other statement uses it meanwhile.
        """
        found: list[Sequence[Any]] = self._connection._conn.execute(query, values).fetchall()
        return found


class SafeSqliteClient(StorableTexts, SqliteClient):
    DIALECT: ClassVar[Dialect] = "sqlite"

    def __init__(self, file_path: str, *, patience_ms: int = 4_000, **kwargs: Any) -> None:
        kwargs.setdefault("busy_timeout", BUSY_MS)
        super().__init__(file_path, **kwargs)
        self._patience_s = patience_ms / 1000
        # asyncio keeps only weak references to tasks: a garbage-collected clean-up would never release the lock.
        self._cleanups: set[asyncio.Task[None]] = set()
        self._reader: sqlite3.Connection | None = None

    def acquire_connection(self) -> SafeConnectionWrapper:
        return SafeConnectionWrapper(self._lock, self)

    async def patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """Repeat `work` while another process holds the file."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._patience_s
        while True:
            try:
                return await work()
            except (OperationalError, TransactionManagementError) as error:
                if not is_busy(error) or loop.time() >= until:
                    raise
            await asyncio.sleep(random.uniform(*AGAIN_S))  # noqa: S311 (jitter)

    async def execute_insert(self, query: str, values: Sequence[Any]) -> Any:
        return await self.patiently(lambda: super(SafeSqliteClient, self).execute_insert(query, values))

    async def execute_query(self, query: str, values: Sequence[Any] | None = None) -> Any:
        return await self.patiently(lambda: super(SafeSqliteClient, self).execute_query(query, values))

    async def execute_query_dict(self, query: str, values: Sequence[Any] | None = None) -> Any:
        return await self.patiently(lambda: super(SafeSqliteClient, self).execute_query_dict(query, values))

    def _in_transaction(self) -> TransactionContext:
        return ImmediateTransactionContext(SafeTransaction(self), self._lock)

    async def create_connection(self, with_db: bool) -> None:
        if self._connection is not None:
            return
        # `check_same_thread`: transactions run short statements on the event loop's thread.
        connection = aiosqlite.connect(
            self.filename, isolation_level=None, check_same_thread=False, cached_statements=STATEMENTS_KEPT
        )
        try:
            await connection
        except BaseException:
            # The thread reports its end to this event loop, which must not close before that.
            await asyncio.to_thread(connection._thread.join)
            raise
        try:
            connection._conn.row_factory = sqlite3.Row
            for pragma, value in self.pragmas.items():
                await connection.execute_fetchall(f"PRAGMA {pragma}={value}")
        except BaseException:
            # A connection without all pragmas would not enforce foreign keys.
            await connection.close()
            raise
        self._connection = connection
        await self._post_connect()

    async def close(self) -> None:
        while self._cleanups:
            await asyncio.wait(self._cleanups)
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        await super().close()

    def read_directly(self, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        """Run a short SELECT on the event loop's thread. Raises: OperationalError."""
        try:
            if self._reader is None:
                self._reader = self._open_reader()
            return self._reader.execute(query, values).fetchall()
        except sqlite3.OperationalError as error:
            raise OperationalError(error) from error

    def _open_reader(self) -> sqlite3.Connection:
        reader = sqlite3.connect(self.filename, isolation_level=None, cached_statements=STATEMENTS_KEPT)
        reader.execute("PRAGMA busy_timeout=0")  # never wait on this thread
        reader.execute("PRAGMA query_only=ON")
        return reader

    async def records(self, query: str, values: Sequence[object]) -> Sequence[Sequence[Any]]:
        _, found = await self.execute_query(query, values)
        return found  # type: ignore[no-any-return]  # Tortoise's clients are untyped

    def _undo(self, connection: aiosqlite.Connection | None) -> None:
        # Queued after the cancelled task's statement, which may still run.
        if connection is None:
            self._lock.release()
        else:
            task = asyncio.get_running_loop().create_task(_roll_back(connection))
            self._cleanups.add(task)
            task.add_done_callback(self._rolled_back)

    def _rolled_back(self, task: asyncio.Task[None]) -> None:
        self._cleanups.discard(task)
        self._lock.release()

    @translate_exceptions
    async def execute_many(self, query: str, values: list[list[Any]]) -> None:
        # Tortoise's rolls back on Exception only: cancelled, it leaves a transaction open for later writes.
        async with self._in_transaction() as transaction:
            await transaction.execute_many(query, values)

    async def execute_affected(self, query: str, values: Sequence[object]) -> int:
        """Rows changed, without triggers and cascades."""
        return await self.patiently(lambda: self._execute_affected(query, values))

    @translate_exceptions
    async def _execute_affected(self, query: str, values: Sequence[object]) -> int:
        return await _affected(self, query, texts(values))


def is_busy(error: BaseORMException) -> bool:
    driver = error.args[0] if error.args else None
    code = getattr(driver, "sqlite_errorcode", 0) if isinstance(driver, sqlite3.OperationalError) else 0
    return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


async def _roll_back(connection: aiosqlite.Connection) -> None:
    try:
        await connection.rollback()
    except (sqlite3.Error, ValueError):  # ValueError: the connection is closed
        log.exception("can't roll back a cancelled SQLite transaction")


async def _affected(client: SqliteClient, query: str, values: Sequence[object]) -> int:
    async with client.acquire_connection() as connection:
        raw: sqlite3.Connection = connection._conn

        def run() -> int:
            cursor = raw.execute(query, values)
            count = cursor.rowcount
            cursor.close()
            return max(count, 0)

        # One visit to the worker thread; aiosqlite's own methods take two.
        return int(await connection._execute(run))


client_class = SafeSqliteClient
