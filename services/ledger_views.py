"""Payments as the API shows them: one per money, in its highest-ranking outcome, over the append-only facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from models import ledger
from models.tables import MoneyFact


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentView:
    """One movement of money. `id` is its first fact's. Amounts in minor units."""

    id: UUID
    payment_request_id: UUID
    kind: str
    status: str
    amount_minor: int
    currency: str
    fee_minor: int | None
    processor: str | None
    processor_reference: str
    method_summary: str | None
    failure_message: str | None
    counted: bool
    test_mode: bool
    occurred_at: datetime


async def payments(account_id: UUID, request_ids: Sequence[UUID]) -> dict[UUID, list[PaymentView]]:
    """The payments of each request, oldest first, in one query. Every id asked for has an entry."""
    found: dict[UUID, list[PaymentView]] = {request_id: [] for request_id in request_ids}
    moneys: dict[tuple[object, str, str], list[MoneyFact]] = {}
    for fact in await MoneyFact.filter(account_id=account_id, payment_request_id__in=list(request_ids)).order_by("id"):
        moneys.setdefault(_money(fact), []).append(fact)
    for facts in moneys.values():
        view = _view(facts)
        found[view.payment_request_id].append(view)
    return found


async def by_facts(account_id: UUID, fact_ids: Sequence[UUID]) -> dict[UUID, PaymentView]:
    """The payment that each fact belongs to (a card points at the fact that it was logged for)."""
    facts = await MoneyFact.filter(account_id=account_id, id__in=list(fact_ids))
    requests = {fact.payment_request_id for fact in facts}
    views = await payments(account_id, list(requests))
    by_money = {
        (view.payment_request_id, view.kind, view.processor_reference): view
        for request in views.values()
        for view in request
    }
    return {fact.id: by_money[(fact.payment_request_id, *_money(fact)[1:])] for fact in facts}


def _money(fact: MoneyFact) -> tuple[object, str, str]:
    """Which money a fact speaks of. A charge's adjustment says its fee or method, which were told later."""
    of_charge = fact.kind == "ADJUSTMENT" and fact.charge_external_id == fact.external_id
    return fact.processor_connection_id, "CHARGE" if of_charge else fact.kind, fact.external_id


def _view(facts: list[MoneyFact]) -> PaymentView:
    first = facts[0]
    rank = ledger.RANKS.get(first.kind, {})
    best = max((fact for fact in facts if fact.kind == first.kind), key=lambda fact: rank.get(fact.outcome, 0))
    return PaymentView(
        id=first.id,
        payment_request_id=first.payment_request_id,
        kind=first.kind,
        status=best.outcome,
        amount_minor=best.amount_minor,
        currency=best.currency,
        fee_minor=next((f.fee_minor for f in reversed(facts) if f.fee_minor is not None), None),
        processor=best.processor,
        processor_reference=best.external_id,
        method_summary=next((f.method_summary for f in reversed(facts) if f.method_summary), None),
        failure_message=best.failure_message if best.outcome in ("FAILED", "CANCELED") else None,
        counted=best.counted,
        test_mode=best.test_mode,
        occurred_at=first.occurred_at,
    )
