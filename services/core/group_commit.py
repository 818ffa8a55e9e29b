"""Changes that wait for SQLite's writer share one transaction, each in its own savepoint. See docs/decisions/0019."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from models import database, database_errors
from services.core.configuration import current

TOGETHER: Final = 64  # changes of one transaction
LASTS_S: Final = 0.02  # then no further change joins: other writers wait meanwhile

log = structlog.get_logger(__name__)

Work = Callable[[], Awaitable[None]]


class Abandoned(Exception):
    """The shared transaction failed for another reason than this change. Repeat it alone."""


@dataclass(eq=False, slots=True)
class _Member:
    work: Work
    log_context: dict[str, Any]
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    error: Exception | None = None


class _Queue:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.waiting: deque[_Member] = deque()
        self.runner: asyncio.Task[None] | None = None


_queue: _Queue | None = None


async def run(work: Work) -> None:
    """Run a change and return after its commit; it opens its own transaction, which may become a savepoint.

    Raises: what `work` raises; Abandoned.
    """
    global _queue
    if not current().group_commit or database.in_transaction() or database.dialect() != "sqlite":
        await work()
        return
    loop = asyncio.get_running_loop()
    if _queue is None or _queue.loop is not loop:
        _queue = _Queue(loop)
    member = _Member(work, structlog.contextvars.get_contextvars())
    _queue.waiting.append(member)
    if _queue.runner is None:
        # In a context of its own: the first member's would outlive its request.
        _queue.runner = loop.create_task(_commit_all(_queue), context=contextvars.Context())
    await member.done


async def _commit_all(queue: _Queue) -> None:
    try:
        while queue.waiting:
            if len(queue.waiting) == 1:
                await _commit_alone(queue.waiting.popleft())
            else:
                await _commit_together(queue.waiting)
    finally:
        queue.runner = None
        for member in queue.waiting:  # the process stops
            member.done.cancel()


async def _commit_alone(member: _Member) -> None:
    if not member.done.done():
        await _attempt(member)
        _answer(member)


async def _commit_together(waiting: deque[_Member]) -> None:
    joined: list[_Member] = []
    is_committed = False
    try:
        async with database.transaction():
            await _join(waiting, joined)
        is_committed = True
    except Exception as error:  # noqa: BLE001 (each member raises its own)
        if not joined:  # it could not begin: the database is busy or away
            joined += waiting
            waiting.clear()
        log.warning("group_commit_abandoned", count=len(joined), error=type(error).__name__)
    finally:
        for member in joined:
            if not is_committed and member.error is None:
                member.error = Abandoned()
            _answer(member)


async def _join(waiting: deque[_Member], joined: list[_Member]) -> None:
    until = time.monotonic() + LASTS_S
    while waiting and len(joined) < TOGETHER and time.monotonic() < until:
        member = waiting.popleft()
        if member.done.done():  # its request was cancelled
            continue
        joined.append(member)
        await _attempt(member)
        if member.error is not None and database_errors.is_transient(member.error):
            raise member.error  # SQLite may have rolled back the whole transaction
        await asyncio.sleep(0)  # other requests go on, and more changes may join


async def _attempt(member: _Member) -> None:
    try:
        with structlog.contextvars.bound_contextvars(**member.log_context):
            await member.work()
    except Exception as error:  # noqa: BLE001 (its own request raises it)
        member.error = error


def _answer(member: _Member) -> None:
    if member.done.done():
        return
    if member.error is None:
        member.done.set_result(None)
    else:
        member.done.set_exception(member.error)
