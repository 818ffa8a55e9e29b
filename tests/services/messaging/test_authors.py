"""Each writer of a message stores its author."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from integrations.base import WrittenElsewhere
from models.ids import uuid7
from models.tables import Message
from services.core import actors
from services.messaging import inbound, messages
from tests.services.conftest import Team


async def test_people_and_programs_are_the_authors_of_what_they_send(team: Team) -> None:
    program = replace(team.agent, kind="api_key", user_id=None, credential=str(uuid7()), name="Shop")
    for actor in (team.agent, program):
        sent = await messages.send_message(
            actor, conversation_id=team.conversation.id, channel_id=team.channels["SMS"].id, body="Hello"
        )
        row = await Message.get(id=sent.message.id)
        assert (row.author, row.author_id, row.author_name) == (actor.ref.stored(), actor.user_id, actor.name)


async def test_automatic_answers_are_paythreads(team: Team) -> None:
    await team.hears("SMS", "HELP", "in-1")
    received, answer = await Message.all().order_by("seq")
    assert (received.direction, received.author) == ("INBOUND", None)
    by = actors.of_message(received.author, received.author_id, received.author_name, "INBOUND", received.contact_id)
    assert by == actors.contact(team.contact.id)
    assert (answer.author, answer.author_id) == (actors.PAYTHREAD.stored(), None)


async def test_what_was_written_in_the_channels_own_inbox_has_that_inbox_as_author(team: Team) -> None:
    written = WrittenElsewhere(
        external_id="el-1",
        recipient=team.addresses["MESSENGER"].address,
        body="Hi",
        author="Meta inbox",
        occurred_at=datetime.now(UTC),
    )
    await inbound._store_elsewhere(team.channels["MESSENGER"], written, datetime.now(UTC))
    assert (await Message.get()).author == actors.channel("Meta inbox").stored()
