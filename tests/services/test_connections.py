"""Connecting processors and channels: the vendor is asked first, secrets are sealed and never shown, one default, roles."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from integrations.base import Environment
from integrations.processors.stripe import Stripe
from models import database as db
from models import vault
from models.errors import Forbidden, Invalid, NotFound, ProcessorRejected, ProcessorUnavailable, TooLong
from models.ids import public_id, uuid7
from models.tables import AuditEntry, ChannelConnection, ProcessorConnection
from services import connections, key_rotation
from settings import Settings
from tests import factories
from tests.contracts import stripe_contract, stripe_server, twilio_server
from tests.contracts.stripe_server import StripeServer
from tests.contracts.twilio_server import TwilioServer
from tests.services.conftest import BASE_URL, Team, actor_of

KEY = stripe_server.SECRET_KEY
SIGNING = "whsec_contract_0001"


@pytest.fixture
async def stripe(team: Team) -> AsyncIterator[StripeServer]:
    """Stripe's contract server in place of Stripe."""
    async with StripeServer(stripe_contract.derived_contract()) as server:
        connections.configure(
            Environment(
                public_url=BASE_URL,
                sandbox_url="http://127.0.0.1:9",
                base_addresses={"stripe": server.url},
                timeout_s=5,
            ),
            sandbox_open=True,
        )
        yield server
        await connections.aclose()


async def test_a_key_is_checked_at_the_vendor_then_sealed_and_masked(team: Team, stripe: StripeServer) -> None:
    row = await connections.configure_processor(
        team.owner, processor="stripe", secret_key=f" {KEY} ", webhook_secret=SIGNING, make_default=True
    )
    assert [call.path for call in stripe.calls] == ["/v1/account"]
    assert (row.display_name, row.test_mode, row.connected, row.is_default) == ("Stripe", True, True, True)
    assert (row.vendor_account, row.key_hint) == (stripe_server.ACCOUNT_ID, f"sk_…{KEY[-4:]}")
    assert connections.credentials_of(row) == {"secret_key": KEY, "webhook_secret": SIGNING}
    assert KEY not in row.credentials
    assert connections.processor_kind(row) == "STRIPE"
    assert connections.webhook_url(row) == f"{BASE_URL}/webhooks/stripe/{public_id('prc', row.id)}"
    assert await connections.default_processor(team.account.id) == row
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
        await connections.configure_processor(team.owner, processor="stripe", secret_key="sk_test_wrong")
    assert refused.value.field == ("secretKey",)
    assert "sk_test" not in refused.value.message
    assert await ProcessorConnection.filter(processor="stripe").count() == 0
    assert await AuditEntry.all().count() == 0


async def test_a_silent_vendor_stores_nothing_and_says_try_again(team: Team) -> None:
    connections.configure(
        Environment(public_url=BASE_URL, sandbox_url="", base_addresses={"stripe": "http://127.0.0.1:9"}, timeout_s=2),
        sandbox_open=True,
    )
    with pytest.raises(ProcessorUnavailable):
        await connections.configure_processor(team.owner, processor="stripe", secret_key=KEY)
    assert await ProcessorConnection.filter(processor="stripe").count() == 0


async def test_a_second_configuration_changes_the_same_connection_and_asks_only_for_a_new_key(
    team: Team, stripe: StripeServer
) -> None:
    first = await connections.configure_processor(team.owner, processor="stripe", secret_key=KEY)
    assert not first.is_default
    live = connections.processor(first)
    again = await connections.configure_processor(
        team.owner, processor="stripe", display_name="Main", webhook_secret=SIGNING, make_default=True
    )
    assert (again.id, again.display_name, again.version, again.is_default) == (first.id, "Main", 2, True)
    assert connections.credentials_of(again) == {"secret_key": KEY, "webhook_secret": SIGNING}
    assert len(stripe.calls) == 1
    assert connections.processor(again) is not live
    assert connections.processor(again) is connections.processor(again)


async def test_a_key_of_another_vendor_account_makes_another_connection(
    team: Team, stripe: StripeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await connections.configure_processor(team.owner, processor="stripe", secret_key=KEY)

    async def check(self: Stripe) -> str:
        return "acct_other"

    monkeypatch.setattr(Stripe, "check", check)
    with pytest.raises(ProcessorRejected):
        await connections.configure_processor(
            team.owner, processor="stripe", connection_id=first.id, secret_key="sk_test_of_another_account"
        )
    second = await connections.configure_processor(
        team.owner, processor="stripe", secret_key="sk_test_of_another_account"
    )
    assert second.id != first.id
    assert connections.credentials_of(await ProcessorConnection.get(id=first.id))["secret_key"] == KEY


async def test_the_keys_own_mode_decides_and_a_contradiction_is_refused(team: Team, stripe: StripeServer) -> None:
    for key, test_mode in ((KEY, False), ("sk_live_0123456789abcdef", True)):
        with pytest.raises(Invalid) as refused:
            await connections.configure_processor(team.owner, processor="stripe", secret_key=key, test_mode=test_mode)
        assert refused.value.field == ("testMode",)
    row = await connections.configure_processor(team.owner, processor="stripe", secret_key=KEY)
    with pytest.raises(Invalid):
        await connections.configure_processor(
            team.owner, processor="stripe", connection_id=row.id, secret_key="sk_live_0123456789abcdef"
        )
    assert len(stripe.calls) == 1


async def test_the_sandbox_makes_its_own_keys_and_only_where_it_is_open(team: Team) -> None:
    await ProcessorConnection.all().delete()
    row = await connections.configure_processor(team.owner, processor="sandbox")
    assert (row.test_mode, row.is_default, connections.processor_kind(row)) == (True, True, "SANDBOX")
    keys = connections.credentials_of(row)
    assert set(keys) == {"secret_key", "webhook_secret"}
    assert len(set(keys.values())) == 2
    again = await connections.configure_processor(team.owner, processor="sandbox", display_name="Test money")
    assert (again.id, connections.credentials_of(again)) == (row.id, keys)
    with pytest.raises(Invalid):
        await connections.configure_processor(team.owner, processor="sandbox", test_mode=False)
    connections.configure(connections.environment(), sandbox_open=False)
    with pytest.raises(Invalid):
        await connections.configure_processor(team.owner, processor="sandbox")
    with pytest.raises(ProcessorUnavailable):
        connections.processor(again)
    with pytest.raises(Invalid):
        await connections.connect_channel(team.owner, kind="SMS", provider="simulated")


async def test_disconnecting_passes_the_default_on_and_keeps_the_credentials(team: Team, stripe: StripeServer) -> None:
    row = await connections.configure_processor(team.owner, processor="stripe", secret_key=KEY, make_default=True)
    gone = await connections.disconnect_processor(team.owner, row.id)
    await connections.disconnect_processor(team.owner, row.id)
    assert (gone.connected, gone.is_default) == (False, False)
    assert connections.credentials_of(gone)["secret_key"] == KEY
    heir = await connections.default_processor(team.account.id)
    assert heir is not None
    assert (heir.id, heir.is_default) == (team.processor.id, True)
    back = await connections.configure_processor(team.owner, processor="stripe", connection_id=row.id)
    assert (back.connected, back.is_default) == (True, False)
    assert [e.action for e in await AuditEntry.all().order_by("id")] == [
        "processor.configured",
        "processor.disconnected",
        "processor.configured",
    ]


async def test_bad_input_and_foreign_ids_change_nothing(team: Team) -> None:
    before = await ProcessorConnection.all().count()
    foreign = await factories.processor_connection(await factories.account())
    stranger = actor_of(await factories.user(await factories.account(), role="OWNER"))
    for refusal, given in (
        (Invalid, {"processor": "../etc/passwd"}),
        (Invalid, {"processor": "nothere"}),
        (Invalid, {"processor": "stripe"}),  # no key
        (TooLong, {"processor": "stripe", "secret_key": "x" * 1001}),
        (Invalid, {"processor": "stripe", "secret_key": "a\x00b"}),
        (TooLong, {"processor": "sandbox", "display_name": "x" * 121}),
        (NotFound, {"processor": "sandbox", "connection_id": uuid7()}),
        (NotFound, {"processor": "sandbox", "connection_id": foreign.id}),
        (NotFound, {"processor": "stripe", "connection_id": team.processor.id, "secret_key": KEY}),
    ):
        with pytest.raises(refusal):
            await connections.configure_processor(team.owner, **given)
    with pytest.raises(NotFound):
        await connections.disconnect_processor(stranger, team.processor.id)
    with pytest.raises(NotFound):
        await connections.disconnect_channel(stranger, team.channels["SMS"].id)
    for actor in (team.agent, team.viewer):
        with pytest.raises(Forbidden):
            await connections.configure_processor(actor, processor="sandbox")
        with pytest.raises(Forbidden):
            await connections.disconnect_processor(actor, team.processor.id)
        with pytest.raises(Forbidden):
            await connections.connect_channel(actor, kind="SMS", provider="simulated")
        with pytest.raises(Forbidden):
            await connections.disconnect_channel(actor, team.channels["SMS"].id)
    assert await ProcessorConnection.all().count() == before + 1
    assert await AuditEntry.all().count() == 0


async def test_a_twilio_channel_is_checked_and_its_token_sealed(team: Team) -> None:
    async with TwilioServer(twilio_server.contracts()[0]) as server:
        connections.configure(
            Environment(public_url=BASE_URL, sandbox_url="", base_addresses={"twilio": server.url}, timeout_s=5),
            sandbox_open=True,
        )
        given = {
            "account_sid": twilio_server.ACCOUNT_SID,
            "auth_token": twilio_server.AUTH_TOKEN,
            "from_number": twilio_server.FROM_NUMBER,
        }
        with pytest.raises(Invalid) as refused:
            await connections.connect_channel(
                team.owner, kind="SMS", provider="twilio_sms", credentials=given | {"auth_token": "wrong-token"}
            )
        assert refused.value.field == ("credentials",)
        row = await connections.connect_channel(
            team.owner,
            kind="SMS",
            provider="twilio_sms",
            display_name="Office line",
            sender="+14155550100",
            credentials=given,
        )
        assert twilio_server.AUTH_TOKEN not in row.credentials
        assert (row.display_name, row.sender, row.connected) == ("Office line", "+14155550100", True)
        assert connections.inbound_url(row) == f"{BASE_URL}/inbound/twilio_sms/{public_id('chn', row.id)}"
        renamed = await connections.connect_channel(
            team.owner, kind="SMS", provider="twilio_sms", connection_id=row.id, display_name="Line 1"
        )
        assert (renamed.id, renamed.display_name, renamed.sender, renamed.version) == (
            row.id,
            "Line 1",
            "+14155550100",
            2,
        )
        assert connections.credentials_of(renamed) == given
        assert await ChannelConnection.filter(provider="twilio_sms").count() == 1
        await connections.aclose()


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
        await connections.connect_channel(team.owner, **given)  # type: ignore[arg-type]
    assert refused.value.field == (field,)
    assert await ChannelConnection.all().count() == before


async def test_another_account_cannot_open_a_sealed_secret(team: Team) -> None:
    other = await factories.account()
    row = team.processor
    row.account_id = other.id
    with pytest.raises(vault.VaultError):
        connections.credentials_of(row)


async def test_rotation_leaves_nothing_that_needs_the_old_key(team: Team, configured: Settings) -> None:
    requests = [await factories.payment_request(team.contact, clear_token=f"token-{n:016d}") for n in range(3)]
    before = connections.credentials_of(team.processor)
    vault.open_vault(["the-new-key-000001", *configured.keys])
    key_rotation_counts = await key_rotation.rotate()
    assert key_rotation_counts == {"processor_connection": 1, "channel_connection": 6, "payment_request": 3}
    vault.open_vault(["the-new-key-000001"])
    row = await ProcessorConnection.get(id=team.processor.id)
    assert connections.credentials_of(row) == before
    sealed = await db.rows("SELECT token FROM payment_request ORDER BY id")
    assert [vault.unseal(team.account.id, found["token"]) for found in sealed] == [
        f"token-{n:016d}" for n in range(len(requests))
    ]


async def test_rotation_stops_at_a_secret_that_no_key_opens(team: Team) -> None:
    vault.open_vault(["a-key-of-somebody-else"])
    with pytest.raises(vault.VaultError):
        await key_rotation.rotate()
