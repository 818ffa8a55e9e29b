"""Texts of disputes and declines: reason, due date and outcome, also late or out of order."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from integrations import registry
from integrations.base import Environment, MoneyKind, MoneyOutcome, MoneyStatement
from models.tables import ActivityCard, MoneyFact, Notification, PaymentRequest
from services.payments import integrity_check, payment_views, recorder
from services.thread import contact_totals
from tests.services.scripted import World

OPENED = datetime(2026, 11, 23, 12, tzinfo=UTC)
DUE = datetime(2026, 12, 7, 23, 59, tzinfo=UTC)


@pytest.fixture
async def world(database: str) -> World:
    return await World.make()


async def paid(world: World) -> tuple[PaymentRequest, MoneyStatement]:
    request, token = await world.request()
    charge = world.vendor.pay(await world.open(token))
    await world.deliver()
    assert charge is not None
    return request, charge


def dispute(charge: MoneyStatement, outcome: MoneyOutcome = MoneyOutcome.PENDING, **more: object) -> MoneyStatement:
    made = MoneyStatement(
        kind=MoneyKind.DISPUTE,
        external_id="dp_1",
        outcome=outcome,
        amount_minor=charge.amount_minor,
        currency=charge.currency,
        charge_external_id=charge.external_id,
        dispute_reason="product_not_received",
        occurred_at=OPENED,
    )
    return replace(made, **more)  # type: ignore[arg-type]


async def record_all(world: World, *statements: MoneyStatement) -> list[str]:
    """Record each statement; return the texts of the new cards."""
    before = await ActivityCard.all().count()
    for statement in statements:
        await recorder.record(world.connection, [statement], source="webhook")
    return [card.text for card in (await ActivityCard.all().order_by("seq"))[before:]]


async def shown(world: World, request: PaymentRequest) -> payment_views.PaymentView:
    views = await payment_views.payments(world.account.id, [request.id])
    disputes = [view for view in views[request.id] if view.kind == "DISPUTE"]
    return max(disputes, key=lambda view: (view.last_at, view.processor_reference))


async def test_the_card_and_its_notice_say_why_and_until_when(world: World) -> None:
    request, charge = await paid(world)
    text = (
        "The contact's bank disputes $125.00 for Deep clean: product not received."
        " Answer by December 7, 2026, 23:59 UTC."
    )
    assert await record_all(world, dispute(charge, response_due_at=DUE), dispute(charge, response_due_at=DUE)) == [text]
    notice = await Notification.get(kind="DISPUTE_OPENED")
    assert (notice.title, notice.body) == ("Payment disputed", text)
    view = await shown(world, request)
    assert (view.status, view.response_due_at, view.dispute_reason) == ("PENDING", DUE, "product_not_received")
    assert (view.occurred_at, view.last_at) == (OPENED, OPENED)


@pytest.mark.parametrize(
    ("outcome", "words", "state"),
    [
        (MoneyOutcome.FAILED, "was won. The money stays.", "WON"),
        (MoneyOutcome.CANCELED, "was won. The money stays.", "WON"),
        (MoneyOutcome.SUCCEEDED, "was lost. The money goes back to the contact.", "LOST"),
    ],
)
@pytest.mark.parametrize("late", [False, True])
async def test_the_end_says_who_won_in_whatever_order_it_is_told(
    world: World, outcome: MoneyOutcome, words: str, state: str, late: bool
) -> None:
    request, charge = await paid(world)
    ended = OPENED + timedelta(days=9)
    reported = [dispute(charge, response_due_at=DUE), dispute(charge, outcome, occurred_at=ended)]
    texts = await record_all(world, *(reversed(reported) if late else reported))
    assert texts[-1] == f"The dispute over $125.00 for Deep clean {words}"
    assert len(texts) == (1 if late else 2)
    now = await world.fresh(request)
    assert (now.status, now.dispute_state) == ("PAID", state)
    view = await shown(world, request)
    assert (view.status, view.occurred_at, view.last_at, view.response_due_at) == (outcome.value, OPENED, ended, None)
    assert [str(one) for one in await integrity_check.audit()] == []


async def test_a_due_date_that_is_told_later_is_kept_and_says_nothing_twice(world: World) -> None:
    request, charge = await paid(world)
    assert len(await record_all(world, dispute(charge))) == 1
    version = (await world.fresh(request)).version
    later = dispute(charge, response_due_at=DUE, occurred_at=OPENED + timedelta(hours=1))
    assert await record_all(world, later, later, dispute(charge)) == []
    view = await shown(world, request)
    assert (view.response_due_at, view.amount_minor, view.status) == (DUE, 12500, "PENDING")
    assert (await world.fresh(request)).version == version + 1
    assert await MoneyFact.filter(external_id="dp_1").count() == 2
    assert len((await payment_views.payments(world.account.id, [request.id]))[request.id]) == 2
    assert [str(one) for one in await integrity_check.audit()] == []


async def test_of_two_disputes_the_newest_is_shown(world: World) -> None:
    request, charge = await paid(world)
    await record_all(
        world, dispute(charge), dispute(charge, MoneyOutcome.FAILED, occurred_at=OPENED + timedelta(days=1))
    )
    await record_all(world, dispute(charge, external_id="dp_2", occurred_at=OPENED + timedelta(days=2)))
    view = await shown(world, request)
    assert (view.processor_reference, (await world.fresh(request)).dispute_state) == ("dp_2", "NEEDS_RESPONSE")


async def left(world: World, request: PaymentRequest) -> list[int]:
    """What is still refundable of the request's charges."""
    views = (await payment_views.payments(world.account.id, [request.id]))[request.id]
    return list(payment_views.refundable(views).values())


async def test_an_inquiry_leaves_the_charge_refundable_and_ends_without_taking_it(world: World) -> None:
    request, charge = await paid(world)
    asked = dispute(charge, inquiry=True)
    later = dispute(charge, inquiry=True, response_due_at=DUE)
    opened = "The contact's bank asks about $125.00 for Deep clean: product not received. A refund closes it."
    assert await record_all(world, asked, later, asked, later) == [opened]
    assert (await left(world, request), (await shown(world, request)).inquiry) == ([12500], True)
    assert (await shown(world, request)).response_due_at == DUE
    closed = "The bank's question about $125.00 for Deep clean is closed. It took no money."
    ended = dispute(charge, MoneyOutcome.CANCELED, inquiry=True, occurred_at=OPENED + timedelta(days=1))
    assert await record_all(world, ended, dispute(charge)) == [closed]
    view = await shown(world, request)
    assert (view.status, view.inquiry, await left(world, request)) == ("CANCELED", False, [12500])
    assert [str(one) for one in await integrity_check.audit()] == []


@pytest.mark.parametrize("due_before", [False, True])
async def test_an_inquiry_that_becomes_a_dispute_takes_its_part_from_then_on_and_is_told_once(
    world: World, due_before: bool
) -> None:
    request, charge = await paid(world)
    asked = [dispute(charge, inquiry=True), dispute(charge, inquiry=True, response_due_at=DUE)]
    await record_all(world, *asked[: 2 if due_before else 1])
    due = DUE + timedelta(days=9)
    real = dispute(charge, response_due_at=due)
    text = (
        "What the contact's bank asked about Deep clean is now a dispute: product not received."
        " Answer by December 16, 2026, 23:59 UTC."
    )
    assert await record_all(world, real, real, *asked) == [text]
    assert [notice.body for notice in await Notification.filter(kind="DISPUTE_OPENED").order_by("id")][1:] == [text]
    view = await shown(world, request)
    assert (view.status, view.inquiry, view.amount_minor, view.response_due_at) == ("PENDING", False, 12500, due)
    assert await left(world, request) == []
    assert await record_all(world, dispute(charge, MoneyOutcome.FAILED, occurred_at=due)) == [
        "The dispute over $125.00 for Deep clean was won. The money stays."
    ]
    assert await left(world, request) == [12500]
    assert len((await payment_views.payments(world.account.id, [request.id]))[request.id]) == 2
    assert [str(one) for one in await integrity_check.audit()] == []


async def test_a_dispute_takes_its_part_though_it_is_told_without_a_due_date_or_before_its_inquiry(
    world: World,
) -> None:
    request, charge = await paid(world)
    await record_all(world, dispute(charge, inquiry=True), dispute(charge, dispute_reason=None))
    assert await left(world, request) == []
    other, second = await paid(world)
    texts = await record_all(
        world, dispute(second, external_id="dp_2"), dispute(second, external_id="dp_2", inquiry=True)
    )
    assert (len(texts), await left(world, other)) == (1, [])


@pytest.mark.parametrize(
    ("code", "sentence", "words"),
    [
        ("insufficient_funds", "The bank declined it: no funds.", ". The bank declined it: no funds."),
        ("new_code", None, " (new_code)."),
        (None, None, "."),
    ],
)
async def test_a_failed_attempt_says_why_on_card_notice_and_request(
    world: World, code: str | None, sentence: str | None, words: str
) -> None:
    request, token = await world.request()
    session = await world.open(token)
    world.vendor.pay(session, outcome=MoneyOutcome.FAILED, failure_code=code, failure_message=sentence)
    await world.deliver()
    text = f"A payment of $125.00 for Deep clean did not go through{words} The link still works."
    card = await ActivityCard.get(kind="PAYMENT_FAILED")
    notice = await Notification.get(kind="PAYMENT_FAILED")
    now = await world.fresh(request)
    assert (card.text, notice.body) == (text, text)
    assert (now.last_attempt_code, now.last_attempt_message) == (code, sentence)


@pytest.mark.parametrize("waits", ["It is an eCheck.", None])
async def test_a_payment_under_way_says_what_it_waits_for_until_it_arrives(world: World, waits: str | None) -> None:
    request, token = await world.request()
    session = await world.open(token)
    world.vendor.pay(session, outcome=MoneyOutcome.PENDING, failure_message=waits)
    await world.deliver()
    card = await ActivityCard.get(kind="PAYMENT_PROCESSING")
    text = "A payment of $125.00 for Deep clean is being processed."
    assert card.text == (f"{text} {waits}" if waits else text)
    assert (await world.fresh(request)).last_attempt_message == waits
    world.vendor.settle(session, ok=True)
    await world.deliver()
    now = await world.fresh(request)
    assert (now.status, now.last_attempt_status, now.last_attempt_message) == ("PAID", "SUCCEEDED", None)


# ------------------------------------------------------------------------------------------- decided, appealed, decided
Word = Callable[[str, str, datetime, str], dict[str, object]]


def by_stripe(dispute: str, charge: str, at: datetime, state: str) -> dict[str, object]:
    status = {"open": "needs_response", "review": "under_review"}.get(state, state)
    about = {"id": dispute, "amount": 12500, "currency": "usd", "payment_intent": charge, "status": status}
    kind = "closed" if state in ("won", "lost") else "updated"
    event = {"object": "event", "id": "evt", "type": f"charge.dispute.{kind}", "created": int(at.timestamp())}
    return event | {"data": {"object": about | {"reason": "general"}}}


def by_paypal(dispute: str, charge: str, at: datetime, state: str) -> dict[str, object]:
    code = {"won": "RESOLVED_SELLER_FAVOUR", "lost": "RESOLVED_BUYER_FAVOUR"}.get(state)
    about = {
        "dispute_id": dispute,
        "update_time": at.astimezone().isoformat(),
        "disputed_transactions": [{"seller_transaction_id": charge}],
        "dispute_amount": {"currency_code": "USD", "value": "125.00"},
        "status": "RESOLVED" if code else {"open": "OPEN", "review": "UNDER_REVIEW"}[state],
        "dispute_outcome": {"outcome_code": code} if code else {},
    }
    # An event is sent some time after its change, and not in the order of the changes.
    event = {"id": "WH", "event_type": "CUSTOMER.DISPUTE.UPDATED", "create_time": "2026-12-24T12:00:00Z"}
    return event | {"resource": about}


def by_square(dispute: str, charge: str, at: datetime, state: str) -> dict[str, object]:
    # Versions order the changes of one moment.
    about = {
        "id": dispute,
        "state": {"open": "EVIDENCE_REQUIRED", "review": "PROCESSING"}.get(state, state.upper()),
        "amount_money": {"amount": 12500, "currency": "USD"},
        "disputed_payment": {"payment_id": charge},
        "updated_at": OPENED.isoformat(),
        "version": 1 + (at - OPENED).days,
    }
    event = {"merchant_id": "M", "type": "dispute.state.updated", "event_id": "e", "created_at": "2026-12-24T12:00:00Z"}
    return event | {"data": {"type": "dispute", "id": dispute, "object": {"dispute": about}}}


CREDENTIALS = {
    "stripe": {"secret_key": "sk_test_1"},
    "paypal": {"client_id": "a", "client_secret": "b"},
    "square": {"access_token": "a", "location_id": "L"},
}
WORDS: dict[str, Word] = {"stripe": by_stripe, "paypal": by_paypal, "square": by_square}


HISTORIES = [("open", "lost", "review", "won"), ("open", "won", "review", "lost"), ("open", "lost", "review")]
CARD_OF = {"open": "bank disputes", "won": "was won", "lost": "was lost", "review": "is open again"}
ENDS = {"won": ("WON", "FAILED", 12500), "lost": ("LOST", "SUCCEEDED", 0), "review": ("NEEDS_RESPONSE", "PENDING", 0)}


@pytest.mark.parametrize("name", ["stripe", "paypal", "square"])
async def test_the_vendors_latest_word_stands_in_whatever_order_it_is_told(world: World, name: str) -> None:
    made: Any = registry.processor_class(name)
    environment = Environment(public_url="https://pay.example", sandbox_url="https://pay.example")
    parse = made(made.credentials(**CREDENTIALS[name]), environment=environment).parse
    lost = 0
    for said in HISTORIES:
        ways = list(itertools.permutations(range(len(said))))
        for n, way in enumerate([ways[0], ways[-1], *random.Random(7).sample(ways[1:-1], 4)]):
            request, charge = await paid(world)
            money = f"dp_{'_'.join(said)}_{n}"
            bodies = [WORDS[name](money, charge.external_id, OPENED + timedelta(days=s), said[s]) for s in way]
            statements = [statement for body in bodies for statement in parse(json.dumps(body).encode()).money]
            texts = await record_all(world, *statements, *statements)
            state, status, rest = ENDS[said[-1]]
            now, view = await world.fresh(request), await shown(world, request)
            assert (now.dispute_state, view.status, await left(world, request)) == (
                state,
                status,
                [rest] if rest else [],
            )
            assert await MoneyFact.filter(external_id=money).count() == len(said)
            if n == 0:  # in order: a card for each
                assert [next(w for w in CARD_OF.values() if w in text) for text in texts] == [
                    CARD_OF[word] for word in said
                ]
            lost += 12500 if state == "LOST" else 0
    charges = 12500 * 6 * len(HISTORIES)
    totals = (await contact_totals.recompute(world.account.id, request.contact_id))[("USD", True)]
    assert (totals["paid_minor"], totals["net_minor"]) == (charges, charges - lost)
    assert [str(one) for one in await integrity_check.audit()] == []


async def test_a_dispute_opened_again_asks_for_an_answer_by_its_own_date(world: World) -> None:
    request, charge = await paid(world)
    await record_all(
        world, dispute(charge, response_due_at=DUE), dispute(charge, MoneyOutcome.SUCCEEDED, occurred_at=DUE)
    )
    review = dispute(charge, occurred_at=DUE + timedelta(days=1))
    text = "The dispute over $125.00 for Deep clean is open again: product not received."
    assert await record_all(world, review, dispute(charge, response_due_at=DUE)) == [text]
    view = await shown(world, request)
    assert (view.status, view.response_due_at) == ("PENDING", None)
    asked = DUE + timedelta(days=20)
    assert await record_all(world, replace(review, response_due_at=asked, occurred_at=DUE + timedelta(days=2))) == []
    assert (await shown(world, request)).response_due_at == asked
    # Without a time a repeat changes nothing.
    reported = dispute(charge, MoneyOutcome.FAILED, external_id="dp_2", occurred_at=None)
    assert len(await record_all(world, reported, reported, reported)) == 1
    assert await MoneyFact.filter(external_id="dp_2").count() == 1
