"""The contact's side: links never expire, each key creates one checkout, views change nothing."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from integrations.base import Capabilities, CheckoutStatus, MoneyOutcome
from models import database as db
from models import errors
from models.tables import CheckoutSession, Contact, MoneyFact, ProcessorConnection
from services.connections import providers
from services.payments import checkout, checkout_page, checkout_reads, voids
from tests.configured import change
from tests.services.scripted import Scripted, World, assert_consistent


@pytest.fixture
async def world(database: str) -> World:
    return await World.make()


async def states() -> list[tuple[int, str]]:
    return [(row.n, row.status) for row in await CheckoutSession.all().order_by("n")]


# ---------------------------------------------------------------------------------------------------------- opening
async def test_pressing_pay_opens_one_checkout_with_our_reference_and_the_price_of_our_row(world: World) -> None:
    request, token = await world.request(description="Two rooms")
    page = await world.open(token)
    order = world.vendor.sessions[page].order
    assert (order.amount_minor, order.currency, order.number) == (12500, "USD", request.number)
    assert order.idempotency_key == f"{order.request_reference}:1"
    assert order.success_url == f"https://pay.example.test/p/{token}/return"
    assert order.cancel_url == f"https://pay.example.test/p/{token}"
    session = await CheckoutSession.get(payment_request_id=request.id)
    assert (session.status, session.external_id, session.amount_minor) == ("OPEN", page, 12500)
    assert await world.status(request) == "SENT"


async def test_the_key_is_stored_before_the_call(world: World) -> None:
    _, token = await world.request()
    seen = []

    async def look(_: str) -> None:
        seen.append([(row.status, row.idempotency_key) for row in await CheckoutSession.all()])

    world.vendor.before_call = look
    page = await world.open(token)
    assert seen == [[("OPENING", world.vendor.sessions[page].order.idempotency_key)]]


async def test_looking_at_the_page_changes_nothing(world: World) -> None:
    request, token = await world.request()
    before = await db.rows("SELECT * FROM payment_request")
    for _ in range(3):
        found = await checkout_page.find(token)
        assert found is not None
        shown = await checkout_page.page(found)
    assert (shown.state, shown.due.amount_minor, shown.receipt) == ("open", 12500, None)
    assert await db.rows("SELECT * FROM payment_request") == before
    assert world.vendor.calls == []
    assert await CheckoutSession.all().count() == 0
    assert request.version == 1


async def test_two_tabs_that_press_pay_at_once_get_the_same_checkout(world: World) -> None:
    _, token = await world.request()
    opened = await asyncio.gather(*(world.open(token) for _ in range(4)))
    assert len(set(opened)) == 1
    assert len(world.vendor.sessions) == 1
    assert await states() == [(1, "OPEN")]


async def test_the_open_checkout_is_used_again_until_it_is_too_short(world: World) -> None:
    request, token = await world.request()
    first = await world.open(token)
    world.vendor.sessions[first].expires_at = datetime.now(UTC) + timedelta(minutes=11)
    assert await world.open(token) == first
    world.vendor.sessions[first].expires_at = datetime.now(UTC) + timedelta(minutes=9)
    second = await world.open(token)
    assert second != first
    await world.run_jobs()
    assert [s.external_id for s in world.vendor.open_sessions(request)] == [second]
    assert await states() == [(1, "EXPIRED"), (2, "OPEN")]


async def test_a_checkout_without_an_end_is_used_again(world: World) -> None:
    _, token = await world.request()
    first = await world.open(token)
    await CheckoutSession.all().update(expires_at=None)
    assert await world.open(token) == first


async def test_a_link_that_is_opened_forty_times_every_twenty_five_hours_still_pays(world: World) -> None:
    request, token = await world.request()
    pages = []
    for _ in range(40):
        pages.append(await world.open(token))
        # 25 hours pass: the vendor ends its session, all that is stored is a day older.
        day = timedelta(hours=25)
        world.vendor.lapse(pages[-1])
        await world.deliver()
        for row in await CheckoutSession.all():
            await CheckoutSession.filter(id=row.id).update(
                created_at=row.created_at - day, expires_at=row.expires_at - day if row.expires_at else None
            )
    page = await world.open(token)
    world.vendor.pay(page)
    await world.deliver()
    await world.run_jobs()
    assert len({*pages, page}) == 41
    assert await world.status(request) == "PAID"
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]
    assert world.vendor.open_sessions(request) == []
    await assert_consistent(world.account.id)


async def test_a_paid_a_void_and_a_processing_request_open_nothing(world: World) -> None:
    _, paid_token = await world.request()
    world.vendor.pay(await world.open(paid_token))
    void, void_token = await world.request()
    await voids.void(world.actor, payment_request_id=void.id)
    _, processing_token = await world.request()
    world.vendor.pay(await world.open(processing_token), outcome=MoneyOutcome.PENDING)
    await world.deliver()
    made = world.vendor.count("create")
    for token, state in ((paid_token, "paid"), (void_token, "void"), (processing_token, "processing")):
        opened = await checkout.open_checkout(token)
        assert (opened.url, opened.state) == (None, state)
        found = await checkout_page.find(token)
        assert found is not None
        assert (await checkout_page.page(found)).state == state
    assert world.vendor.count("create") == made


async def test_an_unknown_and_a_discarded_link_are_not_there(world: World) -> None:
    request, token = await world.request(status="DRAFT", sent_at=None, sent_via=None)
    for unknown in ("", "x", "x" * 22, token + "x"):
        assert await checkout_page.find(unknown) is None
        with pytest.raises(errors.NotFound):
            await checkout.open_checkout(unknown)
    request.discarded_at = datetime.now(UTC)
    await request.save()
    assert await checkout_page.find(token) is None
    with pytest.raises(errors.NotFound):
        await checkout.open_checkout(token)
    assert await CheckoutSession.all().count() == 0


async def test_a_request_that_is_discarded_while_pay_is_pressed_opens_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, token = await world.request(status="DRAFT", sent_at=None, sent_via=None)
    found = await checkout_page.find(token)

    async def stale(_: str) -> object:
        return found

    request.discarded_at = datetime.now(UTC)
    await request.save()
    monkeypatch.setattr(checkout_page, "find", stale)
    with pytest.raises(errors.NotFound):
        await checkout.open_checkout(token)
    assert await CheckoutSession.all().count() == 0


# -------------------------------------------------------------------------------------------------- when calls fail
async def test_dying_between_the_processors_answer_and_our_commit_gives_the_same_checkout_again(world: World) -> None:
    request, token = await world.request()
    world.vendor.faults = ["after"]
    with pytest.raises(errors.ProcessorUnavailable):
        await checkout.open_checkout(token)
    assert await states() == [(1, "OPENING")]
    page = await world.open(token)
    assert list(world.vendor.sessions) == [page]
    assert await states() == [(1, "OPEN")]
    world.vendor.pay(page)
    await world.deliver()
    assert await world.status(request) == "PAID"


async def test_a_key_that_failed_twice_is_left_and_the_next_one_works(world: World) -> None:
    _, token = await world.request()
    world.vendor.faults = ["before", "before"]
    for _ in range(2):
        with pytest.raises(errors.ProcessorUnavailable):
            await checkout.open_checkout(token)
    assert (await ProcessorConnection.get(id=world.connection.id)).last_error == "connection: "
    await world.open(token)
    assert await states() == [(1, "ABANDONED"), (2, "OPEN")]
    # It works again, and the error disappears without a call to the vendor.
    assert (await ProcessorConnection.get(id=world.connection.id)).last_error is None


async def test_a_definite_no_is_told_and_leaves_nothing_open(world: World) -> None:
    request, token = await world.request()
    world.vendor.faults = ["refuse"]
    with pytest.raises(errors.ProcessorRejected):
        await checkout.open_checkout(token)
    assert await states() == [(1, "ABANDONED")]
    assert world.vendor.sessions == {}
    await world.open(token)
    assert await states() == [(1, "ABANDONED"), (2, "OPEN")]
    assert await world.status(request) == "SENT"


async def test_a_key_that_was_tried_with_other_words_is_followed_by_the_next_one(world: World) -> None:
    request, token = await world.request()
    world.vendor.faults = ["after"]
    with pytest.raises(errors.ProcessorUnavailable):
        await checkout.open_checkout(token, locale="en")
    opened = await checkout.open_checkout(token, locale="de")
    assert opened.url is not None
    assert await states() == [(1, "ABANDONED"), (2, "OPEN")]
    assert len(world.vendor.of_request(request)) == 2


async def test_an_old_unanswered_creation_is_not_repeated_with_its_key(world: World) -> None:
    _, token = await world.request()
    world.vendor.faults = ["before"]
    with pytest.raises(errors.ProcessorUnavailable):
        await checkout.open_checkout(token)
    await CheckoutSession.all().update(created_at=datetime.now(UTC) - timedelta(minutes=11))
    await world.open(token)
    await world.run_jobs()
    assert await states() == [(1, "ABANDONED"), (2, "OPEN")]


@pytest.mark.parametrize(("age_s", "opened"), [(200, [(1, "OPEN")]), (280, [(1, "ABANDONED"), (2, "OPEN")])])
async def test_a_creation_is_repeated_only_within_the_life_of_its_key(
    world: World, monkeypatch: pytest.MonkeyPatch, age_s: int, opened: list[tuple[int, str]]
) -> None:
    monkeypatch.setattr(world.vendor, "capabilities", Capabilities(key_life_s=300))
    request, token = await world.request()
    world.vendor.faults = ["after"]
    with pytest.raises(errors.ProcessorUnavailable):
        await checkout.open_checkout(token)
    await CheckoutSession.all().update(created_at=datetime.now(UTC) - timedelta(seconds=age_s))
    await world.open(token)
    await world.run_jobs()
    assert await states() == opened
    assert len(world.vendor.of_request(request)) == len(opened)


async def test_without_keys_and_cancellation_a_second_press_waits_for_the_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.vendor, "capabilities", Capabilities(key_life_s=0, cancels_checkouts=False))
    request, token = await world.request()
    pressed: list[str] = []

    async def press_again(verb: str) -> None:
        if verb == "create" and not pressed:
            pressed.append(verb)
            with pytest.raises(errors.ProcessorUnavailable):
                await checkout.open_checkout(token)

    world.vendor.before_call = press_again
    await world.open(token)
    assert pressed == ["create"]
    assert len(world.vendor.of_request(request)) == 1


async def test_an_answer_that_comes_after_the_creation_was_given_up_is_closed(world: World) -> None:
    request, token = await world.request()

    async def give_up(verb: str) -> None:
        if verb == "create":
            await CheckoutSession.all().update(status="ABANDONED")

    world.vendor.after_call = give_up
    with pytest.raises(errors.ProcessorUnavailable):
        await checkout.open_checkout(token)
    world.vendor.after_call = None
    await world.run_jobs()
    assert world.vendor.open_sessions(request) == []
    assert await states() == [(1, "EXPIRED")]
    await world.open(token)


async def test_a_row_that_a_webhook_gave_to_another_checkout_is_not_overwritten(world: World) -> None:
    request, token = await world.request()

    async def adopt(verb: str) -> None:
        if verb == "create":
            await CheckoutSession.all().update(external_id="cs_adopted", status="OPEN")

    world.vendor.after_call = adopt
    page = await world.open(token)
    world.vendor.after_call = None
    order = world.vendor.sessions[page].order
    world.vendor.sessions["cs_adopted"] = type(world.vendor.sessions[page])(external_id="cs_adopted", order=order)
    await world.run_jobs()
    rows = {row.external_id: row.status for row in await CheckoutSession.all()}
    assert rows == {"cs_adopted": "EXPIRED", page: "OPEN"}
    assert [s.external_id for s in world.vendor.open_sessions(request)] == [page]


async def test_a_checkout_that_was_paid_before_its_answer_came_is_recorded(world: World) -> None:
    request, token = await world.request()

    world.vendor.faults = ["after"]
    with pytest.raises(errors.ProcessorUnavailable):
        await checkout.open_checkout(token)
    (session,) = world.vendor.sessions.values()
    world.vendor.pay(session.external_id)
    opened = await checkout.open_checkout(token)
    assert (opened.url, opened.state) == (None, "paid")
    assert await world.status(request) == "PAID"
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]


async def test_a_void_that_begins_while_the_checkout_is_made_closes_it(world: World) -> None:
    request, token = await world.request()

    async def begin_void(verb: str) -> None:
        if verb == "create":
            world.vendor.after_call = None
            done = await voids.void(world.actor, payment_request_id=request.id)
            assert done.card is None  # pending: the answer is on its way

    world.vendor.after_call = begin_void
    opened = await checkout.open_checkout(token)
    assert (opened.url, opened.state) == (None, "void")
    assert world.vendor.open_sessions(request) == []
    assert await world.cards(request) == ["REQUEST_VOIDED"]


async def test_a_closed_processor_opens_nothing_and_still_shows_receipts(world: World) -> None:
    _, token = await world.request()
    world.vendor.pay(await world.open(token))
    await world.deliver()
    change(sandbox_open=False)
    found = await checkout_page.find(token)
    assert found is not None
    shown = await checkout_page.page(found)
    assert (shown.state, shown.processor_name, shown.origins) == ("paid", "Sandbox", ())
    _, other = await world.request()
    with pytest.raises(errors.ProcessorUnavailable):
        await checkout.open_checkout(other)


# ---------------------------------------------------------------------------------------------------- return and view
async def test_the_return_page_asks_the_processor_and_never_decides_itself(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    await checkout_reads.returned(token)
    assert await world.status(request) == "SENT"
    world.vendor.pay(page)
    await checkout_reads.returned(token)
    assert await world.status(request) == "PAID"
    assert (await MoneyFact.get(payment_request_id=request.id)).source == "return"
    reads = world.vendor.count("read")
    await checkout_reads.returned(token)
    assert world.vendor.count("read") == reads


async def test_a_silent_processor_at_the_return_page_is_left_to_the_sweeper(world: World) -> None:
    request, token = await world.request()
    world.vendor.pay(await world.open(token))
    world.vendor.faults = ["before"]
    await checkout_reads.returned(token)
    assert await world.status(request) == "SENT"
    session = await CheckoutSession.get(payment_request_id=request.id)
    assert session.returned_at is not None
    assert session.next_check_at is not None


async def test_a_persons_first_look_at_a_copied_link_makes_a_draft_sent_once(world: World) -> None:
    request, token = await world.request(status="DRAFT", sent_at=None, sent_via=None)
    await checkout_page.record_view(token, human=False)
    assert await world.status(request) == "DRAFT"
    await checkout_page.record_view(token, human=True)
    await checkout_page.record_view(token, human=True)
    now = await world.fresh(request)
    assert (now.status, now.sent_via, now.human_views) == ("SENT", "LINK_COPIED", 1)
    assert await world.cards(request) == ["PAYMENT_REQUEST"]
    now.last_viewed_at = datetime.now(UTC) - timedelta(minutes=2)
    await now.save()
    await checkout_page.record_view(token, human=True)
    assert (await world.fresh(request)).human_views == 2
    assert await world.cards(request) == ["PAYMENT_REQUEST"]
    events = [row["kind"] for row in await db.rows("SELECT kind FROM event ORDER BY seq")]
    assert events.count("payment_request.viewed") == 2
    assert events.count("payment_request.sent") == 1
    await assert_consistent(world.account.id)


async def test_the_customers_address_goes_to_the_processor(world: World) -> None:
    await Contact.filter(id=world.contact.id).update(email="anna@example.test")
    _, token = await world.request()
    page = await world.open(token)
    assert world.vendor.sessions[page].order.customer_email == "anna@example.test"
    assert world.vendor.sessions[page].status == CheckoutStatus.OPEN
    assert isinstance(providers.processor(world.connection), Scripted)
