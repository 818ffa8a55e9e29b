"""The counts give the figures that all requests and facts add up to, whatever happened and however often they were folded."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from models import database as db
from models.tables import Account, MoneyFact, PaymentRequest
from services.payments import dashboard, figure_counts, figure_facts, integrity_check
from tests import factories

NOW = datetime.now(UTC)
ZONES = ("UTC", "Asia/Kathmandu", "Australia/Eucla", "America/St_Johns", "Pacific/Kiritimati", "America/Los_Angeles")
STATUSES = ("DRAFT", "SENT", "PROCESSING", "PARTIALLY_PAID", "PAID", "PAID", "VOID")


async def compare(account: Account) -> int:
    compared = 0
    for zone in ZONES:
        for name in dashboard.RANGES:
            since = dashboard.start_of(name, zone, NOW)
            for test_mode in (False, True):
                summed = await figure_facts.read(account.id, test_mode, since)
                assert await figure_counts.read(account.id, test_mode, since) == summed, (zone, name)
                compared += len(summed)
    return compared


def drawn(rng: random.Random) -> dict[str, Any]:
    """A request's columns that figures depend on."""
    status = rng.choice(STATUSES)
    # Often near the start of a range in some zone.
    sent = NOW - timedelta(
        days=rng.choice((0, 1, 6, 7, 29, 30, 31, 60)), minutes=rng.randrange(1500), microseconds=rng.randrange(9)
    )
    took = timedelta(seconds=rng.choice((0, 1, 99, 100, 101, rng.randrange(10**6))), microseconds=rng.randrange(9))
    amount = rng.randrange(1, 9999)
    return {
        "status": status,
        "amount_minor": amount,
        "amount_paid_minor": rng.randrange(amount + 9) if status != "DRAFT" else 0,
        "waived_minor": rng.choice((0, 0, 5)),
        "sent_at": None if status == "DRAFT" or rng.random() < 0.1 else sent,
        "paid_at": sent + rng.choice((took, took, -took)) if status == "PAID" else None,
        "discarded_at": NOW if status == "DRAFT" and rng.random() < 0.3 else None,
        "created_at": sent - timedelta(minutes=5),
    }


async def charge(request: PaymentRequest, rng: random.Random) -> None:
    at = NOW - timedelta(days=rng.randrange(40), minutes=rng.randrange(1500))
    given: dict[str, Any] = {"currency": request.currency, "test_mode": request.test_mode, "occurred_at": at}
    if rng.random() < 0.4:  # recorded by the team, and perhaps undone
        given |= {"processor_connection_id": None, "processor": None, "source": "manual"}
    outcomes = rng.choice(
        (["SUCCEEDED"], ["PENDING", "SUCCEEDED"], ["SUCCEEDED", "CANCELED"], ["CANCELED", "SUCCEEDED"], ["FAILED"])
    )
    name, amount = f"ch_{rng.random()}", rng.randrange(9999)
    for outcome in outcomes:
        await factories.money_fact(request, external_id=name, amount_minor=amount, outcome=outcome, **given)


@pytest.mark.usefixtures("database")
async def test_counts_equal_the_sums_after_random_histories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figure_counts, "BATCH", 7)
    monkeypatch.setattr(figure_counts, "ROWS", 4)
    compared = 0
    for seed in range(3):
        rng = random.Random(seed)
        account, other = await factories.account(), await factories.account()
        contacts = [await factories.contact(account), await factories.contact(other)]
        requests: list[PaymentRequest] = []
        for step in range(60):
            if not requests or rng.random() < 0.5:
                currency, test_mode = rng.choice(("USD", "USD", "EUR")), rng.random() < 0.7
                given = drawn(rng) | {"currency": currency, "test_mode": test_mode}
                requests.append(await factories.payment_request(rng.choice(contacts), **given))
            elif rng.random() < 0.5:
                await PaymentRequest.filter(id=rng.choice(requests).id).update(**drawn(rng))
            else:
                await charge(rng.choice(requests), rng)
            if rng.random() < 0.2:
                await figure_counts.fold(NOW)
            if step % 20 == 19:
                compared += await compare(account)
        while await figure_counts.fold(NOW):
            pass
        compared += await compare(account) + await compare(other)
        assert await audited(account) == []
    assert compared > 200


async def audited(account: Account) -> list[str]:
    """The audit's differences of figures: factories' requests have no facts that explain their status."""
    found = [str(difference).partition(" ")[2] for difference in await integrity_check.audit(account.id)]
    return [line for line in found if any(f" of {name} (" in line for name in dashboard.RANGES)]


@pytest.mark.usefixtures("database")
async def test_an_undone_record_is_taken_off_once() -> None:
    request = await factories.payment_request(await factories.contact(await factories.account()), status="SENT")
    manual: dict[str, Any] = {
        "processor_connection_id": None,
        "processor": None,
        "source": "manual",
        "external_id": "m",
    }
    for outcome in ("SUCCEEDED", "CANCELED"):
        await factories.money_fact(request, outcome=outcome, **manual)
    for _ in range(2):
        sql = "INSERT INTO money_fact SELECT * FROM money_fact WHERE outcome = 'CANCELED' ON CONFLICT DO NOTHING"
        await db.execute(sql.replace("'CANCELED' ON", "'CANCELED' AND true ON"))
    assert await MoneyFact.all().count() == 2
    assert await compare(await Account.get(id=request.account_id)) > 0


@pytest.mark.usefixtures("database")
async def test_the_audit_reports_a_count_that_differs() -> None:
    account = await factories.account()
    await factories.payment_request(await factories.contact(account), status="SENT", sent_at=NOW, amount_minor=500)
    await figure_counts.fold(NOW)
    await db.execute("UPDATE figure_count SET requested_minor = 700 WHERE span = 0")
    assert await audited(account) == ["requested_minor of ALL_TIME (USD, test): stored 700, recomputed 500"]


@pytest.mark.usefixtures("database")
async def test_counts_of_past_quarters_are_pruned_and_the_ranges_stay_right() -> None:
    account = await factories.account()
    contact = await factories.contact(account)
    for days in (0, 20, 39, 50, 400):
        await factories.payment_request(contact, status="SENT", sent_at=NOW - timedelta(days=days))
    await figure_counts.fold(NOW - timedelta(days=30))
    before = await db.rows("SELECT 1 FROM figure_count")
    await db.execute("DELETE FROM figure_count WHERE span > 0 AND starts < ?", figure_counts._kept_since(NOW))
    assert len(await db.rows("SELECT 1 FROM figure_count")) < len(before)
    assert await compare(account) > 0
