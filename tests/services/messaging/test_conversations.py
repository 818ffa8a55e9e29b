"""Closing conversations, and what reopens them."""

from __future__ import annotations

import asyncio

import pytest

from integrations.base import IntegrationError
from models.errors import Forbidden, NotFound
from models.ledger import CardKind
from models.tables import Conversation
from services.connections import availability
from services.core import unit_of_work
from services.messaging import conversations
from services.thread import payment_links
from tests import factories
from tests.services.conftest import Team, kinds_logged
from tests.services.outgoing import replace_vendor, run_job, send


async def closed(team: Team) -> bool:
    return (await Conversation.get(id=team.conversation.id)).closed_at is not None


async def test_closing_and_reopening_are_announced_once_each(team: Team) -> None:
    for _ in range(2):
        row = await conversations.close(team.agent, team.conversation.id)
    assert row.closed_at is not None
    for _ in range(2):
        row = await conversations.reopen(team.agent, team.conversation.id)
    assert row.closed_at is None
    assert await kinds_logged(team.account.id) == ["conversation.updated"] * 2


async def test_a_message_of_the_contact_opens_it_live(team: Team) -> None:
    await conversations.close(team.agent, team.conversation.id)
    await team.hears("SMS", "One more thing", "in-1")
    row = await Conversation.get(id=team.conversation.id)
    assert (row.closed_at, row.unread_count) == (None, 1)
    assert (await kinds_logged(team.account.id)).count("conversation.updated") >= 2


async def test_a_close_concurrent_with_messages_never_loses_a_message(team: Team) -> None:
    await asyncio.gather(
        *(team.hears("SMS", f"Hi {n}", f"in-{n}") for n in range(3)),
        *(conversations.close(team.agent, team.conversation.id) for _ in range(3)),
    )
    assert (await Conversation.get(id=team.conversation.id)).unread_count == 3
    await team.hears("SMS", "Still there?", "in-9")
    assert not await closed(team)


async def test_what_the_team_writes_leaves_it_closed(team: Team) -> None:
    await conversations.close(team.agent, team.conversation.id)
    request = await factories.payment_request(team.contact)
    await send(team, f"Bye: {payment_links.checkout_url(request)}")
    assert await closed(team)


async def test_a_failed_delivery_of_a_request_opens_it(team: Team) -> None:
    request = await factories.payment_request(team.contact)
    sent = await send(team, payment_links.checkout_url(request))
    await conversations.close(team.agent, team.conversation.id)
    replace_vendor(team, "SMS", IntegrationError("v", "invalid_recipient", "No such number."))
    await run_job("message.send", sent.message.id)
    assert not await closed(team)


# PROCESSOR_DISCONNECTED is a kind of notifications only: it has no request and no card.
@pytest.mark.parametrize("kind", [kind for kind in CardKind if kind != CardKind.PROCESSOR_DISCONNECTED])
async def test_money_that_moves_without_the_team_opens_it(team: Team, kind: CardKind) -> None:
    request = await factories.payment_request(team.contact)
    await conversations.close(team.agent, team.conversation.id)
    async with unit_of_work.change(team.account.id) as changed:
        await changed.log_card(request, kind, text="So it is", key="one")
    by_the_team = {"PAYMENT_REQUEST", "PAYMENT_PROCESSING", "REQUEST_VOIDED", "REFUND_ISSUED"}
    by_the_team |= {"RECORDED_OUTSIDE", "OUTSIDE_UNDONE"}
    assert await closed(team) is (kind.value in by_the_team)


async def test_strangers_and_viewers_close_nothing(team: Team) -> None:
    with pytest.raises(Forbidden):
        await conversations.close(team.viewer, team.conversation.id)
    other = await factories.conversation(await factories.contact(await factories.account()))
    for act in (conversations.close, conversations.reopen):
        with pytest.raises(NotFound):
            await act(team.agent, other.id)
    assert not await closed(team)


# ---------------------------------------------------------------------------------------------------------- two numbers
async def preferred(team: Team) -> list[tuple[str, str]]:
    found = await availability.capabilities(team.agent, team.conversation)
    return [(reach.connection.kind, reach.connection.display_name) for reach in found if reach.preferred]


async def test_the_composer_starts_with_the_number_that_the_contact_wrote_to(team: Team) -> None:
    team.channels["SECOND"] = await factories.channel_connection(team.account, "SMS", display_name="Second")
    sender = team.addresses["SMS"].address
    await team.hears("SMS", "Hi", "in-1", sender=sender)
    assert await preferred(team) == [("SMS", "SMS (simulated)")]
    await team.hears("SECOND", "Hi there", "in-2", sender=sender)
    assert await preferred(team) == [("SMS", "Second")]
    await team.hears("EMAIL", "By mail", "in-3")
    assert [kind for kind, _ in await preferred(team)] == ["EMAIL"]
    await team.hears("EMAIL", "STOP", "in-4")  # closed: the kind where they wrote before that
    assert [kind for kind, _ in await preferred(team)] == ["SMS"]


async def test_nothing_is_preferred_where_nothing_is_open(team: Team) -> None:
    for row in team.channels.values():
        await type(row).filter(id=row.id).update(connected=False)
    assert await preferred(team) == []
