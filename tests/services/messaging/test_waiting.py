"""Since when a contact waits for an answer, and on which channels it wrote."""

from __future__ import annotations

from datetime import datetime

from models.tables import Conversation, Message
from services.core.permissions import system_actor
from services.messaging import contact_merging, conversations
from tests import factories
from tests.services.conftest import Team
from tests.services.outgoing import send


async def state(team: Team) -> tuple[datetime | None, list[str]]:
    row = await Conversation.get(id=team.conversation.id)
    return row.waiting_since, sorted(row.channel_kinds.split())


async def test_the_contact_waits_from_the_first_message_after_the_teams_last(team: Team) -> None:
    assert await state(team) == (None, [])
    await team.hears("SMS", "Hello?", "in-1")
    first = await Message.get(direction="INBOUND")
    await team.hears("EMAIL", "Anyone there?", "in-2")
    assert await state(team) == (first.occurred_at, ["EMAIL", "SMS"])
    await send(team, "Yes")
    assert await state(team) == (None, ["EMAIL", "SMS"])
    await team.hears("WHATSAPP", "Great", "in-3")
    last = await Message.filter(direction="INBOUND").order_by("-seq").first()
    assert last is not None
    assert await state(team) == (last.occurred_at, ["EMAIL", "SMS", "WHATSAPP"])


async def test_a_message_that_comes_late_counts_from_when_it_was_written(team: Team) -> None:
    late, early = factories.now(), factories.now().replace(year=2020)
    for occurred_at in (late, early, late):
        await factories.message(team.conversation, direction="INBOUND", occurred_at=occurred_at)
    assert (await state(team))[0] == early


async def test_an_automatic_answer_leaves_the_contact_waiting(team: Team) -> None:
    await team.hears("SMS", "HELP", "in-1")
    automatic = await Message.get(direction="OUTBOUND")
    assert (automatic.author_id, automatic.author_name) == (None, system_actor(team.account.id).name)
    assert (await state(team))[0] is not None


async def test_an_api_key_answers(team: Team) -> None:
    await team.hears("SMS", "Hello", "in-1")
    await factories.message(team.conversation, direction="OUTBOUND", author_id=None, author_name="Booking bot")
    assert (await state(team))[0] is None


async def test_a_closed_conversation_waits_for_no_one(team: Team) -> None:
    await team.hears("SMS", "Thanks, bye", "in-1")
    await conversations.close(team.agent, team.conversation.id)
    assert (await state(team))[0] is None
    await conversations.reopen(team.agent, team.conversation.id)
    assert (await state(team))[0] is None


async def test_a_merge_keeps_the_longest_wait_and_all_channels(team: Team) -> None:
    other = await factories.conversation(await factories.contact(team.account))
    since = factories.now().replace(year=2020)
    await factories.message(other, direction="INBOUND", kind="EMAIL", occurred_at=since)
    await team.hears("SMS", "It is me", "in-1")
    await contact_merging.merge(
        team.agent, contact_id=team.contact.id, merged_contact_id=other.contact_id, idempotency_key="one-merge"
    )
    assert await state(team) == (since, ["EMAIL", "SMS"])
    assert (await Conversation.get(id=other.id)).waiting_since is None
