"""A contact presses Pay after the keys were revoked at the vendor: the contact's page, the team's notification, the repair."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from models.tables import ProcessorEvent
from services.payments import integrity_check
from tests.contracts import paypal_server, square_server, stripe_contract
from tests.contracts.paypal_server import PayPalServer
from tests.contracts.square_server import SquareServer
from tests.contracts.stripe_server import StripeServer
from tests.flows import documents as d
from tests.flows import harness
from tests.flows.conftest import Team, opened
from tests.flows.harness import Product
from tests.flows.vendors import CREDENTIALS

SETTINGS = "{ account { paymentSettings { processors { id kind connected lastError } } } }"
PREDICATE = """query($id: ID!) { conversation(id: $id) { channels { paymentRequests { enabled reason help { kind sentence } } } } }"""
TEXTS = """query($id: ID!) { conversation(id: $id) { thread(last: 20) { nodes {
  ... on ActivityCard { kind text paymentRequest { id } } } } } }"""
LIVE = """subscription { inboxEvents { __typename ... on Event { cursor }
  ... on AccountUpdated { account { paymentSettings { processors { connected } } } } } }"""
Servers = dict[str, Any]


@pytest.fixture
async def servers() -> AsyncIterator[Servers]:
    async with (
        StripeServer(stripe_contract.contracts()[0]) as stripe,
        PayPalServer(paypal_server.contracts()[0]) as paypal,
        SquareServer(square_server.contracts()[0]) as square,
    ):
        yield {"STRIPE": stripe, "PAYPAL": paypal, "SQUARE": square}
        assert [server.violations for server in (stripe, paypal, square)] == [[], [], []]


@pytest.fixture
async def product(database: str, events_url: str, servers: Servers) -> AsyncIterator[Product]:
    addresses = {f"{name}_API_BASE": server.url for name, server in servers.items()}
    async with harness.in_process(database, events_url, **addresses) as running:
        yield running
        assert [str(difference) for difference in await integrity_check.audit()] == []


async def connect(team: Team, kind: str) -> dict[str, Any]:
    given = {"testMode": True, "credentials": d.keys_of(kind, CREDENTIALS[kind])}
    payload = await team.product.ok(d.CONFIGURE_PROCESSOR, given, token=team.owner)
    processor: dict[str, Any] = payload["processor"]
    return processor


async def press(team: Team, request: dict[str, Any]) -> httpx2.Response:
    """The contact presses Pay."""
    async with httpx2.AsyncClient() as contact:
        return await contact.post(request["checkoutUrl"] + "/pay", headers={"Origin": team.product.base_url})


async def kinds(team: Team, token: str) -> list[str]:
    """The kinds of a person's notifications, newest first."""
    return [n["kind"] for n in (await team.product.one(d.NOTIFICATIONS, token=token))["nodes"]]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("kind", ["STRIPE", "PAYPAL", "SQUARE"])
async def test_a_revoked_key_is_told_to_the_team_and_mended_by_connecting_again(
    bare: Team, servers: Servers, kind: str
) -> None:
    await bare.connect_channels()
    processor = await connect(bare, kind)
    contact = await bare.contact(email="ana..lopez@example.com")
    first, second = await bare.request(contact), await bare.request(contact)
    assert (await press(bare, first)).status_code == 303  # also at Stripe, which refuses this address
    servers[kind].revoked = True
    async with bare.product.subscribe(LIVE, {}, token=bare.agent) as feed:
        await opened(feed)
        for _ in range(2):
            page = await press(bare, second)
            assert page.status_code == 502
            assert "This payment cannot be taken right now" in page.text
            assert "Nothing was charged. Acme Cleaning has been notified." in page.text
            assert "try again in a minute" not in page.text
        changed = await feed.until("AccountUpdated")
        assert changed["account"]["paymentSettings"]["processors"] == [{"connected": False}]
        # Owners and admins are notified once; the thread shows it at the request.
        name = {"STRIPE": "Stripe", "PAYPAL": "PayPal", "SQUARE": "Square"}[kind]
        thread = (await bare.product.one(TEXTS, {"id": contact["conversation"]["id"]}, token=bare.agent))["thread"]
        (card,) = [item for item in thread["nodes"] if item["kind"] == "CHECKOUT_REFUSED"]
        assert card["paymentRequest"]["id"] == second["id"]
        assert card["text"] == (
            f"Maria Lopez pressed Pay for Deep clean, but {name} refused: it no longer accepts the stored credentials."
            f" Connect {name} again under Settings → Payments."
        )
        assert await kinds(bare, bare.owner) == ["PROCESSOR_DISCONNECTED"]
        assert await kinds(bare, bare.agent) == ["CHECKOUT_REFUSED"]
        (shown,) = (await bare.product.one(SETTINGS, token=bare.owner))["paymentSettings"]["processors"]
        assert (shown["id"], shown["connected"]) == (processor["id"], False)
        assert "does not accept these credentials" in shown["lastError"]
        found = await bare.product.one(PREDICATE, {"id": contact["conversation"]["id"]}, token=bare.owner)
        able = found["channels"][0]["paymentRequests"]
        assert (able["enabled"], able["reason"]) == (False, "NO_PROCESSOR_CONFIGURED")
        assert f"Connect {name} again in Settings → Payments." in [one["sentence"] for one in able["help"]]
        asked = await bare.product.one(d.CREATE, {"input": bare.ask(contact)}, token=bare.agent)
        assert [e["code"] for e in asked["userErrors"]] == ["NO_PROCESSOR_CONFIGURED"]
        # Good credentials: the same connection, and the same link pays.
        servers[kind].revoked = False
        again = await connect(bare, kind)
        assert (again["id"], again["connected"]) == (processor["id"], True)
        changed = await feed.until("AccountUpdated", account__paymentSettings__processors=[{"connected": True}])
    assert (await press(bare, second)).status_code == 303


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_paypals_revoked_consent_ends_the_connection_only_if_the_keys_work_no_more(
    bare: Team, servers: Servers
) -> None:
    processor, paypal = await connect(bare, "PAYPAL"), servers["PAYPAL"]
    consent = paypal.event("MERCHANT.PARTNER-CONSENT.REVOKED", "partner-consent", {"merchant_id": "AVB8XTT2E6JQQ"})

    async def deliver(event: dict[str, Any]) -> int:
        body, headers = paypal.webhook(event)
        async with httpx2.AsyncClient() as vendor:
            return (await vendor.post(processor["webhookUrl"], content=body, headers=headers)).status_code

    async def shown() -> tuple[bool, str]:
        (one,) = (await bare.product.one(SETTINGS, token=bare.owner))["paymentSettings"]["processors"]
        return one["connected"], one["lastError"] or ""

    # A merchant of the same app has disconnected; these keys still work.
    assert await deliver(consent) == 200
    async with asyncio.timeout(15):
        while not await ProcessorEvent.exists(external_id=consent["id"], handled_at__not_isnull=True):
            await asyncio.sleep(0.05)
    assert await shown() == (True, "")
    # The account itself is closed: PayPal does not even check its signatures any more.
    paypal.revoked = True
    for _ in range(2):
        assert await deliver(consent | {"id": "WH-closed"}) == 503
    connected, said = await shown()
    assert not connected
    assert "does not accept these credentials" in said
    assert await kinds(bare, bare.owner) == ["PROCESSOR_DISCONNECTED"]
