"""Jobs: queueing by key, dying, and what operators do with dead ones."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from commands import job_modules
from models import database as db
from models.tables import Job
from services.core import job_runner, jobs
from services.core.job_runner import Runner
from services.core.jobs import JobContext, Later, Permanent
from tests.services.core.conftest import Register, add, hasten, the_job


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


async def test_a_dying_job_tells_its_owner_who_may_let_it_live(register: Register) -> None:
    deaths: list[tuple[str, str, str]] = []

    async def fails(_: JobContext) -> None:
        raise ValueError("no luck")

    async def bury(job: JobContext, error: str) -> None:
        deaths.append((job.kind, error, (await Job.get(id=job.job_id)).status))

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
    assert sorted(deaths) == [(kind, error, "running") for kind in ("bury", "fail_too", "keep")]
    left = {job.kind: (job.status, job.attempts, job.last_error) for job in await Job.all()}
    assert left == {"bury": ("dead", 1, error), "keep": ("queued", 0, error), "fail_too": ("dead", 1, error)}
    assert (await Job.get(kind="keep")).due_at > datetime.now(UTC) + timedelta(seconds=590)


def test_every_module_that_registers_jobs_is_listed() -> None:
    services = Path(job_modules.__file__).parent.parent / "services"
    # A kind of email is the work of one job.
    registers = re.compile(r"^(@jobs\.|mailing\.kinds\[)", re.MULTILINE)
    registering = {path for path in services.rglob("*.py") if registers.search(path.read_text())}
    assert {Path(str(module.__file__)) for module in job_modules.JOB_MODULES} == registering


def test_every_kind_of_job_has_an_owner_or_says_why_not() -> None:
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
        assert await Runner().run_due() == 0  # not immediately
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


async def test_a_kind_has_one_handler(register: Register) -> None:
    async def work(_: JobContext) -> None: ...

    register("work", work)
    with pytest.raises(RuntimeError, match="two handlers"):
        register("work", work)
