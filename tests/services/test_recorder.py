"""What a processor says about money becomes facts, one status, cards, totals and notices: once, in any order, in one transaction."""

from __future__ import annotations

import pytest

from tests.services.scripted import World, assert_consistent


@pytest.fixture
async def world(database: str) -> World:
    return await World.make()


async def test_a_payment_turns_the_card_paid_and_logs_the_second_card(world: World) -> None:
    request, token = await world.request()
    world.vendor.pay(await world.open(token))
    await world.deliver()
    assert await world.status(request) == "PAID"
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]
    assert await world.notifications() == ["PAYMENT_RECEIVED"]
    assert await world.facts(request) == [("CHARGE", "SUCCEEDED", 12500)]
    await assert_consistent(world.account.id)
