"""Background work: the row is the truth. Enqueued inside the business transaction, claimed with a lease, run at least once.

Each handler names the key that makes a second run harmless, and what becomes of its work when the job dies. A process that is killed
loses its leases: the other runners see that it does not renew them, by their own monotonic clocks. It ends at running handlers:
what they do stands in their services.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import structlog

from models import database, database_errors, vault
from models.ids import uuid7
from models.tables import Job, Tick

log = structlog.get_logger(__name__)

LEASE_S = 8.0  # a process that has not renewed its leases for so long counts as dead
BEATS = 4  # renewals per lease
POLL_S = 1.0
HEALTHY_S = 30.0
BACK_OFF_S = (0.2, 3600.0)  # first and longest delay; each is four times the one before, with jitter
DATABASE_BACK_OFF_S = 15.0  # the longest delay after an error of the database
PERIODIC_ATTEMPTS = 3  # then the next slot has its turn
CLOCK_SKEW = timedelta(
    seconds=10
)  # between the clocks of two servers; a time further ahead was set before the clock was set back
CORRECT_EVERY_S = 5.0
HAND_BACK_S = 5.0  # for a job whose process stops; a database that is away must not keep the process

Handler = Callable[["JobContext"], Awaitable[None]]
DeadHandler = Callable[["JobContext", str], Awaitable[None]]
_handlers: dict[str, Handler] = {}
_owners: dict[str, DeadHandler | str] = {}
_periodic: dict[str, float] = {}
_after_set_back: list[Callable[[datetime], Awaitable[None]]] = []
_running_key: ContextVar[str | None] = ContextVar("job_key", default=None)
_wake: asyncio.Event | None = None
_runner: Runner | None = None


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
    sealed: str | None = None

    @property
    def secret(self) -> str:
        """What was given to `enqueue` as `secret`. Raises: VaultError."""
        if self.sealed is None or self.account_id is None:
            raise RuntimeError("a job without a secret")
        return vault.unseal(self.account_id, self.sealed)


def handler(kind: str, *, on_dead: DeadHandler | str) -> Callable[[Handler], Handler]:
    """Register the coroutine that runs jobs of this kind.

    `on_dead` gets the context and the error of a job that will not run again, before it is marked dead; it must be safe to repeat.
    It raises `Later` for work that has to be finished: the job lives on with all its attempts. Or a sentence that says why nothing
    has to be done.
    """

    def register(function: Handler) -> Handler:
        if kind in _handlers:
            raise RuntimeError(f"two handlers for {kind}")
        _handlers[kind] = function
        _owners[kind] = on_dead
        return function

    return register


def periodic(name: str, every_s: float) -> Callable[[Handler], Handler]:
    """Register a coroutine that runs once per slot, on one process at a time."""

    def register(function: Handler) -> Handler:
        _periodic[name] = every_s
        return handler(name, on_dead="it runs again in its next slot")(function)

    return register


def after_set_back(function: Callable[[datetime], Awaitable[None]]) -> Callable[[datetime], Awaitable[None]]:
    """Register a coroutine that corrects stored times when the clock was set back; it gets the time now. It must be safe to repeat."""
    _after_set_back.append(function)
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
    """Add a job, inside the caller's transaction if there is one. A key that exists already: nothing is added.

    `again`: for work that may be needed once more; a job of this key that has ended (done or dead) is queued anew, and one that
    runs now runs once more afterwards, unless it is the caller: that one says so by `Later`.
    `secret`: stored encrypted, for work of an account. The handler finds it in its context.
    """
    now = datetime.now(UTC)
    conflict = _AGAIN if again and (key is None or key != _running_key.get()) else "DO NOTHING"
    await database.execute(
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


def wake() -> None:
    """Let this process's runner look now instead of at its next poll."""
    if _wake is not None:
        _wake.set()


def healthy() -> bool | None:
    """Whether this process's runner has looked for jobs within HEALTHY_S; None: it has no runner."""
    return None if _runner is None else time.monotonic() - _runner._looked_at < HEALTHY_S


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
        self._mine: dict[object, str] = {}  # jobs that run here, and their leases
        self._others = _Watch()
        self._setbacks: dict[UUID, int] = {}  # job -> errors of the database in a row
        self._loop: asyncio.Task[None] | None = None
        self._stopping = False
        self._wake = asyncio.Event()
        self._looked_at = time.monotonic()

    async def start(self) -> None:
        """Begin to claim. Call from the lifespan, never inside a transaction."""
        global _wake, _runner
        _wake, _runner = self._wake, self
        await _plant_ticks()
        self._loop = asyncio.create_task(self._claim_forever(), name="job-runner")

    async def stop(self, *, grace_s: float = 10.0) -> None:
        """Stop claiming, wait for what runs, hand the rest back to the queue."""
        global _wake, _runner
        self._stopping = True
        if _runner is self:
            _runner = None
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
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HAND_BACK_S):
                    await asyncio.shield(self._again(job, 0.0, attempts=int(job["attempts"]) - 1, error=None))

    async def run_due(self) -> int:
        """Run what is due now and all that it enqueues, until nothing is due; return how many ran. For tests and the CLI."""
        ran = 0
        await self._take_over()
        while jobs := await self._claim(self._places):
            await asyncio.gather(*(self._run(job) for job in jobs))
            ran += len(jobs)
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
                        await _correct_due_times()
                    await _fire_ticks()
                    await self._take_over()
                free = self._places - len(self._running)
                if free:
                    jobs = await self._claim(free)
                    claimed = len(jobs)
                    for job in jobs:
                        task = asyncio.create_task(self._run(job), name=f"job {job['kind']}")
                        self._running[task] = job
                        task.add_done_callback(self._done)
                self._looked_at = time.monotonic()
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
        """Queue what runs at a process that does not renew its leases any more. Key: the lease and its last renewal.

        Only this process's monotonic clock counts: a wall clock that jumps, or goes wrong elsewhere, ends no lease.
        """
        at = time.monotonic()
        rows = await database.rows("SELECT id, lease, due_at FROM job WHERE status = 'running'")
        others = {(row["id"], row["lease"], row["due_at"]) for row in rows if self._mine.get(row["id"]) != row["lease"]}
        # A gap between two looks (a database that was away) says nothing about the others: they could not write either.
        for id, lease, renewed in self._others.silent(others, at, for_s=self._lease_s, longest_gap_s=2 * self._poll_s):
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
        self._mine[job["id"]] = job["lease"]
        _running_key.set(job["key"])
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
            await self._settle(job, context, work)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the runner stops; it hands the job back
            log.warning("job_lease_lost", kind=context.kind, job=str(context.job_id))
        finally:
            heart.cancel()
            if self._mine.get(job["id"]) == job["lease"]:
                del self._mine[job["id"]]

    async def _work(self, context: JobContext, max_attempts: int) -> None:
        if context.attempt > max_attempts:
            raise Permanent("attempts used up")  # its process died each time
        await _handlers[context.kind](context)

    async def _settle(self, job: dict[str, Any], context: JobContext, work: asyncio.Future[None]) -> None:
        """Wait for the run and write down what follows from it. What the database does not take is repeated: a job whose end is
        not stored would run again and use up an attempt."""
        said: str | None = None
        try:
            await work
        except Later as later:
            await self._again(job, later.delay_s, attempts=context.attempt - 1, error=None)
        except Permanent as error:
            said = str(error)
        except Exception as error:  # noqa: BLE001 (the loop's top: a failed job is tried again)
            if database_errors.is_transient(error):
                await self._set_back(job, context, error)
                return
            if not context.last_attempt:
                await self._again(job, delay_before(context.attempt), attempts=context.attempt, error=_words(error))
                log.warning("job_retry", kind=context.kind, job=str(context.job_id), error=type(error).__name__)
            else:
                said = _words(error)
        else:
            await self._finish(job, "done", error=None)
        self._setbacks.pop(context.job_id, None)
        if said is not None:
            await self._bury(job, context, said)

    async def _set_back(self, job: dict[str, Any], context: JobContext, error: Exception) -> None:
        """The database failed, not the handler: the attempt does not count, the pauses grow."""
        n = self._setbacks[context.job_id] = self._setbacks.get(context.job_id, 0) + 1
        delay_s = min(delay_before(min(n, 10)), DATABASE_BACK_OFF_S)
        await self._again(job, delay_s, attempts=context.attempt - 1, error=_words(error))
        log.warning("job_set_back", kind=context.kind, job=str(context.job_id), error=type(error).__name__)

    async def _bury(self, job: dict[str, Any], context: JobContext, error: str) -> None:
        """It will not run again: its owner is told, then it is marked dead. A periodic one has its next slot instead."""
        log.error("job_dead", kind=context.kind, job=str(context.job_id), error=error.partition(":")[0])
        if context.kind in _periodic:
            await self._finish(job, "done", error=error)
            return
        owner = _owners[context.kind]
        if not isinstance(owner, str):
            try:
                await owner(context, error)
            except Later as later:
                await self._again(job, later.delay_s, attempts=0, error=error)
                return
            except Exception as failure:  # noqa: BLE001 (the loop's top: the job ends all the same)
                if database_errors.is_transient(failure):
                    await self._set_back(job, context, failure)  # it runs and dies once more
                    return
                log.error("job_owner_failed", kind=context.kind, job=str(context.job_id), error=type(failure).__name__)
        await self._finish(job, "dead", error=error)

    async def _heartbeat(self, job: dict[str, Any], work: asyncio.Future[None]) -> None:
        """Move the lease while the handler runs; cancel the handler when the lease is lost."""
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
        """End it, or queue it anew if that was asked for while it ran."""
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

    async def _again(self, job: dict[str, Any], delay_s: float, *, attempts: int, error: str | None) -> None:
        """Queue it for later; earlier if that was asked for while it ran."""
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
    """For how long each of some states has been seen unchanged."""

    def __init__(self) -> None:
        self._unchanged_s: dict[tuple[Any, ...], float] = {}
        self._looked_at = 0.0

    def silent(
        self, seen: set[tuple[Any, ...]], at: float, *, for_s: float, longest_gap_s: float
    ) -> list[tuple[Any, ...]]:
        """Those of `seen` that have not changed for so long; `at`: the monotonic time before the look.

        Of the time between two looks at most `longest_gap_s` counts.
        """
        passed_s = min(at - self._looked_at, longest_gap_s)
        self._looked_at = at
        before = self._unchanged_s
        self._unchanged_s = {one: before[one] + passed_s if one in before else 0.0 for one in seen}
        return [one for one, unchanged_s in self._unchanged_s.items() if unchanged_s >= for_s]


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

    A slot passes unused while the job of an earlier one is not finished: one at a time. A slot further ahead than its period was
    planned before the clock was set back: it comes now, after what else was planned then is corrected.
    """
    now = datetime.now(UTC)
    ticks = await Tick.filter(name__in=list(_periodic))
    ahead = [tick for tick in ticks if tick.next_at > now + timedelta(seconds=_periodic[tick.name]) + CLOCK_SKEW]
    if ahead:
        log.warning("clock_set_back", delay_s=round((max(tick.next_at for tick in ahead) - now).total_seconds()))
        for correct in _after_set_back:
            await correct(now)
    for tick in [tick for tick in ticks if tick.next_at <= now or tick in ahead]:
        every_s = _periodic[tick.name]
        async with database.transaction():
            taken = await Tick.filter(name=tick.name, next_at=tick.next_at).update(
                next_at=now + timedelta(seconds=every_s), every_ms=int(every_s * 1000)
            )
            if taken and not await Job.exists(kind=tick.name, status__in=["queued", "running"]):
                slot = tick.next_at.isoformat()
                await enqueue(tick.name, {}, account_id=None, key=f"{tick.name}@{slot}", max_attempts=PERIODIC_ATTEMPTS)


async def _correct_due_times() -> None:
    """Let what was queued before the clock was set back wait as long as was meant, from now on. Key: the time at which it was set."""
    now = datetime.now(UTC)
    wrong = await database.rows(
        "SELECT id, due_at, set_at FROM job WHERE status = 'queued' AND due_at > ? AND set_at > ?",
        now,
        now + CLOCK_SKEW,
    )
    for row in wrong:
        waits = max(timedelta(), database.to_time(row["due_at"]) - database.to_time(row["set_at"]))
        await database.execute(
            "UPDATE job SET due_at = ?, set_at = ? WHERE id = ? AND status = 'queued' AND set_at = ?",
            now + waits,
            now,
            row["id"],
            row["set_at"],
        )


async def without_job(table: str, where: str, prefix: str, *, limit: int = 500) -> list[UUID]:
    """Ids of rows whose job (its key: `prefix` and the id) is neither queued nor running. For sweeps; give no text from outside."""
    rows = await database.rows(
        f"SELECT t.id FROM {table} t WHERE {where} AND NOT EXISTS (SELECT 1 FROM job j"  # noqa: S608 (only constants are put in)
        f" WHERE j.key = '{prefix}' || t.id AND j.status IN ('queued', 'running')) ORDER BY t.id LIMIT {limit:d}"
    )
    return [database.to_uuid(row["id"]) for row in rows]


# ---------------------------------------------------------------------------------------------------------- operators
async def dead(kind: str | None = None) -> list[Job]:
    """The jobs that died, newest first; of one kind if given."""
    found = Job.filter(status="dead") if kind is None else Job.filter(status="dead", kind=kind)
    return await found.order_by("-created_at", "-id")


async def requeue(ids: Sequence[UUID]) -> int:
    """Queue dead jobs anew, with all their attempts; how many. What a handler finds done already it leaves alone."""
    now = datetime.now(UTC)
    count = await Job.filter(id__in=ids, status="dead").update(status="queued", attempts=0, due_at=now, set_at=now)
    wake()
    return count


async def drop(ids: Sequence[UUID]) -> int:
    """Forget dead jobs; how many."""
    return await Job.filter(id__in=ids, status="dead").delete()


@periodic("jobs.prune", 3600)
async def _prune(job: JobContext) -> None:
    """Forget finished jobs after a day, dead ones after a month. Safe to repeat."""
    now = datetime.now(UTC)
    for status, kept in (("done", timedelta(days=1)), ("dead", timedelta(days=30))):
        await database.execute("DELETE FROM job WHERE status = ? AND created_at < ?", status, now - kept)
    # Releases before 0.2 marked periodic jobs dead: nobody has to look at them.
    await Job.filter(status="dead", kind__in=list(_periodic)).delete()
