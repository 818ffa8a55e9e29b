"""The bus over PostgreSQL."""

import asyncio
from collections.abc import Awaitable
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import asyncpg  # type: ignore[import-untyped]  # it ships no types

from integrations.broadcast.backend import (
    COMMAND_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    PUBLISH_CONNECTIONS,
    SILENCE_S,
    SupervisedBackend,
)

POSTGRES_PROBE_S: Final = 3.0


class PostgresBackend(SupervisedBackend):
    """Source: postgresql.org/docs/current/sql-notify.html."""

    def __init__(self, url: str) -> None:
        # The ORM's database URL also works; only its scheme differs.
        super().__init__(urlunsplit(urlsplit(url)._replace(scheme="postgresql")))
        self._pool: Any = None

    async def connect(self) -> None:
        await super().connect()
        self._pool = await asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=PUBLISH_CONNECTIONS,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=COMMAND_TIMEOUT_S,
        )

    async def disconnect(self) -> None:
        await super().disconnect()
        if self._pool is not None:
            await self._pool.close()
            self._pool = None

    async def publish(self, channel: str, message: Any) -> None:
        await self._pool.execute("SELECT pg_notify($1, $2)", channel, message)

    async def _listen(self, channel: str) -> None:
        connection = await asyncpg.connect(self._url, timeout=CONNECT_TIMEOUT_S, command_timeout=POSTGRES_PROBE_S)
        terminated = asyncio.Event()
        try:
            connection.add_termination_listener(lambda _: terminated.set())
            await connection.add_listener(channel, lambda _c, _pid, _channel, payload: self.received(channel, payload))
            self.confirmed(channel)
            while not await _within(terminated.wait(), SILENCE_S):
                await connection.execute("SELECT 1", timeout=POSTGRES_PROBE_S)
            raise ConnectionError("PostgreSQL ended the connection")
        finally:
            connection.terminate()


async def _within(awaitable: Awaitable[Any], seconds: float) -> bool:
    try:
        await asyncio.wait_for(awaitable, seconds)
    except TimeoutError:
        return False
    return True
