"""Tab × tab × void × webhook in all orders: whoever comes first, no money is lost, taken twice unseen, or taken after a void.

Each actor is cut where it waits for the processor; between two cuts it is one transaction, or one act at the processor. On SQLite
every order is run; on PostgreSQL the actors run at the same time, unsteered.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import ContextVar

import pytest

from models import errors
from models.tables import PaymentRequest
from services import checkout, voids
from tests.services.scripted import World, assert_consistent

PER_ACCOUNT = 20  # requests; what is checked of an account grows with it

_actor: ContextVar[Actor | None] = ContextVar("interleaved", default=None)


class Actor:
    """A task that goes on only when it is told to, up to its next cut or its end."""

    def __init__(self, work: Callable[[Actor], Awaitable[None]]) -> None:
        self._go = asyncio.Event()
        self._waiting = asyncio.Event()
        self._task = asyncio.create_task(self._run(work))

    async def _run(self, work: Callable[[Actor], Awaitable[None]]) -> None:
        _actor.set(self)
        try:
            await self.cut()
            await work(self)
        finally:
            self._waiting.set()

    async def cut(self) -> None:
        """Wait for the next turn."""
        self._waiting.set()
        await self._go.wait()
        self._go.clear()

    async def step(self) -> None:
        """Let it go on to its next cut; nothing if it has ended."""
        await self._waiting.wait()
        if not self._task.done():
            self._waiting.clear()
            self._go.set()
            await self._waiting.wait()
            await asyncio.sleep(0)  # an ended task is done only in the next turn of the loop

    async def finish(self) -> None:
        """Let it run to its end; its error, if any, is the test's."""
        while not self._task.done():
            await self.step()
        await self._task


async def _cut(_: str) -> None:
    actor = _actor.get()
    if actor is not None:
        await actor.cut()


async def press_pay(world: World, token: str) -> str | None:
    """A tab: press Pay; the session that it is led to."""
    try:
        opened = await checkout.open_checkout(token)
    except errors.ProcessorUnavailable:
        return None
    return opened.url.rpartition("/")[2] if opened.url else None


async def void(world: World, request: PaymentRequest) -> None:
    """The agent."""
    with contextlib.suppress(errors.AlreadyPaid, errors.PaymentInProgress):
        await voids.void(world.actor, payment_request_id=request.id)


async def settle_down(world: World, request: PaymentRequest) -> None:
    """Everything that is still on its way arrives."""
    world.vendor.before_call = world.vendor.after_call = None
    await world.deliver()
    while await world.run_jobs() or world.vendor.outbox:
        await world.deliver()


async def assert_at_rest(world: World, request: PaymentRequest) -> str:
    """P1 to P7 and the contact's totals; the status that it came to."""
    now = await world.fresh(request)
    money = world.vendor.received(request)
    cards = await world.cards(request)
    assert sorted(await world.facts(request)) == sorted(("CHARGE", "SUCCEEDED", m.amount_minor) for m in money)
    assert now.status == ("PAID" if money else "VOID" if now.voided_at else "SENT")
    assert now.late_minor == 0
    assert now.void_requested_at is None or now.status == "VOID"
    assert cards.count("PAYMENT_RECEIVED") == min(1, len(money))
    assert cards.count("EXCESS_PAYMENT") == max(0, len(money) - 1)
    assert cards.count("REQUEST_VOIDED") == (now.status == "VOID")
    assert len(cards) == len(money) + (now.status == "VOID")
    assert len(world.vendor.open_sessions(request)) <= (now.status == "SENT")
    await assert_consistent(world.account.id)
    return now.status


async def play(world: World, order: Iterable[str], *, in_hand: bool = False, fine: bool = False) -> str:
    """Two tabs (a, b), a void (v) and the webhooks (w) in this order of steps; the status at the end.

    A tab has two steps: up to the processor's answer, then on to paying; tab A has its page already if `in_hand`. The void has two:
    up to the processor's answer, then on to its end. `fine`: each tab waits before it pays, too, the void before it calls.
    """
    request, token = await world.request()
    page_of_a = await world.open(token) if in_hand else None

    async def tab(me: Actor, page: str | None = None) -> None:
        page = page or await press_pay(world, token)
        if fine:
            await me.cut()
        if page is not None:
            world.vendor.pay(page)

    async def agent(_: Actor) -> None:
        await void(world, request)

    async def webhooks(_: Actor) -> None:
        await world.deliver()

    async def before(verb: str) -> None:
        if fine and verb == "expire":
            await _cut(verb)

    world.vendor.before_call, world.vendor.after_call = before, _cut
    actors = {"a": Actor(lambda me: tab(me, page_of_a)), "b": Actor(tab), "v": Actor(agent), "w": Actor(webhooks)}
    for name in order:
        await actors[name].step()
    for actor in actors.values():
        await actor.finish()
    await settle_down(world, request)
    return await assert_at_rest(world, request)


def orders(steps: str) -> list[tuple[str, ...]]:
    """Every distinct order of these steps."""
    return sorted(set(itertools.permutations(steps)))


async def play_all(played: Sequence[Iterable[str]], *, in_hand: bool = False, fine: bool = False) -> dict[str, int]:
    """How often each status came out."""
    ends: Counter[str] = Counter()
    for n, order in enumerate(played):
        if n % PER_ACCOUNT == 0:
            world = await World.make()
        ends[await play(world, order, in_hand=in_hand, fine=fine)] += 1
    print(f"{ends.total()} orders: wrong 0, late 0, {dict(ends)}")  # noqa: T201
    return dict(ends)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_all_orders_of_a_tab_with_its_page_a_second_tab_a_void_and_the_webhooks_end_well(database: str) -> None:
    ends = await play_all(orders("abbvvw"), in_hand=True)
    assert sum(ends.values()) == 180
    assert set(ends) == {"PAID", "VOID"}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_all_orders_of_two_creations_under_way_and_a_void_end_well(database: str) -> None:
    ends = await play_all(orders("aabbvv"))
    assert sum(ends.values()) == 90
    assert set(ends) == {"PAID", "VOID"}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_fixed_sample_of_the_16800_finer_orders_ends_well(database: str) -> None:
    chosen = random.Random(2)
    ends = await play_all([chosen.sample("aaabbbvvvw", 10) for _ in range(100)], fine=True)
    assert set(ends) == {"PAID", "VOID"}


async def play_at_once(world: World, kind: int, chosen: random.Random) -> str:
    """Two tabs, a void and double deliveries as concurrent tasks; the status at the end."""
    request, token = await world.request()
    opened, paid = asyncio.Event(), asyncio.Event()
    # The void begins with the tabs, when the first of them has its page, or when the first has paid.
    start = (None, opened, paid)[kind]

    async def pause(_: str = "") -> None:
        for _turn in range(chosen.randrange(4)):
            await asyncio.sleep(0)

    async def tab() -> None:
        page = await press_pay(world, token)
        opened.set()
        await pause()
        if page is not None and world.vendor.pay(page):
            paid.set()
            sent, world.vendor.outbox = world.vendor.outbox, []
            await asyncio.gather(*(world.deliver(*sent) for _ in range(2)))

    async def agent() -> None:
        if start is not None:
            await start.wait()
        await void(world, request)

    world.vendor.before_call = world.vendor.after_call = pause
    await asyncio.gather(tab(), tab(), agent())
    await settle_down(world, request)
    return await assert_at_rest(world, request)


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_two_tabs_a_void_and_the_webhooks_at_the_same_time_end_well(database: str) -> None:
    chosen = random.Random(3)
    ends: Counter[str] = Counter()
    for n in range(150):
        if n % PER_ACCOUNT == 0:
            world = await World.make()
        ends[await play_at_once(world, n % 3, chosen)] += 1
    print(f"{ends.total()} rounds at the same time: wrong 0, late 0, {dict(ends)}")  # noqa: T201
    assert ends["PAID"] >= 50
    assert ends["PAID"] + ends["VOID"] == 150
