"""Tortoise's asyncpg engine without its traps: a cancelled task gives its pooled connection back, and forgets it first.

Named by `engine` in Tortoise's configuration (database.py). Each trap has its test in tests/models/test_engines.py, to be
repeated on every Tortoise upgrade. What a transaction means to services stands in database.py, not here.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

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

from models.storable import StorableTexts, texts

log = structlog.get_logger(__name__)

WAIT_S: Final = 15.0  # for a connection of the pool

# asyncio keeps only weak references to tasks: a release that is collected would lose its connection to the pool.
_cleanups: set[asyncio.Task[None]] = set()


class PlainConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg ships no types
    """A connection that is not reset on each release: that round trip costs as much as a small query.

    An open transaction is still rolled back (asyncpg does that apart). In return nothing of ours may leave session state
    on a pooled connection: no SET, LISTEN or advisory lock outside a transaction. Migrations connect by themselves.
    """

    def get_reset_query(self) -> str:
        return ""


class SafeConnectionWrapper(PoolConnectionWrapper[Any]):
    """A connection of the pool for one statement. Waits for a limited time; what the network says becomes Tortoise's error."""

    __slots__ = ()

    async def __aenter__(self) -> Any:
        await self.ensure_connection()
        self.connection = await _take(self.client._pool)
        return self.connection


async def _take(pool: Any) -> Any:
    try:
        return await pool.acquire(timeout=WAIT_S)
    except OSError as error:  # refused, unknown host, no socket; TimeoutError is one, too
        raise DBConnectionError("the database gives no connection") from error


async def _release(client: "SafePostgresClient", pool: Any, connection: Any) -> None:
    try:
        await pool.release(connection)
    except (asyncpg.InterfaceError, asyncpg.PostgresError, OSError):  # lost, or the pool was closed meanwhile
        log.exception("a PostgreSQL connection could not be given back")
    finally:
        client.writers.release()


class SafeTransactionContext(TransactionContextPooled):
    """The outermost transaction: one connection of the pool from BEGIN to the end of COMMIT."""

    __slots__ = ()

    async def __aenter__(self) -> TransactionalDBClient:
        await self.ensure_connection()
        parent: Any = self.client._parent
        pool = parent._pool
        await parent.wait_to_write()
        try:
            connection = await _take(pool)
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
                elif not connection.is_closed():  # lost: there is nothing to roll back, and the first error tells more
                    await client.rollback()
        finally:
            # The token first: a time-out may fire during the release, and the task goes on.
            get_connections().reset(self.token)
            parent: Any = client._parent
            try:
                if parent._pool is not None:
                    await parent._pool.release(connection)
            finally:
                parent.writers.release()


class SafeTransaction(StorableTexts, TransactionWrapper):
    """The client that queries use inside a transaction."""

    def _in_transaction(self) -> TransactionContext:
        return NestedTransactionContext(SafeTransaction(self))

    @translate_exceptions
    async def commit(self) -> None:
        # The stock one lets what a deferred constraint says at COMMIT through as a raw asyncpg error.
        await super().commit()

    @translate_exceptions
    async def execute_affected(self, query: str, values: Sequence[object]) -> int:
        """Run one statement; the number of rows that it changed."""
        return await _affected(self, query, texts(values))


class SafePostgresClient(StorableTexts, AsyncpgDBClient):
    """The client of the process's pool.

    What may wait for a row's lock (transactions, and statements that write) takes at most `maxsize - for_reads` of its
    connections: reads wait for no lock, and go on while every writer waits for one.
    """

    connection_class = PlainConnection

    def __init__(self, *args: Any, for_reads: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.writers = asyncio.Semaphore(max(1, self.pool_maxsize - for_reads))

    def acquire_connection(self) -> SafeConnectionWrapper:
        return SafeConnectionWrapper(self, self._pool_init_lock)

    def _in_transaction(self) -> TransactionContext:
        return SafeTransactionContext(SafeTransaction(self), self._pool_init_lock)

    async def wait_to_write(self) -> None:
        """Take one of `writers`. Raises: DBConnectionError after WAIT_S."""
        try:
            async with asyncio.timeout(WAIT_S):
                await self.writers.acquire()
        except TimeoutError as error:
            raise DBConnectionError("the database's writers are all busy") from error

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
        """As the client does it."""
        async with self._writing(query):
            return await super().execute_insert(query, values)

    async def execute_many(self, query: str, values: Sequence[Sequence[Any]]) -> None:
        """As the client does it."""
        async with self._writing(query):
            await super().execute_many(query, values)

    async def execute_query(self, query: str, values: Sequence[Any] | None = None) -> Any:
        """As the client does it."""
        async with self._writing(query):
            return await super().execute_query(query, values)

    async def execute_query_dict(self, query: str, values: Sequence[Any] | None = None) -> Any:
        """As the client does it."""
        async with self._writing(query):
            return await super().execute_query_dict(query, values)

    @translate_exceptions
    async def execute_affected(self, query: str, values: Sequence[object]) -> int:
        """Run one statement; the number of rows that it changed."""
        async with self._writing(query):
            return await _affected(self, query, texts(values))


async def _affected(client: AsyncpgDBClient, query: str, values: Sequence[object]) -> int:
    async with client.acquire_connection() as connection:
        tag: str = await connection.execute(query, *values)
    count = tag.rpartition(" ")[2]  # "UPDATE 3", "INSERT 0 3"; "CREATE TABLE" has none
    return int(count) if count.isdigit() else 0


client_class = SafePostgresClient
