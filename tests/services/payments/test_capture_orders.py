"""Tabs, void, webhook and sweeper in every order: approved money is captured once or never."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from integrations.base import IntegrationError
from models.tables import CheckoutSession, Job, PaymentRequest
from services.core.jobs import JobContext, Later
from services.payments import checkout_reads, processor_events
from tests.services.orders import PER_ACCOUNT, Actor, cut_by_call, settle_down, void
from tests.services.scripted import World, assert_consistent

pytestmark = pytest.mark.slow


async def two_pages(world: World, token: str) -> list[str]:
    """Two open pages, each with its own checkout."""
    first = await world.open(token)
    soon = datetime.now(UTC) + timedelta(minutes=9)
    await CheckoutSession.filter(external_id=first).update(expires_at=soon)
    return [first, await world.open(token)]


async def read(page: str) -> None:
    session = await CheckoutSession.get(external_id=page)
    with contextlib.suppress(IntegrationError):
        await checkout_reads.read_back(session, source="sweeper")


async def hear(world: World) -> None:
    """Deliver all webhooks and run their jobs."""
    await world.deliver()
    for job in await Job.filter(kind="processor_event.handle", account_id=world.account.id).order_by("id"):
        context = JobContext(
            job_id=uuid4(), kind=job.kind, payload=job.payload, account_id=job.account_id, attempt=1, last_attempt=True
        )
        with contextlib.suppress(Later):  # no answer: the event is tried again
            await processor_events.handle_job(context)


async def assert_at_rest(world: World, request: PaymentRequest, *, voided: bool) -> str:
    """Assert that the money was captured at most once and never after the void; return the status."""
    now = await world.fresh(request)
    money = world.vendor.received(request)
    cards = await world.cards(request)
    assert len(money) <= 1
    assert [fact for fact in await world.facts(request) if fact[1] == "SUCCEEDED"] == [
        ("CHARGE", "SUCCEEDED", one.amount_minor) for one in money
    ]
    assert now.status == ("PAID" if money else "VOID" if voided else "SENT")
    assert (now.late_minor, now.excess_minor) == (0, 0)
    assert cards.count("PAYMENT_RECEIVED") == len(money)
    assert cards.count("REQUEST_VOIDED") == (now.status == "VOID")
    assert world.vendor.open_sessions(request) == [] or now.status == "SENT"
    taken = {key for key, outcome in world.vendor.captures.items() if outcome == "ok"}
    assert len({key for key in taken if key.startswith(request_key(world, request))}) == len(money)
    await assert_consistent(world.account.id)
    return now.status


def request_key(world: World, request: PaymentRequest) -> str:
    """The common prefix of the capture keys."""
    return world.vendor.of_request(request)[0].order.idempotency_key.rpartition(":")[0]


async def play(world: World, order: Iterable[str], *, fine: bool = False, faults: random.Random | None = None) -> str:
    """Run tabs (a, b), void (v), webhooks (w) and sweeper (s) in this order; `faults`: some calls fail."""
    order = list(order)
    request, token = await world.request()
    pages = dict(zip("ab", await two_pages(world, token), strict=True))

    async def tab(name: str) -> None:
        world.vendor.approve(pages[name])
        await read(pages[name])

    async def sweep() -> None:
        for page in pages.values():
            await read(page)

    async def before(verb: str) -> None:
        if verb == "complete":
            await cut_by_call(verb)

    async def after(verb: str) -> None:
        if fine:
            await cut_by_call(verb)

    world.vendor.before_call, world.vendor.after_call = before, after
    if faults is not None:
        world.vendor.faults = faults.choices(["", "", "before", "after"], k=6)
        world.vendor.capture_outcomes = faults.choices(["ok", "declined", "failed"], k=3)
    works = {
        "a": lambda _: tab("a"),
        "b": lambda _: tab("b"),
        "v": lambda _: void(world, request),
        "w": lambda _: hear(world),
        "s": lambda _: sweep(),
    }
    actors = {name: Actor(works[name]) for name in sorted(set(order))}
    for name in order:
        await actors[name].step()
    for actor in actors.values():
        await actor.finish()
    world.vendor.faults, world.vendor.capture_outcomes = [], []
    await settle_down(world, request)
    await sweep()
    await settle_down(world, request)
    return await assert_at_rest(world, request, voided="v" in order)


async def play_all(
    played: Iterable[Iterable[str]], *, fine: bool = False, faults: random.Random | None = None
) -> dict[str, int]:
    """How often each status occurred."""
    ends: Counter[str] = Counter()
    for n, order in enumerate(played):
        if n % PER_ACCOUNT == 0:
            world = await World.make()
        ends[await play(world, order, fine=fine, faults=faults)] += 1
    print(f"{ends.total()} orders with captures: wrong 0, taken twice 0, {dict(ends)}")  # noqa: T201
    return dict(ends)


def orders(steps: str) -> list[tuple[str, ...]]:
    return sorted(set(itertools.permutations(steps)))


sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@sqlite
async def test_all_orders_of_two_tabs_a_void_the_webhooks_and_the_sweeper_take_the_money_once_or_never(
    database: str,
) -> None:
    ends = await play_all([*orders("abvws"), *orders("aabbvv")])
    assert sum(ends.values()) == 210
    assert set(ends) == {"PAID", "VOID"}


@sqlite
async def test_all_finer_orders_of_two_tabs_take_the_money_once(database: str) -> None:
    assert await play_all(orders("aaaabbbb"), fine=True) == {"PAID": 70}


@sqlite
async def test_all_finer_orders_of_a_tab_and_a_void_take_the_money_once_or_never(database: str) -> None:
    ends = await play_all(orders("aaaavvv"), fine=True)
    assert sum(ends.values()) == 35
    assert set(ends) == {"PAID", "VOID"}


@sqlite
async def test_a_fixed_sample_of_the_finest_orders_with_lost_answers_and_declines_ends_well(database: str) -> None:
    chosen = random.Random(7)
    steps = list("aaaabbbbvvvwwwssss")
    ends = await play_all((chosen.sample(steps, len(steps)) for _ in range(150)), fine=True, faults=chosen)
    assert set(ends) == {"PAID", "VOID"}


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_two_tabs_a_void_the_webhooks_and_the_sweeper_at_the_same_time_take_the_money_once_or_never(
    database: str,
) -> None:
    chosen = random.Random(8)
    ends: Counter[str] = Counter()

    async def pause(_: str = "") -> None:
        for _turn in range(chosen.randrange(4)):
            await asyncio.sleep(0)

    for n in range(80):
        if n % PER_ACCOUNT == 0:
            world = await World.make()
        request, token = await world.request()
        pages = await two_pages(world, token)
        for page in pages:
            world.vendor.approve(page)
        world.vendor.before_call = world.vendor.after_call = pause
        readers = [read(page) for page in itertools.chain(pages, pages)]
        await asyncio.gather(*readers, hear(world), *([void(world, request)] if n % 2 else []))
        await settle_down(world, request)
        ends[await assert_at_rest(world, request, voided=bool(n % 2))] += 1
    print(f"{ends.total()} rounds at the same time: taken twice 0, {dict(ends)}")  # noqa: T201
    assert ends["PAID"] >= 40
