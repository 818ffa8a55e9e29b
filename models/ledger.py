"""Derives a request's status and totals from its facts, whatever their order."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final


class Status(StrEnum):
    DRAFT = "DRAFT"
    SENT = "SENT"
    PROCESSING = "PROCESSING"
    PARTIALLY_PAID = "PARTIALLY_PAID"
    PAID = "PAID"
    VOID = "VOID"


class Facet(StrEnum):
    """What of a request a change affects."""

    STATUS = "STATUS"
    PAYMENTS = "PAYMENTS"
    MISMATCH = "MISMATCH"
    REFUNDS = "REFUNDS"
    DISPUTES = "DISPUTES"
    ATTEMPT = "ATTEMPT"
    LINK = "LINK"
    DELIVERY = "DELIVERY"
    VIEWS = "VIEWS"
    OVERDUE = "OVERDUE"
    VOID = "VOID"
    DISCARDED = "DISCARDED"


class CardKind(StrEnum):
    PAYMENT_REQUEST = "PAYMENT_REQUEST"
    PAYMENT_RECEIVED = "PAYMENT_RECEIVED"
    PARTIAL_PAYMENT = "PARTIAL_PAYMENT"
    PAYMENT_PROCESSING = "PAYMENT_PROCESSING"
    PAYMENT_FAILED = "PAYMENT_FAILED"
    PAYMENT_MISMATCH = "PAYMENT_MISMATCH"
    REQUEST_VOIDED = "REQUEST_VOIDED"
    REFUND_ISSUED = "REFUND_ISSUED"
    REFUND_FAILED = "REFUND_FAILED"
    DISPUTE_OPENED = "DISPUTE_OPENED"
    DISPUTE_CLOSED = "DISPUTE_CLOSED"
    LATE_PAYMENT = "LATE_PAYMENT"
    EXCESS_PAYMENT = "EXCESS_PAYMENT"
    DELIVERY_FAILED = "DELIVERY_FAILED"
    RECORDED_OUTSIDE = "RECORDED_OUTSIDE"
    CHECKOUT_REFUSED = "CHECKOUT_REFUSED"
    PROCESSOR_DISCONNECTED = "PROCESSOR_DISCONNECTED"  # of notifications only


# The checkout page offers to pay; see `is_payable` for PROCESSING.
PAYABLE: Final = frozenset({Status.DRAFT, Status.SENT, Status.PARTIALLY_PAID})
# The contact was asked, and part of the money has not arrived. In SQL in the order of the indexes' conditions.
OUTSTANDING: Final = (Status.SENT, Status.PROCESSING, Status.PARTIALLY_PAID)
OUTSTANDING_SQL: Final = f"status IN {tuple(status.value for status in OUTSTANDING)}"

# No two outcomes of a kind share a rank: the order of arrival would decide between them.
CHARGE_RANK = {"PENDING": 0, "CANCELED": 1, "FAILED": 2, "SUCCEEDED": 3}
REFUND_RANK = {"PENDING": 0, "SUCCEEDED": 1, "CANCELED": 2, "FAILED": 3}  # a succeeded refund can still fail
# Among outcomes of one time. SUCCEEDED: lost; CANCELED, FAILED: won.
DISPUTE_RANK = {"PENDING": 0, "CANCELED": 1, "FAILED": 2, "SUCCEEDED": 3}
RANKS = {"CHARGE": CHARGE_RANK, "REFUND": REFUND_RANK, "DISPUTE": DISPUTE_RANK}
MANUAL_RANK = {
    "SUCCEEDED": 0,
    "CANCELED": 1,
}  # people can undo manual records, not processors' reports


KINDS: Final = frozenset({*RANKS, "ACCEPTANCE", "WAIVER"})  # of facts that decide about a request
MOST_SUMS: Final = 4096  # sums of one checkout's tenders to compare: any twelve tenders, or many alike

_NO_TIME = datetime.min.replace(tzinfo=UTC)


def rank_of(kind: str, outcome: str, occurred_at: datetime, *, is_manual: bool) -> tuple[datetime, int]:
    """The highest-ranked outcome of a payment applies. `is_manual`: recorded by a person."""
    ranks = MANUAL_RANK if is_manual and kind == "CHARGE" else RANKS.get(kind, {})
    return occurred_at if kind == "DISPUTE" else _NO_TIME, ranks.get(outcome, 0)


def dispute_state(outcome: str) -> str:
    return {"PENDING": "NEEDS_RESPONSE", "SUCCEEDED": "LOST"}.get(outcome, "WON")


PaymentKey = tuple[object, str]  # connection and external id


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    connection: object  # equal ids of two connections are two payments; None: recorded manually
    kind: str
    external_id: str
    outcome: str
    amount_minor: int
    matches_checkout: bool  # of a charge: amount and currency are those of its checkout, or a person recorded it
    after_void: bool
    occurred_at: datetime
    charge_external_id: str | None = None  # of a refund or dispute: its charge; of an acceptance: the accepted charge
    reversal: bool = False  # of a refund: the vendor itself took the money back
    released: bool = False  # its checkout was released: while it is PENDING, the link can be paid another way
    currency: str = ""
    checkout: object = None  # the one a charge was paid on; None: unknown
    # Of a charge: what its checkout asked for in this currency; None: it is no tender.
    asked_minor: int | None = None
    confirmed: bool = True  # of a charge: False if its processor could not be asked

    @property
    def key(self) -> PaymentKey:
        return self.connection, self.external_id

    @property
    def charge_key(self) -> tuple[object, str | None]:
        return self.connection, self.charge_external_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """In minor units of the request's currency."""

    status: Status
    settled_minor: int  # counted charges that succeeded before VOID
    waived_minor: int  # what the team gives up
    refunded_minor: int
    excess_minor: int  # settled beyond what is asked and not waived, less refunds
    late_minor: int  # succeeded after VOID, less its refunds
    refund_state: str  # NONE, PARTIAL, FULL
    dispute_state: str  # NONE, NEEDS_RESPONSE, WON, LOST
    released: bool  # PROCESSING, but everything under way was released: it can be paid another way
    unresolved: dict[str, int]  # by currency: money that arrived and does not count, less what was given back


def is_payable(status: str, *, released: bool) -> bool:
    return status in PAYABLE or (status == Status.PROCESSING and released)


def won_at(disputes: Iterable[tuple[Hashable, str, datetime]]) -> dict[Hashable, datetime]:
    """When each charge's newest dispute was won; earlier reversals are void. `disputes`: (charge, outcome, time)."""
    newest: dict[Hashable, tuple[datetime, int, str]] = {}
    for charge, outcome, at in disputes:
        newest[charge] = max(newest.get(charge, (_NO_TIME, -1, "")), (at, DISPUTE_RANK[outcome], outcome))
    return {charge: at for charge, (at, _, outcome) in newest.items() if outcome in ("FAILED", "CANCELED")}


def final(facts: Iterable[Fact]) -> list[Fact]:
    """The highest-ranked fact of each payment."""
    best: dict[tuple[object, str, str], Fact] = {}
    for fact in facts:
        key = (fact.connection, fact.kind, fact.external_id)
        if key not in best or _rank(fact) > _rank(best[key]):
            best[key] = fact
    return list(best.values())


def _rank(fact: Fact) -> tuple[datetime, int]:
    return rank_of(fact.kind, fact.outcome, fact.occurred_at, is_manual=fact.connection is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting:
    charges: frozenset[PaymentKey]
    parts: frozenset[PaymentKey]  # those that count as tenders


def counting(payments: Sequence[Fact]) -> Counting:
    """Charges that match their checkout, add up to it, or were accepted. Later facts never revoke it."""
    charges = [m for m in payments if m.kind == "CHARGE"]
    exact = {m.key for m in charges if m.matches_checkout}
    split: dict[object, list[Fact]] = {}
    for charge in charges:
        is_part = charge.outcome == "SUCCEEDED" and not charge.matches_checkout and charge.asked_minor
        if is_part and charge.checkout is not None:
            split.setdefault(charge.checkout, []).append(charge)
    parts = {part.key for tenders in split.values() for part in _tenders_that_add_up(tenders)}
    named = {m.charge_key for m in payments if m.kind == "ACCEPTANCE"}
    accepted = {m.key for m in charges if m.key in named}
    return Counting(charges=frozenset(exact | parts | accepted), parts=frozenset(parts))


def _tenders_that_add_up(tenders: list[Fact]) -> tuple[Fact, ...]:
    asked = tenders[0].asked_minor
    sums: dict[int, tuple[Fact, ...]] = {0: ()}
    for tender in sorted(tenders, key=lambda m: (m.occurred_at, m.external_id)):
        for total, parts in list(sums.items()):
            if len(sums) < MOST_SUMS:
                sums.setdefault(total + tender.amount_minor, (*parts, tender))
        if asked in sums:
            return sums[asked]
    return ()


def _effective_refunds(payments: Sequence[Fact]) -> list[Fact]:
    won = won_at((m.charge_key, m.outcome, m.occurred_at) for m in payments if m.kind == "DISPUTE")
    return [
        m
        for m in payments
        if m.kind == "REFUND"
        and m.outcome == "SUCCEEDED"
        and not (m.reversal and m.occurred_at <= won.get(m.charge_key, _NO_TIME))
    ]


def unresolved(payments: Sequence[Fact], counted: frozenset[PaymentKey]) -> dict[PaymentKey, int]:
    """What is left of each charge that does not count."""
    left = {
        m.key: m.amount_minor
        for m in payments
        if m.kind == "CHARGE" and m.outcome == "SUCCEEDED" and m.confirmed and m.key not in counted
    }
    lost = [m for m in payments if m.kind == "DISPUTE" and m.outcome == "SUCCEEDED"]
    for m in [*_effective_refunds(payments), *lost]:
        if m.charge_external_id is not None and (charge := (m.connection, m.charge_external_id)) in left:
            left[charge] -= m.amount_minor
    return {charge: rest for charge, rest in left.items() if rest > 0}


def standing(
    facts: Iterable[Fact],
    *,
    amount_minor: int,
    sent: bool,
    voided: bool,
    checkout_processing: bool,
    checkout_released: bool = False,
    currency: str = "",
) -> Standing:
    """Derive status and totals. `checkout_processing`: a submitted checkout holds the link; `checkout_released`: one was released."""
    payments = final(facts)
    counted = counting(payments).charges
    charges = [m for m in payments if m.kind == "CHARGE" and m.key in counted]
    arrived = [m for m in charges if m.outcome == "SUCCEEDED"]
    succeeded = [m for m in arrived if m.currency == currency]
    settled = sum(m.amount_minor for m in succeeded if not m.after_void)
    late = sum(m.amount_minor for m in succeeded if m.after_void)
    # A refund belongs to counted money only if its charge does.
    refunds = [m for m in _effective_refunds(payments) if m.charge_key in counted]
    refunded_by_charge = _refunded_by_charge([m for m in refunds if m.currency == currency], succeeded)
    refunded = sum(refunded_by_charge.values())
    of_late = sum(refunded_by_charge.get(m.key, 0) for m in succeeded if m.after_void)
    received = settled + late
    under_way = [m for m in charges if m.outcome == "PENDING"]
    holding = checkout_processing or any(not m.released for m in under_way)
    pending = holding or checkout_released or bool(under_way)
    waived = sum(m.amount_minor for m in payments if m.kind == "WAIVER")
    status = _status(settled, amount_minor - waived, sent=sent, voided=voided, pending=pending)
    over = max(0, settled + waived - amount_minor)
    other_currency = [m for m in arrived if m.currency != currency]
    other_currency_back = _refunded_by_charge([m for m in refunds if m.currency != currency], other_currency)
    all_back = refunded >= received and all(other_currency_back.get(m.key, 0) >= m.amount_minor for m in other_currency)
    return Standing(
        status=status,
        settled_minor=settled,
        waived_minor=waived,
        refunded_minor=refunded,
        excess_minor=max(0, over - (refunded - of_late)),
        late_minor=max(0, late - of_late),
        refund_state="NONE" if not refunded and not other_currency_back else "FULL" if all_back else "PARTIAL",
        dispute_state=_dispute_state(payments),
        released=status == Status.PROCESSING and not holding,
        unresolved=_unresolved_by_currency(payments, counted),
    )


def _unresolved_by_currency(payments: Sequence[Fact], counted: frozenset[PaymentKey]) -> dict[str, int]:
    currencies = {m.key: m.currency for m in payments if m.kind == "CHARGE"}
    sums: dict[str, int] = {}
    for charge, rest in unresolved(payments, counted).items():
        sums[currencies[charge]] = sums.get(currencies[charge], 0) + rest
    return dict(sorted(sums.items()))


def _refunded_by_charge(refunds: list[Fact], charges: list[Fact]) -> dict[tuple[object, str | None], int]:
    # At most the charge: some processors report one loss as refund and reversal.
    amounts: dict[tuple[object, str | None], int] = {m.key: m.amount_minor for m in charges}
    back: dict[tuple[object, str | None], int] = {}
    for refund in refunds:
        back[refund.charge_key] = back.get(refund.charge_key, 0) + refund.amount_minor
    return {charge: min(amount, amounts.get(charge, amount)) for charge, amount in back.items()}


def _status(settled: int, amount: int, *, sent: bool, voided: bool, pending: bool) -> Status:
    if settled >= amount:
        return Status.PAID  # a payment before the void wins
    if voided:
        return Status.VOID
    if pending:
        return Status.PROCESSING
    if settled:
        return Status.PARTIALLY_PAID
    return Status.SENT if sent else Status.DRAFT


def _dispute_state(payments: list[Fact]) -> str:
    disputes = [m for m in payments if m.kind == "DISPUTE"]
    if not disputes:
        return "NONE"
    newest = max(disputes, key=lambda m: (m.occurred_at, m.external_id))
    return dispute_state(newest.outcome)
