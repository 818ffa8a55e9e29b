"""The status follows from the set of facts, whatever their order or repetition."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.ledger import CHARGE_RANK, Fact, Standing, Status, counting, final, is_payable, standing

T0 = datetime(2026, 11, 23, tzinfo=UTC)


def fact(
    external_id: str = "pi_1",
    outcome: str = "SUCCEEDED",
    *,
    kind: str = "CHARGE",
    amount_minor: int = 1000,
    matches: bool = True,
    after_void: bool = False,
    minutes: int = 0,
    connection: str = "stripe",
    released: bool = False,
    charge: str = "pi_1",
) -> Fact:
    """`charge`: of a refund, the charge that it gives back."""
    return Fact(
        connection=connection,
        kind=kind,
        external_id=external_id,
        outcome=outcome,
        amount_minor=amount_minor,
        matches_checkout=matches and kind == "CHARGE",
        after_void=after_void,
        charge_external_id=charge if kind == "REFUND" else None,
        occurred_at=T0 + timedelta(minutes=minutes),
        released=released,
    )


def tender(external_id: str, amount_minor: int, **how: Any) -> Fact:
    """A charge whose checkout asked for 1000."""
    values: dict[str, Any] = {"matches_checkout": False, "checkout": "cs_1", "asked_minor": 1000}
    minutes = how.pop("minutes", 0)
    return replace(fact(external_id, amount_minor=amount_minor, minutes=minutes), **values | how)


def accepts(charge: Fact) -> Fact:
    return replace(charge, kind="ACCEPTANCE", charge_external_id=charge.external_id)


def waives(amount_minor: int) -> Fact:
    return fact("waived", kind="WAIVER", amount_minor=amount_minor)


def at(
    *facts: Fact, sent: bool = True, voided: bool = False, processing: bool = False, released: bool = False
) -> Standing:
    return standing(
        facts,
        amount_minor=1000,
        sent=sent,
        voided=voided,
        checkout_processing=processing,
        checkout_released=released,
    )


PENDING_RELEASED = fact(outcome="PENDING", released=True)


@pytest.mark.parametrize(
    ("facts", "processing", "released", "status", "payable"),
    [
        ([PENDING_RELEASED], False, True, Status.PROCESSING, True),
        ([], False, True, Status.PROCESSING, True),
        ([PENDING_RELEASED], True, True, Status.PROCESSING, False),  # another debit holds the link
        ([PENDING_RELEASED, fact("pi_2", "PENDING")], False, True, Status.PROCESSING, False),  # a card is in flight
        ([PENDING_RELEASED, fact("pi_2")], False, True, Status.PAID, False),
        ([PENDING_RELEASED, fact("pi_2", amount_minor=400)], False, True, Status.PROCESSING, True),
        ([PENDING_RELEASED, fact(outcome="FAILED")], False, False, Status.SENT, True),
        ([PENDING_RELEASED, fact()], False, False, Status.PAID, False),
    ],
)
def test_what_was_released_shows_as_processing_and_holds_no_link(
    facts: list[Fact], processing: bool, released: bool, status: Status, payable: bool
) -> None:
    got = at(*facts, processing=processing, released=released)
    assert (got.status, is_payable(got.status, released=got.released)) == (status, payable)
    assert not at(*facts, processing=processing, released=released, voided=True).released


def test_a_released_payment_that_arrives_second_is_excess() -> None:
    got = at(PENDING_RELEASED, fact(), fact("pi_2"))
    assert (got.status, got.excess_minor, got.released) == (Status.PAID, 1000, False)


@pytest.mark.parametrize(
    ("facts", "sent", "voided", "processing", "status"),
    [
        ([], False, False, False, Status.DRAFT),
        ([], True, False, False, Status.SENT),
        ([], True, True, False, Status.VOID),
        ([], False, True, False, Status.VOID),
        ([], True, False, True, Status.PROCESSING),
        ([fact(outcome="PENDING")], True, False, False, Status.PROCESSING),
        ([fact(outcome="FAILED")], True, False, False, Status.SENT),
        ([fact(outcome="FAILED")], False, False, False, Status.DRAFT),
        ([fact(outcome="CANCELED")], True, False, False, Status.SENT),
        ([fact()], True, False, False, Status.PAID),
        ([fact()], False, False, False, Status.PAID),
        ([fact(amount_minor=400)], True, False, False, Status.PARTIALLY_PAID),
        ([fact(amount_minor=400)], True, True, False, Status.VOID),
        ([fact(amount_minor=400), fact("pi_2", "PENDING")], True, False, False, Status.PROCESSING),
        ([fact("a", amount_minor=400), fact("b", amount_minor=600)], True, False, False, Status.PAID),
        ([fact(matches=False)], True, False, False, Status.SENT),
        ([fact(after_void=True)], True, True, False, Status.VOID),
        ([fact()], True, True, False, Status.PAID),
        ([fact(), fact("re_1", kind="REFUND")], True, False, False, Status.PAID),
        ([fact(), fact("dp_1", kind="DISPUTE")], True, False, False, Status.PAID),
    ],
)
def test_the_status_follows_from_the_facts(
    facts: list[Fact], sent: bool, voided: bool, processing: bool, status: Status
) -> None:
    assert at(*facts, sent=sent, voided=voided, processing=processing).status == status


def test_a_second_payment_is_excess_and_changes_no_status() -> None:
    got = at(fact("a"), fact("b"))
    assert (got.status, got.settled_minor, got.excess_minor, got.late_minor) == (Status.PAID, 2000, 1000, 0)


def test_money_after_void_is_late_and_the_request_stays_void() -> None:
    got = at(fact(after_void=True), voided=True)
    assert (got.status, got.settled_minor, got.late_minor, got.excess_minor) == (Status.VOID, 0, 1000, 0)


def test_equal_ids_of_two_connections_are_two_moneys() -> None:
    assert at(fact(connection="stripe"), fact(connection="other")).settled_minor == 2000


def test_a_refund_changes_the_facet_and_never_the_status() -> None:
    part = at(fact(), fact("re_1", kind="REFUND", amount_minor=300))
    full = at(fact(), fact("re_1", kind="REFUND", amount_minor=300), fact("re_2", kind="REFUND", amount_minor=700))
    assert (part.status, part.refund_state, part.refunded_minor) == (Status.PAID, "PARTIAL", 300)
    assert (full.status, full.refund_state, full.refunded_minor) == (Status.PAID, "FULL", 1000)


def test_a_refund_that_succeeded_can_still_fail() -> None:
    got = at(fact(), fact("re_1", kind="REFUND"), fact("re_1", "FAILED", kind="REFUND"))
    assert (got.refund_state, got.refunded_minor) == ("NONE", 0)


def test_refunds_of_a_charge_take_at_most_the_charge() -> None:
    refunds = [replace(fact(f"re_{n}", kind="REFUND", amount_minor=n), charge_external_id="pi_1") for n in (300, 1000)]
    got = at(fact(), fact("pi_2"), *refunds)
    assert (got.refunded_minor, got.refund_state, got.excess_minor) == (1000, "PARTIAL", 0)
    late = at(fact(), fact("pi_2", after_void=True, amount_minor=400), replace(refunds[1], charge_external_id="pi_2"))
    assert (late.refunded_minor, late.late_minor) == (400, 0)


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [([], "NONE"), (["PENDING"], "NEEDS_RESPONSE"), (["PENDING", "SUCCEEDED"], "LOST"), (["PENDING", "FAILED"], "WON")],
)
def test_the_dispute_facet(outcomes: list[str], state: str) -> None:
    facts = [fact(), *(fact("dp_1", outcome, kind="DISPUTE") for outcome in outcomes)]
    got = at(*facts)
    assert (got.status, got.dispute_state) == (Status.PAID, state)


def test_a_later_outcome_wins_by_rank_in_every_order() -> None:
    facts = [fact(outcome=outcome) for outcome in CHARGE_RANK]
    for order in itertools.permutations(facts):
        assert [money.outcome for money in final(order)] == ["SUCCEEDED"]


FACTS = st.builds(
    fact,
    external_id=st.sampled_from(["a", "b", "c"]),
    outcome=st.sampled_from(["PENDING", "FAILED", "SUCCEEDED"]),
    kind=st.sampled_from(["CHARGE", "REFUND"]),
    amount_minor=st.sampled_from([400, 1000]),
    matches=st.booleans(),
    charge=st.sampled_from(["a", "b", "c"]),
)


@given(st.lists(FACTS, max_size=8), st.randoms(use_true_random=False), st.booleans())
def test_order_and_repetition_cannot_matter(facts: list[Fact], random, sent: bool) -> None:  # type: ignore[no-untyped-def]
    # One money has one amount: the same id with another amount is not a repetition.
    seen: dict[tuple[str, str], Fact] = {}
    facts = [f for f in facts if seen.setdefault((f.kind, f.external_id), f).amount_minor == f.amount_minor]
    facts = [f for f in facts if seen[(f.kind, f.external_id)].matches_checkout == f.matches_checkout]
    facts = [f for f in facts if seen[(f.kind, f.external_id)].charge_key == f.charge_key]
    shuffled = [*facts, *facts]
    random.shuffle(shuffled)
    assert at(*facts, sent=sent) == at(*shuffled, sent=sent)


@given(st.lists(FACTS, max_size=6), FACTS)
def test_one_more_fact_never_takes_paid_back(facts: list[Fact], more: Fact) -> None:
    before, after = at(*facts), at(*facts, more)
    if before.status == Status.PAID and (more.kind, more.external_id) not in {(f.kind, f.external_id) for f in facts}:
        assert after.status == Status.PAID


@pytest.mark.parametrize(
    ("facts", "status", "settled", "unresolved"),
    [
        ([tender("a", 400)], Status.SENT, 0, {"": 400}),
        ([tender("a", 400), tender("b", 600)], Status.PAID, 1000, {}),
        ([tender("a", 400), tender("b", 600, checkout="cs_2")], Status.SENT, 0, {"": 1000}),
        ([tender("a", 400), tender("b", 600, asked_minor=None, currency="EUR")], Status.SENT, 0, {"": 400, "EUR": 600}),
        ([tender("a", 400), tender("b", 600, asked_minor=None, confirmed=False)], Status.SENT, 0, {"": 400}),
        ([tender("a", 400), tender("b", 500)], Status.SENT, 0, {"": 900}),
        ([tender("a", 400), tender("b", 600), tender("c", 300)], Status.PAID, 1000, {"": 300}),
        ([tender("a", 300), tender("b", 400), tender("c", 600)], Status.PAID, 1000, {"": 300}),
        ([tender("a", 250), tender("b", 250), tender("c", 500)], Status.PAID, 1000, {}),
        ([tender("a", 400, outcome="PENDING"), tender("b", 600)], Status.SENT, 0, {"": 600}),
        ([fact(), tender("a", 400), tender("b", 600)], Status.PAID, 2000, {}),
        ([tender("a", 400), accepts(tender("a", 400))], Status.PARTIALLY_PAID, 400, {}),
        ([tender("a", 400), accepts(tender("a", 400)), waives(600)], Status.PAID, 400, {}),
        ([tender("a", 400), accepts(tender("a", 400)), tender("b", 600)], Status.PAID, 1000, {}),
        ([tender("a", 1300), accepts(tender("a", 1300))], Status.PAID, 1300, {}),
        ([tender("a", 900, currency="EUR"), accepts(tender("a", 900)), waives(1000)], Status.PAID, 0, {}),
    ],
)
def test_sums_that_differ_count_if_they_add_up_or_are_accepted(
    facts: list[Fact], status: Status, settled: int, unresolved: dict[str, int]
) -> None:
    for order in itertools.permutations(facts):
        got = at(*order, *order)
        assert (got.status, got.settled_minor, got.unresolved) == (status, settled, unresolved)


def test_what_was_given_back_or_lost_of_money_that_does_not_count_is_not_unresolved() -> None:
    back = replace(fact("re_1", kind="REFUND", amount_minor=100), charge_external_id="a")
    lost = replace(fact("dp_1", kind="DISPUTE", amount_minor=400), charge_external_id="a")
    assert at(tender("a", 400), back).unresolved == {"": 300}
    assert at(tender("a", 400), back).refunded_minor == 0
    assert at(tender("a", 400), replace(back, outcome="PENDING")).unresolved == {"": 400}
    assert at(tender("a", 400), lost).unresolved == {}
    assert at(tender("a", 400), back, lost).unresolved == {}


def test_after_a_waiver_whatever_more_arrives_is_excess() -> None:
    got = at(tender("a", 400), accepts(tender("a", 400)), waives(600), fact("b"))
    assert (got.settled_minor, got.waived_minor, got.excess_minor) == (1400, 600, 1000)


def test_the_refund_facet_knows_accepted_money_of_another_currency() -> None:
    charge = tender("a", 900, currency="EUR")
    back = replace(fact("re_1", kind="REFUND", amount_minor=900), charge_external_id="a", currency="EUR")
    facts = [charge, accepts(charge), waives(1000)]
    assert at(*facts).refund_state == "NONE"
    assert (at(*facts, back).refund_state, at(*facts, back).refunded_minor) == ("FULL", 0)
    assert at(*facts, replace(back, amount_minor=100)).refund_state == "PARTIAL"


TENDERS = st.builds(
    tender,
    external_id=st.sampled_from("abcdef"),
    amount_minor=st.sampled_from([100, 300, 400, 600, 700, 1300]),
    outcome=st.sampled_from(["PENDING", "SUCCEEDED", "SUCCEEDED"]),
    checkout=st.sampled_from(["cs_1", "cs_2"]),
    minutes=st.integers(0, 5),
)


@given(st.lists(TENDERS, max_size=9), st.sets(st.sampled_from("abcdef")), st.randoms(use_true_random=False))
def test_splits_are_the_same_in_every_order_and_no_money_is_lost(
    tenders: list[Fact], accepted: set[str], random: Random
) -> None:
    seen: dict[str, Fact] = {}
    facts = [replace(seen.setdefault(one.external_id, one), outcome=one.outcome) for one in tenders]
    facts += [accepts(one) for one in seen.values() if one.external_id in accepted]
    shuffled = [*facts, *facts]
    random.shuffle(shuffled)
    got = at(*facts)
    assert at(*shuffled) == got
    received = sum(one.amount_minor for one in final(facts) if one.kind == "CHARGE" and one.outcome == "SUCCEEDED")
    assert got.settled_minor + sum(got.unresolved.values()) == received
    for checkout in ("cs_1", "cs_2"):
        here = [m for m in final(facts) if m.kind == "CHARGE" and m.checkout == checkout and m.outcome == "SUCCEEDED"]
        sums = {sum(m.amount_minor for m in some) for n in range(7) for some in itertools.combinations(here, n)}
        counted = sum(m.amount_minor for m in here if m.key in counting(final(facts)).parts)
        assert counted == (1000 if 1000 in sums else 0)


@given(st.lists(TENDERS, max_size=7), TENDERS)
def test_one_more_tender_never_takes_paid_back(tenders: list[Fact], more: Fact) -> None:
    seen: dict[str, Fact] = {}
    facts = [replace(seen.setdefault(one.external_id, one), outcome=one.outcome) for one in tenders]
    if more.external_id not in seen and at(*facts).status == Status.PAID:
        assert at(*facts, more).status == Status.PAID
