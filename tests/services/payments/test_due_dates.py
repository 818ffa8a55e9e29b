"""Becoming overdue is logged once per due date, by one process, and not for paid requests."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from models import database as db
from models.tables import PaymentRequest
from services.payments import due_dates
from tests import factories

NOW = datetime.now(UTC)
PAST = NOW - timedelta(days=3)


async def logged() -> list[str]:
    return [str(row["kind"]) for row in await db.rows("SELECT kind FROM event ORDER BY account_id, seq")]


async def test_each_open_request_becomes_overdue_once_per_due_date(database: str) -> None:
    contact = await factories.contact(await factories.account())
    await factories.conversation(contact)
    open_ones = [
        await factories.payment_request(contact, status=status, due_at=PAST, sent_at=PAST)
        for status in ("SENT", "PROCESSING", "PARTIALLY_PAID")
    ]
    for status in ("DRAFT", "PAID", "VOID"):
        await factories.payment_request(contact, status=status, due_at=PAST)
    later = await factories.payment_request(contact, status="SENT", due_at=NOW + timedelta(hours=1))
    await factories.payment_request(contact, status="SENT", due_at=None)
    assert await asyncio.gather(*(due_dates.log_overdue(NOW) for _ in range(3))) in ([3, 0, 0], [0, 3, 0], [0, 0, 3])
    assert await logged() == ["payment_request.overdue"] * 3 + ["contact.updated"]
    assert [(await PaymentRequest.get(id=one.id)).version for one in open_ones] == [2, 2, 2]
    assert await due_dates.log_overdue(NOW + timedelta(minutes=59)) == 0
    assert await due_dates.log_overdue(NOW + timedelta(hours=2)) == 1
    await PaymentRequest.filter(id=later.id).update(due_at=NOW + timedelta(days=2))
    assert await due_dates.log_overdue(NOW + timedelta(days=1)) == 0
    assert await due_dates.log_overdue(NOW + timedelta(days=3)) == 1
    assert await due_dates.log_overdue(NOW + timedelta(days=30)) == 0
    assert (await logged()).count("payment_request.overdue") == 5


async def test_what_became_overdue_while_nothing_ran_is_told_in_batches(database: str) -> None:
    contacts = [await factories.contact(await factories.account()) for _ in range(2)]
    for contact in contacts:
        await factories.conversation(contact)
        for n in range(4):
            await factories.payment_request(contact, status="SENT", due_at=PAST + timedelta(hours=n))
    batch, due_dates.BATCH = due_dates.BATCH, 3  # type: ignore[misc]
    try:
        assert await due_dates.log_overdue(NOW) == 8
    finally:
        due_dates.BATCH = batch  # type: ignore[misc]
    assert (await logged()).count("payment_request.overdue") == 8


async def test_finding_them_uses_the_index(database: str) -> None:
    query = f"SELECT id, account_id FROM payment_request WHERE {due_dates._PASSED} ORDER BY due_at LIMIT 200"  # noqa: S608 (only constants are put in)
    if db.dialect() == "sqlite":
        plan = await db.rows(f"EXPLAIN QUERY PLAN {query}", NOW)
    else:
        async with db.transaction():
            await db.execute("SET LOCAL enable_seqscan = off")
            await db.execute("SET LOCAL enable_sort = off")  # in an empty table any index and a sort cost the same
            plan = await db.rows(f"EXPLAIN {query}", NOW)
    assert "payment_request_due" in str(plan)
