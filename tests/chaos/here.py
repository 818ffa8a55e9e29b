"""Runs SQLite's statements in the event loop's own thread, for the long runs only: no visit to another thread for each of them.

The statements, the transactions and the locks stay as they are. Nothing else goes on while one runs, which makes a run of one process
the same each time. A server must never do this.
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
    """Let connections that are opened inside do their work here."""
    with (
        mock.patch.object(core.Connection, "_execute", _execute),
        mock.patch.object(core.Connection, "_connect", _connect),
        mock.patch.object(core.Connection, "stop", _stop),
    ):
        yield
