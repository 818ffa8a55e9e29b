"""Connecting processors and channels: the vendor is asked first, secrets are sealed and never shown, one default, roles."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
import pytest

from integrations import registry
from integrations.base import Environment, IntegrationError
from integrations.processors.stripe import Stripe
from models import database as db
from models import vault
from models.errors import Forbidden, Invalid, NotFound, ProcessorRejected, ProcessorUnavailable, TooLong
from models.ids import public_id, uuid7
from models.tables import AuditEntry, ChannelConnection, ProcessorConnection
from services.accounts import key_rotation
from services.connections import channel_settings, processor_health, processor_settings, providers
from settings import Settings
from tests import factories
from tests.configured import change, change_environment
from tests.contracts import paypal_server, square_server, stripe_contract, stripe_server, twilio_server
from tests.contracts.openapi import Call
from tests.contracts.paypal_server import PayPalServer
from tests.contracts.square_server import SquareServer
from tests.contracts.stripe_server import StripeServer
from tests.contracts.twilio_server import TwilioServer
from tests.services.conftest import BASE_URL, Team, actor_of
from tests.services.scripted import Scripted

KEY = stripe_server.SECRET_KEY
SIGNING = "whsec_contract_0001"


@pytest.fixture
async def stripe(team: Team) -> AsyncIterator[StripeServer]:
    """Stripe's contract server in place of Stripe."""
    async with StripeServer(stripe_contract.derived_contract()) as server:
        change(
            environment=Environment(
                public_url=BASE_URL,
                sandbox_url="http://127.0.0.1:9",
                base_addresses={"stripe": server.url},
                timeout_s=5,
            )
        )
        yield server
        await providers.aclose()


def asked(stripe: StripeServer) -> int:
    """How often Stripe was asked whose key it is."""
    return [call.path for call in stripe.calls].count("/v1/account")


async def test_a_key_is_checked_at_the_vendor_then_sealed_and_masked(team: Team, stripe: StripeServer) -> None:
    row = await processor_settings.configure_processor(
        team.owner,
        processor="stripe",
        credentials={"secret_key": f" {KEY} ", "webhook_secret": SIGNING},
        make_default=True,
    )
    assert asked(stripe) == 1
    assert (row.display_name, row.test_mode, row.connected, row.is_default) == ("Stripe", True, True, True)
    assert (row.vendor_account, row.key_hint) == (stripe_server.ACCOUNT_ID, f"sk_…{KEY[-4:]}")
    assert providers.credentials_of(row) == {"secret_key": KEY, "webhook_secret": SIGNING}
    assert KEY not in row.credentials
    assert providers.processor_kind(row) == "STRIPE"
    assert providers.webhook_url(row) == f"{BASE_URL}/webhooks/stripe/{public_id('prc', row.id)}"
    assert await providers.default_processor(team.account.id) == row
    assert not (await ProcessorConnection.get(id=team.processor.id)).is_default
    entry = await AuditEntry.get()
    assert (entry.action, entry.actor_id, entry.subject) == (
        "processor.configured",
        team.owner.user_id,
        public_id("prc", row.id),
    )
    assert KEY not in str(entry.detail)
    assert SIGNING not in str(entry.detail)


async def test_a_refused_key_stores_nothing(team: Team, stripe: StripeServer) -> None:
    with pytest.raises(ProcessorRejected) as refused:
        await processor_settings.configure_processor(
            team.owner, processor="stripe", credentials={"secret_key": "sk_test_wrong"}
        )
    assert refused.value.field == ("credentials", "secret_key")
    assert "sk_test" not in refused.value.message
    assert await ProcessorConnection.filter(processor="stripe").count() == 0
    assert await AuditEntry.all().count() == 0


async def test_a_silent_vendor_stores_nothing_and_says_try_again(team: Team) -> None:
    change(
        environment=Environment(
            public_url=BASE_URL, sandbox_url="", base_addresses={"stripe": "http://127.0.0.1:9"}, timeout_s=2
        )
    )
    with pytest.raises(ProcessorUnavailable):
        await processor_settings.configure_processor(team.owner, processor="stripe", credentials={"secret_key": KEY})
    assert await ProcessorConnection.filter(processor="stripe").count() == 0


async def test_a_second_configuration_changes_the_same_connection_and_asks_again_for_every_new_credential(
    team: Team, stripe: StripeServer
) -> None:
    first = await processor_settings.configure_processor(
        team.owner, processor="stripe", credentials={"secret_key": KEY}
    )
    assert not first.is_default
    live = providers.processor(first)
    again = await processor_settings.configure_processor(
        team.owner, processor="stripe", display_name="Main", credentials={"webhook_secret": SIGNING}, make_default=True
    )
    assert (again.id, again.display_name, again.is_default) == (first.id, "Main", True)
    assert again.version == first.version + 1
    assert providers.credentials_of(again) == {"secret_key": KEY, "webhook_secret": SIGNING}
    assert asked(stripe) == 2
    assert providers.processor(again) is not live
    assert providers.processor(again) is providers.processor(again)
    renamed = await processor_settings.configure_processor(team.owner, processor="stripe", display_name="Cards")
    assert (renamed.id, renamed.display_name) == (first.id, "Cards")
    assert asked(stripe) == 2


async def test_a_key_of_another_vendor_account_makes_another_connection(
    team: Team, stripe: StripeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await processor_settings.configure_processor(
        team.owner, processor="stripe", credentials={"secret_key": KEY, "webhook_secret": SIGNING}
    )

    async def check(self: Stripe) -> str:
        return "acct_other"

    monkeypatch.setattr(Stripe, "check", check)
    with pytest.raises(ProcessorRejected):
        await processor_settings.configure_processor(
            team.owner,
            processor="stripe",
            connection_id=first.id,
            credentials={"secret_key": "sk_test_of_another_account"},
        )
    second = await processor_settings.configure_processor(
        team.owner, processor="stripe", credentials={"secret_key": "sk_test_of_another_account"}
    )
    assert second.id != first.id
    assert providers.credentials_of(second) == {
        "secret_key": "sk_test_of_another_account"
    }  # not the first one's signing
    assert providers.credentials_of(await ProcessorConnection.get(id=first.id)) == {
        "secret_key": KEY,
        "webhook_secret": SIGNING,
    }
    # Its next key is known by whose it is, not by which connection came first.
    third = await processor_settings.configure_processor(
        team.owner, processor="stripe", credentials={"secret_key": "sk_test_rolled_of_the_other"}
    )
    assert (third.id, third.version) == (second.id, 2)
    assert await ProcessorConnection.filter(processor="stripe").count() == 2


async def test_the_keys_own_mode_decides_and_a_contradiction_is_refused(team: Team, stripe: StripeServer) -> None:
    for key, test_mode in ((KEY, False), ("sk_live_0123456789abcdef", True)):
        with pytest.raises(Invalid) as refused:
            await processor_settings.configure_processor(
                team.owner, processor="stripe", credentials={"secret_key": key}, test_mode=test_mode
            )
        assert refused.value.field == ("testMode",)
    row = await processor_settings.configure_processor(team.owner, processor="stripe", credentials={"secret_key": KEY})
    with pytest.raises(Invalid):
        await processor_settings.configure_processor(
            team.owner, processor="stripe", connection_id=row.id, credentials={"secret_key": "sk_live_0123456789abcdef"}
        )
    assert asked(stripe) == 1


@dataclasses.dataclass(frozen=True)
class PlugKeys:
    """Of a plug-in: no secret is called `secret_key`."""

    api_key: str = dataclasses.field(repr=False)
    partner_token: str = dataclasses.field(repr=False, default="")
    webhook_secret: str = dataclasses.field(repr=False, default="")
    profile: str = ""


class Plug(Scripted):
    """A plug-in's processor."""

    name = "plug"
    credentials = PlugKeys

    def __init__(self, credentials: PlugKeys, *, environment: Environment, webhook_url: str | None = None) -> None:
        super().__init__()


@pytest.mark.parametrize(
    ("keys", "asked_for", "test_mode"),
    [
        ({"api_key": "test_dHar4XY7LxsDOtmnkVtjNVWXLSlXsM"}, None, True),
        ({"api_key": "test_dHar4XY7LxsDOtmnkVtjNVWXLSlXsM"}, False, "testMode"),
        ({"api_key": "live_dHar4XY7LxsDOtmnkVtjNVWXLSlXsM"}, None, False),
        ({"api_key": "live_dHar4XY7LxsDOtmnkVtjNVWXLSlXsM"}, True, "testMode"),
        ({"api_key": "rzp_test_1DP5mmOlF5G5ag"}, None, True),
        ({"api_key": "TEST-7c1b2f3a4d5e6f708192a3b4c5d6e7f8"}, None, True),
        ({"api_key": "acme.sandbox.9f8e7d6c5b4a3928"}, False, "testMode"),
        ({"api_key": "prod-9f8e7d6c5b4a39281706"}, None, False),
        ({"api_key": "test_dHar4XY7LxsDOtmnkVtj", "partner_token": "live_Xy7LxsDOtmnkVtjNV"}, None, "credentials"),
        ({"api_key": "9f8e7d6c5b4a39281706"}, None, "testMode"),
        ({"api_key": "9f8e7d6c5b4a39281706"}, True, True),
        ({"api_key": "9f8e7d6c5b4a39281706"}, False, False),
        ({"api_key": "fastest_livery_9f8e7d6c", "profile": "test_profile"}, False, False),  # no words of a mode
        ({"api_key": "live_9f8e7d6c5b4a3928", "webhook_secret": "test_9f8e7d6c5b4a"}, None, False),
    ],
)
async def test_the_mode_follows_from_a_plug_ins_keys_whatever_they_are_called(
    team: Team,
    monkeypatch: pytest.MonkeyPatch,
    keys: dict[str, str],
    asked_for: bool | None,
    test_mode: bool | str,
) -> None:
    monkeypatch.setattr(registry, "processor_names", lambda: ["plug"])
    monkeypatch.setattr(registry, "processor_class", lambda name: Plug)
    configure = processor_settings.configure_processor(
        team.owner, processor="plug", credentials=keys, test_mode=asked_for
    )
    if isinstance(test_mode, bool):
        assert (await configure).test_mode is test_mode
        return
    with pytest.raises(Invalid) as refused:
        await configure
    assert refused.value.field is not None
    assert refused.value.field[0] == test_mode
    assert await ProcessorConnection.filter(processor="plug").count() == 0


async def test_the_sandbox_makes_its_own_keys_and_only_where_it_is_open(team: Team) -> None:
    await ProcessorConnection.all().delete()
    row = await processor_settings.configure_processor(team.owner, processor="sandbox")
    assert (row.test_mode, row.is_default, providers.processor_kind(row)) == (True, True, "SANDBOX")
    keys = providers.credentials_of(row)
    assert set(keys) == {"secret_key", "webhook_secret"}
    assert len(set(keys.values())) == 2
    again = await processor_settings.configure_processor(team.owner, processor="sandbox", display_name="Test money")
    assert (again.id, providers.credentials_of(again)) == (row.id, keys)
    with pytest.raises(Invalid):
        await processor_settings.configure_processor(team.owner, processor="sandbox", test_mode=False)
    change(sandbox_open=False)
    with pytest.raises(Invalid):
        await processor_settings.configure_processor(team.owner, processor="sandbox")
    with pytest.raises(ProcessorUnavailable):
        providers.processor(again)
    with pytest.raises(Invalid):
        await channel_settings.connect_channel(team.owner, kind="SMS", provider="simulated")


async def test_disconnecting_passes_the_default_on_and_keeps_the_credentials(team: Team, stripe: StripeServer) -> None:
    row = await processor_settings.configure_processor(
        team.owner, processor="stripe", credentials={"secret_key": KEY}, make_default=True
    )
    gone = await processor_settings.disconnect_processor(team.owner, row.id)
    await processor_settings.disconnect_processor(team.owner, row.id)
    assert (gone.connected, gone.is_default) == (False, False)
    assert providers.credentials_of(gone)["secret_key"] == KEY
    heir = await providers.default_processor(team.account.id)
    assert heir is not None
    assert (heir.id, heir.is_default) == (team.processor.id, True)
    back = await processor_settings.configure_processor(team.owner, processor="stripe", connection_id=row.id)
    assert (back.connected, back.is_default) == (True, False)
    assert [e.action for e in await AuditEntry.all().order_by("id")] == [
        "processor.configured",
        "processor.disconnected",
        "processor.configured",
    ]


async def live(team: Team, **overrides: Any) -> ProcessorConnection:
    return await factories.processor_connection(team.account, **{"test_mode": False, "is_default": False} | overrides)


async def defaults() -> list[UUID]:
    return [row.id for row in await ProcessorConnection.filter(is_default=True)]


async def test_a_live_default_has_live_heirs_only_and_test_money_must_be_chosen(team: Team) -> None:
    first, second = [await live(team) for _ in range(2)]
    await ProcessorConnection.filter(account_id=team.account.id).update(is_default=False)
    await ProcessorConnection.filter(id=first.id).update(is_default=True)
    await processor_settings.disconnect_processor(team.owner, first.id)
    assert await defaults() == [second.id]
    await processor_settings.disconnect_processor(team.owner, second.id)
    assert (await defaults(), await providers.default_processor(team.account.id)) == ([], None)
    # Neither a change of the test connection nor another one chooses it.
    await processor_settings.configure_processor(team.owner, processor="sandbox", display_name="Test money")
    await processor_settings.disconnect_processor(team.owner, team.processor.id)
    await processor_settings.configure_processor(team.owner, processor="sandbox")
    assert (await defaults(), await providers.default_processor(team.account.id)) == ([], None)
    chosen = await processor_settings.configure_processor(team.owner, processor="sandbox", make_default=True)
    assert await defaults() == [chosen.id]
    assert await providers.default_processor(team.account.id) == chosen


async def test_a_default_that_cannot_be_made_is_skipped_but_not_for_test_money(team: Team) -> None:
    broken = await live(team, credentials={"secret_key": "sk_of_no_sandbox"})
    await ProcessorConnection.filter(id=broken.id).update(processor="uninstalled")
    # Nobody has made the live one the default.
    assert await providers.default_processor(team.account.id) == await ProcessorConnection.get(id=team.processor.id)
    await ProcessorConnection.filter(id=team.processor.id).update(is_default=False)
    await ProcessorConnection.filter(id=broken.id).update(is_default=True)
    assert await providers.default_processor(team.account.id) is None
    other = await live(team)
    assert await providers.default_processor(team.account.id) == other
    await ProcessorConnection.filter(id=other.id).update(
        credentials=vault.seal((await factories.account()).id, "{}"), version=2
    )
    assert await providers.default_processor(team.account.id) is None


async def test_bad_input_and_foreign_ids_change_nothing(team: Team) -> None:
    before = await ProcessorConnection.all().count()
    foreign = await factories.processor_connection(await factories.account())
    stranger = actor_of(await factories.user(await factories.account(), role="OWNER"))
    for refusal, given in (
        (Invalid, {"processor": "../etc/passwd"}),
        (Invalid, {"processor": "nothere"}),
        (Invalid, {"processor": "stripe"}),  # no key
        (TooLong, {"processor": "stripe", "credentials": {"secret_key": "x" * 1001}}),
        (Invalid, {"processor": "stripe", "credentials": {"secret_key": "a\x00b"}}),
        (TooLong, {"processor": "sandbox", "display_name": "x" * 121}),
        (NotFound, {"processor": "sandbox", "connection_id": uuid7()}),
        (NotFound, {"processor": "sandbox", "connection_id": foreign.id}),
        (NotFound, {"processor": "stripe", "connection_id": team.processor.id, "credentials": {"secret_key": KEY}}),
    ):
        with pytest.raises(refusal):
            await processor_settings.configure_processor(team.owner, **given)
    with pytest.raises(NotFound):
        await processor_settings.disconnect_processor(stranger, team.processor.id)
    with pytest.raises(NotFound):
        await channel_settings.disconnect_channel(stranger, team.channels["SMS"].id)
    for actor in (team.agent, team.viewer):
        with pytest.raises(Forbidden):
            await processor_settings.configure_processor(actor, processor="sandbox")
        with pytest.raises(Forbidden):
            await processor_settings.disconnect_processor(actor, team.processor.id)
        with pytest.raises(Forbidden):
            await channel_settings.connect_channel(actor, kind="SMS", provider="simulated")
        with pytest.raises(Forbidden):
            await channel_settings.disconnect_channel(actor, team.channels["SMS"].id)
    assert await ProcessorConnection.all().count() == before + 1
    assert await AuditEntry.all().count() == 0


async def test_a_twilio_channel_is_checked_and_its_token_sealed(team: Team) -> None:
    async with TwilioServer(twilio_server.contracts()[0]) as server:
        change(
            environment=Environment(
                public_url=BASE_URL, sandbox_url="", base_addresses={"twilio": server.url}, timeout_s=5
            )
        )
        given = {
            "account_sid": twilio_server.ACCOUNT_SID,
            "auth_token": twilio_server.AUTH_TOKEN,
            "from_number": twilio_server.FROM_NUMBER,
        }
        with pytest.raises(Invalid) as refused:
            await channel_settings.connect_channel(
                team.owner, kind="SMS", provider="twilio_sms", credentials=given | {"auth_token": "wrong-token"}
            )
        assert refused.value.field == ("credentials",)
        row = await channel_settings.connect_channel(
            team.owner,
            kind="SMS",
            provider="twilio_sms",
            display_name="Office line",
            sender="+14155550100",
            credentials=given,
        )
        assert twilio_server.AUTH_TOKEN not in row.credentials
        assert (row.display_name, row.sender, row.connected) == ("Office line", "+14155550100", True)
        assert providers.inbound_url(row) == f"{BASE_URL}/inbound/twilio_sms/{public_id('chn', row.id)}"
        renamed = await channel_settings.connect_channel(
            team.owner, kind="SMS", provider="twilio_sms", connection_id=row.id, display_name="Line 1"
        )
        assert (renamed.id, renamed.display_name, renamed.sender, renamed.version) == (
            row.id,
            "Line 1",
            "+14155550100",
            2,
        )
        assert providers.credentials_of(renamed) == given
        assert await ChannelConnection.filter(provider="twilio_sms").count() == 1
        await providers.aclose()


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"provider": "twilio_sms", "kind": "EMAIL"}, "kind"),
        ({"provider": "nothere", "kind": "SMS"}, "provider"),
        ({"provider": "twilio_sms", "kind": "SMS"}, "credentials"),
        ({"provider": "twilio_sms", "kind": "SMS", "credentials": {"who": "knows"}}, "credentials"),
    ],
)
async def test_a_channel_that_cannot_be_is_refused(team: Team, given: dict[str, object], field: str) -> None:
    before = await ChannelConnection.all().count()
    with pytest.raises(Invalid) as refused:
        await channel_settings.connect_channel(team.owner, **given)  # type: ignore[arg-type]
    assert refused.value.field == (field,)
    assert await ChannelConnection.all().count() == before


async def test_another_account_cannot_open_a_sealed_secret(team: Team) -> None:
    other = await factories.account()
    row = team.processor
    row.account_id = other.id
    with pytest.raises(vault.VaultError):
        providers.credentials_of(row)


async def test_rotation_leaves_nothing_that_needs_the_old_key(team: Team, configured: Settings) -> None:
    requests = [await factories.payment_request(team.contact, clear_token=f"token-{n:016d}") for n in range(3)]
    before = providers.credentials_of(team.processor)
    message = await factories.message(team.conversation)
    address = "https://files.test/a?token=t"
    waiting = await factories.attachment(message, source_url=vault.seal(team.account.id, address))
    await factories.attachment(message, n=2, status="FAILED")  # without one
    vault.open_vault(["the-new-key-000001", *configured.keys])
    key_rotation_counts = await key_rotation.rotate()
    assert key_rotation_counts == {
        "processor_connection": 1,
        "channel_connection": 6,
        "payment_request": 3,
        "attachment": 1,
        "job": 0,
    }
    vault.open_vault(["the-new-key-000001"])
    assert await key_rotation.unreadable() == {}
    await waiting.refresh_from_db()
    assert vault.unseal(team.account.id, waiting.source_url or "") == address
    row = await ProcessorConnection.get(id=team.processor.id)
    assert providers.credentials_of(row) == before
    sealed = await db.rows("SELECT token FROM payment_request ORDER BY id")
    assert [vault.unseal(team.account.id, found["token"]) for found in sealed] == [
        f"token-{n:016d}" for n in range(len(requests))
    ]


async def test_rotation_stops_at_a_secret_that_no_key_opens(team: Team) -> None:
    vault.open_vault(["a-key-of-somebody-else"])
    with pytest.raises(vault.VaultError):
        await key_rotation.rotate()


# ------------------------------------------------------------------------------------------------- generic credentials
PAYPAL = {"client_id": paypal_server.CLIENT_ID, "client_secret": paypal_server.CLIENT_SECRET}
SQUARE = {"access_token": square_server.ACCESS_TOKEN, "location_id": square_server.LOCATION_ID}


@pytest.fixture
async def vendors(team: Team) -> AsyncIterator[tuple[PayPalServer, SquareServer]]:
    """The contract servers of PayPal and Square in their places."""
    async with (
        PayPalServer(paypal_server.our_contract()) as paypal,
        SquareServer(square_server.our_contract()) as square,
    ):
        change(
            environment=Environment(
                public_url=BASE_URL,
                sandbox_url="http://127.0.0.1:9",
                base_addresses={"paypal": paypal.url, "square": square.url},
                timeout_s=5,
            )
        )
        yield paypal, square
        await providers.aclose()


async def test_paypal_and_square_are_connected_by_the_names_of_their_credentials(
    team: Team, vendors: tuple[PayPalServer, SquareServer]
) -> None:
    paypal = await processor_settings.configure_processor(
        team.owner,
        processor="paypal",
        test_mode=True,
        credentials=PAYPAL | {"webhook_id": f" {paypal_server.WEBHOOK_ID} "},
    )
    stored = PAYPAL | {"webhook_id": paypal_server.WEBHOOK_ID, "mode": "test"}
    assert providers.credentials_of(paypal) == stored
    assert (paypal.test_mode, paypal.key_hint, paypal.display_name) == (True, "…rver", "PayPal")
    assert (paypal.vendor_account or "").startswith("app_")
    square = await processor_settings.configure_processor(
        team.owner, processor="square", test_mode=False, credentials=SQUARE | {"webhook_signature_key": SIGNING}
    )
    stored = SQUARE | {"webhook_signature_key": SIGNING, "mode": "live"}
    assert providers.credentials_of(square) == stored
    assert (square.test_mode, square.key_hint) == (False, "EAAA_…rver")
    assert square.vendor_account == square_server.MERCHANT_ID
    # One value is changed, the others and the mode stay.
    again = await processor_settings.configure_processor(
        team.owner, processor="square", credentials={"webhook_signature_key": "rolled"}
    )
    assert (again.id, again.test_mode, again.version) == (square.id, False, 2)
    assert providers.credentials_of(again) == stored | {"webhook_signature_key": "rolled"}
    # The other mode stands beside it.
    test = await processor_settings.configure_processor(
        team.owner, processor="square", test_mode=True, credentials=SQUARE
    )
    assert test.id != square.id
    held = providers.credentials_of(test)
    assert {name: held[name] for name in ("access_token", "location_id", "mode")} == SQUARE | {"mode": "test"}
    # Nobody gave a key of webhooks for this one: it was registered.
    (made,) = vendors[1].subscriptions.values()
    assert made["notification_url"] == providers.webhook_url(test)
    assert (held["webhook_signature_key"], test.webhook_registered) == (made["signature_key"], True)
    assert not square.webhook_registered
    assert await ProcessorConnection.filter(connected=True).count() == 4
    details = str([entry.detail for entry in await AuditEntry.all()])
    for secret in (*PAYPAL.values(), square_server.ACCESS_TOKEN, SIGNING):
        assert secret not in details


@pytest.mark.parametrize(
    ("processor", "given", "field", "words"),
    [
        ("paypal", {"credentials": PAYPAL}, ("testMode",), "test or live"),
        ("paypal", {"credentials": {"client_id": "A"}, "test_mode": True}, ("credentials", "client_secret"), "needs"),
        (
            "paypal",
            {"credentials": PAYPAL | {"client_secret": ""}, "test_mode": True},
            ("credentials", "client_secret"),
            "",
        ),
        (
            "paypal",
            {"credentials": PAYPAL | {"secret": "x"}},
            ("credentials",),
            "client_id, client_secret, webhook_id.",
        ),
        ("paypal", {"credentials": PAYPAL | {"mode": "live"}}, ("credentials", "mode"), "testMode"),
        ("square", {"credentials": SQUARE}, ("testMode",), "test or live"),
        ("square", {"test_mode": True}, ("credentials", "access_token"), "needs access_token"),
        ("stripe", {"credentials": {"mode": "live", "secret_key": KEY}}, ("credentials",), "secret_key"),
        ("stripe", {}, ("credentials", "secret_key"), "needs secret_key"),
    ],
)
async def test_credentials_that_cannot_be_right_are_refused_by_name_before_the_vendor_is_asked(
    team: Team,
    vendors: tuple[PayPalServer, SquareServer],
    processor: str,
    given: dict[str, Any],
    field: tuple[str, ...],
    words: str,
) -> None:
    with pytest.raises(Invalid) as refused:
        await processor_settings.configure_processor(team.owner, processor=processor, **given)
    assert refused.value.field == field
    assert words in refused.value.message
    assert [server.calls for server in vendors] == [[], []]
    assert await ProcessorConnection.exclude(id=team.processor.id).count() == 0


@pytest.mark.parametrize(
    ("processor", "wrong", "field", "words"),
    [
        ("paypal", {"client_secret": "E-wrong"}, "client_id", "copy them again"),
        ("paypal", {"webhook_id": "0XX"}, "webhook_id", "/webhooks/paypal/prc_"),
        ("square", {"access_token": "EAAA-wrong"}, "access_token", "in test mode"),
        ("square", {"location_id": "L0"}, "location_id", "no active location"),
    ],
)
async def test_what_the_vendor_refuses_is_told_with_what_to_do(
    team: Team,
    vendors: tuple[PayPalServer, SquareServer],
    processor: str,
    wrong: dict[str, str],
    field: str,
    words: str,
) -> None:
    right = {"paypal": PAYPAL, "square": SQUARE}[processor]
    with pytest.raises(ProcessorRejected) as refused:
        await processor_settings.configure_processor(
            team.owner, processor=processor, test_mode=True, credentials=right | wrong
        )
    assert refused.value.field == ("credentials", field)
    assert words in refused.value.message
    assert await ProcessorConnection.exclude(id=team.processor.id).count() == 0


async def test_every_reason_that_has_advice_makes_a_sentence() -> None:
    for about, sentence in providers.ADVICE.values():
        said = sentence.format(name="PayPal", mode=" in test mode", reason="x", url="https://pay.example.test")
        assert "{" not in said
        assert about in {None, "account", "webhook_id", "location_id", "currency"}


def test_a_kind_names_its_provider_and_custom_names_a_plug_in(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processor_settings.provider_of("STRIPE", None) == "stripe"
    assert processor_settings.provider_of("PAYPAL", "paypal") == "paypal"
    monkeypatch.setattr(registry, "processor_names", lambda: ["acme_pay", "stripe"])
    assert processor_settings.provider_of("CUSTOM", "acme_pay") == "acme_pay"
    for kind, provider in (
        ("STRIPE", "paypal"),
        ("STRIPE", "acme_pay"),
        ("CUSTOM", None),
        ("CUSTOM", "stripe"),
        ("CUSTOM", "../stripe"),
        ("CUSTOM", "nothere"),
    ):
        with pytest.raises(Invalid) as refused:
            processor_settings.provider_of(kind, provider)
        assert refused.value.field == ("provider",)


async def test_credentials_whose_key_is_lost_are_given_again(team: Team, stripe: StripeServer) -> None:
    row = await processor_settings.configure_processor(team.owner, processor="stripe", credentials={"secret_key": KEY})
    lost = vault.seal((await factories.account()).id, "{}")
    await ProcessorConnection.filter(id=row.id).update(credentials=lost)
    with pytest.raises(Invalid):
        await processor_settings.configure_processor(team.owner, processor="stripe", display_name="Cards")
    again = await processor_settings.configure_processor(
        team.owner, processor="stripe", credentials={"secret_key": KEY}
    )
    assert (again.id, providers.credentials_of(again)["secret_key"]) == (row.id, KEY)


# ---------------------------------------------------------------------------------------------- registering webhooks
def addresses(stripe: StripeServer) -> list[str]:
    """Where Stripe delivers now."""
    return [endpoint["url"] for endpoint in stripe.endpoints.values()]


def made(stripe: StripeServer) -> int:
    """How many endpoints Stripe was asked to make."""
    return [(call.method, call.path) for call in stripe.calls].count(("POST", "/v1/webhook_endpoints"))


def about_endpoints(call: Call) -> bool:
    return call.path.startswith("/v1/webhook_endpoints")


async def test_a_webhook_is_registered_for_the_user_and_taken_back_on_disconnecting(
    team: Team, stripe: StripeServer
) -> None:
    given = {"secret_key": KEY}
    row = await processor_settings.configure_processor(team.owner, processor="stripe", credentials=given)
    assert addresses(stripe) == [providers.webhook_url(row)]
    (endpoint,) = stripe.endpoints.values()
    ours = {"webhook_secret": endpoint["secret"], "webhook_endpoint_id": endpoint["id"]}
    assert providers.credentials_of(row) == given | ours
    assert (row.webhook_registered, row.last_error) == (True, None)
    # Once is enough.
    row = await processor_settings.configure_processor(
        team.owner, processor="stripe", credentials=given, display_name="Cards"
    )
    assert (made(stripe), row.webhook_registered) == (1, True)
    assert providers.credentials_of(row) == given | ours
    gone = await processor_settings.disconnect_processor(team.owner, row.id)
    await processor_settings.disconnect_processor(team.owner, row.id)
    assert addresses(stripe) == []
    assert (gone.connected, gone.webhook_registered) == (False, False)
    assert providers.credentials_of(gone) == given
    back = await processor_settings.configure_processor(team.owner, processor="stripe", connection_id=row.id)
    assert (made(stripe), addresses(stripe)) == (2, [providers.webhook_url(row)])
    assert providers.credentials_of(back)["webhook_secret"] != ours["webhook_secret"]
    # A secret of the user's own replaces ours, which is then nobody's to take back.
    own = await processor_settings.configure_processor(
        team.owner, processor="stripe", credentials={"webhook_secret": SIGNING}
    )
    assert providers.credentials_of(own) == given | {"webhook_secret": SIGNING}
    assert not own.webhook_registered
    gone = await processor_settings.disconnect_processor(team.owner, own.id)
    assert providers.credentials_of(gone) == given | {"webhook_secret": SIGNING}
    assert made(stripe) == 2


async def test_the_secret_of_an_own_webhook_registers_nothing(team: Team, stripe: StripeServer) -> None:
    row = await processor_settings.configure_processor(
        team.owner, processor="stripe", credentials={"secret_key": KEY, "webhook_secret": SIGNING}
    )
    assert (made(stripe), row.webhook_registered) == (0, False)
    with pytest.raises(Invalid) as refused:
        await processor_settings.configure_processor(
            team.owner, processor="stripe", credentials={"webhook_endpoint_id": "we_of_somebody"}
        )
    assert refused.value.field == ("credentials",)


async def test_a_webhook_that_is_not_taken_leaves_the_processor_connected_with_a_sentence(
    team: Team, stripe: StripeServer
) -> None:
    stripe.fail_next("before_500", match=about_endpoints)
    row = await processor_settings.configure_processor(team.owner, processor="stripe", credentials={"secret_key": KEY})
    assert (row.connected, row.webhook_registered) == (True, False)
    assert (row.last_error or "").startswith("Stripe did not take the webhook's address (server_error): add it there")
    row = await processor_settings.configure_processor(team.owner, processor="stripe", credentials={"secret_key": KEY})
    assert (row.webhook_registered, row.last_error) == (True, None)
    # Nor does disconnecting depend on the vendor; what is still there keeps its secret.
    stripe.fail_next("before_500", match=about_endpoints)
    gone = await processor_settings.disconnect_processor(team.owner, row.id)
    assert (gone.connected, gone.webhook_registered) == (False, True)
    assert addresses(stripe) == [providers.webhook_url(row)]
    assert providers.credentials_of(gone) == providers.credentials_of(row)


async def test_a_webhook_that_is_missing_is_told_until_there_is_one(team: Team, stripe: StripeServer) -> None:
    stripe.fail_next("before_500", match=about_endpoints)
    row = await processor_settings.configure_processor(team.owner, processor="stripe", credentials={"secret_key": KEY})
    tested, refusal = await processor_settings.test_processor(team.owner, row.id)
    missing = tested.last_error or ""
    assert (refusal, tested.webhook_registered) == (None, False)
    assert missing.startswith("Stripe does not know where to send webhooks: add https://")
    assert providers.webhook_url(row) in missing
    assert len(missing) < providers.ERROR_LIMIT
    # A call that works forgets what a call could not do, and no more.
    await providers.note_working(tested)
    await ProcessorConnection.filter(id=row.id).update(last_error="timeout: no answer")
    await providers.note_working(await ProcessorConnection.get(id=row.id))
    assert (await ProcessorConnection.get(id=row.id)).last_error == missing
    # It has arrived once, or its secret is there: then somebody has told the vendor.
    await ProcessorConnection.filter(id=row.id).update(last_webhook_at=datetime.now(UTC))
    tested, _ = await processor_settings.test_processor(team.owner, row.id)
    assert tested.last_error is None
    await ProcessorConnection.filter(id=row.id).update(last_webhook_at=None)
    own = await processor_settings.configure_processor(
        team.owner, processor="stripe", credentials={"webhook_secret": SIGNING}
    )
    tested, _ = await processor_settings.test_processor(team.owner, own.id)
    assert tested.last_error is None


async def test_a_call_that_works_mends_neither_a_permission_nor_what_went_wrong_since(
    team: Team, stripe: StripeServer
) -> None:
    row = await processor_settings.configure_processor(team.owner, processor="stripe", credentials={"secret_key": KEY})
    lacking = IntegrationError("stripe", "permission_denied", "may not read")
    assert await processor_health.refused(row, lacking)
    noted = await ProcessorConnection.get(id=row.id)
    await providers.note_working(noted)
    assert (await ProcessorConnection.get(id=row.id)).last_error == noted.last_error
    assert "lack a permission" in (noted.last_error or "")
    noted.last_error = "timeout: what another task has read"
    await providers.note_working(noted)
    assert "lack a permission" in ((await ProcessorConnection.get(id=row.id)).last_error or "")


async def test_an_address_that_no_vendor_reaches_is_not_registered(team: Team, stripe: StripeServer) -> None:
    change_environment(public_url="http://127.0.0.1:8000")
    row = await processor_settings.configure_processor(team.owner, processor="stripe", credentials={"secret_key": KEY})
    assert (made(stripe), row.webhook_registered, row.last_error) == (0, False, None)


# ------------------------------------------------------------------------------------------------------------- testing
async def test_a_processor_is_tested_with_its_stored_credentials_and_says_what_is_wrong(
    team: Team, stripe: StripeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = await processor_settings.configure_processor(team.owner, processor="stripe", credentials={"secret_key": KEY})
    before = row.version
    stripe.fail_next("before_500")
    silent, refusal = await processor_settings.test_processor(team.owner, row.id)
    assert isinstance(refusal, ProcessorUnavailable)
    assert (refusal.field, silent.last_error) == (None, refusal.message)
    fine, refusal = await processor_settings.test_processor(team.owner, row.id)
    assert (refusal, fine.last_error, fine.connected, fine.version) == (None, None, True, before)
    await ProcessorConnection.filter(id=row.id).update(
        credentials=vault.seal(team.account.id, '{"secret_key": "sk_test_withdrawn"}')
    )
    wrong, refusal = await processor_settings.test_processor(team.owner, row.id)
    assert isinstance(refusal, ProcessorRejected)
    assert wrong.last_error == refusal.message
    assert "copy them again" in refusal.message
    await ProcessorConnection.filter(id=row.id).update(credentials=row.credentials, vendor_account="acct_before")
    _, refusal = await processor_settings.test_processor(team.owner, row.id)
    assert isinstance(refusal, ProcessorRejected)
    assert "another account" in refusal.message
    await ProcessorConnection.filter(id=row.id).update(credentials=vault.seal((await factories.account()).id, "{}"))
    _, refusal = await processor_settings.test_processor(team.owner, row.id)
    assert refusal is not None
    assert refusal.message == providers.UNREADABLE
    await ProcessorConnection.filter(id=row.id).update(processor="uninstalled")
    _, refusal = await processor_settings.test_processor(team.owner, row.id)
    assert refusal is not None
    assert "not installed" in refusal.message
    entries = await AuditEntry.filter(action="processor.tested").order_by("id")
    assert [entry.detail for entry in entries] == [{"passed": n == 1} for n in range(6)]
    with pytest.raises(NotFound):
        await processor_settings.test_processor(
            actor_of(await factories.user(await factories.account(), role="OWNER")), row.id
        )
    with pytest.raises(Forbidden):
        await processor_settings.test_processor(team.agent, row.id)
    sandbox, refusal = await processor_settings.test_processor(team.owner, team.processor.id)
    assert (refusal, sandbox.last_error) == (None, None)
    change(sandbox_open=False)
    _, refusal = await processor_settings.test_processor(team.owner, team.processor.id)
    assert isinstance(refusal, ProcessorUnavailable)


async def test_a_channel_is_tested_with_its_stored_credentials_and_says_what_is_wrong(team: Team) -> None:
    async with TwilioServer(twilio_server.contracts()[0]) as server:
        change(
            environment=Environment(
                public_url=BASE_URL, sandbox_url="", base_addresses={"twilio": server.url}, timeout_s=5
            )
        )
        given = {
            "account_sid": twilio_server.ACCOUNT_SID,
            "auth_token": twilio_server.AUTH_TOKEN,
            "from_number": twilio_server.FROM_NUMBER,
        }
        row = await channel_settings.connect_channel(team.owner, kind="SMS", provider="twilio_sms", credentials=given)
        withdrawn = orjson.dumps(given | {"auth_token": "0" * 32}).decode()
        await ChannelConnection.filter(id=row.id).update(credentials=vault.seal(team.account.id, withdrawn))
        wrong, refusal = await channel_settings.test_channel(team.owner, row.id)
        assert isinstance(refusal, Invalid)
        assert (refusal.field, wrong.last_error) == (None, refusal.message)
        await ChannelConnection.filter(id=row.id).update(credentials=row.credentials)
        fine, refusal = await channel_settings.test_channel(team.owner, row.id)
        assert (refusal, fine.last_error) == (None, None)
        details = [entry.detail for entry in await AuditEntry.filter(action="channel.tested").order_by("id")]
        assert details == [{"passed": False}, {"passed": True}]
    with pytest.raises(NotFound):
        await channel_settings.test_channel(
            actor_of(await factories.user(await factories.account(), role="OWNER")), row.id
        )
    with pytest.raises(Forbidden):
        await channel_settings.test_channel(team.agent, row.id)
