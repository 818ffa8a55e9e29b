"""What heals by itself: lost webhooks, silent processors, unanswered creations; and that nothing depends on the sweeper alone."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from integrations.base import IntegrationError, MoneyOutcome
from models import event_log
from models.tables import CheckoutSession, Job, MoneyFact, ProcessorConnection, ProcessorEvent
from services import connections, sweeper
from services.jobs import JobContext
from tests import factories
from tests.services.scripted import World, assert_consistent


@pytest.fixture
async def world(database: str) -> World:
    return await World.make()


def tick() -> JobContext:
    """What a periodic handler gets."""
    return JobContext(job_id=uuid4(), kind="test", payload={}, account_id=None, attempt=1, last_attempt=True)


def in_(**delta: float) -> datetime:
    """A later time."""
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
    assert await sweeper.sweep(in_(days=1)) == 0


async def test_webhooks_only_sweeper_only_and_both_come_to_the_same_end(world: World) -> None:
    """T5: three worlds with the same history; which news arrive is all that differs."""
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
    connections.configure(connections.environment(), sandbox_open=False)
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
    await sweeper._check(await CheckoutSession.get(), now)
    await sweeper._check(stale, now)
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


async def test_retention_prunes_the_log_only(world: World) -> None:
    old = datetime.now(UTC) - event_log.RETENTION - timedelta(days=1)
    for at in (old, datetime.now(UTC)):
        seq = await event_log.reserve(world.account.id, 1)
        await event_log.append([event_log.LogEntry(account_id=world.account.id, seq=seq, kind="x", at=at)])
    await factories.payment_request(world.contact, created_at=old)
    await sweeper.retain(tick())
    assert [entry.seq for entry in await event_log.read(world.account.id, 0, 10)] == [2]
