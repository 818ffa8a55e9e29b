"""With every webhook lost, the sweeper alone finds each payment in time; and the reverse."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest

from integrations.base import MoneyOutcome, MoneyStatement
from models.ids import uuid7
from models.tables import CheckoutSession, MoneyFact, PaymentRequest
from services.core import job_runner, jobs
from services.payments import integrity_check, sweeper
from tests.clock import Clock, moved
from tests.configured import change
from tests.services.scripted import World, assert_consistent

PAYMENTS = 24
SPAN_S = 1200  # in which they are paid
STEP = timedelta(seconds=15)  # the shortest of the sweeper's periods
FIRST, EVERY = 60, 300  # seconds, as configured


@dataclass(frozen=True)
class Shape:
    """A vendor's behaviour, and the bound in seconds for unreported changes."""

    name: str
    bound_s: int
    lists_events: bool = False  # that it could not deliver
    captured_by_us: bool = False
    closes_late: bool = False


SHAPES = (
    Shape("stripe", bound_s=90, lists_events=True),
    Shape("paypal", bound_s=EVERY + 2 * 15, captured_by_us=True),
    Shape("square", bound_s=EVERY + 2 * 15, closes_late=True),
)


@dataclass
class Paid:
    request: PaymentRequest
    at: datetime
    known_after_s: float | None = None


def pay(world: World, shape: Shape, page: str) -> None:
    if shape.captured_by_us:
        assert world.vendor.approve(page)
    else:
        assert world.vendor.pay(page) is not None


async def open_all(world: World, shape: Shape, clock: Clock) -> list[tuple[Paid, Callable[[], None]]]:
    """Requests with open pages and their payment times, by a fixed seed."""
    rng = random.Random(shape.name)
    world.vendor.closes_late = shape.closes_late
    due = []
    for _ in range(PAYMENTS):
        request, token = await world.request()
        page = await world.open(token)
        due.append((rng.uniform(1, SPAN_S), request, page))
    start = clock.now()

    def act(page: str) -> Callable[[], None]:
        return lambda: pay(world, shape, page)

    return [
        (Paid(request, start + timedelta(seconds=after_s)), act(page))
        for after_s, request, page in sorted(due, key=lambda one: one[0])
    ]


async def run_periodic(elapsed_s: float) -> None:
    """Run the sweeper's due handlers and their jobs."""
    for kind, every_s in jobs.periods.items():
        handler = jobs.handlers[kind]
        of_the_sweeper = handler.__module__ == sweeper.__name__
        if of_the_sweeper and elapsed_s % every_s < STEP.total_seconds():
            given: dict[str, Any] = {"payload": {}, "account_id": None, "attempt": 1, "last_attempt": True}
            await handler(jobs.JobContext(job_id=uuid7(), kind=kind, **given))
    await job_runner.Runner().run_due()


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
async def test_with_every_webhook_lost_every_payment_is_known_within_the_sweepers_bound(
    database: str, shape: Shape
) -> None:
    with moved() as clock:
        world = await World.make()
        change(checkout_read_every=timedelta(seconds=EVERY), reads_per_s=1e6)
        waiting = await open_all(world, shape, clock)
        paid: list[Paid] = []
        elapsed = 0.0
        while waiting or any(one.known_after_s is None for one in paid):
            assert elapsed < SPAN_S + 2 * EVERY, [one.request.number for one in paid if one.known_after_s is None]
            clock.move(STEP)
            elapsed += STEP.total_seconds()
            while waiting and waiting[0][0].at <= clock.now():
                one, act = waiting.pop(0)
                act()
                paid.append(one)
            if shape.lists_events:
                world.vendor.undelivered = [world.vendor.parse(sent.body) for sent in world.vendor.outbox]
            await run_periodic(elapsed)
            for one in paid:
                if one.known_after_s is None and await world.status(one.request) == "PAID":
                    one.known_after_s = (clock.now() - one.at).total_seconds()
        slowest = max(one.known_after_s or 0 for one in paid)
        print(f"{shape.name}: webhooks 0: healed {len(paid)}/{PAYMENTS}, slowest {slowest:.0f} s")  # noqa: T201
        assert len(paid) == PAYMENTS
        assert slowest <= shape.bound_s
        assert sorted(await world.notifications()) == ["PAYMENT_RECEIVED"] * PAYMENTS
        assert world.vendor.count("complete") == (PAYMENTS if shape.captured_by_us else 0)
        assert await integrity_check.audit(world.account.id) == []


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
async def test_without_the_sweeper_the_webhooks_alone_reach_the_same_end(database: str, shape: Shape) -> None:
    with moved() as clock:
        world = await World.make()
        everything = await open_all(world, shape, clock)
        for _, act in everything:
            act()
        for _ in range(3):
            if world.vendor.outbox:
                await world.deliver()
            await world.run_jobs()
        states = [await world.status(one.request) for one, _ in everything]
        print(f"{shape.name}: sweeper off: paid {states.count('PAID')}/{PAYMENTS}")  # noqa: T201
        assert states == ["PAID"] * PAYMENTS
        assert sorted(await world.notifications()) == ["PAYMENT_RECEIVED"] * PAYMENTS
        assert world.vendor.count("complete") == (PAYMENTS if shape.captured_by_us else 0)
        assert await integrity_check.audit(world.account.id) == []


# ------------------------------------------------------------------------------- after the payment, at the vendor itself
async def paid_and_reported(world: World, shape: Shape) -> tuple[PaymentRequest, MoneyStatement]:
    """A PAID request whose vendor reports and lists nothing further."""
    world.vendor.closes_late = shape.closes_late
    request, token = await world.request()
    pay(world, shape, await world.open(token))
    await world.deliver()
    await world.run_jobs()
    assert await world.status(request) == "PAID"
    (charge,) = world.vendor.received(request)
    return request, charge


async def pass_days(world: World, clock: Clock, days: int) -> None:
    """Advance day by day, with every sweep and no webhook."""
    for _ in range(days):
        clock.move(timedelta(days=1))
        world.vendor.outbox.clear()
        await run_periodic(0)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
@pytest.mark.parametrize(("after", "known"), [(0, 1), (2, 7), (20, 30), (60, 90)])
async def test_a_refund_made_at_the_vendor_is_found_when_its_webhook_is_lost(
    database: str, shape: Shape, after: int, known: int
) -> None:
    with moved() as clock:
        world = await World.make()
        request, charge = await paid_and_reported(world, shape)
        await pass_days(world, clock, after)
        world.vendor.give_back(charge, 5000)
        await pass_days(world, clock, known - after - 1)
        assert (await world.fresh(request)).refunded_minor == 0
        await pass_days(world, clock, 2)
        assert (await world.fresh(request)).refunded_minor == 5000
        assert await world.cards(request) == ["PAYMENT_RECEIVED", "REFUND_ISSUED"]
        assert await world.notifications() == ["PAYMENT_RECEIVED", "REFUND_ISSUED"]
        (fact,) = await MoneyFact.filter(kind="REFUND")
        assert (fact.source, fact.amount_minor) == ("sweeper", 5000)
        await assert_consistent(world.account.id)
        assert await integrity_check.audit(world.account.id) == []


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
async def test_a_dispute_whose_webhooks_are_lost_is_found_and_so_is_its_end(database: str, shape: Shape) -> None:
    with moved() as clock:
        world = await World.make()
        request, charge = await paid_and_reported(world, shape)
        world.vendor.dispute(charge)
        await pass_days(world, clock, 2)
        assert (await world.fresh(request)).dispute_state == "NEEDS_RESPONSE"
        world.vendor.dispute(charge, MoneyOutcome.SUCCEEDED)
        await pass_days(world, clock, 6)
        assert (await world.fresh(request)).dispute_state == "LOST"
        assert await world.cards(request) == ["PAYMENT_RECEIVED", "DISPUTE_OPENED", "DISPUTE_CLOSED"]
        await assert_consistent(world.account.id)
        assert await integrity_check.audit(world.account.id) == []


async def test_a_paid_checkout_is_read_four_times_and_then_no_more(database: str) -> None:
    with moved() as clock:
        world = await World.make()
        await paid_and_reported(world, SHAPES[0])
        before = world.vendor.count("read")
        reads = []
        for _ in range(100):
            await pass_days(world, clock, 1)
            reads.append(world.vendor.count("read") - before)
        assert [reads[day] for day in (0, 2, 6, 8, 29, 31, 89, 91, 99)] == [1, 1, 2, 2, 3, 3, 4, 4, 4]
        assert (await CheckoutSession.get()).next_check_at is None


async def test_a_paid_checkout_that_cannot_be_read_is_asked_for_less_and_less_often_and_given_up(database: str) -> None:
    with moved() as clock:
        world = await World.make()
        await paid_and_reported(world, SHAPES[0])
        before = world.vendor.count("read")
        for _ in range(2 * 150):
            clock.move(timedelta(hours=12))
            world.vendor.faults = ["before"]
            await sweeper.sweep(clock.now())
        assert 20 < world.vendor.count("read") - before < 60
        assert (await CheckoutSession.get()).next_check_at is None


async def test_what_is_paid_never_delays_what_is_open(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with moved() as clock:
        world = await World.make()
        for _ in range(3):
            await paid_and_reported(world, SHAPES[0])
        clock.move(timedelta(days=1))
        _, token = await world.request()
        page = await world.open(token)
        clock.move(timedelta(minutes=2))
        monkeypatch.setattr(sweeper, "BATCH", 2)
        before = world.vendor.count("read")
        assert await sweeper.sweep(clock.now()) == 2
        read = world.vendor.keys_of("read")[before:]
        assert page in read
        assert await sweeper.sweep(clock.now()) == 2
