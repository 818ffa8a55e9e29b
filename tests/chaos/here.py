"""Run SQLite's statements in the event loop's thread, for the long runs only: it saves a thread switch per statement.

Statements, transactions and locks do not change. A statement blocks the loop, which makes runs repeatable and is wrong for a server.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from aiosqlite import core


async def _execute(connection: core.Connection, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not connection._connection:
        raise ValueError("Connection closed")
    return work(*args, **kwargs)


async def _connect(connection: core.Connection) -> core.Connection:
    connection._connection = connection._connector()
    return connection


def _stop(connection: core.Connection) -> None:
    connection._running = False
    if connection._connection is not None:
        connection._connection.close()
        connection._connection = None
    connection._tx.put_nowait((None, lambda: core._STOP_RUNNING_SENTINEL))  # its thread, which did nothing


@contextlib.contextmanager
def without_threads() -> Iterator[None]:
    """Make connections opened inside run their statements in this thread."""
    with (
        mock.patch.object(core.Connection, "_execute", _execute),
        mock.patch.object(core.Connection, "_connect", _connect),
        mock.patch.object(core.Connection, "stop", _stop),
    ):
        yield
