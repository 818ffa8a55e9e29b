"""Payments as the API shows them, derived from the append-only facts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from models import database, ledger, rows
from models.tables import MoneyFact
from services.core import actors
from services.core.actors import ActorRef


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentView:
    """One movement of money; its `id` is its first fact's."""

    id: UUID
    payment_request_id: UUID
    contact_id: UUID  # as stored, perhaps before a merge
    connection_id: UUID | None  # None: recorded manually
    kind: str
    status: str
    amount_minor: int
    currency: str
    fee_minor: int | None
    processor: str | None
    processor_reference: str
    charge_reference: str | None  # of a refund or dispute: the charge that it concerns
    method_summary: str | None
    failure_message: str | None
    counted: bool  # for its request, as ledger.counting decides; not the column of the same name
    unresolved_minor: int  # of a charge: the part that awaits the team's decision
    checkout_session_id: UUID | None
    test_mode: bool
    occurred_at: datetime
    last_at: datetime  # when it reached its status
    response_due_at: datetime | None  # of a dispute that is not decided
    dispute_reason: str | None  # as the processor names it
    reversal: bool  # of a refund: the vendor itself took the money back
    inquiry: bool  # of a dispute: so far the bank only asks and has taken nothing
    note: str | None
    recorded_by: ActorRef | None  # None: a processor reported it


async def payments(account_id: UUID, request_ids: Sequence[UUID]) -> dict[UUID, list[PaymentView]]:
    """The payments of each request, oldest first; every requested id has an entry."""
    found: dict[UUID, list[PaymentView]] = {request_id: [] for request_id in request_ids}
    if not found:
        return found
    facts_of: dict[UUID, list[MoneyFact]] = {}
    for fact in await rows.find(
        MoneyFact,
        f"WHERE account_id = ? AND payment_request_id IN ({database.placeholders(len(request_ids))}) ORDER BY id",
        account_id,
        *request_ids,
    ):
        facts_of.setdefault(fact.payment_request_id, []).append(fact)
    for request_id, facts in facts_of.items():
        found[request_id] = views_of(facts)
    return found


def _end_reversals(views: list[PaymentView]) -> list[PaymentView]:
    # A reversal ends once the newest dispute about its charge is won.
    disputes = [view for view in views if view.kind == "DISPUTE"]
    won = ledger.won_at(((view.connection_id, view.charge_reference), view.status, view.last_at) for view in disputes)
    return [
        replace(view, status="CANCELED", last_at=won[charge])
        if view.reversal
        and view.status == "SUCCEEDED"
        and (charge := (view.connection_id, view.charge_reference)) in won
        and view.last_at <= won[charge]
        else view
        for view in views
    ]


def views_of(facts: Sequence[MoneyFact]) -> list[PaymentView]:
    by_payment: dict[tuple[object, str, str], list[MoneyFact]] = {}
    for fact in facts:
        if fact.kind != "WAIVER":  # no money has moved
            by_payment.setdefault(_payment_key(fact), []).append(fact)
    final = ledger.final(as_ledger(facts))
    counted = ledger.counting(final).charges
    unresolved = ledger.unresolved(final, counted)
    return _end_reversals([_view(facts, counted, unresolved) for facts in by_payment.values()])


def as_ledger(facts: Iterable[MoneyFact], *, released: Collection[UUID] = ()) -> list[ledger.Fact]:
    """Convert facts for the ledger's rules; `released`: ids of checkouts that no longer hold the link."""
    return [
        ledger.Fact(
            connection=fact.processor_connection_id,
            kind=fact.kind,
            external_id=fact.external_id,
            outcome=fact.outcome,
            amount_minor=fact.amount_minor,
            matches_checkout=fact.counted and fact.kind == "CHARGE",
            after_void=fact.after_void,
            occurred_at=fact.occurred_at,
            charge_external_id=fact.charge_external_id,
            reversal=fact.reversal,
            released=fact.checkout_session_id in released,
            currency=fact.currency,
            checkout=fact.checkout_session_id,
            asked_minor=fact.asked_minor,
            confirmed=fact.confirmed,
        )
        for fact in facts
        if fact.kind in ledger.KINDS
    ]


async def by_facts(account_id: UUID, fact_ids: Sequence[UUID]) -> dict[UUID, PaymentView]:
    """The payment that each fact belongs to."""
    facts = await rows.find(
        MoneyFact,
        f"WHERE {database.OF_ACCOUNT} AND id IN ({database.placeholders(len(fact_ids))})",
        account_id,
        *fact_ids,
    )
    requests = {fact.payment_request_id for fact in facts}
    views = await payments(account_id, list(requests))
    view_of = {
        (view.payment_request_id, view.kind, view.processor_reference): view
        for request in views.values()
        for view in request
    }
    keys = {fact.id: (fact.payment_request_id, *_payment_key(fact)[1:]) for fact in facts}
    return {id: view_of[key] for id, key in keys.items() if key in view_of}  # a waiver belongs to none


def rank(fact: MoneyFact) -> tuple[datetime, int]:
    """A fact's rank among those of the same money."""
    return ledger.rank_of(fact.kind, fact.outcome, fact.occurred_at, is_manual=fact.processor_connection_id is None)


def refundable(views: Sequence[PaymentView]) -> dict[UUID, int]:
    """What is still refundable of each charge, by payment id, in minor units above 0."""
    left = {
        (view.connection_id, view.processor_reference): (view.id, view.amount_minor)
        for view in views
        if view.kind == "CHARGE" and view.status == "SUCCEEDED" and view.connection_id is not None
    }
    for view in views:
        charge = (view.connection_id, view.charge_reference or "")
        # An inquiry takes nothing; a refund may end it.
        taken = view.kind in ("REFUND", "DISPUTE") and view.status in ("PENDING", "SUCCEEDED") and not view.inquiry
        if taken and charge in left:
            payment_id, rest = left[charge]
            left[charge] = (payment_id, rest - view.amount_minor)
    return {payment_id: rest for payment_id, rest in left.values() if rest > 0}


def charge_of(view: PaymentView, views: Sequence[PaymentView]) -> PaymentView | None:
    """The charge that a refund or dispute concerns, if known."""
    charges = (other for other in views if other.kind == "CHARGE" and other.connection_id == view.connection_id)
    return next((charge for charge in charges if charge.processor_reference == view.charge_reference), None)


def _payment_key(fact: MoneyFact) -> tuple[object, str, str]:
    kind = "CHARGE" if fact.kind == "ACCEPTANCE" else fact.kind
    if kind == "ADJUSTMENT":  # later details of a charge or a dispute
        kind = "CHARGE" if fact.charge_external_id == fact.external_id else "DISPUTE"
    return fact.processor_connection_id, kind, fact.external_id


def _view(
    facts: list[MoneyFact], counted: frozenset[ledger.PaymentKey], unresolved: dict[ledger.PaymentKey, int]
) -> PaymentView:
    first = facts[0]
    money = (first.processor_connection_id, first.external_id)
    charge = (first.processor_connection_id, next((f.charge_external_id for f in facts if f.charge_external_id), None))
    best = max((fact for fact in facts if fact.kind == first.kind), key=rank)
    return PaymentView(
        id=first.id,
        payment_request_id=first.payment_request_id,
        contact_id=first.contact_id,
        connection_id=first.processor_connection_id,
        kind=first.kind,
        status=best.outcome,
        amount_minor=best.amount_minor,
        currency=best.currency,
        fee_minor=next((f.fee_minor for f in reversed(facts) if f.fee_minor is not None), None),
        processor=best.processor,
        processor_reference=best.external_id,
        charge_reference=charge[1],
        method_summary=next((f.method_summary for f in reversed(facts) if f.method_summary), None),
        failure_message=best.failure_message if best.outcome in ("FAILED", "CANCELED") else None,
        # A refund and a dispute count if their charge does.
        counted=(money if first.kind == "CHARGE" else charge) in counted,
        unresolved_minor=unresolved.get(money, 0) if first.kind == "CHARGE" else 0,
        checkout_session_id=next((f.checkout_session_id for f in facts if f.checkout_session_id), None),
        test_mode=best.test_mode,
        occurred_at=min(fact.occurred_at for fact in facts if fact.kind == first.kind),
        last_at=best.occurred_at,
        response_due_at=_due_at(facts) if best.outcome == "PENDING" else None,
        dispute_reason=next((f.dispute_reason for f in reversed(facts) if f.dispute_reason), None),
        reversal=any(f.reversal for f in facts),
        inquiry=best.outcome == "PENDING" and all(f.inquiry for f in facts),
        note=first.note,
        recorded_by=actors.of_record(first.recorded_by, first.recorded_by_id, first.processor_connection_id),
    )


def _due_at(facts: list[MoneyFact]) -> datetime | None:
    closed = [fact for fact in facts if fact.kind == "DISPUTE" and fact.outcome != "PENDING"]
    since = max((rank(fact) for fact in closed), default=None)
    dated = [fact for fact in facts if fact.response_due_at and (since is None or fact.occurred_at > since[0])]
    latest = max(dated, key=lambda fact: (fact.occurred_at, fact.id), default=None)
    return latest.response_due_at if latest else None
