"""Lost webhooks: the server's periodic jobs read the processor and record what it reports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from models.tables import CheckoutSession, Job, MoneyFact, Notification, ProcessorEvent, Tick
from tests.configured import change
from tests.contracts.stripe_contract import contracts
from tests.contracts.stripe_server import SECRET_KEY, WEBHOOK_SECRET, StripeServer
from tests.flows import documents as d
from tests.flows import harness
from tests.flows.conftest import Team, opened
from tests.flows.harness import Product

pytestmark = pytest.mark.slow


@pytest.fixture
async def stripe() -> AsyncIterator[StripeServer]:
    async with StripeServer(contracts()[0]) as server:
        yield server
        assert server.violations == []


@pytest.fixture
async def product(database: str, events_url: str, stripe: StripeServer) -> AsyncIterator[Product]:
    """The server; its sweeper reads a checkout immediately, and its sandbox has no delay."""
    async with harness.in_process(
        database, events_url, STRIPE_API_BASE=stripe.url, SWEEPER_FIRST_CHECK_S="0.01", SWEEPER_EVERY_S="0.01"
    ) as running:
        change(sandbox_delay=timedelta(seconds=0.01))
        yield running


@pytest.fixture
async def shop(bare: Team) -> Team:
    """A team with Stripe and six simulated channels."""
    await bare.connect_channels()
    payload = await bare.product.ok(
        d.CONFIGURE_PROCESSOR,
        {"credentials": {"stripe": {"secretKey": SECRET_KEY, "webhookSecret": WEBHOOK_SECRET}}},
        token=bare.owner,
    )
    bare.processor = payload["processor"]
    return bare


async def sent(team: Team, contact: dict[str, Any]) -> dict[str, Any]:
    request = await team.request(contact)
    await team.send(request)
    return request


async def press_pay(team: Team, request: dict[str, Any]) -> str:
    """The contact presses Pay; return the id of Stripe's checkout session."""
    async with httpx2.AsyncClient() as contact:
        answer = await contact.post(
            request["checkoutUrl"] + "/pay", headers={"Origin": team.product.base_url}, follow_redirects=False
        )
    assert answer.status_code == 303, answer.text
    return answer.headers["location"].rsplit("/", 1)[1].split("#")[0]


async def post(team: Team, stripe: StripeServer, event: dict[str, Any]) -> int:
    """Stripe delivers the event; return our status code."""
    body, headers = stripe.webhook(event)
    async with httpx2.AsyncClient() as vendor:
        return (await vendor.post(team.processor["webhookUrl"], content=body, headers=headers)).status_code


async def finished(kind: str) -> int:
    return await Job.filter(kind=kind, status="done").count()


async def slot(kind: str) -> None:
    """Make the periodic job due, and wait until the server has run it."""
    before = await finished(kind)
    async with asyncio.timeout(20):
        while await finished(kind) == before:
            await Tick.filter(name=kind).update(next_at=datetime.now(UTC))
            await asyncio.sleep(0.1)


async def kinds(team: Team, contact: dict[str, Any]) -> list[str]:
    return [kind for kind, _ in await team.cards(contact)]


async def test_with_every_webhook_lost_the_sweeper_reaches_the_same_end(shop: Team, stripe: StripeServer) -> None:
    maria = await shop.contact()
    requests = [await sent(shop, maria) for _ in range(5)]
    sessions = [await press_pay(shop, request) for request in requests]
    for session in sessions[:3]:
        stripe.pay(session)
    stripe.expire(sessions[3])
    assert {(await shop.read(r))["status"] for r in requests} == {"SENT"}
    async with shop.inbox() as feed:
        await opened(feed)
        await slot("sweeper.checkouts")
        waiting = {request["id"] for request in requests[:3]}
        while waiting:
            event = await feed.until("PaymentRequestUpdated", paymentRequest__status="PAID")
            waiting.discard(event["paymentRequest"]["id"])
    assert [(await shop.read(r))["status"] for r in requests] == ["PAID", "PAID", "PAID", "SENT", "SENT"]
    sources = await MoneyFact.filter(kind="CHARGE").values_list("source", "outcome")
    assert [tuple(row) for row in sources] == [("sweeper", "SUCCEEDED")] * 3
    assert await ProcessorEvent.all().count() == 0
    # Looking again changes nothing.
    await slot("sweeper.checkouts")
    assert await MoneyFact.filter(kind="CHARGE").count() == 3
    assert sorted(await kinds(shop, maria)) == ["PAYMENT_RECEIVED"] * 3 + ["PAYMENT_REQUEST"] * 5
    assert await Notification.filter(kind="PAYMENT_RECEIVED").count() == 3
    states = {row.external_id: row.status for row in await CheckoutSession.all()}
    assert [states[session] for session in sessions] == ["COMPLETED"] * 3 + ["EXPIRED", "OPEN"]
    # And the webhooks that come after all, too.
    assert await post(shop, stripe, next(e for e in stripe.events if e["type"].endswith("completed"))) == 200
    assert await MoneyFact.filter(kind="CHARGE").count() == 3


async def test_an_event_that_stripe_could_not_deliver_is_fetched_from_its_list(
    shop: Team, stripe: StripeServer
) -> None:
    maria = await shop.contact()
    request = await sent(shop, maria)
    session = await press_pay(shop, request)
    stripe.decline(session)  # only its event tells of it
    await slot("sweeper.events")
    async with asyncio.timeout(15):
        while (await shop.read(request))["lastAttempt"] is None:
            await asyncio.sleep(0.05)
    assert await kinds(shop, maria) == ["PAYMENT_REQUEST", "PAYMENT_FAILED"]
    await slot("sweeper.events")
    assert await kinds(shop, maria) == ["PAYMENT_REQUEST", "PAYMENT_FAILED"]
    assert (await shop.read(request))["status"] == "SENT"


async def test_a_webhook_that_stripe_itself_does_not_confirm_is_flagged(shop: Team, stripe: StripeServer) -> None:
    maria = await shop.contact()
    request = await sent(shop, maria)
    session = await press_pay(shop, request)
    event = stripe.pay(session)
    # As if somebody had our webhook secret: at Stripe the session was never paid.
    stripe.sessions[session] |= {"status": "open", "payment_status": "unpaid", "payment_intent": None}
    async with shop.inbox() as feed:
        await opened(feed)
        assert await post(shop, stripe, event) == 200
        await shop.until_paid(feed, request)
        await feed.until("ThreadItemAdded", edge__node__kind="PAYMENT_MISMATCH")
    assert (await shop.read(request))["status"] == "PAID"  # never taken back by itself
    assert await kinds(shop, maria) == ["PAYMENT_REQUEST", "PAYMENT_RECEIVED", "PAYMENT_MISMATCH"]
    assert await Notification.filter(kind="PAYMENT_MISMATCH").count() == 1


async def test_a_void_that_the_processor_did_not_answer_is_finished(shop: Team, stripe: StripeServer) -> None:
    maria = await shop.contact()
    request = await sent(shop, maria)
    session = await press_pay(shop, request)
    down = asyncio.Event()
    down.set()
    stripe.fail_next("before_500", times=100, match=lambda call: down.is_set())
    result = await shop.product.ok(d.VOID, {"paymentRequestId": request["id"]})
    assert (result["paymentRequest"]["voidPending"], result["activityCard"]) == (True, None)
    down.clear()
    await slot("sweeper.voids")
    async with asyncio.timeout(15):
        while (now := await shop.read(request))["status"] != "VOID":
            await asyncio.sleep(0.05)
    assert now["voidPending"] is False
    assert stripe.sessions[session]["status"] == "expired"
    assert await kinds(shop, maria) == ["PAYMENT_REQUEST", "REQUEST_VOIDED"]


@pytest.mark.parametrize(
    ("button", "status", "cards"),
    [
        ("pay_later", "PAID", ["PAYMENT_REQUEST", "PAYMENT_PROCESSING", "PAYMENT_RECEIVED"]),
        ("pay_later_fail", "SENT", ["PAYMENT_REQUEST", "PAYMENT_PROCESSING", "PAYMENT_FAILED"]),
    ],
)
async def test_a_delayed_payment_of_the_sandbox_settles(team: Team, button: str, status: str, cards: list[str]) -> None:
    maria = await team.contact()
    request = await sent(team, maria)
    async with team.product.browser() as browser:
        await browser.open(request["checkoutUrl"])
        await browser.press("Pay")
        hosted = browser.url
    async with httpx2.AsyncClient() as contact:
        answer = await contact.post(hosted, data={"action": button}, headers={"Origin": team.product.base_url})
    assert answer.status_code == 303
    async with asyncio.timeout(15):
        while await kinds(team, maria) != cards:
            await asyncio.sleep(0.05)
    now = await team.read(request)
    assert now["status"] == status
    assert now["amountPaid"]["minorUnits"] == ("12000" if status == "PAID" else "0")
