"""A third-party package that is only installed: its processor takes payments and its channel carries messages."""

from __future__ import annotations

import asyncio
import importlib
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

import app
from settings import Settings
from tests.flows import documents as d
from tests.flows import harness
from tests.flows.conftest import Team, opened
from tests.flows.harness import Process, Product
from tests.kit.sample import SAMPLE, install

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from fake_acme import FakeAcmeChat, FakeAcmePay


@dataclass
class Acme:
    """Acme's two services, running."""

    pay: FakeAcmePay
    chat: FakeAcmeChat
    credentials: dict[str, list[dict[str, str]]]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The sample package, as an installer leaves it."""
    return install(tmp_path / "installed")


@pytest.fixture
async def acme(installed: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Acme]:
    """The vendor; only its fake is imported in this process."""
    monkeypatch.syspath_prepend(SAMPLE / "checks")
    monkeypatch.syspath_prepend(installed)
    fake = importlib.import_module("fake_acme")
    secrets = {
        "acme_pay": {"api_key": fake.API_KEY, "webhook_secret": fake.WEBHOOK_SECRET},
        "acme_chat": {"bot": "acme_bot", "token": fake.TOKEN, "signing_secret": fake.SIGNING_SECRET},
    }
    credentials = {
        name: [{"name": key, "value": value} for key, value in values.items()] for name, values in secrets.items()
    }
    async with fake.FakeAcmePay() as pay, fake.FakeAcmeChat() as chat:
        yield Acme(pay, chat, credentials)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("fake_acme", "acme_pay")]:
        del sys.modules[name]


@pytest.fixture
async def server(database: str, events_url: str, installed: Path, acme: Acme) -> AsyncIterator[tuple[Product, Process]]:
    """The server as a process with the package on its path; this process has the same settings, to create the account."""
    values = {k.lower(): v for k, v in harness.environment(1, database, events_url).items()}
    app.configure(Settings(_env_file=None, **values))  # type: ignore[call-arg, arg-type]
    addresses = f"acme_pay={acme.pay.url},acme_chat={acme.chat.url}"
    async with harness.process(
        database, events_url, PYTHONPATH=str(installed), PROVIDER_API_BASES=addresses
    ) as running:
        yield running


@pytest.fixture
def product(server: tuple[Product, Process]) -> Product:
    return server[0]


async def connect(team: Team, acme: Acme) -> None:
    """Owner: connect both by the API."""
    payload = await team.product.ok(
        d.CONFIGURE_PROCESSOR,
        {
            "credentials": {"custom": {"provider": "acme_pay", "credentials": acme.credentials["acme_pay"]}},
            "testMode": True,
        },
        token=team.owner,
    )
    team.processor = payload["processor"]
    payload = await team.product.ok(
        d.CONNECT_CHANNEL,
        {"kind": "CUSTOM", "provider": "acme_chat", "credentials": acme.credentials["acme_chat"]},
        token=team.owner,
    )
    team.channels["CUSTOM"] = payload["channel"]["id"]


async def post(url: str, delivery: tuple[bytes, dict[str, str]]) -> int:
    """Acme calls back."""
    async with httpx2.AsyncClient() as vendor:
        return (await vendor.post(url, content=delivery[0], headers=delivery[1])).status_code


def inbound_url(team: Team) -> str:
    return f"{team.product.base_url}/inbound/acme_chat/{team.channels['CUSTOM']}"


async def test_money_is_asked_for_on_a_packages_channel_and_paid_by_its_processor(
    bare: Team, acme: Acme, server: tuple[Product, Process]
) -> None:
    await connect(bare, acme)
    assert (bare.processor["kind"], bare.processor["displayName"]) == ("CUSTOM", "Acme Pay")
    assert bare.processor["webhookUrl"] == f"{bare.product.base_url}/webhooks/acme_pay/{bare.processor['id']}"

    # Acme was told where to call, and what to sign with.
    secret = next(one["value"] for one in acme.credentials["acme_chat"] if one["name"] == "signing_secret")
    assert acme.chat.webhook == {"url": inbound_url(bare), "secret": secret}

    # The contact writes first.
    assert await post(inbound_url(bare), acme.chat.writes("visitor-7", "How much is it?")) == 200
    (conversation,) = (await bare.product.one(d.CONVERSATIONS))["nodes"]
    contact = {"id": conversation["contact"]["id"], "conversation": {"id": conversation["id"]}}
    heard = [(i["direction"], i["channelKind"], i["body"]) for i in await bare.thread(contact)]
    assert heard == [("INBOUND", "CUSTOM", "How much is it?")]

    # The request goes out on it.
    request = await bare.request(contact)
    async with bare.product.subscribe(d.CONVERSATION_EVENTS, {"id": conversation["id"]}) as feed:
        await opened(feed)
        message = (await bare.send(request, "CUSTOM"))["message"]
        await feed.until("MessageUpdated", message__id=message["id"], message__deliveryStatus="SENT")
        ((to, text, sent_id),) = [(m["chat"], m["text"], m["id"]) for m in acme.chat.messages]
        assert (to, text) == ("visitor-7", message["body"])
        assert request["checkoutUrl"] in text
        seen = acme.chat.callback(type="state", id=sent_id, state="seen")
        assert [await post(inbound_url(bare), seen) for _ in range(2)] == [200, 200]
        await feed.until("MessageUpdated", message__id=message["id"], message__deliveryStatus="READ")

        # The contact is led to Acme's page, and only there.
        async with httpx2.AsyncClient() as browser:
            page = await browser.get(request["checkoutUrl"])
            policy = re.search(r"form-action ([^;]*)", page.headers["content-security-policy"])
            assert policy is not None
            assert policy[1].split() == ["'self'", bare.product.base_url, "https://pay.acme-pay.example"]
            pressed = await browser.post(request["checkoutUrl"] + "/pay", headers={"Origin": bare.product.base_url})
        (order,) = acme.pay.orders.values()
        assert (pressed.status_code, pressed.headers["location"]) == (303, order["pay_url"])
        assert (order["total"], order["currency"], order["notify_url"]) == (
            "120.00",
            "USD",
            bare.processor["webhookUrl"],
        )

        # Acme's word turns the card.
        body, headers = acme.pay.pay(order["id"], "done")
        assert await post(order["notify_url"], (body, {**headers, "acme-signature": "t=1,v1=" + "0" * 64})) == 400
        assert (await bare.read(request))["status"] == "SENT"
        assert [await post(order["notify_url"], (body, headers)) for _ in range(3)] == [200] * 3
        await feed.until("PaymentRequestUpdated", paymentRequest__id=request["id"], paymentRequest__status="PAID")
    assert await bare.cards(contact) == [("PAYMENT_REQUEST", "SENT"), ("PAYMENT_RECEIVED", "PAID")]

    # A part of it goes back.
    paid = await bare.read(request)
    assert (paid["payments"][0]["processorKind"], paid["payments"][0]["processorReference"]) == (
        "CUSTOM",
        order["payments"][0]["id"],
    )
    payload = await bare.product.ok(
        d.REFUND,
        {"idempotencyKey": harness.key(), "paymentId": paid["payments"][0]["id"], "amount": "20.00", "reason": "OTHER"},
        token=bare.owner,
    )
    assert payload["payment"]["amount"]["minorUnits"] == "2000"
    ((refunded, currency),) = [(r["total"], r["currency"]) for made in acme.pay.refunds.values() for r in made]
    assert (refunded, currency) == ("20.00", "USD")

    # STOP works on this channel as on any other.
    assert await post(inbound_url(bare), acme.chat.writes("visitor-7", "STOP")) == 200
    assert await reasons(bare, contact) == [("CUSTOM", False, "CONTACT_OPTED_OUT")]
    assert await post(inbound_url(bare), acme.chat.writes("visitor-7", "START")) == 200
    assert await reasons(bare, contact) == [("CUSTOM", True, None)]


async def reasons(team: Team, contact: dict[str, Any]) -> list[tuple[str, bool, str | None]]:
    conversation = await team.product.one(d.CHANNELS, {"id": contact["conversation"]["id"]})
    return [
        (c["channel"]["kind"], c["paymentRequests"]["enabled"], c["paymentRequests"]["reason"])
        for c in conversation["channels"]
    ]


async def test_a_package_that_is_missing_after_a_restart_takes_nothing_down(
    bare: Team, acme: Acme, server: tuple[Product, Process], installed: Path
) -> None:
    await connect(bare, acme)
    assert await post(inbound_url(bare), acme.chat.writes("visitor-7", "Hello")) == 200
    (conversation,) = (await bare.product.one(d.CONVERSATIONS))["nodes"]
    contact = {"id": conversation["contact"]["id"], "conversation": {"id": conversation["id"]}}
    request = await bare.request(contact)
    async with httpx2.AsyncClient() as browser:
        await browser.post(request["checkoutUrl"] + "/pay", headers={"Origin": bare.product.base_url})
    (order,) = acme.pay.orders.values()
    webhook = acme.pay.pay(order["id"], "done")

    await server[1].kill()
    for module in ("payments.py", "chat.py"):
        (installed / "acme_pay" / module).write_text("raise RuntimeError('half an upgrade')\n")
    await server[1].start()

    # Everything is shown, nothing can be sent, and Acme's webhooks are refused so that it retries.
    (shown,) = (await bare.product.one(d.SETTINGS, token=bare.owner))["paymentSettings"]["processors"]
    assert (shown["kind"], shown["connected"]) == ("CUSTOM", True)
    assert await reasons(bare, contact) == [("CUSTOM", False, "CHANNEL_NOT_SUPPORTED")]
    for named, code in (({}, "NO_PROCESSOR_CONFIGURED"), ({"processorId": shown["id"]}, "PROCESSOR_UNAVAILABLE")):
        refused = await bare.product.one(d.CREATE, {"input": {**bare.ask(contact), **named}})
        assert [error["code"] for error in refused["userErrors"]] == [code]
    async with bare.product.browser() as contacts_browser:
        assert (await contacts_browser.open(request["checkoutUrl"])).status == 200
    spoken = acme.chat.writes("visitor-7", "Are you there?")
    assert [await post(order["notify_url"], webhook), await post(inbound_url(bare), spoken)] == [503, 503]
    await bare.connect_sandbox()
    await bare.product.ok(d.CREATE, {**bare.ask(contact), "processorKind": "SANDBOX"}, token=bare.agent)

    await server[1].kill()
    for module in ("payments.py", "chat.py"):
        (installed / "acme_pay" / module).write_text((SAMPLE / "acme_pay" / module).read_text())
    await server[1].start()
    assert [await post(order["notify_url"], webhook), await post(inbound_url(bare), spoken)] == [200, 200]
    assert [i["body"] for i in await bare.thread(contact) if i["__typename"] == "Message"] == [
        "Hello",
        "Are you there?",
    ]
    async with asyncio.timeout(10):
        while (await bare.read(request))["status"] != "PAID":
            await asyncio.sleep(0.05)
    assert await reasons(bare, contact) == [("CUSTOM", True, None)]
