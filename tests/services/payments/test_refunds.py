"""Refunds: never more than was paid, once at the vendor, and PAID stays PAID."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from integrations.base import Capabilities, MoneyOutcome, MoneyStatement
from models import errors
from models.tables import (
    ContactSummary,
    IdempotencyKey,
    Message,
    Notification,
    PaymentRequest,
    Refund,
)
from services.core.permissions import Actor
from services.payments import (
    checkout,
    integrity_check,
    payment_requests,
    payment_views,
    refund_outcomes,
    refunds,
    voids,
)
from tests import factories
from tests.services.scripted import World, assert_consistent


@pytest.fixture
async def world(database: str) -> World:
    made = await World.make()
    made.actor = replace(made.actor, role="ADMIN")
    return made


async def paid(world: World, **more: object) -> tuple[PaymentRequest, str, MoneyStatement]:
    request, token = await world.request(**more)
    charge = world.vendor.pay(await world.open(token))
    await world.deliver()
    assert charge is not None
    return request, token, charge


async def payment_of(request: PaymentRequest, kind: str = "CHARGE") -> payment_views.PaymentView:
    views = (await payment_views.payments(request.account_id, [request.id]))[request.id]
    return next(view for view in views if view.kind == kind)


async def give_back(
    world: World, request: PaymentRequest, amount: str | None = None, *, actor: Actor | None = None, **more: object
) -> refunds.Refunded:
    given: dict[str, object] = {
        "reason": "REQUESTED_BY_CONTACT",
        "tell_contact_on": None,
        "idempotency_key": str(uuid4()),
    }
    payment = await payment_of(request)
    return await refunds.refund(actor or world.actor, payment_id=payment.id, amount=amount, **given | more)  # type: ignore[arg-type]


async def at_rest(world: World) -> None:
    await assert_consistent(world.account.id)
    assert await integrity_check.audit(world.account.id) == []


async def test_a_whole_refund_is_made_once_and_the_request_stays_paid(world: World) -> None:
    request, token, charge = await paid(world)
    done = await give_back(world, request)
    assert (done.refund.status, done.refund.amount_minor, done.refund.requested_by_id) == (
        "SUCCEEDED",
        12500,
        world.user.id,
    )
    assert done.payment is not None
    assert (done.payment.kind, done.payment.status, done.payment.charge_reference) == (
        "REFUND",
        "SUCCEEDED",
        charge.external_id,
    )
    assert done.card is not None
    assert (done.card.kind, done.card.status, done.card.actor_id) == ("REFUND_ISSUED", "PAID", world.user.id)
    assert done.message is None
    now = await world.fresh(request)
    assert (now.status, now.amount_paid_minor, now.refunded_minor, now.refund_state) == ("PAID", 12500, 12500, "FULL")
    assert await world.cards(request) == ["PAYMENT_RECEIVED", "REFUND_ISSUED"]
    assert await world.notifications() == ["PAYMENT_RECEIVED", "REFUND_ISSUED"]
    summary = await ContactSummary.get(contact_id=world.contact.id)
    assert (summary.paid_minor, summary.refunded_minor, summary.net_minor, summary.outstanding_minor) == (
        12500,
        12500,
        0,
        0,
    )
    opened = await checkout.open_checkout(token)
    assert (opened.url, opened.state) == (None, "paid")  # never payable again
    assert await Message.all().count() == 0
    await at_rest(world)


async def test_the_vendors_webhook_about_the_same_refund_changes_nothing(world: World) -> None:
    request, _, _ = await paid(world)
    await give_back(world, request)
    before = await world.fresh(request)
    assert len(world.vendor.outbox) == 1
    await world.deliver()
    await world.run_jobs()
    assert await world.fresh(request) == before
    assert (await world.fresh(request)).version == before.version
    assert await world.cards(request) == ["PAYMENT_RECEIVED", "REFUND_ISSUED"]
    assert await world.facts(request) == [("CHARGE", "SUCCEEDED", 12500), ("REFUND", "SUCCEEDED", 12500)]
    assert world.vendor.count("refund") == 1


async def test_a_webhook_that_is_faster_than_the_answer_is_the_same_refund(world: World) -> None:
    request, _, charge = await paid(world)
    payment = await payment_of(request)
    slow = await Refund.create(
        account_id=world.account.id,
        payment_request_id=request.id,
        money_fact_id=payment.id,
        charge_external_id=charge.external_id,
        processor_connection_id=world.connection.id,
        idempotency_key="rfd_1",
        amount_minor=12500,
        currency="USD",
        reason="OTHER",
    )
    world.vendor.keys["rfd_1"] = world.vendor.give_back(charge).external_id
    await world.deliver()
    assert await world.cards(request) == ["PAYMENT_RECEIVED", "REFUND_ISSUED"]
    await refund_outcomes.ask(slow, world.actor, caller_reports=True)
    assert (await Refund.get(id=slow.id)).status == "SUCCEEDED"
    assert await world.cards(request) == ["PAYMENT_RECEIVED", "REFUND_ISSUED"]
    assert len(world.vendor.refunds()) == 1
    await at_rest(world)


async def test_parts_up_to_the_charge_and_not_a_cent_above(world: World) -> None:
    request, _, _ = await paid(world)
    await give_back(world, request, "25.00")
    assert (await world.fresh(request)).refund_state == "PARTIAL"
    with pytest.raises(errors.RefundExceedsPayment) as refused:
        await give_back(world, request, "100.01")
    assert (refused.value.field, refused.value.message) == (("amount",), "At most $100.00 is left of this payment.")
    await give_back(world, request, "60.00")
    last = await give_back(world, request)
    assert last.refund.amount_minor == 4000
    now = await world.fresh(request)
    assert (now.status, now.refunded_minor, now.refund_state) == ("PAID", 12500, "FULL")
    with pytest.raises(errors.NotRefundable):
        await give_back(world, request)
    with pytest.raises(errors.NotRefundable):
        await give_back(world, request, "0.01")
    assert world.vendor.count("refund") == 3
    assert await Refund.all().count() == 3
    assert await world.cards(request) == ["PAYMENT_RECEIVED", "REFUND_ISSUED", "REFUND_ISSUED", "REFUND_ISSUED"]
    await at_rest(world)


@pytest.mark.parametrize(
    ("amount", "refusal"),
    [
        ("0", errors.AmountTooSmall),
        ("-1.00", errors.AmountTooSmall),
        ("1.001", errors.Invalid),
        ("all", errors.Invalid),
        ("125.01", errors.RefundExceedsPayment),
    ],
)
async def test_a_wrong_amount_is_refused_before_anything_is_called(
    world: World, amount: str, refusal: type[errors.Refusal]
) -> None:
    request, _, _ = await paid(world)
    with pytest.raises(refusal) as refused:
        await give_back(world, request, amount)
    assert refused.value.field == ("amount",)
    assert (world.vendor.count("refund"), await Refund.all().count()) == (0, 0)


@pytest.mark.usefixtures("separate_processes")
async def test_many_at_once_never_exceed_the_charge(world: World) -> None:
    request, _, _ = await paid(world)
    results = await asyncio.gather(*(give_back(world, request, "50.00") for _ in range(6)), return_exceptions=True)
    done = [r for r in results if isinstance(r, refunds.Refunded)]
    assert len(done) == 2
    assert all(isinstance(r, errors.RefundExceedsPayment) for r in results if r not in done)
    assert sum(m.amount_minor for m in world.vendor.refunds()) == 10000
    await at_rest(world)


async def test_the_same_key_is_one_refund_and_another_input_a_mismatch(world: World) -> None:
    request, _, _ = await paid(world)
    first = await give_back(world, request, "10.00", idempotency_key="key-00000001")
    again = await give_back(world, request, "10.00", idempotency_key="key-00000001")
    assert (again.refund.id, again.payment, again.card) == (first.refund.id, first.payment, first.card)
    with pytest.raises(errors.IdempotencyKeyParameterMismatch):
        await give_back(world, request, "11.00", idempotency_key="key-00000001")
    assert world.vendor.count("refund") == 1


async def test_a_refund_at_the_vendor_counts_and_is_said_once(world: World) -> None:
    request, _, charge = await paid(world)
    world.vendor.give_back(charge, 10000)
    await world.deliver()
    await world.run_jobs()  # not the checkout's amount: a hint, the object is read
    assert await world.cards(request) == ["PAYMENT_RECEIVED", "REFUND_ISSUED"]
    with pytest.raises(errors.RefundExceedsPayment):
        await give_back(world, request, "25.01")
    await give_back(world, request, "25.00")
    assert (await world.fresh(request)).refund_state == "FULL"
    await at_rest(world)


async def test_a_disputed_charge_leaves_nothing_to_give_back_until_the_dispute_is_won(world: World) -> None:
    request, _, charge = await paid(world)
    world.vendor.dispute(charge)
    await world.deliver()
    with pytest.raises(errors.NotRefundable):
        await give_back(world, request)
    world.vendor.dispute(charge, MoneyOutcome.CANCELED)
    await world.deliver()
    assert (await world.fresh(request)).dispute_state == "WON"
    assert (await give_back(world, request)).refund.status == "SUCCEEDED"
    await at_rest(world)


async def test_an_answer_that_is_lost_leaves_unknown_and_is_found_by_the_same_key(world: World) -> None:
    request, _, _ = await paid(world)
    world.vendor.faults = ["after"]
    done = await give_back(world, request, "50.00")
    assert (done.refund.status, done.payment, done.card) == ("UNKNOWN", None, None)
    with pytest.raises(errors.RefundExceedsPayment):
        await give_back(world, request, "75.01")  # what may have been given back is reserved
    assert (await world.fresh(request)).refund_state == "NONE"
    await world.run_jobs()
    assert (await Refund.get(id=done.refund.id)).status == "SUCCEEDED"
    assert {key for verb, key in world.vendor.calls if verb == "refund"} == {done.refund.idempotency_key}
    assert len(world.vendor.refunds()) == 1
    await world.deliver()
    assert await world.cards(request) == ["PAYMENT_RECEIVED", "REFUND_ISSUED"]
    assert (await world.fresh(request)).refunded_minor == 5000
    await at_rest(world)


async def test_a_key_that_only_repeats_its_fault_is_resolved_by_reading_the_charge(world: World) -> None:
    request, _, _ = await paid(world)
    world.vendor.faults = ["after", "after"]  # the answer, and its repeat by the job
    done = await give_back(world, request, "50.00")
    assert done.refund.status == "UNKNOWN"
    await world.run_jobs(rounds=1)
    fresh = await Refund.get(id=done.refund.id)
    assert (fresh.status, fresh.external_id) == ("SUCCEEDED", world.vendor.refunds()[0].external_id)
    assert len(world.vendor.refunds()) == 1
    await at_rest(world)


async def test_a_refusal_of_a_repeat_says_nothing_of_the_call_before_it(world: World) -> None:
    request, _, _ = await paid(world)
    await world.run_jobs()  # none but the refund's is left
    world.vendor.faults = ["after"]
    done = await give_back(world, request, "50.00")
    await Refund.filter(id=done.refund.id).update(status="PENDING")  # its process died before it could note anything
    world.vendor.faults = ["refuse", "before"]  # the key was withdrawn meanwhile, say: nothing can be read, either
    await world.run_jobs(rounds=1)
    fresh = await Refund.get(id=done.refund.id)
    assert fresh.status != "FAILED"
    assert (await world.cards(request))[-1] != "REFUND_FAILED"
    await world.run_jobs()
    fresh = await Refund.get(id=done.refund.id)
    assert (fresh.status, len(world.vendor.refunds())) == ("SUCCEEDED", 1)
    await at_rest(world)


async def test_a_refusal_of_a_repeat_after_an_unknown_answer_waits_until_the_charge_can_be_read(world: World) -> None:
    request, _, _ = await paid(world)
    await world.run_jobs()  # none but the refund's is left
    world.vendor.faults = ["before"]
    done = await give_back(world, request, "50.00")
    world.vendor.faults = ["refuse", "before"]
    await world.run_jobs(rounds=1)
    assert (await Refund.get(id=done.refund.id)).status == "UNKNOWN"
    world.vendor.faults = ["refuse"]
    await world.run_jobs(rounds=1)
    assert (await Refund.get(id=done.refund.id)).status == "FAILED"  # the charge was read, and has no refund
    assert (await world.cards(request))[-1] == "REFUND_FAILED"
    await at_rest(world)


async def test_after_the_keys_life_it_is_only_read(world: World) -> None:
    request, _, charge = await paid(world)
    world.vendor.faults = ["before"]
    done = await give_back(world, request, "50.00")
    assert done.refund.status == "UNKNOWN"
    old = done.refund.created_at - refund_outcomes.KEY_LIFE - timedelta(hours=1)
    await Refund.filter(id=done.refund.id).update(created_at=old)
    await world.run_jobs(rounds=3)
    assert world.vendor.count("refund") == 1
    assert (await Refund.get(id=done.refund.id)).status == "UNKNOWN"
    made = world.vendor.give_back(charge, 5000)  # it was made after all
    await world.run_jobs(rounds=1)
    fresh = await Refund.get(id=done.refund.id)
    assert (fresh.status, fresh.external_id) == ("SUCCEEDED", made.external_id)
    assert world.vendor.count("refund") == 1


@pytest.mark.parametrize(
    ("key_life_s", "age_s", "repeated"), [(300, 200, 1), (300, 280, 0), (0, 1, 0), (10**9, 20_000, 0)]
)
async def test_a_key_is_repeated_only_within_the_life_that_its_processor_declares(
    world: World, monkeypatch: pytest.MonkeyPatch, key_life_s: int, age_s: int, repeated: int
) -> None:
    monkeypatch.setattr(world.vendor, "capabilities", Capabilities(key_life_s=key_life_s))
    request, _, _ = await paid(world)
    world.vendor.faults = ["after"]
    done = await give_back(world, request, "50.00")
    assert done.refund.status == "UNKNOWN"
    if not repeated:
        world.vendor.keys.clear()  # a repeat would make another refund
    await Refund.filter(id=done.refund.id).update(created_at=done.refund.created_at - timedelta(seconds=age_s))
    await world.run_jobs(rounds=1)
    assert world.vendor.count("refund") == 1 + repeated
    (made,) = world.vendor.refunds()
    fresh = await Refund.get(id=done.refund.id)
    assert (fresh.status, fresh.external_id) == ("SUCCEEDED", made.external_id)


async def test_a_refund_that_was_never_made_fails_at_the_end_of_its_checks_and_frees_its_amount(world: World) -> None:
    request, _, _ = await paid(world)
    world.vendor.faults = ["before"]
    done = await give_back(world, request)
    await Refund.filter(id=done.refund.id).update(created_at=done.refund.created_at - refund_outcomes.KEY_LIFE)
    await world.run_jobs(rounds=20)
    fresh = await Refund.get(id=done.refund.id)
    assert (fresh.status, fresh.checks) == ("FAILED", len(refund_outcomes.CHECKS_S))
    assert await world.cards(request) == ["PAYMENT_RECEIVED", "REFUND_FAILED"]
    assert await world.notifications() == ["PAYMENT_RECEIVED", "REFUND_FAILED"]
    assert world.vendor.refunds() == []
    assert (await give_back(world, request)).refund.status == "SUCCEEDED"
    await at_rest(world)


async def test_a_refund_that_can_never_be_read_stays_unknown_reserves_its_amount_and_is_told_to_the_team(
    world: World,
) -> None:
    request, _, _ = await paid(world)
    await world.run_jobs()
    world.vendor.faults = ["before"]
    done = await give_back(world, request, "100.00")
    await Refund.filter(id=done.refund.id).update(created_at=done.refund.created_at - refund_outcomes.KEY_LIFE)
    world.vendor.faults = ["before"] * 20
    await world.run_jobs(rounds=20)
    world.vendor.faults = []
    assert (await Refund.get(id=done.refund.id)).status == "UNKNOWN"
    assert (await Notification.all().order_by("-seq").first()).title == "Refund not confirmed"  # type: ignore[union-attr]
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]
    with pytest.raises(errors.RefundExceedsPayment):
        await give_back(world, request, "25.01")
    assert world.vendor.count("refund") == 1


async def test_what_surely_never_left_is_repeated_by_the_job(world: World) -> None:
    request, _, _ = await paid(world)
    world.vendor.faults = ["busy"]
    done = await give_back(world, request)
    assert (done.refund.status, done.payment) == ("PENDING", None)
    await world.run_jobs()
    assert (await Refund.get(id=done.refund.id)).status == "SUCCEEDED"
    assert len(world.vendor.refunds()) == 1


async def test_a_refusal_of_the_vendor_is_told_to_who_asked_and_changes_nothing_else(world: World) -> None:
    request, _, _ = await paid(world)
    before = await world.fresh(request)
    world.vendor.faults = ["refuse"]
    for _ in range(2):  # a repeat of the key gets the same answer
        with pytest.raises(errors.ProcessorRejected) as refused:
            await give_back(world, request, idempotency_key="key-00000001")
        assert refused.value.field == ("paymentId",)
    assert world.vendor.count("refund") == 1
    await world.run_jobs()
    assert (await Refund.get()).status == "FAILED"
    assert (await world.fresh(request)).version == before.version
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]
    assert (await give_back(world, request)).refund.status == "SUCCEEDED"


async def test_a_pending_refund_becomes_what_the_vendor_says_later(world: World) -> None:
    request, _, charge = await paid(world)
    world.vendor.refund_outcomes = [MoneyOutcome.PENDING]
    done = await give_back(world, request, "100.00")
    assert (done.refund.status, done.card) == ("PENDING", None)
    assert done.payment is not None
    assert done.payment.status == "PENDING"
    with pytest.raises(errors.RefundExceedsPayment):
        await give_back(world, request, "25.01")
    world.vendor.give_back(charge, 10000, external_id=done.refund.external_id)
    await world.run_jobs(rounds=1)
    assert (await Refund.get(id=done.refund.id)).status == "SUCCEEDED"
    world.vendor.give_back(charge, 10000, external_id=done.refund.external_id, outcome=MoneyOutcome.FAILED)
    await world.deliver()
    await world.run_jobs()
    assert (await Refund.get(id=done.refund.id)).status == "FAILED"  # a succeeded refund can still fail
    assert await world.cards(request) == ["PAYMENT_RECEIVED", "REFUND_ISSUED", "REFUND_FAILED"]
    now = await world.fresh(request)
    assert (now.status, now.refunded_minor, now.refund_state) == ("PAID", 0, "NONE")
    await at_rest(world)


async def test_late_and_excess_money_can_be_given_back(world: World) -> None:
    request, token = await world.request()
    first = await world.open(token)
    await voids.void(world.actor, payment_request_id=request.id)
    world.vendor.pay(first, force=True)
    await world.deliver()
    assert (await world.fresh(request)).late_minor == 12500
    assert (await give_back(world, request)).refund.status == "SUCCEEDED"
    now = await world.fresh(request)
    assert (now.status, now.late_minor, now.refund_state) == ("VOID", 0, "FULL")
    await at_rest(world)


async def test_the_contact_is_told_once_on_the_channel_that_was_asked_for(world: World) -> None:
    await factories.contact_address(world.contact, "SMS")
    channel = await factories.channel_connection(world.account, "SMS")
    request, _, _ = await paid(world)
    done = await give_back(world, request, "50.00", tell_contact_on=channel.id, idempotency_key="key-00000001")
    assert done.message is not None
    assert done.message.body == (
        f"{world.account.name}: we have refunded $50.00 for Deep clean. It can take some days to arrive."
    )
    again = await give_back(world, request, "50.00", tell_contact_on=channel.id, idempotency_key="key-00000001")
    assert again.message == done.message
    await world.deliver()
    await world.run_jobs()
    assert await Message.filter(conversation_id=request.conversation_id).count() == 1


async def test_the_contact_is_told_when_a_lost_answer_is_found_and_not_before(world: World) -> None:
    await factories.contact_address(world.contact, "SMS")
    channel = await factories.channel_connection(world.account, "SMS")
    request, _, _ = await paid(world)
    world.vendor.faults = ["after"]
    done = await give_back(world, request, tell_contact_on=channel.id)
    assert (done.message, await Message.all().count()) == (None, 0)
    await world.run_jobs()
    row = await Refund.get(id=done.refund.id)
    assert row.message_id is not None
    assert await Message.all().count() == 1


async def test_a_channel_that_does_not_reach_the_contact_is_refused_before_money_moves(world: World) -> None:
    channel = await factories.channel_connection(world.account, "SMS")
    request, _, _ = await paid(world)
    with pytest.raises(errors.ContactHasNoAddress) as refused:
        await give_back(world, request, tell_contact_on=channel.id)
    assert refused.value.field == ("channelId",)
    with pytest.raises(errors.NotFound):
        await give_back(world, request, tell_contact_on=uuid4())
    assert (world.vendor.count("refund"), await Refund.all().count()) == (0, 0)


async def test_an_agent_and_a_foreigner_can_give_nothing_back(world: World) -> None:
    request, _, _ = await paid(world)
    with pytest.raises(errors.Forbidden):
        await give_back(world, request, actor=replace(world.actor, role="AGENT"))
    other = await World.make()
    with pytest.raises(errors.NotFound) as refused:
        await give_back(world, request, actor=replace(other.actor, role="OWNER"))
    assert refused.value.field == ("paymentId",)
    assert (world.vendor.count("refund"), await Refund.all().count(), await IdempotencyKey.all().count()) == (0, 0, 0)


async def test_refund_is_offered_to_those_who_may_while_something_is_left(world: World) -> None:
    request, _, _ = await paid(world)

    async def offered(role: str) -> bool:
        views = (await payment_views.payments(request.account_id, [request.id]))[request.id]
        left = (await refunds.refundable(request.account_id, {request.id: views}))[request.id]
        actions = payment_requests.available_actions(await world.fresh(request), role, refundable=bool(left))
        return ("REFUND", None) in actions

    assert [await offered(role) for role in ("OWNER", "ADMIN", "AGENT", "VIEWER")] == [True, True, False, False]
    await give_back(world, request, "25.00")
    assert await offered("OWNER")
    await give_back(world, request)
    assert not await offered("OWNER")
