"""PayPal and Square from the settings to the last refund, over HTTP, checked by the vendor's contract, with signed webhooks.

Each test runs for both; `PayPalDesk` and `SquareDesk` hold the differences.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from strawberry.utils.str_converters import to_camel_case
from tortoise.expressions import Q

from models.tables import Job, MoneyFact, Notification, ProcessorConnection, ProcessorEvent, Refund, Tick
from services.payments import integrity_check
from tests.contracts import paypal_server, square_server
from tests.contracts.openapi import Call, ContractServer
from tests.contracts.paypal_server import PayPalServer
from tests.contracts.square_server import SquareServer
from tests.flows import documents as d
from tests.flows import harness
from tests.flows.conftest import Team, opened
from tests.flows.harness import Product, key

SWEEPING = {"SWEEPER_FIRST_CHECK_S": "0.01", "SWEEPER_EVERY_S": "0.01"}
SETTINGS = "{ account { paymentSettings { processors { id kind provider connected testMode isDefault lastError lastWebhookAt } } } }"
TEST = f"mutation($input: TestProcessorInput!) {{ testProcessor(input: $input) {{ processor {{ id lastError }} {d.ERRORS} }} }}"
SUMMARY = """query($id: ID!) { contact(id: $id) { paymentSummary { currency testMode
  paid { minorUnits } refunded { minorUnits } net { minorUnits } outstanding { minorUnits } paidCount } } }"""
Event = dict[str, Any]


# --------------------------------------------------------------------------------------------------------------- desks
class Desk(Protocol):
    """A vendor's side, with one interface for all vendors."""

    kind: str
    credentials: dict[str, str]
    wrong: dict[
        str, tuple[str, str]
    ]  # credential -> a value that is refused, and the credential that the refusal names
    fee: int  # minor units, of every charge

    @property
    def server(self) -> ContractServer: ...

    def checkout(self, location: str) -> str:
        """The vendor's id of the checkout of its page."""

    def agree(self, checkout: str) -> Event:
        """The payer approves and pays; return the vendor's webhooks."""

    def told(self, checkout: str) -> Event:
        """The vendor's webhooks about the payment's current state."""

    def made_refunds(self) -> int:
        """The number of refunds at the vendor."""

    def refund(self, checkout: str, minor: int) -> Event:
        """A completed refund in the vendor's dashboard."""

    def arrive(self) -> list[Event]:
        """Complete the requested refunds; return the vendor's webhooks."""

    def dispute(self, checkout: str, state: str) -> Event:
        """OPEN, WON or LOST."""

    def signed(self, event: Event, url: str) -> tuple[bytes, dict[str, str]]:
        """The delivery of an event to this address, signed as its registered webhook requires."""

    def addresses(self) -> list[str]:
        """The addresses of the registered webhooks."""


class PayPalDesk:
    """Orders; the money moves by our capture."""

    kind = "PAYPAL"
    credentials = {
        "client_id": paypal_server.CLIENT_ID,
        "client_secret": paypal_server.CLIENT_SECRET,
        "webhook_id": paypal_server.WEBHOOK_ID,
    }
    wrong = {"client_secret": ("E-of-another-app", "client_id"), "webhook_id": ("0AA00000000000000", "webhook_id")}
    fee = 95

    def __init__(self, server: PayPalServer) -> None:
        self.paypal = server

    @property
    def server(self) -> ContractServer:
        return self.paypal

    def checkout(self, location: str) -> str:
        return parse_qs(urlsplit(location).query)["token"][0]

    def agree(self, checkout: str) -> Event:
        return self.paypal.approve(checkout)

    def told(self, checkout: str) -> Event:
        return self.paypal.capture_event(checkout)

    def made_refunds(self) -> int:
        return len(self.paypal.refunds)

    def refund(self, checkout: str, minor: int) -> Event:
        money = {"currency_code": "USD", "value": f"{minor // 100}.{minor % 100:02d}"}
        return self.paypal.event("PAYMENT.CAPTURE.REFUNDED", "refund", self.paypal.refund_now(checkout, money))

    def arrive(self) -> list[Event]:
        made = self.paypal.refunds.values()
        return [self.paypal.event("PAYMENT.CAPTURE.REFUNDED", "refund", refund) for refund in made]

    def dispute(self, checkout: str, state: str) -> Event:
        capture = self.paypal.capture_of(checkout)
        dispute: dict[str, Any] = {
            "dispute_id": "PP-D-27803",
            "disputed_transactions": [{"seller_transaction_id": capture["id"]}],
            "reason": "MERCHANDISE_OR_SERVICE_NOT_RECEIVED",
            "dispute_amount": capture["amount"],
            "status": "WAITING_FOR_SELLER_RESPONSE",
        }
        if state == "OPEN":
            return self.paypal.event("CUSTOMER.DISPUTE.CREATED", "dispute", dispute)
        code = {"WON": "RESOLVED_SELLER_FAVOUR", "LOST": "RESOLVED_BUYER_FAVOUR"}[state]
        dispute |= {"status": "RESOLVED", "dispute_outcome": {"outcome_code": code}}
        return self.paypal.event("CUSTOMER.DISPUTE.RESOLVED", "dispute", dispute)

    def signed(self, event: Event, url: str) -> tuple[bytes, dict[str, str]]:
        ours = [webhook["id"] for webhook in self.paypal.webhooks.values() if webhook["url"] == url]
        return self.paypal.webhook(event, webhook_id=ours[0] if ours else paypal_server.WEBHOOK_ID)

    def addresses(self) -> list[str]:
        return [webhook["url"] for webhook in self.paypal.webhooks.values()]


class SquareDesk:
    """Payment links; a refund is asked for and arrives later."""

    kind = "SQUARE"
    credentials = {
        "access_token": square_server.ACCESS_TOKEN,
        "location_id": square_server.LOCATION_ID,
        "webhook_signature_key": square_server.SIGNATURE_KEY,
    }
    wrong = {"access_token": ("EAAA-of-another", "access_token"), "location_id": ("L0", "location_id")}
    fee = 392

    def __init__(self, server: SquareServer) -> None:
        self.square = server
        self._orders: dict[str, str] = {}

    @property
    def server(self) -> ContractServer:
        return self.square

    def checkout(self, location: str) -> str:
        link = urlsplit(location).path.rpartition("/")[2]
        self._orders[link] = self.square.links[link]["order_id"]
        return link

    def agree(self, checkout: str) -> Event:
        return self.square.pay(checkout)

    def _payment(self, checkout: str) -> dict[str, Any]:
        return self.square.payment_of(self._orders[checkout])

    def told(self, checkout: str) -> Event:
        return self.square.payment_event(self._payment(checkout)["id"])

    def made_refunds(self) -> int:
        return len(self.square.refunds)

    def refund(self, checkout: str, minor: int) -> Event:
        return self.square.settle_refund(self.square.refund_now(self._payment(checkout)["id"], minor)["id"])

    def arrive(self) -> list[Event]:
        waiting = [r["id"] for r in self.square.refunds.values() if r["status"] == "PENDING"]
        return [self.square.settle_refund(refund_id) for refund_id in waiting]

    def dispute(self, checkout: str, state: str) -> Event:
        payment = self._payment(checkout)
        dispute = {
            "id": "XDgyFu7yo1E2S5lQGGpYn",
            "state": {"OPEN": "EVIDENCE_REQUIRED"}.get(state, state),
            "reason": "NOT_AS_DESCRIBED",
            "amount_money": payment["total_money"],
            "disputed_payment": {"payment_id": payment["id"]},
        }
        return self.square.event("dispute.created" if state == "OPEN" else "dispute.state.updated", "dispute", dispute)

    def signed(self, event: Event, url: str) -> tuple[bytes, dict[str, str]]:
        body, headers = self.square.webhook(event)
        ours = [one["signature_key"] for one in self.square.subscriptions.values() if one["notification_url"] == url]
        signature = square_server.sign(body, ours[0] if ours else square_server.SIGNATURE_KEY, url)
        return body, headers | {"x-square-hmacsha256-signature": signature}

    def addresses(self) -> list[str]:
        return [subscription["notification_url"] for subscription in self.square.subscriptions.values()]


# ------------------------------------------------------------------------------------------------------------ fixtures
@pytest.fixture
async def paypal() -> AsyncIterator[PayPalServer]:
    async with PayPalServer(paypal_server.contracts()[-1]) as server:
        yield server
        assert server.violations == []


@pytest.fixture
async def square() -> AsyncIterator[SquareServer]:
    async with SquareServer(square_server.contracts()[-1]) as server:
        yield server
        assert server.violations == []


@pytest.fixture
async def product(
    database: str, events_url: str, paypal: PayPalServer, square: SquareServer, request: pytest.FixtureRequest
) -> AsyncIterator[Product]:
    """The server, connected to fake vendors. After the test, the integrity check must find no difference."""
    more = getattr(request, "param", {}) | {"PAYPAL_API_BASE": paypal.url, "SQUARE_API_BASE": square.url}
    async with harness.in_process(database, events_url, **more) as running:
        yield running
        assert [str(difference) for difference in await integrity_check.audit()] == []


@pytest.fixture(params=["paypal", "square"])
def desk(request: pytest.FixtureRequest, paypal: PayPalServer, square: SquareServer) -> Desk:
    return PayPalDesk(paypal) if request.param == "paypal" else SquareDesk(square)


@pytest.fixture
async def shop(bare: Team, desk: Desk) -> Team:
    """A team with this processor, in test mode, and six simulated channels."""
    await bare.connect_channels()
    bare.processor = (await connect(bare, desk, testMode=True))["processor"]
    return bare


# ------------------------------------------------------------------------------------------------------------- helpers
async def connect(team: Team, desk: Desk, **more: Any) -> dict[str, Any]:
    """configureProcessor by the owner: the payload."""
    given = {"credentials": d.keys_of(desk.kind, desk.credentials), **more}
    payload: dict[str, Any] = await team.product.one(d.CONFIGURE_PROCESSOR, {"input": given}, token=team.owner)
    return payload


async def press_pay(team: Team, desk: Desk, request: dict[str, Any]) -> str:
    """The contact presses Pay; return the vendor's checkout."""
    async with httpx2.AsyncClient() as contact:
        answer = await contact.post(
            request["checkoutUrl"] + "/pay", headers={"Origin": team.product.base_url}, follow_redirects=False
        )
    assert answer.status_code == 303, answer.text
    return desk.checkout(answer.headers["location"])


async def post(url: str, body: bytes, headers: dict[str, str]) -> int:
    async with httpx2.AsyncClient() as vendor:
        return (await vendor.post(url, content=body, headers=headers)).status_code


async def deliver(team: Team, desk: Desk, *events: Event, to: str | None = None) -> None:
    """The vendor delivers webhooks and gets 200."""
    url = to or team.processor["webhookUrl"]
    for event in events:
        assert await post(url, *desk.signed(event, url)) == 200


async def until(team: Team, request: dict[str, Any], true_of: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait until this is true of the request."""
    async with asyncio.timeout(15):
        while not true_of(now := await team.read(request)):
            await asyncio.sleep(0.05)
    return now


async def quiet() -> None:
    """Wait until every due job is done, except periodic ones."""
    waiting = Q(status="running") | Q(status="queued", due_at__lte=datetime.now(UTC))
    async with asyncio.timeout(15):
        while await Job.filter(waiting).exclude(Q(kind__startswith="sweeper.") | Q(kind="retention")).exists():
            await asyncio.sleep(0.05)


async def sent(team: Team, contact: dict[str, Any], **more: Any) -> dict[str, Any]:
    request = await team.request(contact, **more)
    await team.send(request)
    return request


async def paid(team: Team, desk: Desk, contact: dict[str, Any], **more: Any) -> tuple[dict[str, Any], str]:
    """A paid request with its fee, and its checkout at the vendor."""
    request = await sent(team, contact, **more)
    checkout = await press_pay(team, desk, request)
    await deliver(team, desk, desk.agree(checkout))
    await until(team, request, lambda r: r["status"] == "PAID")
    await deliver(team, desk, desk.told(checkout))
    return await until(team, request, lambda r: r["payments"][0]["fee"] is not None), checkout


async def refund(team: Team, request: dict[str, Any], amount: str | None = None) -> dict[str, Any]:
    """refundPayment by the owner: the payload."""
    given = {"idempotencyKey": key(), "paymentId": request["payments"][0]["id"], "reason": "REQUESTED_BY_CONTACT"}
    if amount is not None:
        given["amount"] = amount
    payload: dict[str, Any] = await team.product.one(d.REFUND, {"input": given}, token=team.owner)
    return payload


async def kinds(team: Team, contact: dict[str, Any]) -> list[str]:
    return [kind for kind, _ in await team.cards(contact)]


async def told(team: Team) -> list[str]:
    """The kinds of the agent's notifications, oldest first."""
    found = await team.product.one(d.NOTIFICATIONS, token=team.agent)
    return [n["kind"] for n in reversed(found["nodes"])]


async def summaries(team: Team, contact: dict[str, Any]) -> dict[tuple[str, bool], dict[str, int]]:
    """The contact's totals by currency and mode."""
    found = await team.product.one(SUMMARY, {"id": contact["id"]}, token=team.agent)
    entries: dict[tuple[str, bool], dict[str, int]] = {}
    for entry in found["paymentSummary"]:
        place = entry.pop("currency"), entry.pop("testMode")
        entries[place] = {n: int(v["minorUnits"]) if isinstance(v, dict) else v for n, v in entry.items()}
    return entries


# ----------------------------------------------------------------------------------------------------------- the stories
async def test_wrong_credentials_are_refused_by_name_and_right_ones_ask_and_are_paid_live(
    bare: Team, desk: Desk
) -> None:
    await bare.connect_channels()
    for name, (value, named) in desk.wrong.items():
        payload = await connect(
            bare, desk, testMode=True, credentials=d.keys_of(desk.kind, desk.credentials | {name: value})
        )
        assert payload["processor"] is None
        assert [(e["code"], e["field"]) for e in payload["userErrors"]] == [
            ("PROCESSOR_REJECTED", ["input", "credentials", desk.kind.lower(), to_camel_case(named)])
        ]
        assert value not in payload["userErrors"][0]["message"]
    assert (await bare.product.one(SETTINGS, token=bare.owner))["paymentSettings"]["processors"] == []
    asked = await bare.product.one(d.CREATE, {"input": bare.ask(await bare.contact("Nobody", 9))})
    assert [e["code"] for e in asked["userErrors"]] == ["NO_PROCESSOR_CONFIGURED"]

    payload = await connect(bare, desk, testMode=True)
    assert payload["userErrors"] == []
    bare.processor = payload["processor"]
    assert (bare.processor["kind"], bare.processor["testMode"]) == (desk.kind, True)
    tested = await bare.product.ok(TEST, {"processorId": bare.processor["id"]}, token=bare.owner)
    assert tested["processor"]["lastError"] is None

    maria = await bare.contact()
    request = await sent(bare, maria)
    checkout = await press_pay(bare, desk, request)
    async with bare.inbox() as feed:
        await opened(feed)
        await deliver(bare, desk, desk.agree(checkout))
        await bare.until_paid(feed, request)
        cards = [e["edge"]["node"]["kind"] for e in feed.seen if e["__typename"] == "ThreadItemAdded"]
        if "PAYMENT_RECEIVED" not in cards:
            await feed.until("ThreadItemAdded", edge__node__kind="PAYMENT_RECEIVED")
    # The vendor delivers several events, each more than once.
    event = desk.told(checkout)
    await deliver(bare, desk, event, event, desk.told(checkout))
    now = await until(bare, request, lambda r: r["payments"][0]["fee"] is not None)
    await quiet()
    (payment,) = now["payments"]
    assert (payment["kind"], payment["status"], payment["amount"]["minorUnits"]) == ("CHARGE", "SUCCEEDED", "12000")
    assert (payment["fee"]["minorUnits"], payment["net"]["minorUnits"]) == (str(desk.fee), str(12000 - desk.fee))
    assert await kinds(bare, maria) == ["PAYMENT_REQUEST", "PAYMENT_RECEIVED"]
    assert await told(bare) == ["PAYMENT_RECEIVED"]
    assert await MoneyFact.filter(kind="CHARGE", outcome="SUCCEEDED").count() == 1
    (settings,) = (await bare.product.one(SETTINGS, token=bare.owner))["paymentSettings"]["processors"]
    assert settings["lastWebhookAt"] is not None
    assert (settings["provider"], settings["isDefault"], settings["lastError"]) == (desk.kind.lower(), True, None)


async def test_parts_are_given_back_here_and_there_until_nothing_is_left(shop: Team, desk: Desk) -> None:
    maria = await shop.contact()
    request, checkout = await paid(shop, desk, maria)
    for amount in ("20.00", "30.00"):
        assert (await refund(shop, request, amount))["userErrors"] == []
    await deliver(shop, desk, *desk.arrive())
    now = await until(shop, request, lambda r: [p["status"] for p in r["payments"]] == ["SUCCEEDED"] * 3)
    assert (now["status"], now["refundState"]) == ("PAID", "PARTIAL")
    above = await refund(shop, request, "70.01")
    assert [(e["code"], e["message"]) for e in above["userErrors"]] == [
        ("REFUND_EXCEEDS_PAYMENT", "At most $70.00 is left of this payment.")
    ]
    assert desk.made_refunds() == 2
    # In the vendor's dashboard, delivered twice.
    event = desk.refund(checkout, 4000)
    await deliver(shop, desk, event, event)
    await until(shop, request, lambda r: len(r["payments"]) == 4)
    assert (await refund(shop, request, "30.01"))["userErrors"][0]["code"] == "REFUND_EXCEEDS_PAYMENT"
    assert (await refund(shop, request))["userErrors"] == []
    await deliver(shop, desk, *desk.arrive())
    now = await until(shop, request, lambda r: r["refundState"] == "FULL")
    await quiet()
    moneys = [(p["kind"], p["status"], p["amount"]["minorUnits"]) for p in now["payments"]]
    assert sorted(moneys) == [
        ("CHARGE", "SUCCEEDED", "12000"),
        *[("REFUND", "SUCCEEDED", amount) for amount in ("2000", "3000", "3000", "4000")],
    ]
    assert now["status"] == "PAID"
    assert await kinds(shop, maria) == ["PAYMENT_REQUEST", "PAYMENT_RECEIVED", *["REFUND_ISSUED"] * 4]
    assert [row.status for row in await Refund.all()] == ["SUCCEEDED"] * 3
    assert await summaries(shop, maria) == {
        ("USD", True): {"paid": 12000, "refunded": 12000, "net": -desk.fee, "outstanding": 0, "paidCount": 1}
    }
    assert (await refund(shop, request))["userErrors"][0]["code"] == "NOT_REFUNDABLE"


@pytest.mark.parametrize(("state", "lost"), [("WON", 0), ("LOST", 12000)])
async def test_a_dispute_is_opened_and_closed(shop: Team, desk: Desk, state: str, lost: int) -> None:
    maria = await shop.contact()
    request, checkout = await paid(shop, desk, maria)
    await deliver(shop, desk, desk.dispute(checkout, "OPEN"))
    await until(shop, request, lambda r: r["disputeState"] == "NEEDS_RESPONSE")
    closed = desk.dispute(checkout, state)
    await deliver(shop, desk, closed, closed)
    now = await until(shop, request, lambda r: r["disputeState"] == state)
    await quiet()
    assert (now["status"], now["amountPaid"]["minorUnits"]) == ("PAID", "12000")
    assert await kinds(shop, maria) == ["PAYMENT_REQUEST", "PAYMENT_RECEIVED", "DISPUTE_OPENED", "DISPUTE_CLOSED"]
    assert await told(shop) == ["PAYMENT_RECEIVED", "DISPUTE_OPENED", "DISPUTE_CLOSED"]
    (entry,) = (await summaries(shop, maria)).values()
    assert entry["net"] == 12000 - desk.fee - lost


# On one engine: every order runs on both in tests/services/payments/test_dispute_orders.py.
@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
@pytest.mark.parametrize(
    ("words", "state"), [(("OPEN", "LOST", "OPEN", "WON"), "WON"), (("OPEN", "WON", "LOST"), "LOST")]
)
async def test_signed_words_of_a_dispute_end_in_the_latest_whatever_comes_first(
    shop: Team, desk: Desk, words: tuple[str, ...], state: str
) -> None:
    maria = await shop.contact()
    request, checkout = await paid(shop, desk, maria)
    vendor: Any = desk.server
    begun = datetime.now(UTC) - timedelta(seconds=200)
    told = []
    for n, word in enumerate(words):
        vendor.now = lambda at=begun + timedelta(seconds=30 * n): at
        told.append(desk.dispute(checkout, word))
    vendor.now = lambda: datetime.now(UTC)
    await deliver(shop, desk, told[-1], told[0], *told, *reversed(told))
    now = await until(shop, request, lambda r: r["disputeState"] == state)
    await quiet()
    assert (await shop.read(request))["disputeState"] == state
    assert await MoneyFact.filter(kind="DISPUTE").count() == len(words)
    disputes = [kind for kind in await kinds(shop, maria) if kind.startswith("DISPUTE")]
    assert disputes == ["DISPUTE_CLOSED"]  # the last word came first, and nothing after it changed how it stands
    (entry,) = (await summaries(shop, maria)).values()
    assert entry["net"] == 12000 - desk.fee - (12000 if state == "LOST" else 0)
    codes = [error["code"] for error in (await refund(shop, now))["userErrors"]]
    assert codes == ([] if state == "WON" else ["NOT_REFUNDABLE"])


@pytest.mark.parametrize("product", [SWEEPING], indirect=True)
async def test_with_every_webhook_lost_the_sweeper_takes_the_money(shop: Team, desk: Desk) -> None:
    maria = await shop.contact()
    requests = [await sent(shop, maria) for _ in range(3)]
    checkouts = [await press_pay(shop, desk, request) for request in requests]
    for checkout in checkouts[:2]:
        desk.agree(checkout)
    async with shop.inbox() as feed, asyncio.timeout(20):
        await opened(feed)
        waiting = {request["id"] for request in requests[:2]}
        await Tick.filter(name="sweeper.checkouts").update(next_at=datetime.now(UTC))
        while waiting:
            event = await feed.until("PaymentRequestUpdated", within=20, paymentRequest__status="PAID")
            waiting.discard(event["paymentRequest"]["id"])
    assert [(await shop.read(r))["status"] for r in requests] == ["PAID", "PAID", "SENT"]
    assert await ProcessorEvent.all().count() == 0
    assert sorted(await kinds(shop, maria)) == ["PAYMENT_RECEIVED"] * 2 + ["PAYMENT_REQUEST"] * 3
    assert await Notification.filter(kind="PAYMENT_RECEIVED").count() == 2
    # The webhooks come after all: nothing happens twice.
    await deliver(shop, desk, *(desk.told(checkout) for checkout in checkouts[:2]))
    await quiet()
    assert await MoneyFact.filter(kind="CHARGE", outcome="SUCCEEDED").count() == 2
    assert sorted(await kinds(shop, maria)) == ["PAYMENT_RECEIVED"] * 2 + ["PAYMENT_REQUEST"] * 3


async def test_a_forged_changed_or_misdirected_webhook_is_400_and_stores_nothing(shop: Team, desk: Desk) -> None:
    maria = await shop.contact()
    request = await sent(shop, maria)
    checkout = await press_pay(shop, desk, request)
    event = desk.agree(checkout)
    url = shop.processor["webhookUrl"]
    body, headers = desk.signed(event, url)
    signature = next(name for name in headers if "sig" in name)
    forged = [
        (body, {}),
        (body, headers | {signature: headers[signature][:-1]}),
        (body, headers | {signature: headers[signature].swapcase()}),
        (body + b" ", headers),
        (body.replace(checkout.encode(), b"X" * len(checkout)) + b"\n", headers),
    ]
    assert [await post(url, *one) for one in forged] == [400] * len(forged)
    other = await connect(shop, desk, testMode=False)
    if (
        desk.kind == "SQUARE"
    ):  # its signature is over the address; PayPal's over the id of the webhook, which this one shares
        assert await post(other["processor"]["webhookUrl"], body, headers) == 400
    assert await ProcessorEvent.all().count() == 0
    assert await MoneyFact.all().count() == 0
    assert (await shop.read(request))["status"] == "SENT"


PUBLIC = "https://pay.example.test"


@pytest.mark.parametrize("product", [{"PUBLIC_URL": PUBLIC}], indirect=True)
async def test_a_webhook_that_the_connection_registers_delivers_until_it_is_disconnected(
    bare: Team, desk: Desk
) -> None:
    await bare.connect_channels()
    keys = {name: value for name, value in desk.credentials.items() if not name.startswith("webhook")}
    payload = await connect(bare, desk, testMode=True, credentials=d.keys_of(desk.kind, keys))
    assert payload["userErrors"] == []
    public = payload["processor"]["webhookUrl"]
    assert desk.addresses() == [public]
    assert public.startswith(f"{PUBLIC}/webhooks/{desk.kind.lower()}/{payload['processor']['id']}")
    here = public.replace(PUBLIC, bare.product.base_url)
    maria = await bare.contact()
    request = await sent(bare, maria)
    async with httpx2.AsyncClient() as contact:
        link = request["checkoutUrl"].replace(PUBLIC, bare.product.base_url)
        answer = await contact.post(f"{link}/pay", headers={"Origin": PUBLIC}, follow_redirects=False)
    checkout = desk.checkout(answer.headers["location"])
    event = desk.agree(checkout)
    # Signed for a webhook of the same vendor account that is not ours.
    assert await post(here, *desk.signed(event, "https://elsewhere.example.test")) == 400
    body, headers = desk.signed(event, public)
    assert await post(here, body, headers) == 200
    await until(bare, request, lambda r: r["status"] == "PAID")
    await bare.product.ok(d.DISCONNECT_PROCESSOR, {"processorId": payload["processor"]["id"]}, token=bare.owner)
    assert desk.addresses() == []
    assert await post(here, body, headers) == 404  # there is nothing left to verify it with
    assert await kinds(bare, maria) == ["PAYMENT_REQUEST", "PAYMENT_RECEIVED"]


# ------------------------------------------------------------------------------------------------------ PayPal by itself
@pytest.fixture
async def paypal_shop(bare: Team, paypal: PayPalServer) -> tuple[Team, PayPalDesk]:
    desk = PayPalDesk(paypal)
    await bare.connect_channels()
    bare.processor = (await connect(bare, desk, testMode=True))["processor"]
    return bare, desk


def captures(desk: PayPalDesk) -> list[Call]:
    return [call for call in desk.paypal.calls if call.path.endswith("/capture")]


async def test_a_capture_whose_answer_is_lost_is_made_once_and_counts_once(
    paypal_shop: tuple[Team, PayPalDesk],
) -> None:
    shop, desk = paypal_shop
    maria = await shop.contact()
    request = await sent(shop, maria)
    checkout = await press_pay(shop, desk, request)
    desk.paypal.fail_next("drop", match=lambda call: call.path.endswith("/capture"))
    await deliver(shop, desk, desk.agree(checkout))
    async with asyncio.timeout(15):
        while desk.paypal.orders[checkout]["status"] != "COMPLETED":
            await asyncio.sleep(0.05)
    await deliver(shop, desk, desk.told(checkout))
    now = await until(shop, request, lambda r: r["status"] == "PAID")
    assert now["amountPaid"]["minorUnits"] == "12000"
    await quiet()
    assert len({call.headers["paypal-request-id"] for call in captures(desk)}) == 1
    assert await MoneyFact.filter(kind="CHARGE", outcome="SUCCEEDED").count() == 1
    assert await kinds(shop, maria) == ["PAYMENT_REQUEST", "PAYMENT_RECEIVED"]


async def test_the_way_back_from_paypal_takes_the_money_without_any_webhook(
    paypal_shop: tuple[Team, PayPalDesk],
) -> None:
    shop, desk = paypal_shop
    maria = await shop.contact()
    request = await sent(shop, maria)
    checkout = await press_pay(shop, desk, request)
    desk.agree(checkout)
    async with shop.product.browser() as browser:
        await browser.open(request["checkoutUrl"] + "/return")
        assert browser.url == request["checkoutUrl"]
    now = await until(shop, request, lambda r: r["status"] == "PAID")
    assert now["amountPaid"]["minorUnits"] == "12000"
    assert len(captures(desk)) == 1
    assert await ProcessorEvent.all().count() == 0


async def test_a_webhook_is_503_while_paypal_cannot_be_asked_and_counts_when_it_comes_again(
    paypal_shop: tuple[Team, PayPalDesk],
) -> None:
    shop, desk = paypal_shop
    maria = await shop.contact()
    request = await sent(shop, maria)
    checkout = await press_pay(shop, desk, request)
    url = shop.processor["webhookUrl"]
    body, headers = desk.signed(desk.agree(checkout), url)
    desk.paypal.fail_next("before_500", match=lambda call: call.path.endswith("/verify-webhook-signature"))
    assert await post(url, body, headers) == 503
    assert await ProcessorEvent.all().count() == 0
    assert await post(url, body, headers) == 200
    await until(shop, request, lambda r: r["status"] == "PAID")


async def test_yen_have_no_decimals_on_the_way_to_paypal_and_back(paypal_shop: tuple[Team, PayPalDesk]) -> None:
    shop, desk = paypal_shop
    maria = await shop.contact()
    half = await shop.product.one(d.CREATE, {"input": shop.ask(maria, amount={"amount": "1200.5", "currency": "JPY"})})
    assert [(e["code"], e["field"]) for e in half["userErrors"]] == [("INVALID", ["input", "amount", "amount"])]
    request, checkout = await paid(shop, desk, maria, amount={"amount": "1200", "currency": "JPY"})
    order = desk.paypal.orders[checkout]
    assert order["purchase_units"][0]["amount"] == {"currency_code": "JPY", "value": "1200"}
    assert request["amount"] == {"amount": "1200", "currency": "JPY", "minorUnits": "1200", "formatted": "¥1,200"}
    assert (request["amountPaid"]["minorUnits"], request["payments"][0]["fee"]["minorUnits"]) == ("1200", "1")
    done = await refund(shop, request, "200")
    assert (done["userErrors"], done["refund"]["status"]) == ([], "SUCCEEDED")
    (made,) = desk.paypal.refunds.values()
    assert made["amount"] == {"currency_code": "JPY", "value": "200"}
    assert (await refund(shop, request, "1001"))["userErrors"][0]["code"] == "REFUND_EXCEEDS_PAYMENT"
    assert await summaries(shop, maria) == {
        ("JPY", True): {"paid": 1200, "refunded": 200, "net": 999, "outstanding": 0, "paidCount": 1}
    }


# ------------------------------------------------------------------------------------------------------- side by side
async def test_live_and_test_stand_side_by_side_and_are_never_added_up(
    bare: Team, paypal: PayPalServer, square: SquareServer
) -> None:
    await bare.connect_channels()
    desks: list[Desk] = [SquareDesk(square), SquareDesk(square), PayPalDesk(paypal)]
    modes = (False, True, True)
    rows = [(await connect(bare, desk, testMode=mode))["processor"] for desk, mode in zip(desks, modes, strict=True)]
    sandbox = await bare.connect_sandbox()
    ids = [row["id"] for row in rows]
    assert len({*ids, sandbox["id"]}) == 4
    found = (await bare.product.one(SETTINGS, token=bare.owner))["paymentSettings"]["processors"]
    assert [(p["kind"], p["testMode"], p["isDefault"]) for p in found] == [
        ("SQUARE", False, True),
        ("SQUARE", True, False),
        ("PAYPAL", True, False),
        ("SANDBOX", True, False),
    ]
    maria = await bare.contact()
    for n, (desk, row) in enumerate(zip(desks, rows, strict=True)):
        amount = {"amount": f"{10 * (n + 1)}.00"}
        request = await sent(bare, maria, processorId=row["id"], amount=amount)
        assert (request["processorKind"], request["testMode"]) == (desk.kind, modes[n])
        checkout = await press_pay(bare, desk, request)
        await deliver(bare, desk, desk.agree(checkout), to=row["webhookUrl"])
        await until(bare, request, lambda r: r["status"] == "PAID")
        await deliver(bare, desk, desk.told(checkout), to=row["webhookUrl"])
        await until(bare, request, lambda r: r["payments"][0]["fee"] is not None)
    contradiction = await bare.product.one(
        d.CREATE, {"input": bare.ask(maria, processorId=ids[0], processorKind="PAYPAL")}
    )
    assert [(e["code"], e["field"]) for e in contradiction["userErrors"]] == [("INVALID", ["input", "processorKind"])]
    totals = await summaries(bare, maria)
    assert {place: (entry["paid"], entry["paidCount"]) for place, entry in totals.items()} == {
        ("USD", False): (1000, 1),
        ("USD", True): (5000, 2),
    }
    board = await bare.product.one(d.DASHBOARD, token=bare.agent)
    assert [(f["currency"], f["paid"]["minorUnits"], f["paidCount"]) for f in board["byCurrency"]] == [
        ("USD", "1000", 1)
    ]


def foreign(kind: str) -> list[dict[str, Any]]:
    """Events of other programs on the same vendor account."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if kind == "PAYPAL":
        old = {"id": "9SALE", "state": "completed", "amount": {"total": "120.00", "currency": "USD"}}
        resources: list[tuple[str, dict[str, Any]]] = [
            ("PAYMENT.CAPTURE.COMPLETED", old),
            ("PAYMENT.CAPTURE.REFUNDED", old | {"state": "pending"}),
            ("PAYMENT.SALE.COMPLETED", old),
            ("PAYMENT.CAPTURE.COMPLETED", {"id": "9CAP", "status": "A_NEW_WORD", "amount": None}),
            ("CHECKOUT.ORDER.APPROVED", {"purchase_units": "none"}),
            ("CUSTOMER.DISPUTE.CREATED", {"dispute_id": "PP-R-9", "disputed_transactions": []}),
        ]
        return [
            {"id": f"WH-FOREIGN-{n}", "create_time": at, "event_type": name, "resource": resource}
            for n, (name, resource) in enumerate(resources)
        ]
    money = {"amount": 500, "currency": "USD"}
    objects: list[tuple[str, str, dict[str, Any]]] = [
        ("refund.created", "refund", {"id": "r9", "unlinked": True, "status": "PENDING", "amount_money": money}),
        ("payment.updated", "payment", {"id": "p9", "status": "A_NEW_WORD", "amount_money": money}),
        ("payment.created", "payment", {"id": "p8", "status": "COMPLETED", "note": "Table 7", "amount_money": {}}),
        ("dispute.created", "dispute", {"id": "d9"}),
        ("refund.updated", "refund", {}),
    ]
    return [
        {"merchant_id": square_server.MERCHANT_ID, "type": name, "event_id": f"foreign-{n}", "created_at": at}
        | {"data": {"type": of, "id": "x", "object": {of: thing}}}
        for n, (name, of, thing) in enumerate(objects)
    ]


async def test_events_of_other_programs_are_taken_whatever_their_shape_and_change_nothing(
    shop: Team, desk: Desk
) -> None:
    maria = await shop.contact()
    request, _ = await paid(shop, desk, maria)
    before = await kinds(shop, maria)
    await deliver(shop, desk, *foreign(desk.kind))
    await quiet()
    now = await shop.read(request)
    assert (now["status"], now["refundState"], now["disputeState"]) == ("PAID", "NONE", "NONE")
    assert await kinds(shop, maria) == before


@pytest.mark.parametrize("desk", ["paypal"], indirect=True)  # a case of Square's names one payment
async def test_a_case_about_several_payments_is_a_dispute_of_each_that_is_ours(
    shop: Team, desk: Desk, paypal: PayPalServer
) -> None:
    maria, luis = await shop.contact(), await shop.contact("Luis Vega", 2)
    first, one = await paid(shop, desk, maria)
    second, two = await paid(shop, desk, luis)
    gross = {"currency_code": "USD", "value": "120.00"}
    ids = ["9FOREIGN", paypal.capture_of(one)["id"], paypal.capture_of(two)["id"]]
    case: dict[str, Any] = {
        "dispute_id": "PP-D-3",
        "disputed_transactions": [{"seller_transaction_id": one_id, "gross_amount": gross} for one_id in ids],
        "dispute_amount": {"currency_code": "USD", "value": "360.00"},
        "status": "OPEN",
    }
    await deliver(shop, desk, paypal.event("CUSTOMER.DISPUTE.CREATED", "dispute", case))
    case |= {"status": "RESOLVED", "dispute_outcome": {"outcome_code": "RESOLVED_BUYER_FAVOUR"}}
    for request in (first, second):
        await until(shop, request, lambda r: r["disputeState"] == "NEEDS_RESPONSE")
    closed = paypal.event("CUSTOMER.DISPUTE.RESOLVED", "dispute", case)
    await deliver(shop, desk, closed, closed)
    for request, contact in ((first, maria), (second, luis)):
        now = await until(shop, request, lambda r: r["disputeState"] == "LOST")
        await quiet()
        disputes = [p["amount"]["minorUnits"] for p in now["payments"] if p["kind"] == "DISPUTE"]
        assert disputes == ["12000"]
        assert (await kinds(shop, contact))[-2:] == ["DISPUTE_OPENED", "DISPUTE_CLOSED"]
        (entry,) = (await summaries(shop, contact)).values()
        assert entry["net"] == -desk.fee


@pytest.mark.parametrize("desk", ["square"], indirect=True)  # PayPal's keys are the business's own
async def test_rights_taken_back_at_the_vendor_disconnect_it_and_tell_who_can_connect_it_again(
    shop: Team, desk: Desk, square: SquareServer
) -> None:
    revoked = square.event("oauth.authorization.revoked", "revocation", {"id": "r1", "revoker_type": "MERCHANT"})
    other = revoked | {"merchant_id": "ANOTHER", "event_id": "revoked-elsewhere"}
    old = revoked | {"created_at": (datetime.now(UTC) - timedelta(minutes=3)).isoformat(), "event_id": "revoked-before"}
    await deliver(shop, desk, other, old)
    assert (await ProcessorConnection.get(processor="square")).connected
    await deliver(shop, desk, revoked, revoked)
    row = await ProcessorConnection.get(processor="square")
    said = "Square no longer allows Paythread on this account. Connect it again under Settings → Payments."
    assert (row.connected, row.is_default, row.last_error) == (False, False, said)
    listed = await shop.product.one(d.NOTIFICATIONS, token=shop.owner)
    assert [(n["kind"], n["title"], n["body"]) for n in listed["nodes"]] == [
        ("PROCESSOR_DISCONNECTED", "Square is disconnected", said)
    ]
    # After reconnecting, an old event does not disconnect.
    await connect(shop, desk, testMode=True)
    await deliver(shop, desk, revoked)
    assert (await ProcessorConnection.get(processor="square")).connected
