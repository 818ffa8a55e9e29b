"""Refunds, disputes and offline payments, through Stripe's SDK, HTTP and signed webhooks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from integrations.kit.vendor import FailureMode
from models.tables import Job, MoneyFact, Refund
from services.payments import checkout_page, refund_outcomes
from tests.contracts.stripe_contract import contracts
from tests.contracts.stripe_server import SECRET_KEY, WEBHOOK_SECRET, StripeServer
from tests.flows import documents as d
from tests.flows import harness
from tests.flows.conftest import Team, opened
from tests.flows.harness import Product, key

SUMMARY = """query($id: ID!) { contact(id: $id) { paymentSummary {
  paid { minorUnits } refunded { minorUnits } net { minorUnits } outstanding { minorUnits } paidCount } } }"""
FEE = 378  # of 120 dollars: 2.9 % and 30 cents


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


async def post(team: Team, stripe: StripeServer, event: dict[str, Any]) -> None:
    """Stripe delivers the event."""
    body, headers = stripe.webhook(event)
    async with httpx2.AsyncClient() as vendor:
        answer = await vendor.post(team.processor["webhookUrl"], content=body, headers=headers)
    assert answer.status_code == 200


async def press_pay(team: Team, request: dict[str, Any]) -> httpx2.Response:
    async with httpx2.AsyncClient() as contact:
        return await contact.post(
            request["checkoutUrl"] + "/pay", headers={"Origin": team.product.base_url}, follow_redirects=False
        )


async def open_session(team: Team, request: dict[str, Any]) -> str:
    """The contact presses Pay; return the id of Stripe's checkout session."""
    answer = await press_pay(team, request)
    assert answer.status_code == 303, answer.text
    return answer.headers["location"].rsplit("/", 1)[1].split("#")[0]


async def paid(team: Team, stripe: StripeServer, contact: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """A request paid at Stripe, with its fee, and its session."""
    request = await team.request(contact)
    await team.send(request)
    session = await open_session(team, request)
    await post(team, stripe, stripe.pay(session))
    now = await until(team, request, lambda r: bool(r["payments"]) and r["payments"][0]["fee"] is not None)
    assert now["status"] == "PAID"
    return now, session


async def until(team: Team, request: dict[str, Any], true_of: Any) -> dict[str, Any]:
    """Wait until this is true of the request."""
    async with asyncio.timeout(15):
        while not true_of(now := await team.read(request)):
            await asyncio.sleep(0.05)
    return now


async def refund(team: Team, request: dict[str, Any], amount: str | None = None, **more: Any) -> dict[str, Any]:
    """refundPayment by the owner: the payload."""
    given = {"idempotencyKey": key(), "paymentId": request["payments"][0]["id"], "reason": "REQUESTED_BY_CONTACT"}
    if amount is not None:
        given["amount"] = amount
    payload: dict[str, Any] = await team.product.one(d.REFUND, {"input": given | more}, token=team.owner)
    return payload


async def kinds(team: Team, contact: dict[str, Any]) -> list[str]:
    return [kind for kind, _ in await team.cards(contact)]


async def told(team: Team) -> list[str]:
    """The kinds of the agent's notifications, oldest first."""
    listed = await team.product.one(d.NOTIFICATIONS, token=team.agent)
    return [n["kind"] for n in reversed(listed["nodes"])]


async def summary(team: Team, contact: dict[str, Any]) -> dict[str, int]:
    found = await team.product.one(SUMMARY, {"id": contact["id"]}, token=team.agent)
    (entry,) = found["paymentSummary"]
    return {name: int(value["minorUnits"]) if isinstance(value, dict) else value for name, value in entry.items()}


def totals(request: dict[str, Any]) -> tuple[str, str, str, list[tuple[str, str, str]]]:
    """Status, refund and dispute state, and the payments."""
    moneys = [(p["kind"], p["status"], p["amount"]["minorUnits"]) for p in request["payments"]]
    return request["status"], request["refundState"], request["disputeState"], moneys


async def test_a_whole_refund_is_a_card_live_a_message_and_the_contacts_totals(
    shop: Team, stripe: StripeServer
) -> None:
    maria = await shop.contact()
    request, _ = await paid(shop, stripe, maria)
    assert request["availableActions"] == []  # of the agent
    async with shop.inbox() as feed:
        await opened(feed)
        done = await refund(shop, request, tellContactOn=shop.channels["SMS"])
        card = await feed.until("ThreadItemAdded", edge__node__kind="REFUND_ISSUED")
    assert done["userErrors"] == []
    assert (done["refund"]["status"], done["payment"]["kind"], done["payment"]["amount"]["minorUnits"]) == (
        "SUCCEEDED",
        "REFUND",
        "12000",
    )
    assert card["edge"]["node"]["id"] == done["activityCard"]["id"]
    assert done["message"]["body"] == (
        "Acme Cleaning: we have refunded $120.00 for Deep clean. It can take some days to arrive."
    )
    assert totals(done["paymentRequest"]) == (
        "PAID",
        "FULL",
        "NONE",
        [("CHARGE", "SUCCEEDED", "12000"), ("REFUND", "SUCCEEDED", "12000")],
    )
    await post(shop, stripe, stripe.events[-1])  # the webhook of the same refund
    assert await kinds(shop, maria) == ["PAYMENT_REQUEST", "PAYMENT_RECEIVED", "REFUND_ISSUED"]
    assert await told(shop) == ["PAYMENT_RECEIVED", "REFUND_ISSUED"]
    text = "$120.00 was refunded for Deep clean."
    assert [i["text"] for i in await shop.thread(maria) if i.get("kind") == "REFUND_ISSUED"] == [text]
    newest = (await shop.product.one(d.NOTIFICATIONS, token=shop.agent))["nodes"][0]
    assert (newest["title"], newest["body"]) == ("Refund issued", text)
    assert await summary(shop, maria) == {
        "paid": 12000,
        "refunded": 12000,
        "net": -FEE,
        "outstanding": 0,
        "paidCount": 1,
    }
    await press_pay(shop, request)
    assert len(stripe.sessions) == 1  # PAID is never payable again
    sent = [i["body"] for i in await shop.thread(maria) if i["__typename"] == "Message" and "refunded" in i["body"]]
    assert len(sent) == 1
    (made,) = [c for c in stripe.calls if c.method == "POST" and c.path == "/v1/refunds"]
    row = await Refund.get()
    assert made.headers["idempotency-key"] == row.idempotency_key


async def test_parts_are_given_back_until_nothing_is_left(shop: Team, stripe: StripeServer) -> None:
    maria = await shop.contact()
    request, _ = await paid(shop, stripe, maria)
    first = await refund(shop, request, "20.00")
    assert (first["refund"]["status"], first["paymentRequest"]["refundState"]) == ("SUCCEEDED", "PARTIAL")
    second = await refund(shop, request, "30.00")
    assert (second["refund"]["status"], second["paymentRequest"]["refundState"]) == ("SUCCEEDED", "PARTIAL")
    above = await refund(shop, request, "70.01")
    assert above["userErrors"] == [
        {
            "code": "REFUND_EXCEEDS_PAYMENT",
            "message": "At most $70.00 is left of this payment.",
            "field": ["input", "amount"],
        }
    ]
    assert len(stripe.refunds) == 2
    owner_sees = await shop.product.one(d.REQUEST, {"id": request["id"]}, token=shop.owner)
    assert [a["action"] for a in owner_sees["availableActions"]] == ["REFUND"]
    assert await kinds(shop, maria) == ["PAYMENT_REQUEST", "PAYMENT_RECEIVED", "REFUND_ISSUED", "REFUND_ISSUED"]
    texts = [i["text"] for i in await shop.thread(maria) if i.get("kind") == "REFUND_ISSUED"]
    assert texts == ["$20.00 was refunded for Deep clean.", "$30.00 was refunded for Deep clean."]
    assert await told(shop) == ["PAYMENT_RECEIVED", "REFUND_ISSUED", "REFUND_ISSUED"]
    assert await summary(shop, maria) == {
        "paid": 12000,
        "refunded": 5000,
        "net": 7000 - FEE,
        "outstanding": 0,
        "paidCount": 1,
    }
    rest = await refund(shop, request)
    assert (rest["payment"]["amount"]["minorUnits"], rest["paymentRequest"]["refundState"]) == ("7000", "FULL")
    nothing = await refund(shop, request)
    assert [(e["code"], e["field"]) for e in nothing["userErrors"]] == [("NOT_REFUNDABLE", ["input", "paymentId"])]
    assert len(stripe.refunds) == 3


async def test_a_refund_at_stripes_dashboard_arrives_by_webhook(shop: Team, stripe: StripeServer) -> None:
    maria = await shop.contact()
    request, session = await paid(shop, stripe, maria)
    event = stripe.refund(session, amount=5000)
    for _ in range(3):
        await post(shop, stripe, event)
    now = await until(shop, request, lambda r: r["refundState"] == "PARTIAL")
    assert totals(now)[3] == [("CHARGE", "SUCCEEDED", "12000"), ("REFUND", "SUCCEEDED", "5000")]
    assert await kinds(shop, maria) == ["PAYMENT_REQUEST", "PAYMENT_RECEIVED", "REFUND_ISSUED"]
    assert await told(shop) == ["PAYMENT_RECEIVED", "REFUND_ISSUED"]
    assert (await summary(shop, maria))["net"] == 7000 - FEE
    assert (await refund(shop, request, "70.01"))["userErrors"][0]["code"] == "REFUND_EXCEEDS_PAYMENT"
    assert await Refund.all().count() == 0


async def test_a_refund_that_fails_at_the_bank_gives_the_totals_back(shop: Team, stripe: StripeServer) -> None:
    maria = await shop.contact()
    request, _ = await paid(shop, stripe, maria)
    done = await refund(shop, request, "50.00")
    assert done["paymentRequest"]["refundState"] == "PARTIAL"
    (money,) = stripe.refunds.values()
    money |= {"status": "failed", "failure_reason": "expired_or_canceled_card"}
    failed = stripe.event("refund.failed", money)
    for _ in range(2):
        await post(shop, stripe, failed)
    now = await until(shop, request, lambda r: r["refundState"] == "NONE")
    assert totals(now)[3] == [("CHARGE", "SUCCEEDED", "12000"), ("REFUND", "FAILED", "5000")]
    assert await kinds(shop, maria) == ["PAYMENT_REQUEST", "PAYMENT_RECEIVED", "REFUND_ISSUED", "REFUND_FAILED"]
    assert await told(shop) == ["PAYMENT_RECEIVED", "REFUND_ISSUED", "REFUND_FAILED"]
    assert (await summary(shop, maria))["net"] == 12000 - FEE
    row = await Refund.get()
    assert (row.status, row.failure_reason) == ("FAILED", "The card has expired or was canceled.")
    newest = (await shop.product.one(d.NOTIFICATIONS, token=shop.agent))["nodes"][0]
    text = "A refund of $50.00 for Deep clean failed. The card has expired or was canceled."
    assert (newest["title"], newest["body"]) == ("Refund failed", text)
    again = await refund(shop, request)  # all of it is left again
    assert (again["refund"]["status"], again["payment"]["amount"]["minorUnits"]) == ("SUCCEEDED", "12000")


@pytest.mark.parametrize("mode", ["accept_then_500", "drop", "hang"])
async def test_an_answer_that_is_lost_ends_in_exactly_one_refund(
    shop: Team, stripe: StripeServer, mode: FailureMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refund_outcomes, "ANSWER_WITHIN_S", 1.0)
    maria = await shop.contact()
    request, _ = await paid(shop, stripe, maria)
    stripe.fail_next(mode, match=lambda call: call.path == "/v1/refunds")
    async with shop.inbox() as feed:
        await opened(feed)
        done = await refund(shop, request, "50.00")
        seen = [(await feed.until("PaymentRequestUpdated"))["paymentRequest"]["refunds"][0] for _ in range(2)]
    # An open inbox sees the same object change; it is read again by its id.
    assert seen[-1] == {"id": done["refund"]["id"], "status": "UNKNOWN"}
    read_again = "query($id: ID!) { node(id: $id) { ... on Refund { id status } } }"
    assert await shop.product.one(read_again, {"id": done["refund"]["id"]}, token=shop.agent) == done["refund"]
    assert (done["userErrors"], done["refund"]["status"], done["payment"], done["activityCard"]) == (
        [],
        "UNKNOWN",
        None,
        None,
    )
    assert (await refund(shop, request, "70.01"))["userErrors"][0]["code"] == "REFUND_EXCEEDS_PAYMENT"
    await Job.filter(kind="refund.settle").update(due_at=datetime.now(UTC))
    now = await until(shop, request, lambda r: r["refundState"] == "PARTIAL")
    assert totals(now)[3] == [("CHARGE", "SUCCEEDED", "12000"), ("REFUND", "SUCCEEDED", "5000")]
    assert len(stripe.refunds) == 1
    asked = [c.headers["idempotency-key"] for c in stripe.calls if (c.method, c.path) == ("POST", "/v1/refunds")]
    assert len(set(asked)) == 1
    assert (await Refund.get()).status == "SUCCEEDED"
    assert [(r["id"], r["status"]) for r in now["refunds"]] == [(done["refund"]["id"], "SUCCEEDED")]
    assert await kinds(shop, maria) == ["PAYMENT_REQUEST", "PAYMENT_RECEIVED", "REFUND_ISSUED"]


async def test_a_refund_that_is_wordsbefore_its_charge_counts_when_the_charge_is_told(
    shop: Team, stripe: StripeServer
) -> None:
    maria = await shop.contact()
    request = await shop.request(maria)
    await shop.send(request)
    session = await open_session(shop, request)
    charge = stripe.pay(session)
    await post(shop, stripe, stripe.refund(session, amount=2000))
    await post(shop, stripe, charge)
    now = await until(shop, request, lambda r: r["refundState"] == "PARTIAL" and r["status"] == "PAID")
    assert sorted(totals(now)[3]) == [("CHARGE", "SUCCEEDED", "12000"), ("REFUND", "SUCCEEDED", "2000")]
    found = await kinds(shop, maria)
    assert sorted(found) == ["PAYMENT_RECEIVED", "PAYMENT_REQUEST", "REFUND_ISSUED"]


# On one engine: every order runs on both in tests/services/payments/test_dispute_orders.py.
@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_signed_words_of_a_dispute_end_in_the_latest_whatever_comes_first(
    shop: Team, stripe: StripeServer
) -> None:
    maria = await shop.contact()
    request, session = await paid(shop, stripe, maria)
    begun = datetime.now(UTC) - timedelta(seconds=200)
    words = []
    vendor: Any = stripe
    for n, status in enumerate(("warning_needs_response", "needs_response", "lost", "under_review", "won")):
        vendor.now = lambda at=begun + timedelta(seconds=30 * n): at
        words.append(stripe.dispute(session, status=status))
    vendor.now = lambda: datetime.now(UTC)
    for event in (words[2], words[-1], words[0], *words, *reversed(words)):
        await post(shop, stripe, event)
    now = await until(shop, request, lambda r: r["disputeState"] == "WON")
    assert await MoneyFact.filter(kind="DISPUTE").count() == 5
    assert (await kinds(shop, maria))[2:] == ["DISPUTE_CLOSED", "DISPUTE_CLOSED"]  # lost, then won
    assert (await refund(shop, now))["userErrors"] == []


@pytest.mark.parametrize(
    ("status", "state", "lost", "words"),
    [("won", "WON", 0, "won. The money stays."), ("lost", "LOST", 12000, "lost. The money goes back to the contact.")],
)
async def test_a_dispute_is_opened_and_closed(
    shop: Team, stripe: StripeServer, status: str, state: str, lost: int, words: str
) -> None:
    maria = await shop.contact()
    request, session = await paid(shop, stripe, maria)
    assert request["disputes"] == []
    await post(shop, stripe, stripe.dispute(session, due_by=datetime(2026, 12, 7, 23, 59, 59, tzinfo=UTC)))
    now = await until(shop, request, lambda r: r["disputeState"] == "NEEDS_RESPONSE")
    (opened,) = now["disputes"]
    opened_at = opened.pop("openedAt")
    assert (now["status"], opened) == (
        "PAID",
        {
            "id": opened["id"],
            "state": "NEEDS_RESPONSE",
            "amount": {"minorUnits": "12000"},
            "reason": "FRAUDULENT",
            "responseDueAt": "2026-12-07T23:59:59Z",
            "closedAt": None,
        },
    )
    assert (await refund(shop, request))["userErrors"][0]["code"] == "NOT_REFUNDABLE"
    closed = stripe.dispute(session, status=status)
    for _ in range(2):
        await post(shop, stripe, closed)
    now = await until(shop, request, lambda r: r["disputeState"] == state)
    assert (now["status"], now["amountPaid"]["minorUnits"]) == ("PAID", "12000")
    (ended,) = now["disputes"]
    assert (ended["id"], ended["state"], ended["responseDueAt"], ended["openedAt"]) == (
        opened["id"],
        state,
        None,
        opened_at,
    )
    assert ended["closedAt"] >= opened_at
    assert await kinds(shop, maria) == ["PAYMENT_REQUEST", "PAYMENT_RECEIVED", "DISPUTE_OPENED", "DISPUTE_CLOSED"]
    texts = [
        "The contact's bank disputes $120.00 for Deep clean: fraudulent. Answer by December 7, 2026, 23:59 UTC.",
        f"The dispute over $120.00 for Deep clean was {words}",
    ]
    assert [i["text"] for i in await shop.thread(maria) if i.get("kind", "").startswith("DISPUTE")] == texts
    assert await told(shop) == ["PAYMENT_RECEIVED", "DISPUTE_OPENED", "DISPUTE_CLOSED"]
    listed = await shop.product.one(d.NOTIFICATIONS, token=shop.agent)
    assert [(n["title"], n["body"]) for n in listed["nodes"][1::-1]] == [
        ("Payment disputed", texts[0]),
        ("Dispute closed", texts[1]),
    ]
    assert await summary(shop, maria) == {
        "paid": 12000,
        "refunded": 0,
        "net": 12000 - FEE - lost,
        "outstanding": 0,
        "paidCount": 1,
    }
    assert stripe.refunds == {}


async def test_cash_is_recorded_live_closes_the_checkout_and_can_be_undone(shop: Team, stripe: StripeServer) -> None:
    maria = await shop.contact()
    request = await shop.request(maria)
    await shop.send(request)
    session = await open_session(shop, request)
    given = {"idempotencyKey": key(), "paymentRequestId": request["id"], "method": "CASH", "note": "At the door"}
    async with shop.inbox() as feed:
        await opened(feed)
        done = await shop.product.ok(d.RECORD_OUTSIDE, given, token=shop.agent)
        await shop.until_paid(feed, request)
    payment = done["payment"]
    assert (payment["kind"], payment["status"], payment["processorKind"], payment["processorReference"]) == (
        "CHARGE",
        "SUCCEEDED",
        None,
        None,
    )
    assert (payment["methodSummary"], payment["note"], payment["amount"]["minorUnits"]) == (
        "Cash",
        "At the door",
        "12000",
    )
    assert done["activityCard"]["kind"] == "RECORDED_OUTSIDE"
    async with asyncio.timeout(15):
        while stripe.sessions[session]["status"] != "expired":
            await asyncio.sleep(0.05)
    assert (await summary(shop, maria))["paid"] == 12000
    undone = await shop.product.ok(d.UNDO_OUTSIDE, {"paymentId": payment["id"]}, token=shop.agent)
    assert totals(undone["paymentRequest"]) == ("SENT", "NONE", "NONE", [("CHARGE", "CANCELED", "12000")])
    assert await summary(shop, maria) == {"paid": 0, "refunded": 0, "net": 0, "outstanding": 12000, "paidCount": 0}
    assert await open_session(shop, request) != session
    assert await kinds(shop, maria) == ["PAYMENT_REQUEST", "RECORDED_OUTSIDE", "RECORDED_OUTSIDE"]
    assert await told(shop) == []


async def test_what_older_versions_and_the_dashboard_tell_by_other_events_is_taken(
    shop: Team, stripe: StripeServer
) -> None:
    maria = await shop.contact()
    request, session = await paid(shop, stripe, maria)
    made = stripe.refund(session, amount=5000)
    await post(shop, stripe, made)
    await until(shop, request, lambda r: r["refundState"] == "PARTIAL")
    # An endpoint with an API version before 2024-10-28 reports a refund's failure only in this way.
    refund_now = made["data"]["object"] | {"status": "failed", "failure_reason": "expired_or_canceled_card"}
    await post(shop, stripe, stripe.event("charge.refund.updated", refund_now))
    now = await until(shop, request, lambda r: r["refundState"] == "NONE")
    assert totals(now)[3] == [("CHARGE", "SUCCEEDED", "12000"), ("REFUND", "FAILED", "5000")]
    assert (await kinds(shop, maria))[-2:] == ["REFUND_ISSUED", "REFUND_FAILED"]
    # A pending bank debit that the business cancels.
    second = await shop.request(maria)
    await shop.send(second)
    debit = await open_session(shop, second)
    await post(shop, stripe, stripe.pay_async(debit))
    await until(shop, second, lambda r: r["status"] == "PROCESSING")
    intent = stripe.intents[stripe.sessions[debit]["payment_intent"]]
    intent |= {"status": "canceled", "cancellation_reason": "requested_by_customer"}
    await post(shop, stripe, stripe.event("payment_intent.canceled", intent))
    await until(shop, second, lambda r: r["status"] == "SENT")
    assert (await kinds(shop, maria))[-2:] == ["PAYMENT_PROCESSING", "PAYMENT_FAILED"]


async def test_a_checkout_on_the_accounts_own_domain_is_led_to(shop: Team, stripe: StripeServer) -> None:
    stripe.domain = "https://checkout.acme.example"
    maria = await shop.contact()
    request = await shop.request(maria)
    await shop.send(request)
    link, origin = request["checkoutUrl"], shop.product.base_url

    async def policy() -> str:
        async with httpx2.AsyncClient() as contact:
            page = await contact.get(link)
        return next(p for p in page.headers["content-security-policy"].split("; ") if p.startswith("form-action"))

    assert "acme" not in await policy()
    async with httpx2.AsyncClient() as browser:
        # The page of this press did not name the domain: a browser is led on by a page, not by a redirect that it would refuse.
        first = await browser.post(link + "/pay", headers={"Origin": origin, "Sec-Fetch-Dest": "document"})
    assert first.status_code == 200
    assert '<meta http-equiv="refresh" content="0; url=https://checkout.acme.example/c/pay/' in first.text
    assert "https://checkout.acme.example" in (await policy()).split()
    assert (await press_pay(shop, request)).headers["location"].startswith("https://checkout.acme.example/c/pay/")
    assert len(stripe.sessions) == 1
    # The connection's next request names it before its first press.
    link = (await shop.request(maria))["checkoutUrl"]
    assert "https://checkout.acme.example" in (await policy()).split()


def test_only_https_addresses_get_into_the_policy() -> None:
    given = {
        "https://Pay.Acme.example:8443/c/1?x#y": "https://pay.acme.example:8443",
        "https://pay.acme.example": "https://pay.acme.example",
        "http://pay.acme.example/c": None,
        "https://a.example; script-src *": None,
        "https://user@evil.example/": None,
        "https://*.example/": None,
        "https:///c": None,
        "javascript:alert(1)": None,
    }
    assert {url: checkout_page.origin_of(url) for url in given} == given
