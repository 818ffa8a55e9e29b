"""Search of messages: what it finds, in which order, and that the index answers as each row does."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest

from integrations.base import MessageChange
from models import database as db
from models import search_index, searching, tables
from models.ids import public_id
from services.accounts import search_index as filling
from services.messaging import contact_merging, message_changes
from tests import factories
from tests.schema.conftest import Api
from tests.services.conftest import Team
from tests.services.outgoing import send

SEARCH = """query($s: String!, $c: ID, $k: [ChannelKind!], $t: DateTimeRange, $first: Int, $after: Cursor, $last: Int, $before: Cursor) {
  messages(search: $s, conversationId: $c, channelKinds: $k, sentAt: $t, first: $first, after: $after, last: $last, before: $before) {
    totalCount pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
    edges { cursor threadCursor conversation { id } node { body } } } }"""
WORDS = ("Anna", "søren", "ÅNGSTRÖM", "李小龍", "x_y%", "O’Brien", "pay", "tomorrow!", "🎉", "ab")


async def bodies(api: Api, text: str, **more: Any) -> list[str]:
    found = await api.one(SEARCH, {"s": text, **more})
    assert found["totalCount"] == len(found["edges"])
    return [edge["node"]["body"] for edge in found["edges"]]


async def test_it_finds_parts_of_texts_and_subjects_newest_first(team: Team, api: Api) -> None:
    await factories.message(team.conversation, body="Grüße aus Łódź", direction="INBOUND")
    await factories.message(team.conversation, body="Second", subject="Re: GRÜSSE", kind="EMAIL")
    other = await factories.conversation(await factories.contact(await factories.account()))
    await factories.message(other, body="Grüße of another account")
    assert await bodies(api, "grusse") == ["Second", "Grüße aus Łódź"]
    assert await bodies(api, "  LODZ ") == ["Grüße aus Łódź"]
    assert await bodies(api, "lo") == ["Grüße aus Łódź"]  # shorter than the index's runs
    assert await bodies(api, "grusse lodz") == []
    for nothing in ("", "  ", "\u0301"):
        assert await bodies(api, nothing) == []


async def test_messages_that_are_sent_and_received_are_found(team: Team, api: Api) -> None:
    await team.hears("SMS", "When is the deep clean?", "in-1")
    await send(team, "The deep clean is tomorrow")
    assert await bodies(api, "deep clean") == ["The deep clean is tomorrow", "When is the deep clean?"]


async def test_its_filters(team: Team, api: Api) -> None:
    now = factories.now()
    second = await factories.conversation(await factories.contact(team.account))
    await factories.message(team.conversation, body="hello one", kind="SMS", occurred_at=now - timedelta(days=2))
    await factories.message(team.conversation, body="hello two", kind="EMAIL", occurred_at=now)
    await factories.message(second, body="hello three", kind="SMS", occurred_at=now)
    conversation = public_id("cnv", team.conversation.id)
    assert await bodies(api, "hello", c=conversation) == ["hello two", "hello one"]
    assert await bodies(api, "hello", k=["SMS"]) == ["hello three", "hello one"]
    assert await bodies(api, "hello", k=["SMS"], c=conversation) == ["hello one"]
    assert await bodies(api, "hello", t={"until": (now - timedelta(days=1)).isoformat()}) == ["hello one"]
    assert await bodies(api, "hello", t={"from": now.isoformat()}) == ["hello three", "hello two"]
    assert await bodies(api, "hello", k=[]) == []
    other = await factories.conversation(await factories.contact(await factories.account()))
    for unknown in (public_id("cnv", other.id), public_id("cnt", team.contact.id), "rubbish"):
        assert await bodies(api, "hello", c=unknown) == []


async def test_messages_of_merged_conversations_are_those_of_the_kept_one(team: Team, api: Api) -> None:
    other = await factories.conversation(await factories.contact(team.account))
    await factories.message(other, body="from the merged one")
    await contact_merging.merge(
        team.owner, contact_id=team.contact.id, merged_contact_id=other.contact_id, idempotency_key="one-merge"
    )
    for conversation in (team.conversation, other):
        found = await api.one(SEARCH, {"s": "merged one", "c": public_id("cnv", conversation.id)})
        (edge,) = found["edges"]
        assert edge["conversation"] == {"id": public_id("cnv", team.conversation.id)}


async def test_a_removed_message_is_not_found_and_its_text_is_gone_from_the_index(team: Team, api: Api) -> None:
    await team.hears("WHATSAPP", "My secret number", "in-1")
    message = await tables.Message.get(direction="INBOUND")
    channel = team.channels["WHATSAPP"]
    edited = MessageChange(external_id="in-1", body="My secret address", occurred_at=factories.now())
    await message_changes.record(channel, edited)
    assert (await bodies(api, "secret addr"), await bodies(api, "number")) == (["My secret address"], [])
    await message_changes.record(channel, MessageChange(external_id="in-1", removed=True, occurred_at=factories.now()))
    for text in ("secret", "removed"):
        assert await bodies(api, text) == []
    assert await db.rows("SELECT 1 FROM search_text WHERE id = ?", message.id) == []
    assert (await tables.Message.get(id=message.id)).search == ""
    assert await search_index.candidates("m", team.account.id, ["secret"]) == []


async def test_a_text_that_another_version_changes_is_folded_again(team: Team, api: Api) -> None:
    message = await factories.message(team.conversation, body="the old words")
    await db.execute("UPDATE message SET body = 'the new words' WHERE id = ?", message.id)
    assert await bodies(api, "old words") == []
    assert await filling.fill() == 1
    assert (await bodies(api, "old words"), await bodies(api, "new words")) == ([], ["the new words"])


async def test_a_change_of_status_keeps_the_searched_text(team: Team, api: Api) -> None:
    message = await factories.message(team.conversation, body="status")
    await tables.Message.filter(id=message.id).update(search="kept as it is")
    message.delivery_status = "READ"
    await message.save(update_fields=["delivery_status"])
    assert (await tables.Message.get(id=message.id)).search == "kept as it is"


async def test_only_the_beginning_of_a_long_text_is_searched(team: Team, api: Api) -> None:
    limit = tables.Message.SEARCH_LIMIT
    body = "x" * (limit - 5) + "seen unseen"
    await factories.message(team.conversation, body=body)
    assert (await bodies(api, "xseen"), await bodies(api, "unseen")) == ([body], [])
    # A text that folding lengthens stays within the limit.
    await factories.message(team.conversation, body="\ufdfa" * limit)
    assert max(len(row.search or "") for row in await tables.Message.all()) == limit


async def test_pages_in_both_directions(team: Team, api: Api) -> None:
    for n in range(7):
        await factories.message(team.conversation, body=f"page {n}", delivery_status="DELIVERED")
    expected = [f"page {n}" for n in reversed(range(7))]
    for size in (1, 3, 7, 10):
        forward: list[str] = []
        given: dict[str, Any] = {"first": size}
        while True:
            page = await api.one(SEARCH, {"s": "page", **given})
            forward += [edge["node"]["body"] for edge in page["edges"]]
            if not page["pageInfo"]["hasNextPage"]:
                break
            given = {"first": size, "after": page["pageInfo"]["endCursor"]}
        backward: list[str] = []
        given = {"last": size}
        while True:
            page = await api.one(SEARCH, {"s": "page", **given})
            backward = [edge["node"]["body"] for edge in page["edges"]] + backward
            if not page["pageInfo"]["hasPreviousPage"]:
                break
            given = {"last": size, "before": page["pageInfo"]["startCursor"]}
        assert forward == backward == expected
        assert page["totalCount"] == 7


async def test_a_hit_opens_its_thread_at_its_place(team: Team, api: Api) -> None:
    for n in range(5):
        await factories.message(team.conversation, body=f"place {n}")
    (edge,) = (await api.one(SEARCH, {"s": "place 2"}))["edges"]
    around = await api.one(
        """query($id: ID!, $c: Cursor!) { conversation(id: $id) {
          before: thread(last: 1, before: $c) { nodes { ... on Message { body } } }
          after: thread(first: 1, after: $c) { nodes { ... on Message { body } } } } }""",
        {"id": edge["conversation"]["id"], "c": edge["threadCursor"]},
    )
    assert [around[side]["nodes"] for side in ("before", "after")] == [[{"body": "place 1"}], [{"body": "place 3"}]]


@pytest.mark.parametrize("most", [search_index.MOST, 3])
async def test_the_index_answers_as_every_row_does(
    team: Team, api: Api, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    async def none(*_: Any) -> None:
        return None

    rng = random.Random(11)
    second = await factories.conversation(await factories.contact(team.account))
    texts = [" ".join(rng.choices(WORDS, k=rng.randrange(1, 5))) for _ in range(60)]
    for n, text in enumerate(texts):
        row = await factories.message(rng.choice([team.conversation, second]), body=text, direction="INBOUND")
        if n % 9 == 0:
            row.removed_at = factories.now()
            await row.save(update_fields=["removed_at"])
    found = 0
    for _ in range(40):
        text = rng.choice(texts)
        start = rng.randrange(len(text))
        part = text[start : start + rng.randrange(1, 9)]
        with monkeypatch.context() as patched:
            patched.setattr(search_index, "candidates", none)
            plain = await bodies(api, part, first=100)
        with monkeypatch.context() as patched:
            patched.setattr(search_index, "MOST", most)
            assert await bodies(api, part, first=100) == plain, part
        terms = searching.terms(part)
        wanted = [body for n, body in enumerate(texts) if n % 9 and any(term in searching.fold(body) for term in terms)]
        assert plain == wanted[::-1], part
        found += len(plain)
    assert found > 200


async def test_messages_do_not_crowd_the_search_of_contacts(team: Team) -> None:
    for _ in range(5):
        await factories.message(team.conversation, body="Maya Torres", direction="INBOUND")
    assert await search_index.candidates("r", team.account.id, ["maya"]) == []
    assert len(await search_index.candidates("c", team.account.id, ["maya"]) or ()) == 1
    assert len(await search_index.candidates("m", team.account.id, ["maya"]) or ()) == 5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"s": "x" * 101}, "100 characters"),
        ({"s": "a\0b"}, "100 characters"),
        ({"s": "a", "t": {"from": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}}, "before `until`"),
        ({"s": "a", "first": 0}, "1 to 100"),
        ({"s": "a", "after": "cnVp"}, "not a cursor"),
    ],
)
async def test_bad_input_is_refused(team: Team, api: Api, given: dict[str, Any], message: str) -> None:
    result = await api.result(SEARCH, given)
    (error,) = list(result.errors or [])
    assert message in error.message
    assert (error.extensions or {})["code"] == "BAD_REQUEST"
