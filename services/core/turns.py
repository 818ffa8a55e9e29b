"""Queues changes of one row before they take a database connection."""

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
# All changes of an account end at its event counter: more would only hold connections.
CHANGES_AT_ONCE: Final = 4

_patience: ContextVar[float] = ContextVar("patience", default=PATIENCE_S)


class Busy(TimeoutError):
    """Too many changes of the same row are waiting. Transient: try again."""


@dataclass(slots=True)
class _Place:
    free: asyncio.Semaphore
    users: int = 0


_places: dict[UUID, _Place] = {}


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    token = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(token)


@asynccontextmanager
async def turn(account_id: UUID, rows: Collection[UUID] = ()) -> AsyncIterator[None]:
    """Wait for the account and `rows`. No effect inside a transaction or on SQLite. Raises: Busy."""
    if database.in_transaction() or database.dialect() == "sqlite":
        yield
        return
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(_patience.get()):
                # Always in this order, the account last, so that no two changes deadlock.
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
