"""Temporary database errors, and a loop that repeats work."""

import asyncio
import random
import re
import socket
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import structlog
from tortoise.exceptions import BaseORMException, DBConnectionError

log = structlog.get_logger(__name__)

_T = TypeVar("_T")

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
    asyncpg.InternalClientError,  # a connection that was closed a moment ago
    DBConnectionError,
    ConnectionError,
    TimeoutError,
    socket.gaierror,
)
# Some systems remount a full disk read-only: SQLite then reports READONLY, IOERR or CANTOPEN.
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


async def retry_transient(work: Callable[[], Awaitable[_T]]) -> _T:
    """Repeat `work` while the database fails temporarily. Repetition must be harmless."""
    delay_s = 0.1
    while True:
        try:
            return await work()
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("the database refuses a change for now; retrying", error=type(error).__name__)
        await asyncio.sleep(delay_s * random.uniform(0.75, 1.25))  # noqa: S311 (jitter)
        delay_s = min(2 * delay_s, 5.0)


_LOCKED_SQLITE = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_DATABASE = (BaseORMException, asyncpg.PostgresError, asyncpg.InterfaceError, sqlite3.Error, OSError)


def is_transient(error: BaseException) -> bool:
    """Whether the work may succeed later. A connection lost at COMMIT may have committed: repeat only with a key."""
    for seen in _chain(error):
        if isinstance(seen, _TRANSIENT):
            return True
        if isinstance(seen, asyncpg.InterfaceError) and re.search("clos(ed|ing)", str(seen)):
            return True
        if isinstance(seen, sqlite3.OperationalError):
            return _sqlite_code(seen) in _TRANSIENT_SQLITE
    return False


def is_locked(error: BaseException) -> bool:
    return any(
        isinstance(seen, asyncpg.LockNotAvailableError)
        or (isinstance(seen, sqlite3.OperationalError) and _sqlite_code(seen) in _LOCKED_SQLITE)
        for seen in _chain(error)
    )


def is_full(error: BaseException) -> bool:
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
        # Other errors, such as a vendor's timeout, keep their own meaning whatever caused them.
        cause = seen.__cause__ if isinstance(seen, _DATABASE) else None
        seen = inner if isinstance(inner, BaseException) else cause


def _sqlite_code(error: sqlite3.OperationalError) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
