"""Manual records count as charges, close open checkouts, and can be undone."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from integrations.base import MoneyOutcome
from models import database, errors
from models.tables import ActivityCard, AuditEntry, ContactSummary, MoneyFact, PaymentRequest
from services.payments import (
    checkout,
    checkout_page,
    integrity_check,
    offline_payments,
    payment_requests,
    payment_views,
    refunds,
    voids,
)
from tests.services.figures_book import shown_figures
from tests.services.scripted import World, assert_consistent


@pytest.fixture
async def world(database: str) -> World:
    return await World.make()


async def record(world: World, request: PaymentRequest, **more: object) -> offline_payments.Recorded:
    given: dict[str, object] = {"method": "CASH", "idempotency_key": str(uuid4())}
    return await offline_payments.record(world.actor, payment_request_id=request.id, **given | more)  # type: ignore[arg-type]


async def at_rest(world: World) -> None:
    await assert_consistent(world.account.id)
    assert await integrity_check.audit(world.account.id) == []


async def test_cash_for_all_that_is_due_makes_it_paid_without_the_processor(world: World) -> None:
    request, token = await world.request()
    yesterday = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    done = await record(world, request, note="At the door", received_at=yesterday)
    assert (done.request.status, done.request.amount_paid_minor, done.request.paid_at) == ("PAID", 12500, yesterday)
    assert (done.request.last_attempt_status, done.request.last_attempt_at) == (None, None)
    payment = done.payment
    assert (payment.kind, payment.status, payment.amount_minor, payment.processor, payment.note) == (
        "CHARGE",
        "SUCCEEDED",
        12500,
        None,
        "At the door",
    )
    assert (payment.method_summary, payment.occurred_at) == ("Cash", yesterday)
    assert done.card is not None
    assert (done.card.kind, done.card.status, done.card.actor_id) == ("RECORDED_OUTSIDE", "PAID", world.user.id)
    assert done.card.text == "$125.00 for Deep clean was received outside (cash). At the door"
    assert await world.cards(request) == ["RECORDED_OUTSIDE"]
    assert await world.notifications() == []
    assert world.vendor.calls == []
    fact = await MoneyFact.get()
    assert (fact.source, fact.recorded_by_id, fact.processor_connection_id) == ("manual", world.user.id, None)
    summary = await ContactSummary.get(contact_id=world.contact.id)
    assert (summary.paid_minor, summary.net_minor, summary.outstanding_minor, summary.paid_count) == (
        12500,
        12500,
        0,
        1,
    )
    assert (await checkout.open_checkout(token)).state == "paid"
    (entry,) = await AuditEntry.all()
    assert (entry.action, entry.actor_id) == ("outside_payment.record", world.user.id)
    await at_rest(world)


async def test_a_part_leaves_the_rest_to_be_paid_on_the_link(world: World) -> None:
    request, token = await world.request()
    old = await world.open(token)
    done = await record(world, request, amount="25.00", method="CHEQUE")
    assert (done.request.status, done.request.amount_paid_minor, done.request.paid_at) == ("PARTIALLY_PAID", 2500, None)
    assert done.payment.method_summary == "Cheque"
    new = await world.open(token)
    assert new != old
    assert world.vendor.sessions[new].order.amount_minor == 10000
    await world.run_jobs()
    assert [s.external_id for s in world.vendor.open_sessions(request)] == [new]
    world.vendor.pay(new)
    await world.deliver()
    now = await world.fresh(request)
    assert (now.status, now.amount_paid_minor, now.excess_minor) == ("PAID", 12500, 0)
    assert await world.cards(request) == ["RECORDED_OUTSIDE", "PAYMENT_RECEIVED"]
    await at_rest(world)


async def test_open_checkouts_are_closed_when_cash_pays_all(world: World) -> None:
    request, token = await world.request()
    session = await world.open(token)
    await record(world, request)
    await world.run_jobs()
    assert world.vendor.open_sessions(request) == []
    assert world.vendor.pay(session) is None


async def test_open_checkouts_that_ask_for_another_amount_than_is_due_are_closed(world: World) -> None:
    request, token = await world.request()
    whole = await world.open(token)
    first = await record(world, request, amount="25.00")
    await world.run_jobs()
    assert world.vendor.open_sessions(request) == []
    assert world.vendor.pay(whole) is None
    rest = await world.open(token)
    await offline_payments.undo(world.actor, payment_id=first.payment.id)
    await world.run_jobs()
    assert world.vendor.open_sessions(request) == []
    assert world.vendor.pay(rest) is None


async def test_money_that_arrives_beside_the_cash_is_excess_and_can_be_given_back(world: World) -> None:
    request, token = await world.request()
    session = await world.open(token)
    await record(world, request)
    world.vendor.pay(session)
    await world.deliver()
    now = await world.fresh(request)
    assert (now.status, now.excess_minor) == ("PAID", 12500)
    assert await world.cards(request) == ["RECORDED_OUTSIDE", "EXCESS_PAYMENT"]
    await at_rest(world)


async def test_a_draft_logs_its_first_card_first(world: World) -> None:
    request, _ = await world.request(status="DRAFT", sent_at=None, sent_via=None)
    done = await record(world, request)
    assert await world.cards(request) == ["PAYMENT_REQUEST", "RECORDED_OUTSIDE"]
    assert done.card is not None
    assert done.card.kind == "RECORDED_OUTSIDE"


async def test_an_undone_record_opens_the_request_again_and_the_ledger_keeps_both(world: World) -> None:
    request, token = await world.request()
    first = await record(world, request)
    undone = await offline_payments.undo(world.actor, payment_id=first.payment.id)
    assert (undone.request.status, undone.request.amount_paid_minor, undone.request.paid_at) == ("SENT", 0, None)
    assert (undone.payment.id, undone.payment.status) == (first.payment.id, "CANCELED")
    assert undone.card is not None
    assert undone.card.text == "The record of $125.00 (cash) for Deep clean was undone."
    assert await world.facts(request) == [("CHARGE", "SUCCEEDED", 12500), ("CHARGE", "CANCELED", 12500)]
    assert await world.cards(request) == ["RECORDED_OUTSIDE", "RECORDED_OUTSIDE"]
    summary = await ContactSummary.get(contact_id=world.contact.id)
    assert (summary.paid_minor, summary.net_minor, summary.outstanding_minor) == (0, 0, 12500)
    assert (summary.first_paid_at, summary.last_paid_at) == (None, None)
    (figures,) = await shown_figures(world.account.id, "TODAY", datetime.now(UTC))
    assert (figures.paid_minor, figures.paid_count) == (0, 0)
    assert [e.action for e in await AuditEntry.all().order_by("id")] == [
        "outside_payment.record",
        "outside_payment.undo",
    ]
    world.vendor.pay(await world.open(token))
    await world.deliver()
    assert (await world.fresh(request)).status == "PAID"
    assert await world.cards(request) == ["RECORDED_OUTSIDE", "RECORDED_OUTSIDE", "PAYMENT_RECEIVED"]
    page = await checkout_page.page(await world.fresh(request))
    assert page.receipt is not None
    assert page.receipt.processor == "sandbox"
    await at_rest(world)


async def test_undoing_twice_is_undoing_once(world: World) -> None:
    request, _ = await world.request()
    first = await record(world, request)
    results = await asyncio.gather(*(offline_payments.undo(world.actor, payment_id=first.payment.id) for _ in range(4)))
    assert sum(result.card is not None for result in results) == 1
    assert await MoneyFact.all().count() == 2
    assert await AuditEntry.filter(action="outside_payment.undo").count() == 1
    await at_rest(world)


async def test_one_of_two_records_can_be_undone(world: World) -> None:
    request, _ = await world.request()
    first = await record(world, request, amount="25.00")
    second = await record(world, request)
    assert (second.request.status, second.payment.amount_minor) == ("PAID", 10000)
    undone = await offline_payments.undo(world.actor, payment_id=first.payment.id)
    assert (undone.request.status, undone.request.amount_paid_minor) == ("PARTIALLY_PAID", 10000)
    await at_rest(world)


async def test_the_same_key_is_one_record(world: World) -> None:
    request, _ = await world.request()
    first = await record(world, request, amount="25.00", idempotency_key="key-00000001")
    again = await record(world, request, amount="25.00", idempotency_key="key-00000001")
    assert (again.payment, again.card) == (first.payment, first.card)
    assert await MoneyFact.all().count() == 1
    with pytest.raises(errors.IdempotencyKeyParameterMismatch):
        await record(world, request, amount="26.00", idempotency_key="key-00000001")


async def test_two_who_record_all_that_is_due_at_once_record_it_once(world: World) -> None:
    request, _ = await world.request()
    results = await asyncio.gather(*(record(world, request) for _ in range(4)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["AlreadyPaid"] * 3 + ["Recorded"]
    assert await MoneyFact.all().count() == 1


@pytest.mark.parametrize(
    ("given", "refusal", "field"),
    [
        ({"amount": "0"}, errors.AmountTooSmall, "amount"),
        ({"amount": "-5"}, errors.AmountTooSmall, "amount"),
        ({"amount": "125.01"}, errors.AmountTooLarge, "amount"),
        ({"amount": "1.001"}, errors.Invalid, "amount"),
        ({"note": "x" * 501}, errors.TooLong, "note"),
        ({"received_at": datetime(2199, 1, 1, tzinfo=UTC)}, errors.Invalid, "receivedAt"),
        ({"received_at": datetime(1, 1, 1, tzinfo=UTC)}, errors.Invalid, "receivedAt"),
    ],
)
async def test_what_is_wrong_is_refused_and_nothing_is_recorded(
    world: World, given: dict[str, object], refusal: type[errors.Refusal], field: str
) -> None:
    request, _ = await world.request()
    with pytest.raises(refusal) as refused:
        await record(world, request, **given)
    assert refused.value.field == (field,)
    assert (await MoneyFact.all().count(), await ActivityCard.all().count(), await AuditEntry.all().count()) == (
        0,
        0,
        0,
    )


async def test_what_is_closed_or_under_way_takes_no_record(world: World) -> None:
    request, token = await world.request()
    world.vendor.pay(await world.open(token), outcome=MoneyOutcome.PENDING)
    await world.deliver()
    with pytest.raises(errors.PaymentInProgress):
        await record(world, request)
    world.vendor.settle(next(iter(world.vendor.sessions)), ok=True)
    await world.deliver()
    with pytest.raises(errors.AlreadyPaid):
        await record(world, request)
    other, _ = await world.request()
    await voids.void(world.actor, payment_request_id=other.id)
    with pytest.raises(errors.AlreadyVoid):
        await record(world, other)
    assert await MoneyFact.filter(source="manual").count() == 0


async def test_a_processors_payment_can_not_be_undone_nor_cash_refunded(world: World) -> None:
    request, token = await world.request()
    world.vendor.pay(await world.open(token))
    await world.deliver()
    payment = (await payment_views.payments(request.account_id, [request.id]))[request.id][0]
    with pytest.raises(errors.Invalid) as invalid:
        await offline_payments.undo(world.actor, payment_id=payment.id)
    assert invalid.value.field == ("paymentId",)
    other, _ = await world.request()
    cash = await record(world, other)
    with pytest.raises(errors.NotRefundable):
        await refunds.refund(
            replace(world.actor, role="OWNER"),
            payment_id=cash.payment.id,
            amount=None,
            reason="OTHER",
            tell_contact_on=None,
            idempotency_key=str(uuid4()),
        )
    assert (await world.fresh(request)).status == "PAID"


async def test_viewers_and_foreigners_record_and_undo_nothing(world: World) -> None:
    request, _ = await world.request()
    done = await record(world, request, amount="25.00")
    viewer = replace(world.actor, role="VIEWER")
    other = await World.make()
    for actor, refusal in ((viewer, errors.Forbidden), (other.actor, errors.NotFound)):
        with pytest.raises(refusal):
            await offline_payments.record(
                actor, payment_request_id=request.id, method="CASH", idempotency_key=str(uuid4())
            )
        with pytest.raises(refusal):
            await offline_payments.undo(actor, payment_id=done.payment.id)
    assert await MoneyFact.all().count() == 1


async def test_recording_is_offered_while_something_is_due(world: World) -> None:
    request, _ = await world.request()
    assert ("RECORD_OUTSIDE_PAYMENT", "PAID") in payment_requests.available_actions(request, "AGENT")
    assert payment_requests.available_actions(request, "VIEWER") == []
    done = await record(world, request)
    assert payment_requests.available_actions(done.request, "OWNER") == []


async def test_what_pays_a_request_once_more_after_an_undone_record_has_its_card_its_notice_and_its_event(
    world: World,
) -> None:
    request, token = await world.request()
    cash = await record(world, request, amount="10.00")
    world.vendor.pay(await world.open(token))
    await world.deliver()
    await offline_payments.undo(world.actor, payment_id=cash.payment.id)
    assert await world.status(request) == "PARTIALLY_PAID"
    world.vendor.pay(await world.open(token))
    await world.deliver()
    now = await world.fresh(request)
    assert (now.status, now.amount_paid_minor, now.excess_minor) == ("PAID", 12500, 0)
    assert await world.cards(request) == [
        *("RECORDED_OUTSIDE", "PAYMENT_RECEIVED"),
        *("RECORDED_OUTSIDE", "PARTIAL_PAYMENT"),
    ]
    assert await world.notifications() == ["PAYMENT_RECEIVED", "PARTIAL_PAYMENT"]
    card = await ActivityCard.filter(payment_request_id=request.id).order_by("-seq").first()
    assert card is not None
    assert (card.status, card.text) == (
        "PAID",
        "Payment received: $10.00 for Deep clean. The request is paid in full again.",
    )
    events = [
        row["kind"] for row in await database.rows("SELECT kind FROM event WHERE card_id = ? ORDER BY seq", card.id)
    ]
    assert events == ["activity.created", "payment_request.paid"]
    await at_rest(world)
