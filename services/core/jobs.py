"""Background jobs: kinds, handlers and queue."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson

from models import database, vault
from models.ids import uuid7
from models.tables import Job

Handler = Callable[["JobContext"], Awaitable[None]]
DeadHandler = Callable[["JobContext", str], Awaitable[None]]
handlers: dict[str, Handler] = {}  # by kind
dead_handlers: dict[str, DeadHandler | str] = {}
periods: dict[str, float] = {}  # of periodic kinds, seconds
clock_corrections: list[Callable[[datetime], Awaitable[None]]] = []
running_key: ContextVar[str | None] = ContextVar("job_key", default=None)
_wake: asyncio.Event | None = None


class Permanent(Exception):
    """The job can never succeed: mark it dead."""


class Later(Exception):
    """Run again after `delay_s`; this attempt does not count."""

    def __init__(self, delay_s: float) -> None:
        super().__init__(delay_s)
        self.delay_s = delay_s


@dataclass(frozen=True, slots=True, kw_only=True)
class JobContext:
    job_id: UUID
    kind: str
    payload: dict[str, Any]
    account_id: UUID | None
    attempt: int  # 1 on the first run
    last_attempt: bool
    sealed: str | None = None

    @property
    def secret(self) -> str:
        if self.sealed is None or self.account_id is None:
            raise RuntimeError("a job without a secret")
        return vault.unseal(self.account_id, self.sealed)


def handler(kind: str, *, on_dead: DeadHandler | str) -> Callable[[Handler], Handler]:
    """Register the coroutine of a kind. It may run more than once.

    `on_dead` must be repeatable and runs before a failed job is marked dead; a string says why none is needed.
    """

    def register(function: Handler) -> Handler:
        if kind in handlers:
            raise RuntimeError(f"two handlers for {kind}")
        handlers[kind] = function
        dead_handlers[kind] = on_dead
        return function

    return register


def periodic(name: str, every_s: float) -> Callable[[Handler], Handler]:
    """Register a coroutine that runs once per slot."""

    def register(function: Handler) -> Handler:
        periods[name] = every_s
        return handler(name, on_dead="it runs again in its next slot")(function)

    return register


def after_set_back(function: Callable[[datetime], Awaitable[None]]) -> Callable[[datetime], Awaitable[None]]:
    """Register a repeatable correction of stored times after the clock was set back."""
    clock_corrections.append(function)
    return function


async def enqueue(
    kind: str,
    payload: dict[str, Any],
    *,
    account_id: UUID | None,
    key: str | None = None,
    due_at: datetime | None = None,
    max_attempts: int = 8,
    again: bool = False,
    secret: str | None = None,
) -> None:
    """Add a job unless its key exists.

    `again`: requeue a finished job, repeat a running one. `secret`: stored encrypted; needs an account.
    """
    now = datetime.now(UTC)
    conflict = _AGAIN if again and (key is None or key != running_key.get()) else "DO NOTHING"
    await database.records(
        "INSERT INTO job (id, account_id, kind, payload, sealed, key, status, attempts, max_attempts, due_at, set_at,"  # noqa: S608 (only constants are put in)
        f" created_at) VALUES (?, ?, ?, ?, ?, ?, 'queued', 0, ?, ?, ?, ?) ON CONFLICT (key) {conflict}",
        uuid7(),
        account_id,
        kind,
        orjson.dumps(payload).decode(),
        None if secret is None or account_id is None else vault.seal(account_id, secret),
        key,
        max_attempts,
        due_at or now,
        now,
        now,
    )
    if due_at is None or due_at <= now:
        database.after_commit(wake)


_AGAIN = """DO UPDATE SET payload = excluded.payload, sealed = excluded.sealed, created_at = excluded.created_at,
    again_at = CASE WHEN job.status <> 'running' THEN NULL
        WHEN job.again_at < excluded.due_at THEN job.again_at ELSE excluded.due_at END,
    attempts = CASE WHEN job.status = 'running' THEN job.attempts ELSE 0 END,
    due_at = CASE WHEN job.status = 'running' THEN job.due_at ELSE excluded.due_at END,
    set_at = CASE WHEN job.status = 'running' THEN job.set_at ELSE excluded.set_at END,
    status = CASE WHEN job.status = 'running' THEN 'running' ELSE 'queued' END
    WHERE job.status <> 'queued'"""


def wake_by(event: asyncio.Event | None) -> None:
    global _wake
    _wake = event


def wake() -> None:
    if _wake is not None:
        _wake.set()


async def without_job(table: str, where: str, prefix: str, *, limit: int = 500) -> list[UUID]:
    """Ids of rows without a queued or running job. The texts become SQL: never pass input."""
    rows = await database.rows(
        f"SELECT t.id FROM {table} t WHERE {where} AND NOT EXISTS (SELECT 1 FROM job j"  # noqa: S608 (only constants are put in)
        f" WHERE j.key = '{prefix}' || t.id AND j.status IN ('queued', 'running')) ORDER BY t.id LIMIT {limit:d}"
    )
    return [database.to_uuid(row["id"]) for row in rows]


# ---------------------------------------------------------------------------------------------------------- operators
async def dead(kind: str | None = None) -> list[Job]:
    found = Job.filter(status="dead") if kind is None else Job.filter(status="dead", kind=kind)
    return await found.order_by("-created_at", "-id")


async def requeue(ids: Sequence[UUID]) -> int:
    now = datetime.now(UTC)
    count = await Job.filter(id__in=ids, status="dead").update(status="queued", attempts=0, due_at=now, set_at=now)
    wake()
    return count


async def drop(ids: Sequence[UUID]) -> int:
    return await Job.filter(id__in=ids, status="dead").delete()
