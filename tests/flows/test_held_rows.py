"""Another session holds a row: work on it waits for a limited time or is stored for later; other work continues."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import httpx2
import pytest

import app
from models.database_url import postgres_arguments
from models.ids import parse_public_id
from models.tables import IdempotencyKey, Message, MoneyFact, Notification, PaymentRequest, ProcessorEvent
from settings import Settings
from tests.contracts import stripe_contract, twilio_server
from tests.contracts.stripe_server import SECRET_KEY, WEBHOOK_SECRET, StripeServer
from tests.contracts.twilio_server import ACCOUNT_SID, AUTH_TOKEN, FROM_NUMBER, TwilioServer
from tests.flows import documents as d
from tests.flows import harness
from tests.flows.conftest import Team
from tests.flows.harness import Product

WEBHOOKS = 24
LOCK_S = 0.5  # DATABASE_LOCK_TIMEOUT_S of the server
HOLD_S = 4.0
READ_S = 2.0  # a wide bound: while the pool was waiting, reads took as long as the row was held


@pytest.fixture
async def stripe() -> AsyncIterator[StripeServer]:
    async with StripeServer(stripe_contract.contracts()[0]) as server:
        yield server


@pytest.fixture
async def twilio() -> AsyncIterator[TwilioServer]:
    async with TwilioServer(twilio_server.contracts()[0]) as server:
        yield server


@pytest.fixture
async def running(
    database: str, events_url: str, stripe: StripeServer, twilio: TwilioServer
) -> AsyncIterator[tuple[Product, harness.Process]]:
    """The server as a process, with its production pool."""
    values = {k.lower(): v for k, v in harness.environment(1, database, events_url).items()}
    app.configure(Settings(_env_file=None, **values))  # type: ignore[call-arg, arg-type]
    async with harness.process(
        database,
        events_url,
        STRIPE_API_BASE=stripe.url,
        TWILIO_API_BASE=twilio.url,
        DATABASE_LOCK_TIMEOUT_S=str(LOCK_S),
    ) as (product, server):
        yield product, server


@pytest.fixture
def product(running: tuple[Product, harness.Process]) -> Product:
    return running[0]


@pytest.fixture
def server(running: tuple[Product, harness.Process]) -> harness.Process:
    return running[1]


@pytest.fixture
async def shop(bare: Team) -> Team:
    """A team with Stripe, and SMS by Twilio."""
    credentials = {"account_sid": ACCOUNT_SID, "auth_token": AUTH_TOKEN, "from_number": FROM_NUMBER}
    payload = await bare.product.ok(
        d.CONNECT_CHANNEL,
        {
            "kind": "SMS",
            "provider": "twilio_sms",
            "sender": FROM_NUMBER,
            "credentials": [{"name": name, "value": value} for name, value in credentials.items()],
        },
        token=bare.owner,
    )
    bare.channels["SMS"] = payload["channel"]["id"]
    payload = await bare.product.ok(
        d.CONFIGURE_PROCESSOR,
        {"credentials": {"stripe": {"secretKey": SECRET_KEY, "webhookSecret": WEBHOOK_SECRET}}},
        token=bare.owner,
    )
    bare.processor = payload["processor"]
    return bare


def id_of(public: str) -> UUID:
    found = parse_public_id(public, public[: public.index("_")])
    assert found is not None
    return found


@asynccontextmanager
async def held(database_url: str, sql: str, *args: object) -> AsyncIterator[None]:
    """Another session that does this and does not commit."""
    other = await asyncpg.connect(**postgres_arguments(database_url))
    try:
        async with other.transaction():
            await other.execute(sql, *args)
            yield
    finally:
        await other.close()


@dataclass
class Seen:
    """How long each operation took while the row was held, in seconds."""

    webhooks: list[tuple[int, float]] = field(default_factory=list)
    reads: list[float] = field(default_factory=list)
    writes: list[float] = field(default_factory=list)


async def paid_webhooks(
    shop: Team, stripe: StripeServer, request: dict[str, Any]
) -> list[tuple[bytes, dict[str, str]]]:
    """The contact has paid; the event in WEBHOOKS versions, as many events as a vendor may have about one request."""
    async with httpx2.AsyncClient() as contact:
        answer = await contact.post(request["checkoutUrl"] + "/pay", headers={"Origin": shop.product.base_url})
    event = stripe.pay(answer.headers["location"].rsplit("/", 1)[1].split("#")[0])
    return [stripe.webhook({**event, "id": f"{event['id']}{n}"}) for n in range(WEBHOOKS)]


async def meanwhile(
    shop: Team,
    posts: list[tuple[bytes, dict[str, str]]],
    other: dict[str, Any],
    contact: dict[str, Any],
    *,
    for_s: float,
) -> Seen:
    """Deliver all webhooks at once; read another request, and ask for another payment, again and again."""
    seen = Seen()
    until = time.monotonic() + for_s

    async def timed(work: Any, into: list[float]) -> Any:
        began = time.monotonic()
        result = await work
        into.append(time.monotonic() - began)
        return result

    async def deliver(body: bytes, headers: dict[str, str]) -> None:
        began = time.monotonic()
        answer = await vendor.post(shop.processor["webhookUrl"], content=body, headers=headers)
        seen.webhooks.append((answer.status_code, time.monotonic() - began))

    async def read() -> None:
        while time.monotonic() < until:
            assert (await timed(shop.read(other), seen.reads))["id"] == other["id"]
            await asyncio.sleep(0.05)

    async def write() -> None:
        while time.monotonic() < until:
            await timed(shop.request(contact), seen.writes)
            await asyncio.sleep(0.2)

    async with httpx2.AsyncClient(timeout=60) as vendor:
        await asyncio.gather(*(deliver(*post) for post in posts), read(), read(), write())
    return seen


async def paid_once(request: dict[str, Any], shop: Team) -> None:
    """Wait until every event is handled: one fact, one card, one notification."""
    async with asyncio.timeout(60):
        while await ProcessorEvent.filter(handled_at=None).exists():
            await asyncio.sleep(0.1)
    assert (await shop.read(request))["status"] == "PAID"
    row = id_of(request["id"])
    assert await MoneyFact.filter(payment_request_id=row).count() == 1
    assert await Notification.filter(payment_request_id=row, kind="PAYMENT_RECEIVED").count() == 1


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_a_held_request_keeps_its_webhooks_and_nothing_else_waiting(
    shop: Team, stripe: StripeServer, twilio: TwilioServer, database: str
) -> None:
    maria, noah = await shop.contact(), await shop.contact("Noah Berg", n=2)
    request, other = await shop.request(maria), await shop.request(noah)
    posts = await paid_webhooks(shop, stripe, request)
    both = """WITH request AS (SELECT 1 FROM payment_request WHERE id = $1 FOR UPDATE),
        contact AS (SELECT 1 FROM contact WHERE id = $2 FOR UPDATE) SELECT * FROM request, contact"""
    async with held(database, both, id_of(request["id"]), id_of(maria["id"])):
        seen = await meanwhile(shop, posts, other, noah, for_s=HOLD_S)
        # Twilio sends a message once: it is kept, too.
        inbound = f"{shop.product.base_url}/inbound/twilio_sms/{shop.channels['SMS']}"
        body, headers = twilio.inbound(inbound, sender="+14155552601", body="Is it paid now?")
        async with httpx2.AsyncClient(timeout=30) as vendor:
            assert (await vendor.post(inbound, content=body, headers=headers)).status_code == 200
        assert await Message.filter(direction="INBOUND").count() == 0
        # Work on the row itself fails as transient within the limit.
        with pytest.raises(harness.GraphQLFailed) as refused:
            await shop.product.one(d.COPIED, {"input": {"paymentRequestId": request["id"]}})
        assert refused.value.code == "SERVICE_UNAVAILABLE"
    assert [status for status, _ in seen.webhooks] == [200] * WEBHOOKS
    assert await ProcessorEvent.all().count() == WEBHOOKS
    assert max(seen.reads) < READ_S
    assert max(seen.writes) < READ_S
    await paid_once(request, shop)
    async with asyncio.timeout(30):
        while not await Message.filter(direction="INBOUND").exists():
            await asyncio.sleep(0.1)
    assert [m.body for m in await Message.filter(direction="INBOUND")] == ["Is it paid now?"]


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_a_mutation_that_was_killed_in_flight_is_repeated_on_another_server(
    bare: Team, server: harness.Process, database: str, events_url: str
) -> None:
    await bare.connect_sandbox()
    maria = await bare.contact()
    given = bare.ask(maria)
    async with harness.in_process(database, events_url) as beside:
        async with held(database, "SELECT 1 FROM contact WHERE id = $1 FOR UPDATE", id_of(maria["id"])):
            asked = asyncio.create_task(bare.product.raw(d.CREATE, {"input": given}, token=bare.agent))
            async with asyncio.timeout(20):
                while not await IdempotencyKey.filter(state="running").exists():
                    await asyncio.sleep(0.02)
            await server.kill()
            with pytest.raises(httpx2.TransportError):
                await asked
        killed_at = time.monotonic()
        refused = 0
        while True:
            payload = await beside.one(d.CREATE, {"input": given}, token=bare.agent)
            if payload["paymentRequest"] is not None:
                break
            assert [error["code"] for error in payload["userErrors"]] == ["IDEMPOTENCY_CONCURRENT_REQUEST"]
            refused += 1
            await asyncio.sleep(0.2)
        assert refused > 0  # the claim of the dead process was there
        assert time.monotonic() - killed_at < 8
        again = await beside.one(d.CREATE, {"input": given}, token=bare.agent)
    assert again["paymentRequest"]["id"] == payload["paymentRequest"]["id"]
    assert await PaymentRequest.all().count() == 1
