"""Concurrent changes of settings: none is lost, and the vendor keeps one webhook."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from integrations.base import Environment, IntegrationError
from integrations.channels.smtp_email import SmtpEmail
from integrations.channels.web_chat import WebChat
from integrations.processors.paypal import PayPal
from integrations.processors.stripe import Stripe
from models import database as db
from models import migrate, vault
from models.ids import uuid7
from models.tables import ChannelConnection, ProcessorConnection
from services.connections import channel_settings, processor_health, processor_settings, providers, webhook_registration
from services.core.permissions import Actor
from tests import factories
from tests.configured import change
from tests.contracts import paypal_server, stripe_contract, stripe_server
from tests.contracts.paypal_server import PayPalServer
from tests.contracts.stripe_server import StripeServer
from tests.services.conftest import BASE_URL, Team

KEY = stripe_server.SECRET_KEY
OTHER_KEY = "sk_test_rolled_0123456789"
SIGNING = "whsec_contract_0001"


@pytest.fixture
async def stripe(team: Team) -> AsyncIterator[StripeServer]:
    async with StripeServer(stripe_contract.derived_contract()) as server:
        use({"stripe": server.url})
        yield server
        await providers.aclose()


def use(base_addresses: dict[str, str]) -> None:
    change(environment=Environment(public_url=BASE_URL, sandbox_url="", base_addresses=base_addresses, timeout_s=5))


def together(monkeypatch: pytest.MonkeyPatch, cls: type[Any], method: str, *, first: int = 2) -> list[str]:
    """Hold the first calls of a method until all were made; the list has one entry per call."""
    real: Callable[..., Awaitable[Any]] = getattr(cls, method)
    calls: list[str] = []
    barrier = asyncio.Barrier(first)

    async def wrapped(self: Any, *args: Any, **more: Any) -> Any:
        calls.append(method)
        gated = len(calls) <= first
        answer = await real(self, *args, **more)
        if gated:
            async with asyncio.timeout(10):
                await barrier.wait()
        return answer

    monkeypatch.setattr(cls, method, wrapped)
    return calls


def meanwhile(
    monkeypatch: pytest.MonkeyPatch, cls: type[Any], method: str, change: Callable[[], Awaitable[Any]]
) -> None:
    """Make `change` during the next call of a method."""
    real: Callable[..., Awaitable[Any]] = getattr(cls, method)
    waiting = [change]

    async def wrapped(self: Any, *args: Any, **more: Any) -> Any:
        answer = await real(self, *args, **more)
        if waiting:
            await waiting.pop()()
        return answer

    monkeypatch.setattr(cls, method, wrapped)


async def of_one_account(self: Stripe) -> str:
    return stripe_server.ACCOUNT_ID


async def row_of(connection_id: UUID) -> ProcessorConnection:
    return await ProcessorConnection.get(id=connection_id)


async def secrets_work(row: ProcessorConnection, stripe: StripeServer) -> None:
    """Stripe has one endpoint of this connection, with the stored secret and id."""
    (endpoint,) = stripe.endpoints.values()
    held = providers.credentials_of(row)
    assert endpoint["url"] == providers.webhook_url(row)
    assert (held["webhook_secret"], held["webhook_endpoint_id"]) == (endpoint["secret"], endpoint["id"])
    assert row.webhook_registered


# ---------------------------------------------------------------------------------------------------------- processors
async def test_a_call_that_read_the_connection_before_its_webhook_was_made_makes_no_other(
    team: Team, stripe: StripeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"secret_key": KEY}
    before: list[ProcessorConnection] = []
    ensure = webhook_registration.ensure

    async def late(actor: Actor, row: ProcessorConnection) -> ProcessorConnection:
        before.append(row)
        return await ensure(actor, row)

    monkeypatch.setattr(webhook_registration, "ensure", late)
    made = await processor_settings.configure_processor(team.owner, processor="stripe", credentials=given)
    await secrets_work(made, stripe)
    again = await ensure(team.owner, before[0])
    await secrets_work(again, stripe)
    assert again.webhook_claimed_until is None
    assert [call.method for call in stripe.calls if "webhook_endpoints" in call.path] == ["GET", "POST"]


async def test_a_double_click_connects_one_vendor_account_once_with_one_webhook(
    team: Team, stripe: StripeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    together(monkeypatch, Stripe, "check", first=3)
    given = {"secret_key": KEY}
    rows = await asyncio.gather(
        *(processor_settings.configure_processor(team.owner, processor="stripe", credentials=given) for _ in range(3))
    )
    (row,) = await ProcessorConnection.filter(processor="stripe")
    assert {one.id for one in rows} == {row.id}
    await secrets_work(row, stripe)


async def test_a_double_click_on_the_sandbox_makes_one_connection(team: Team) -> None:
    await ProcessorConnection.all().delete()
    rows = await asyncio.gather(
        *(processor_settings.configure_processor(team.owner, processor="sandbox") for _ in range(2))
    )
    (row,) = await ProcessorConnection.all()
    assert {one.id for one in rows} == {row.id}
    assert {one.credentials for one in rows} == {row.credentials}


async def test_two_people_who_change_different_credentials_both_win(
    team: Team, stripe: StripeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stripe, "check", of_one_account)
    first = await processor_settings.configure_processor(
        team.owner, processor="stripe", credentials={"secret_key": KEY, "webhook_secret": SIGNING}
    )
    calls = together(monkeypatch, Stripe, "check")
    await asyncio.gather(
        processor_settings.configure_processor(team.owner, processor="stripe", credentials={"secret_key": OTHER_KEY}),
        processor_settings.configure_processor(
            team.owner, processor="stripe", credentials={"webhook_secret": "whsec_new"}, display_name="Cards"
        ),
    )
    row = await row_of(first.id)
    assert providers.credentials_of(row) == {"secret_key": OTHER_KEY, "webhook_secret": "whsec_new"}
    assert (row.display_name, row.version, row.webhook_registered) == ("Cards", first.version + 2, False)
    assert len(calls) == 3  # what came second was tried at the vendor as a whole
    assert row.key_hint == f"sk_…{OTHER_KEY[-4:]}"


async def test_what_a_call_does_not_mean_to_change_stays_as_others_made_it(
    team: Team, stripe: StripeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await processor_settings.configure_processor(
        team.owner, processor="stripe", credentials={"secret_key": KEY, "webhook_secret": SIGNING}, make_default=True
    )

    async def others() -> None:
        await processor_settings.configure_processor(team.owner, processor="stripe", display_name="Renamed")
        await processor_settings.configure_processor(team.owner, processor="sandbox", make_default=True)

    meanwhile(monkeypatch, Stripe, "check", others)
    row = await processor_settings.configure_processor(
        team.owner, processor="stripe", credentials={"webhook_secret": "whsec_new"}
    )
    assert (row.id, row.display_name, row.is_default) == (first.id, "Renamed", False)
    assert providers.credentials_of(row)["webhook_secret"] == "whsec_new"
    assert [one.processor for one in await ProcessorConnection.filter(is_default=True)] == ["sandbox"]


async def test_a_new_name_does_not_undo_a_disconnection(
    team: Team, stripe: StripeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = await processor_settings.configure_processor(team.owner, processor="stripe", credentials={"secret_key": KEY})
    read = processor_settings.check

    async def read_then_disconnected(*args: Any, **given: Any) -> Any:
        wanted = await read(*args, **given)
        await processor_settings.disconnect_processor(team.owner, row.id)
        return wanted

    monkeypatch.setattr(processor_settings, "check", read_then_disconnected)
    renamed = await processor_settings.configure_processor(
        team.owner, processor="stripe", connection_id=row.id, display_name="Old", make_default=True
    )
    assert (renamed.display_name, renamed.connected, renamed.is_default) == ("Old", False, False)
    assert stripe.endpoints == {}


async def test_who_connects_again_while_the_webhook_is_taken_back_has_one_that_works(
    team: Team, stripe: StripeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = await processor_settings.configure_processor(team.owner, processor="stripe", credentials={"secret_key": KEY})

    async def connect_again() -> None:
        await processor_settings.configure_processor(team.owner, processor="stripe", connection_id=row.id)

    meanwhile(monkeypatch, Stripe, "unregister_webhook", connect_again)
    shown = await processor_settings.disconnect_processor(team.owner, row.id)
    now = await row_of(row.id)
    assert (shown.connected, now.connected) == (True, True)
    await secrets_work(now, stripe)


async def test_a_webhook_that_is_registered_too_late_is_taken_back(
    team: Team, stripe: StripeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Meanwhile a person gave another webhook's secret, or disconnected.

    async def give() -> None:
        await processor_settings.configure_processor(
            team.owner, processor="stripe", credentials={"webhook_secret": SIGNING}
        )

    meanwhile(monkeypatch, Stripe, "register_webhook", give)
    row = await processor_settings.configure_processor(team.owner, processor="stripe", credentials={"secret_key": KEY})
    assert providers.credentials_of(row) == {"secret_key": KEY, "webhook_secret": SIGNING}
    assert (row.webhook_registered, stripe.endpoints) == (False, {})

    await processor_settings.disconnect_processor(team.owner, row.id)

    async def disconnect() -> None:
        await processor_settings.disconnect_processor(team.owner, row.id)

    meanwhile(monkeypatch, Stripe, "register_webhook", disconnect)
    row = await processor_settings.configure_processor(
        team.owner, processor="stripe", credentials={"webhook_secret": ""}
    )
    assert (row.connected, row.webhook_registered, stripe.endpoints) == (False, False, {})
    assert providers.credentials_of(row)["webhook_secret"] == ""


async def test_a_registration_that_died_is_made_again_after_its_claim_has_ended(
    team: Team, stripe: StripeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The process dies between Stripe's answer and the commit.

    async def killed() -> None:
        raise RuntimeError("killed")

    meanwhile(monkeypatch, Stripe, "register_webhook", killed)
    with pytest.raises(RuntimeError):
        await processor_settings.configure_processor(team.owner, processor="stripe", credentials={"secret_key": KEY})
    (row,) = await ProcessorConnection.filter(processor="stripe")
    (lost,) = stripe.endpoints
    again = await processor_settings.configure_processor(
        team.owner, processor="stripe", credentials={"secret_key": KEY}
    )
    assert not again.webhook_registered  # the claim of the dead one still holds
    await ProcessorConnection.filter(id=row.id).update(webhook_claimed_until=datetime.now(UTC) - timedelta(seconds=1))
    again = await processor_settings.configure_processor(
        team.owner, processor="stripe", credentials={"secret_key": KEY}
    )
    assert lost not in stripe.endpoints
    await secrets_work(again, stripe)


async def test_paypal_gets_one_webhook_from_a_double_click_and_a_late_removal_spares_the_new_one(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with PayPalServer(paypal_server.contracts()[0]) as server:
        use({"paypal": server.url})
        server.may_register = True
        together(monkeypatch, PayPal, "check")
        given = {"client_id": paypal_server.CLIENT_ID, "client_secret": paypal_server.CLIENT_SECRET}
        first, second = await asyncio.gather(
            *(
                processor_settings.configure_processor(
                    team.owner, processor="paypal", credentials=given, test_mode=True
                )
                for _ in range(2)
            )
        )
        assert first.id == second.id
        (webhook,) = server.webhooks
        assert providers.credentials_of(await row_of(first.id))["webhook_id"] == webhook
        old = await row_of(first.id)

        async def connect_again() -> None:
            await processor_settings.configure_processor(team.owner, processor="paypal", connection_id=old.id)

        meanwhile(monkeypatch, PayPal, "unregister_webhook", connect_again)
        await processor_settings.disconnect_processor(team.owner, old.id)
        (webhook,) = server.webhooks
        now = await row_of(old.id)
        assert (now.connected, providers.credentials_of(now)["webhook_id"]) == (True, webhook)
        await providers.aclose()


async def test_changed_credentials_are_used_whatever_version_their_row_has(team: Team, stripe: StripeServer) -> None:
    # Two writers counted from the same version.
    row = await processor_settings.configure_processor(
        team.owner, processor="stripe", credentials={"secret_key": KEY, "webhook_secret": SIGNING}
    )
    old = providers.processor(row)
    sealed = providers.sealed(team.account.id, {"secret_key": KEY, "webhook_secret": "whsec_new"})
    await ProcessorConnection.filter(id=row.id).update(credentials=sealed)
    changed = await row_of(row.id)
    assert changed.version == row.version
    new = providers.processor(changed)
    assert new is not old
    assert providers.processor(changed) is new
    await ProcessorConnection.filter(id=row.id).update(version=99)
    assert providers.processor(await row_of(row.id)) is new


async def test_an_answer_about_replaced_credentials_is_not_noted(
    team: Team, stripe: StripeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stripe, "check", of_one_account)
    row = await processor_settings.configure_processor(
        team.owner, processor="stripe", credentials={"secret_key": OTHER_KEY, "webhook_secret": SIGNING}
    )

    async def refused(self: Stripe) -> str:
        monkeypatch.setattr(Stripe, "check", of_one_account)
        await processor_settings.configure_processor(team.owner, processor="stripe", credentials={"secret_key": KEY})
        raise IntegrationError("stripe", "authentication_failed")

    monkeypatch.setattr(Stripe, "check", refused)
    tested, refusal = await processor_settings.check_processor(team.owner, row.id)
    assert refusal is not None
    assert tested.last_error is None
    # The same where a checkout or the sweeper has called with the old ones.
    assert not await processor_health.refused(row, IntegrationError("stripe", "authentication_failed"))
    assert not await processor_health.note(row, "timeout: no answer")
    assert (await row_of(row.id)).last_error is None
    now = await row_of(row.id)
    assert await processor_health.refused(now, IntegrationError("stripe", "authentication_failed"))
    assert "does not accept these credentials" in ((await row_of(row.id)).last_error or "")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_key_rotation_during_a_change_is_no_change(
    team: Team, stripe: StripeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = await processor_settings.configure_processor(
        team.owner, processor="stripe", credentials={"secret_key": KEY, "webhook_secret": SIGNING}
    )

    async def sealed_anew() -> None:
        await ProcessorConnection.filter(id=row.id).update(
            credentials=vault.seal(row.account_id, vault.unseal(row.account_id, row.credentials))
        )

    calls = together(monkeypatch, Stripe, "check", first=1)
    meanwhile(monkeypatch, Stripe, "check", sealed_anew)
    await processor_settings.configure_processor(
        team.owner, processor="stripe", credentials={"webhook_secret": "whsec_new"}
    )
    assert calls == ["check"]
    assert providers.credentials_of(await row_of(row.id))["webhook_secret"] == "whsec_new"


async def test_duplicates_from_before_the_key_are_kept_and_marked(team: Team, database: str) -> None:
    account = team.account
    names: dict[str, Any] = {"processor": "stripe", "vendor_account": "acct_1", "is_default": False}
    other_account = await factories.account()
    await migrate.rollback(database, "0011_due_dates")
    try:
        gone, kept, other = [
            await insert_before_the_key(account.id, connected=connected) for connected in (False, True, True)
        ]
        other_accounts_row = await insert_before_the_key(other_account.id, connected=True)
    finally:
        await migrate.migrate(database)
    marked = {row.id: row.is_duplicate for row in await ProcessorConnection.filter(processor="stripe")}
    assert marked == {gone: True, kept: False, other: True, other_accounts_row: False}
    with pytest.raises(Exception, match=r"(?i)unique"):
        await factories.processor_connection(account, **names)
    await factories.processor_connection(account, **names | {"test_mode": False})


async def insert_before_the_key(account_id: UUID, *, connected: bool) -> UUID:
    """A row of a table that has not got the columns of the key."""
    made = uuid7()
    await db.execute(
        "INSERT INTO processor_connection (id, account_id, processor, display_name, test_mode, credentials, vendor_account,"
        " connected, is_default, webhook_registered, version, created_at)"
        " VALUES (?, ?, 'stripe', 'Stripe', ?, 'x', 'acct_1', ?, ?, ?, 1, ?)",
        made,
        account_id,
        True,
        connected,
        False,
        False,
        datetime.now(UTC),
    )
    return made


# ------------------------------------------------------------------------------------------------------------ channels
async def test_a_rotated_identity_secret_never_comes_back(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    row = await channel_settings.connect_channel(team.owner, kind="WEB_CHAT", provider="web_chat")
    issued: list[str | None] = []

    async def rotate() -> None:
        issued.append((await channel_settings.rotate_identity_secret(team.owner, row.id))[1])

    meanwhile(monkeypatch, WebChat, "check", rotate)
    renamed = await channel_settings.connect_channel(
        team.owner,
        kind="WEB_CHAT",
        provider="web_chat",
        connection_id=row.id,
        allowed_origins=["https://acme.example"],
    )
    assert providers.credentials_of(renamed) == {"identity_secret": issued[0]}
    assert (renamed.allowed_origins, renamed.version) == (["https://acme.example"], row.version + 2)


async def test_two_people_who_change_a_channel_both_win(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    async def answers(self: SmtpEmail) -> None:
        return None

    monkeypatch.setattr(SmtpEmail, "check", answers)
    base = {"host": "smtp.acme.test", "from_address": "pay@acme.test", "username": "u", "password": "old"}

    async def connect(**given: Any) -> ChannelConnection:
        return await channel_settings.connect_channel(team.owner, kind="EMAIL", provider="smtp_email", **given)

    row = await connect(credentials=base, display_name="Mail", sender="pay@acme.test")
    together(monkeypatch, SmtpEmail, "check", first=3)
    await asyncio.gather(
        connect(connection_id=row.id, credentials={"password": "new"}),
        connect(connection_id=row.id, credentials={"reply_to": "desk@acme.test"}, sender="desk@acme.test"),
        connect(connection_id=row.id, display_name="Post"),
    )
    now = await ChannelConnection.get(id=row.id)
    assert providers.credentials_of(now) == base | {"password": "new", "reply_to": "desk@acme.test"}
    assert (now.display_name, now.sender, now.version) == ("Post", "desk@acme.test", row.version + 3)

    async def disconnect() -> None:
        await channel_settings.disconnect_channel(team.owner, row.id)

    meanwhile(monkeypatch, SmtpEmail, "check", disconnect)
    now = await connect(connection_id=row.id, display_name="Letters")
    assert (now.display_name, now.connected) == ("Letters", False)
    assert (await connect(connection_id=row.id)).connected


async def test_notes_about_a_channel_are_about_its_present_credentials(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answers(self: SmtpEmail) -> None:
        return None

    monkeypatch.setattr(SmtpEmail, "check", answers)
    base = {"host": "smtp.acme.test", "from_address": "pay@acme.test", "username": "u", "password": "old"}
    row = await channel_settings.connect_channel(team.owner, kind="EMAIL", provider="smtp_email", credentials=base)

    async def note(of: ChannelConnection, problem: str | None) -> str | None:
        await providers.note_channel(of, problem)
        return (await ChannelConnection.get(id=row.id)).last_error

    assert await note(row, "refused") == "refused"
    read = await ChannelConnection.get(id=row.id)
    assert await note(read, "worse") == "worse"
    assert await note(read, None) == "worse"  # it went wrong after `read`
    new = await channel_settings.connect_channel(
        team.owner, kind="EMAIL", provider="smtp_email", connection_id=row.id, credentials={"password": "new"}
    )
    assert new.last_error is None
    assert await note(read, "unauthorized with the old password") is None
