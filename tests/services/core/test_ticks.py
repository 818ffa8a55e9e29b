"""Periodic jobs, and clocks that jump."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from models.tables import Job, Tick
from services.core import jobs, ticks
from services.core.job_runner import Runner
from services.core.jobs import JobContext
from tests.clock import moved
from tests.services.core.conftest import Register, add, hasten


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
