"""A platform's key for a Connect account: every call names the account, only its events count, and the webhook is the platform's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from models.tables import AuditEntry, ProcessorConnection, ProcessorEvent
from tests.contracts.stripe_contract import contracts
from tests.contracts.stripe_server import ACCOUNT_ID, CONNECTED_ID, SECRET_KEY, StripeServer
from tests.flows import documents as d
from tests.flows import harness
from tests.flows.conftest import Team
from tests.flows.harness import Product, key

PUBLIC = "https://pay.example.test"


@pytest.fixture
async def stripe() -> AsyncIterator[StripeServer]:
    async with StripeServer(contracts()[0]) as server:
        yield server
        assert server.violations == []


@pytest.fixture
async def product(database: str, events_url: str, stripe: StripeServer) -> AsyncIterator[Product]:
    async with harness.in_process(database, events_url, STRIPE_API_BASE=stripe.url, PUBLIC_URL=PUBLIC) as running:
        yield running


async def connect(team: Team, account: str) -> dict[str, Any]:
    payload = {"input": {"credentials": {"stripe": {"secretKey": SECRET_KEY, "account": account}}}}
    answer: dict[str, Any] = await team.product.one(d.CONFIGURE_PROCESSOR, payload, token=team.owner)
    return answer


async def test_a_connect_account_is_asked_paid_and_refunded_on_its_own(bare: Team, stripe: StripeServer) -> None:
    await bare.connect_channels()
    for wrong in ("connected", "acct_1NotOurs"):
        refused = await connect(bare, wrong)
        assert refused["userErrors"] != []
        assert stripe.endpoints == {}
    answer = await connect(bare, CONNECTED_ID)
    assert answer["userErrors"] == []
    bare.processor = answer["processor"]
    row = await ProcessorConnection.get()
    assert (row.vendor_account, row.connected) == (CONNECTED_ID, True)
    (endpoint,) = stripe.endpoints.values()
    assert (endpoint["_account"], endpoint["_connect"], endpoint["url"]) == (
        ACCOUNT_ID,
        True,
        bare.processor["webhookUrl"],
    )

    here = bare.processor["webhookUrl"].replace(PUBLIC, bare.product.base_url)

    async def post(event: dict[str, Any]) -> int:
        body, headers = stripe.webhook(event, endpoint["secret"])
        async with httpx2.AsyncClient() as vendor:
            return (await vendor.post(here, content=body, headers=headers)).status_code

    maria = await bare.contact()
    request = await bare.request(maria)
    await bare.send(request)
    async with httpx2.AsyncClient() as contact:
        link = request["checkoutUrl"].replace(PUBLIC, bare.product.base_url)
        page = await contact.post(link + "/pay", headers={"Origin": PUBLIC}, follow_redirects=False)
    session = page.headers["location"].rsplit("/", 1)[1].split("#")[0]
    event = stripe.pay(session)
    assert event["account"] == CONNECTED_ID
    # The platform's endpoint is told of all its accounts: another's event is taken, and leaves no trace.
    assert await post(event | {"account": "acct_1Another"}) == 200
    assert await ProcessorEvent.all().count() == 0
    assert (await bare.read(request))["status"] == "SENT"
    assert await post(event) == 200
    async with asyncio.timeout(15):
        while not ((now := await bare.read(request))["payments"] and now["payments"][0]["fee"]):
            await asyncio.sleep(0.05)
    assert (now["status"], await bare.cards(maria)) == (
        "PAID",
        [("PAYMENT_REQUEST", "SENT"), ("PAYMENT_RECEIVED", "PAID")],
    )
    given = {"idempotencyKey": key(), "paymentId": now["payments"][0]["id"], "amount": "20.00", "reason": "OTHER"}
    done = await bare.product.ok(d.REFUND, given, token=bare.owner)
    assert (done["refund"]["status"], done["paymentRequest"]["refundState"]) == ("SUCCEEDED", "PARTIAL")

    named = {(call.path, call.headers.get("stripe-account")) for call in stripe.calls}
    assert {path for path, account in named if account is None} == {"/v1/webhook_endpoints"}
    assert {account for path, account in named if path != "/v1/account"} == {None, CONNECTED_ID}
    await bare.product.ok(d.DISCONNECT_PROCESSOR, {"processorId": bare.processor["id"]}, token=bare.owner)
    assert stripe.endpoints == {}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_connect_account_that_leaves_the_platform_is_disconnected_and_told_to_admins(
    bare: Team, stripe: StripeServer
) -> None:
    answer = await connect(bare, CONNECTED_ID)
    (endpoint,) = stripe.endpoints.values()
    assert "account.application.deauthorized" in endpoint["enabled_events"]
    event = {"object": "event", "id": "evt_left", "type": "account.application.deauthorized", "livemode": False}
    event |= {
        "created": int(datetime.now(UTC).timestamp()),
        "data": {"object": {"id": "ca_1", "object": "application"}},
    }

    async def told(account: str) -> bool:
        body, headers = stripe.webhook(event | {"account": account}, endpoint["secret"])
        async with httpx2.AsyncClient() as vendor:
            done = await vendor.post(
                f"{bare.product.base_url}{urlsplit(answer['processor']['webhookUrl']).path}",
                content=body,
                headers=headers,
            )
        assert done.status_code == 200
        return (await ProcessorConnection.get()).connected

    assert await told("acct_1AnotherShop")
    for _ in range(2):
        assert not await told(CONNECTED_ID)
    (notice,) = (await bare.product.one(d.NOTIFICATIONS, token=bare.owner))["nodes"]
    assert (notice["kind"], notice["title"]) == ("PROCESSOR_DISCONNECTED", "Stripe is disconnected")
    assert (await bare.product.one(d.NOTIFICATIONS, token=bare.agent))["nodes"] == []
    audited = await AuditEntry.filter(action="processor.disconnected")
    assert [(entry.actor_kind, entry.detail) for entry in audited] == [("system", {"processor": "stripe"})]
