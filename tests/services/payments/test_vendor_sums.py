"""Texts about wrong sums: each sum is named once, and the advice works."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from integrations.base import CheckoutStatus, MoneyKind, MoneyOutcome, MoneyStatement
from models.tables import ActivityCard, CheckoutSession, Notification, PaymentRequest, ProcessorEvent
from services.core import job_runner
from services.payments import checkout_page, checkout_reads, link_releases, mismatches, recorder, voids
from tests.services.scripted import World

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
async def world(database: str) -> World:
    return await World.make()


async def deliver_all(world: World) -> None:
    await world.deliver()
    while await job_runner.Runner().run_due():
        pass


async def part_paid(world: World) -> tuple[PaymentRequest, str]:
    """A request of 125.00 with 50.00 paid, and its open page."""
    request, token = await world.request()
    page = await world.open(token)
    world.vendor.pay_part(page, 5000)
    await deliver_all(world)
    return request, page


async def decide(world: World, request: PaymentRequest, resolution: str) -> None:
    admin = replace(world.actor, role="ADMIN")
    key = str(uuid4())
    await mismatches.resolve(admin, payment_request_id=request.id, resolution=resolution, idempotency_key=key)


async def last(request: PaymentRequest) -> str:
    return (await ActivityCard.filter(payment_request_id=request.id).order_by("seq"))[-1].text


@pytest.mark.parametrize(
    ("resolution", "text"),
    [
        ("ACCEPT_AS_PART", "Payment received: $75.00 for Deep clean."),
        ("ACCEPT_AS_PAID", "$75.00 arrived for Deep clean, which was paid already."),
    ],
)
async def test_the_rest_after_a_decision_is_told_without_what_was_accepted(
    world: World, resolution: str, text: str
) -> None:
    request, page = await part_paid(world)
    await decide(world, request, resolution)
    world.vendor.pay_part(page, 7500)
    await deliver_all(world)
    assert await last(request) == text


async def test_a_payment_captured_in_many_parts_is_one_payment(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    for _ in range(25):
        world.vendor.pay_part(page, 500)
    await deliver_all(world)
    await world.run_jobs()
    assert await world.status(request) == "PAID"
    assert [card.text for card in await ActivityCard.all()] == ["Payment received: $125.00 for Deep clean."]


async def test_the_rest_after_a_void_is_told_without_what_came_before(world: World) -> None:
    request, page = await part_paid(world)
    await voids.void(world.actor, payment_request_id=request.id, confirm_partially_paid=True)
    world.vendor.pay(page, amount_minor=7500, force=True)
    await deliver_all(world)
    assert await last(request) == "$75.00 arrived for Deep clean after the request had been voided."
    assert (await world.fresh(request)).late_minor == 7500


async def test_a_wrong_sum_on_a_void_request_is_to_be_given_back(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    await voids.void(world.actor, payment_request_id=request.id)
    world.vendor.pay(page, amount_minor=7500, force=True)
    await deliver_all(world)
    assert (await last(request)).endswith("It is not counted yet. The request is void: refund it.")


async def test_no_card_offers_a_link_that_unresolved_money_locks(world: World) -> None:
    request, page = await part_paid(world)
    world.vendor.decline(page)
    await deliver_all(world)
    declined = "A payment of $125.00 for Deep clean did not go through (card_declined)."
    assert await last(request) == declined
    world.vendor.delay(page)
    await deliver_all(world)
    await checkout_reads.read_back(await CheckoutSession.get(external_id=page), source="sweeper")
    await link_releases.release(world.actor, payment_request_id=request.id, idempotency_key=str(uuid4()))
    assert (await last(request)).endswith(
        "is still under way. It no longer holds the link, but money that arrived waits for your decision first."
    )
    assert checkout_page.state_of(await world.fresh(request)) == "review"


async def test_an_unconfirmed_sum_is_not_said_to_have_arrived(world: World) -> None:
    request, token = await world.request()
    said = MoneyStatement(
        kind=MoneyKind.CHARGE,
        external_id="pi_unseen",
        outcome=MoneyOutcome.SUCCEEDED,
        amount_minor=12500,
        currency="USD",
        checkout_external_id=await world.open(token),
    )
    await recorder.record(world.connection, [said], source="webhook", confirmed=False)
    assert await last(request) == (
        "$125.00 was reported for Deep clean. It is not counted. The processor does not confirm it; please check there."
    )
    assert [one.title for one in await Notification.all()] == ["Payment not confirmed"]


@pytest.mark.parametrize("named_later", [True, False])
async def test_a_payment_that_its_checkout_names_later_counts(world: World, named_later: bool) -> None:
    request, token = await world.request()
    page = await world.open(token)
    paid = world.vendor.pay(page)
    assert paid is not None
    world.vendor.outbox.clear()
    session = world.vendor.sessions[page]
    session.status = CheckoutStatus.OPEN
    session.money.clear()  # the vendor's checkout does not name it yet, and this vendor reads no charge alone
    said = replace(paid, checkout_external_id=None)
    told_by = world.vendor.event("charge.paid", statement=said, reference=session.order.request_reference)
    await world.deliver(told_by)
    await world.run_jobs(rounds=1)
    assert (await world.facts(request), await world.cards(request)) == ([], [])
    if named_later:
        session.status, session.money[paid.external_id] = CheckoutStatus.COMPLETED, paid
    event = await ProcessorEvent.all().get()
    await ProcessorEvent.filter(id=event.id).update(received_at=event.received_at - timedelta(minutes=5))
    await world.run_jobs()
    assert await world.facts(request) == [("CHARGE", "SUCCEEDED", 12500)]
    end = ("PAID", ["PAYMENT_RECEIVED"]) if named_later else ("SENT", ["PAYMENT_MISMATCH"])
    assert (await world.status(request), await world.cards(request)) == end
