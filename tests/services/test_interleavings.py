"""Tab × tab × void × webhook in all orders: whoever comes first, no money is lost, taken twice unseen, or taken after a void.

Each actor is cut where it waits for the processor; between two cuts it is one transaction, or one act at the processor. On SQLite
every order is run; on PostgreSQL the actors run at the same time, unsteered.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Iterator
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
    try:
        await voids.void(world.actor, payment_request_id=request.id)
    except (errors.AlreadyPaid, errors.PaymentInProgress):
        pass


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


async def play(world: World, order: tuple[str, ...], *, fine: bool) -> str:
    """Two tabs, a void and the webhooks in this order of steps; the status at the end.

    Coarse: tab A is led to the vendor in one step, tab B in two. Fine: both in three steps, the void in three.
    """
    request, token = await world.request()

    async def tab(me: Actor) -> None:
        page = await press_pay(world, token)
        await me.cut()
        if page is not None:
            world.vendor.pay(page)

    async def quick_tab(me: Actor) -> None:
        token_of = _actor.set(None)  # its call is not cut
        page = await press_pay(world, token)
        _actor.reset(token_of)
        await me.cut()
        if page is not None:
            world.vendor.pay(page)

    async def slow_tab(_: Actor) -> None:
        page = await press_pay(world, token)
        if page is not None:
            world.vendor.pay(page)

    async def agent(_: Actor) -> None:
        await void(world, request)

    async def webhooks(_: Actor) -> None:
        await world.deliver()

    works = {"a": tab if fine else quick_tab, "b": tab if fine else slow_tab, "v": agent, "w": webhooks}
    world.vendor.before_call = _before_expire if fine else None
    world.vendor.after_call = _cut
    actors = {name: Actor(work) for name, work in works.items()}
    for name in order:
        await actors[name].step()
    for actor in actors.values():
        await actor.finish()
    await settle_down(world, request)
    return await assert_at_rest(world, request)


async def _before_expire(verb: str) -> None:
    if verb == "expire":
        await _cut(verb)


def orders(steps: str) -> Iterator[tuple[str, ...]]:
    """Every distinct order of these steps."""
    yield from sorted(set(itertools.permutations(steps)))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_all_orders_of_two_tabs_a_void_and_the_webhooks_end_well(database: str) -> None:
    ends = []
    for n, order in enumerate(orders("aabbvvw")):
        if n % PER_ACCOUNT == 0:
            world = await World.make()
        ends.append(await play(world, order, fine=False))
    counts = {status: ends.count(status) for status in sorted(set(ends))}
    print(f"{len(ends)} orders: wrong 0, late 0, {counts}")  # noqa: T201
    assert len(ends) == 630
    assert set(ends) == {"PAID", "VOID"}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_fixed_sample_of_the_finer_orders_ends_well(database: str) -> None:
    chosen = random.Random(2)
    ends = []
    for n in range(200):
        if n % PER_ACCOUNT == 0:
            world = await World.make()
        steps = list("aaabbbvvvw")
        chosen.shuffle(steps)
        ends.append(await play(world, tuple(steps), fine=True))
    assert set(ends) == {"PAID", "VOID"}


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_two_tabs_a_void_and_the_webhooks_at_the_same_time_end_well(database: str) -> None:
    chosen = random.Random(3)
    ends = []
    for n in range(200):
        if n % PER_ACCOUNT == 0:
            world = await World.make()
        request, token = await world.request()

        async def pause(_: str) -> None:
            for _turn in range(chosen.randrange(4)):
                await asyncio.sleep(0)

        world.vendor.before_call = world.vendor.after_call = pause

        async def tab(link: str = token) -> None:
            page = await press_pay(world, link)
            await pause("")
            if page is not None and world.vendor.pay(page):
                sent, world.vendor.outbox = world.vendor.outbox, []
                await asyncio.gather(*(world.deliver(*sent) for _ in range(2)))

        await asyncio.gather(tab(), tab(), void(world, request))
        await settle_down(world, request)
        ends.append(await assert_at_rest(world, request))
    assert len(ends) == 200
    assert set(ends) == {"PAID", "VOID"}
