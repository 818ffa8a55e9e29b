"""A running server with an account that can request payments; SQLite with memory events, PostgreSQL with Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from argon2 import PasswordHasher

from services.accounts import accounts, authentication, login, users
from services.payments import integrity_check
from tests.flows import documents as d
from tests.flows import harness
from tests.flows.harness import PASSWORD, Browser, Feed, Product

KINDS = ("SMS", "EMAIL", "WHATSAPP", "INSTAGRAM_DM", "MESSENGER", "WEB_CHAT")


@pytest.fixture(autouse=True)
def quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash with the cheapest parameters: each test signs two people in."""
    monkeypatch.setattr(login, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
def events_url(database_url: str, request: pytest.FixtureRequest) -> str:
    """Redis for PostgreSQL, memory for SQLite."""
    if database_url.startswith("sqlite"):
        return "memory://"
    url: str = request.getfixturevalue("redis_url")
    return url


@pytest.fixture
async def product(database: str, events_url: str) -> AsyncIterator[Product]:
    """An empty server. After the test, the integrity check must find no difference."""
    async with harness.in_process(database, events_url) as running:
        yield running
        assert [str(difference) for difference in await integrity_check.audit()] == []


@dataclass
class Team:
    """An account with an owner and an agent, and their calls of the API."""

    product: Product
    account_id: str
    owner: str  # access tokens
    agent: str
    agent_id: str
    channels: dict[str, str] = field(default_factory=dict)  # kind -> channel id
    processor: dict[str, Any] = field(default_factory=dict)

    async def connect_sandbox(self) -> dict[str, Any]:
        payload = await self.product.ok(d.CONFIGURE_PROCESSOR, {"credentials": {"sandbox": True}}, token=self.owner)
        self.processor = payload["processor"]
        return self.processor

    async def connect_channels(self) -> None:
        for kind in KINDS:
            payload = await self.product.ok(
                d.CONNECT_CHANNEL,
                {"kind": kind, "provider": "simulated", "displayName": f"Our {kind}"},
                token=self.owner,
            )
            self.channels[kind] = payload["channel"]["id"]

    async def contact(self, name: str = "Maria Lopez", n: int = 1, **more: Any) -> dict[str, Any]:
        """A contact with an address on every kind of channel: its id and conversation id."""
        payload = await self.product.ok(
            d.CREATE_CONTACT,
            {
                "name": name,
                "email": f"maria{n}@example.com",
                "phone": f"+1415555{2600 + n}",
                "addresses": [
                    {"kind": "INSTAGRAM_DM", "address": f"ig-{n}"},
                    {"kind": "MESSENGER", "address": f"fb-{n}"},
                    {"kind": "WEB_CHAT", "address": f"visitor-{n}"},
                ],
                **more,
            },
            token=self.agent,
        )
        contact: dict[str, Any] = payload["contact"]
        return contact

    async def request(self, contact: dict[str, Any], **more: Any) -> dict[str, Any]:
        """A draft of $120.00."""
        payload = await self.product.ok(d.CREATE, {**self.ask(contact), **more}, token=self.agent)
        request: dict[str, Any] = payload["paymentRequest"]
        return request

    def ask(self, contact: dict[str, Any], **more: Any) -> dict[str, Any]:
        """The input of createPaymentRequest."""
        return {
            "idempotencyKey": harness.key(),
            "for": {"contactId": contact["id"]},
            "productName": "Deep clean",
            "amount": {"amount": "120.00"},
            **more,
        }

    async def send(self, request: dict[str, Any], kind: str = "SMS", **more: Any) -> dict[str, Any]:
        result: dict[str, Any] = await self.product.ok(
            d.SEND_REQUEST,
            {
                "idempotencyKey": harness.key(),
                "paymentRequestId": request["id"],
                "channelId": self.channels[kind],
                **more,
            },
            token=self.agent,
        )
        return result

    async def thread(self, contact: dict[str, Any]) -> list[dict[str, Any]]:
        """The thread's items, oldest first."""
        conversation = await self.product.one(d.THREAD, {"id": contact["conversation"]["id"]}, token=self.agent)
        items: list[dict[str, Any]] = conversation["thread"]["nodes"]
        return items

    async def cards(self, contact: dict[str, Any]) -> list[tuple[str, str]]:
        """(kind, logged status) of the thread's cards, oldest first."""
        return [(i["kind"], i["status"]) for i in await self.thread(contact) if i["__typename"] == "ActivityCard"]

    async def read(self, request: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = await self.product.one(d.REQUEST, {"id": request["id"]}, token=self.agent)
        return found

    async def pay(self, request: dict[str, Any], button: str = "Pay") -> Browser:
        """The contact opens the link, presses Pay, and presses `button` on the sandbox's page."""
        async with self.product.browser() as browser:
            await browser.open(request["checkoutUrl"])
            assert browser.status == 200, browser.text
            await browser.press("Pay")
            await browser.press(button)
            return browser

    def inbox(self, after: str | None = None) -> Any:
        """A subscription to inboxEvents; `opened` waits for its first event."""
        return self.product.subscribe(d.INBOX, {"after": after}, token=self.agent)

    async def until_paid(self, feed: Feed, request: dict[str, Any]) -> dict[str, Any]:
        return await feed.until(
            "PaymentRequestUpdated", paymentRequest__id=request["id"], paymentRequest__status="PAID"
        )


async def opened(feed: Feed) -> Feed:
    """Wait for the feed's first event."""
    event = await feed.next()
    assert event["__typename"] == "Subscribed", event
    return feed


async def new_team(product: Product) -> Team:
    """A team without processor and channels, both people signed in."""
    owner_email = f"owner-{harness.key()}@example.com"
    account, _ = await accounts.create_account(
        name="Acme Cleaning", currency="USD", email=owner_email, password=PASSWORD, user_name="Olga Owner"
    )
    owner_token = await product.sign_in(owner_email)
    owner = await authentication.authenticate(owner_token)
    assert owner is not None
    agent_email = f"agent-{harness.key()}@example.com"
    agent = await users.add(owner, email=agent_email, name="Ana Agent", role="AGENT", password=PASSWORD)
    team = Team(
        product=product,
        account_id=str(account.id),
        owner=owner_token,
        agent=await product.sign_in(agent_email),
        agent_id=str(agent.id),
    )
    product.token = team.agent
    return team


@pytest.fixture
async def bare(product: Product) -> Team:
    """A team without processor and channels."""
    return await new_team(product)


@pytest.fixture
async def team(bare: Team) -> Team:
    """A team with the sandbox and six simulated channels."""
    await bare.connect_sandbox()
    await bare.connect_channels()
    return bare
