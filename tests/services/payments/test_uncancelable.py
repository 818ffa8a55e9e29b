"""Checkouts that can't be canceled: each is used until it ends, and never two are payable."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from integrations.base import Capabilities, Checkout
from models import errors
from models.tables import CheckoutSession, PaymentRequest
from services.payments import checkout, sweeper, voids
from tests.services.scripted import World, assert_consistent


@pytest.fixture
async def world(database: str, monkeypatch: pytest.MonkeyPatch) -> World:
    """A vendor whose checkouts live 15 minutes and can't be closed."""
    made = await World.make()

    async def only_read(external_id: str) -> Checkout:
        return await made.vendor.read_checkout(external_id)

    monkeypatch.setattr(made.vendor, "capabilities", Capabilities(cancels_checkouts=False))
    monkeypatch.setattr(made.vendor, "session_life_s", 900)
    monkeypatch.setattr(made.vendor, "expire_checkout", only_read)
    return made


async def ends_in(world: World, page: str, left: timedelta) -> None:
    """Set the time left of the vendor's checkout."""
    at = datetime.now(UTC) + left
    world.vendor.sessions[page].expires_at = at
    await CheckoutSession.filter(external_id=page).update(expires_at=at)


async def test_a_press_shortly_before_the_end_leads_to_the_same_checkout(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    for left in (timedelta(minutes=14), timedelta(minutes=9), timedelta(minutes=1), timedelta(seconds=20)):
        await ends_in(world, page, left)
        assert await world.open(token) == page
    assert len(world.vendor.of_request(request)) == 1
    world.vendor.lapse(page)
    again = await world.open(token)
    assert again != page
    assert [s.external_id for s in world.vendor.open_sessions(request)] == [again]
    world.vendor.pay(again)
    await world.deliver()
    assert await world.status(request) == "PAID"
    await assert_consistent(world.account.id)


async def test_no_second_checkout_opens_while_the_vendor_still_calls_the_first_one_open(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    await ends_in(world, page, timedelta(seconds=-10))
    for _ in range(3):
        with pytest.raises(errors.ProcessorUnavailable):
            await checkout.open_checkout(token)
    assert len(world.vendor.of_request(request)) == 1
    world.vendor.lapse(page)
    assert await world.open(token) != page


async def test_another_amount_waits_for_the_end_of_the_open_checkout(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    await PaymentRequest.filter(id=request.id).update(amount_minor=20000)
    with pytest.raises(errors.ProcessorUnavailable):
        await checkout.open_checkout(token)
    world.vendor.lapse(page)
    again = await world.open(token)
    assert world.vendor.sessions[again].order.amount_minor == 20000


async def test_a_void_waits_until_the_checkout_has_ended(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    done = await voids.void(world.actor, payment_request_id=request.id)
    assert (done.request.status, done.card) == ("SENT", None)
    assert (await checkout.open_checkout(token)).url is None
    world.vendor.lapse(page)
    await sweeper.sweep(datetime.now(UTC) + timedelta(minutes=10))
    await voids.finish_void(world.account.id, request.id)
    assert await world.status(request) == "VOID"
    assert await world.cards(request) == ["REQUEST_VOIDED"]


async def test_a_short_life_does_not_replace_a_checkout_with_every_press(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.vendor, "capabilities", Capabilities())
    monkeypatch.setattr(world.vendor, "session_life_s", 300)
    _, token = await world.request()
    page = await world.open(token)
    await ends_in(world, page, timedelta(minutes=4))
    assert await world.open(token) == page
    await ends_in(world, page, timedelta(seconds=90))
    assert await world.open(token) != page
