"""Connecting channels: checks at the vendor, and testing."""

from __future__ import annotations

import orjson
import pytest

from integrations.base import Environment
from models import vault
from models.errors import Forbidden, Invalid, NotFound
from models.ids import public_id
from models.tables import AuditEntry, ChannelConnection
from services.connections import channel_settings, providers
from tests import factories
from tests.configured import change
from tests.contracts import twilio_server
from tests.contracts.twilio_server import TwilioServer
from tests.services.conftest import BASE_URL, Team, actor_of


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
        ({"provider": "twilio_sms", "kind": "SMS", "credentials": {"who": "knows"}}, "credentials.who.name"),
    ],
)
async def test_a_channel_that_cannot_be_is_refused(team: Team, given: dict[str, object], field: str) -> None:
    before = await ChannelConnection.all().count()
    with pytest.raises(Invalid) as refused:
        await channel_settings.connect_channel(team.owner, **given)  # type: ignore[arg-type]
    assert refused.value.field == tuple(field.split("."))
    assert await ChannelConnection.all().count() == before


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
        wrong, refusal = await channel_settings.check_channel(team.owner, row.id)
        assert isinstance(refusal, Invalid)
        assert (refusal.field, wrong.last_error) == (None, refusal.message)
        await ChannelConnection.filter(id=row.id).update(credentials=row.credentials)
        fine, refusal = await channel_settings.check_channel(team.owner, row.id)
        assert (refusal, fine.last_error) == (None, None)
        details = [entry.detail for entry in await AuditEntry.filter(action="channel.tested").order_by("id")]
        assert details == [{"passed": False}, {"passed": True}]
    with pytest.raises(NotFound):
        await channel_settings.check_channel(
            actor_of(await factories.user(await factories.account(), role="OWNER")), row.id
        )
    with pytest.raises(Forbidden):
        await channel_settings.check_channel(team.agent, row.id)
