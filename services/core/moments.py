"""Waits for wall-clock times across clock changes and sleep."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

CHECK_S: Final = 1.0


class Moments:
    def __init__(self, *, check_s: float = CHECK_S) -> None:
        self._check_s = check_s
        self._waiting: dict[asyncio.Future[None], datetime] = {}
        self._timer: asyncio.Task[None] | None = None

    @contextmanager
    def waiting_for(self, moment: datetime) -> Iterator[asyncio.Future[None]]:
        """A future done within CHECK_S after `moment`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[future] = moment
        if self._timer is None or self._timer.done():
            self._timer = asyncio.create_task(self._run(), name="moments")
        try:
            yield future
        finally:
            del self._waiting[future]
            future.cancel()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def _run(self) -> None:
        while self._waiting:
            now = datetime.now(UTC)
            for future, moment in self._waiting.items():
                if moment <= now and not future.done():
                    future.set_result(None)
            await asyncio.sleep(self._check_s)
