"""asyncpg's errors by what follows from them; `database_errors` loads this on PostgreSQL only."""

import re
from typing import Final

import asyncpg  # type: ignore[import-untyped]  # it ships no types

ALL: Final = (asyncpg.PostgresError, asyncpg.InterfaceError)
LOCKED: Final = asyncpg.LockNotAvailableError
FULL: Final = asyncpg.DiskFullError
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
)


def is_transient(error: BaseException) -> bool:
    if isinstance(error, asyncpg.InterfaceError) and re.search("clos(ed|ing)", str(error)):
        return True
    return isinstance(error, _TRANSIENT)
