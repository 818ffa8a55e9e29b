"""Payments of another amount, at fake Stripe, PayPal and Square: the page, the decision, the vendor's totals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from models.tables import Job, MoneyFact, ProcessorEvent
from services.core import jobs
from services.payments import integrity_check, projection
from tests.contracts import square_server
from tests.flows import documents as d
from tests.flows import harness, vendors
from tests.flows.conftest import Team
from tests.flows.harness import Product, key
from tests.flows.vendors import Vendors, all_vendors, connect_processor, press_pay

pytestmark = pytest.mark.slow

PROCESSORS = ("STRIPE", "PAYPAL", "SQUARE")
ACTIONS = "query($id: ID!) { paymentRequest(id: $id) { availableActions { action } } }"


class Desk:
    """One vendor: it takes other amounts on a checkout and reports what it kept."""

    def __init__(self, kind: str, all_of_them: Vendors, webhook_url: str) -> None:
        self.kind, self.all, self.url = kind, all_of_them, webhook_url
        self.orders: list[str] = []  # of Square, by link

    async def pays(self, location: str, amount: int, currency: str = "USD") -> str:
        """The payer is led there and pays this sum; its webhook arrives. Gives the checkout as the vendor calls it."""
        if self.kind == "STRIPE":
            checkout = location.rsplit("/", 1)[1].split("#")[0]
            event = self.all.stripe.pay(checkout, amount=amount, currency=currency.lower())
            await self.tell(*self.all.stripe.webhook(event))
        elif self.kind == "PAYPAL":
            checkout = parse_qs(urlsplit(location).query)["token"][0]
            self.all.paypal.approve(checkout)
            self.all.paypal.capture_now(checkout, value=f"{amount / 100:.2f}", currency=currency)
            await self.tell(*self.all.paypal.webhook(self.all.paypal.capture_event(checkout)))
        else:
            checkout = urlsplit(location).path.rpartition("/")[2]
            self.orders.append(self.all.square.links[checkout]["order_id"])
            await self.tell_square(self.all.square.pay(checkout, amount=amount, currency=currency))
        return checkout

    async def tell(self, body: bytes, headers: dict[str, str]) -> None:
        assert (await vendors.post(self.url, body, headers)).status_code == 200

    async def tell_square(self, event: dict[str, Any]) -> None:
        body, headers = self.all.square.webhook(event)
        signature = square_server.sign(body, square_server.SIGNATURE_KEY, self.url)
        await self.tell(body, headers | {"x-square-hmacsha256-signature": signature})

    async def refunds_arrive(self) -> None:
        """Square's refunds are under way at first."""
        for refund in list(self.all.square.refunds.values()):
            if refund["status"] == "PENDING":
                await self.tell_square(self.all.square.settle_refund(refund["id"]))

    def kept(self) -> dict[str, int]:
        """By currency: what the vendor took for the business, less what it gave back; from its own book."""
        moneys: list[tuple[str, int]] = []
        if self.kind == "STRIPE":
            charges = [charge for charge in self.all.stripe.charges.values() if charge["status"] == "succeeded"]
            moneys += [(one["currency"].upper(), one["amount"]) for one in charges]
            back = [refund for refund in self.all.stripe.refunds.values() if refund["status"] == "succeeded"]
            moneys += [(one["currency"].upper(), -one["amount"]) for one in back]
        elif self.kind == "PAYPAL":
            for order in self.all.paypal.orders.values():
                paid = order["purchase_units"][0].get("payments", {})
                for sign, things in ((1, paid.get("captures", ())), (-1, paid.get("refunds", ()))):
                    moneys += [
                        (thing["amount"]["currency_code"], sign * round(float(thing["amount"]["value"]) * 100))
                        for thing in things
                    ]
        else:
            for payment in self.all.square.payments.values():
                money = payment["total_money"]
                moneys.append((money["currency"], money["amount"] - payment["refunded_money"]["amount"]))
        sums: dict[str, int] = {}
        for currency, amount in moneys:
            sums[currency] = sums.get(currency, 0) + amount
        return {currency: amount for currency, amount in sums.items() if amount}


@pytest.fixture
async def them() -> AsyncIterator[Vendors]:
    async with all_vendors() as running:
        yield running


@pytest.fixture
async def product(database: str, events_url: str, them: Vendors) -> AsyncIterator[Product]:
    """The server. After the test, the integrity check must find no difference."""
    async with harness.in_process(database, events_url, **them.addresses) as running:
        yield running
        assert [str(difference) for difference in await integrity_check.audit()] == []
        for server in (them.stripe, them.paypal, them.square):
            assert server.violations == []


async def until(team: Team, request: dict[str, Any], true_of: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait until this is true of the request."""
    async with asyncio.timeout(20):
        while not true_of(now := await shown(team, request)):
            await asyncio.sleep(0.05)
    return now


async def shown(team: Team, request: dict[str, Any]) -> dict[str, Any]:
    fields = """id status amountPaid { minorUnits } amountDue { minorUnits } waived { minorUnits } excess { minorUnits }
      refundState unresolved { minorUnits currency } payments { id kind status counted amount { minorUnits currency } methodSummary }"""
    found = await team.product.one(
        f"query($id: ID!) {{ paymentRequest(id: $id) {{ {fields} }} }}", {"id": request["id"]}, token=team.owner
    )
    return dict(found)


async def resolve(team: Team, request: dict[str, Any], resolution: str) -> dict[str, Any]:
    given = {"idempotencyKey": key(), "paymentRequestId": request["id"], "resolution": resolution}
    payload: dict[str, Any] = await team.product.one(d.RESOLVE, {"input": given}, token=team.owner)
    return payload


async def asked(team: Team, desk: Desk, contact: dict[str, Any]) -> dict[str, Any]:
    request = await team.request(contact)
    await team.send(request)
    return request


def ours(now: dict[str, Any]) -> dict[str, int]:
    """By currency: what arrived less what went back, as the API tells it."""
    sums: dict[str, int] = {}
    for payment in now["payments"]:
        if payment["status"] == "SUCCEEDED" and payment["kind"] in ("CHARGE", "REFUND"):
            amount = int(payment["amount"]["minorUnits"]) * (1 if payment["kind"] == "CHARGE" else -1)
            sums[payment["amount"]["currency"]] = sums.get(payment["amount"]["currency"], 0) + amount
    return {currency: amount for currency, amount in sums.items() if amount}


async def page(request: dict[str, Any]) -> str:
    async with httpx2.AsyncClient() as contact:
        answer = await contact.get(request["checkoutUrl"])
    assert answer.status_code == 200
    return answer.text.replace("&#39;", "'")


async def quiet() -> None:
    """Wait until all webhooks are handled."""
    async with asyncio.timeout(20):
        while await ProcessorEvent.exists(handled_at=None) or await Job.exists(kind="refund.settle", status="running"):
            await asyncio.sleep(0.05)


# Of the three sums of one story each: what comes, the decision, the end: status, paid, waived, excess, refundState.
STORIES = (
    (12960, "USD", "REFUND_DIFFERENCE", ("PAID", 12960, 0, 0, "PARTIAL"), "$129.60"),
    (10000, "USD", "ACCEPT_AS_PAID", ("PAID", 10000, 2000, 0, "NONE"), "$100.00"),
    (11000, "EUR", "ACCEPT_AS_PAID", ("PAID", 0, 12000, 0, "NONE"), "€110.00"),
    (10000, "USD", "ACCEPT_AS_PART", ("PARTIALLY_PAID", 10000, 0, 0, "NONE"), "$100.00"),
)


@pytest.mark.parametrize("kind", PROCESSORS)
async def test_another_sum_locks_the_link_until_the_team_decides_and_totals_are_the_vendors(
    bare: Team, them: Vendors, kind: str
) -> None:
    await bare.connect_channels()
    bare.processor = await connect_processor(bare, them, kind)
    desk = Desk(kind, them, bare.processor["webhookUrl"])
    maria = await bare.contact()
    total: dict[str, int] = {}
    for amount, currency, resolution, end, said in STORIES:
        request = await asked(bare, desk, maria)
        await desk.pays(await press_pay(bare.product, request["checkoutUrl"]), amount, currency)
        now = await until(bare, request, lambda r: bool(r["unresolved"]))
        assert now["unresolved"] == [{"minorUnits": str(amount), "currency": currency}]
        assert (now["status"], now["amountPaid"]["minorUnits"]) == ("SENT", "0")
        text = await page(request)
        assert f"asked for $120.00 and received {said}. Acme" in text
        assert "you don't need to pay again" in text
        assert "<form" not in text
        async with httpx2.AsyncClient() as contact:
            again = await contact.post(request["checkoutUrl"] + "/pay", headers={"Origin": bare.product.base_url})
        assert (again.status_code, "location" in again.headers) == (200, False)
        actions = await bare.product.one(ACTIONS, {"id": request["id"]}, token=bare.agent)
        assert "RESOLVE_MISMATCH" in [one["action"] for one in actions["availableActions"]]
        payload = await resolve(bare, request, resolution)
        assert payload["userErrors"] == []
        await desk.refunds_arrive()
        state, paid, waived, excess, refund_state = end
        now = await until(bare, request, lambda r, wanted=refund_state: r["refundState"] == wanted)  # type: ignore[misc]  # a lambda's default has no type
        await quiet()
        now = await shown(bare, request)
        money = tuple(int(now[name]["minorUnits"]) for name in ("amountPaid", "waived", "excess"))
        assert (now["status"], *money, now["refundState"]) == (state, paid, waived, excess, refund_state)
        assert now["unresolved"] == []
        for code, sum_ in ours(now).items():
            total[code] = total.get(code, 0) + sum_
        assert total == desk.kept()
        kinds = [card for card, _ in await bare.cards(maria)]
        assert kinds.count("PAYMENT_MISMATCH") == STORIES.index((amount, currency, resolution, end, said)) + 1
    # The link of the part payment asks for the rest, and that settles it.
    await desk.pays(await press_pay(bare.product, request["checkoutUrl"]), 2000)
    now = await until(bare, request, lambda r: r["status"] == "PAID")
    total["USD"] += 2000
    assert (now["amountPaid"]["minorUnits"], total) == ("12000", desk.kept())


async def test_a_gift_card_and_a_card_on_one_square_order_are_one_payment(bare: Team, them: Vendors) -> None:
    await bare.connect_channels()
    bare.processor = await connect_processor(bare, them, "SQUARE")
    desk = Desk("SQUARE", them, bare.processor["webhookUrl"])
    maria = await bare.contact()
    for order_of_arrival in ((0, 1), (1, 0), (1, 1, 0, 0)):
        request = await asked(bare, desk, maria)
        link = urlsplit(await press_pay(bare.product, request["checkoutUrl"])).path.rpartition("/")[2]
        told = [
            them.square.pay_part(link, 5000, gift_card=True),
            them.square.pay_part(link, 7000),
        ]
        for n in order_of_arrival:
            await desk.tell_square(told[n])
        now = await until(bare, request, lambda r: r["status"] == "PAID")
        await quiet()
        assert (now["amountPaid"]["minorUnits"], now["unresolved"]) == ("12000", [])
        assert [(p["amount"]["minorUnits"], p["counted"]) for p in now["payments"]] == [("5000", True), ("7000", True)]
        text = await page(request)
        assert "Square Gift Card •••• 0018, Visa •••• 4242" in text
    kinds = [card for card, _ in await bare.cards(maria)]
    assert kinds == ["PAYMENT_REQUEST", "PAYMENT_RECEIVED"] * 3
    texts = [item["text"] for item in await bare.thread(maria) if item.get("kind") == "PAYMENT_RECEIVED"]
    assert texts == ["Payment received: $120.00 for Deep clean."] * 3
    assert desk.kept() == {"USD": 36000}
    await bare.product.one(d.CONTACT, {"id": maria["id"]}, token=bare.agent)


async def test_a_gift_card_alone_locks_the_link_and_is_told_after_the_wait(bare: Team, them: Vendors) -> None:
    await bare.connect_channels()
    bare.processor = await connect_processor(bare, them, "SQUARE")
    desk = Desk("SQUARE", them, bare.processor["webhookUrl"])
    maria = await bare.contact()
    request = await asked(bare, desk, maria)
    link = urlsplit(await press_pay(bare.product, request["checkoutUrl"])).path.rpartition("/")[2]
    await desk.tell_square(them.square.pay_part(link, 5000, gift_card=True))
    await until(bare, request, lambda r: bool(r["unresolved"]))
    assert [card for card, _ in await bare.cards(maria)] == ["PAYMENT_REQUEST"]
    assert link in them.square.links  # the payer is still there
    (job,) = await Job.filter(kind="mismatch.judge")
    assert round((job.due_at - job.created_at).total_seconds()) == projection.REST_WITHIN.total_seconds() == 60
    await Job.filter(kind__in=["mismatch.judge", "checkout.expire"], status="queued").update(due_at=job.created_at)
    jobs.wake()
    async with asyncio.timeout(20):
        while "PAYMENT_MISMATCH" not in [card for card, _ in await bare.cards(maria)] or link in them.square.links:
            await asyncio.sleep(0.05)
    payload = await resolve(bare, request, "ACCEPT_AS_PART")
    assert payload["userErrors"] == []
    await desk.pays(await press_pay(bare.product, request["checkoutUrl"]), 7000)
    now = await until(bare, request, lambda r: r["status"] == "PAID")
    assert (now["amountPaid"]["minorUnits"], desk.kept()) == ("12000", {"USD": 12000})
    assert await MoneyFact.filter(kind="ACCEPTANCE").count() == 1
