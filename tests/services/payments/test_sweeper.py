"""Background repair: lost webhooks, silent processors, unanswered creations."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from integrations.base import CheckoutStatus, IntegrationError, MoneyOutcome
from models import errors, event_log
from models.tables import CheckoutSession, Job, MoneyFact, PaymentRequest, ProcessorConnection, ProcessorEvent, Refund
from services.connections import processor_settings, providers
from services.core import retention
from services.core.jobs import Handler, JobContext
from services.payments import checkout, payment_views, refunds, sweeper, voids
from tests import factories
from tests.configured import change
from tests.services.scripted import World, assert_consistent


@pytest.fixture
async def world(database: str) -> World:
    return await World.make()


def tick() -> JobContext:
    return JobContext(job_id=uuid4(), kind="test", payload={}, account_id=None, attempt=1, last_attempt=True)


def in_(**delta: float) -> datetime:
    return datetime.now(UTC) + timedelta(**delta)


async def test_with_all_webhooks_lost_the_sweeper_records_the_payment(world: World) -> None:
    request, token = await world.request()
    world.vendor.pay(await world.open(token))
    world.vendor.outbox.clear()
    assert await sweeper.sweep(in_(seconds=50)) == 0
    assert await sweeper.sweep(in_(seconds=61)) == 1
    assert await world.status(request) == "PAID"
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]
    assert (await MoneyFact.get()).source == "sweeper"
    assert await sweeper.sweep(in_(hours=23)) == 0


async def test_webhooks_only_sweeper_only_and_both_come_to_the_same_end(world: World) -> None:
    ends = []
    for webhooks, sweeps in ((True, False), (False, True), (True, True)):
        chosen = random.Random(5)
        here = await World.make()
        requests = []
        for _ in range(12):
            request, token = await here.request()
            requests.append(request)
            page = await here.open(token)
            act = chosen.choice(["pay", "decline", "debit ok", "debit no", "wrong", "leave", "lapse"])
            if act == "pay":
                here.vendor.pay(page)
            elif act == "wrong":
                here.vendor.pay(page, amount_minor=1)
            elif act == "decline":
                here.vendor.decline(page)
            elif act == "lapse":
                here.vendor.lapse(page)
            elif act.startswith("debit"):
                here.vendor.pay(page, outcome=MoneyOutcome.PENDING)
                here.vendor.settle(page, ok=act.endswith("ok"))
        chosen.shuffle(here.vendor.outbox)
        if webhooks:
            await here.deliver(*here.vendor.outbox[: len(here.vendor.outbox) if not sweeps else 5])
            await here.run_jobs()
        if sweeps:
            await sweeper.sweep(in_(minutes=2))
        end = []
        for request in requests:
            now = await here.fresh(request)
            facts = {f for f in await here.facts(request) if f[1] != "PENDING"}
            end.append((now.status, now.amount_paid_minor, sorted(facts)))
        ends.append(end)
        await assert_consistent(here.account.id)
    assert ends[0] == ends[1] == ends[2]
    assert {status for status, *_ in ends[0]} == {"PAID", "SENT"}


async def test_one_checkout_that_cannot_be_read_keeps_no_other_from_being_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, broken_token = await world.request()
    fine, fine_token = await world.request()
    broken_page, fine_page = await world.open(broken_token), await world.open(fine_token)
    world.vendor.pay(broken_page)
    world.vendor.pay(fine_page)
    read = world.vendor.read_checkout

    async def fails(external_id: str) -> object:
        if external_id == broken_page:
            raise ZeroDivisionError
        return await read(external_id)

    monkeypatch.setattr(world.vendor, "read_checkout", fails)
    assert await sweeper.sweep(in_(minutes=2)) == 2
    assert await world.status(broken) == "SENT"
    assert await world.status(fine) == "PAID"
    monkeypatch.undo()
    await sweeper.sweep(in_(minutes=8))
    assert await world.status(broken) == "PAID"


async def test_a_closed_sandbox_keeps_no_other_processor_from_being_swept(world: World) -> None:
    _, token = await world.request()
    await world.open(token)
    change(sandbox_open=False)
    assert await sweeper.sweep(in_(minutes=2)) == 1
    await sweeper.sweep_events(tick())
    await sweeper.sweep_events_back(tick())


async def test_a_checkout_that_stays_unreadable_is_read_less_and_less_often(world: World) -> None:
    _, token = await world.request()
    await world.open(token)
    await CheckoutSession.all().update(created_at=datetime.now(UTC) - timedelta(days=10))
    world.vendor.faults = ["before"]
    now = in_(minutes=2)
    await sweeper.sweep(now)
    session = await CheckoutSession.get()
    assert session.next_check_at is not None
    assert session.next_check_at > now + timedelta(hours=23)
    assert session.status == "OPEN"


async def test_an_open_checkout_is_read_every_five_minutes(world: World) -> None:
    _, token = await world.request()
    await world.open(token)
    now = in_(minutes=2)
    assert await sweeper.sweep(now) == 1
    assert await sweeper.sweep(now + timedelta(seconds=299)) == 0
    assert await sweeper.sweep(now + timedelta(seconds=300)) == 1
    assert world.vendor.count("read") == 2


async def test_a_checkout_that_another_process_took_is_not_read_twice(world: World) -> None:
    _, token = await world.request()
    await world.open(token)
    now = in_(minutes=2)
    stale = await CheckoutSession.get()
    await sweeper._check_checkout(await CheckoutSession.get(), now)
    await sweeper._check_checkout(stale, now)
    assert world.vendor.count("read") == 1


async def test_a_creation_that_was_never_answered_is_given_up(world: World) -> None:
    _, token = await world.request()
    await world.open(token)
    await CheckoutSession.all().update(status="OPENING", external_id=None)
    await sweeper.sweep(in_(minutes=2))
    assert (await CheckoutSession.get()).status == "OPENING"
    await sweeper.sweep(in_(minutes=8))
    assert (await CheckoutSession.get()).status == "ABANDONED"
    assert world.vendor.count("read") == 0


async def test_events_that_the_vendor_could_not_deliver_are_fetched_once(world: World) -> None:
    request, token = await world.request()
    world.vendor.pay(await world.open(token))
    (lost,) = world.vendor.outbox
    world.vendor.undelivered = [world.vendor.parse(lost.body)]
    assert await sweeper.fetch_events(world.connection, datetime.now(UTC)) == 1
    assert await world.status(request) == "PAID"
    assert await sweeper.fetch_events(world.connection, datetime.now(UTC)) == 0
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]
    assert await ProcessorEvent.all().count() == 1


async def test_the_vendors_list_is_read_from_an_hour_before_the_last_look(world: World) -> None:
    now = datetime.now(UTC)
    await sweeper.fetch_events(world.connection, now)
    row = await ProcessorConnection.get(id=world.connection.id)
    await sweeper.fetch_events(row, now + timedelta(minutes=1))
    asked = [datetime.fromisoformat(since) for verb, since in world.vendor.calls if verb == "list"]
    assert asked == [now - timedelta(days=30), now - timedelta(hours=1)]


async def test_a_vendor_that_gives_no_list_is_asked_again_from_the_same_place(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(_: datetime) -> object:
        raise IntegrationError("sandbox", "timeout")

    monkeypatch.setattr(world.vendor, "list_events", fails)
    assert await sweeper.fetch_events(world.connection, datetime.now(UTC)) == 0
    assert (await ProcessorConnection.get(id=world.connection.id)).events_read_until is None


async def test_the_minutes_round_repeats_unhandled_events(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    hint = world.vendor.event("checkout.paid", session=world.vendor.sessions[page], decides=False)
    world.vendor.pay(page)
    await world.deliver(hint)
    await Job.all().delete()
    await ProcessorEvent.all().update(received_at=datetime.now(UTC) - timedelta(minutes=2))
    await sweeper.sweep_events(tick())
    await world.run_jobs()
    assert await world.status(request) == "PAID"


# ------------------------------------------------------------------------------------------------------------- gently
async def test_a_connection_is_read_at_most_so_often_a_second(world: World) -> None:
    for _ in range(11):
        _, token = await world.request()
        await world.open(token)
    change(reads_per_s=50.0)
    started = time.monotonic()
    assert await sweeper.sweep(in_(minutes=2)) == 11
    assert time.monotonic() - started >= 10 / 50  # it can only take longer


async def test_a_link_that_stays_open_for_months_is_read_less_and_less_often(world: World) -> None:
    _, token = await world.request()
    await world.open(token)
    for days, wait in ((0.5, timedelta(minutes=5)), (30, timedelta(hours=2, minutes=30))):
        now = in_(minutes=2)
        await CheckoutSession.all().update(created_at=now - timedelta(days=days), next_check_at=now)
        await sweeper.sweep(now)
        session = await CheckoutSession.get()
        assert session.next_check_at is not None
        assert abs(session.next_check_at - (now + wait)) < timedelta(milliseconds=1)


async def test_a_vendor_that_answers_nothing_is_left_alone_until_the_next_round(world: World) -> None:
    other = await World.make()
    _, token = await other.request()
    await other.open(token)
    for _ in range(12):
        _, token = await world.request()
        await world.open(token)
    world.vendor.faults = ["before"] * 12
    await sweeper.sweep(in_(minutes=2))
    assert 3 <= world.vendor.count("read") <= 3 + sweeper.READS_AT_ONCE
    assert other.vendor.count("read") == 1
    world.vendor.faults = []
    await sweeper.sweep(in_(minutes=3))
    assert world.vendor.count("read") == 12  # those that failed come later


async def test_credentials_that_were_withdrawn_are_told_in_the_settings_until_they_work(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, token = await world.request()
    await world.open(token)

    async def refused(_: str) -> object:
        raise IntegrationError("sandbox", "authentication_failed", "sk_secret")

    async def silent(_: str) -> object:
        raise IntegrationError("sandbox", "timeout", retryable=True)

    monkeypatch.setattr(world.vendor, "read_checkout", silent)
    assert await sweeper.sweep(in_(minutes=2)) == 1
    assert (await ProcessorConnection.get(id=world.connection.id)).last_error is None
    monkeypatch.setattr(world.vendor, "read_checkout", refused)
    assert await sweeper.sweep(in_(minutes=20)) == 1
    assert (await ProcessorConnection.get(id=world.connection.id)).last_error == (
        "Sandbox does not accept these credentials: copy them again, and see that all are of one application and mode."
    )


@pytest.mark.parametrize(("wanted", "given"), [(600, 600), (999_999_999, 3600)])
async def test_a_vendor_that_wants_quiet_gets_it_for_an_hour_at_most(
    world: World, monkeypatch: pytest.MonkeyPatch, wanted: float, given: float
) -> None:
    _, token = await world.request()
    await world.open(token)

    async def busy(_: str) -> object:
        raise IntegrationError("sandbox", "rate_limited", retryable=True, retry_after_s=wanted)

    monkeypatch.setattr(world.vendor, "read_checkout", busy)
    now = in_(minutes=2)
    assert await sweeper.sweep(now) == 1
    monkeypatch.undo()
    assert await sweeper.sweep(now + timedelta(seconds=given - 1)) == 0
    assert await sweeper.sweep(now + timedelta(seconds=given + 1)) == 1
    assert world.vendor.count("read") == 1


# ------------------------------------------------------------------------------------------- unanswered captures, voids
async def test_an_unanswered_capture_is_asked_for_at_least_daily_and_told_to_the_team_after_five_days(
    world: World,
) -> None:
    request, token = await world.request()
    page = await world.open(token)
    world.vendor.approve(page)
    now = in_(seconds=61)
    waits = []
    for age in (timedelta(0), timedelta(hours=1), timedelta(days=1), timedelta(days=5), timedelta(days=15)):
        begun = await CheckoutSession.get()
        if begun.capturing_at is not None:
            await CheckoutSession.all().update(capturing_at=now - age, created_at=now - age, next_check_at=now)
        world.vendor.faults = ["", "before"]
        await sweeper.sweep(now)
        session = await CheckoutSession.get()
        assert session.next_check_at is not None
        waits.append(session.next_check_at - now)
        assert await world.notifications() == (["PAYMENT_MISMATCH"] if age.days > 5 else [])
    assert [round(wait.total_seconds()) for wait in waits] == [300, 360, 8640, 43_200, 86_400]
    assert len(set(world.vendor.keys_of("complete"))) == 1
    world.vendor.faults = ["", "before"]
    await sweeper.sweep(now + timedelta(days=2))
    assert await world.notifications() == ["PAYMENT_MISMATCH"]  # once
    assert await world.cards(request) == []
    await sweeper.sweep(now + timedelta(days=4))
    assert await world.status(request) == "PAID"


async def test_an_unanswered_creation_is_no_capture_and_tells_nobody(world: World) -> None:
    _, token = await world.request()
    await world.open(token)
    await CheckoutSession.all().update(created_at=datetime.now(UTC) - timedelta(days=30))
    world.vendor.faults = ["before"]
    await sweeper.sweep(in_(minutes=2))
    assert await world.notifications() == []


async def test_a_pending_void_has_one_job_that_comes_again_less_and_less_often(world: World) -> None:
    world.vendor.closes_late = True
    request, token = await world.request()
    page = await world.open(token)
    await CheckoutSession.all().update(expires_at=None)
    done = await voids.void(world.actor, payment_request_id=request.id)
    assert (done.card, world.vendor.count("expire")) == (None, 1)
    waits = []
    for age in (timedelta(0), timedelta(minutes=30), timedelta(days=30)):
        await PaymentRequest.filter(id=request.id).update(void_requested_at=datetime.now(UTC) - age)
        await world.run_jobs(rounds=1)
        await sweeper.sweep_voids(tick())  # leaves older ones to the job
        job = await Job.get(kind="payment_request.finish_void")
        waits.append(round((job.due_at - datetime.now(UTC)).total_seconds() / 10) * 10)
    assert waits == [60, 180, 600]
    assert world.vendor.count("expire") == 1 + 3 + 1
    assert await world.status(request) == "SENT"
    world.vendor.cancel(page)
    await world.run_jobs()
    assert await world.status(request) == "VOID"
    assert await world.cards(request) == ["REQUEST_VOIDED"]
    calls = len(world.vendor.calls)
    await world.run_jobs()
    await sweeper.sweep_voids(tick())
    assert (await sweeper.sweep(in_(days=1)), len(world.vendor.calls)) == (0, calls)


async def test_a_link_that_ends_late_leads_nobody_to_it_and_blocks_nothing(world: World) -> None:
    world.vendor.closes_late = True
    request, token = await world.request()
    first = await world.open(token)
    (session,) = await CheckoutSession.all()
    assert not await voids.close_session(session, source="sweeper")
    second = await world.open(token)
    assert second != first
    assert world.vendor.pay(first) is None
    world.vendor.pay(second)
    await world.deliver()
    assert await world.status(request) == "PAID"
    await world.run_jobs(rounds=1)
    job = await Job.get(kind="checkout.expire")
    assert (job.status, job.attempts) == ("queued", 0)  # waits, and is no error
    world.vendor.cancel(first)
    await world.run_jobs()
    assert {row.status for row in await CheckoutSession.all()} == {"COMPLETED", "EXPIRED"}
    assert await Job.filter(status="queued").count() == 0


# --------------------------------------------------------------------------------------- checkouts that we do not know
async def lose_a_creation(world: World, token: str) -> str:
    """Create a checkout whose answer is lost; return the vendor's id."""
    world.vendor.faults = ["after"]
    with pytest.raises(errors.ProcessorUnavailable):
        await checkout.open_checkout(token)
    await CheckoutSession.all().update(created_at=datetime.now(UTC) - timedelta(minutes=6))
    await sweeper.sweep(in_(minutes=2))
    assert (await CheckoutSession.get()).status == "ABANDONED"
    return list(world.vendor.sessions)[-1]


async def test_an_open_checkout_that_we_do_not_know_is_closed(world: World) -> None:
    request, token = await world.request()
    page = await lose_a_creation(world, token)
    assert await sweeper.find_unknown(world.connection, datetime.now(UTC)) == 1
    await world.run_jobs()
    assert world.vendor.sessions[page].status == CheckoutStatus.EXPIRED
    assert [row.status for row in await CheckoutSession.all().order_by("n")] == ["ABANDONED", "EXPIRED"]
    assert await world.status(request) == "SENT"
    assert await sweeper.find_unknown(world.connection, datetime.now(UTC)) == 0
    assert await world.open(token) != page


async def test_a_paid_checkout_that_we_do_not_know_is_recorded(world: World) -> None:
    request, token = await world.request()
    page = await lose_a_creation(world, token)
    world.vendor.pay(page)
    world.vendor.outbox.clear()
    await sweeper.sweep_unknown(tick())
    assert await world.status(request) == "PAID"
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]
    await sweeper.sweep_unknown(tick())
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]
    await assert_consistent(world.account.id)


@pytest.mark.parametrize(("status", "end"), [("SENT", CheckoutStatus.COMPLETED), ("VOID", CheckoutStatus.EXPIRED)])
async def test_an_approved_checkout_that_we_do_not_know_is_taken_if_it_fits_and_else_closed(
    world: World, status: str, end: CheckoutStatus
) -> None:
    request, token = await world.request()
    page = await lose_a_creation(world, token)
    world.vendor.approve(page)
    if status == "VOID":
        await PaymentRequest.filter(id=request.id).update(status=status, voided_at=datetime.now(UTC))
    await sweeper.find_unknown(world.connection, datetime.now(UTC))
    await world.run_jobs()
    assert world.vendor.sessions[page].status == end
    assert world.vendor.count("complete") == (status == "SENT")


async def test_a_checkout_whose_creation_is_under_way_is_left_to_its_opener(world: World) -> None:
    _, token = await world.request()

    async def look(verb: str) -> None:
        if verb == "create":
            world.vendor.after_call = None
            assert await sweeper.find_unknown(world.connection, datetime.now(UTC)) == 0

    world.vendor.after_call = look
    page = await world.open(token)
    await world.run_jobs()
    assert [(row.external_id, row.status) for row in await CheckoutSession.all()] == [(page, "OPEN")]


async def test_checkouts_of_other_programs_and_accounts_are_left_alone(world: World) -> None:
    other = await World.make()
    _, token = await other.request()
    page = await other.open(token)
    world.vendor.sessions = other.vendor.sessions  # both accounts use one account of the vendor's
    assert await sweeper.find_unknown(world.connection, datetime.now(UTC)) == 0
    await world.run_jobs()
    assert other.vendor.sessions[page].status == CheckoutStatus.OPEN
    assert await CheckoutSession.all().count() == 1


async def test_known_and_ended_checkouts_are_not_read_again_for_the_list(world: World) -> None:
    _, token = await world.request()
    await world.open(token)
    _, second = await world.request()
    lapsed = await world.open(second)
    world.vendor.lapse(lapsed)
    await CheckoutSession.filter(external_id=lapsed).delete()
    assert await sweeper.find_unknown(world.connection, datetime.now(UTC)) == 0
    assert world.vendor.count("read") == 0


async def test_the_vendors_list_of_checkouts_is_read_on_from_an_hour_before_the_last_look(world: World) -> None:
    now = datetime.now(UTC)
    world.vendor.faults = ["before"]
    assert await sweeper.find_unknown(world.connection, now) == 0
    assert (await ProcessorConnection.get(id=world.connection.id)).checkouts_read_until is None
    await sweeper.find_unknown(world.connection, now)
    row = await ProcessorConnection.get(id=world.connection.id)
    await sweeper.find_unknown(row, now + timedelta(minutes=15))
    asked = [datetime.fromisoformat(since) for since in world.vendor.keys_of("list_checkouts")]
    assert asked == [now - timedelta(days=30), now - timedelta(days=30), now - timedelta(hours=1)]


async def disconnected(world: World) -> None:
    owner = replace(world.actor, role="OWNER")
    await processor_settings.disconnect_processor(owner, world.connection.id)
    row = await ProcessorConnection.get(id=world.connection.id)
    providers.live.get().processors[row.id] = (providers.cache_key(row), world.vendor)


async def test_a_checkout_that_we_do_not_know_is_found_though_its_processor_was_disconnected(world: World) -> None:
    request, token = await world.request()
    world.vendor.pay(await lose_a_creation(world, token))
    world.vendor.outbox.clear()
    await disconnected(world)
    await sweeper.sweep_unknown(tick())
    assert await world.status(request) == "PAID"


async def test_a_disconnected_processor_is_asked_for_a_week_and_then_while_something_is_open_there(
    world: World,
) -> None:
    other = await World.make()
    await disconnected(world)
    now = datetime.now(UTC)

    async def asked(at: datetime) -> list[object]:
        return [row.id for row in await sweeper.listed_connections(at)]

    assert await asked(now + timedelta(days=6)) == [world.connection.id, other.connection.id]
    assert await asked(now + timedelta(days=8)) == [other.connection.id]
    assert [row.id for row in await sweeper.listed_connections(now, world.account.id)] == [world.connection.id]
    request, _ = await world.request()
    await checkout._insert_session(request, 12500, now)
    assert await asked(now + timedelta(days=8)) == [world.connection.id, other.connection.id]
    await CheckoutSession.all().update(status="EXPIRED")
    assert await asked(now + timedelta(days=8)) == [other.connection.id]


async def test_a_vendor_that_wants_quiet_is_asked_for_no_list(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def busy(_: datetime) -> object:
        raise IntegrationError("sandbox", "rate_limited", retryable=True, retry_after_s=600)

    now = datetime.now(UTC)
    monkeypatch.setattr(world.vendor, "list_checkouts", busy)
    assert await sweeper.find_unknown(world.connection, now) == 0
    monkeypatch.undo()
    await sweeper.find_unknown(world.connection, now + timedelta(seconds=599))
    await sweeper.fetch_events(world.connection, now + timedelta(seconds=599))
    assert world.vendor.calls == []
    await sweeper.find_unknown(world.connection, now + timedelta(seconds=601))
    await sweeper.fetch_events(world.connection, now + timedelta(seconds=601))
    assert [verb for verb, _ in world.vendor.calls] == ["list_checkouts", "list"]


@pytest.mark.parametrize(
    ("verb", "round_"), [("list_checkouts", sweeper.sweep_unknown), ("list_events", sweeper.sweep_events)]
)
async def test_a_vendor_that_does_not_answer_keeps_no_other_waiting(
    world: World, monkeypatch: pytest.MonkeyPatch, verb: str, round_: Handler
) -> None:
    other = await World.make()
    other_asked = asyncio.Event()

    async def silent(_: datetime) -> list[object]:
        await asyncio.wait_for(other_asked.wait(), 20)  # an answer that comes only after the other was asked
        return []

    async def answers(_: datetime) -> list[object]:
        other_asked.set()
        return []

    monkeypatch.setattr(world.vendor, verb, silent)
    monkeypatch.setattr(other.vendor, verb, answers)
    await round_(tick())
    place = "checkouts_read_until" if verb == "list_checkouts" else "events_read_until"
    assert await ProcessorConnection.filter(**{f"{place}__not_isnull": True}).count() == 2


async def test_no_more_lists_are_read_at_once_than_allowed(world: World) -> None:
    running = most = 0

    async def ask(_: ProcessorConnection) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return 0

    await sweeper._for_each_connection([world.connection] * 50, ask)
    assert most == sweeper.LISTS_AT_ONCE


async def test_what_waits_for_a_job_that_is_gone_gets_one(world: World) -> None:
    world.actor = replace(world.actor, role="ADMIN")
    request, token = await world.request()
    charge = world.vendor.pay(await world.open(token))
    await world.deliver()
    assert charge is not None
    # A refund whose answer was lost, and whose job with it.
    world.vendor.faults = ["after"]
    payment = (await payment_views.payments(world.account.id, [request.id]))[request.id][0]
    await refunds.refund(
        world.actor,
        payment_id=payment.id,
        amount="10.00",
        reason="OTHER",
        tell_contact_on=None,
        idempotency_key="refund-1",
    )
    # A checkout of a paid request that can still be paid.
    other, other_token = await world.request()
    page = await world.open(other_token)
    await PaymentRequest.filter(id=other.id).update(status="VOID", voided_at=datetime.now(UTC))
    third, third_token = await world.request()
    await world.open(third_token)  # may be paid: left alone
    await Job.all().delete()
    for _ in range(2):
        await sweeper.sweep_stranded(tick())
    session = await CheckoutSession.get(payment_request_id=other.id)
    refund = await Refund.get()
    keys = {f"refund.settle:{refund.id}", f"checkout.expire:{session.id}"}
    assert {job.key for job in await Job.filter(status="queued")} == keys
    await Job.all().update(due_at=datetime.now(UTC))
    await world.run_jobs()
    assert (await Refund.get()).status == "SUCCEEDED"
    assert world.vendor.sessions[page].status == CheckoutStatus.EXPIRED
    assert await world.status(third) == "SENT"
    await sweeper.sweep_stranded(tick())
    assert await Job.filter(status="queued").count() == 0


async def test_after_the_clock_was_set_back_open_checkouts_are_due_and_lists_are_read_from_far_back(
    world: World,
) -> None:
    _, token = await world.request()
    await world.open(token)
    now = datetime.now(UTC)
    ahead = now + timedelta(days=1)
    await CheckoutSession.all().update(next_check_at=ahead)
    rows = ProcessorConnection.filter(id=world.connection.id)
    await rows.update(events_read_until=ahead, checkouts_read_until=now - timedelta(hours=1))
    assert await sweeper.sweep(now) == 0
    await sweeper.read_all_again(now)
    assert await sweeper.sweep(now) == 1
    connection = await ProcessorConnection.get(id=world.connection.id)
    assert connection.events_read_until is None
    assert connection.checkouts_read_until == now - timedelta(hours=1)
    # An unanswered creation dated by a clock that was ahead is abandoned immediately.
    await CheckoutSession.all().update(
        status="OPENING", external_id=None, url=None, created_at=ahead, next_check_at=now
    )
    await sweeper.sweep(now)
    assert (await CheckoutSession.get()).status == "ABANDONED"


async def test_retention_prunes_the_log_only(world: World) -> None:
    old = datetime.now(UTC) - event_log.RETENTION - timedelta(days=1)
    for at in (old, datetime.now(UTC)):
        seq = await event_log.reserve(world.account.id, 1)
        await event_log.append([event_log.LogEntry(account_id=world.account.id, seq=seq, kind="x", at=at)])
    await factories.payment_request(world.contact, created_at=old)
    await retention.retain(tick())
    assert [entry.seq for entry in await event_log.read(world.account.id, 0, 10)] == [2]
