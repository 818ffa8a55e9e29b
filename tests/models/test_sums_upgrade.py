"""The upgrade lets earlier uncounted money wait for a decision, unless it was returned."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from models import migrate
from models.database import open_database
from models.tables import MoneyFact, PaymentRequest
from services.payments import integrity_check
from tests import factories

BEFORE = next(
    earlier.name
    for earlier, later in zip(
        migrate.read(migrate.FOLDER, "sqlite"), migrate.read(migrate.FOLDER, "sqlite")[1:], strict=False
    )
    if later.name.endswith("_sums")
)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'upgrade.db'}"
    make: Callable[[], str] = request.getfixturevalue("new_postgres_database")
    return make()


async def test_money_that_did_not_count_waits_after_the_upgrade_unless_it_went_back(url: str) -> None:
    await migrate.migrate(url)
    expected = {}
    async with open_database(url):
        account = await factories.account()
        contact = await factories.contact(account)
        await factories.conversation(contact)
        for name, waits, counted, more in (
            ("exact", False, True, []),
            ("wrong", True, False, []),
            ("given back", False, False, [("REFUND", "SUCCEEDED", 0)]),
            ("back, and that failed", True, False, [("REFUND", "SUCCEEDED", 0), ("REFUND", "FAILED", 0)]),
            ("lost", False, False, [("DISPUTE", "PENDING", 0), ("DISPUTE", "SUCCEEDED", 1)]),
            ("lost, then won", True, False, [("DISPUTE", "SUCCEEDED", 0), ("DISPUTE", "CANCELED", 1)]),
        ):
            row = await factories.payment_request(contact, status="SENT", sent_at=factories.now(), product_name=name)
            charge = await factories.money_fact(row, counted=counted)
            for kind, outcome, minutes in more:
                about: dict[str, Any] = {"kind": kind, "outcome": outcome, "external_id": f"{name} {kind}"}
                at = factories.now() + timedelta(minutes=minutes)
                await factories.money_fact(row, charge_external_id=charge.external_id, occurred_at=at, **about)
            expected[row.id] = waits
    names = await migrate.rollback(url, BEFORE)
    assert await migrate.migrate(url) == list(reversed(names))
    async with open_database(url):
        assert {row.id: row.unresolved for row in await PaymentRequest.all()} == expected
        assert {(fact.confirmed, fact.asked_minor) for fact in await MoneyFact.all()} == {(True, None)}
        found = [one for one in await integrity_check.audit(account.id) if one.name in ("unresolved", "waived_minor")]
        assert [str(one) for one in found] == []
