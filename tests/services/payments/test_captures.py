"""Captures of approved checkouts: once per request, under a repeatable key, never against a void."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from integrations.base import CheckoutStatus, IntegrationError
from models import errors
from models.tables import CheckoutSession, Job, MoneyFact, PaymentRequest, ProcessorEvent
from services.core.jobs import JobContext, Later
from services.payments import captures, checkout, checkout_page, checkout_reads, offline_payments, sweeper, voids
from tests.configured import change
from tests.services.scripted import World, assert_consistent


@pytest.fixture
async def world(database: str) -> World:
    return await World.make()


def in_(**delta: float) -> datetime:
    return datetime.now(UTC) + timedelta(**delta)


async def approved(world: World, token: str) -> str:
    """An approved checkout whose webhook is lost."""
    page = await world.open(token)
    assert world.vendor.approve(page)
    world.vendor.outbox.clear()
    return page


async def two_pages(world: World, token: str) -> tuple[str, str]:
    """Two open pages, each with its own checkout."""
    first = await world.open(token)
    world.vendor.sessions[first].expires_at = in_(minutes=9)
    second = await world.open(token)
    assert first != second
    await Job.filter(kind="checkout.expire").delete()
    return first, second


async def marks() -> list[tuple[str, bool, int]]:
    """State, claim and capture number of each checkout."""
    rows = await CheckoutSession.all().order_by("n")
    return [(row.status, row.capturing_at is not None, row.capture_n) for row in rows]


# ------------------------------------------------------------------------------------------------------- who takes it
async def test_the_return_page_takes_the_money_of_an_approved_checkout(world: World) -> None:
    request, token = await world.request()
    page = await approved(world, token)
    assert await world.status(request) == "SENT"
    await checkout_reads.returned(token)
    assert await world.status(request) == "PAID"
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]
    key = world.vendor.sessions[page].order.idempotency_key
    assert world.vendor.keys_of("complete") == [f"{key}:capture:1"]
    assert (await MoneyFact.get()).source == "return"
    await world.deliver()
    await world.run_jobs()
    await sweeper.sweep(in_(days=1))
    assert world.vendor.count("complete") == 1
    await assert_consistent(world.account.id)


async def test_the_webhook_of_the_approval_takes_the_money(world: World) -> None:
    request, token = await world.request()
    world.vendor.approve(await world.open(token))
    await world.deliver()
    await world.run_jobs()
    assert await world.status(request) == "PAID"
    assert [row.handled_at is not None for row in await ProcessorEvent.all()] == [True]
    await world.deliver()
    await world.run_jobs()
    assert world.vendor.count("complete") == 1
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]


async def test_the_sweeper_takes_the_money_when_all_webhooks_are_lost(world: World) -> None:
    request, token = await world.request()
    await approved(world, token)
    await sweeper.sweep(in_(seconds=61))
    assert await world.status(request) == "PAID"
    assert world.vendor.count("complete") == 1


async def test_a_checkout_that_nobody_approved_is_never_taken(world: World) -> None:
    request, token = await world.request()
    await world.open(token)
    await checkout_reads.returned(token)
    await sweeper.sweep(in_(minutes=2))
    await voids.void(world.actor, payment_request_id=request.id)
    assert world.vendor.count("complete") == 0


async def test_an_approval_before_the_creations_answer_came_is_taken_when_pay_is_pressed_again(world: World) -> None:
    request, token = await world.request()
    world.vendor.faults = ["after"]
    with pytest.raises(errors.ProcessorUnavailable):
        await checkout.open_checkout(token)
    (session,) = world.vendor.sessions.values()
    world.vendor.approve(session.external_id)
    opened = await checkout.open_checkout(token)
    assert (opened.url, opened.state) == (None, "paid")
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]


# ----------------------------------------------------------------------------------------------------- mark and answer
async def test_the_mark_is_committed_before_the_call(world: World) -> None:
    _, token = await world.request()
    await approved(world, token)
    seen = []

    async def look(verb: str) -> None:
        if verb == "complete":
            seen.append(await marks())
            (row,) = await CheckoutSession.all()
            assert row.next_check_at is not None
            assert row.next_check_at < in_(seconds=90)

    world.vendor.before_call = look
    await checkout_reads.returned(token)
    assert seen == [[("OPEN", True, 1)]]


@pytest.mark.parametrize("fault", ["before", "after"])
async def test_a_lost_answer_is_asked_for_again_under_the_same_key_and_takes_once(world: World, fault: str) -> None:
    request, token = await world.request()
    page = await approved(world, token)
    world.vendor.faults = ["", fault]
    await checkout_reads.returned(token)
    assert (await world.status(request), await marks()) == ("SENT", [("OPEN", True, 1)])
    world.vendor.outbox.clear()
    found = await checkout_page.find(token)
    assert found is not None
    assert (await checkout_page.page(found)).state == "processing"
    again = await checkout.open_checkout(token)
    assert (again.url, again.state) == (None, "processing")  # no second attempt beside one that may have been paid
    await sweeper.sweep(in_(seconds=61))
    assert await world.status(request) == "PAID"
    assert len(set(world.vendor.keys_of("complete"))) == 1
    assert len(world.vendor.received(request)) == 1
    assert len(world.vendor.sessions[page].money) == 1


async def test_a_process_that_died_between_mark_and_call_is_made_good_by_the_sweeper(world: World) -> None:
    request, token = await world.request()
    page = await approved(world, token)

    async def die(verb: str) -> None:
        if verb == "complete":
            raise asyncio.CancelledError

    world.vendor.before_call = die
    with pytest.raises(asyncio.CancelledError):
        await checkout_reads.returned(token)
    world.vendor.before_call = None
    assert (await marks(), world.vendor.captures) == ([("OPEN", True, 1)], {})
    await sweeper.sweep(in_(seconds=61))
    assert await world.status(request) == "PAID"
    key = world.vendor.sessions[page].order.idempotency_key
    assert world.vendor.captures == {f"{key}:capture:1": "ok"}


async def test_a_webhook_whose_capture_was_not_answered_is_repeated_by_its_job(world: World) -> None:
    request, token = await world.request()
    world.vendor.approve(await world.open(token))
    await world.deliver()
    world.vendor.faults = ["", "before"]
    await world.run_jobs()
    assert await world.status(request) == "PAID"
    assert len(set(world.vendor.keys_of("complete"))) == 1
    event = await ProcessorEvent.all().order_by("id").first()
    assert event is not None
    assert event.handled_at is not None


async def test_a_declined_capture_says_so_and_leaves_the_checkout_payable(world: World) -> None:
    request, token = await world.request()
    page = await approved(world, token)
    world.vendor.capture_outcomes = ["declined"]
    await checkout_reads.returned(token)
    assert await world.cards(request) == ["PAYMENT_FAILED"]
    assert (await world.status(request), await marks()) == ("SENT", [("OPEN", False, 1)])
    assert await world.open(token) == page
    assert world.vendor.approve(page)
    await checkout_reads.returned(token)
    assert await world.status(request) == "PAID"
    key = world.vendor.sessions[page].order.idempotency_key
    assert world.vendor.keys_of("complete") == [f"{key}:capture:1", f"{key}:capture:2"]
    assert await world.cards(request) == ["PAYMENT_FAILED", "PAYMENT_RECEIVED"]
    await assert_consistent(world.account.id)


async def test_a_late_no_does_not_take_away_the_mark_of_the_next_capture(world: World) -> None:
    _, token = await world.request()
    page = await approved(world, token)
    world.vendor.capture_outcomes = ["declined"]
    await checkout_reads.returned(token)
    (first,) = await CheckoutSession.all()
    world.vendor.approve(page)
    world.vendor.faults = ["", "before"]
    await checkout_reads.returned(token)
    assert await marks() == [("OPEN", True, 2)]
    world.vendor.sessions[page].approved = False
    await captures.capture(first, source="sweeper")  # an answer that was on its way all the time
    assert await marks() == [("OPEN", True, 2)]


async def test_a_failed_capture_ends_its_checkout_and_the_link_still_pays(world: World) -> None:
    request, token = await world.request()
    page = await approved(world, token)
    world.vendor.capture_outcomes = ["failed"]
    await checkout_reads.returned(token)
    assert (await world.status(request), await marks()) == ("SENT", [("FAILED", True, 1)])
    assert await world.cards(request) == ["PAYMENT_FAILED"]
    again = await world.open(token)
    assert again != page
    world.vendor.approve(again)
    await checkout_reads.returned(token)
    assert await world.status(request) == "PAID"


async def test_no_cash_is_recorded_while_a_capture_is_undecided(world: World) -> None:
    request, token = await world.request()
    await approved(world, token)
    world.vendor.faults = ["", "before"]
    await checkout_reads.returned(token)
    with pytest.raises(errors.PaymentInProgress):
        await offline_payments.record(
            world.actor, payment_request_id=request.id, method="CASH", idempotency_key=str(uuid4())
        )
    await sweeper.sweep(in_(seconds=61))
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]


@pytest.mark.parametrize(("ok", "end"), [(True, "PAID"), (False, "SENT")])
async def test_a_capture_that_is_pending_is_processing_until_it_is_decided(world: World, ok: bool, end: str) -> None:
    request, token = await world.request()
    page = await approved(world, token)
    world.vendor.capture_outcomes = ["pending"]
    await checkout_reads.returned(token)
    assert await world.status(request) == "PROCESSING"
    opened = await checkout.open_checkout(token)
    assert (opened.url, opened.state) == (None, "processing")
    with pytest.raises(errors.PaymentInProgress):
        await voids.void(world.actor, payment_request_id=request.id)
    world.vendor.settle(page, ok=ok)
    await world.deliver()
    assert await world.status(request) == end
    assert world.vendor.count("complete") == 1


async def test_a_refusal_at_once_took_nothing_and_blocks_nothing(world: World) -> None:
    request, token = await world.request()
    await approved(world, token)
    world.vendor.faults = ["", "refuse"]
    await checkout_reads.returned(token)
    assert await marks() == [("OPEN", False, 1)]
    opened = await checkout.open_checkout(token)  # reads the checkout again, and takes what the payer has agreed to
    assert (opened.url, opened.state) == (None, "paid")
    assert await world.status(request) == "PAID"
    assert len(set(world.vendor.keys_of("complete"))) == 2


async def test_a_refusal_of_a_repeat_proves_nothing_about_the_first_call(world: World) -> None:
    _, token = await world.request()
    await approved(world, token)
    world.vendor.faults = ["", "before", "", "refuse"]
    await checkout_reads.returned(token)
    await sweeper.sweep(in_(seconds=61))
    assert await marks() == [("OPEN", True, 1)]


async def test_an_answer_that_still_waits_for_us_decides_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    request, token = await world.request()
    page = await approved(world, token)

    async def lags(external_id: str, *, idempotency_key: str) -> object:
        return await world.vendor.read_checkout(external_id)

    monkeypatch.setattr(world.vendor, "complete_checkout", lags)
    await checkout_reads.returned(token)
    assert await marks() == [("OPEN", True, 1)]
    done = await voids.void(world.actor, payment_request_id=request.id)
    assert done.card is None  # pending: it may have been taken
    assert world.vendor.sessions[page].status == CheckoutStatus.OPEN
    monkeypatch.undo()
    await world.run_jobs()
    assert await world.status(request) == "PAID"


async def test_a_payer_who_is_declined_again_and_again_gets_another_checkout(world: World) -> None:
    request, token = await world.request()
    page = await approved(world, token)
    world.vendor.capture_outcomes = ["declined"] * 9
    for _ in range(7):
        world.vendor.approve(page)
        await checkout_reads.returned(token)
    assert world.vendor.count("complete") == captures.LIMIT == 5
    await world.run_jobs()
    assert world.vendor.sessions[page].status == CheckoutStatus.EXPIRED
    assert await world.open(token) != page
    assert (await world.cards(request)).count("PAYMENT_FAILED") == 5


# ------------------------------------------------------------------------------------------- what must not be taken
async def test_of_two_approved_tabs_one_is_taken_and_the_other_closed(world: World) -> None:
    request, token = await world.request()
    first, second = await two_pages(world, token)
    for page in (first, second):
        assert world.vendor.approve(page)
    await sweeper.sweep(in_(minutes=2))
    await world.run_jobs()
    await sweeper.sweep(in_(minutes=20))
    assert await world.status(request) == "PAID"
    assert world.vendor.count("complete") == 1
    assert len(world.vendor.received(request)) == 1
    assert sorted(world.vendor.sessions[page].status for page in (first, second)) == ["COMPLETED", "EXPIRED"]
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]


async def test_while_one_tabs_capture_is_undecided_the_other_waits_and_is_taken_if_it_fails(world: World) -> None:
    request, token = await world.request()
    first, second = await two_pages(world, token)
    for page in (first, second):
        assert world.vendor.approve(page)
    one, other = await CheckoutSession.all().order_by("n")
    world.vendor.faults = ["", "before"]
    with pytest.raises(IntegrationError):
        await checkout_reads.read_back(one, source="sweeper")
    await checkout_reads.read_back(other, source="sweeper")
    assert world.vendor.count("complete") == 1
    assert await Job.filter(kind="checkout.expire").count() == 0
    world.vendor.capture_outcomes = ["declined"]
    await checkout_reads.read_back(one, source="sweeper")
    await checkout_reads.read_back(other, source="sweeper")
    assert await world.status(request) == "PAID"
    assert [m.checkout_external_id for m in world.vendor.received(request)] == [second]


async def test_a_void_between_approval_and_capture_takes_nothing(world: World) -> None:
    request, token = await world.request()
    page = await approved(world, token)
    done = await voids.void(world.actor, payment_request_id=request.id)
    assert done.request.status == "VOID"
    assert world.vendor.sessions[page].status == CheckoutStatus.EXPIRED
    await checkout_reads.returned(token)
    await sweeper.sweep(in_(minutes=2))
    await world.run_jobs()
    assert (world.vendor.count("complete"), world.vendor.received(request)) == (0, [])


async def test_a_void_that_died_before_it_closed_anything_takes_nothing(world: World) -> None:
    request, token = await world.request()
    page = await approved(world, token)
    await PaymentRequest.filter(id=request.id).update(void_requested_at=datetime.now(UTC))
    await checkout_reads.returned(token)
    assert (world.vendor.count("complete"), await marks()) == (0, [("OPEN", False, 0)])
    await world.run_jobs()
    assert world.vendor.sessions[page].status == CheckoutStatus.EXPIRED


async def test_a_pending_void_takes_nothing_and_closes_the_checkout(world: World) -> None:
    request, token = await world.request()
    page = await approved(world, token)
    world.vendor.faults = ["before"]
    done = await voids.void(world.actor, payment_request_id=request.id)
    assert done.card is None
    (session,) = await CheckoutSession.all()
    await checkout_reads.read_back(session, source="sweeper")
    assert (world.vendor.count("complete"), await marks()) == (0, [("OPEN", False, 0)])
    await world.run_jobs()
    assert world.vendor.sessions[page].status == CheckoutStatus.EXPIRED
    assert await world.status(request) == "VOID"


@pytest.mark.parametrize("fault", ["before", "after"])
async def test_a_capture_that_was_begun_is_finished_by_the_void_and_wins(world: World, fault: str) -> None:
    request, token = await world.request()
    page = await approved(world, token)
    world.vendor.faults = ["", fault]
    await checkout_reads.returned(token)
    with pytest.raises(errors.AlreadyPaid):
        await voids.void(world.actor, payment_request_id=request.id)
    assert (await world.status(request), world.vendor.count("expire")) == ("PAID", 0)
    assert len(set(world.vendor.keys_of("complete"))) == 1
    assert world.vendor.sessions[page].status == CheckoutStatus.COMPLETED
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]
    assert (await world.fresh(request)).void_requested_at is None


async def test_a_capture_that_was_begun_and_declined_makes_room_for_the_void(world: World) -> None:
    request, token = await world.request()
    page = await approved(world, token)
    world.vendor.faults = ["", "before"]
    await checkout_reads.returned(token)
    world.vendor.capture_outcomes = ["declined"]
    done = await voids.void(world.actor, payment_request_id=request.id)
    assert done.request.status == "VOID"
    assert world.vendor.sessions[page].status == CheckoutStatus.EXPIRED
    assert await world.cards(request) == ["PAYMENT_FAILED", "REQUEST_VOIDED"]
    assert world.vendor.received(request) == []


async def test_a_void_stays_pending_while_a_capture_is_not_answered(world: World) -> None:
    request, token = await world.request()
    await approved(world, token)
    world.vendor.faults = ["", "before", "before"]
    await checkout_reads.returned(token)
    done = await voids.void(world.actor, payment_request_id=request.id)
    assert (done.card, done.request.status) == (None, "SENT")
    assert world.vendor.count("expire") == 0
    await world.run_jobs()
    assert await world.status(request) == "PAID"  # approved and marked before the void: the payment was first


@pytest.mark.parametrize(("paid_minor", "taken"), [(1, 0), (0, 1)])
async def test_only_what_is_due_is_taken(world: World, paid_minor: int, taken: int) -> None:
    request, token = await world.request()
    page = await approved(world, token)
    await PaymentRequest.filter(id=request.id).update(
        amount_paid_minor=paid_minor, status="PARTIALLY_PAID" if paid_minor else "SENT"
    )
    await checkout_reads.returned(token)
    assert world.vendor.count("complete") == taken
    await world.run_jobs()
    ends = (CheckoutStatus.EXPIRED, CheckoutStatus.COMPLETED)
    assert world.vendor.sessions[page].status == ends[taken]


@pytest.mark.parametrize("change", [{"status": "PAID"}, {"status": "VOID"}, {"status": "PROCESSING"}])
async def test_what_is_not_payable_is_closed_and_never_taken(world: World, change: dict[str, str]) -> None:
    request, token = await world.request()
    page = await approved(world, token)
    await PaymentRequest.filter(id=request.id).update(**change)
    (session,) = await CheckoutSession.all()
    await checkout_reads.read_back(session, source="sweeper")
    await world.run_jobs()
    assert world.vendor.count("complete") == 0
    assert world.vendor.sessions[page].status == CheckoutStatus.EXPIRED


async def test_what_is_being_closed_is_not_taken_even_if_the_processor_did_not_hear_of_it(world: World) -> None:
    _, token = await world.request()
    page = await approved(world, token)
    (session,) = await CheckoutSession.all()
    world.vendor.faults = ["before"]
    assert not await voids.close_session(session, source="sweeper")
    await checkout_reads.returned(token)
    assert world.vendor.count("complete") == 0
    assert await world.open(token) != page  # nor is anybody led to it
    await world.run_jobs()
    assert world.vendor.sessions[page].status == CheckoutStatus.EXPIRED


async def test_two_reads_at_once_take_once(world: World) -> None:
    request, token = await world.request()
    await approved(world, token)
    (session,) = await CheckoutSession.all()
    await asyncio.gather(*(checkout_reads.read_back(session, source="sweeper") for _ in range(4)))
    assert await world.status(request) == "PAID"
    assert len(set(world.vendor.keys_of("complete"))) == 1
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]


async def test_an_approval_that_was_read_before_the_money_was_taken_takes_no_more(world: World) -> None:
    request, token = await world.request()
    page = await approved(world, token)
    old = await world.vendor.read_checkout(page)
    await checkout_reads.returned(token)
    await captures.record_read(world.connection, old, source="sweeper")
    assert (world.vendor.count("complete"), await world.status(request)) == (1, "PAID")
    assert await Job.filter(kind="checkout.expire").count() == 0


async def test_an_approved_order_of_another_program_is_left_alone(world: World) -> None:
    _, token = await world.request()
    page = await approved(world, token)
    read = await world.vendor.read_checkout(page)
    await CheckoutSession.all().delete()
    unmatched = type(read)(external_id="elsewhere", status=CheckoutStatus.OPEN, awaits_completion=True)
    done = await captures.record_read(world.connection, unmatched, source="webhook")
    assert (done.recorded.request, world.vendor.count("complete")) == (None, 0)


async def test_a_closed_sandbox_takes_nothing_and_keeps_the_mark(world: World) -> None:
    _, token = await world.request()
    await approved(world, token)
    world.vendor.faults = ["", "before"]
    await checkout_reads.returned(token)
    change(sandbox_open=False)
    (session,) = await CheckoutSession.all()
    with pytest.raises(errors.ProcessorUnavailable):
        await captures.capture(session, source="sweeper")
    assert await marks() == [("OPEN", True, 1)]


async def test_no_log_line_of_a_capture_tells_what_the_vendor_wrote(world: World) -> None:
    _, token = await world.request()
    await approved(world, token)
    world.vendor.faults = ["", "before"]
    with capture_logs() as lines:
        await checkout_reads.returned(token)
    logged = [line for line in lines if line["event"] == "capture_failed"]
    assert logged == [
        {
            "event": "capture_failed",
            "log_level": "warning",
            "provider": "sandbox",
            "reason": "connection",
            "ambiguous": True,
        }
    ]


async def test_a_checkout_to_be_closed_whose_capture_is_not_answered_is_asked_about_less_and_less_often(
    world: World,
) -> None:
    request, token = await world.request()
    await approved(world, token)
    session = await CheckoutSession.get(payment_request_id=request.id)
    await CheckoutSession.filter(id=session.id).update(capturing_at=in_(hours=-10), capture_n=1)
    world.vendor.faults = ["before"]
    job = JobContext(
        job_id=session.id,
        kind="checkout.expire",
        payload={"session_id": str(session.id)},
        account_id=world.account.id,
        attempt=1,
        last_attempt=False,
    )
    with pytest.raises(Later) as later:
        await voids._expire_job(job)
    assert 3600 <= later.value.delay_s < 3700
