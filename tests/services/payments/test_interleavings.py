"""Tabs, void, webhook and sweeper in every order: no money is lost, duplicated or taken after a void."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from tests.services.orders import PER_ACCOUNT, Scene, Stage, assert_at_rest, at_random, press_pay, settle_down, void
from tests.services.scripted import World

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_all_orders_of_a_tab_with_its_page_a_second_tab_a_void_and_the_webhooks_end_well(database: str) -> None:
    runs = [run async for run in Stage(Scene("in hand", in_hand=True)).all_after([])]
    assert len({"".join(run.steps) for run in runs}) == len(runs) == 155
    assert {run.end for run in runs} == {"PAID", "VOID"}


@pytest.mark.parametrize(
    "scene",
    [
        Scene("two creations under way"),
        Scene("fine", fine=True),
        Scene("with the sweeper", sweeps=True, fine=True),
        Scene("captured by us", approving=True, sweeps=True),
    ],
    ids=lambda scene: scene.name,
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_fixed_sample_of_the_orders_of_other_scenes_ends_well(database: str, scene: Scene) -> None:
    stage = Stage(scene)
    runs = [await stage.play(at_random(seed)) for seed in range(60)]
    assert {run.end for run in runs} == {"PAID", "VOID"}
    assert len({"".join(run.steps) for run in runs}) > 30  # not the same one over and over


async def play_at_once(world: World, kind: int, chosen: random.Random) -> str:
    """Two tabs, a void and duplicate deliveries as concurrent tasks; returns the status."""
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
