"""Webhooks that only name what to read: unsigned ones decide nothing and cause few calls."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import parse_qs

import pytest

from integrations.base import (
    Capabilities,
    Checkout,
    IntegrationError,
    MoneyKind,
    MoneyOutcome,
    MoneyStatement,
    ProcessorWebhook,
    WebhookProof,
)
from models.tables import MoneyFact, PaymentRequest, ProcessorConnection, ProcessorEvent
from services.core.rate_limits import RateLimiter
from services.payments import processor_webhooks, sweeper
from services.thread import payment_links
from tests.services.scripted import World, assert_consistent

UNSIGNED = Capabilities(webhook_proof=WebhookProof.NONE, webhooks_decide=False)


def parse(body: bytes) -> ProcessorWebhook:
    """Read `session=cs_1` or `charge=pay_1`, and a forger's claims."""
    fields = {name: values[0] for name, values in parse_qs(body.decode()).items()}
    money: tuple[MoneyStatement, ...] = ()
    if "paid" in fields:
        money = (
            MoneyStatement(
                kind=MoneyKind.CHARGE,
                external_id="pay_forged",
                outcome=MoneyOutcome.SUCCEEDED,
                amount_minor=12500,
                currency="USD",
            ),
        )
    return ProcessorWebhook(
        external_id=None,
        type="ping",
        decides="paid" in fields,
        money=money,
        checkout_external_id=fields.get("session"),
        charge_external_id=fields.get("charge"),
        request_reference=fields.get("reference"),
        disconnected="gone" in fields,
    )


@pytest.fixture
async def world(database: str, monkeypatch: pytest.MonkeyPatch) -> World:
    """A vendor without signatures that knows each charge by id."""
    made = await World.make()
    vendor = made.vendor

    async def verify(
        body: bytes, headers: Mapping[str, str], *, now: datetime, query: Mapping[str, str]
    ) -> ProcessorWebhook:
        return parse(body or "&".join(f"{name}={value}" for name, value in query.items()).encode())

    async def read_charge(external_id: str) -> MoneyStatement | None:
        vendor.calls.append(("charge", external_id))
        found = [s.money[external_id] for s in vendor.sessions.values() if external_id in s.money]
        if not found and external_id.startswith("odd"):
            raise IntegrationError(vendor.name, "invalid_request")
        return found[0] if found else None

    monkeypatch.setattr(vendor, "capabilities", UNSIGNED)
    monkeypatch.setattr(vendor, "verify_webhook", verify)
    monkeypatch.setattr(vendor, "parse", parse)
    monkeypatch.setattr(vendor, "read_charge", read_charge)
    monkeypatch.setattr(processor_webhooks, "_unknown_charge_reads", RateLimiter(0.1, 10))
    monkeypatch.setattr(processor_webhooks, "_recent_reads", RateLimiter(1 / 60, 1))
    return made


async def ping(world: World, body: str) -> None:
    await processor_webhooks.receive("sandbox", world.connection.id, body.encode(), {})


async def test_the_same_id_told_twice_is_read_twice(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    await ping(world, f"session={page}")
    await world.run_jobs()
    assert await world.status(request) == "SENT"
    world.vendor.pay(page)
    await ping(world, f"session={page}")
    await world.run_jobs()
    assert await world.status(request) == "PAID"
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]
    assert await ProcessorEvent.all().count() == 1
    await assert_consistent(world.account.id)


async def test_a_hint_that_comes_while_its_checkout_is_read_causes_another_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, token = await world.request()
    page = await world.open(token)
    read, reads = world.vendor.read_checkout, 0

    async def slow(external_id: str) -> Checkout:
        nonlocal reads
        reads += 1
        state = await read(external_id)
        if reads == 1:  # what was read is old when the answer arrives
            world.vendor.pay(page)
            # As from another request: not inside the job that reads.
            await asyncio.create_task(ping(world, f"session={page}"), context=contextvars.Context())
        return state

    monkeypatch.setattr(world.vendor, "read_checkout", slow)
    await ping(world, f"session={page}")
    await world.run_jobs()
    assert await world.status(request) == "PAID"


async def test_hints_at_one_checkout_are_read_together(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    before = world.vendor.count("read")
    for _ in range(60):
        await ping(world, f"session={page}")
    await world.run_jobs(rounds=1)
    for _ in range(60):
        await ping(world, f"session={page}")
    await world.run_jobs()
    assert world.vendor.count("read") - before == 2
    assert await ProcessorEvent.all().count() == 1
    world.vendor.pay(page)
    await ping(world, f"session={page}")
    await world.run_jobs()
    assert await world.status(request) == "PAID"


async def test_made_up_checkouts_cause_no_call_and_leave_nothing(world: World) -> None:
    _, token = await world.request()
    await world.open(token)
    before = list(world.vendor.calls)
    for n in range(60):
        await ping(world, f"session=cs_forged_{n}")
    await ping(world, "nothing=here")
    await world.run_jobs()
    assert world.vendor.calls == before
    assert await ProcessorEvent.all().count() == 0


async def test_an_unsigned_webhook_gets_no_event_of_its_own_by_the_id_that_it_claims(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def claimed(body: bytes) -> ProcessorWebhook:
        return replace(parse(body), external_id=body.decode())

    async def verify(body: bytes, *_: object, **__: object) -> ProcessorWebhook:
        return claimed(body)

    monkeypatch.setattr(world.vendor, "verify_webhook", verify)
    monkeypatch.setattr(world.vendor, "parse", claimed)
    request, token = await world.request()
    page = await world.open(token)
    before = list(world.vendor.calls)
    for n in range(60):
        await ping(world, f"session=cs_forged_{n}")
    await world.run_jobs()
    assert world.vendor.calls == before
    for n in range(60):
        await ping(world, f"session={page}&n={n}")
    assert await ProcessorEvent.all().count() == 1
    world.vendor.pay(page)
    await world.run_jobs()
    assert await world.status(request) == "PAID"


@pytest.mark.parametrize("kind", ["pay_forged", "odd"])
async def test_made_up_charges_cause_few_calls_and_genuine_ones_end_in_paid(world: World, kind: str) -> None:
    first, first_token = await world.request()
    later, later_token = await world.request()
    charges = []
    for token in (first_token, later_token):
        charge = world.vendor.pay(await world.open(token))
        assert charge is not None
        charges.append(charge.external_id)
    await ping(world, f"charge={charges[0]}")
    await world.run_jobs()
    assert await world.status(first) == "PAID"
    for n in range(60):
        await ping(world, f"charge={kind}_{n}")
    await ping(world, f"charge={charges[1]}")  # one of many by now
    await world.run_jobs()
    assert world.vendor.count("charge") <= 11
    assert await ProcessorEvent.all().count() == 1  # of the payment
    assert await world.status(later) == "SENT"
    await sweeper.sweep(datetime.now(UTC))  # within 15 seconds, and not after a minute
    assert await world.status(later) == "PAID"
    await assert_consistent(world.account.id)


async def test_nothing_that_an_unsigned_webhook_says_is_believed(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    await ping(world, f"session={page}&paid=1&gone=1")
    await ping(world, "gone=1")
    await ping(world, "charge=pay_forged&paid=1")
    await world.run_jobs()
    assert await world.status(request) == "SENT"
    assert await MoneyFact.all().count() == 0
    assert (await ProcessorConnection.get(id=world.connection.id)).connected


async def test_an_unsigned_webhook_gives_no_checkout_to_another_request(world: World) -> None:
    victim, _ = await world.request()
    discarded, discarded_token = await world.request()
    page = await world.open(discarded_token)
    world.vendor.pay(page)
    await PaymentRequest.filter(id=discarded.id).update(discarded_at=datetime.now(UTC))
    session = world.vendor.sessions.pop(page)
    # Another program's checkout on the same vendor account, reported with our reference.
    object.__setattr__(session, "external_id", "cs_foreign")
    object.__setattr__(session.order, "request_reference", "order-77")
    world.vendor.sessions["cs_foreign"] = session
    for body in ("session=cs_foreign", "charge=" + next(iter(session.money))):
        await ping(world, f"{body}&reference={payment_links.reference(victim)}")
    await world.run_jobs()
    assert await world.status(victim) == "SENT"
    assert await world.facts(victim) == []


async def test_what_a_webhook_names_may_stand_in_its_address(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    world.vendor.pay(page)
    await processor_webhooks.receive("sandbox", world.connection.id, b"", {}, {"session": page})
    await ProcessorEvent.all().update(body=f"session={page}")  # as a provider's `raw` has it
    await world.run_jobs()
    assert await world.status(request) == "PAID"
