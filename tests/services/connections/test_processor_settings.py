"""Connecting processors: checks at the vendor, modes, the default, disconnecting, testing."""

from __future__ import annotations

import dataclasses
from typing import Any
from uuid import UUID

import pytest

from integrations import registry
from integrations.base import Environment
from integrations.processors.stripe import Stripe
from models import vault
from models.errors import Forbidden, Invalid, NotFound, ProcessorRejected, ProcessorUnavailable, TooLong
from models.ids import public_id, uuid7
from models.tables import AuditEntry, ProcessorConnection
from services.connections import channel_settings, processor_settings, providers
from tests import factories
from tests.configured import change
from tests.contracts import stripe_server
from tests.contracts.stripe_server import StripeServer
from tests.services.conftest import BASE_URL, Team, actor_of
from tests.services.connections.conftest import KEY, SIGNING, asked
from tests.services.scripted import Scripted


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
    api_key: str = dataclasses.field(repr=False)
    partner_token: str = dataclasses.field(repr=False, default="")
    webhook_secret: str = dataclasses.field(repr=False, default="")
    profile: str = ""


class Plug(Scripted):
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
    async def load(room: str, name: str) -> type[Plug] | None:
        return Plug if name == "plug" else None

    monkeypatch.setattr(registry, "load", load)
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
    # The live one is not the default.
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
    others_connection = await factories.processor_connection(await factories.account())
    stranger = actor_of(await factories.user(await factories.account(), role="OWNER"))
    for refusal, given in (
        (Invalid, {"processor": "../etc/passwd"}),
        (Invalid, {"processor": "nothere"}),
        (Invalid, {"processor": "stripe"}),  # no key
        (TooLong, {"processor": "stripe", "credentials": {"secret_key": "x" * 1001}}),
        (Invalid, {"processor": "stripe", "credentials": {"secret_key": "a\x00b"}}),
        (TooLong, {"processor": "sandbox", "display_name": "x" * 121}),
        (NotFound, {"processor": "sandbox", "connection_id": uuid7()}),
        (NotFound, {"processor": "sandbox", "connection_id": others_connection.id}),
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


async def test_another_account_cannot_open_a_sealed_secret(team: Team) -> None:
    other = await factories.account()
    row = team.processor
    row.account_id = other.id
    with pytest.raises(vault.VaultError):
        providers.credentials_of(row)


async def test_a_processor_is_tested_with_its_stored_credentials_and_says_what_is_wrong(
    team: Team, stripe: StripeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = await processor_settings.configure_processor(team.owner, processor="stripe", credentials={"secret_key": KEY})
    before = row.version
    stripe.fail_next("before_500")
    silent, refusal = await processor_settings.check_processor(team.owner, row.id)
    assert isinstance(refusal, ProcessorUnavailable)
    assert (refusal.field, silent.last_error) == (None, refusal.message)
    fine, refusal = await processor_settings.check_processor(team.owner, row.id)
    assert (refusal, fine.last_error, fine.connected, fine.version) == (None, None, True, before)
    await ProcessorConnection.filter(id=row.id).update(
        credentials=vault.seal(team.account.id, '{"secret_key": "sk_test_withdrawn"}')
    )
    wrong, refusal = await processor_settings.check_processor(team.owner, row.id)
    assert isinstance(refusal, ProcessorRejected)
    assert wrong.last_error == refusal.message
    assert "copy them again" in refusal.message
    await ProcessorConnection.filter(id=row.id).update(credentials=row.credentials, vendor_account="acct_before")
    _, refusal = await processor_settings.check_processor(team.owner, row.id)
    assert isinstance(refusal, ProcessorRejected)
    assert "another account" in refusal.message
    await ProcessorConnection.filter(id=row.id).update(credentials=vault.seal((await factories.account()).id, "{}"))
    _, refusal = await processor_settings.check_processor(team.owner, row.id)
    assert refusal is not None
    assert refusal.message == providers.UNREADABLE
    await ProcessorConnection.filter(id=row.id).update(processor="uninstalled")
    _, refusal = await processor_settings.check_processor(team.owner, row.id)
    assert refusal is not None
    assert "not installed" in refusal.message
    entries = await AuditEntry.filter(action="processor.tested").order_by("id")
    assert [entry.detail for entry in entries] == [{"passed": n == 1} for n in range(6)]
    with pytest.raises(NotFound):
        await processor_settings.check_processor(
            actor_of(await factories.user(await factories.account(), role="OWNER")), row.id
        )
    with pytest.raises(Forbidden):
        await processor_settings.check_processor(team.agent, row.id)
    sandbox, refusal = await processor_settings.check_processor(team.owner, team.processor.id)
    assert (refusal, sandbox.last_error) == (None, None)
    change(sandbox_open=False)
    _, refusal = await processor_settings.check_processor(team.owner, team.processor.id)
    assert isinstance(refusal, ProcessorUnavailable)
