"""Webhooks: stored before they are read, trusted only if everything matches, never lost."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from integrations.base import IntegrationError, MoneyKind, MoneyOutcome, MoneyStatement, ProcessorWebhook
from models import database as db
from models import errors
from models.ids import public_id
from models.tables import Job, MoneyFact, Notification, PaymentRequest, ProcessorConnection, ProcessorEvent
from services.core import job_runner, webhooks
from services.payments import checkout, processor_events, processor_webhooks, projection
from tests import factories
from tests.clock import moved
from tests.services.scripted import SECRET, Delivery, World, assert_consistent, signed


@pytest.fixture
async def world(database: str) -> World:
    return await World.make()


async def results() -> list[str | None]:
    """Results of the stored events, oldest first."""
    return [row.result for row in await ProcessorEvent.all().order_by("received_at", "id")]


async def nothing_stored() -> bool:
    counts = [await table.all().count() for table in (ProcessorEvent, MoneyFact, Job)]
    return counts == [0, 0, 0]


# ------------------------------------------------------------------------------------------------------- repetition
async def test_an_event_delivered_five_times_and_concurrently_is_one_fact_one_card_one_notification(
    world: World,
) -> None:
    request, token = await world.request()
    page = await world.open(token)
    world.vendor.pay(page)
    (paid,) = world.vendor.outbox
    await world.deliver(paid)
    await asyncio.gather(*(world.deliver(paid) for _ in range(4)))
    await world.run_jobs()
    assert await world.facts(request) == [("CHARGE", "SUCCEEDED", 12500)]
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]
    assert await world.notifications() == ["PAYMENT_RECEIVED"]
    assert (await world.fresh(request)).amount_paid_minor == 12500
    assert await ProcessorEvent.all().count() == 1
    await assert_consistent(world.account.id)


async def test_five_copies_at_once_on_concurrent_connections_count_once(world: World) -> None:
    request, token = await world.request()
    world.vendor.pay(await world.open(token))
    (paid,) = world.vendor.outbox
    await asyncio.gather(*(world.deliver(paid) for _ in range(5)))
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]
    assert await world.notifications() == ["PAYMENT_RECEIVED"]
    assert await results() == ["recorded"]
    await assert_consistent(world.account.id)


async def test_an_event_with_a_very_long_id_is_stored_once(world: World) -> None:
    request, token = await world.request()
    world.vendor.pay(await world.open(token))
    (paid,) = world.vendor.outbox
    payload = json.loads(paid.body)
    payload["id"] = "evt_" + "x" * 5_000
    long = signed(json.dumps(payload).encode())
    await world.deliver(long)
    await world.deliver(long)
    assert await results() == ["recorded"]
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]


async def test_two_event_types_of_the_same_money_count_once(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    charge = world.vendor.pay(page)
    other = world.vendor.event("payment.succeeded", statement=charge, session=world.vendor.sessions[page])
    await asyncio.gather(world.deliver(*world.vendor.outbox), world.deliver(other))
    await world.run_jobs()
    assert await world.facts(request) == [("CHARGE", "SUCCEEDED", 12500)]
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]
    assert sorted(filter(None, await results())) == ["recorded", "repeated"]


async def test_every_order_of_the_events_of_a_debit_ends_the_same(world: World) -> None:
    ends = []
    for order in itertools.permutations(range(3)):
        request, token = await world.request()
        page = await world.open(token)
        world.vendor.decline(page)
        world.vendor.pay(page, outcome=MoneyOutcome.PENDING)
        world.vendor.settle(page, ok=True)
        sent, world.vendor.outbox = world.vendor.outbox, []
        await world.deliver(*(sent[n] for n in order))
        now = await world.fresh(request)
        facts = sorted(await world.facts(request))
        ends.append((now.status, now.amount_paid_minor, now.last_attempt_status, facts))
        assert (await world.cards(request)).count("PAYMENT_RECEIVED") == 1
    assert len(ends) == 6
    assert all(end == ends[0] for end in ends)
    assert ends[0][:3] == ("PAID", 12500, "SUCCEEDED")
    await assert_consistent(world.account.id)


# -------------------------------------------------------------------------------------------------------- signatures
async def test_a_forged_signature_is_refused_and_nothing_is_stored(world: World) -> None:
    request, token = await world.request()
    world.vendor.pay(await world.open(token))
    (paid,) = world.vendor.outbox
    forgeries = [
        Delivery(paid.body, {}),
        Delivery(paid.body.replace(b"12500", b"12501"), paid.headers),
        Delivery(paid.body + b" ", paid.headers),
        signed(paid.body, secret=SECRET + "x"),
    ]
    for forged in forgeries:
        with pytest.raises(webhooks.BadSignature):
            await world.deliver(forged)
    assert await nothing_stored()
    assert await world.status(request) == "SENT"


async def test_a_signature_is_good_for_300_seconds_in_both_directions(world: World) -> None:
    request, token = await world.request()
    world.vendor.pay(await world.open(token))
    (paid,) = world.vendor.outbox
    now = datetime.now(UTC)
    accepted = []
    for skew in range(-600, 601, 30):
        if abs(skew) == 300:
            continue  # on the edge, the time that this test takes would decide
        try:
            await world.deliver(signed(paid.body, at=now + timedelta(seconds=skew)))
            accepted.append(skew)
        except webhooks.BadSignature:
            pass
    assert accepted == list(range(-270, 271, 30))
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]


async def test_a_signed_body_that_breaks_the_contract_is_refused_and_not_stored(world: World) -> None:
    request, token = await world.request()
    checkout = await world.open(token)
    ours = [{"about": public_id("pr", request.id)}, {"data": [{"checkout": {"id": checkout}}]}]
    for body in (b"[]", b"not json", *(json.dumps(one).encode() for one in ours)):
        with pytest.raises(webhooks.BadPayload):
            await world.deliver(signed(body))
    assert await nothing_stored()


async def test_a_signed_body_of_any_shape_that_names_nothing_of_ours_is_taken_and_not_stored(world: World) -> None:
    await world.request()
    for body in (
        b"{}",
        b'{"id": "evt", "type": "x"}',
        b'{"data": {"request_reference": "pr_' + b"0" * 32 + b'", "n": 1e300}}',
    ):
        await world.deliver(signed(body))
    assert await nothing_stored()


async def test_an_unknown_connection_and_one_without_a_secret_are_not_there(world: World) -> None:
    keys = {"sandbox": {"secret_key": "sk_0001"}, "stripe": {"secret_key": "sk_0001"}}
    keys |= {"paypal": {"client_id": "A", "client_secret": "E"}, "square": {"access_token": "EA", "location_id": "L"}}
    bare = [
        await factories.processor_connection(world.account, processor=name, credentials=given, is_default=False)
        for name, given in keys.items()
    ]
    unknown = [("sandbox", world.user.id), ("stripe", world.connection.id)]
    for name, connection_id in (*unknown, *((row.processor, row.id) for row in bare)):
        with pytest.raises(errors.NotFound):
            await processor_webhooks.receive(name, connection_id, b"{}", {})
    assert await nothing_stored()


async def test_what_the_vendor_cannot_verify_now_is_not_stored_and_taken_when_it_comes_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, token = await world.request()
    world.vendor.pay(await world.open(token))
    (paid,) = world.vendor.outbox

    async def down(
        body: bytes, headers: Mapping[str, str], *, now: datetime, query: Mapping[str, str]
    ) -> ProcessorWebhook:
        raise IntegrationError("sandbox", "timeout", retryable=True)

    with monkeypatch.context() as patch:
        patch.setattr(world.vendor, "verify_webhook", down)
        with pytest.raises(webhooks.NotVerifiable):
            await world.deliver(paid)
    assert await nothing_stored()
    await world.deliver(paid)
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]


async def test_a_late_resend_decides_nothing_until_its_checkout_is_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, token = await world.request()
    page = await world.open(token)
    world.vendor.pay(page)
    (paid,) = world.vendor.outbox

    async def late(
        body: bytes, headers: Mapping[str, str], *, now: datetime, query: Mapping[str, str]
    ) -> ProcessorWebhook:
        return replace(world.vendor.receive(body, headers, now=now), decides=False)

    monkeypatch.setattr(world.vendor, "verify_webhook", late)
    await world.deliver(paid)
    assert await world.status(request) == "SENT"
    assert await MoneyFact.all().count() == 0
    read = world.vendor.calls.count(("read", page))
    await world.run_jobs()
    assert world.vendor.calls.count(("read", page)) > read
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]


async def test_an_event_of_another_vendor_account_is_taken_and_nothing_is_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, token = await world.request()
    world.vendor.pay(await world.open(token))
    (paid,) = world.vendor.outbox
    parse = world.vendor.parse

    def of_another(body: bytes) -> Any:
        event = parse(body)
        return type(event)(
            **{name: getattr(event, name) for name in event.__slots__} | {"vendor_account": "acct_other"}
        )

    monkeypatch.setattr(world.vendor, "parse", of_another)
    await world.deliver(paid)
    assert await nothing_stored()
    assert await world.status(request) == "SENT"


async def test_anothers_webhook_cannot_touch_our_request(world: World) -> None:
    mine, my_token = await world.request()
    page = await world.open(my_token)
    other = await World.make()
    other.vendor.sessions.update(world.vendor.sessions)
    charge = world.vendor.pay(page)
    forged = other.vendor.event("checkout.paid", session=world.vendor.sessions[page], statement=charge)
    await other.deliver(forged)
    await other.run_jobs()
    assert await world.status(mine) == "SENT"
    assert await MoneyFact.all().count() == 0
    assert await results() == ["foreign"]


# ------------------------------------------------------------------------------------------------- hints and unmatched
async def test_a_hint_is_read_at_the_processor_before_anything_is_decided(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    await world.deliver(world.vendor.event("checkout.paid", session=world.vendor.sessions[page], decides=False))
    assert world.vendor.count("read") == 0
    assert await results() == [None]
    await world.run_jobs()
    assert world.vendor.count("read") == 1
    assert await world.status(request) == "SENT"
    world.vendor.pay(page)
    world.vendor.outbox = [world.vendor.event("checkout.paid", session=world.vendor.sessions[page], decides=False)]
    await world.deliver()
    await world.run_jobs()
    assert await world.status(request) == "PAID"


async def test_a_paid_event_whose_amount_does_not_fit_is_read_first(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    charge = world.vendor.pay(page)
    assert charge is not None
    lie = MoneyStatement(
        kind=charge.kind, external_id=charge.external_id, outcome=charge.outcome, amount_minor=1, currency="USD"
    )
    world.vendor.outbox = [world.vendor.event("checkout.paid", session=world.vendor.sessions[page], statement=lie)]
    await world.deliver()
    assert await world.facts(request) == []
    await world.run_jobs()
    assert await world.facts(request) == [("CHARGE", "SUCCEEDED", 12500)]
    assert await world.status(request) == "PAID"


async def test_a_payment_that_does_not_name_its_checkout_is_found_at_the_processor(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    charge = world.vendor.pay(page)
    assert charge is not None
    bare = MoneyStatement(
        kind=charge.kind,
        external_id=charge.external_id,
        outcome=charge.outcome,
        amount_minor=12500,
        currency="USD",
        request_reference=charge.request_reference,
    )
    world.vendor.outbox = [world.vendor.event("payment.succeeded", statement=bare, reference=charge.request_reference)]
    await world.deliver()
    await world.run_jobs()
    fact = await MoneyFact.get(payment_request_id=request.id)
    assert fact.checkout_session_id is not None
    assert await world.status(request) == "PAID"


async def test_an_event_of_another_program_is_kept_as_foreign_without_a_call_or_an_effect(world: World) -> None:
    request, _ = await world.request()
    charge = MoneyStatement(
        kind=MoneyKind.CHARGE,
        external_id="pay_foreign",
        outcome=MoneyOutcome.SUCCEEDED,
        amount_minor=12500,
        currency="USD",
    )
    await world.deliver(world.vendor.event("payment.succeeded", statement=charge))
    await world.deliver(world.vendor.event("payment.succeeded", statement=charge, reference="order-17"))
    await world.run_jobs()
    assert await results() == ["foreign", "foreign"]
    assert world.vendor.calls == []
    assert await world.status(request) == "SENT"
    assert await MoneyFact.all().count() == 0


async def test_an_event_about_nothing_that_we_follow_is_ignored(world: World) -> None:
    await world.deliver(world.vendor.event("account.updated"))
    assert await results() == ["ignored"]
    assert await Job.all().count() == 0


async def test_a_refund_that_is_told_before_its_charge_is_looked_at_again(world: World) -> None:
    request, token = await world.request()
    charge = world.vendor.pay(await world.open(token))
    assert charge is not None
    paid, world.vendor.outbox = world.vendor.outbox, []
    refund = MoneyStatement(
        kind=MoneyKind.REFUND,
        external_id="re_early",
        outcome=MoneyOutcome.SUCCEEDED,
        amount_minor=2500,
        currency="USD",
        charge_external_id=charge.external_id,
    )
    await world.deliver(world.vendor.event("refund.created", statement=refund))
    assert await results() == ["foreign"]
    await world.run_jobs(rounds=2)  # nothing is known yet
    await world.deliver(*paid)
    await world.run_jobs()
    now = await world.fresh(request)
    assert (now.status, now.refunded_minor, now.refund_state) == ("PAID", 2500, "PARTIAL")
    assert await world.cards(request) == ["PAYMENT_RECEIVED", "REFUND_ISSUED"]


async def test_a_refund_of_another_program_is_forgotten_after_three_days(world: World) -> None:
    refund = MoneyStatement(
        kind=MoneyKind.REFUND,
        external_id="re_foreign",
        outcome=MoneyOutcome.SUCCEEDED,
        amount_minor=1,
        currency="USD",
        charge_external_id="pay_foreign",
    )
    await world.deliver(world.vendor.event("refund.created", statement=refund))
    await world.run_jobs(rounds=2)
    assert await Job.filter(status="queued").count() == 1
    await ProcessorEvent.all().update(received_at=datetime.now(UTC) - timedelta(days=4))
    await world.run_jobs()
    assert await Job.filter(status="queued").count() == 0
    assert await results() == ["foreign"]


async def test_a_foreign_event_that_cannot_be_looked_at_again_is_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    refund = MoneyStatement(
        kind=MoneyKind.REFUND,
        external_id="re_foreign",
        outcome=MoneyOutcome.SUCCEEDED,
        amount_minor=1,
        currency="USD",
        charge_external_id="pay_foreign",
    )
    await world.deliver(world.vendor.event("refund.created", statement=refund))

    def fails(_: bytes) -> ProcessorWebhook:
        raise IntegrationError("sandbox", "unexpected_shape")

    monkeypatch.setattr(world.vendor, "parse", fails)
    await world.run_jobs(rounds=20)
    assert (await Job.get()).status == "dead"
    assert await processor_events.repeat_unhandled(datetime.now(UTC) + timedelta(days=1), 10) == 0
    assert await world.notifications() == []


# ----------------------------------------------------------------------------------------------------- kept and healed
async def test_an_event_that_cannot_be_recorded_is_kept_with_its_error_and_recorded_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, token = await world.request()
    world.vendor.pay(await world.open(token))
    with monkeypatch.context() as broken:
        broken.setattr(projection, "apply", None)  # a bug
        await world.deliver()
    row = await ProcessorEvent.get()
    assert (row.handled_at, row.error) == (None, "TypeError")
    assert await MoneyFact.all().count() == 0
    await world.run_jobs()
    row = await ProcessorEvent.get()
    assert (row.result, row.error) == ("recorded", None)
    assert await world.status(request) == "PAID"
    await assert_consistent(world.account.id)


async def test_a_repeat_of_an_unhandled_event_is_queued_again(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    hint = world.vendor.event("checkout.paid", session=world.vendor.sessions[page], decides=False)
    world.vendor.faults = ["before"]
    await world.deliver(hint)
    await world.run_jobs(rounds=1)
    assert (await ProcessorEvent.get()).error == "connection: "
    await db.execute("UPDATE job SET status = 'dead'")  # its process died, again and again
    world.vendor.pay(page)
    await world.deliver(hint)
    await world.run_jobs()
    assert await world.status(request) == "PAID"
    assert await Job.filter(kind="processor_event.handle").count() == 1


async def test_an_unhandled_event_is_repeated_by_the_sweeper_after_a_minute(world: World) -> None:
    _, token = await world.request()
    page = await world.open(token)
    await world.deliver(world.vendor.event("checkout.paid", session=world.vendor.sessions[page], decides=False))
    await db.execute("DELETE FROM job")
    now = datetime.now(UTC)
    assert await processor_events.repeat_unhandled(now, 10) == 0
    assert await processor_events.repeat_unhandled(now + timedelta(seconds=70), 10) == 1
    await world.run_jobs()
    assert await results() == ["repeated"]  # the checkout is as open as before


async def test_an_event_that_cannot_be_handled_is_tried_less_and_less_often_and_told_to_the_team_after_a_week(
    world: World,
) -> None:
    request, token = await world.request()
    page = await world.open(token)
    with moved() as clock:
        hint = world.vendor.event("checkout.paid", session=world.vendor.sessions[page], decides=False)
        await world.deliver(hint)
        began = clock.now()
        tries: list[timedelta] = []
        ages: list[timedelta] = []
        while clock.now() - began < timedelta(days=20):
            world.vendor.faults = ["before"]
            before = world.vendor.count("read")
            await processor_events.repeat_unhandled(clock.now(), 10)
            await job_runner.Runner().run_due()
            age = clock.now() - began
            tries += [age] * (world.vendor.count("read") - before)
            ages += [age] * (len(await world.notifications()) - len(ages))
            clock.move(timedelta(seconds=60) if age < timedelta(hours=1) else timedelta(hours=1))
        waits = [later - earlier for earlier, later in itertools.pairwise(tries)]
        first_day = [age for age in tries if age < timedelta(days=1)]
        last_days = [wait for age, wait in zip(tries[1:], waits, strict=True) if age > timedelta(days=9)]
        assert 8 < len(first_day) < 60
        assert len([age for age in tries if age < timedelta(days=7)]) < 90
        assert {round(wait / timedelta(hours=1)) for wait in last_days} <= {24, 25}
        assert len(ages) == 1
        assert timedelta(days=7) < ages[0] < timedelta(days=8)
        assert await world.notifications() == ["PAYMENT_MISMATCH"]
        assert await world.cards(request) == []
        world.vendor.faults = []
        world.vendor.pay(page)
        clock.move(timedelta(days=1))
        await job_runner.Runner().run_due()
        assert await world.status(request) == "PAID"
        assert (await ProcessorEvent.get()).error is None


async def test_an_event_whose_process_dies_at_every_try_is_not_begun_anew_at_once(world: World) -> None:
    _, token = await world.request()
    page = await world.open(token)
    await world.deliver(world.vendor.event("checkout.paid", session=world.vendor.sessions[page], decides=False))
    now = datetime.now(UTC)
    await ProcessorEvent.all().update(received_at=now - timedelta(hours=20))
    await db.execute("UPDATE job SET status = 'dead'")
    assert await processor_events.repeat_unhandled(now, 10) == 1
    assert (await Job.get()).due_at == now + timedelta(hours=2)
    assert await processor_events.repeat_unhandled(now, 10) == 0  # it waits


async def test_a_paid_webhook_that_the_object_does_not_confirm_is_a_notice_to_the_team(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    charge = MoneyStatement(
        kind=MoneyKind.CHARGE,
        external_id="pay_stolen_secret",
        outcome=MoneyOutcome.SUCCEEDED,
        amount_minor=12500,
        currency="USD",
        checkout_external_id=page,
    )
    await world.deliver(world.vendor.event("checkout.paid", session=world.vendor.sessions[page], statement=charge))
    await world.run_jobs()
    assert await world.cards(request) == ["PAYMENT_RECEIVED", "PAYMENT_MISMATCH"]
    assert await world.notifications() == ["PAYMENT_RECEIVED", "PAYMENT_MISMATCH"]
    titles = [one.title for one in await Notification.all().order_by("id")]
    assert titles == ["Payment received", "Payment not confirmed"]
    await world.run_jobs()
    assert len(await world.cards(request)) == 2


async def test_the_last_webhook_of_a_connection_is_remembered(world: World) -> None:
    await world.deliver(world.vendor.event("account.updated"))
    assert (await ProcessorConnection.get(id=world.connection.id)).last_webhook_at is not None


async def test_a_webhook_for_a_request_that_is_being_opened_waits_for_nothing(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    world.vendor.pay(page)
    await asyncio.gather(world.deliver(), *(checkout.open_checkout(token) for _ in range(3)))
    assert await world.status(request) == "PAID"
    assert await PaymentRequest.filter(status="PAID").count() == 1
    await world.run_jobs()
    assert world.vendor.open_sessions(request) == []


async def test_a_stored_event_holds_no_links_token_and_is_understood_all_the_same(world: World) -> None:
    request, token = await world.request()
    session = world.vendor.sessions[await world.open(token)]
    world.vendor.pay(session.external_id)
    (sent,) = world.vendor.outbox
    body = sent.body.replace(
        b'"decides"', f'"success_url":"https://pay.example.test/p/{token}/return","decides"'.encode()
    )
    body = body.replace(b'"decides":true', b'"decides":false')  # read again later, from what was stored
    await world.deliver(signed(body))
    (row,) = await ProcessorEvent.all()
    assert token not in row.body
    assert '"https://pay.example.test/p/…/return"' in row.body
    await world.run_jobs()
    assert await world.status(request) == "PAID"


async def test_a_database_that_is_away_is_not_answered_as_if_the_event_were_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, token = await world.request()
    world.vendor.pay(await world.open(token))
    (sent,) = world.vendor.outbox

    async def away(*_: object) -> ProcessorEvent:
        raise TimeoutError

    with monkeypatch.context() as broken:
        broken.setattr(processor_webhooks, "_store_event", away)
        with pytest.raises(TimeoutError):
            await world.deliver(sent)
    assert await ProcessorEvent.all().count() == 0
    await world.deliver(sent)  # the vendor sends it again
    assert await world.status(request) == "PAID"
