"""Voids: no new checkout, open ones closed at their processor, then VOID; earlier money wins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from integrations.base import MoneyOutcome
from models import errors
from models.tables import ActivityCard, CheckoutSession, Job, PaymentRequest
from services.core.jobs import JobContext
from services.core.permissions import Actor
from services.payments import checkout, checkout_closing, sweeper, voids
from tests.services.scripted import World, assert_consistent


@pytest.fixture
async def world(database: str) -> World:
    return await World.make()


def tick() -> JobContext:
    from uuid import uuid4

    return JobContext(job_id=uuid4(), kind="test", payload={}, account_id=None, attempt=1, last_attempt=True)


async def test_a_void_closes_the_open_checkout_and_logs_its_card(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    done = await voids.void(world.actor, payment_request_id=request.id, reason=" Wrong price ")
    assert done.card is not None
    assert done.card.text == f"Payment request {request.number} was voided. Reason: Wrong price"
    now = await world.fresh(request)
    assert (now.status, now.void_reason, now.version) == ("VOID", "Wrong price", 3)
    card = await ActivityCard.get(payment_request_id=request.id)
    assert (card.kind, card.status, card.actor_id) == ("REQUEST_VOIDED", "VOID", world.user.id)
    assert world.vendor.open_sessions(request) == []
    assert world.vendor.pay(page) is None
    assert await world.notifications() == []
    await assert_consistent(world.account.id)


@pytest.mark.parametrize("status", ["DRAFT", "SENT"])
async def test_a_request_without_a_checkout_is_void_at_once(world: World, status: str) -> None:
    request, _ = await world.request(status=status)
    done = await voids.void(world.actor, payment_request_id=request.id)
    assert done.request.status == "VOID"
    assert world.vendor.calls == []


async def test_a_payment_that_was_first_wins_over_the_void(world: World) -> None:
    request, token = await world.request()
    world.vendor.pay(await world.open(token))
    with pytest.raises(errors.AlreadyPaid):
        await voids.void(world.actor, payment_request_id=request.id)
    now = await world.fresh(request)
    assert (now.status, now.void_requested_at, now.voided_at) == ("PAID", None, None)
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]
    await world.deliver()
    await world.run_jobs()
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]
    await assert_consistent(world.account.id)


@pytest.mark.parametrize(("ok", "end"), [(True, "PAID"), (False, "VOID")])
async def test_money_in_flight_keeps_the_void_pending_until_it_is_decided(world: World, ok: bool, end: str) -> None:
    request, token = await world.request()
    page = await world.open(token)
    world.vendor.pay(page, outcome=MoneyOutcome.PENDING)
    done = await voids.void(world.actor, payment_request_id=request.id)
    assert (done.card, done.request.status) == (None, "PROCESSING")
    assert done.request.void_requested_at is not None
    await world.run_jobs()
    assert await world.status(request) == "PROCESSING"
    world.vendor.settle(page, ok=ok)
    await world.deliver()
    await world.run_jobs()
    assert await world.status(request) == end
    assert (await world.cards(request)).count("REQUEST_VOIDED") == (end == "VOID")


async def test_a_pending_void_forbids_new_checkouts(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    world.vendor.faults = ["before"]
    done = await voids.void(world.actor, payment_request_id=request.id)
    assert (done.card, done.request.status) == (None, "SENT")
    opened = await checkout.open_checkout(token)
    assert (opened.url, opened.state) == (None, "processing")
    assert list(world.vendor.sessions) == [page]
    await world.run_jobs()
    assert await world.status(request) == "VOID"
    assert world.vendor.open_sessions(request) == []


async def test_the_sweeper_finishes_what_a_crash_left(world: World) -> None:
    request, token = await world.request()
    await world.open(token)
    await PaymentRequest.filter(id=request.id).update(void_requested_at=datetime.now(UTC))
    broken, _ = await world.request(void_requested_at=datetime.now(UTC))
    await world.vendor.create_checkout(world.vendor.of_request(request)[0].order)
    await sweeper.sweep_voids(tick())
    assert await world.status(request) == "VOID"
    assert await world.status(broken) == "VOID"
    assert await Job.filter(kind="payment_request.finish_void").count() == 0


async def test_a_creation_that_nobody_answered_delays_the_void_and_is_then_given_up(world: World) -> None:
    request, token = await world.request()
    world.vendor.faults = ["before"]
    with pytest.raises(errors.ProcessorUnavailable):
        await checkout.open_checkout(token)
    done = await voids.void(world.actor, payment_request_id=request.id)
    assert done.request.status == "SENT"
    await CheckoutSession.all().update(created_at=datetime.now(UTC) - timedelta(minutes=3))
    await world.run_jobs()
    assert await world.status(request) == "VOID"
    assert (await CheckoutSession.get()).status == "ABANDONED"


@pytest.mark.parametrize(
    ("status", "refusal"),
    [
        ("PAID", errors.AlreadyPaid),
        ("VOID", errors.AlreadyVoid),
        ("PROCESSING", errors.PaymentInProgress),
        ("PARTIALLY_PAID", errors.ConfirmationRequired),
    ],
)
async def test_what_is_closed_or_in_progress_refuses(world: World, status: str, refusal: type[errors.Refusal]) -> None:
    request, _ = await world.request(status=status)
    with pytest.raises(refusal):
        await voids.void(world.actor, payment_request_id=request.id)
    now = await world.fresh(request)
    assert (now.status, now.version, now.void_requested_at) == (status, 1, None)
    assert await world.cards(request) == []
    assert await Job.all().count() == 0


async def test_a_partially_paid_request_is_voided_when_confirmed(world: World) -> None:
    request, _ = await world.request(status="PARTIALLY_PAID", amount_paid_minor=100)
    done = await voids.void(world.actor, payment_request_id=request.id, confirm_partially_paid=True)
    assert (done.request.status, done.request.amount_paid_minor) == ("VOID", 100)


async def test_void_twice_is_refused_and_logs_one_card(world: World) -> None:
    request, _ = await world.request()
    await voids.void(world.actor, payment_request_id=request.id)
    with pytest.raises(errors.AlreadyVoid):
        await voids.void(world.actor, payment_request_id=request.id)
    assert await world.cards(request) == ["REQUEST_VOIDED"]


async def test_bad_input_is_refused_and_changes_nothing(world: World) -> None:
    other = await World.make()
    request, _ = await world.request()
    viewer = Actor(
        account_id=world.account.id, role="VIEWER", user_id=world.user.id, name="V", kind="user", credential="v"
    )
    with pytest.raises(errors.Forbidden):
        await voids.void(viewer, payment_request_id=request.id)
    with pytest.raises(errors.NotFound) as missing:
        await voids.void(other.actor, payment_request_id=request.id)
    assert missing.value.field == ("paymentRequestId",)
    with pytest.raises(errors.VersionConflict):
        await voids.void(world.actor, payment_request_id=request.id, expected_version=2)
    with pytest.raises(errors.TooLong):
        await voids.void(world.actor, payment_request_id=request.id, reason="x" * 501)
    with pytest.raises(errors.Invalid):
        await voids.void(world.actor, payment_request_id=request.id, reason="\x00")
    assert (await world.fresh(request)).version == 1
    assert await Job.all().count() == 0
    done = await voids.void(world.actor, payment_request_id=request.id, expected_version=1, reason="x" * 500)
    assert done.request.status == "VOID"


async def test_a_checkout_that_cannot_be_closed_is_asked_less_and_less_often(world: World) -> None:
    _, token = await world.request()
    await world.open(token)
    session = await CheckoutSession.get()
    await CheckoutSession.all().update(closing_at=datetime.now(UTC) - timedelta(days=1))
    await checkout_closing.expire_later(session)
    world.vendor.faults = ["before"]
    await world.run_jobs(rounds=1)
    job = await Job.get(kind="checkout.expire")
    assert (job.status, job.attempts) == ("queued", 0)
    assert job.due_at > datetime.now(UTC) + timedelta(hours=2)
    await world.run_jobs()
    assert (await CheckoutSession.get()).status == "EXPIRED"
