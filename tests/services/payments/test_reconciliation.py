"""Reconciliation: differences are recorded and reported; agreement is silent; failures are listed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from integrations.base import MoneyOutcome
from models.ids import public_id
from models.tables import CheckoutSession, PaymentRequest, ProcessorConnection
from services.connections import processor_settings, providers
from services.payments import sweeper
from services.payments.reconciliation import Reconciled, reconcile
from tests.services.scripted import World, assert_consistent


@pytest.fixture
async def world(database: str) -> World:
    return await World.make()


async def run(world: World, **back: float) -> Reconciled:
    return await reconcile(world.account.id, datetime.now(UTC) - timedelta(**(back or {"hours": 1})), reads_per_s=1e9)


async def test_a_payment_that_nobody_told_is_recorded_and_told_once(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    paid = world.vendor.pay(page)
    assert paid is not None
    found = await run(world)
    assert (found.read, found.unread) == (1, [])
    assert found.differed == [
        f"{public_id('pr', request.id)} {page}: CHARGE {paid.external_id} SUCCEEDED $125.00 was missing;"
        " request SENT -> PAID; checkout OPEN -> COMPLETED"
    ]
    assert (await world.status(request), await world.cards(request)) == ("PAID", ["PAYMENT_RECEIVED"])
    assert (await run(world)) == Reconciled(read=1)
    await assert_consistent(world.account.id)


async def test_a_second_payment_on_a_settled_checkout_is_found_before_the_sweeper_comes_again(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    world.vendor.pay(page)
    await world.deliver()
    world.vendor.pay(page, force=True)
    world.vendor.outbox.clear()
    assert await sweeper.sweep(datetime.now(UTC) + timedelta(hours=23)) == 0
    found = await run(world)
    assert len(found.differed) == 1
    assert (await world.fresh(request)).excess_minor == 12500
    assert await world.cards(request) == ["PAYMENT_RECEIVED", "EXCESS_PAYMENT"]


async def test_a_checkout_that_only_the_processor_knows_is_found_and_told_once(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    world.vendor.pay(page)
    world.vendor.outbox.clear()
    await CheckoutSession.all().delete()  # a backup was restored, say
    found = await run(world)
    connection = public_id("prc", world.connection.id)
    assert found.differed == [f"{connection}: checkouts that were not known: 1"]
    assert await world.status(request) == "PAID"
    assert (await run(world)).differed == []


async def test_a_processor_that_was_disconnected_lately_is_asked_too(world: World) -> None:
    request, token = await world.request()
    world.vendor.pay(await world.open(token))
    await CheckoutSession.all().delete()
    await processor_settings.disconnect_processor(replace(world.actor, role="OWNER"), world.connection.id)
    row = await ProcessorConnection.get(id=world.connection.id)
    providers.live.get().processors[row.id] = (providers.cache_key(row), world.vendor)
    assert len((await run(world)).differed) == 1
    assert await world.status(request) == "PAID"


async def test_what_agrees_is_read_and_not_told(world: World) -> None:
    for act in ("paid", "open", "pending"):
        _, token = await world.request()
        page = await world.open(token)
        if act != "open":
            world.vendor.pay(page, outcome=MoneyOutcome.PENDING if act == "pending" else MoneyOutcome.SUCCEEDED)
    await world.deliver()
    versions = sorted([row.version for row in await PaymentRequest.all()])
    assert await run(world) == Reconciled(read=3)
    assert sorted([row.version for row in await PaymentRequest.all()]) == versions


async def test_only_what_was_made_since_and_only_this_account_is_read(world: World) -> None:
    for _ in range(2):
        _, token = await world.request()
        world.vendor.pay(await world.open(token))
    old = await CheckoutSession.all().order_by("id").first()
    assert old is not None
    await CheckoutSession.filter(id=old.id).update(created_at=datetime.now(UTC) - timedelta(hours=2))
    other = await World.make()
    _, token = await other.request()
    other.vendor.pay(await other.open(token))
    assert (await run(world)).read == 1
    assert other.vendor.count("read") == 0
    assert (await run(world, hours=3)).read == 2
    assert sorted([row.status for row in await PaymentRequest.all()]) == ["PAID", "PAID", "SENT"]


async def test_a_processor_that_does_not_answer_is_said_and_the_next_is_read(world: World) -> None:
    requests = []
    for _ in range(2):
        request, token = await world.request()
        requests.append((request, await world.open(token)))
        world.vendor.pay(requests[-1][1])
    world.vendor.faults = ["silent", "before", ""]
    found = await run(world)
    assert (found.read, len(found.differed)) == (1, 1)
    assert found.unread == [
        f"{public_id('prc', world.connection.id)}: its list of checkouts was not read: silent",
        f"{public_id('pr', requests[0][0].id)} {requests[0][1]}: not read: connection",
    ]
    assert [await world.status(request) for request, _ in requests] == ["SENT", "PAID"]


async def test_a_creation_that_was_never_answered_is_left_to_the_sweeper(world: World) -> None:
    request, _ = await world.request()
    await CheckoutSession.create(
        account_id=world.account.id,
        payment_request_id=request.id,
        processor_connection_id=world.connection.id,
        n=1,
        idempotency_key="unanswered",
        amount_minor=12500,
        currency="USD",
        status="OPENING",
    )
    assert await run(world) == Reconciled()
    assert [verb for verb, _ in world.vendor.calls] == ["list_checkouts"]
