"""The vendors' example webhooks, signed as each vendor signs, sent to the running server: each ends in its expected state.

Our short examples always run; the vendors' full ones run where their specs are present.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from models.tables import ProcessorEvent
from tests.contracts import paypal_server, square_server, stripe_contract, stripe_server
from tests.contracts.openapi import vendor_file
from tests.contracts.paypal_server import PayPalServer
from tests.contracts.square_server import SquareServer
from tests.contracts.stripe_server import StripeServer
from tests.flows import documents as d
from tests.flows import harness
from tests.flows.conftest import Team
from tests.flows.harness import Product

pytestmark = pytest.mark.slow

Names = dict[str, str]  # what stands in an example -> what it is called at the vendor's fake
Event = dict[str, Any]
ASKED = "PAYMENT_REQUEST"
PAID = (ASKED, "PAYMENT_RECEIVED")


@dataclass(frozen=True)
class End:
    """A request after its example: status, refundState, disputeState, and the kinds of its cards."""

    status: str
    cards: tuple[str, ...]
    refund: str = "NONE"
    dispute: str = "NONE"


@dataclass(frozen=True)
class Example:
    """One event, what must happen at the vendor before it, and the result. `kept`: whether we store it."""

    event: Event
    before: Callable[[Vendor, str], Names]  # what the payer and the business did at the vendor; takes the checkout's id
    end: End
    paid_first: bool = False
    kept: bool = True


@dataclass
class Vendor:
    """A fake vendor with a connected team."""

    server: Any
    team: Team
    settle: Callable[[str], object]  # pays a checkout at the vendor
    paid: Callable[[str], Event]  # the event that tells it
    deliver: Callable[[Event], tuple[bytes, Mapping[str, str]]]
    opened: Callable[[str], str]  # the checkout's id in the address of the hosted page

    async def post(self, event: Event) -> int:
        body, headers = self.deliver(event)
        async with httpx2.AsyncClient() as http:
            answer = await http.post(self.team.processor["webhookUrl"], content=body, headers=dict(headers))
        return answer.status_code


def renamed(event: Event, names: Names) -> Event:
    """The event with its made-up ids replaced by those of this run."""
    text = json.dumps(event)
    for pattern, name in names.items():
        text = re.sub(pattern, name, text)
    made: Event = json.loads(text)
    return made


# ----------------------------------------------------------------------------------------------------------- examples
def stripe_examples(events: list[Event]) -> list[Example]:
    def of(server: StripeServer, session: str, **more: str) -> Names:
        intent = server.sessions[session]["payment_intent"]
        charge = server.intents[intent]["latest_charge"] if intent else "ch_none"
        return {r"cs_test_a1PayRequest\d+": session, r"pi_3PayRequest\d+": intent or "pi_none"} | {
            r"ch_3PayRequest\d+": charge,
            **more,
        }

    def after(*actions: str) -> Callable[[Vendor, str], Names]:
        def act(vendor: Vendor, session: str) -> Names:
            for action in actions:
                getattr(vendor.server, action)(session)
            return of(vendor.server, session)

        return act

    def refunded(amount: int) -> Callable[[Vendor, str], Names]:
        def act(vendor: Vendor, session: str) -> Names:
            event = vendor.server.refund(session, amount=amount)
            return of(vendor.server, session, re_3PayRequest0001=event["data"]["object"]["id"])

        return act

    failed = (ASKED, "PAYMENT_FAILED")
    given = (*PAID, "REFUND_ISSUED")
    dispute = {"paid_first": True, "before": after()}
    wanted: list[dict[str, Any]] = [
        {"before": after("pay"), "end": End("PAID", PAID)},
        {"before": after("pay_async"), "end": End("PROCESSING", (ASKED, "PAYMENT_PROCESSING"))},
        {"before": after("pay_async", "async_succeed"), "end": End("PAID", PAID)},
        {"before": after("pay_async", "async_fail"), "end": End("SENT", failed)},
        {"before": after("expire"), "end": End("SENT", (ASKED,))},
        {"before": after("pay"), "end": End("PAID", PAID)},
        {"before": after("decline"), "end": End("SENT", failed)},
        {"before": refunded(1000), "end": End("PAID", given, refund="PARTIAL"), "paid_first": True},
        {"before": refunded(2500), "end": End("PAID", given, refund="FULL"), "paid_first": True},
        {"before": refunded(1000), "end": End("PAID", given, refund="PARTIAL"), "paid_first": True},
        dispute | {"end": End("PAID", (*PAID, "DISPUTE_OPENED"), dispute="NEEDS_RESPONSE")},
        dispute | {"end": End("PAID", (*PAID, "DISPUTE_CLOSED"), dispute="LOST")},
        {"before": after(), "end": End("SENT", (ASKED,)), "kept": False},  # of a Connect account that is not ours
    ]
    return [Example(event=event, **one) for event, one in zip(events, wanted, strict=True)]


def paypal_examples(events: list[Event]) -> list[Example]:
    def names(server: PayPalServer, order: str, **more: str) -> Names:
        payments = server.orders[order]["purchase_units"][0].get("payments")
        capture = payments["captures"][0]["id"] if payments else "3C6NONE"
        return {"5O190127TN364715T": order, "3C679366HH908993F": capture} | more

    def approved(vendor: Vendor, order: str) -> Names:
        vendor.server.approve(order)
        return names(vendor.server, order)

    def captured(outcome: str) -> Callable[[Vendor, str], Names]:
        def act(vendor: Vendor, order: str) -> Names:
            vendor.server.approve(order)
            vendor.server.capture_now(order, outcome)
            return names(vendor.server, order)

        return act

    def refunded(example_id: str, value: str) -> Callable[[Vendor, str], Names]:
        def act(vendor: Vendor, order: str) -> Names:
            made = vendor.server.refund_now(order, {"currency_code": "USD", "value": value})
            return names(vendor.server, order, **{example_id: made["id"]})

        return act

    given = (*PAID, "REFUND_ISSUED")
    wanted: list[dict[str, Any]] = [
        {"before": approved, "end": End("PAID", PAID)},  # by our capture
        {"before": captured("COMPLETED"), "end": End("PAID", PAID)},
        {"before": captured("PENDING"), "end": End("PROCESSING", (ASKED, "PAYMENT_PROCESSING"))},
        {"before": captured("DECLINED"), "end": End("SENT", (ASKED, "PAYMENT_FAILED"))},
        {
            "before": refunded("1JU08902781691411", "10.00"),
            "end": End("PAID", given, refund="PARTIAL"),
            "paid_first": True,
        },
        {
            "before": refunded("9AB08902781691411", "25.00"),
            "end": End("PAID", given, refund="FULL"),
            "paid_first": True,
        },
    ]
    return [Example(event=event, **one) for event, one in zip(events, wanted, strict=True)]


def square_examples(events: list[Event]) -> list[Example]:
    def names(server: SquareServer, checkout: str, **more: str) -> Names:
        order = checkout.split(".")[1]
        payments = [p["id"] for p in server.payments.values() if p["order_id"] == order]
        return {"03O3USaPaAaFnI6kkwB1JxGgBsUZY": order, "hYy9pRFVxpDsO1FB05SunFWUe9JZY(?!_)": payments[-1]} | more

    def paid(status: str) -> Callable[[Vendor, str], Names]:
        def act(vendor: Vendor, checkout: str) -> Names:
            vendor.server.pay(checkout.split(".")[0], status=status)
            return names(vendor.server, checkout)

        return act

    def refunded(amount: int, status: str = "COMPLETED") -> Callable[[Vendor, str], Names]:
        def act(vendor: Vendor, checkout: str) -> Names:
            payment = vendor.server.payment_of(checkout.split(".")[1])["id"]
            made = vendor.server.refund_now(payment, amount)
            vendor.server.settle_refund(made["id"], status=status)
            example = "hYy9pRFVxpDsO1FB05SunFWUe9JZY_xJ0H6HQlkaCTnqhpEXwJsm"
            return {example: made["id"]} | names(vendor.server, checkout)

        return act

    def disputed(vendor: Vendor, checkout: str) -> Names:
        return names(vendor.server, checkout) | {"bVTprrwk0gygTLZ96VX1oB": "dp" + checkout.split(".")[1]}

    given = (*PAID, "REFUND_ISSUED")
    first = {"paid_first": True}
    wanted: list[dict[str, Any]] = [
        {"before": paid("COMPLETED"), "end": End("PAID", PAID)},
        {"before": paid("APPROVED"), "end": End("PROCESSING", (ASKED, "PAYMENT_PROCESSING"))},
        {"before": paid("FAILED"), "end": End("SENT", (ASKED, "PAYMENT_FAILED"))},
        first | {"before": refunded(1000), "end": End("PAID", given, refund="PARTIAL")},
        first | {"before": refunded(2500), "end": End("PAID", given, refund="FULL")},
        first | {"before": refunded(1000, "REJECTED"), "end": End("PAID", (*PAID, "REFUND_FAILED"))},
        first | {"before": disputed, "end": End("PAID", (*PAID, "DISPUTE_OPENED"), dispute="NEEDS_RESPONSE")},
        first | {"before": disputed, "end": End("PAID", (*PAID, "DISPUTE_CLOSED"), dispute="WON")},
        first | {"before": disputed, "end": End("PAID", (*PAID, "DISPUTE_CLOSED"), dispute="LOST")},
    ]
    return [Example(event=event, **one) for event, one in zip(events, wanted, strict=True)]


def sources() -> list[Any]:
    """Our examples of each vendor, and the vendors' where they are present."""
    found = [
        ("stripe", "ours", stripe_examples(stripe_server.small_events()["events"])),
        ("paypal", "ours", paypal_examples(paypal_server.small_events()["events"])),
        ("square", "ours", square_examples(square_server.small_events())),
    ]
    for name, file, make in (
        ("stripe", stripe_server.EVENTS_FILE, stripe_examples),
        ("paypal", paypal_server.EVENTS_FILE, paypal_examples),
    ):
        if (theirs := vendor_file(file)) is not None:
            found.append((name, "theirs", make(theirs["events"])))
    return [pytest.param(name, examples, id=f"{name}-{whose}") for name, whose, examples in found]


# ------------------------------------------------------------------------------------------------------------ vendors
@pytest.fixture
async def servers() -> AsyncIterator[dict[str, Any]]:
    async with AsyncExitStack() as stack:
        made: dict[str, Any] = {
            "stripe": StripeServer(stripe_contract.contracts()[0]),
            "paypal": PayPalServer(paypal_server.contracts()[0]),
            "square": SquareServer(square_server.contracts()[0]),
        }
        for server in made.values():
            await stack.enter_async_context(server)
        yield made
        assert [server.violations for server in made.values()] == [[], [], []]


@pytest.fixture
async def product(database: str, events_url: str, servers: dict[str, Any]) -> AsyncIterator[Product]:
    addresses = {f"{name.upper()}_API_BASE": server.url for name, server in servers.items()}
    async with harness.in_process(database, events_url, **addresses) as running:
        yield running


async def connect(team: Team, server: Any) -> Vendor:
    """The team's connection to this vendor, with the secret that signs its webhooks."""
    kind, credentials, more = {
        StripeServer: (
            "STRIPE",
            {"secret_key": stripe_server.SECRET_KEY, "webhook_secret": stripe_server.WEBHOOK_SECRET},
            {},
        ),
        PayPalServer: (
            "PAYPAL",
            {
                "client_id": paypal_server.CLIENT_ID,
                "client_secret": paypal_server.CLIENT_SECRET,
                "webhook_id": paypal_server.WEBHOOK_ID,
            },
            {"testMode": True},
        ),
        SquareServer: (
            "SQUARE",
            {
                "access_token": square_server.ACCESS_TOKEN,
                "location_id": square_server.LOCATION_ID,
                "webhook_signature_key": square_server.SIGNATURE_KEY,
            },
            {"testMode": True},
        ),
    }[type(server)]
    given = {"credentials": d.keys_of(kind, credentials), **more}
    team.processor = (await team.product.ok(d.CONFIGURE_PROCESSOR, given, token=team.owner))["processor"]
    if isinstance(server, StripeServer):
        return Vendor(
            server,
            team,
            settle=server.pay,
            paid=lambda session: server.events[-1],
            deliver=server.webhook,
            opened=lambda url: url.rsplit("/", 1)[1].split("#")[0],
        )
    if isinstance(server, PayPalServer):

        def take(order: str) -> None:
            server.approve(order)
            server.capture_now(order)

        return Vendor(
            server,
            team,
            settle=take,
            paid=server.capture_event,
            deliver=server.webhook,
            opened=lambda url: url.rsplit("token=", 1)[1],
        )

    def signed(event: Event) -> tuple[bytes, Mapping[str, str]]:
        body = json.dumps(event).encode()
        signature = square_server.sign(body, url=team.processor["webhookUrl"])
        return body, {"content-type": "application/json", "x-square-hmacsha256-signature": signature}

    def checkout_of(url: str) -> str:
        link_id = url.rsplit("/", 1)[1]
        return f"{link_id}.{server.links[link_id]['order_id']}"

    return Vendor(
        server,
        team,
        settle=lambda checkout: server.pay(checkout.split(".")[0]),
        paid=lambda checkout: server.payment_event(server.payment_of(checkout.split(".")[1])["id"]),
        deliver=signed,
        opened=checkout_of,
    )


async def stands(vendor: Vendor, request: dict[str, Any], contact: dict[str, Any], end: End, *, label: str) -> None:
    """Wait until the request is in this state; then its cards must be these."""

    async def now() -> End:
        found = await vendor.team.read(request)
        cards = tuple(kind for kind, _ in await vendor.team.cards(contact))
        return End(found["status"], cards, found["refundState"], found["disputeState"])

    try:
        async with asyncio.timeout(15):
            while await now() != end:
                await asyncio.sleep(0.05)
    except TimeoutError:
        assert (label, await now()) == (label, end)


@pytest.mark.parametrize(("name", "examples"), sources())
async def test_every_example_ends_in_its_state(
    bare: Team, servers: dict[str, Any], name: str, examples: list[Example]
) -> None:
    await bare.connect_channels()
    vendor = await connect(bare, servers[name])
    for n, example in enumerate(examples):
        label = f"{n}: {example.event.get('type') or example.event.get('event_type')}"
        contact = await bare.contact(f"Payer {n}", n=n)
        request = await bare.request(contact, amount={"amount": "25.00"})
        await bare.send(request)
        async with httpx2.AsyncClient() as payer:
            headers = {"Origin": bare.product.base_url}
            answer = await payer.post(request["checkoutUrl"] + "/pay", headers=headers, follow_redirects=False)
        assert answer.status_code == 303, label
        checkout = vendor.opened(answer.headers["location"])
        if example.paid_first:
            vendor.settle(checkout)
            assert await vendor.post(vendor.paid(checkout)) == 200, label
            await stands(vendor, request, contact, End("PAID", PAID), label=f"{label} (paid first)")
        today = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        names = example.before(vendor, checkout) | {
            r"pr_000\d": request["id"],
            '(?<="created_at": ")2026-11-23T12:00:00.000Z': today,  # Square signs no other time
            r"dp_1PayRequest\d+": f"dp_{n}",
        }
        event = renamed(example.event, names)
        for _ in range(2):  # vendors repeat themselves
            assert await vendor.post(event) == 200, label
        await stands(vendor, request, contact, example.end, label=label)
        kept = await ProcessorEvent.filter(external_id=event.get("id") or event["event_id"])
        assert len(kept) == int(example.kept), label
        assert [one for one in kept if one.handled_at is None] == [], label
        await stands(vendor, request, contact, example.end, label=label)
    body, signature = vendor.deliver(examples[0].event)
    async with httpx2.AsyncClient() as stranger:
        answer = await stranger.post(bare.processor["webhookUrl"], content=body + b" ", headers=dict(signature))
    assert answer.status_code == 400
