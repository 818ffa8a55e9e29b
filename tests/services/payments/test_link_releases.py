"""A link that a voucher or bank debit holds can be released; no money is lost or counted twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from integrations.base import Delay, MoneyOutcome
from models import errors
from models.tables import ActivityCard, CheckoutSession, PaymentRequest
from services.core.permissions import system_actor
from services.payments import (
    checkout,
    checkout_reads,
    integrity_check,
    link_releases,
    payment_requests,
    refunds,
    sweeper,
    voids,
)
from services.payments.payment_views import payments
from tests.services.scripted import World, assert_consistent


async def under_way(world: World, delay: Delay | None = None) -> tuple[PaymentRequest, str, str]:
    """A request with a delayed payment under way, its token and the vendor's session."""
    request, token = await world.request()
    page = await world.open(token)
    world.vendor.delay(page, delay)
    await world.deliver()
    await checkout_reads.refresh(await world.fresh(request))
    return await world.fresh(request), token, page


async def release(world: World, request: PaymentRequest, key: str | None = None) -> link_releases.Released:
    return await link_releases.release(world.actor, payment_request_id=request.id, idempotency_key=key or str(uuid4()))


def actions(request: PaymentRequest) -> set[str]:
    return {name for name, _ in payment_requests.available_actions(request, "AGENT")}


async def assert_sound(world: World) -> None:
    assert await integrity_check.audit(world.account.id) == []
    await assert_consistent(world.account.id)


async def test_a_released_debit_that_arrives_after_a_card_is_excess_and_can_be_refunded(database: str) -> None:
    world = await World.make()
    request, token, debit = await under_way(world)
    assert (request.status, "RELEASE_LINK" in actions(request)) == ("PROCESSING", True)
    assert await checkout.open_checkout(token) == checkout.Opened(url=None, state="processing")
    released = await release(world, request)
    now = await world.fresh(request)
    assert (now.status, now.released_at is not None, now.releasable_at) == ("PROCESSING", True, None)
    assert actions(now) == {"SEND", "COPY_LINK", "VOID", "RECORD_OUTSIDE_PAYMENT"}
    assert released.card is not None
    assert (released.card.kind, released.card.actor_id) == ("PAYMENT_PROCESSING", world.user.id)
    assert "SEPA Direct Debit" in released.card.text
    card = await world.open(token)
    assert card != debit
    world.vendor.pay(card)
    await world.deliver()
    await world.run_jobs()
    paid = await world.fresh(request)
    assert (paid.status, paid.excess_minor, paid.released_at, paid.releasable_at) == ("PAID", 0, None, None)
    world.vendor.settle(debit, ok=True)
    await world.deliver()
    late = await world.fresh(request)
    assert (late.status, late.amount_paid_minor, late.excess_minor) == (
        "PAID",
        2 * request.amount_minor,
        request.amount_minor,
    )
    kinds = ["PAYMENT_PROCESSING", "PAYMENT_PROCESSING", "PAYMENT_RECEIVED", "EXCESS_PAYMENT"]
    assert await world.cards(request) == kinds
    assert (await world.notifications()).count("EXCESS_PAYMENT") == 1
    excess = (await payments(world.account.id, [request.id]))[request.id][0]
    assert excess.processor_reference.startswith("pay_")
    await refunds.refund(
        system_actor(world.account.id),
        payment_id=excess.id,
        amount=None,
        reason="DUPLICATE",
        tell_contact_on=None,
        idempotency_key=str(uuid4()),
    )
    assert (await world.fresh(request)).excess_minor == 0
    await assert_sound(world)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_released_debit_that_arrives_first_settles_the_request_and_closes_the_other_checkout(
    database: str,
) -> None:
    world = await World.make()
    request, token, debit = await under_way(world)
    await release(world, request)
    other = await world.open(token)
    world.vendor.settle(debit, ok=True)
    await world.deliver()
    await world.run_jobs()
    assert world.vendor.pay(other) is None  # closed at the vendor
    now = await world.fresh(request)
    assert (now.status, now.amount_paid_minor, now.excess_minor) == ("PAID", request.amount_minor, 0)
    await assert_sound(world)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_released_debit_that_fails_leaves_the_request_open(database: str) -> None:
    world = await World.make()
    request, token, debit = await under_way(world)
    await release(world, request)
    world.vendor.settle(debit, ok=False)
    await world.deliver()
    now = await world.fresh(request)
    assert (now.status, now.released_at) == ("SENT", None)
    assert await world.cards(request) == ["PAYMENT_PROCESSING", "PAYMENT_PROCESSING", "PAYMENT_FAILED"]
    assert (await checkout.open_checkout(token)).state == "open"
    await assert_sound(world)


async def test_a_voucher_that_the_vendor_cancels_can_never_be_paid_and_frees_the_link(database: str) -> None:
    world = await World.make()
    world.vendor.cancels_delayed = True
    until = datetime.now(UTC) + timedelta(days=3)
    request, token, voucher = await under_way(world, Delay(method="OXXO", until=until))
    key = str(uuid4())
    first = await release(world, request, key)
    again = await release(world, request, key)
    await world.deliver()
    assert (world.vendor.count("cancel"), first.request.status, again.request.status) == (1, "SENT", "SENT")
    assert first.card is not None
    assert again.card is not None
    assert (first.card.id, first.card.kind) == (again.card.id, "PAYMENT_FAILED")
    session = await CheckoutSession.get(external_id=voucher)
    assert (session.status, session.delayed_method, session.released_at) == ("FAILED", "OXXO", None)
    assert session.delayed_until is not None
    assert abs(session.delayed_until - until) < timedelta(seconds=1)
    assert await world.cards(request) == ["PAYMENT_PROCESSING", "PAYMENT_FAILED"]
    assert world.vendor.pay(voucher) is None
    world.vendor.pay(await world.open(token))
    await world.deliver()
    assert (await world.status(request), (await world.fresh(request)).excess_minor) == ("PAID", 0)
    await assert_sound(world)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_may_take_seconds_only_is_released_after_an_hour(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await World.make()
    request, token = await world.request()
    world.vendor.pay(
        await world.open(token), outcome=MoneyOutcome.PENDING
    )  # the vendor does not say that it takes days
    await world.deliver()
    now = await world.fresh(request)
    assert "RELEASE_LINK" not in actions(now)
    with pytest.raises(errors.PaymentInProgress):
        await release(world, request)
    with pytest.raises(errors.PaymentInProgress):
        await link_releases.release_by_contact(now)
    assert world.vendor.count("cancel") == 0
    assert now.releasable_at is not None
    assert timedelta(minutes=59) < now.releasable_at - datetime.now(UTC) <= timedelta(hours=1)
    await PaymentRequest.filter(id=request.id).update(releasable_at=now.releasable_at - timedelta(hours=1))
    assert "RELEASE_LINK" in actions(await world.fresh(request))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_card_in_flight_on_an_open_checkout_holds_the_link(database: str) -> None:
    world = await World.make()
    request, token, _ = await under_way(world)
    await release(world, request)
    page = await world.open(token)
    world.vendor.pay(page, outcome=MoneyOutcome.PENDING)
    await world.deliver()
    # As Stripe reports a card's own processing: the checkout is still open.
    await CheckoutSession.filter(external_id=page).update(status="OPEN")
    await world.deliver(world.vendor.event("ping", session=world.vendor.sessions[page]))
    now = await world.fresh(request)
    assert (now.status, now.released_at) == ("PROCESSING", None)
    assert await checkout.open_checkout(token) == checkout.Opened(url=None, state="processing")
    await assert_sound(world)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_debit_is_not_released_while_a_card_is_in_flight_in_another_tab(database: str) -> None:
    world = await World.make()
    request, token = await world.request()
    debit = await world.open(token)
    world.vendor.sessions[debit].expires_at = datetime.now(UTC) + timedelta(minutes=5)  # so that the next is another
    card = await world.open(token)
    assert card != debit
    world.vendor.pay(card, outcome=MoneyOutcome.PENDING)
    await world.deliver()
    await CheckoutSession.filter(external_id=card).update(status="OPEN")
    world.vendor.delay(debit)
    await world.deliver()
    await checkout_reads.read_back(await CheckoutSession.get(external_id=debit), source="sweeper")
    await CheckoutSession.filter(external_id=card).update(status="OPEN")
    now = await world.fresh(request)
    assert (await CheckoutSession.get(external_id=debit)).delayed
    assert (now.status, now.releasable_at, "RELEASE_LINK" in actions(now)) == ("PROCESSING", None, False)
    with pytest.raises(errors.PaymentInProgress):
        await release(world, request)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_second_debit_locks_the_link_again_with_its_own_card(database: str) -> None:
    world = await World.make()
    request, token, first = await under_way(world)
    await release(world, request)
    second = await world.open(token)
    world.vendor.delay(second)
    await world.deliver()
    await checkout_reads.refresh(await world.fresh(request))
    now = await world.fresh(request)
    assert (now.status, now.released_at, "RELEASE_LINK" in actions(now)) == ("PROCESSING", None, True)
    assert await world.cards(request) == ["PAYMENT_PROCESSING"] * 3
    await release(world, request)
    for page in (first, second):
        world.vendor.settle(page, ok=True)
    await world.deliver()
    paid = await world.fresh(request)
    assert (paid.status, paid.excess_minor) == ("PAID", request.amount_minor)
    await assert_sound(world)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_money_that_arrives_while_the_link_is_released_wins(database: str) -> None:
    world = await World.make()
    request, _, debit = await under_way(world)

    async def arrives(verb: str) -> None:
        if verb == "cancel":
            world.vendor.before_call = None
            world.vendor.settle(debit, ok=True)

    world.vendor.before_call = arrives
    with pytest.raises(errors.AlreadyPaid):
        await release(world, request)
    now = await world.fresh(request)
    assert (now.status, now.released_at) == ("PAID", None)
    assert await world.cards(request) == ["PAYMENT_PROCESSING", "PAYMENT_RECEIVED"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_silent_processor_releases_nothing_and_a_definite_no_only_marks(database: str) -> None:
    world = await World.make()
    request, *_ = await under_way(world)
    key = str(uuid4())
    for fault in ("before", "after"):
        world.vendor.faults = [fault]
        with pytest.raises(errors.ProcessorUnavailable):
            await release(world, request, key)
        assert ((await world.fresh(request)).released_at, await ActivityCard.all().count()) == (None, 1)
    world.vendor.faults = ["refuse"]  # these keys may not
    assert (await release(world, request, key)).request.released_at is not None


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_released_request_can_be_voided_and_its_debit_is_late(database: str) -> None:
    world = await World.make()
    request, token, debit = await under_way(world)
    with pytest.raises(errors.PaymentInProgress):
        await voids.void(world.actor, payment_request_id=request.id)
    await release(world, request)
    assert (await voids.void(world.actor, payment_request_id=request.id)).request.status == "VOID"
    await assert_sound(world)
    world.vendor.settle(debit, ok=True)
    await world.deliver()
    now = await world.fresh(request)
    assert (now.status, now.late_minor) == ("VOID", request.amount_minor)
    assert (await world.cards(request))[-2:] == ["REQUEST_VOIDED", "LATE_PAYMENT"]
    assert (await checkout.open_checkout(token)).state == "void"
    await assert_sound(world)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_holds_no_link_is_not_released(database: str) -> None:
    world = await World.make()
    sent, token = await world.request()
    with pytest.raises(errors.Invalid):
        await release(world, sent)
    world.vendor.pay(await world.open(token))
    await world.deliver()
    with pytest.raises(errors.AlreadyPaid):
        await release(world, sent)
    request, *_ = await under_way(world)
    await release(world, request)
    with pytest.raises(errors.Invalid):
        await release(world, request)
    with pytest.raises(errors.NotFound):
        await link_releases.release(world.actor, payment_request_id=uuid4(), idempotency_key=str(uuid4()))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_pay_reads_the_released_payment_first_so_that_nothing_is_paid_twice(database: str) -> None:
    world = await World.make()
    request, token, debit = await under_way(world)
    await release(world, request)
    other = await world.open(token)
    world.vendor.settle(debit, ok=True)
    world.vendor.outbox.clear()  # its webhook is on its way
    assert await checkout.open_checkout(token) == checkout.Opened(url=None, state="paid")
    await world.run_jobs()
    assert world.vendor.pay(other) is None
    assert ((await world.fresh(request)).excess_minor, await world.status(request)) == (0, "PAID")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_sweeper_goes_on_reading_a_released_checkout(database: str) -> None:
    world = await World.make()
    request, _, debit = await under_way(world)
    await release(world, request)
    world.vendor.settle(debit, ok=True)
    world.vendor.outbox.clear()  # its webhook is lost
    await sweeper.sweep(datetime.now(UTC) + timedelta(days=4))
    assert await world.status(request) == "PAID"
