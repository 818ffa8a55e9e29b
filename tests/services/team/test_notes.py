"""Internal notes: who reads them, whom they notify, and what they never change."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from models.errors import Blank, Forbidden, Invalid, NotFound, Refusal, TooLong
from models.ids import public_id, uuid7
from models.tables import Conversation, Message, Note, NoteMention, Notification
from services.messaging import contact_merging, conversations
from services.team import notes
from tests import factories
from tests.schema.conftest import Api, api, event, hub
from tests.services.conftest import Team, kinds_logged

__all__ = ["api", "hub"]

THREAD = """query($id: ID!) { conversation(id: $id) { preview lastActivityAt unreadCount thread { totalCount nodes { __typename id
  occurredAt ... on Note { body author { __typename ... on User { id name } ... on ApiKey { name } } mentions { id name } } } } } }"""
FEED = """subscription { inboxEvents { __typename ... on Event { cursor } ... on ThreadItemAdded { edge { cursor node { __typename id
  ... on Note { body } } } conversation { id preview } } ... on ConversationUpdated { conversation { id tags } } } }"""


def key() -> str:
    return str(uuid7())


async def add(team: Team, body: str = "Ask about the keys", **given: Any) -> Note:
    asked: dict[str, Any] = {"mentions": [], "idempotency_key": key()} | given
    actor = asked.pop("actor", team.agent)
    return await notes.add(actor, team.conversation.id, body, **asked)


async def test_a_note_is_in_the_thread_and_the_list_row_stays(team: Team, api: Api) -> None:
    await team.hears("SMS", "Hello", "in-1")
    shown = {"id": public_id("cnv", team.conversation.id)}
    before = await api.one(THREAD, shown)
    note = await add(team)
    after = await api.one(THREAD, shown, viewer=team.owner)
    assert after["thread"]["totalCount"] == 2
    thread = after.pop("thread")["nodes"]
    assert [item["__typename"] for item in thread] == ["Message", "Note"]
    assert thread[1] == {
        "__typename": "Note",
        "id": public_id("note", note.id),
        "occurredAt": thread[1]["occurredAt"],
        "body": "Ask about the keys",
        "author": {
            "__typename": "User",
            "id": public_id("usr", team.agent.user_id or uuid7()),
            "name": team.agent.name,
        },
        "mentions": [],
    }
    assert after == {name: value for name, value in before.items() if name != "thread"}


async def test_a_closed_conversation_stays_closed(team: Team) -> None:
    await conversations.close(team.agent, team.conversation.id)
    await add(team)
    assert (await Conversation.get(id=team.conversation.id)).closed_at is not None


async def test_a_mentioned_user_is_notified_once_and_the_writer_is_not(team: Team, api: Api) -> None:
    assert team.agent.user_id is not None
    assert team.owner.user_id is not None
    note = await add(team, mentions=[team.owner.user_id, team.owner.user_id, team.agent.user_id])
    assert await NoteMention.filter(note_id=note.id).count() == 2
    (notice,) = await Notification.all()
    assert (notice.user_id, notice.kind, notice.title) == (
        team.owner.user_id,
        "MENTIONED",
        f"{team.agent.name} mentioned you",
    )
    assert (notice.body, notice.conversation_id) == (note.body, team.conversation.id)
    shown = await api.one(
        "{ notifications { nodes { kind conversation { id } paymentRequest { id } } } }", viewer=team.owner
    )
    assert shown["nodes"] == [
        {"kind": "MENTIONED", "conversation": {"id": public_id("cnv", team.conversation.id)}, "paymentRequest": None}
    ]


async def test_viewers_see_no_note_anywhere(team: Team, api: Api) -> None:
    note = await add(team)
    shown = await api.one(THREAD, {"id": public_id("cnv", team.conversation.id)}, viewer=team.viewer)
    assert shown["thread"] == {"totalCount": 0, "nodes": []}
    asked = {"id": public_id("note", note.id)}
    document = "query($id: ID!) { node(id: $id) { __typename ... on Note { body } } }"
    assert await api.one(document, asked, viewer=team.viewer) is None
    assert await api.one(document, asked) == {"__typename": "Note", "body": note.body}
    with pytest.raises(Forbidden):
        await add(team, actor=team.viewer)


async def test_viewers_feeds_leave_notes_out(team: Team, api: Api) -> None:
    async with api.subscribe(FEED) as agents, api.subscribe(FEED, viewer=team.viewer) as viewers:
        assert (await event(agents))["__typename"] == (await event(viewers))["__typename"] == "Subscribed"
        note = await add(team)
        await conversations.save_draft(team.agent, team.conversation.id, "Dear Maya")
        added = await event(agents)
        assert added["edge"]["node"] == {"__typename": "Note", "id": public_id("note", note.id), "body": note.body}
        assert added["conversation"]["id"] == public_id("cnv", team.conversation.id)
        assert (await event(agents))["__typename"] == (await event(viewers))["__typename"] == "ConversationUpdated"


async def test_a_repeat_with_the_same_key_adds_one_note(team: Team) -> None:
    given: dict[str, Any] = {"idempotency_key": key(), "mentions": [team.owner.user_id]}
    first, again = await add(team, **given), await add(team, **given)
    assert first.id == again.id
    assert (await Note.all().count(), await Notification.all().count()) == (1, 1)


@pytest.mark.parametrize(
    ("body", "error"),
    [("", Blank), ("  \n", Blank), ("x" * (notes.LIMIT + 1), TooLong)],
    ids=["empty", "space", "long"],
)
async def test_a_body_that_is_no_note_is_refused(team: Team, body: str, error: type[Refusal]) -> None:
    with pytest.raises(error):
        await add(team, body)
    assert await Note.all().count() == 0


async def test_only_active_colleagues_who_read_notes_can_be_mentioned(team: Team) -> None:
    stranger = await factories.user(await factories.account())
    disabled = await factories.user(team.account, disabled_at=factories.now())
    for user_id in (stranger.id, disabled.id, uuid7()):
        with pytest.raises(NotFound) as refused:
            await add(team, mentions=[user_id])
        assert refused.value.field == ("mentions", "0")
    with pytest.raises(Invalid):
        await add(team, mentions=[team.viewer.user_id])
    with pytest.raises(Invalid):
        await add(team, mentions=[uuid7() for _ in range(notes.MOST_MENTIONS + 1)])
    with pytest.raises(Invalid) as too_many:
        await add(team, mentions=[uuid7()] * 10_000)
    assert len(too_many.value.all) == 1
    assert await Note.all().count() == await Notification.all().count() == 0


async def test_another_accounts_conversation_has_no_place_for_a_note(team: Team) -> None:
    other = await factories.conversation(await factories.contact(await factories.account()))
    with pytest.raises(NotFound):
        await notes.add(team.agent, other.id, "Hello", mentions=[], idempotency_key=key())


async def test_notes_of_merged_conversations_are_one_thread(team: Team, api: Api) -> None:
    other = await factories.contact(team.account, email=None, phone=None, name="Maya B")
    talk = await factories.conversation(other)
    await notes.add(team.agent, talk.id, "first", mentions=[], idempotency_key=key())
    await contact_merging.merge(
        team.agent, contact_id=team.contact.id, merged_contact_id=other.id, addresses=[], idempotency_key=key()
    )
    await notes.add(team.agent, talk.id, "second", mentions=[], idempotency_key=key())
    shown = await api.one(THREAD, {"id": public_id("cnv", team.conversation.id)})
    assert [item["body"] for item in shown["thread"]["nodes"] if item["__typename"] == "Note"] == ["first", "second"]


async def test_concurrent_notes_and_messages_keep_one_order(team: Team, api: Api) -> None:
    await asyncio.gather(
        *(add(team, f"note {n}") for n in range(5)), *(team.hears("SMS", f"Hi {n}", f"in-{n}") for n in range(5))
    )
    seqs = [row.seq for row in await Note.all()] + [row.seq for row in await Message.all()]
    assert len(set(seqs)) == 10
    forward: list[str] = []
    document = """query($id: ID!, $after: Cursor) { conversation(id: $id) { thread(first: 3, after: $after) {
      pageInfo { hasNextPage endCursor } nodes { id } } } }"""
    asked: dict[str, Any] = {"id": public_id("cnv", team.conversation.id), "after": None}
    while True:
        page = (await api.one(document, asked))["thread"]
        forward += [item["id"] for item in page["nodes"]]
        asked["after"] = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
    assert len(forward) == len(set(forward)) == 10
    assert (await kinds_logged(team.account.id)).count("note.created") == 5


async def test_an_assigned_user_is_notified_by_a_colleague_only(team: Team) -> None:
    assert team.owner.user_id is not None
    await conversations.assign(team.agent, team.conversation.id, team.agent.user_id)
    assert await Notification.all().count() == 0
    for _ in range(2):
        await conversations.assign(team.agent, team.conversation.id, team.owner.user_id)
    (notice,) = await Notification.all()
    assert (notice.user_id, notice.kind) == (team.owner.user_id, "ASSIGNED")
    assert notice.title == f"{team.agent.name} assigned {team.contact.name} to you"
