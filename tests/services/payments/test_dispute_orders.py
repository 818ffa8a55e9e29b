"""A dispute ends with the vendor's last outcome, in every order, with repeats and reads between."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from integrations import registry
from integrations.base import Environment, MoneyKind, MoneyStatement
from models import ledger
from models.tables import ActivityCard, CheckoutSession, PaymentRequest
from services.payments import checkout_reads, integrity_check, payment_requests, payment_views, recorder
from services.thread import contact_totals
from tests.services.scripted import World

OPENED = datetime(2026, 11, 23, 12, tzinfo=UTC)
CREDENTIALS = {
    "stripe": {"secret_key": "sk_test_1"},
    "paypal": {"client_id": "a", "client_secret": "b"},
    "square": {"access_token": "a", "location_id": "L"},
}
Body = dict[str, Any]


def stripe_word(charge: str, n: int, word: str) -> Body:
    about = {"id": f"dp_{charge}", "amount": 12500, "currency": "usd", "payment_intent": charge, "status": word}
    # Its events carry whole seconds, and the first two come in the same one.
    created = int(OPENED.timestamp()) + max(0, n - 1)
    kind = "closed" if word in ("won", "lost", "warning_closed", "prevented") else "updated"
    event = {"object": "event", "id": "evt", "type": f"charge.dispute.{kind}", "created": created}
    return event | {"data": {"object": about | {"reason": "general"}}}


def paypal_word(charge: str, n: int, word: str) -> Body:
    status, _, more = word.partition("/")
    about: Body = {
        "dispute_id": f"PP-{charge}",
        "update_time": (OPENED + timedelta(milliseconds=n)).isoformat(),
        "disputed_transactions": [{"seller_transaction_id": charge}],
        "dispute_amount": {"currency_code": "USD", "value": "125.00"},
        "status": status,
        "dispute_life_cycle_stage": "INQUIRY" if more == "INQUIRY" else "CHARGEBACK",
        "dispute_outcome": {"outcome_code": more} if status == "RESOLVED" else {},
    }
    # Events are sent at any time after the change that they tell of.
    event = {"id": "WH", "event_type": "CUSTOMER.DISPUTE.UPDATED", "create_time": "2026-12-24T12:00:00Z"}
    return event | {"resource": about}


def square_word(charge: str, n: int, word: str) -> Body:
    about = {
        "id": f"sq_{charge}",
        "state": word,
        "amount_money": {"amount": 12500, "currency": "USD"},
        "disputed_payment": {"payment_id": charge},
        # Two changes share a moment: the version orders them.
        "updated_at": (OPENED + timedelta(seconds=n // 2)).isoformat(),
        "version": n + 1,
    }
    event = {"merchant_id": "M", "type": "dispute.state.updated", "event_id": "e", "created_at": "2026-12-24T12:00:00Z"}
    return event | {"data": {"type": "dispute", "id": about["id"], "object": {"dispute": about}}}


# What the vendors say of a dispute one after the other, and how the last word leaves it.
STRIPE = {
    ("warning_needs_response", "warning_under_review"): "NEEDS_RESPONSE",
    ("warning_needs_response", "warning_under_review", "warning_closed"): "WON",
    ("warning_needs_response", "needs_response", "under_review", "lost"): "LOST",
    ("needs_response", "under_review", "lost", "under_review", "won"): "WON",
    ("needs_response", "won", "under_review", "lost"): "LOST",
    ("needs_response", "lost", "under_review"): "NEEDS_RESPONSE",
    ("needs_response", "prevented"): "WON",
}
PAYPAL = {
    ("OPEN/INQUIRY", "WAITING_FOR_SELLER_RESPONSE/INQUIRY"): "NEEDS_RESPONSE",
    ("OPEN/INQUIRY", "RESOLVED/CANCELED_BY_BUYER"): "WON",
    ("OPEN/INQUIRY", "WAITING_FOR_SELLER_RESPONSE/", "UNDER_REVIEW/", "RESOLVED/RESOLVED_BUYER_FAVOUR"): "LOST",
    (
        "WAITING_FOR_SELLER_RESPONSE/",
        "UNDER_REVIEW/",
        "RESOLVED/RESOLVED_BUYER_FAVOUR",
        "UNDER_REVIEW/",
        "RESOLVED/RESOLVED_SELLER_FAVOUR",
    ): "WON",
    ("OPEN/", "RESOLVED/RESOLVED_SELLER_FAVOUR", "UNDER_REVIEW/", "RESOLVED/ACCEPTED"): "LOST",
    ("OPEN/", "RESOLVED/RESOLVED_BUYER_FAVOUR", "UNDER_REVIEW/"): "NEEDS_RESPONSE",
    ("OPEN/", "RESOLVED/RESOLVED_WITH_PAYOUT"): "WON",
}
SQUARE = {
    ("INQUIRY_EVIDENCE_REQUIRED", "INQUIRY_PROCESSING"): "NEEDS_RESPONSE",
    ("INQUIRY_EVIDENCE_REQUIRED", "INQUIRY_PROCESSING", "INQUIRY_CLOSED"): "WON",
    ("INQUIRY_EVIDENCE_REQUIRED", "EVIDENCE_REQUIRED", "PROCESSING", "LOST"): "LOST",
    ("EVIDENCE_REQUIRED", "PROCESSING", "LOST", "PROCESSING", "WON"): "WON",
    ("EVIDENCE_REQUIRED", "WON", "PROCESSING", "ACCEPTED"): "LOST",
    ("EVIDENCE_REQUIRED", "LOST", "PROCESSING"): "NEEDS_RESPONSE",
}
Word = Callable[[str, int, str], Body]
VENDORS: dict[str, tuple[Word, dict[tuple[str, ...], str]]] = {
    "stripe": (stripe_word, STRIPE),
    "paypal": (paypal_word, PAYPAL),
    "square": (square_word, SQUARE),
}


def statements(name: str, charge: str, words: Sequence[str]) -> list[MoneyStatement]:
    """The vendor's statements about these outcomes, in the vendor's order."""
    made: Any = registry.processor_class(name)
    environment = Environment(public_url="https://pay.example", sandbox_url="https://pay.example")
    parse = made(made.credentials(**CREDENTIALS[name]), environment=environment).parse
    reported = VENDORS[name][0]
    said = [parse(json.dumps(reported(charge, n, word)).encode()).money for n, word in enumerate(words)]
    assert [len(money) for money in said] == [1] * len(words)
    return [money[0] for money in said]


def as_fact(said: MoneyStatement) -> ledger.Fact:
    assert said.occurred_at is not None
    return ledger.Fact(
        connection="c",
        kind=said.kind.value,
        external_id=said.external_id,
        outcome=said.outcome.value,
        amount_minor=said.amount_minor,
        matches_checkout=True,
        after_void=False,
        occurred_at=said.occurred_at,
        charge_external_id=said.charge_external_id,
    )


@pytest.mark.parametrize("name", VENDORS)
def test_every_order_of_a_vendors_words_adds_up_to_the_last(name: str) -> None:
    orders = 0
    paid = ledger.Fact(
        connection="c",
        kind="CHARGE",
        external_id="pay",
        outcome="SUCCEEDED",
        amount_minor=12500,
        matches_checkout=True,
        after_void=False,
        occurred_at=OPENED,
    )
    for words, end in VENDORS[name][1].items():
        reported = [as_fact(said) for said in statements(name, "pay", words)]
        for order in itertools.permutations(reported):
            for repeated in (order, (*order, order[0]), (order[-1], *order, *order)):
                at = ledger.standing(
                    [*repeated, paid], amount_minor=12500, sent=True, voided=False, checkout_processing=False
                )
                assert (at.dispute_state, at.status, at.settled_minor) == (end, "PAID", 12500), (words, order)
                orders += 1
    assert orders > 500


@pytest.mark.parametrize("name", VENDORS)
async def test_orders_with_repeats_and_reads_end_with_the_right_card_action_and_totals(
    database: str, name: str
) -> None:
    world = await World.make()
    chosen = random.Random(f"{name} 9")
    lost = 0
    for words, end in VENDORS[name][1].items():
        count = len(words)
        backwards, shuffled = list(range(count))[::-1], chosen.sample(range(count), count)
        for order in (backwards, [*shuffled, *chosen.choices(range(count), k=2), *shuffled]):
            request, token = await world.request()
            session = await world.open(token)
            charge = world.vendor.pay(session)
            await world.deliver()
            assert charge is not None
            said = statements(name, charge.external_id, words)
            for n in order:
                await recorder.record(world.connection, [said[n]], source="webhook")
                if chosen.random() < 0.4:
                    await checkout_reads.read_back(await CheckoutSession.get(external_id=session), source="sweeper")
            lost += 12500 if end == "LOST" else 0
            inquiry = end == "NEEDS_RESPONSE" and all(one.inquiry for one in said)
            await assert_ended(request, end, refundable=end == "WON" or inquiry, reported=len(order))
    totals = (await contact_totals.recompute(world.account.id, world.contact.id))[("USD", True)]
    paid = 12500 * 2 * len(VENDORS[name][1])
    assert (totals["paid_minor"], totals["refunded_minor"], totals["net_minor"]) == (paid, 0, paid - lost)
    assert [str(one) for one in await integrity_check.audit()] == []


async def assert_ended(request: PaymentRequest, end: str, *, refundable: bool, reported: int) -> None:
    now = await PaymentRequest.get(id=request.id)
    views = (await payment_views.payments(request.account_id, [request.id]))[request.id]
    (dispute,) = [view for view in views if view.kind == MoneyKind.DISPUTE]
    status = {"NEEDS_RESPONSE": ("PENDING",), "LOST": ("SUCCEEDED",), "WON": ("FAILED", "CANCELED")}[end]
    assert (now.dispute_state, dispute.status in status, now.status) == (end, True, "PAID")
    left = payment_views.refundable(views)
    assert sum(left.values()) == (12500 if refundable else 0)
    actions = [action for action, _ in payment_requests.available_actions(now, "OWNER", refundable=bool(left))]
    assert actions == (["REFUND"] if refundable else [])
    cards = await ActivityCard.filter(payment_request_id=request.id, kind__startswith="DISPUTE").order_by("seq")
    last = {"NEEDS_RESPONSE": "DISPUTE_OPENED"}.get(end, "DISPUTE_CLOSED")
    assert (cards[-1].kind, 1 <= len(cards) <= reported) == (last, True)
    words = {
        "NEEDS_RESPONSE": ("dispute", "asks about", "open again"),
        "LOST": ("was lost",),
        "WON": ("was won", "no money"),
    }
    assert any(word in cards[-1].text for word in words[end])


# On one engine: what the reversal does to totals is proven on both in test_summaries.py.
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_paypals_reversal_ends_with_the_case_in_every_order(database: str) -> None:
    world = await World.make()
    words = ("OPEN/", "RESOLVED/RESOLVED_BUYER_FAVOUR", "UNDER_REVIEW/", "RESOLVED/RESOLVED_SELLER_FAVOUR")
    for n, order in enumerate(itertools.permutations(range(len(words) + 1))):
        if n % 6:
            continue  # every sixth of 120
        request, token = await world.request()
        charge = world.vendor.pay(await world.open(token))
        await world.deliver()
        assert charge is not None
        back = MoneyStatement(
            kind=MoneyKind.REFUND,
            external_id=f"rev_{charge.external_id}",
            outcome=charge.outcome,
            amount_minor=12500,
            currency="USD",
            charge_external_id=charge.external_id,
            reversal=True,
            occurred_at=OPENED,
        )
        reported = [*statements("paypal", charge.external_id, words), back]
        for index in order:
            await recorder.record(world.connection, [reported[index]], source="webhook")
        now = await world.fresh(request)
        assert (now.dispute_state, now.refunded_minor, now.refund_state) == ("WON", 0, "NONE"), order
    totals = (await contact_totals.recompute(world.account.id, world.contact.id))[("USD", True)]
    assert (totals["paid_minor"], totals["refunded_minor"], totals["net_minor"]) == (12500 * 20, 0, 12500 * 20)
    assert [str(one) for one in await integrity_check.audit()] == []
