"""Background work: run at least once, by one runner at a time, never lost, dead when it can't succeed, never without its commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from models import database as db
from models.tables import Job, Tick
from services import jobs
from services.jobs import JobContext, Later, Permanent, Runner

Register = Callable[[str, jobs.Handler], None]


@pytest.fixture
def register(database: str, monkeypatch: pytest.MonkeyPatch) -> Register:
    """Registers handlers for one test; nothing periodic runs beside it."""
    monkeypatch.setattr(jobs, "_handlers", {})
    monkeypatch.setattr(jobs, "_periodic", {})

    def add_handler(kind: str, function: jobs.Handler) -> None:
        jobs.handler(kind)(function)

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
    assert await Runner().run_due() == 0
    await hasten()  # its lease is over
    assert await Runner().run_due() == 1
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
        await Runner()._claim(1)
        await hasten()
    assert await Runner().run_due() == 1
    job = await the_job()
    assert (job.status, job.last_error) == ("dead", "attempts used up")
    assert ran == []


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
    delays = [jobs.delay_before(attempt) for attempt in range(1, 400)]
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
    monkeypatch.setattr(jobs, "_handlers", {})
    monkeypatch.setattr(jobs, "_periodic", {})
    ran = []

    @jobs.periodic("round", 60)
    async def work(_: JobContext) -> None:
        ran.append(1)

    await asyncio.gather(*(jobs._plant_ticks() for _ in range(3)))
    await asyncio.gather(*(jobs._fire_ticks() for _ in range(5)))
    assert await Job.all().count() == 1
    await Tick.all().update(next_at=datetime.now(UTC))
    await jobs._fire_ticks()
    assert await Job.all().count() == 1  # the first has not run yet
    await Runner().run_due()
    await jobs._fire_ticks()
    assert await Job.all().count() == 1  # the slot was used up
    await Tick.all().update(next_at=datetime.now(UTC))
    await jobs._fire_ticks()
    await Runner().run_due()
    assert ran == [1, 1]


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
    await jobs._prune(JobContext(job_id=uuid4(), kind="x", payload={}, account_id=None, attempt=1, last_attempt=True))
    left = sorted(job.kind for job in await Job.all())
    assert left == ["dead 0", "dead 2", "done 0", "queued 0", "queued 2", "queued 40"]
