"""Background work: the row is the truth. Enqueued inside the business transaction, claimed with a lease, run at least once.

Each handler names the key that makes a second run harmless. It ends at running handlers: what they do stands in their services.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import structlog

from models import database
from models.ids import uuid7
from models.tables import Job, Tick

log = structlog.get_logger(__name__)

LEASE_S = 30.0
POLL_S = 1.0
BACK_OFF_S = (0.2, 3600.0)  # first and longest delay; each is four times the one before, with jitter

Handler = Callable[["JobContext"], Awaitable[None]]
_handlers: dict[str, Handler] = {}
_periodic: dict[str, float] = {}
_wake: asyncio.Event | None = None


class Permanent(Exception):
    """The job can never succeed: it ends dead at once, with this message."""


class Later(Exception):
    """Not an error: run the job again after `delay_s`; the attempt does not count."""

    def __init__(self, delay_s: float) -> None:
        super().__init__(delay_s)
        self.delay_s = delay_s


@dataclass(frozen=True, slots=True, kw_only=True)
class JobContext:
    """What a handler gets."""

    job_id: UUID
    kind: str
    payload: dict[str, Any]
    account_id: UUID | None
    attempt: int  # 1 on the first run
    last_attempt: bool


def handler(kind: str) -> Callable[[Handler], Handler]:
    """Register the coroutine that runs jobs of this kind."""

    def register(function: Handler) -> Handler:
        if kind in _handlers:
            raise RuntimeError(f"two handlers for {kind}")
        _handlers[kind] = function
        return function

    return register


def periodic(name: str, every_s: float) -> Callable[[Handler], Handler]:
    """Register a coroutine that runs once per slot, on one process at a time."""

    def register(function: Handler) -> Handler:
        _periodic[name] = every_s
        return handler(name)(function)

    return register


async def enqueue(
    kind: str,
    payload: dict[str, Any],
    *,
    account_id: UUID | None,
    key: str | None = None,
    due_at: datetime | None = None,
    max_attempts: int = 8,
    again: bool = False,
) -> None:
    """Add a job, inside the caller's transaction if there is one. A key that exists already: nothing is added.

    `again`: for work that may be needed once more; a job of this key that has ended (done or dead) is queued anew.
    """
    now = datetime.now(UTC)
    conflict = (
        "DO UPDATE SET status = 'queued', attempts = 0, due_at = excluded.due_at, payload = excluded.payload,"
        " created_at = excluded.created_at WHERE job.status IN ('done', 'dead')"
        if again
        else "DO NOTHING"
    )
    await database.execute(
        "INSERT INTO job (id, account_id, kind, payload, key, status, attempts, max_attempts, due_at, created_at)"  # noqa: S608
        f" VALUES (?, ?, ?, ?, ?, 'queued', 0, ?, ?, ?) ON CONFLICT (key) {conflict}",
        uuid7(),
        account_id,
        kind,
        orjson.dumps(payload).decode(),
        key,
        max_attempts,
        due_at or now,
        now,
    )
    if due_at is None or due_at <= now:
        database.after_commit(wake)


def wake() -> None:
    """Let this process's runner look now instead of at its next poll."""
    if _wake is not None:
        _wake.set()


def delay_before(attempt: int) -> float:
    """Seconds to wait before the attempt after this one."""
    first, longest = BACK_OFF_S
    return min(longest, first * 4.0 ** (attempt - 1)) * random.uniform(0.75, 1.25)  # noqa: S311 (jitter)


class Runner:
    """Claims due jobs and runs up to `places` of them at once."""

    def __init__(self, *, places: int = 8, lease_s: float = LEASE_S, poll_s: float = POLL_S) -> None:
        self._places = places
        self._lease_s = lease_s
        self._poll_s = poll_s
        self._running: dict[asyncio.Task[None], dict[str, Any]] = {}
        self._loop: asyncio.Task[None] | None = None
        self._stopping = False
        self._wake = asyncio.Event()

    async def start(self) -> None:
        """Begin to claim. Call from the lifespan, never inside a transaction."""
        global _wake
        _wake = self._wake
        await _plant_ticks()
        self._loop = asyncio.create_task(self._claim_forever(), name="job-runner")

    async def stop(self, *, grace_s: float = 10.0) -> None:
        """Stop claiming, wait for what runs, hand the rest back to the queue."""
        global _wake
        self._stopping = True
        if _wake is self._wake:
            _wake = None
        self._wake.set()
        if self._loop is not None:
            await self._loop
        if self._running:
            await asyncio.wait(self._running, timeout=grace_s)
        left = dict(self._running)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for job in left.values():
            # Shielded: a job that is not handed back waits for its lease to end.
            await asyncio.shield(self._again(job, 0.0, attempts=int(job["attempts"]) - 1, error=None))

    async def run_due(self) -> int:
        """Run what is due now and all that it enqueues, until nothing is due; return how many ran. For tests and the CLI."""
        ran = 0
        while jobs := await self._claim(self._places):
            await asyncio.gather(*(self._run(job) for job in jobs))
            ran += len(jobs)
        return ran

    async def _claim_forever(self) -> None:
        ticks_at = 0.0
        while not self._stopping:
            claimed = 0
            try:
                if (now := time.monotonic()) >= ticks_at:
                    ticks_at = now + self._poll_s
                    await _fire_ticks()
                free = self._places - len(self._running)
                if free:
                    jobs = await self._claim(free)
                    claimed = len(jobs)
                    for job in jobs:
                        task = asyncio.create_task(self._run(job), name=f"job {job['kind']}")
                        self._running[task] = job
                        task.add_done_callback(self._done)
            except Exception as error:  # noqa: BLE001 (the loop's top: whatever fails, go on)
                log.error("job_runner_failed", error=type(error).__name__)
            if not claimed and not self._stopping:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), self._poll_s * random.uniform(0.8, 1.2))  # noqa: S311
                self._wake.clear()

    def _done(self, task: asyncio.Task[None]) -> None:
        job = self._running.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Its end could not be written down: it runs again when its lease is over.
            log.error("job_end_lost", kind=job["kind"] if job else None, error=type(error).__name__)
        self._wake.set()

    async def _claim(self, count: int) -> list[dict[str, Any]]:
        now = datetime.now(UTC)
        kinds = sorted(_handlers)
        skip = "FOR UPDATE SKIP LOCKED" if database.dialect() == "postgres" else ""
        # WITH, not a subquery: PostgreSQL may run that one once per row, and claim more than `count`.
        return await database.rows(
            f"WITH due AS (SELECT id FROM job WHERE status IN ('queued', 'running') AND due_at <= ?"  # noqa: S608
            f" AND kind IN ({database.placeholders(len(kinds))}) ORDER BY due_at LIMIT {count:d} {skip})"
            " UPDATE job SET status = 'running', lease = ?, due_at = ?, attempts = attempts + 1"
            " WHERE id IN (SELECT id FROM due)"
            " RETURNING id, account_id, kind, payload, attempts, max_attempts, lease",
            now,
            *kinds,
            secrets.token_hex(12),
            now + timedelta(seconds=self._lease_s),
        )

    async def _run(self, job: dict[str, Any]) -> None:
        context = JobContext(
            job_id=database.to_uuid(job["id"]),
            kind=job["kind"],
            payload=database.to_json(job["payload"]) or {},
            account_id=database.to_uuid(job["account_id"]) if job["account_id"] is not None else None,
            attempt=int(job["attempts"]),
            last_attempt=int(job["attempts"]) >= int(job["max_attempts"]),
        )
        if context.attempt > int(job["max_attempts"]):  # its process died each time
            await self._finish(job, "dead", error="attempts used up")
            return
        work = asyncio.ensure_future(_handlers[context.kind](context))
        heart = asyncio.create_task(self._heartbeat(job, work))
        try:
            await work
        except Later as later:
            await self._again(job, later.delay_s, attempts=context.attempt - 1, error=None)
        except Permanent as error:
            await self._finish(job, "dead", error=str(error))
            log.error("job_dead", kind=context.kind, job=str(context.job_id), error="permanent")
        except Exception as error:  # noqa: BLE001 (the loop's top: a failed job is tried again)
            if context.last_attempt:
                await self._finish(job, "dead", error=_words(error))
                log.error("job_dead", kind=context.kind, job=str(context.job_id), error=type(error).__name__)
            else:
                await self._again(job, delay_before(context.attempt), attempts=context.attempt, error=_words(error))
                log.warning("job_retry", kind=context.kind, job=str(context.job_id), error=type(error).__name__)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the runner stops; it hands the job back
            log.warning("job_lease_lost", kind=context.kind, job=str(context.job_id))
        else:
            await self._finish(job, "done", error=None)
        finally:
            heart.cancel()

    async def _heartbeat(self, job: dict[str, Any], work: asyncio.Future[None]) -> None:
        """Move the lease while the handler runs; cancel the handler when the lease is lost."""
        while True:
            await asyncio.sleep(self._lease_s / 3)
            try:
                kept = await database.execute(
                    "UPDATE job SET due_at = ? WHERE id = ? AND lease = ? AND status = 'running'",
                    datetime.now(UTC) + timedelta(seconds=self._lease_s),
                    job["id"],
                    job["lease"],
                )
            except Exception as error:  # noqa: BLE001 (a database that is away for a moment must not end the work)
                log.warning("job_heartbeat_failed", error=type(error).__name__)
                continue
            if not kept:
                work.cancel()
                return

    async def _finish(self, job: dict[str, Any], status: str, *, error: str | None) -> None:
        await database.execute(
            "UPDATE job SET status = ?, last_error = ? WHERE id = ? AND lease = ? AND status = 'running'",
            status,
            error,
            job["id"],
            job["lease"],
        )

    async def _again(self, job: dict[str, Any], delay_s: float, *, attempts: int, error: str | None) -> None:
        await database.execute(
            "UPDATE job SET status = 'queued', due_at = ?, attempts = ?, last_error = ?"
            " WHERE id = ? AND lease = ? AND status = 'running'",
            datetime.now(UTC) + timedelta(seconds=delay_s),
            attempts,
            error,
            job["id"],
            job["lease"],
        )


def _words(error: Exception) -> str:
    """What operators read: the class and our own message, never a body."""
    return f"{type(error).__name__}: {error}"[:300]


async def _plant_ticks() -> None:
    for name, every_s in _periodic.items():
        await database.execute(
            "INSERT INTO tick (name, every_ms, next_at) VALUES (?, ?, ?) ON CONFLICT (name) DO NOTHING",
            name,
            int(every_s * 1000),
            datetime.now(UTC),
        )


async def _fire_ticks() -> None:
    """Enqueue the periodic jobs whose slot has come: compare-and-set on the slot, so that one process does it.

    A slot passes unused while the job of an earlier one is not finished: one at a time.
    """
    now = datetime.now(UTC)
    for tick in await Tick.filter(next_at__lte=now, name__in=list(_periodic)):
        every_s = _periodic[tick.name]
        async with database.transaction():
            taken = await Tick.filter(name=tick.name, next_at=tick.next_at).update(
                next_at=now + timedelta(seconds=every_s), every_ms=int(every_s * 1000)
            )
            if taken and not await Job.exists(kind=tick.name, status__in=["queued", "running"]):
                slot = tick.next_at.isoformat()
                await enqueue(tick.name, {}, account_id=None, key=f"{tick.name}@{slot}", max_attempts=1)


@periodic("jobs.prune", 3600)
async def _prune(job: JobContext) -> None:
    """Forget finished jobs after a day, dead ones after a month. Safe to repeat."""
    now = datetime.now(UTC)
    for status, kept in (("done", timedelta(days=1)), ("dead", timedelta(days=30))):
        await database.execute("DELETE FROM job WHERE status = ? AND created_at < ?", status, now - kept)
