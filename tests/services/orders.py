"""Tab × tab × void × webhook × sweeper: each is cut where it waits for the processor, and every order of the steps is played.

Between two cuts there is one transaction, or one act at the processor; nothing is held over a cut, so a step always comes to its end.
Which actors can go on depends on what happened: the orders are found by playing them, each one once. The short forms are in
test_interleavings.py, all of them on both databases in `./dev chaos`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from unittest import mock

from models import errors
from models.tables import PaymentRequest
from services.payments import checkout, checkout_reads, sweeper, voids
from tests.services.histories import retire
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

    @property
    def ended(self) -> bool:
        """Whether nothing of it is left to do."""
        return self._task.done()

    async def finish(self) -> None:
        """Let it run to its end; its error, if any, is the test's."""
        while not self._task.done():
            await self.step()
        await self._task


async def cut_by_call(_: str) -> None:
    """Cut the running actor, if one is: what the vendor calls before or after it works."""
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


# ------------------------------------------------------------------------------------------------------------- scenes
@dataclass(frozen=True)
class Scene:
    """Who takes part. Two tabs, an agent who voids and the webhooks always do.

    A tab goes on from the processor's answer to paying; tab A has its page already if `in_hand`. The payer of an `approving` vendor
    only agrees; the money is taken when the tab comes back. `fine`: the tabs wait before they pay, too, void and sweeper before
    they call. `sweeps`: the sweeper reads everything once, as if hours had passed.
    """

    name: str
    in_hand: bool = False
    fine: bool = False
    sweeps: bool = False
    approving: bool = False


@dataclass
class Run:
    """One order: the steps taken, who could have gone at each, and the status at the end."""

    steps: list[str] = field(default_factory=list)
    choices: list[list[str]] = field(default_factory=list)
    end: str = ""


Choose = Callable[[int, list[str]], str]


async def play(world: World, scene: Scene, choose: Choose) -> Run:
    """Play one order of a scene: `choose` says who of those that can goes on at each step."""
    request, token = await world.request()
    page_of_a = await world.open(token) if scene.in_hand else None
    vendor = world.vendor

    async def tab(me: Actor, page: str | None = None) -> None:
        page = page or await press_pay(world, token)
        if scene.fine:
            await me.cut()
        if page is None:
            return
        if not scene.approving:
            vendor.pay(page)
        elif vendor.approve(page):
            await checkout_reads.returned(token)

    async def agent(_: Actor) -> None:
        await void(world, request)

    async def webhooks(_: Actor) -> None:
        await world.deliver()

    async def sweeps(_: Actor) -> None:
        await sweeper.sweep(datetime.now(UTC) + timedelta(hours=2))

    async def before(verb: str) -> None:
        if scene.fine and verb != "create":  # before a creation nothing of it can be seen
            await cut_by_call(verb)

    vendor.before_call, vendor.after_call = before, cut_by_call
    actors = {"a": Actor(lambda me: tab(me, page_of_a)), "b": Actor(tab), "v": Actor(agent), "w": Actor(webhooks)}
    if scene.sweeps:
        actors["s"] = Actor(sweeps)
    run = Run()
    with mock.patch.object(sweeper, "READS_AT_ONCE", 1):
        while able := [name for name, actor in actors.items() if not actor.ended]:
            name = choose(len(run.steps), able)
            run.steps.append(name)
            run.choices.append(able)
            await actors[name].step()
    for actor in actors.values():
        await actor.finish()
    await settle_down(world, request)
    run.end = await assert_at_rest(world, request)
    return run


def following(steps: Sequence[str]) -> Choose:
    """These steps, then always the first who can."""
    return lambda n, able: steps[n] if n < len(steps) else able[0]


def at_random(seed: int) -> Choose:
    """Whoever the seed says."""
    rng = random.Random(seed)
    return lambda n, able: rng.choice(able)


def after(run: Run, *, fixed: int = 0, below: int | None = None) -> list[str] | None:
    """The beginning of the next order in depth-first order; None: all have been played.

    The first `fixed` steps stay as they are; `below`: only they are changed, one order for each beginning of that length.
    """
    for n in reversed(range(fixed, len(run.steps) if below is None else min(below, len(run.steps)))):
        at = run.choices[n].index(run.steps[n])
        if at + 1 < len(run.choices[n]):
            return [*run.steps[:n], run.choices[n][at + 1]]
    return None


class Stage:
    """Worlds for one order after the other: a fresh account now and then, whose predecessors rest."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._played = 0
        self._world: World | None = None
        self.next: list[str] | None = None  # the beginning of the order that is played now

    async def play(self, choose: Choose) -> Run:
        """Play one order."""
        if self._world is None or self._played % PER_ACCOUNT == 0:
            await retire()
            self._world = await World.make()
        self._played += 1
        return await play(self._world, self._scene, choose)

    async def beginnings(self, length: int) -> list[list[str]]:
        """Every way to begin, of so many steps: the parts that all orders can be divided into."""
        return [run.steps[:length] async for run in self._depth_first([], below=length)]

    def all_after(self, beginning: Sequence[str]) -> AsyncIterator[Run]:
        """Play every order that begins so, each once."""
        return self._depth_first(beginning)

    async def _depth_first(self, beginning: Sequence[str], *, below: int | None = None) -> AsyncIterator[Run]:
        self.next = list(beginning)
        while self.next is not None:
            run = await self.play(following(self.next))
            yield run
            self.next = after(run, fixed=len(beginning), below=below)
