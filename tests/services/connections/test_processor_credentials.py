"""Credentials by name, of every kind of processor."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from integrations import registry
from integrations.base import Environment
from models import vault
from models.errors import Invalid, ProcessorRejected
from models.tables import AuditEntry, ProcessorConnection
from services.connections import processor_settings, providers
from tests import factories
from tests.configured import change
from tests.contracts import paypal_server, square_server
from tests.contracts.paypal_server import PayPalServer
from tests.contracts.square_server import SquareServer
from tests.contracts.stripe_server import StripeServer
from tests.services.conftest import BASE_URL, Team
from tests.services.connections.conftest import KEY, SIGNING

PAYPAL = {"client_id": paypal_server.CLIENT_ID, "client_secret": paypal_server.CLIENT_SECRET}


SQUARE = {"access_token": square_server.ACCESS_TOKEN, "location_id": square_server.LOCATION_ID}


@pytest.fixture
async def vendors(team: Team) -> AsyncIterator[tuple[PayPalServer, SquareServer]]:
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
    # The other mode is connected beside it.
    test = await processor_settings.configure_processor(
        team.owner, processor="square", test_mode=True, credentials=SQUARE
    )
    assert test.id != square.id
    held = providers.credentials_of(test)
    assert {name: held[name] for name in ("access_token", "location_id", "mode")} == SQUARE | {"mode": "test"}
    # No webhook key was given for this one: it was registered.
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
            ("credentials", "secret", "name"),
            "client_id, client_secret, webhook_id.",
        ),
        ("paypal", {"credentials": PAYPAL | {"mode": "live"}}, ("credentials", "mode", "name"), "testMode"),
        ("square", {"credentials": SQUARE}, ("testMode",), "test or live"),
        ("square", {"test_mode": True}, ("credentials", "access_token"), "needs access_token"),
        ("stripe", {"credentials": {"mode": "live", "secret_key": KEY}}, ("credentials", "mode", "name"), "secret_key"),
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
        text = sentence.format(name="PayPal", mode=" in test mode", reason="x", url="https://pay.example.test")
        assert "{" not in text
        assert about in {None, "account", "webhook_id", "location_id", "currency"}


async def test_a_kind_names_its_provider_and_custom_names_a_plug_in(monkeypatch: pytest.MonkeyPatch) -> None:
    async def load(room: str, name: str) -> object | None:
        return object() if (room, name) in {("processors", "acme_pay"), ("processors", "stripe")} else None

    assert await processor_settings.provider_of("STRIPE", None) == "stripe"
    assert await processor_settings.provider_of("PAYPAL", "paypal") == "paypal"
    monkeypatch.setattr(registry, "load", load)
    assert await processor_settings.provider_of("CUSTOM", "acme_pay") == "acme_pay"
    for kind, provider in (
        ("STRIPE", "paypal"),
        ("STRIPE", "acme_pay"),
        ("CUSTOM", None),
        ("CUSTOM", "stripe"),
        ("CUSTOM", "../stripe"),
        ("CUSTOM", "nothere"),
    ):
        with pytest.raises(Invalid) as refused:
            await processor_settings.provider_of(kind, provider)
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
