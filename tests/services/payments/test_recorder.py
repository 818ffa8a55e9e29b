"""The recorder: statements become facts, status, cards, totals and notifications, once and in any order."""

from __future__ import annotations

import random

import pytest
from tortoise.exceptions import BaseORMException

from integrations.base import CheckoutStatus, MoneyKind, MoneyOutcome, MoneyStatement
from models import database as db
from models.tables import (
    Account,
    ActivityCard,
    AuditEntry,
    CheckoutSession,
    Contact,
    MoneyFact,
    PaymentRequest,
    ProcessorConnection,
)
from services.core.unit_of_work import change
from services.payments import payment_views, recorder, voids
from services.thread import payment_links
from tests.services.scripted import World, assert_consistent


@pytest.fixture
async def world(database: str) -> World:
    return await World.make()


async def names(world: World, request: PaymentRequest) -> list[tuple[str, str | None]]:
    """The request's log entries, each with the status before it."""
    found = await db.rows(
        "SELECT kind, data FROM event WHERE payment_request_id = ? AND kind LIKE 'payment_request.%' ORDER BY seq",
        request.id,
    )
    return [(row["kind"].partition(".")[2], db.to_json(row["data"])["previous_status"]) for row in found]


def refund(
    charge: MoneyStatement, outcome: MoneyOutcome = MoneyOutcome.SUCCEEDED, amount: int = 12500
) -> MoneyStatement:
    return MoneyStatement(
        kind=MoneyKind.REFUND,
        external_id="re_1",
        outcome=outcome,
        amount_minor=amount,
        currency="USD",
        charge_external_id=charge.external_id,
        request_reference=charge.request_reference,
    )


async def test_cards_write_amounts_in_the_accounts_locale(world: World) -> None:
    await Account.filter(id=world.account.id).update(locale="de-DE")
    request, token = await world.request(sent_at=None, status="DRAFT")
    world.vendor.pay(await world.open(token))
    await world.deliver()
    cards = await ActivityCard.filter(payment_request_id=request.id).order_by("seq")
    assert [card.text for card in cards] == [
        f"Payment request {request.number}: 125,00\u00a0$ for Deep clean.",
        "Payment received: 125,00\u00a0$ for Deep clean.",
    ]


async def test_a_payment_turns_the_first_card_paid_and_logs_a_second_one(world: World) -> None:
    request, token = await world.request()
    world.vendor.pay(await world.open(token), method_summary="Visa •••• 4242", fee_minor=393)
    await world.deliver()
    now = await world.fresh(request)
    assert (now.status, now.amount_paid_minor, now.excess_minor, now.late_minor) == ("PAID", 12500, 0, 0)
    assert now.paid_at is not None
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]
    assert await world.notifications() == ["PAYMENT_RECEIVED"]
    assert await world.facts(request) == [("CHARGE", "SUCCEEDED", 12500)]
    assert await names(world, request) == [("paid", "SENT")]
    assert (await Contact.get(id=world.contact.id)).tags == ["customer"]
    await assert_consistent(world.account.id)


async def test_a_draft_that_is_paid_logs_its_first_card_first(world: World) -> None:
    request, token = await world.request(status="DRAFT", sent_at=None, sent_via=None)
    world.vendor.pay(await world.open(token))
    await world.deliver()
    assert await world.cards(request) == ["PAYMENT_REQUEST", "PAYMENT_RECEIVED"]
    assert await names(world, request) == [("sent", "DRAFT"), ("paid", "SENT")]
    now = await world.fresh(request)
    assert (now.status, now.sent_via) == ("PAID", "LINK_COPIED")


async def test_many_requests_of_one_conversation_paid_in_shuffled_order_touch_only_their_own_cards(
    world: World,
) -> None:
    asked = [await world.request(amount_minor=1000 + n) for n in range(8)]
    pages = [(request, await world.open(token)) for request, token in asked]
    random.Random(7).shuffle(pages)
    for paid, (request, page) in enumerate(pages, 1):
        money = world.vendor.pay(page)
        await world.deliver()
        assert money is not None
        assert await world.facts(request) == [("CHARGE", "SUCCEEDED", request.amount_minor)]
        assert await PaymentRequest.filter(status="PAID").count() == paid
        card = await ActivityCard.get(payment_request_id=request.id)
        assert (card.kind, card.status) == ("PAYMENT_RECEIVED", "PAID")
        assert (await MoneyFact.get(id=card.money_fact_id)).external_id == money.external_id
        await assert_consistent(world.account.id)
    assert await ActivityCard.all().count() == 8


async def test_a_second_payment_is_kept_as_excess_and_flagged(world: World) -> None:
    request, token = await world.request()
    first = await world.open(token)
    world.vendor.pay(first)
    await world.deliver()
    world.vendor.pay(first, force=True)
    await world.deliver()
    now = await world.fresh(request)
    assert (now.status, now.amount_paid_minor, now.excess_minor) == ("PAID", 25000, 12500)
    assert await world.cards(request) == ["PAYMENT_RECEIVED", "EXCESS_PAYMENT"]
    assert await world.notifications() == ["PAYMENT_RECEIVED", "EXCESS_PAYMENT"]
    await assert_consistent(world.account.id)


async def test_money_after_void_is_late_and_flagged_and_the_request_stays_void(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    await voids.void(world.actor, payment_request_id=request.id)
    await world.deliver()
    world.vendor.pay(page, force=True)
    await world.deliver()
    now = await world.fresh(request)
    assert (now.status, now.late_minor, now.amount_paid_minor) == ("VOID", 12500, 0)
    assert await world.cards(request) == ["REQUEST_VOIDED", "LATE_PAYMENT"]
    assert await world.notifications() == ["LATE_PAYMENT"]
    await assert_consistent(world.account.id)


@pytest.mark.parametrize("wrong", [{"amount_minor": 12499}, {"amount_minor": 12501}, {"currency": "EUR"}])
async def test_a_wrong_amount_or_currency_is_kept_flagged_and_not_counted(
    world: World, wrong: dict[str, object]
) -> None:
    request, token = await world.request()
    world.vendor.pay(await world.open(token), **wrong)  # type: ignore[arg-type]
    await world.deliver()
    await world.run_jobs()
    now = await world.fresh(request)
    assert (now.status, now.amount_paid_minor, now.paid_at) == ("SENT", 0, None)
    assert await world.cards(request) == ["PAYMENT_MISMATCH"]
    assert await world.notifications() == ["PAYMENT_MISMATCH"]
    assert [fact.counted for fact in await MoneyFact.all()] == [False]
    await assert_consistent(world.account.id)


async def test_a_bank_debit_is_processing_until_its_money_arrives(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    world.vendor.pay(page, outcome=MoneyOutcome.PENDING)
    await world.deliver()
    assert await world.status(request) == "PROCESSING"
    assert await world.notifications() == []
    world.vendor.settle(page, ok=True)
    await world.deliver()
    assert await world.status(request) == "PAID"
    assert await world.cards(request) == ["PAYMENT_PROCESSING", "PAYMENT_RECEIVED"]
    assert await names(world, request) == [("processing", "SENT"), ("paid", "PROCESSING")]


async def test_a_bank_debit_that_fails_opens_the_request_again(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    world.vendor.pay(page, outcome=MoneyOutcome.PENDING)
    world.vendor.settle(page, ok=False)
    await world.deliver()
    now = await world.fresh(request)
    assert (now.status, now.last_attempt_status) == ("SENT", "FAILED")
    assert await world.cards(request) == ["PAYMENT_PROCESSING", "PAYMENT_FAILED"]
    assert await world.open(token) != page


async def test_pending_money_of_a_checkout_that_failed_did_not_arrive_even_if_the_vendor_names_it_no_more(
    world: World,
) -> None:
    request, token = await world.request()
    page = await world.open(token)
    world.vendor.pay(page, outcome=MoneyOutcome.PENDING)
    await world.deliver()
    report = recorder.CheckoutReport(external_id=page, status=CheckoutStatus.FAILED)
    await recorder.record(world.connection, (), source="sweeper", checkout=report)
    assert await world.status(request) == "SENT"
    assert await world.facts(request) == [("CHARGE", "PENDING", 12500), ("CHARGE", "FAILED", 12500)]
    assert await world.cards(request) == ["PAYMENT_PROCESSING", "PAYMENT_FAILED"]


async def test_a_decline_is_a_card_and_leaves_the_request_open(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    world.vendor.decline(page)
    await world.deliver()
    now = await world.fresh(request)
    assert (now.status, now.last_attempt_status, now.last_attempt_code) == ("SENT", "FAILED", "card_declined")
    assert await world.cards(request) == ["PAYMENT_FAILED"]
    assert await world.open(token) == page


async def test_a_decline_that_is_told_after_the_payment_is_kept_and_changes_nothing_else(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    world.vendor.decline(page)
    declined, world.vendor.outbox = world.vendor.outbox, []
    world.vendor.pay(page)
    await world.deliver()
    await world.deliver(*declined)
    assert (await world.fresh(request)).last_attempt_status == "SUCCEEDED"
    assert await world.facts(request) == [("CHARGE", "SUCCEEDED", 12500), ("CHARGE", "FAILED", 12500)]
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]
    assert await world.notifications() == ["PAYMENT_RECEIVED"]


async def test_a_lower_outcome_of_the_same_money_that_comes_late_is_not_said(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    world.vendor.pay(page, outcome=MoneyOutcome.PENDING)
    pending, world.vendor.outbox = world.vendor.outbox, []
    world.vendor.settle(page, ok=True)
    await world.deliver()
    await world.deliver(*pending)
    assert await world.status(request) == "PAID"
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]


@pytest.mark.parametrize("refund_first", [False, True])
async def test_a_refund_counts_by_its_charge_in_either_order(world: World, refund_first: bool) -> None:
    request, token = await world.request()
    charge = world.vendor.pay(await world.open(token))
    assert charge is not None
    given_back = refund(charge)
    for said in [given_back, charge] if refund_first else [charge, given_back]:
        await recorder.record(world.connection, [said], source="webhook")
    now = await world.fresh(request)
    assert (now.status, now.refunded_minor, now.refund_state, now.excess_minor) == ("PAID", 12500, "FULL", 0)
    assert sorted(await world.cards(request)) == ["PAYMENT_RECEIVED", "REFUND_ISSUED"]
    await assert_consistent(world.account.id)


async def test_a_refund_of_late_money_lowers_what_is_late(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    await voids.void(world.actor, payment_request_id=request.id)
    late = world.vendor.pay(page, force=True)
    assert late is not None
    await world.deliver()
    await recorder.record(world.connection, [refund(late, amount=5000)], source="webhook")
    now = await world.fresh(request)
    assert (now.status, now.late_minor, now.refunded_minor, now.refund_state) == ("VOID", 7500, 5000, "PARTIAL")


async def test_a_refund_that_fails_after_it_succeeded_is_taken_back(world: World) -> None:
    request, token = await world.request()
    charge = world.vendor.pay(await world.open(token))
    assert charge is not None
    for outcome in (MoneyOutcome.SUCCEEDED, MoneyOutcome.FAILED):
        await recorder.record(world.connection, [charge, refund(charge, outcome)], source="webhook")
    now = await world.fresh(request)
    assert (now.refund_state, now.refunded_minor) == ("NONE", 0)
    assert await world.cards(request) == ["PAYMENT_RECEIVED", "REFUND_ISSUED", "REFUND_FAILED"]
    await assert_consistent(world.account.id)


async def test_a_refund_whose_success_is_told_after_its_failure_stays_failed_and_is_not_said(world: World) -> None:
    request, token = await world.request()
    charge = world.vendor.pay(await world.open(token))
    assert charge is not None
    for said in (charge, refund(charge, MoneyOutcome.FAILED), refund(charge, MoneyOutcome.SUCCEEDED)):
        await recorder.record(world.connection, [said], source="webhook")
    assert (await world.fresh(request)).refund_state == "NONE"
    assert await world.cards(request) == ["PAYMENT_RECEIVED", "REFUND_FAILED"]
    await assert_consistent(world.account.id)


async def test_another_payment_under_way_leaves_a_paid_request_paid(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    world.vendor.pay(page)
    await world.deliver()
    world.vendor.pay(page, outcome=MoneyOutcome.PENDING, force=True)
    await world.deliver()
    assert await world.status(request) == "PAID"
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]
    world.vendor.settle(page, ok=True)
    await world.deliver()
    assert (await world.fresh(request)).excess_minor == 12500
    assert await world.cards(request) == ["PAYMENT_RECEIVED", "EXCESS_PAYMENT"]


async def test_fee_and_method_that_are_learnt_later_are_a_further_row_and_change_net(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    charge = world.vendor.pay(page)
    assert charge is not None
    await world.deliver()
    known = world.vendor.sessions[page]
    detailed = MoneyStatement(
        kind=charge.kind,
        external_id=charge.external_id,
        outcome=charge.outcome,
        amount_minor=12500,
        currency="USD",
        checkout_external_id=page,
        fee_minor=393,
        method_summary="Visa •••• 4242",
    )
    known.money[charge.external_id] = detailed
    await world.run_jobs()  # reads back what only a webhook had said
    for _ in range(2):
        await recorder.record(world.connection, [detailed], source="sweeper")
    (view,) = (await payment_views.payments(world.account.id, [request.id]))[request.id]
    assert (view.kind, view.status, view.amount_minor) == ("CHARGE", "SUCCEEDED", 12500)
    assert (view.fee_minor, view.method_summary) == (393, "Visa •••• 4242")
    (total,) = await db.rows("SELECT net_minor, paid_minor FROM contact_summary")
    assert (total["net_minor"], total["paid_minor"]) == (12500 - 393, 12500)
    assert await MoneyFact.all().count() == 2
    assert (await world.fresh(request)).amount_paid_minor == 12500
    views = await payment_views.by_facts(world.account.id, [fact.id for fact in await MoneyFact.all()])
    assert {v.id for v in views.values()} == {view.id}
    await assert_consistent(world.account.id)


async def test_what_was_said_before_changes_nothing(world: World) -> None:
    request, token = await world.request()
    charge = world.vendor.pay(await world.open(token))
    assert charge is not None
    await world.deliver()
    before = await world.fresh(request)
    for source in ("webhook", "return", "sweeper", "void"):
        recorded = await recorder.record(world.connection, [charge], source=source)
        assert recorded.cards == []
    after = await world.fresh(request)
    assert (after.version, after.updated_at) == (before.version, before.updated_at)
    assert await names(world, request) == [("paid", "SENT")]


async def test_a_checkout_that_we_do_not_know_is_adopted_by_our_reference(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    await CheckoutSession.all().update(external_id=None, url=None, status="OPENING")  # we died before the commit
    world.vendor.pay(page)
    await world.deliver()
    await world.run_jobs()
    assert await world.status(request) == "PAID"
    session = await CheckoutSession.get(payment_request_id=request.id)
    assert (session.external_id, session.status) == (page, "COMPLETED")
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]


async def test_an_unknown_checkout_beside_a_known_one_gets_a_row_of_its_own(world: World) -> None:
    request, token = await world.request()
    known = await world.open(token)
    other = await world.vendor.create_checkout(
        world.vendor.sessions[known].order.__class__(
            **{
                name: getattr(world.vendor.sessions[known].order, name)
                for name in world.vendor.sessions[known].order.__slots__
                if name != "idempotency_key"
            },
            idempotency_key="elsewhere",
        )
    )
    world.vendor.pay(other.external_id)
    await world.deliver()
    await world.run_jobs()
    assert await world.status(request) == "PAID"
    rows = {row.external_id: row.status for row in await CheckoutSession.all()}
    assert rows == {known: "EXPIRED", other.external_id: "COMPLETED"}


async def test_an_open_checkout_that_turns_up_after_void_is_closed(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    await CheckoutSession.all().update(external_id=None, url=None, status="ABANDONED")
    await voids.void(world.actor, payment_request_id=request.id)
    assert await world.status(request) == "VOID"
    assert [s.external_id for s in world.vendor.open_sessions(request)] == [page]
    state = await world.vendor.read_checkout(page)
    report = recorder.CheckoutReport(external_id=page, status=state.status)
    await recorder.record(
        world.connection, (), source="sweeper", checkout=report, request_reference=state.request_reference
    )
    await world.run_jobs()
    assert world.vendor.open_sessions(request) == []
    assert await world.status(request) == "VOID"


async def test_money_of_another_account_is_foreign(world: World) -> None:
    other = await World.make()
    request, token = await other.request()
    charge = other.vendor.pay(await other.open(token))
    assert charge is not None
    recorded = await recorder.record(
        world.connection, [charge], source="webhook", request_reference=payment_links.reference(request)
    )
    assert recorded.request is None
    assert await MoneyFact.all().count() == 0
    assert await other.status(request) == "SENT"


async def test_what_fails_in_the_middle_leaves_nothing(world: World) -> None:
    request, token = await world.request()
    charge = world.vendor.pay(await world.open(token))
    assert charge is not None

    async def fail_behind_it() -> None:
        async with change(world.account.id):
            await recorder.record(world.connection, [charge], source="webhook")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_behind_it()
    assert await world.status(request) == "SENT"
    assert await world.facts(request) == []
    assert await world.cards(request) == []
    await assert_consistent(world.account.id)


async def test_facts_cards_and_audit_entries_can_neither_be_changed_nor_deleted(world: World) -> None:
    request, token = await world.request()
    world.vendor.pay(await world.open(token))
    await world.deliver()
    await AuditEntry.create(
        account_id=world.account.id, actor_kind="system", action="x", subject="y", occurred_at=request.created_at
    )
    refused = 0
    for table, column in (
        ("money_fact", "external_id"),
        ("activity_card", "text"),
        ("audit_entry", "action"),
        ("event", "kind"),
    ):
        before = await db.rows(f"SELECT * FROM {table}")  # noqa: S608 (only constants are put in)
        assert before
        for sql in (f"UPDATE {table} SET {column} = 'changed'", f"DELETE FROM {table}"):  # noqa: S608 (only constants are put in)
            with pytest.raises(BaseORMException, match="append-only"):
                await db.execute(sql)
            refused += 1
        assert await db.rows(f"SELECT * FROM {table}") == before  # noqa: S608 (only constants are put in)
    assert refused == 8


async def test_the_same_money_of_two_connections_is_two_moneys(world: World) -> None:
    request, token = await world.request()
    charge = world.vendor.pay(await world.open(token))
    assert charge is not None
    await world.deliver()
    second = await ProcessorConnection.create(
        account_id=world.account.id,
        processor="sandbox",
        display_name="Second",
        test_mode=True,
        credentials=world.connection.credentials,
    )
    assert (await recorder.record(second, [charge], source="webhook")).request is None
    assert (await world.fresh(request)).amount_paid_minor == 12500
