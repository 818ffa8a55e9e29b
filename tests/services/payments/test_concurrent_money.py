"""Simultaneous payments of one request, and two open checkouts."""

from __future__ import annotations

import asyncio

import pytest

from models.tables import CheckoutSession, Job
from services.payments import checkout
from tests import factories
from tests.services.scripted import World, assert_consistent

# Only the rows' locks separate two processes.
pytestmark = pytest.mark.usefixtures("separate_processes")

ROUNDS = 12


@pytest.fixture
async def world(database: str) -> World:
    return await World.make()


async def test_two_payments_that_are_told_at_once_are_one_receipt_and_one_excess(world: World) -> None:
    for _ in range(ROUNDS):
        request, token = await world.request()
        page = await world.open(token)
        world.vendor.pay(page)
        world.vendor.pay(page, force=True)
        webhooks, world.vendor.outbox = world.vendor.outbox, []
        await asyncio.gather(*(world.deliver(one) for one in webhooks))
        now = await world.fresh(request)
        assert (now.status, now.amount_paid_minor, now.excess_minor) == ("PAID", 25000, 12500)
        assert await world.cards(request) == ["PAYMENT_RECEIVED", "EXCESS_PAYMENT"]
    await assert_consistent(world.account.id)


async def test_five_tabs_that_press_pay_at_once_are_led_to_one_checkout(world: World) -> None:
    for _ in range(ROUNDS):
        request, token = await world.request()
        assert len(set(await asyncio.gather(*(world.open(token) for _ in range(5))))) == 1
        assert len(world.vendor.open_sessions(request)) == 1
        assert [row.n for row in await CheckoutSession.filter(payment_request_id=request.id)] == [1]


async def test_the_other_open_checkout_is_closed_once_one_is_paid(world: World) -> None:
    request, token = await world.request()
    first = await world.open(token)
    world.vendor.sessions[first].expires_at = factories.now() + checkout.REUSE_MARGIN / 2
    second = await world.open(token)
    assert [session.external_id for session in world.vendor.open_sessions(request)] == [first, second]
    await Job.all().delete()  # the replaced one's own closing was lost
    world.vendor.pay(second)
    await world.deliver()
    await world.run_jobs()
    assert world.vendor.open_sessions(request) == []
    assert await world.status(request) == "PAID"
    assert world.vendor.pay(first) is None
