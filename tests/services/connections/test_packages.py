"""Connections without their provider are shown and refuse; the others work."""

from __future__ import annotations

import pytest

from models.errors import Invalid, ProcessorUnavailable
from models.tables import ProcessorEvent
from services.connections import availability, channel_settings, processor_settings, providers
from services.core.webhooks import NotVerifiable
from services.payments import checkout_page, processor_webhooks, sweeper
from tests import factories
from tests.services.conftest import Team


async def test_a_processor_that_is_gone_refuses_and_its_webhooks_are_sent_again(team: Team) -> None:
    gone = await factories.processor_connection(team.account, processor="gone_pay", credentials={"secret_key": "x"})
    assert providers.processor_kind(gone) == "CUSTOM"
    with pytest.raises(ProcessorUnavailable):
        providers.processor(gone)
    with pytest.raises(NotVerifiable):  # 503
        await processor_webhooks.receive("gone_pay", gone.id, b"{}", {})
    assert await ProcessorEvent.all().count() == 0
    with pytest.raises(Invalid, match="This processor is not installed"):
        await processor_settings.configure_processor(team.owner, processor="gone_pay", credentials={"secret_key": "x"})
    # What was asked through it can still be looked at, and the sweeper goes on to the next.
    request = await factories.payment_request(team.contact, processor_connection_id=gone.id, status="SENT")
    page = await checkout_page.page(request)
    assert (page.processor_name, page.origins) == (gone.display_name, ())
    assert await sweeper.fetch_events(gone, factories.now()) == 0


async def test_a_channel_that_is_gone_says_so_and_the_others_are_open(team: Team) -> None:
    mute = await factories.channel_connection(team.account, "CUSTOM", provider="gone_chat")
    await factories.contact_address(team.contact, "CUSTOM")
    reached = await availability.capabilities(team.agent, team.conversation)
    closed = {one.connection.kind: one.messages.reason for one in reached if not one.messages.supported}
    assert closed == {"CUSTOM": "CHANNEL_NOT_SUPPORTED"}
    assert [one.messages.enabled for one in reached if one.connection.kind == "SMS"] == [True]
    assert (mute.connected, providers.inbound_url(mute).split("/")[-2]) == (True, "gone_chat")
    with pytest.raises(Invalid, match="This provider is not installed"):
        await channel_settings.connect_channel(team.owner, kind="CUSTOM", provider="gone_chat", credentials={})
