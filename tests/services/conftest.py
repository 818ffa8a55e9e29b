"""Services as a process has them configured, and a small team with one reachable contact."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from argon2 import PasswordHasher

from integrations.base import ChannelKind, Environment, WebhookRequest
from integrations.channels import simulated
from models import database as db
from models import tables, vault
from models.ids import public_id
from services.accounts import login
from services.connections import providers
from services.core import turns
from services.core.permissions import Actor
from services.messaging import inbound
from settings import Settings
from tests import factories
from tests.configured import configure

BASE_URL = "https://pay.example.test"


@pytest.fixture(autouse=True)
def quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash with the cheapest parameters."""
    monkeypatch.setattr(login, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
async def configured(database: str) -> AsyncIterator[Settings]:
    """Every service configured on an empty database."""
    given: dict[str, Any] = {"environment": "test", "database_url": database, "public_url": BASE_URL}
    settings = Settings(**given)
    vault.open_vault(settings.keys)
    configure(
        settings,
        environment=Environment(public_url=settings.base_url, sandbox_url="http://127.0.0.1:9", timeout_s=5),
    )
    yield settings
    await providers.aclose()


def actor_of(user: tables.User) -> Actor:
    """The user, as authenticated."""
    return Actor(
        account_id=user.account_id,
        role=user.role,
        user_id=user.id,
        name=user.name,
        kind="user",
        credential=str(UUID(int=user.id.int ^ 1)),
    )


@dataclass
class Team:
    """One account with its people, a sandbox processor, every channel simulated, and a contact with an address on each."""

    account: tables.Account
    owner: Actor
    agent: Actor
    viewer: Actor
    processor: tables.ProcessorConnection
    channels: dict[str, tables.ChannelConnection]
    contact: tables.Contact
    conversation: tables.Conversation
    addresses: dict[str, tables.ContactAddress]

    async def hears(self, kind: str, body: str, external_id: str, *, sender: str | None = None) -> None:
        """The contact writes: a signed callback."""
        await self.calls_back(
            kind,
            simulated.inbound_body(
                sender or self.addresses[kind].address, body, at=datetime.now(UTC), external_id=external_id
            ),
        )

    async def calls_back(self, kind: str, raw: bytes, *, query: dict[str, str] | None = None) -> None:
        """A signed callback of this channel's network."""
        now = datetime.now(UTC)
        await inbound.receive(
            "simulated",
            self.channels[kind].id,
            WebhookRequest(
                method="POST",
                public_url=f"{BASE_URL}/inbound/simulated/{public_id('chn', self.channels[kind].id)}",
                headers={"paythread-simulator-signature": simulated.sign("simulated-secret", raw, at=now)},
                body=raw,
                now=now,
                query=query or {},
            ),
        )


@pytest.fixture
async def team(configured: Settings) -> Team:
    """The team, on a configured process."""
    account = await factories.account(name="Acme Cleaning")
    people = [await factories.user(account, role=role, name=role.title()) for role in ("OWNER", "AGENT", "VIEWER")]
    owner, agent, viewer = (actor_of(user) for user in people)
    kinds = [kind.value for kind in ChannelKind if kind is not ChannelKind.CUSTOM]
    contact = await factories.contact(account, name="Maya Torres")
    return Team(
        account=account,
        owner=owner,
        agent=agent,
        viewer=viewer,
        processor=await factories.processor_connection(
            account, credentials={"secret_key": "sandbox_secret_key_0001", "webhook_secret": "sandbox_webhook_0001"}
        ),
        channels={kind: await factories.channel_connection(account, kind) for kind in kinds},
        contact=contact,
        conversation=await factories.conversation(contact),
        addresses={kind: await factories.contact_address(contact, kind) for kind in kinds},
    )


async def counts(*names: str) -> dict[str, int]:
    """Rows per table."""
    return {
        name: int((await db.rows(f"SELECT count(*) AS n FROM {name}"))[0]["n"])  # noqa: S608 (names of ours)
        for name in names
    }


async def kinds_logged(account_id: UUID) -> list[str]:
    """The kinds of the account's log, in order."""
    return [
        row["kind"] for row in await db.rows("SELECT kind FROM event WHERE account_id = ? ORDER BY seq", account_id)
    ]


@pytest.fixture
def separate_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Concurrent changes do not wait for each other in the process, as if each ran in a process of its own."""
    monkeypatch.setattr(turns, "_place", lambda key, places: nullcontext())
