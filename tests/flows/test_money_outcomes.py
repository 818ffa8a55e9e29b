"""Payment outcomes and failures at Stripe, through its SDK, HTTP and signed webhooks."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from models.tables import CheckoutSession, MoneyFact, Notification, PaymentRequest, ProcessorEvent
from tests.contracts.stripe_contract import contracts
from tests.contracts.stripe_server import SECRET_KEY, WEBHOOK_SECRET, StripeServer
from tests.flows import documents as d
from tests.flows import harness
from tests.flows.conftest import Team, opened
from tests.flows.harness import Product


@pytest.fixture
async def stripe() -> AsyncIterator[StripeServer]:
    async with StripeServer(contracts()[0]) as server:
        yield server
        assert server.violations == []


@pytest.fixture
async def product(database: str, events_url: str, stripe: StripeServer) -> AsyncIterator[Product]:
    """The server, connected to a fake Stripe."""
    async with harness.in_process(database, events_url, STRIPE_API_BASE=stripe.url) as running:
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


async def press_pay(team: Team, request: dict[str, Any]) -> str:
    """The contact presses Pay; return the id of Stripe's checkout session."""
    async with httpx2.AsyncClient() as contact:
        answer = await contact.post(
            request["checkoutUrl"] + "/pay", headers={"Origin": team.product.base_url}, follow_redirects=False
        )
    assert answer.status_code == 303, answer.text
    return answer.headers["location"].rsplit("/", 1)[1].split("#")[0]


async def post(team: Team, stripe: StripeServer, event: dict[str, Any], **how: Any) -> int:
    """Stripe delivers the event; return our status code."""
    body, headers = stripe.webhook(event, **how)
    return await post_raw(team, body, headers)


async def post_raw(team: Team, body: bytes, headers: dict[str, str]) -> int:
    async with httpx2.AsyncClient() as vendor:
        return (await vendor.post(team.processor["webhookUrl"], content=body, headers=headers)).status_code


async def sent(team: Team, contact: dict[str, Any], **more: Any) -> dict[str, Any]:
    request = await team.request(contact, **more)
    await team.send(request)
    return request


async def settled(team: Team, request: dict[str, Any], *, status: str) -> dict[str, Any]:
    """Wait until the request has this status."""
    async with asyncio.timeout(15):
        while (now := await team.read(request))["status"] != status:
            await asyncio.sleep(0.05)
    return now


async def kinds(team: Team, contact: dict[str, Any]) -> list[str]:
    return [kind for kind, _ in await team.cards(contact)]


async def test_stripe_paid_turns_the_card_paid_live(shop: Team, stripe: StripeServer) -> None:
    maria = await shop.contact()
    request = await sent(shop, maria)
    session = await press_pay(shop, request)
    async with shop.inbox() as feed:
        await opened(feed)
        assert await post(shop, stripe, stripe.pay(session)) == 200
        await shop.until_paid(feed, request)
    assert await kinds(shop, maria) == ["PAYMENT_REQUEST", "PAYMENT_RECEIVED"]
    created = next(c for c in stripe.calls if c.method == "POST" and c.path == "/v1/checkout/sessions")
    assert created.headers["idempotency-key"] == f"{request['id']}:1"
    assert b"application_fee" not in created.raw_body


async def test_a_webhook_five_times_out_of_order_and_concurrently_counts_once(shop: Team, stripe: StripeServer) -> None:
    maria = await shop.contact()
    request = await sent(shop, maria)
    session = await press_pay(shop, request)
    completed = stripe.pay(session)
    related = [e for e in stripe.events if e["type"].startswith(("payment_intent.", "checkout.session."))]
    deliveries = [event for event in related for _ in range(5)]
    random.Random(5).shuffle(deliveries)
    codes = await asyncio.gather(*(post(shop, stripe, event) for event in deliveries))
    assert set(codes) == {200}
    assert completed in related
    now = await settled(shop, request, status="PAID")
    assert [(p["kind"], p["status"], p["amount"]["minorUnits"]) for p in now["payments"]] == [
        ("CHARGE", "SUCCEEDED", "12000")
    ]
    assert await kinds(shop, maria) == ["PAYMENT_REQUEST", "PAYMENT_RECEIVED"]
    listed = await shop.product.one(d.NOTIFICATIONS)
    assert [n["kind"] for n in listed["nodes"]] == ["PAYMENT_RECEIVED"]
    assert [fact.outcome for fact in await MoneyFact.filter(kind="CHARGE")] == ["SUCCEEDED"]
    assert await ProcessorEvent.all().count() == len(related)
    (summary,) = (await shop.product.one(d.CONTACT, {"id": maria["id"]}))["paymentSummary"]
    assert (summary["paid"]["minorUnits"], summary["outstanding"]["minorUnits"]) == ("12000", "0")


async def test_requests_of_one_contact_paid_at_the_same_moment_are_all_answered_at_once(
    shop: Team, stripe: StripeServer
) -> None:
    maria = await shop.contact()
    requests = [await sent(shop, maria) for _ in range(4)]
    events = [stripe.pay(await press_pay(shop, request)) for request in requests]
    assert await asyncio.gather(*(post(shop, stripe, event) for event in events)) == [200] * 4
    assert [(await shop.read(request))["status"] for request in requests] == ["PAID"] * 4
    assert await Notification.filter(kind="PAYMENT_RECEIVED").count() == 4
    assert (await kinds(shop, maria)).count("PAYMENT_RECEIVED") == 4
    (summary,) = (await shop.product.one(d.CONTACT, {"id": maria["id"]}))["paymentSummary"]
    assert (summary["paid"]["minorUnits"], summary["paidCount"]) == ("48000", 4)


@pytest.mark.parametrize("how", ["wrong secret", "stale", "ahead", "changed body", "no header", "truncated header"])
async def test_a_forged_or_stale_signature_is_400_and_stores_nothing(
    shop: Team, stripe: StripeServer, how: str, capfd: pytest.CaptureFixture[str]
) -> None:
    maria = await shop.contact()
    request = await sent(shop, maria)
    event = stripe.pay(await press_pay(shop, request))
    body, headers = stripe.webhook(event)
    if how == "wrong secret":
        body, headers = stripe.webhook(event, "whsec_somebody_elses")
    elif how in ("stale", "ahead"):
        at = int(stripe.now().timestamp()) + (-301 if how == "stale" else 330)
        body, headers = stripe.webhook(event, timestamp=at)
    elif how == "changed body":
        body = body.replace(b"12000", b"12001")
    elif how == "no header":
        del headers["stripe-signature"]
    else:
        headers["stripe-signature"] = headers["stripe-signature"][:-4]
    assert await post_raw(shop, body, headers) == 400
    assert await MoneyFact.all().count() == 0
    assert await ProcessorEvent.all().count() == 0
    assert (await shop.read(request))["status"] == "SENT"
    logged = capfd.readouterr()
    assert event["id"] not in logged.out + logged.err
    assert "12000" not in logged.out + logged.err


async def test_an_event_of_another_accounts_connection_changes_nothing(shop: Team, stripe: StripeServer) -> None:
    maria = await shop.contact()
    request = await sent(shop, maria)
    event = stripe.pay(await press_pay(shop, request))
    foreign = {**event, "id": "evt_foreign"}
    foreign["data"] = json.loads(json.dumps(event["data"]))
    foreign["data"]["object"] |= {"id": "cs_test_unknown", "client_reference_id": None, "metadata": {}}
    foreign["data"]["object"]["payment_intent"] = "pi_unknown"
    assert await post(shop, stripe, foreign) == 200
    assert (await shop.read(request))["status"] == "SENT"
    assert await MoneyFact.all().count() == 0


async def test_two_tabs_share_one_checkout(shop: Team, stripe: StripeServer) -> None:
    maria = await shop.contact()
    request = await sent(shop, maria)
    sessions = await asyncio.gather(*(press_pay(shop, request) for _ in range(4)))
    assert len(set(sessions)) == 1
    assert len(stripe.sessions) == 1
    assert await CheckoutSession.all().count() == 1


async def test_paid_twice_on_two_checkouts_is_shown_as_excess(shop: Team, stripe: StripeServer) -> None:
    maria = await shop.contact()
    request = await sent(shop, maria)
    first = await press_pay(shop, request)
    # Its end comes near, so that Pay opens another; the first is paid in the same moment all the same.
    stripe.sessions[first]["expires_at"] = int(stripe.now().timestamp()) + 60
    await CheckoutSession.filter(external_id=first).update(expires_at=stripe.now())
    second = await press_pay(shop, request)
    assert second != first
    stripe.sessions[first]["status"] = "open"  # its payer was faster than our closing of it
    paid_first = stripe.pay(first)
    paid_second = stripe.pay(second)
    assert await post(shop, stripe, paid_second) == 200
    assert await post(shop, stripe, paid_first) == 200
    now = await settled(shop, request, status="PAID")
    assert (now["amountPaid"]["minorUnits"], now["excess"]["minorUnits"]) == ("24000", "12000")
    assert await kinds(shop, maria) == ["PAYMENT_REQUEST", "PAYMENT_RECEIVED", "EXCESS_PAYMENT"]
    assert await Notification.filter(kind="EXCESS_PAYMENT").count() == 1


async def test_a_payment_that_is_first_wins_over_the_void(shop: Team, stripe: StripeServer) -> None:
    maria = await shop.contact()
    request = await sent(shop, maria)
    stripe.pay(await press_pay(shop, request))  # its webhook has not come yet
    payload = await shop.product.one(d.VOID, {"input": {"paymentRequestId": request["id"]}})
    assert [e["code"] for e in payload["userErrors"]] == ["ALREADY_PAID"]
    now = await shop.read(request)
    assert (now["status"], now["voidPending"]) == ("PAID", False)
    assert await kinds(shop, maria) == ["PAYMENT_REQUEST", "PAYMENT_RECEIVED"]


async def test_a_void_closes_the_open_checkout_so_that_nobody_can_pay(shop: Team, stripe: StripeServer) -> None:
    maria = await shop.contact()
    request = await sent(shop, maria)
    session = await press_pay(shop, request)
    result = await shop.product.ok(d.VOID, {"paymentRequestId": request["id"]})
    assert result["paymentRequest"]["status"] == "VOID"
    assert stripe.sessions[session]["status"] == "expired"
    assert await kinds(shop, maria) == ["PAYMENT_REQUEST", "REQUEST_VOIDED"]
    async with shop.product.browser() as browser:
        await browser.open(request["checkoutUrl"])
        assert browser.status == 410


async def test_a_bank_debit_in_flight_keeps_the_void_pending_and_then_wins(shop: Team, stripe: StripeServer) -> None:
    maria = await shop.contact()
    request = await sent(shop, maria)
    session = await press_pay(shop, request)
    stripe.pay_async(session)  # unknown to us yet
    result = await shop.product.ok(d.VOID, {"paymentRequestId": request["id"]})
    assert result["activityCard"] is None
    assert (result["paymentRequest"]["status"], result["paymentRequest"]["voidPending"]) == ("PROCESSING", True)
    assert await post(shop, stripe, stripe.async_succeed(session)) == 200
    now = await settled(shop, request, status="PAID")
    assert now["voidPending"] is False
    assert (await kinds(shop, maria))[-1] == "PAYMENT_RECEIVED"


async def test_money_after_the_void_is_late_and_never_lost(shop: Team, stripe: StripeServer) -> None:
    maria = await shop.contact()
    request = await sent(shop, maria)
    session = await press_pay(shop, request)
    await shop.product.ok(d.VOID, {"paymentRequestId": request["id"]})
    # A checkout that survived its expiry at the vendor.
    stripe.sessions[session]["status"] = "open"
    assert await post(shop, stripe, stripe.pay(session)) == 200
    async with asyncio.timeout(10):
        while (now := await shop.read(request))["late"]["minorUnits"] == "0":
            await asyncio.sleep(0.05)
    assert (now["status"], now["late"]["minorUnits"]) == ("VOID", "12000")
    assert (await kinds(shop, maria))[-1] == "LATE_PAYMENT"
    assert await Notification.filter(kind="LATE_PAYMENT").count() == 1


@pytest.mark.parametrize(("amount", "currency"), [(11999, None), (12001, None), (None, "eur")])
async def test_a_wrong_amount_or_currency_is_kept_flagged_and_not_counted(
    shop: Team, stripe: StripeServer, amount: int | None, currency: str | None
) -> None:
    maria = await shop.contact()
    request = await sent(shop, maria)
    session = await press_pay(shop, request)
    assert await post(shop, stripe, stripe.pay(session, amount=amount, currency=currency)) == 200
    async with asyncio.timeout(10):
        while "PAYMENT_MISMATCH" not in await kinds(shop, maria):
            await asyncio.sleep(0.05)
    now = await shop.read(request)
    assert now["status"] == "SENT"
    assert now["amountPaid"]["minorUnits"] == "0"
    (payment,) = now["payments"]
    assert payment["amount"] == {
        "minorUnits": str(amount or 12000),
        "currency": (currency or "usd").upper(),
    }
    assert await Notification.filter(kind="PAYMENT_MISMATCH").count() == 1


async def test_an_async_payment_is_processing_and_then_paid(shop: Team, stripe: StripeServer) -> None:
    maria = await shop.contact()
    request = await sent(shop, maria)
    session = await press_pay(shop, request)
    assert await post(shop, stripe, stripe.pay_async(session)) == 200
    await settled(shop, request, status="PROCESSING")
    async with shop.product.browser() as browser:
        await browser.open(request["checkoutUrl"])
        # It takes days: the page offers another way, with a confirmation, and no second payment by itself.
        assert (browser.status, browser.text.count("<button")) == (200, 1)
        assert ('/another-way"' in browser.text, '/pay"' in browser.text) == (True, False)
    assert await post(shop, stripe, stripe.async_succeed(session)) == 200
    await settled(shop, request, status="PAID")
    assert await kinds(shop, maria) == ["PAYMENT_REQUEST", "PAYMENT_PROCESSING", "PAYMENT_RECEIVED"]


async def test_an_async_payment_that_fails_opens_the_request_again(shop: Team, stripe: StripeServer) -> None:
    maria = await shop.contact()
    request = await sent(shop, maria)
    session = await press_pay(shop, request)
    await post(shop, stripe, stripe.pay_async(session))
    await settled(shop, request, status="PROCESSING")
    assert await post(shop, stripe, stripe.async_fail(session)) == 200
    await settled(shop, request, status="SENT")
    assert await kinds(shop, maria) == ["PAYMENT_REQUEST", "PAYMENT_PROCESSING", "PAYMENT_FAILED"]
    assert await press_pay(shop, request) != session


async def test_a_declined_card_is_shown_and_the_link_still_works(shop: Team, stripe: StripeServer) -> None:
    maria = await shop.contact()
    request = await sent(shop, maria)
    session = await press_pay(shop, request)
    assert await post(shop, stripe, stripe.decline(session)) == 200
    async with asyncio.timeout(10):
        while (now := await shop.read(request))["lastAttempt"] is None:
            await asyncio.sleep(0.05)
    reason = "The bank declined the payment: insufficient funds."
    assert (now["status"], now["lastAttempt"]) == (
        "SENT",
        {"status": "FAILED", "declineCode": "insufficient_funds", "message": reason},
    )
    assert await kinds(shop, maria) == ["PAYMENT_REQUEST", "PAYMENT_FAILED"]
    card = (await shop.thread(maria))[-1]
    (notice,) = (await shop.product.one(d.NOTIFICATIONS, token=shop.agent))["nodes"]
    text = f"A payment of $120.00 for Deep clean did not go through. {reason} The link still works."
    assert (card["text"], notice["body"]) == (text, text)
    async with shop.product.browser() as browser:  # the contact reads no reason
        await browser.open(request["checkoutUrl"])
        assert "Your payment did not go through" in browser.text
        assert "funds" not in browser.text
    assert await press_pay(shop, request) == session
    assert await post(shop, stripe, stripe.pay(session)) == 200
    await settled(shop, request, status="PAID")


async def test_every_decline_of_one_checkout_is_told_and_the_newest_reason_stands(
    shop: Team, stripe: StripeServer
) -> None:
    maria = await shop.contact()
    request = await sent(shop, maria)
    session = await press_pay(shop, request)
    first = stripe.decline(session)
    second = stripe.decline(session, decline_code="expired_card")
    for event in (first, second, first, second):
        assert await post(shop, stripe, event) == 200
    async with asyncio.timeout(10):
        while len(await kinds(shop, maria)) < 3 or await ProcessorEvent.exists(handled_at=None):
            await asyncio.sleep(0.05)
    now = await shop.read(request)
    assert (now["status"], now["lastAttempt"]["declineCode"]) == ("SENT", "expired_card")
    notices = (await shop.product.one(d.NOTIFICATIONS, token=shop.agent))["nodes"]
    what = "A payment of $120.00 for Deep clean did not go through."
    texts = [
        f"{what} The bank declined the payment: insufficient funds. The link still works.",
        f"{what} The card has expired. The link still works.",
    ]
    assert [card["text"] for card in (await shop.thread(maria))[-2:]] == texts
    assert sorted(notice["body"] for notice in notices) == sorted(texts)
    assert await post(shop, stripe, stripe.pay(session)) == 200
    await settled(shop, request, status="PAID")
    async with asyncio.timeout(10):
        while await ProcessorEvent.exists(handled_at=None):
            await asyncio.sleep(0.05)
    assert await kinds(shop, maria) == ["PAYMENT_REQUEST", "PAYMENT_FAILED", "PAYMENT_FAILED", "PAYMENT_RECEIVED"]
    charges = await MoneyFact.filter(kind="CHARGE").order_by("id")
    assert [fact.outcome for fact in charges] == ["FAILED", "FAILED", "SUCCEEDED"]
    row = await PaymentRequest.get()
    assert (row.amount_paid_minor, row.excess_minor, row.last_attempt_status) == (12000, 0, "SUCCEEDED")


async def test_an_expired_checkout_is_replaced_silently(shop: Team, stripe: StripeServer) -> None:
    maria = await shop.contact()
    request = await sent(shop, maria)
    first = await press_pay(shop, request)
    assert await post(shop, stripe, stripe.expire(first)) == 200
    second = await press_pay(shop, request)
    assert second != first
    assert await post(shop, stripe, stripe.pay(second)) == 200
    now = await settled(shop, request, status="PAID")
    assert now["amountPaid"]["minorUnits"] == "12000"


async def test_the_return_page_heals_a_lost_webhook(shop: Team, stripe: StripeServer) -> None:
    maria = await shop.contact()
    request = await sent(shop, maria)
    stripe.pay(await press_pay(shop, request))
    async with shop.product.browser() as browser:
        await browser.open(request["checkoutUrl"] + "/return")
        assert browser.url == request["checkoutUrl"]
    assert (await shop.read(request))["status"] == "PAID"


async def test_a_draft_that_is_paid_logs_both_cards(shop: Team, stripe: StripeServer) -> None:
    maria = await shop.contact()
    request = await shop.request(maria)  # copied by hand, nobody told us
    assert await post(shop, stripe, stripe.pay(await press_pay(shop, request))) == 200
    now = await settled(shop, request, status="PAID")
    assert now["sentVia"] == "LINK_COPIED"
    assert await kinds(shop, maria) == ["PAYMENT_REQUEST", "PAYMENT_RECEIVED"]


async def test_a_processor_that_is_down_is_said_and_costs_nothing(shop: Team, stripe: StripeServer) -> None:
    maria = await shop.contact()
    request = await sent(shop, maria)
    stripe.fail_next("before_500")
    async with shop.product.browser() as browser:
        await browser.open(request["checkoutUrl"])
        await browser.press("Pay")
        assert browser.status in (200, 502, 503)
        assert "try again" in browser.text.lower()
    session = await press_pay(shop, request)
    assert await post(shop, stripe, stripe.pay(session)) == 200
    now = await settled(shop, request, status="PAID")
    assert now["amountPaid"]["minorUnits"] == "12000"
