"""Runs queued jobs under leases, at least once."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import structlog

from models import database, database_errors
from services.core import jobs, ticks
from services.core.jobs import JobContext, Later, Permanent

log = structlog.get_logger(__name__)

LEASE_S = 8.0  # a process that has not renewed its leases for so long counts as dead
BEATS = 4  # renewals per lease
POLL_S = 1.0
HEALTHY_S = 30.0
BACK_OFF_S = (0.2, 3600.0)  # first and longest delay; each is four times the one before, with jitter
DATABASE_BACK_OFF_S = 15.0  # the longest delay after an error of the database
CORRECT_EVERY_S = 5.0
HAND_BACK_S = 5.0  # to requeue a job at stop; a database that is away must not keep the process

_runner: Runner | None = None


def healthy() -> bool | None:
    """Whether the runner has looked for jobs within HEALTHY_S; None: no runner."""
    return None if _runner is None else time.monotonic() - _runner._looked_at < HEALTHY_S


def delay_before(attempt: int) -> float:
    first, longest = BACK_OFF_S
    return min(longest, first * 4.0 ** (attempt - 1)) * random.uniform(0.75, 1.25)  # noqa: S311 (jitter)


class Runner:
    def __init__(self, *, places: int = 8, lease_s: float = LEASE_S, poll_s: float = POLL_S) -> None:
        self._places = places
        self._lease_s = lease_s
        self._poll_s = poll_s
        self._running: dict[asyncio.Task[None], dict[str, Any]] = {}
        self._leases: dict[object, str] = {}  # jobs that run here, and their leases
        self._other_leases = _Watch()
        self._setbacks: dict[UUID, int] = {}  # job -> errors of the database in a row
        self._loop: asyncio.Task[None] | None = None
        self._stopping = False
        self._wake = asyncio.Event()
        self._looked_at = time.monotonic()

    async def start(self) -> None:
        global _runner
        _runner = self
        jobs.wake_by(self._wake)
        await ticks.plant()
        self._loop = asyncio.create_task(self._claim_forever(), name="job-runner")

    async def stop(self, *, grace_s: float = 10.0) -> None:
        global _runner
        self._stopping = True
        if _runner is self:
            _runner = None
            jobs.wake_by(None)
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
            # Shielded: a job that is not requeued waits for its lease to end.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HAND_BACK_S):
                    await asyncio.shield(self._requeue(job, 0.0, attempts=int(job["attempts"]) - 1, error=None))

    async def run_due(self) -> int:
        ran = 0
        await self._take_over()
        while claimed := await self._claim(self._places):
            await asyncio.gather(*(self._run(job) for job in claimed))
            ran += len(claimed)
        return ran

    async def _claim_forever(self) -> None:
        ticks_at = correct_at = 0.0
        while not self._stopping:
            claimed = 0
            try:
                if (now := time.monotonic()) >= ticks_at:
                    ticks_at = now + self._poll_s
                    if now >= correct_at:
                        correct_at = now + CORRECT_EVERY_S
                        await ticks.correct_due_times()
                    await ticks.fire()
                    await self._take_over()
                free = self._places - len(self._running)
                if free:
                    rows = await self._claim(free)
                    claimed = len(rows)
                    for job in rows:
                        task = asyncio.create_task(self._run(job), name=f"job {job['kind']}")
                        self._running[task] = job
                        task.add_done_callback(self._done)
                self._looked_at = time.monotonic()
            except Exception as error:  # noqa: BLE001 (the loop's top)
                log.error("job_runner_failed", error=type(error).__name__)
            if not claimed and not self._stopping:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), self._poll_s * random.uniform(0.8, 1.2))  # noqa: S311
                self._wake.clear()

    def _done(self, task: asyncio.Task[None]) -> None:
        job = self._running.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Its outcome was not stored: it runs again after its lease.
            log.error("job_end_lost", kind=job["kind"] if job else None, error=type(error).__name__)
        self._wake.set()

    async def _claim(self, count: int) -> list[dict[str, Any]]:
        now = datetime.now(UTC)
        kinds = sorted(jobs.handlers)
        skip = "FOR UPDATE SKIP LOCKED" if database.dialect() == "postgres" else ""
        # WITH, not a subquery: PostgreSQL may run that one once per row, and claim more than `count`.
        return await database.rows(
            f"WITH due AS (SELECT id FROM job WHERE status = 'queued' AND due_at <= ?"  # noqa: S608 (only constants are put in)
            f" AND kind IN ({database.placeholders(len(kinds))}) ORDER BY due_at LIMIT {count:d} {skip})"
            " UPDATE job SET status = 'running', lease = ?, due_at = ?, attempts = attempts + 1"
            " WHERE id IN (SELECT id FROM due)"
            " RETURNING id, account_id, kind, payload, sealed, key, attempts, max_attempts, lease",
            now,
            *kinds,
            secrets.token_hex(12),
            now + timedelta(seconds=self._lease_s),
        )

    async def _take_over(self) -> None:
        at = time.monotonic()  # never the wall clock: one that jumps must end no lease
        rows = await database.rows("SELECT id, lease, due_at FROM job WHERE status = 'running'")
        others = {
            (row["id"], row["lease"], row["due_at"]) for row in rows if self._leases.get(row["id"]) != row["lease"]
        }
        # A gap between two looks does not count: without a database the other processes could not renew either.
        for id, lease, renewed in self._other_leases.silent(
            others, at, for_s=self._lease_s, longest_gap_s=2 * self._poll_s
        ):
            now = datetime.now(UTC)
            taken = await database.execute(
                "UPDATE job SET status = 'queued', due_at = ?, set_at = ?"
                " WHERE id = ? AND lease = ? AND due_at = ? AND status = 'running'",
                now,
                now,
                id,
                lease,
                renewed,
            )
            if taken:
                log.warning("job_taken_over", job=str(id))

    async def _run(self, job: dict[str, Any]) -> None:
        self._leases[job["id"]] = job["lease"]
        jobs.running_key.set(job["key"])
        context = JobContext(
            job_id=database.to_uuid(job["id"]),
            kind=job["kind"],
            payload=database.to_json(job["payload"]) or {},
            account_id=database.to_uuid(job["account_id"]) if job["account_id"] is not None else None,
            attempt=int(job["attempts"]),
            last_attempt=int(job["attempts"]) >= int(job["max_attempts"]),
            sealed=job["sealed"],
        )
        work = asyncio.ensure_future(self._work(context, int(job["max_attempts"])))
        heart = asyncio.create_task(self._heartbeat(job, work))
        try:
            await self._store_outcome(job, context, work)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the runner stops and requeues the job
            log.warning("job_lease_lost", kind=context.kind, job=str(context.job_id))
        finally:
            heart.cancel()
            if self._leases.get(job["id"]) == job["lease"]:
                del self._leases[job["id"]]

    async def _work(self, context: JobContext, max_attempts: int) -> None:
        if context.attempt > max_attempts:
            raise Permanent("attempts used up")  # its process died each time
        await jobs.handlers[context.kind](context)

    async def _store_outcome(self, job: dict[str, Any], context: JobContext, work: asyncio.Future[None]) -> None:
        # Without a stored outcome the job would run again.
        fatal: str | None = None
        try:
            await work
        except Later as later:
            await self._requeue(job, later.delay_s, attempts=context.attempt - 1, error=None)
        except Permanent as error:
            fatal = str(error)
        except Exception as error:  # noqa: BLE001 (the loop's top)
            if database_errors.is_transient(error):
                await self._retry_after_database_error(job, context, error)
                return
            if not context.last_attempt:
                await self._requeue(
                    job, delay_before(context.attempt), attempts=context.attempt, error=_described(error)
                )
                log.warning("job_retry", kind=context.kind, job=str(context.job_id), error=type(error).__name__)
            else:
                fatal = _described(error)
        else:
            await self._finish(job, "done", error=None)
        self._setbacks.pop(context.job_id, None)
        if fatal is not None:
            await self._mark_dead(job, context, fatal)

    async def _retry_after_database_error(self, job: dict[str, Any], context: JobContext, error: Exception) -> None:
        n = self._setbacks[context.job_id] = self._setbacks.get(context.job_id, 0) + 1
        delay_s = min(delay_before(min(n, 10)), DATABASE_BACK_OFF_S)
        await self._requeue(job, delay_s, attempts=context.attempt - 1, error=_described(error))
        log.warning("job_set_back", kind=context.kind, job=str(context.job_id), error=type(error).__name__)

    async def _mark_dead(self, job: dict[str, Any], context: JobContext, error: str) -> None:
        log.error("job_dead", kind=context.kind, job=str(context.job_id), error=error.partition(":")[0])
        if context.kind in jobs.periods:
            await self._finish(job, "done", error=error)
            return
        on_dead = jobs.dead_handlers[context.kind]
        if not isinstance(on_dead, str):
            try:
                await on_dead(context, error)
            except Later as later:
                await self._requeue(job, later.delay_s, attempts=0, error=error)
                return
            except Exception as failure:  # noqa: BLE001 (the loop's top)
                if database_errors.is_transient(failure):
                    await self._retry_after_database_error(job, context, failure)  # it runs and dies once more
                    return
                log.error("job_owner_failed", kind=context.kind, job=str(context.job_id), error=type(failure).__name__)
        await self._finish(job, "dead", error=error)

    async def _heartbeat(self, job: dict[str, Any], work: asyncio.Future[None]) -> None:
        while True:
            await asyncio.sleep(self._lease_s / BEATS)
            try:
                kept = await database.execute_aside(
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
        now = datetime.now(UTC)
        await database_errors.retry_transient(
            lambda: database.execute(
                "UPDATE job SET status = CASE WHEN again_at IS NULL THEN ? ELSE 'queued' END,"
                " attempts = CASE WHEN again_at IS NULL THEN attempts ELSE 0 END,"
                " due_at = COALESCE(again_at, due_at), set_at = ?, again_at = NULL, last_error = ?"
                " WHERE id = ? AND lease = ? AND status = 'running'",
                status,
                now,
                error,
                job["id"],
                job["lease"],
            )
        )

    async def _requeue(self, job: dict[str, Any], delay_s: float, *, attempts: int, error: str | None) -> None:
        now = datetime.now(UTC)
        due_at = now + timedelta(seconds=delay_s)
        await database_errors.retry_transient(
            lambda: database.execute(
                "UPDATE job SET status = 'queued', due_at = CASE WHEN again_at < ? THEN again_at ELSE ? END, set_at = ?,"
                " again_at = NULL, attempts = ?, last_error = ? WHERE id = ? AND lease = ? AND status = 'running'",
                due_at,
                due_at,
                now,
                attempts,
                error,
                job["id"],
                job["lease"],
            )
        )


class _Watch:
    def __init__(self) -> None:
        self._unchanged_s: dict[tuple[Any, ...], float] = {}
        self._looked_at = 0.0

    def silent(
        self, seen: set[tuple[Any, ...]], at: float, *, for_s: float, longest_gap_s: float
    ) -> list[tuple[Any, ...]]:
        passed_s = min(at - self._looked_at, longest_gap_s)
        self._looked_at = at
        before = self._unchanged_s
        self._unchanged_s = {one: before[one] + passed_s if one in before else 0.0 for one in seen}
        return [one for one, unchanged_s in self._unchanged_s.items() if unchanged_s >= for_s]


def _described(error: Exception) -> str:
    # Class and our own message; never a body, which may hold personal data.
    return f"{type(error).__name__}: {error}"[:300]
