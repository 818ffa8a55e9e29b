"""The integrity check: silent on stored values that are right, one line for each that is not."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from integrations.base import MoneyOutcome
from models import database as db
from models import event_log
from models.ids import public_id
from models.tables import Account, ContactSummary, PaymentRequest
from services.core.unit_of_work import change
from services.payments import integrity_check, voids
from tests.services.scripted import World


@pytest.fixture
async def world(database: str) -> World:
    return await World.make()


async def lines(account: Account | None = None) -> list[str]:
    return [str(difference) for difference in await integrity_check.audit(account.id if account else None)]


async def logged(world: World, count: int) -> None:
    for _ in range(count):
        async with change(world.account.id) as changed:
            changed.event("contact.updated", contact_id=world.contact.id)


async def test_a_system_in_every_state_audits_clean(world: World) -> None:
    await world.request(status="DRAFT", sent_at=None)
    await world.request()
    for act in ("pay", "wrong", "debit", "decline", "void", "twice"):
        request, token = await world.request()
        page = await world.open(token)
        if act == "debit":
            world.vendor.pay(page, outcome=MoneyOutcome.PENDING)
        elif act == "decline":
            world.vendor.decline(page)
        elif act == "void":
            await voids.void(world.actor, payment_request_id=request.id)
        else:
            world.vendor.pay(page, amount_minor=77 if act == "wrong" else None)
            if act == "twice":
                world.vendor.pay(page, force=True)
    await world.deliver()
    await world.run_jobs()
    statuses = sorted([row.status for row in await PaymentRequest.all()])
    assert statuses == ["DRAFT", "PAID", "PAID", "PROCESSING", "SENT", "SENT", "SENT", "VOID"]
    assert await lines() == []


@pytest.mark.parametrize(
    ("column", "wrong", "right"),
    [
        ("status", "SENT", "PAID"),
        ("amount_paid_minor", 0, 12500),
        ("refunded_minor", 5, 0),
        ("excess_minor", 5, 0),
        ("late_minor", 5, 0),
        ("refund_state", "FULL", "NONE"),
        ("dispute_state", "LOST", "NONE"),
    ],
)
async def test_a_request_that_is_not_what_its_facts_say_is_one_line(
    world: World, column: str, wrong: object, right: object
) -> None:
    request, token = await world.request()
    world.vendor.pay(await world.open(token))
    await world.deliver()
    await db.execute(f"UPDATE payment_request SET {column} = ? WHERE id = ?", wrong, request.id)  # noqa: S608 (constant)
    found = [line for line in await lines() if line.startswith("pr_")]
    assert found == [f"{public_id('pr', request.id)} {column}: stored {wrong}, recomputed {right}"]
    await integrity_check.audit()
    assert getattr(await world.fresh(request), column) == wrong  # it mends nothing


async def test_a_total_that_is_not_what_the_ledger_adds_up_to_is_one_line(world: World) -> None:
    await world.request()
    await ContactSummary.all().update(open_count=2)
    contact = public_id("cnt", world.contact.id)
    assert await lines() == [f"{contact} open_count (USD, test): stored 2, recomputed 1"]
    await ContactSummary.all().delete()
    assert await lines() == [
        f"{contact} requested_minor (USD, test): stored 0, recomputed 12500",
        f"{contact} outstanding_minor (USD, test): stored 0, recomputed 12500",
        f"{contact} open_count (USD, test): stored 0, recomputed 1",
    ]


async def test_a_counter_ahead_of_the_log_and_a_hole_in_it_are_lines(world: World) -> None:
    account = public_id("acc", world.account.id)
    await logged(world, 3)
    assert await lines() == []
    await db.execute("UPDATE account SET event_seq = 4 WHERE id = ?", world.account.id)
    assert await lines() == [f"{account} event_seq: stored 4, recomputed 3"]
    await db.execute("UPDATE account SET event_seq = 5 WHERE id = ?", world.account.id)
    await event_log.append(
        [event_log.LogEntry(account_id=world.account.id, seq=5, kind="contact.updated", at=datetime.now(UTC))]
    )
    assert await lines() == [f"{account} log entries: stored 4, recomputed 5"]


async def test_only_a_log_older_than_its_retention_may_have_lost_its_start(world: World) -> None:
    await logged(world, 3)
    later = datetime.now(UTC) + event_log.RETENTION + timedelta(days=1)
    assert await event_log.prune(later) == 3
    account = public_id("acc", world.account.id)
    assert await lines() == [f"{account} log entries: stored 0, recomputed 3"]
    await logged(world, 1)
    assert await lines() == [f"{account} first log entry: stored 4, recomputed 1"]
    await Account.filter(id=world.account.id).update(created_at=datetime.now(UTC) - timedelta(days=31))
    assert await lines() == []


async def test_one_account_is_audited_alone(world: World) -> None:
    await world.request()
    other = await World.make()
    await other.request()
    await ContactSummary.all().update(open_count=9)
    assert [line.split()[0] for line in await lines(world.account)] == [public_id("cnt", world.contact.id)]
    assert len(await lines()) == 2


async def test_changes_while_it_reads_are_no_differences(world: World) -> None:
    made = [await world.request() for _ in range(12)]
    done = asyncio.Event()
    found: list[str] = []

    async def watch() -> None:
        while not done.is_set():
            found.extend(await lines())
            await asyncio.sleep(0)

    async def pay() -> None:
        for _, token in made:
            world.vendor.pay(await world.open(token))
            await world.deliver()
        done.set()

    await asyncio.gather(watch(), pay())
    assert found == []
    assert {row.status for row in await PaymentRequest.all()} == {"PAID"}
