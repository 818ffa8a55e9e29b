"""Temporary database errors, and a loop that repeats work."""

import asyncio
import random
import socket
import sqlite3
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import structlog
from tortoise.exceptions import BaseORMException, DBConnectionError

log = structlog.get_logger(__name__)

_T = TypeVar("_T")

_TRANSIENT = (
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
_DATABASE = (BaseORMException, sqlite3.Error, OSError)


def _postgres() -> Any:
    """The module `postgres_errors`; None while its driver is not loaded, so that no error can be the driver's."""
    if "asyncpg" not in sys.modules:
        return None
    from models import postgres_errors

    return postgres_errors


def is_transient(error: BaseException) -> bool:
    """Whether the work may succeed later. A connection lost at COMMIT may have committed: repeat only with a key."""
    postgres = _postgres()
    for seen in _chain(error):
        if isinstance(seen, _TRANSIENT) or (postgres is not None and postgres.is_transient(seen)):
            return True
        if isinstance(seen, sqlite3.OperationalError):
            return _sqlite_code(seen) in _TRANSIENT_SQLITE
    return False


def is_locked(error: BaseException) -> bool:
    postgres = _postgres()
    return any(
        (postgres is not None and isinstance(seen, postgres.LOCKED))
        or (isinstance(seen, sqlite3.OperationalError) and _sqlite_code(seen) in _LOCKED_SQLITE)
        for seen in _chain(error)
    )


def is_full(error: BaseException) -> bool:
    postgres = _postgres()
    return any(
        (postgres is not None and isinstance(seen, postgres.FULL))
        or (isinstance(seen, sqlite3.OperationalError) and _sqlite_code(seen) == sqlite3.SQLITE_FULL)
        for seen in _chain(error)
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    postgres = _postgres()
    of_databases = _DATABASE if postgres is None else (*_DATABASE, *postgres.ALL)
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        # Tortoise wraps the driver's error as its first argument, not always as the cause.
        inner = seen.args[0] if isinstance(seen, BaseORMException) and seen.args else None
        # Other errors, such as a vendor's timeout, keep their own meaning whatever caused them.
        cause = seen.__cause__ if isinstance(seen, of_databases) else None
        seen = inner if isinstance(inner, BaseException) else cause


def _sqlite_code(error: sqlite3.OperationalError) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
