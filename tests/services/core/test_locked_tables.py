"""Another PostgreSQL session locks a table: messages wait, none is lost or repeated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import pytest
from tortoise.exceptions import OperationalError

from integrations.base import IntegrationError, OutboundMessage, SendResult
from models import database as db
from models.database import open_database
from models.database_url import postgres_arguments
from models.tables import Job, Message
from services.core import job_runner, jobs
from services.messaging import sending
from tests.conftest import EMPTY_ALL, run_on
from tests.services.conftest import Team
from tests.services.outgoing import replace_vendor, send

KINDS = ("SMS", "EMAIL", "WEB_CHAT")


@pytest.fixture
async def database(postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """PostgreSQL with limits shorter than the locks of these tests."""
    monkeypatch.setattr(job_runner, "DATABASE_BACK_OFF_S", 0.1)
    await run_on(postgres_database, EMPTY_ALL)
    async with open_database(postgres_database, pool_max=5, lock_timeout_ms=50):
        yield postgres_database


@asynccontextmanager
async def locked(database: str, table: str) -> AsyncIterator[None]:
    other = await asyncpg.connect(**postgres_arguments(database))
    try:
        async with other.transaction():
            await other.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await other.close()


async def until(statuses: list[str]) -> None:
    async with asyncio.timeout(30):
        while True:
            with suppress(OperationalError, asyncpg.LockNotAvailableError):
                if [row.delivery_status for row in await Message.all().order_by("seq")] == statuses:
                    return
            await asyncio.sleep(0.02)


async def test_a_locked_table_uses_no_attempts_up_and_every_message_is_sent_once(
    database: str, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendors = [replace_vendor(team, kind, SendResult(external_id=kind)) for kind in KINDS]
    for kind in KINDS:
        await send(team, "Hello", kind)
    tries: list[str] = []
    set_back = job_runner.Runner._retry_after_database_error

    async def count(self: job_runner.Runner, job: object, context: jobs.JobContext, error: Exception) -> None:
        tries.append(context.payload["message_id"])
        await set_back(self, job, context, error)  # type: ignore[arg-type]

    monkeypatch.setattr(job_runner.Runner, "_retry_after_database_error", count)
    runner = job_runner.Runner(poll_s=0.05)
    await runner.start()
    try:
        async with locked(database, "message"), asyncio.timeout(60):
            while len(set(tries)) < 3 or min(map(tries.count, set(tries))) <= sending.SEND_ATTEMPTS:
                await asyncio.sleep(0.02)
            assert [vendor.sent for vendor in vendors] == [[], [], []]
        await until(["SENT"] * 3)
    finally:
        await runner.stop()
    assert [len(vendor.sent) for vendor in vendors] == [1, 1, 1]
    assert await Job.filter(kind="message.send", status="done", attempts=1).count() == 3


@pytest.mark.parametrize("taken", [True, False])
@pytest.mark.parametrize("table", ["message", "channel_connection"])
async def test_a_lock_while_the_vendor_answers_puts_no_answer_in_doubt(
    database: str, team: Team, table: str, taken: bool
) -> None:
    accepted = SendResult(external_id="v-1")
    refused = IntegrationError("v", "rate_limited", retryable=True, retry_after_s=1.0)
    vendor = replace_vendor(team, "SMS", accepted if taken else refused, accepted)
    team.channels["SMS"].last_error = "an old problem"
    await team.channels["SMS"].save()
    answer, holds = vendor.send, asyncio.Event()

    async def hold() -> None:
        async with locked(database, table):
            holds.set()
            await asyncio.sleep(0.5)  # ten times the lock time-out

    tasks: list[asyncio.Task[None]] = []

    async def answers(message: OutboundMessage) -> SendResult:
        if not tasks:
            tasks.append(asyncio.create_task(hold()))
            await holds.wait()
        return await answer(message)

    vendor.send = answers  # type: ignore[method-assign]
    await send(team, "Hello")
    runner = job_runner.Runner(poll_s=0.05)
    await runner.start()
    try:
        await until(["SENT"])
    finally:
        await runner.stop()
        await asyncio.gather(*tasks)
    assert len(vendor.sent) == (1 if taken else 2)
    assert (await Message.get()).external_id == "v-1"
    assert await Job.filter(kind="message.resolve").count() == 0


async def test_heartbeats_get_through_while_every_connection_of_the_pool_waits(database: str, team: Team) -> None:
    await jobs.enqueue("simulator.deliver", {}, account_id=None, key="long")
    runner = job_runner.Runner(lease_s=0.4)
    (job,) = await runner._claim(1)
    handler = asyncio.ensure_future(asyncio.Event().wait())
    held = [asyncio.create_task(_hold_a_connection()) for _ in range(5)]
    beat = asyncio.create_task(runner._heartbeat(job, handler))  # type: ignore[arg-type]
    other = await asyncpg.connect(**postgres_arguments(database))
    try:
        async with asyncio.timeout(20):
            await asyncio.sleep(0.1)
            seen = {await other.fetchval("SELECT due_at FROM job WHERE key = 'long'")}
            while len(seen) < 4:
                seen.add(await other.fetchval("SELECT due_at FROM job WHERE key = 'long'"))
                await asyncio.sleep(0.02)
        assert not any(task.done() for task in held)
    finally:
        await other.close()
        for task in (beat, handler, *held):
            task.cancel()
        await asyncio.gather(beat, handler, *held, return_exceptions=True)


async def _hold_a_connection() -> None:
    async with db.transaction():
        await asyncio.Event().wait()
