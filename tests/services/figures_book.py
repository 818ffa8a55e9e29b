"""The figures of an account, added up again in plain Python from its requests and facts: what every stored and shown total must equal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from models.tables import Contact, ContactSummary, MoneyFact, PaymentRequest
from services.payments import dashboard
from services.payments.dashboard import Board, Period
from tests import factories

Key = tuple[str, bool]  # currency, test mode
OPEN = ("SENT", "PROCESSING", "PARTIALLY_PAID")


async def shown_figures(account_id: UUID, range: str, now: datetime) -> Sequence[dashboard.CurrencyFigures]:
    """The dashboard's figures without groups."""
    found = await dashboard.figures(account_id, Board(Period(range)), now)
    return found.by_currency


async def book(account_id: UUID, contact_id: UUID | None = None) -> dict[Key, dict[str, int]]:
    """What was asked and paid, of one contact or of all."""
    of: dict[str, Any] = {"account_id": account_id} | ({"contact_id": contact_id} if contact_id else {})
    totals: dict[Key, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for request in await PaymentRequest.filter(discarded_at=None, **of):
        entry = totals[request.currency, request.test_mode]
        if request.status not in ("DRAFT", "VOID"):
            entry["requested"] += request.amount_minor
            entry["sent_count"] += 1
        if request.status in OPEN:
            entry["open_count"] += 1
            entry["outstanding"] += max(0, request.amount_minor - request.amount_paid_minor - request.waived_minor)
        entry["paid_count"] += request.status == "PAID"
    moneys: dict[tuple[Any, str, str], list[MoneyFact]] = defaultdict(list)
    for fact in await MoneyFact.filter(**of):
        moneys[fact.processor_connection_id, fact.kind, fact.external_id].append(fact)
    lost: dict[tuple[Any, Any], int] = defaultdict(int)
    charges: dict[tuple[Any, Any], MoneyFact] = {}
    refunds: dict[tuple[Any, Any], list[MoneyFact]] = defaultdict(list)
    for (connection, kind, external_id), facts in moneys.items():
        said = {fact.outcome for fact in facts}
        entry = totals[facts[0].currency, facts[0].test_mode]
        arrived = [fact for fact in facts if fact.outcome == "SUCCEEDED"]
        entry["fees"] += sum(fact.fee_minor or 0 for fact in arrived if kind in ("CHARGE", "ADJUSTMENT"))
        if not arrived or (connection is None and "CANCELED" in said):
            continue
        if kind == "CHARGE":
            entry["paid"] += arrived[0].amount_minor
            charges[connection, external_id] = arrived[0]
        elif kind == "REFUND" and not said & {"FAILED", "CANCELED"}:
            refunds[connection, arrived[0].charge_external_id].append(arrived[0])
        elif kind == "DISPUTE":
            lost[connection, arrived[0].charge_external_id] += arrived[0].amount_minor
            refunds[connection, arrived[0].charge_external_id] += []
    for charge, given in refunds.items():
        if charge not in charges:
            continue
        whole = charges[charge]
        entry = totals[whole.currency, whole.test_mode]
        back = min(whole.amount_minor, sum(fact.amount_minor for fact in given))
        entry["refunded"] += back
        entry["lost"] += min(lost[charge], whole.amount_minor - back)
    for entry in totals.values():
        entry["net"] = entry["paid"] - entry["refunded"] - entry["lost"] - entry["fees"]
    return totals


async def assert_figures(account_id: UUID) -> None:
    """Contacts' totals are the book's, and the dashboard of all time is their sum, per currency and mode."""
    shared = ("requested", "outstanding", "paid", "refunded", "net")
    sums: dict[Key, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for contact in await Contact.filter(account_id=account_id):
        expected = await book(account_id, contact.id)
        rows = {(row.currency, row.test_mode): row for row in await ContactSummary.filter(contact_id=contact.id)}
        for key in expected.keys() | rows.keys():
            stored = {name: getattr(rows[key], f"{name}_minor") if key in rows else 0 for name in shared}
            stored |= {name: getattr(rows[key], name) if key in rows else 0 for name in ("open_count", "paid_count")}
            assert stored == {name: expected[key][name] for name in stored}, key
            for name, value in stored.items():
                sums[key][name] += value
    whole = await book(account_id)
    shown = await shown_figures(account_id, "ALL_TIME", factories.now())
    (mode,) = {row.test_mode for row in shown} or {True}
    assert {row.currency: figures(row) for row in shown} == {
        currency: (
            *(total[name] for name in ("requested", "outstanding", "paid", "paid_count")),
            whole[currency, mode]["sent_count"],
        )
        for (currency, test_mode), total in sums.items()
        if test_mode == mode and (any(total.values()))
    }


def figures(row: dashboard.CurrencyFigures) -> tuple[int, ...]:
    """What the dashboard shares with the contacts' totals, and how many were sent."""
    return (row.requested_minor, row.outstanding_minor, row.paid_minor, row.paid_count, row.requests_sent)
