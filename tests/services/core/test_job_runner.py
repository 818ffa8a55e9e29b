"""The job runner: claims, leases, errors, stopping."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import pytest
from tortoise.exceptions import OperationalError

from integrations.base import IntegrationError
from models import database as db
from models.tables import Job
from services.core import job_runner
from services.core.job_runner import Runner
from services.core.jobs import JobContext
from tests.clock import moved
from tests.services.core.conftest import Register, add, hasten, the_job


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
    await dead._requeue(claimed, 0, attempts=0, error="too late")
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
    # One of two other processes lives.

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
        assert await taken(60, renewed=False) == []  # the database was away: no process could renew
        assert [await taken(1, renewed=True) for _ in range(3)] == [[], [], ["killed"]]
        assert await taken(1, renewed=True) == ["killed"]
        assert await watcher.run_due() == 1  # immediately, though the clock was set back


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
    assert await Job.filter(kind="quick", status="queued").count() == 1  # no runner claims it any more


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
