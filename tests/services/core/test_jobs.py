"""Background work: run at least once, by one runner at a time, never lost, dead when it can't succeed, never without its commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import pytest
from tortoise.exceptions import OperationalError

from integrations.base import IntegrationError
from models import database as db
from models.tables import Job, Tick
from services.core import job_runner, jobs, ticks
from services.core.job_runner import Runner
from services.core.jobs import JobContext, Later, Permanent
from tests.clock import moved

Register = Callable[..., None]


@pytest.fixture
def register(database: str, monkeypatch: pytest.MonkeyPatch) -> Register:
    """Registers handlers for one test; nothing periodic runs beside it."""
    monkeypatch.setattr(jobs, "handlers", {})
    monkeypatch.setattr(jobs, "dead_handlers", {})
    monkeypatch.setattr(jobs, "periods", {})

    def add_handler(kind: str, function: jobs.Handler, on_dead: jobs.DeadHandler | str = "nothing to do") -> None:
        jobs.handler(kind, on_dead=on_dead)(function)

    return add_handler


async def add(kind: str, **options: Any) -> None:
    """Enqueue with an empty payload."""
    await jobs.enqueue(kind, options.pop("payload", {}), account_id=None, **options)


async def the_job() -> Job:
    """The only one."""
    return await Job.get()


async def hasten() -> None:
    """Let what waits be due."""
    await db.execute("UPDATE job SET due_at = ?", datetime.now(UTC))


async def test_a_job_runs_once_and_is_done(register: Register) -> None:
    seen: list[JobContext] = []

    async def work(job: JobContext) -> None:
        seen.append(job)

    register("work", work)
    await add("work", payload={"n": 1})
    assert await Runner().run_due() == 1
    assert await Runner().run_due() == 0
    assert [(job.payload, job.attempt, job.last_attempt) for job in seen] == [({"n": 1}, 1, False)]
    assert (await the_job()).status == "done"


async def test_a_key_is_taken_once(register: Register) -> None:
    for n in range(3):
        await add("work", key="k", payload={"n": n})
    assert (await the_job()).payload == {"n": 0}


async def test_again_queues_what_has_ended_and_leaves_what_has_not(register: Register) -> None:
    ran = []

    async def work(job: JobContext) -> None:
        ran.append(job.payload["n"])

    register("work", work)
    for n in range(2):
        await add("work", key="k", payload={"n": n}, again=True)
    assert await Runner().run_due() == 1
    await add("work", key="k", payload={"n": 2}, again=True)
    assert await Runner().run_due() == 1
    assert ran == [0, 2]
    assert await Job.all().count() == 1


async def test_a_rolled_back_enqueue_never_runs(register: Register) -> None:
    ran = []

    async def work(_: JobContext) -> None:
        ran.append(1)

    async def fail() -> None:
        async with db.transaction():
            await add("work", key="k")
            raise ZeroDivisionError

    register("work", work)
    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await Runner().run_due() == 0
    assert ran == []
    await add("work", key="k")
    assert await Runner().run_due() == 1


async def test_two_runners_never_run_one_job_at_the_same_time(register: Register) -> None:
    running: set[object] = set()
    doubled = []
    ran = []

    async def work(job: JobContext) -> None:
        if job.job_id in running:
            doubled.append(job.job_id)
        running.add(job.job_id)
        await asyncio.sleep(0)
        ran.append(job.job_id)
        running.discard(job.job_id)

    register("work", work)
    for _ in range(60):
        await add("work")
    await asyncio.gather(*(Runner(places=3).run_due() for _ in range(4)))
    assert doubled == []
    assert len(ran) == len(set(ran)) == 60
    assert await Job.filter(status="done").count() == 60


async def test_a_claim_takes_no_more_than_its_places(register: Register) -> None:
    async def work(_: JobContext) -> None: ...

    register("work", work)
    for _ in range(10):
        await add("work")
    assert len(await Runner()._claim(3)) == 3
    assert await Job.filter(status="running").count() == 3


async def test_the_lease_of_a_killed_runner_is_taken_over(register: Register) -> None:
    attempts = []

    async def work(job: JobContext) -> None:
        attempts.append(job.attempt)

    register("work", work)
    await add("work")
    (claimed,) = await Runner()._claim(1)  # this runner is killed now
    await hasten()
    assert await Runner().run_due() == 0
    assert await Runner(lease_s=0).run_due() == 1
    assert attempts == [2]
    dead = Runner()
    await dead._finish(claimed, "dead", error="too late")  # it was only slow: it has nothing to say any more
    await dead._again(claimed, 0, attempts=0, error="too late")
    job = await the_job()
    assert (job.status, job.last_error) == ("done", None)


async def test_a_job_that_kills_its_process_every_time_ends_dead(register: Register) -> None:
    ran = []

    async def work(_: JobContext) -> None:
        ran.append(1)

    register("work", work)
    await add("work", max_attempts=3)
    for _ in range(3):
        runner = Runner(lease_s=0)
        await runner._take_over()
        assert len(await runner._claim(1)) == 1
    assert await Runner(lease_s=0).run_due() == 1
    job = await the_job()
    assert (job.status, job.last_error) == ("dead", "attempts used up")
    assert ran == []


async def test_only_leases_that_are_not_renewed_are_taken_over_whatever_the_wall_clock_says(
    register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two jobs of two other processes; one of them lives. Monotonic time is the test's, and the wall clock jumps."""

    async def work(_: JobContext) -> None: ...

    register("work", work)
    at = 1000.0
    monkeypatch.setattr(job_runner, "time", SimpleNamespace(monotonic=lambda: at))
    for key in ("living", "killed"):
        await add("work", key=key)
        await Runner()._claim(1)
    watcher = Runner()

    async def taken(passed_s: float, *, renewed: bool) -> list[str]:
        nonlocal at
        at += passed_s
        if renewed:
            await db.execute("UPDATE job SET due_at = ? WHERE key = 'living'", datetime.now(UTC))
        await watcher._take_over()
        return sorted(job.key or "" for job in await Job.filter(status="queued"))

    with moved() as clock:
        assert await taken(1, renewed=True) == []
        clock.move(timedelta(days=1))  # every lease ended long ago, by this clock
        for _ in range(3):
            assert await taken(1, renewed=True) == []
        clock.move(timedelta(days=-2))  # and now none has begun
        assert await taken(60, renewed=False) == []  # the database was away: nobody could renew
        assert [await taken(1, renewed=True) for _ in range(3)] == [[], [], ["killed"]]
        assert await taken(1, renewed=True) == ["killed"]
        assert await watcher.run_due() == 1  # at once, though the clock was set back


async def test_a_process_does_not_take_over_its_own_jobs(register: Register) -> None:
    began, go, ran = asyncio.Event(), asyncio.Event(), []

    async def work(_: JobContext) -> None:
        ran.append(1)
        began.set()
        await go.wait()

    register("work", work)
    await add("work")
    runner = Runner()
    run = asyncio.create_task(runner.run_due())
    await began.wait()
    runner._lease_s = 0  # as if no heartbeat had got through
    await runner._take_over()
    await runner._take_over()
    assert (await the_job()).status == "running"
    go.set()
    assert await run == 1
    assert ran == [1]


async def test_errors_of_the_database_use_no_attempts_up_and_errors_of_the_handler_do(register: Register) -> None:
    locked = asyncpg.LockNotAvailableError("canceling statement due to lock timeout")
    unavailable: list[Exception] = [
        OperationalError(locked),
        ConnectionRefusedError(),
        OperationalError(asyncpg.TooManyConnectionsError("full")),
    ]
    unavailable += [TimeoutError(), OperationalError(asyncpg.AdminShutdownError("shut down")), OperationalError(locked)]
    attempts: list[int] = []
    errors: list[Exception] = [*unavailable, ValueError("a bug"), *unavailable, ValueError("a bug")]

    async def work(job: JobContext) -> None:
        attempts.append(job.attempt)
        raise errors[len(attempts) - 1]

    register("work", work)
    await add("work", max_attempts=2)
    runner, waits = Runner(), []
    for _ in errors:
        assert await runner.run_due() == 1
        waits.append(((await the_job()).due_at - datetime.now(UTC)).total_seconds())
        await hasten()
    assert attempts == [1] * 7 + [2] * 7
    job = await the_job()
    assert (job.status, job.last_error) == ("dead", "ValueError: a bug")
    assert max(waits) <= job_runner.DATABASE_BACK_OFF_S
    assert waits[0] < 1 < waits[3]  # they grow


async def test_an_error_of_a_vendor_counts_though_a_connection_is_its_cause(register: Register) -> None:
    async def work(_: JobContext) -> None:
        try:
            raise ConnectionRefusedError
        except ConnectionRefusedError as error:
            raise IntegrationError("v", "unreachable", retryable=True) from error

    register("work", work)
    await add("work", max_attempts=1)
    assert await Runner().run_due() == 1
    assert (await the_job()).status == "dead"


async def test_an_end_that_the_database_does_not_take_is_written_when_it_does(
    register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []

    async def work(_: JobContext) -> None:
        ran.append(1)

    register("work", work)
    await add("work")
    execute = db.execute
    failed: list[int] = []

    async def sometimes(sql: str, *args: object) -> int:
        if sql.startswith("UPDATE job SET status = CASE") and len(failed) < 2:
            failed.append(1)
            raise ConnectionError
        return await execute(sql, *args)

    monkeypatch.setattr(db, "execute", sometimes)
    assert await Runner().run_due() == 1
    assert (len(failed), ran) == (2, [1])
    job = await the_job()
    assert (job.status, job.attempts) == ("done", 1)


async def test_a_dying_job_tells_its_owner_who_may_let_it_live(register: Register) -> None:
    told: list[tuple[str, str, str]] = []

    async def fails(_: JobContext) -> None:
        raise ValueError("no luck")

    async def bury(job: JobContext, error: str) -> None:
        told.append((job.kind, error, (await Job.get(id=job.job_id)).status))

    async def keep(job: JobContext, error: str) -> None:
        await bury(job, error)
        raise Later(600)

    async def fail_too(job: JobContext, error: str) -> None:
        await bury(job, error)
        raise ZeroDivisionError

    for kind, owner in (("bury", bury), ("keep", keep), ("fail_too", fail_too)):
        register(kind, fails, owner)
        await add(kind, max_attempts=1)
    assert await Runner().run_due() == 3
    error = "ValueError: no luck"
    assert sorted(told) == [(kind, error, "running") for kind in ("bury", "fail_too", "keep")]
    left = {job.kind: (job.status, job.attempts, job.last_error) for job in await Job.all()}
    assert left == {"bury": ("dead", 1, error), "keep": ("queued", 0, error), "fail_too": ("dead", 1, error)}
    assert (await Job.get(kind="keep")).due_at > datetime.now(UTC) + timedelta(seconds=590)


def test_every_kind_of_job_has_an_owner_or_says_why_not() -> None:
    import app  # noqa: F401 (loads every module that registers a job)

    assert len(jobs.handlers) >= 20
    assert set(jobs.dead_handlers) == set(jobs.handlers)
    for kind, owner in jobs.dead_handlers.items():
        assert callable(owner) or len(owner) > 20, kind
    # These carry a promise to a person: a sentence is not enough.
    assert all(callable(jobs.dead_handlers[kind]) for kind in ("message.send", "refund.settle", "checkout.expire"))
    assert callable(jobs.dead_handlers["attachment.fetch"])


async def test_a_wish_that_comes_while_the_job_runs_is_kept(register: Register) -> None:
    began, go, ran = asyncio.Event(), asyncio.Event(), []
    outcome: list[Exception | None] = [None, Later(3600), ValueError(), None]

    async def work(job: JobContext) -> None:
        ran.append(job.payload["n"])
        began.set()
        await go.wait()
        if (error := outcome[len(ran) - 1]) is not None:
            raise error

    register("work", work)
    await add("work", key="k", payload={"n": 0}, max_attempts=1)
    runner = Runner()
    for n in (1, 2, 3):
        began.clear()
        run = asyncio.create_task(runner._claim(1))
        (job,) = await run
        task = asyncio.create_task(runner._run(job))
        await began.wait()
        await add("work", key="k", payload={"n": n}, again=True)
        await add("work", key="k", payload={"n": n}, again=True, due_at=datetime.now(UTC) + timedelta(days=1))
        assert (await the_job()).status == "running"
        go.set()
        await task
        go.clear()
        row = await the_job()
        assert (row.status, row.attempts, row.again_at) == ("queued", 0, None)
        assert row.due_at <= datetime.now(UTC)  # the earlier of the two wishes
    go.set()
    assert await runner.run_due() == 1
    assert ran == [0, 1, 2, 3]
    assert (await the_job()).status == "done"


async def test_a_job_that_wishes_itself_waits_as_it_says(register: Register) -> None:
    async def work(_: JobContext) -> None:
        await add("work", key="k", again=True)
        raise Later(600)

    register("work", work)
    await add("work", key="k")
    assert await Runner().run_due() == 1
    row = await the_job()
    assert row.due_at > datetime.now(UTC) + timedelta(seconds=590)
    assert row.again_at is None


async def test_operators_see_requeue_and_drop_dead_jobs_only(register: Register) -> None:
    ran: list[str] = []

    async def work(job: JobContext) -> None:
        ran.append(job.kind)

    for kind in ("a", "b"):
        register(kind, work)
    now = datetime.now(UTC)
    rows = {
        (kind, status): await Job.create(
            id=uuid4(), kind=kind, status=status, attempts=5, due_at=now + timedelta(days=1), last_error="ValueError"
        )
        for kind in ("a", "b")
        for status in ("dead", "done", "queued")
    }
    assert {job.id for job in await jobs.dead()} == {rows["a", "dead"].id, rows["b", "dead"].id}
    assert [job.id for job in await jobs.dead("a")] == [rows["a", "dead"].id]
    everything = [row.id for row in rows.values()]
    assert await jobs.drop([rows["b", "dead"].id, rows["b", "done"].id, rows["b", "queued"].id]) == 1
    assert await jobs.requeue(everything) == 1
    assert await Runner().run_due() == 1
    assert ran == ["a"]
    assert await Job.all().count() == 5


async def test_a_failing_job_is_tried_again_later_and_dead_at_its_last_attempt(register: Register) -> None:
    seen = []

    async def work(job: JobContext) -> None:
        seen.append((job.attempt, job.last_attempt))
        raise ValueError("no luck")

    register("work", work)
    await add("work", max_attempts=3)
    for _ in range(3):
        assert await Runner().run_due() == 1
        assert await Runner().run_due() == 0  # not at once
        await hasten()
    assert await Runner().run_due() == 0
    assert seen == [(1, False), (2, False), (3, True)]
    job = await the_job()
    assert (job.status, job.last_error) == ("dead", "ValueError: no luck")


async def test_permanent_ends_dead_at_once(register: Register) -> None:
    async def work(_: JobContext) -> None:
        raise Permanent("never")

    register("work", work)
    await add("work")
    assert await Runner().run_due() == 1
    job = await the_job()
    assert (job.status, job.last_error, job.attempts) == ("dead", "never", 1)


async def test_later_does_not_count_as_an_attempt(register: Register) -> None:
    attempts = []

    async def work(job: JobContext) -> None:
        attempts.append(job.attempt)
        if len(attempts) < 5:
            raise Later(60)

    register("work", work)
    await add("work", max_attempts=2)
    for _ in range(5):
        await Runner().run_due()
        await hasten()
    assert attempts == [1] * 5
    assert (await the_job()).status == "done"


async def test_the_delay_grows_from_a_fifth_of_a_second_to_an_hour() -> None:
    delays = [job_runner.delay_before(attempt) for attempt in range(1, 400)]
    assert 0.15 <= delays[0] <= 0.25
    assert 2.4 <= delays[2] <= 4.0
    assert all(2700 <= delay <= 4500 for delay in delays[10:])


async def test_a_job_that_is_not_due_and_a_kind_that_nobody_knows_are_left(register: Register) -> None:
    async def work(_: JobContext) -> None: ...

    register("work", work)
    await add("work", due_at=datetime.now(UTC) + timedelta(minutes=1))
    await add("of an older release")
    assert await Runner().run_due() == 0
    assert await Job.filter(status="queued").count() == 2


async def test_a_lost_lease_stops_the_handler(register: Register) -> None:
    began, ended = asyncio.Event(), []

    async def work(_: JobContext) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    register("work", work)
    await add("work")
    run = asyncio.create_task(Runner(lease_s=0.3).run_due())
    await began.wait()
    await db.execute("UPDATE job SET lease = 'another', due_at = ?", datetime.now(UTC) + timedelta(minutes=1))
    assert await asyncio.wait_for(run, 20) == 1
    assert ended == [1]
    job = await the_job()
    assert (job.status, job.lease) == ("running", "another")


async def test_a_long_job_keeps_its_lease(register: Register) -> None:
    began, go = asyncio.Event(), asyncio.Event()

    async def work(_: JobContext) -> None:
        began.set()
        await go.wait()

    register("work", work)
    await add("work")
    run = asyncio.create_task(Runner(lease_s=0.3).run_due())
    await began.wait()
    first = (await the_job()).due_at
    while (await the_job()).due_at == first:  # the heartbeat moves it
        await asyncio.sleep(0.02)
    go.set()
    await run
    assert (await the_job()).status == "done"


async def test_the_started_runner_works_on_what_is_enqueued_and_hands_back_what_it_cannot_end(
    register: Register,
) -> None:
    quick_done, slow_began = asyncio.Event(), asyncio.Event()

    async def quick(_: JobContext) -> None:
        quick_done.set()

    async def slow(_: JobContext) -> None:
        slow_began.set()
        await asyncio.Event().wait()

    register("quick", quick)
    register("slow", slow)
    runner = Runner(poll_s=60)
    await runner.start()
    try:
        async with db.transaction():
            await add("quick")
        await asyncio.wait_for(quick_done.wait(), 20)
        await add("slow")
        await asyncio.wait_for(slow_began.wait(), 20)
    finally:
        await runner.stop(grace_s=0.05)
    left = await Job.get(kind="slow")
    assert (left.status, left.attempts) == ("queued", 0)
    assert left.due_at <= datetime.now(UTC)
    await add("quick")
    assert await Job.filter(kind="quick", status="queued").count() == 1  # nobody claims any more


async def test_a_runner_survives_a_database_that_fails_for_a_moment(
    register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = asyncio.Event()
    failures: list[int] = []

    async def work(_: JobContext) -> None:
        done.set()

    register("work", work)
    runner = Runner(poll_s=0.01)
    claim = runner._claim

    async def sometimes(count: int) -> list[dict[str, Any]]:
        if len(failures) < 3:
            failures.append(1)
            raise ConnectionError
        return await claim(count)

    monkeypatch.setattr(runner, "_claim", sometimes)
    await add("work")
    await runner.start()
    with suppress(TimeoutError):
        await asyncio.wait_for(done.wait(), 20)
    await runner.stop()
    assert done.is_set()
    assert len(failures) == 3


# ----------------------------------------------------------------------------------------------------------- periodic
async def test_a_slot_is_enqueued_by_one_process_and_not_while_the_last_one_runs(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "handlers", {})
    monkeypatch.setattr(jobs, "dead_handlers", {})
    monkeypatch.setattr(jobs, "periods", {})
    ran = []

    @jobs.periodic("round", 60)
    async def work(_: JobContext) -> None:
        ran.append(1)

    await asyncio.gather(*(ticks.plant() for _ in range(3)))
    await asyncio.gather(*(ticks.fire() for _ in range(5)))
    assert await Job.all().count() == 1
    await Tick.all().update(next_at=datetime.now(UTC))
    await ticks.fire()
    assert await Job.all().count() == 1  # the first has not run yet
    await Runner().run_due()
    await ticks.fire()
    assert await Job.all().count() == 1  # the slot was used up
    await Tick.all().update(next_at=datetime.now(UTC))
    await ticks.fire()
    await Runner().run_due()
    assert ran == [1, 1]


async def test_after_a_jump_of_the_clock_every_periodic_job_and_every_waiting_job_keeps_its_time(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "handlers", {})
    monkeypatch.setattr(jobs, "dead_handlers", {})
    monkeypatch.setattr(jobs, "periods", {})
    corrected: list[datetime] = []

    async def correct(now: datetime) -> None:
        corrected.append(now)

    monkeypatch.setattr(jobs, "clock_corrections", [correct])
    periods = {"often": 15.0, "hourly": 3600.0, "daily": 86_400.0}
    ran: list[str] = []

    async def work(job: JobContext) -> None:
        ran.append(job.kind)

    for name, every_s in periods.items():
        jobs.periodic(name, every_s)(work)
    jobs.handler("once", on_dead="nothing to do")(work)

    async def look() -> list[str]:
        """What one look of a runner starts."""
        ran.clear()
        await ticks.correct_due_times()
        await ticks.fire()
        await Runner().run_due()
        return sorted(ran)

    with moved() as clock:
        now = clock.now
        everything = sorted(periods)
        await ticks.plant()
        assert await look() == everything
        clock.move(timedelta(days=1, seconds=1))
        assert await look() == everything
        await add("once", key="a", due_at=now() + timedelta(minutes=5))
        # A periodic job that was queued, and not yet run, by the clock ahead.
        await add("often", key="b", due_at=now() + timedelta(seconds=1))
        assert corrected == []
        for back in (timedelta(days=1), timedelta(hours=1)):
            clock.move(-back)
            started = await look()
            assert "hourly" in started if back < timedelta(days=1) else started == ["daily", "hourly"]
            assert 290 < ((await Job.get(key="a")).due_at - now()).total_seconds() <= 300
            for name, every_s in periods.items():
                left = ((await Tick.get(name=name)).next_at - now()).total_seconds()
                assert left <= every_s + ticks.CLOCK_SKEW.total_seconds()
            clock.move(timedelta(seconds=2))
            await look()
            clock.move(timedelta(seconds=15))
            assert await look() == ["often"]
        assert len(corrected) == 2
        assert await look() == []
        clock.move(timedelta(minutes=5))
        assert await look() == ["often", "once"]


async def test_a_periodic_job_that_fails_or_is_killed_leaves_no_dead_row(register: Register) -> None:
    async def fails(_: JobContext) -> None:
        raise ValueError("no luck")

    jobs.periodic("round", 60)(fails)
    await ticks.plant()
    await ticks.fire()
    for _ in range(ticks.PERIODIC_ATTEMPTS):
        assert await Runner().run_due() == 1
        await hasten()
    assert [(job.status, job.last_error) for job in await Job.all()] == [("done", "ValueError: no luck")]
    await Tick.all().update(next_at=datetime.now(UTC))
    await ticks.fire()
    for _ in range(ticks.PERIODIC_ATTEMPTS):  # its process is killed at every try
        runner = Runner(lease_s=0)
        await runner._take_over()
        assert len(await runner._claim(1)) == 1
    assert await Runner(lease_s=0).run_due() == 1
    assert sorted(job.last_error or "" for job in await Job.filter(status="done")) == [
        "ValueError: no luck",
        "attempts used up",
    ]
    assert await Job.filter(status="dead").count() == 0
    # What an older release left.
    old = await Job.create(id=uuid4(), kind="round", status="dead", due_at=datetime.now(UTC))
    await ticks._prune(JobContext(job_id=uuid4(), kind="x", payload={}, account_id=None, attempt=1, last_attempt=True))
    assert not await Job.exists(id=old.id)


async def test_a_kind_has_one_handler(register: Register) -> None:
    async def work(_: JobContext) -> None: ...

    register("work", work)
    with pytest.raises(RuntimeError, match="two handlers"):
        register("work", work)


async def test_finished_jobs_are_forgotten_after_a_day_and_dead_ones_after_a_month(register: Register) -> None:
    now = datetime.now(UTC)
    for status in ("done", "dead", "queued"):
        for days in (0, 2, 40):
            await Job.create(
                id=uuid4(), kind=f"{status} {days}", status=status, due_at=now, created_at=now - timedelta(days=days)
            )
    await ticks._prune(JobContext(job_id=uuid4(), kind="x", payload={}, account_id=None, attempt=1, last_attempt=True))
    left = sorted(job.kind for job in await Job.all())
    assert left == ["dead 0", "dead 2", "done 0", "queued 0", "queued 2", "queued 40"]
