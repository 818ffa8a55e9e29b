"""Turns at a row inside this process: whoever waits for a row that others hold waits here, without a connection.

The database's own lock decides between processes, and is never waited for longer than `lock_timeout`. It ends at waiting: what is
changed, and which rows a change locks, is its caller's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from models import database

PATIENCE_S: Final = 10.0
# An account's changes all end at its event counter: more of them at once would only wait for it with their connections.
CHANGES_AT_ONCE: Final = 4

_patience: ContextVar[float] = ContextVar("patience", default=PATIENCE_S)


class Busy(TimeoutError):
    """Too many changes of the same row wait already. Transient: try again."""


@dataclass(slots=True)
class _Place:
    free: asyncio.Semaphore
    users: int = 0


_places: dict[UUID, _Place] = {}


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Wait at most so long for each turn inside: for callers whose own caller gives up soon, or that may come again."""
    token = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(token)


@asynccontextmanager
async def turn(account_id: UUID, rows: Collection[UUID] = ()) -> AsyncIterator[None]:
    """One of the account's places, and the only one of each of `rows` (ids of any table). Raises: Busy.

    Take it before a transaction; inside one it does nothing, as the connection is taken already. SQLite has one connection.
    """
    if database.in_transaction() or database.dialect() == "sqlite":
        yield
        return
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(_patience.get()):
                # In one order, the account last, so that nobody waits in a circle.
                for row in sorted(set(rows)):
                    await stack.enter_async_context(_place(row, 1))
                await stack.enter_async_context(_place(account_id, CHANGES_AT_ONCE))
        except TimeoutError as error:
            raise Busy(Busy.__doc__) from error
        yield


@asynccontextmanager
async def _place(key: UUID, places: int) -> AsyncIterator[None]:
    place = _places.get(key)
    if place is None:
        place = _places[key] = _Place(asyncio.Semaphore(places))
    place.users += 1
    try:
        async with place.free:
            yield
    finally:
        place.users -= 1
        if not place.users:
            del _places[key]
