"""Job kinds of one test, and shortcuts to its jobs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from models import database as db
from models.tables import Job
from services.core import jobs

Register = Callable[..., None]


@pytest.fixture
def register(database: str, monkeypatch: pytest.MonkeyPatch) -> Register:
    monkeypatch.setattr(jobs, "handlers", {})
    monkeypatch.setattr(jobs, "dead_handlers", {})
    monkeypatch.setattr(jobs, "periods", {})

    def add_handler(kind: str, function: jobs.Handler, on_dead: jobs.DeadHandler | str = "nothing to do") -> None:
        jobs.handler(kind, on_dead=on_dead)(function)

    return add_handler


async def add(kind: str, **options: Any) -> None:
    await jobs.enqueue(kind, options.pop("payload", {}), account_id=None, **options)


async def the_job() -> Job:
    return await Job.get()


async def hasten() -> None:
    await db.execute("UPDATE job SET due_at = ?", datetime.now(UTC))
