"""A mutation runs once per key: repeats, mismatches, races, faults and dead processes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from models import database as db
from models.errors import (
    AlreadyPaid,
    IdempotencyConcurrentRequest,
    IdempotencyKeyParameterMismatch,
    Invalid,
)
from models.tables import Contact, IdempotencyKey
from services.core import idempotency
from services.core.permissions import Actor, system_actor
from tests import factories

KEY = "8f14e45f-ceea-467f-9d1a-1c2b3d4e5f60"


@pytest.fixture
async def actor(database: str) -> Actor:
    return system_actor((await factories.account()).id)


class Work:
    def __init__(self, actor: Actor) -> None:
        self.actor = actor
        self.started = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.fault: Exception | None = None

    async def run(self, save: idempotency.Save) -> str:
        self.started.set()
        await self.go_on.wait()
        async with db.transaction():
            made = await Contact.create(account_id=self.actor.account_id, name="Made")
            if self.fault is not None:
                raise self.fault
            await save({"contact": str(made.id)})
        return str(made.id)

    async def rebuild(self, ids: dict[str, Any]) -> str:
        return str(ids["contact"])

    async def once(self, key: str = KEY, mutation: str = "make", **given: object) -> str:
        return await idempotency.once(self.actor, mutation, key, given, self.run, self.rebuild)


async def test_a_repeat_rebuilds_the_answer_and_makes_nothing(actor: Actor) -> None:
    work = Work(actor)
    first = await work.once(name="x", amount=1)
    assert await work.once(amount=1, name="x") == first
    assert await Contact.all().count() == 1


async def test_other_input_under_a_done_key_is_a_mismatch(actor: Actor) -> None:
    work = Work(actor)
    await work.once(name="x")
    with pytest.raises(IdempotencyKeyParameterMismatch) as refused:
        await work.once(name="y")
    assert refused.value.field == ("idempotencyKey",)
    assert await Contact.all().count() == 1


async def test_the_same_key_serves_another_mutation_and_another_account(actor: Actor) -> None:
    work = Work(actor)
    other = Work(system_actor((await factories.account()).id))
    assert len({await work.once(), await work.once(mutation="other"), await other.once()}) == 3


async def test_of_five_at_once_one_runs_and_the_others_are_told_to_wait(actor: Actor) -> None:
    work = Work(actor)
    work.go_on.clear()
    tasks = [asyncio.create_task(work.once(name="x")) for _ in range(5)]
    done, running = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    while len(done) < 4:
        more, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        done |= more
    assert {type(task.exception()) for task in done} == {IdempotencyConcurrentRequest}
    work.go_on.set()
    await asyncio.gather(*running)
    assert await Contact.all().count() == 1


@pytest.mark.parametrize("fault", [AlreadyPaid(), RuntimeError("bug")])
async def test_a_run_that_raises_changes_nothing_and_gives_the_key_back(actor: Actor, fault: Exception) -> None:
    work = Work(actor)
    work.fault = fault
    with pytest.raises(type(fault)):
        await work.once(name="x")
    assert await Contact.all().count() == 0
    assert await IdempotencyKey.all().count() == 0
    work.fault = None
    await work.once(name="corrected")
    assert await Contact.all().count() == 1


async def test_a_cancelled_run_gives_the_key_back(actor: Actor) -> None:
    work = Work(actor)
    work.go_on.clear()
    task = asyncio.create_task(work.once())
    await work.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await IdempotencyKey.all().count() == 0


@pytest.mark.parametrize("ends_in", [timedelta(seconds=-1), timedelta(seconds=7), timedelta(days=1)])
async def test_the_key_of_a_dead_process_is_taken_over_also_after_the_clock_was_set_back(
    actor: Actor, ends_in: timedelta
) -> None:
    await IdempotencyKey.create(
        account_id=actor.account_id,
        mutation="make",
        key=KEY,
        input_hash="0" * 64,
        state="running",
        locked_until=datetime.now(UTC) + ends_in,
    )
    first = await Work(actor).once(name="x")
    assert await Work(actor).once(name="x") == first
    assert await Contact.all().count() == 1


async def test_a_run_that_lost_its_key_is_rolled_back(actor: Actor) -> None:
    work = Work(actor)
    work.go_on.clear()
    slow = asyncio.create_task(work.once())
    await work.started.wait()
    await IdempotencyKey.all().update(locked_until=datetime.now(UTC) - timedelta(seconds=1))
    quick = await Work(actor).once()
    work.go_on.set()
    with pytest.raises(IdempotencyConcurrentRequest):
        await slow
    assert [str(row.id) for row in await Contact.all()] == [quick]
    assert await Work(actor).once() == quick


async def test_the_claim_of_a_run_that_goes_on_is_extended(actor: Actor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "LEASE", timedelta(seconds=1))
    monkeypatch.setattr(idempotency, "BEAT_S", 0.1)
    work = Work(actor)
    work.go_on.clear()
    slow = asyncio.create_task(work.once())
    await work.started.wait()
    first = (await IdempotencyKey.get()).locked_until
    async with asyncio.timeout(20):
        while datetime.now(UTC) < first + timedelta(seconds=0.5):
            with pytest.raises(IdempotencyConcurrentRequest):
                await Work(actor).once()
            await asyncio.sleep(0.05)
    assert (await IdempotencyKey.get()).locked_until > first
    work.go_on.set()
    assert await slow == await Work(actor).once()
    assert await Contact.all().count() == 1


async def test_a_claim_lasts_a_few_seconds_and_its_beat_fits_in_several_times() -> None:
    assert timedelta(seconds=3 * idempotency.BEAT_S) <= idempotency.LEASE <= timedelta(seconds=4)


@pytest.mark.parametrize("key", ["", "1234567", "x" * 65, "abcd\x00efgh"])
async def test_a_key_of_wrong_length_is_refused(actor: Actor, key: str) -> None:
    with pytest.raises(Invalid) as refused:
        await Work(actor).once(key=key)
    assert refused.value.field == ("idempotencyKey",)
    assert await Contact.all().count() == 0


async def test_it_refuses_to_work_inside_a_transaction(actor: Actor) -> None:
    with pytest.raises(RuntimeError, match="inside a transaction"):
        async with db.transaction():
            await Work(actor).once()
    assert await IdempotencyKey.all().count() == 0
