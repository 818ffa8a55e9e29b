"""Every webhook lost: the sweeper alone makes every paid request PAID, within its bound. No sweeper: the webhooks alone do.

The clock is moved in the steps in which the job runner looks; how long each payment stayed unknown is counted, not waited for.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest

from models.ids import uuid7
from models.tables import PaymentRequest
from services import auditing, jobs, sweeper
from tests.clock import Clock, moved
from tests.services.scripted import World

PAYMENTS = 24
SPAN_S = 1200  # in which they are paid
STEP = timedelta(seconds=15)  # the shortest of the sweeper's periods
FIRST, EVERY = 60, 300  # seconds, as configured


@dataclass(frozen=True)
class Shape:
    """What a vendor is like, and within how many seconds what it did not tell is known all the same."""

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
    """One request and when its money was given."""

    request: PaymentRequest
    at: datetime
    known_after_s: float | None = None


def pay(world: World, shape: Shape, page: str) -> None:
    """What the contact does on the vendor's page."""
    if shape.captured_by_us:
        assert world.vendor.approve(page)
    else:
        assert world.vendor.pay(page) is not None


async def open_all(world: World, shape: Shape, clock: Clock) -> list[tuple[Paid, Callable[[], None]]]:
    """Requests with their pages open, and when each will be paid: by a fixed seed, in order."""
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
    """The sweeper's handlers whose time has come, and the jobs that they leave."""
    for kind, every_s in jobs._periodic.items():
        handler = jobs._handlers[kind]
        if handler.__module__ == sweeper.__name__ and elapsed_s % every_s < STEP.total_seconds():
            given: dict[str, Any] = {"payload": {}, "account_id": None, "attempt": 1, "last_attempt": True}
            await handler(jobs.JobContext(job_id=uuid7(), kind=kind, **given))
    await jobs.Runner().run_due()


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
async def test_with_every_webhook_lost_every_payment_is_known_within_the_sweepers_bound(
    database: str, shape: Shape
) -> None:
    with moved() as clock:
        world = await World.make()
        sweeper.configure(every_s=EVERY, reads_per_s=1e6)
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
        assert await auditing.audit(world.account.id) == []


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
        assert await auditing.audit(world.account.id) == []
