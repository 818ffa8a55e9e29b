"""Tortoise's asyncpg engine, corrected; see tests/models/test_engines.py."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Final

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import structlog
from tortoise.backends.asyncpg.client import AsyncpgDBClient, TransactionWrapper
from tortoise.backends.base.client import (
    NestedTransactionContext,
    PoolConnectionWrapper,
    TransactionalDBClient,
    TransactionContext,
    TransactionContextPooled,
)
from tortoise.backends.base_postgres.client import translate_exceptions
from tortoise.connection import get_connections
from tortoise.exceptions import DBConnectionError

from models.database_url import Dialect
from models.storable import StorableTexts, texts

log = structlog.get_logger(__name__)

WAIT_S: Final = 15.0  # for a connection of the pool

# asyncio keeps only weak references to tasks: a garbage-collected release would lose its connection.
_cleanups: set[asyncio.Task[None]] = set()


class PlainConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg ships no types
    """Not reset on release. Leave no session state: no SET, LISTEN or advisory lock outside a transaction."""

    def get_reset_query(self) -> str:
        return ""


class SafeConnectionWrapper(PoolConnectionWrapper[Any]):
    """A pooled connection for one statement, with a limited wait."""

    __slots__ = ()

    async def __aenter__(self) -> Any:
        await self.ensure_connection()
        self.connection = await _acquire_within_limit(self.client._pool)
        return self.connection


async def _acquire_within_limit(pool: Any) -> Any:
    try:
        return await pool.acquire(timeout=WAIT_S)
    except OSError as error:  # refused, unknown host, no socket, TimeoutError
        raise DBConnectionError("no connection to the database") from error


async def _release(client: "SafePostgresClient", pool: Any, connection: Any) -> None:
    try:
        await pool.release(connection)
    except (asyncpg.InterfaceError, asyncpg.PostgresError, OSError):  # lost, or the pool is closed
        log.exception("can't release a PostgreSQL connection")
    finally:
        client.writers.release()


class SafeTransactionContext(TransactionContextPooled):
    """One pooled connection from BEGIN to the end of COMMIT."""

    __slots__ = ()

    async def __aenter__(self) -> TransactionalDBClient:
        await self.ensure_connection()
        parent: Any = self.client._parent
        pool = parent._pool
        await parent.wait_to_write()
        try:
            connection = await _acquire_within_limit(pool)
        except BaseException:
            parent.writers.release()
            raise
        self.client._connection = connection
        self.token = get_connections().set(self.connection_name, self.client)
        try:
            await self.client.begin()
        except BaseException:
            get_connections().reset(self.token)
            task = asyncio.get_running_loop().create_task(_release(parent, pool, connection))
            _cleanups.add(task)
            task.add_done_callback(_cleanups.discard)
            raise
        return self.client

    async def __aexit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        client = self.client
        connection = client._connection
        try:
            if not client._finalized:
                if exc_type is None:
                    await client.commit()
                elif not connection.is_closed():  # lost: nothing to roll back, and the first error says more
                    await client.rollback()
        finally:
            # Reset first: a timeout may fire during the release, and the task continues.
            get_connections().reset(self.token)
            parent: Any = client._parent
            try:
                if parent._pool is not None:
                    await parent._pool.release(connection)
            finally:
                parent.writers.release()


class SafeTransaction(StorableTexts, TransactionWrapper):
    DIALECT: ClassVar[Dialect] = "postgres"

    def _in_transaction(self) -> TransactionContext:
        return NestedTransactionContext(SafeTransaction(self))

    @translate_exceptions
    async def commit(self) -> None:
        # Tortoise's commit lets a deferred constraint's error through as a raw asyncpg error.
        await super().commit()

    @translate_exceptions
    async def execute_affected(self, query: str, values: Sequence[object]) -> int:
        return await _affected(self, query, texts(values))

    @translate_exceptions
    async def records(self, query: str, values: Sequence[object]) -> Sequence[Sequence[Any]]:
        found: Sequence[Sequence[Any]] = await self._connection.fetch(query, *values)
        return found


class SafePostgresClient(StorableTexts, AsyncpgDBClient):
    """Writes use at most `maxsize - for_reads` connections, so that reads continue while writers wait."""

    DIALECT: ClassVar[Dialect] = "postgres"
    connection_class = PlainConnection

    def __init__(self, *args: Any, for_reads: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.writers = asyncio.Semaphore(max(1, self.pool_maxsize - for_reads))

    def acquire_connection(self) -> SafeConnectionWrapper:
        return SafeConnectionWrapper(self, self._pool_init_lock)

    def _in_transaction(self) -> TransactionContext:
        return SafeTransactionContext(SafeTransaction(self), self._pool_init_lock)

    async def wait_to_write(self) -> None:
        """Raises: DBConnectionError after WAIT_S."""
        try:
            async with asyncio.timeout(WAIT_S):
                await self.writers.acquire()
        except TimeoutError as error:
            raise DBConnectionError("all connections for writes are busy") from error

    @asynccontextmanager
    async def _writing(self, query: str) -> AsyncIterator[None]:
        if query.lstrip()[:6].upper() == "SELECT":
            yield
            return
        await self.wait_to_write()
        try:
            yield
        finally:
            self.writers.release()

    async def execute_insert(self, query: str, values: Sequence[Any]) -> Any:
        async with self._writing(query):
            return await super().execute_insert(query, values)

    async def execute_many(self, query: str, values: Sequence[Sequence[Any]]) -> None:
        async with self._writing(query):
            await super().execute_many(query, values)

    async def execute_query(self, query: str, values: Sequence[Any] | None = None) -> Any:
        async with self._writing(query):
            return await super().execute_query(query, values)

    async def execute_query_dict(self, query: str, values: Sequence[Any] | None = None) -> Any:
        async with self._writing(query):
            return await super().execute_query_dict(query, values)

    @translate_exceptions
    async def execute_affected(self, query: str, values: Sequence[object]) -> int:
        async with self._writing(query):
            return await _affected(self, query, texts(values))

    @translate_exceptions
    async def records(self, query: str, values: Sequence[object]) -> Sequence[Sequence[Any]]:
        async with self._writing(query), self.acquire_connection() as connection:
            found: Sequence[Sequence[Any]] = await connection.fetch(query, *values)
            return found


async def _affected(client: AsyncpgDBClient, query: str, values: Sequence[object]) -> int:
    async with client.acquire_connection() as connection:
        tag: str = await connection.execute(query, *values)
    count = tag.rpartition(" ")[2]  # "UPDATE 3", "INSERT 0 3"; "CREATE TABLE" has none
    return int(count) if count.isdigit() else 0


client_class = SafePostgresClient
