"""Vendor events that match no request: test payments, a copy of this system, other programs on the account, thin events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from models.tables import MoneyFact, ProcessorEvent
from services.payments import integrity_check
from tests.contracts.stripe_contract import contracts
from tests.contracts.stripe_server import LIVE_KEY, WEBHOOK_SECRET, StripeServer
from tests.flows import documents as d
from tests.flows import harness
from tests.flows.conftest import Team
from tests.flows.harness import Product
from tests.flows.test_processors import quiet
from tests.flows.test_refunds import kinds, open_session, until


@pytest.fixture
async def stripe() -> AsyncIterator[StripeServer]:
    async with StripeServer(contracts()[0]) as server:
        server.live = True
        yield server
        assert server.violations == []


@pytest.fixture
async def product(database: str, events_url: str, stripe: StripeServer) -> AsyncIterator[Product]:
    async with harness.in_process(database, events_url, STRIPE_API_BASE=stripe.url) as running:
        yield running
        assert [str(difference) for difference in await integrity_check.audit()] == []


@pytest.fixture
async def shop(bare: Team) -> Team:
    """A team with a live Stripe connection and six simulated channels."""
    await bare.connect_channels()
    given = {"credentials": {"stripe": {"secretKey": LIVE_KEY, "webhookSecret": WEBHOOK_SECRET}}}
    bare.processor = (await bare.product.ok(d.CONFIGURE_PROCESSOR, given, token=bare.owner))["processor"]
    return bare


async def post(team: Team, stripe: StripeServer, *events: dict[str, Any]) -> list[int]:
    answers = []
    async with httpx2.AsyncClient() as vendor:
        for event in events:
            body, headers = stripe.webhook(event)
            answers.append((await vendor.post(team.processor["webhookUrl"], content=body, headers=headers)).status_code)
    return answers


def event(n: int, kind: str, thing: dict[str, Any], **more: Any) -> dict[str, Any]:
    about = {"object": "event", "id": f"evt_foreign_{n}", "type": kind, "created": 1795770000, "livemode": True}
    return about | {"data": {"object": thing}} | more


async def test_test_money_and_money_that_the_vendor_does_not_know_settle_no_live_request(
    shop: Team, stripe: StripeServer
) -> None:
    maria = await shop.contact()
    request = await shop.request(maria)
    await shop.send(request)
    session = await open_session(shop, request)
    amount, metadata = 12000, {"payment_request_id": request["id"]}
    intent = {"id": "pi_copy", "status": "succeeded", "amount": amount, "amount_received": amount, "currency": "usd"}
    intent |= {"metadata": metadata, "latest_charge": "ch_copy"}
    checkout = stripe.sessions[session] | {"livemode": False, "payment_status": "paid", "payment_intent": "pi_copy"}
    told = [
        event(1, "payment_intent.succeeded", intent | {"livemode": False}, livemode=False),
        event(2, "checkout.session.completed", checkout, livemode=False),
        # Signed and live, but our key cannot see the payment: a copy of this system on another account.
        event(3, "payment_intent.succeeded", intent),
        event(4, "payment_intent.processing", intent | {"status": "processing"}),
        event(5, "charge.refunded", intent | {"payment_intent": "pi_copy", "id": "ch_copy"}),
    ]
    assert await post(shop, stripe, *told) == [200] * len(told)
    await quiet()
    assert ((await shop.read(request))["status"], await MoneyFact.all().count()) == ("SENT", 0)
    assert await kinds(shop, maria) == ["PAYMENT_REQUEST"]
    # The real payment, told without its session and before any other word: found at the vendor, and paid.
    stripe.pay(session)
    (paid,) = [one for one in stripe.events if one["type"] == "payment_intent.succeeded"]
    await post(shop, stripe, paid)
    await until(shop, request, lambda r: r["status"] == "PAID")
    await quiet()
    assert await kinds(shop, maria) == ["PAYMENT_REQUEST", "PAYMENT_RECEIVED"]


async def test_events_of_other_programs_are_taken_whatever_their_shape_and_change_nothing(
    shop: Team, stripe: StripeServer
) -> None:
    maria = await shop.contact()
    request = await shop.request(maria)
    await shop.send(request)
    session = await open_session(shop, request)
    odd: list[tuple[str, dict[str, Any]]] = [
        (
            "checkout.session.completed",
            {"id": "cs_9", "mode": "subscription", "payment_status": "paid", "payment_intent": None},
        ),
        ("checkout.session.completed", {"id": "cs_8", "mode": "setup", "amount_total": None, "currency": None}),
        ("checkout.session.expired", {}),
        ("payment_intent.succeeded", {"id": "pi_9", "status": "a new word", "amount": "12"}),
        ("payment_intent.canceled", {"id": "pi_7", "latest_charge": "ch_7"}),
        ("refund.updated", {"id": "re_9", "amount": None, "currency": "usd"}),
        ("charge.refund.updated", {"id": "re_8"}),
        ("charge.dispute.closed", {"id": "dp_9", "status": 7}),
        ("charge.refunded", {"id": "ch_9", "payment_intent": {"id": "pi_8"}, "status": "succeeded"}),
        ("customer.created", {"id": "cus_1"}),
    ]
    told = [event(n, kind, thing) for n, (kind, thing) in enumerate(odd)]
    told += [
        {"object": "event", "id": "evt_x"},
        {"object": "list", "data": []},
        {"object": "v2.core.event", "id": "evt_y"},
    ]
    assert await post(shop, stripe, *told) == [200] * len(told)
    await quiet()
    assert ((await shop.read(request))["status"], await MoneyFact.all().count()) == ("SENT", 0)
    assert await ProcessorEvent.filter(handled_at=None).count() == 0
    # An unreadable event about our checkout is refused, so that it is delivered again.
    assert await post(shop, stripe, event(99, "checkout.session.completed", {"id": session})) == [400]


async def test_a_thin_event_is_read_by_the_id_of_its_object(shop: Team, stripe: StripeServer) -> None:
    def thin(n: int, kind: str, of: str, thing_id: str, **more: Any) -> dict[str, Any]:
        about = {"object": "v2.core.event", "id": f"evt_thin_{n}", "type": kind, "livemode": True}
        about |= {"created": "2026-11-27T12:00:00.000Z", "related_object": {"type": of, "id": thing_id}}
        return about | more

    maria = await shop.contact()
    request = await shop.request(maria)
    await shop.send(request)
    session = await open_session(shop, request)
    stripe.pay(session)
    told = [
        thin(1, "v1.billing.meter.error_report_triggered", "billing.meter", "mtr_1"),
        thin(2, "v2.core.account.updated", "v2.core.account", "acct_1"),
        thin(3, "v1.payment_intent.succeeded", "payment_intent", "pi_unknown"),
        thin(4, "v1.checkout.session.completed", "checkout.session", session, livemode=False),
        thin(5, "v1.checkout.session.completed", "checkout.session", "../account"),
    ]
    assert await post(shop, stripe, *told) == [200] * len(told)
    await quiet()
    assert (await shop.read(request))["status"] == "SENT"
    paid = thin(6, "v1.checkout.session.completed", "checkout.session", session)
    body, headers = stripe.webhook(paid, "whsec_of_another")
    async with httpx2.AsyncClient() as vendor:
        forged = await vendor.post(shop.processor["webhookUrl"], content=body, headers=headers)
    assert forged.status_code == 400
    assert await post(shop, stripe, paid, paid) == [200, 200]
    await until(shop, request, lambda r: r["status"] == "PAID")
    await quiet()
    assert await kinds(shop, maria) == ["PAYMENT_REQUEST", "PAYMENT_RECEIVED"]
    stored = await ProcessorEvent.get(external_id="evt_thin_6")
    assert (stored.type, json.loads(stored.body)["data"]["object"]["id"]) == ("checkout.session.completed", session)
