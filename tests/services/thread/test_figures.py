"""Contacts' totals and the dashboard agree with a plain Python book."""

from __future__ import annotations

import random
import statistics
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from models.tables import Contact, ProcessorConnection
from services.payments import dashboard
from services.thread import contact_totals
from tests import factories
from tests.services.figures_book import assert_figures, shown_figures
from tests.services.scripted import World

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
async def world(database: str) -> World:
    return await World.make()


async def one(account_id: UUID, range: str = "LAST_7_DAYS") -> dashboard.CurrencyFigures:
    """The figures of the only currency."""
    (found,) = await shown_figures(account_id, range, NOW)
    return found


async def test_contacts_totals_add_up_to_the_dashboard_in_every_currency(world: World) -> None:
    rng = random.Random(20261127)
    contacts = [world.contact, *[await factories.contact(world.account) for _ in range(4)]]
    for _ in range(120):
        status = rng.choice(["DRAFT", "SENT", "PROCESSING", "PARTIALLY_PAID", "PAID", "VOID"])
        currency, test_mode = rng.choice(["USD", "EUR", "JPY"]), rng.random() < 0.8
        at = factories.now() - timedelta(hours=rng.randrange(1, 2000))
        request = await factories.payment_request(
            rng.choice(contacts),
            status=status,
            currency=currency,
            test_mode=test_mode,
            amount_minor=rng.randrange(1, 99999),
            amount_paid_minor=rng.randrange(0, 99999) if status in ("PARTIALLY_PAID", "PAID", "VOID") else 0,
            sent_at=None if status == "DRAFT" else at,
            paid_at=at if status == "PAID" else None,
            discarded_at=at if status == "DRAFT" and rng.random() < 0.3 else None,
        )
        for _ in range(rng.randrange(3)):
            # Mismatching money may come in another currency.
            amount, other = rng.randrange(1, 99999), rng.choice([currency, currency, "USD"])
            shared = {"currency": other, "test_mode": test_mode, "occurred_at": at}
            charge = await factories.money_fact(
                request,
                amount_minor=amount,
                counted=rng.random() < 0.7 and other == currency,
                after_void=status == "VOID" and rng.random() < 0.5,
                outcome=rng.choice(["SUCCEEDED", "SUCCEEDED", "SUCCEEDED", "FAILED", "PENDING"]),
                fee_minor=rng.choice([None, 30]),
                **shared,
            )
            if charge.outcome != "SUCCEEDED":
                continue
            for kind in rng.choices(["REFUND", "DISPUTE"], k=rng.randrange(3)):
                given = {"kind": kind, "charge_external_id": charge.external_id, **shared}
                back = await factories.money_fact(
                    request,
                    amount_minor=rng.randrange(1, amount + 1),
                    outcome=rng.choice(["SUCCEEDED", "PENDING"]),
                    **given,
                )
                if back.outcome == "SUCCEEDED" and kind == "REFUND" and rng.random() < 0.3:
                    await factories.money_fact(
                        request, amount_minor=back.amount_minor, external_id=back.external_id, outcome="FAILED", **given
                    )
    for contact in await Contact.all():
        await contact_totals.update(world.account.id, contact.id)
    await assert_figures(world.account.id)
    await ProcessorConnection.filter(id=world.connection.id).update(test_mode=False)
    await assert_figures(world.account.id)  # now of live money
    assert {row.test_mode for row in await shown_figures(world.account.id, "ALL_TIME", NOW)} == {False}


async def test_conversion_is_of_the_requests_sent_in_the_range(world: World) -> None:
    long_ago, lately = NOW - timedelta(days=20), NOW - timedelta(days=1)
    for _ in range(2):  # paid lately, sent long ago
        await factories.payment_request(world.contact, status="PAID", sent_at=long_ago, paid_at=lately)
    assert (await one(world.account.id)).paid_count == 2
    await factories.payment_request(world.contact, status="PAID", sent_at=lately, paid_at=NOW)
    for status in ("SENT", "PARTIALLY_PAID", "PROCESSING"):
        await factories.payment_request(world.contact, status=status, sent_at=lately)
    await factories.payment_request(world.contact, status="VOID", sent_at=lately)
    found = await one(world.account.id)
    assert (found.requests_sent, found.converted_count, found.paid_count) == (4, 1, 3)
    found = await one(world.account.id, "LAST_30_DAYS")
    assert (found.requests_sent, found.converted_count, found.paid_count) == (6, 3, 3)


async def test_what_was_paid_before_it_was_sent_is_not_in_the_median(world: World) -> None:
    sent = NOW - timedelta(days=1)
    await factories.payment_request(world.contact, status="PAID", sent_at=sent, paid_at=sent - timedelta(days=2))
    assert (await one(world.account.id)).median_seconds_to_pay is None
    for seconds in (100, 300):
        paid = sent + timedelta(seconds=seconds)
        await factories.payment_request(world.contact, status="PAID", sent_at=sent, paid_at=paid)
    found = await one(world.account.id)
    assert (found.median_seconds_to_pay, found.paid_count) == (200, 3)


async def test_the_median_is_of_each_currency_alone(world: World) -> None:
    rng, sent = random.Random(7), NOW - timedelta(days=3)
    took = {"USD": [rng.randrange(200_000) for _ in range(9)], "EUR": [rng.randrange(200_000) for _ in range(6)]}
    for currency, seconds in took.items():
        for after in seconds:
            paid = sent + timedelta(seconds=after, microseconds=rng.randrange(2))
            await factories.payment_request(world.contact, status="PAID", currency=currency, sent_at=sent, paid_at=paid)
    found = {row.currency: row.median_seconds_to_pay for row in await shown_figures(world.account.id, "ALL_TIME", NOW)}
    assert found == {currency: round(statistics.median(seconds)) for currency, seconds in took.items()}


async def test_live_figures_stay_after_the_live_processor_is_disconnected(world: World) -> None:
    async def modes() -> set[bool]:
        return {row.test_mode for row in await shown_figures(world.account.id, "ALL_TIME", NOW)}

    await factories.payment_request(world.contact, status="SENT", sent_at=NOW)
    live = await factories.processor_connection(world.account, test_mode=False, is_default=False)
    assert await modes() == set()  # connected, and nothing asked yet
    await ProcessorConnection.filter(id=live.id).update(connected=False)
    assert await modes() == {True}
    draft = await factories.payment_request(
        world.contact, test_mode=False, processor_connection_id=live.id, status="DRAFT"
    )
    assert await modes() == {True}
    draft.status, draft.sent_at = "SENT", NOW
    await draft.save()
    assert await modes() == {False}
