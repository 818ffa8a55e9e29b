"""Merged contacts as an inbox sees them: one row, one thread with stable cursors, live feeds and old ids."""

from __future__ import annotations

from typing import Any

from integrations.base import InboundMessage
from models.ids import public_id, uuid7
from models.tables import Contact, Conversation
from services.messaging import contacts, conversations, inbound, messages
from tests import factories
from tests.schema.conftest import Api, event
from tests.services.conftest import Team

KEY = "merge-key-0001"
THREAD = """query($id: ID!, $first: Int, $after: Cursor, $last: Int, $before: Cursor) { conversation(id: $id) { id
  thread(first: $first, after: $after, last: $last, before: $before) { pageInfo { hasNextPage hasPreviousPage }
    edges { cursor node { ... on Message { body } ... on ActivityCard { text } } } } } }"""
EVENTS = """__typename ... on Event { cursor }
  ... on ContactMerged { mergedContactId mergedConversationId contact { id } conversation { id } }"""


async def another(team: Team, name: str = "Mary") -> tuple[Contact, Conversation]:
    contact = await factories.contact(team.account, name=name, email=f"{name.lower()}@example.com", phone=None)
    await factories.contact_address(contact, "EMAIL", address=f"{name.lower()}@example.com")
    return contact, await factories.conversation(contact)


async def merge(api: Api, kept: Contact, merged: Contact, **more: Any) -> Any:
    given = {"contactId": public_id("cnt", kept.id), "mergedContactId": public_id("cnt", merged.id)}
    return await api.run("mergeContacts", {"idempotencyKey": KEY, **given, **more}, "contact { id name }")


async def writes(team: Team, kind: str, sender: str, body: str) -> None:
    said = InboundMessage(external_id=f"in-{uuid7()}", sender=sender, body=body)
    await inbound.store(team.channels[kind], said, factories.now())


async def bodies(api: Api, id: str, **page: Any) -> tuple[list[str], list[str]]:
    """The texts of a page and their cursors."""
    edges = (await api.one(THREAD, {"id": id, **page}))["thread"]["edges"]
    return [edge["node"]["body"] for edge in edges], [edge["cursor"] for edge in edges]


async def test_the_thread_is_one_and_cursors_from_before_go_on_in_it(team: Team, api: Api) -> None:
    other, other_thread = await another(team)
    for n in range(4):
        await writes(team, "SMS", team.addresses["SMS"].address, f"kept {n}")
        await writes(team, "EMAIL", "mary@example.com", f"merged {n}")
    old, kept = public_id("cnv", other_thread.id), public_id("cnv", team.conversation.id)
    _, before = await bodies(api, old)
    _, mine = await bodies(api, kept)
    done = await merge(api, team.contact, other)
    assert done == {"contact": {"id": public_id("cnt", team.contact.id), "name": team.contact.name}, "userErrors": []}
    whole = [f"{who} {n}" for n in range(4) for who in ("kept", "merged")]
    for id in (old, kept):
        assert (await bodies(api, id))[0] == whole
        assert (await bodies(api, id, first=2, after=before[0]))[0] == whole[2:4]
        assert (await bodies(api, id, last=3, before=mine[3]))[0] == whole[3:6]
        paged, after = [], None
        while True:
            found, cursors = await bodies(api, id, first=3, after=after)
            if not found:
                break
            paged += found
            after = cursors[-1]
        assert paged == whole
    answer = await api.one(THREAD, {"id": old})
    assert answer["id"] == kept


async def test_old_ids_answer_as_the_kept_ones_and_lists_show_one(team: Team, api: Api) -> None:
    other, other_thread = await another(team)
    request = await factories.payment_request(other, status="SENT", product_name="Deep clean")
    fact = await factories.money_fact(request)
    overdue = await factories.payment_request(other, status="SENT", due_at=factories.now().replace(year=2020))
    assert (await merge(api, team.contact, other))["userErrors"] == []
    old = {"contact": public_id("cnt", other.id), "conversation": public_id("cnv", other_thread.id)}
    kept = {"contact": public_id("cnt", team.contact.id), "conversation": public_id("cnv", team.conversation.id)}
    for name, id in old.items():
        assert await api.one("query($id: ID!) { node(id: $id) { id } }", {"id": id}) == {"id": kept[name]}
        assert await api.one(f"query($id: ID!) {{ {name}(id: $id) {{ id }} }}", {"id": id}) == {"id": kept[name]}
    channel = old["conversation"].replace("cnv_", "cch_") + "_" + public_id("x", team.channels["SMS"].id)[2:]
    found = await api.one("query($id: ID!) { node(id: $id) { id } }", {"id": channel})
    assert found["id"].startswith(kept["conversation"].replace("cnv_", "cch_"))
    listed = await api.all("{ contacts(first: 9) { nodes { id } } conversations(first: 9) { nodes { id } } }")
    assert listed["contacts"]["nodes"] == [{"id": kept["contact"]}]
    assert listed["conversations"]["nodes"] == [{"id": kept["conversation"]}]
    shown = await api.one(
        """query($id: ID!) { contact(id: $id) { paymentRequests(first: 9) { totalCount nodes { id contact { id } conversation { id }
          payments { id mergedFrom { contactId name } } } } paymentSummary { requested { minorUnits } overdueCount }
          mergedFrom { contactId name email } addresses { kind address inUse } } }""",
        {"id": old["contact"]},
    )
    assert shown["paymentRequests"]["totalCount"] == 2
    paid = next(one for one in shown["paymentRequests"]["nodes"] if one["id"] == public_id("pr", request.id))
    assert (paid["contact"], paid["conversation"]) == ({"id": kept["contact"]}, {"id": kept["conversation"]})
    assert paid["payments"] == [
        {"id": public_id("pay", fact.id), "mergedFrom": {"contactId": old["contact"], "name": "Mary"}}
    ]
    (total,) = shown["paymentSummary"]
    assert total == {"requested": {"minorUnits": str(request.amount_minor + overdue.amount_minor)}, "overdueCount": 1}
    assert shown["mergedFrom"] == [{"contactId": old["contact"], "name": "Mary", "email": "mary@example.com"}]
    emails = [(one["address"], one["inUse"]) for one in shown["addresses"] if one["kind"] == "EMAIL"]
    assert sorted(emails) == sorted([(team.addresses["EMAIL"].address, True), ("mary@example.com", False)])
    # Found by the names of both, also the requests of each.
    for words in ("Mary", "mary@example.com", team.contact.name):
        hits = await api.all(
            """query($s: String!) { contacts(first: 9, filter: {search: $s}) { nodes { id } }
              conversations(first: 9, filter: {search: $s}) { nodes { id } }
              paymentRequests(first: 9, filter: {search: $s}) { nodes { id } } }""",
            {"s": words},
        )
        assert hits["contacts"]["nodes"] == [{"id": kept["contact"]}], words
        assert hits["conversations"]["nodes"] == [{"id": kept["conversation"]}], words
        assert len(hits["paymentRequests"]["nodes"]) == 2, words


async def test_feeds_of_both_follow_the_merge_and_what_comes_after(team: Team, api: Api) -> None:
    other, other_thread = await another(team)
    third, _ = await another(team, "Moll")
    documents = {
        name: f"subscription($id: ID!, $after: Cursor) {{ {root}(after: $after, {name}Id: $id) {{ {EVENTS} }} }}"
        for name, root in (("conversation", "conversationEvents"), ("contact", "contactPaymentEvents"))
    }
    documents |= {
        "inbox": f"subscription($after: Cursor) {{ inboxEvents(after: $after) {{ {EVENTS} }} }}",
    }
    ids = {
        "conversation": [public_id("cnv", other_thread.id), public_id("cnv", team.conversation.id)],
        "contact": [public_id("cnt", other.id), public_id("cnt", team.contact.id)],
        "inbox": [""],
    }
    merged = {
        "mergedContactId": public_id("cnt", other.id),
        "mergedConversationId": public_id("cnv", other_thread.id),
        "contact": {"id": public_id("cnt", team.contact.id)},
        "conversation": {"id": public_id("cnv", team.conversation.id)},
    }

    async def seen(stream: Any, count: int) -> list[dict[str, Any]]:
        return [await event(stream) for _ in range(count)]

    starts = {}
    for name, document in documents.items():
        for id in ids[name]:
            variables = {"id": id} if id else {}
            async with api.subscribe(document, variables) as stream:
                starts[name, id] = (await event(stream))["cursor"]
    # Live, from the moment of the merge on.
    live = {}
    async with (
        api.subscribe(documents["conversation"], {"id": ids["conversation"][0]}) as of_merged,
        api.subscribe(documents["conversation"], {"id": ids["conversation"][1]}) as of_kept,
        api.subscribe(documents["contact"], {"id": ids["contact"][0]}) as of_contact,
        api.subscribe(documents["inbox"], {}) as of_all,
    ):
        live = {"merged": of_merged, "kept": of_kept, "contact": of_contact, "inbox": of_all}
        for stream in live.values():
            assert (await event(stream))["__typename"] == "Subscribed"
        await merge(api, team.contact, other)
        await writes(team, "EMAIL", "moll@example.com", "not for them")
        await writes(team, "EMAIL", "mary@example.com", "after")
        await contacts.update_contact(team.agent, other.id, changes={"name": "Maria"})
        first = [await event(live[name]) for name in live]
        assert [one["__typename"] for one in first] == ["ContactMerged"] * 4
        assert {key: first[0][key] for key in merged} == merged
        after_merge = ["ContactUpdated", "ConversationUpdated"]
        written = ["ThreadItemAdded", "ContactUpdated", "ConversationUpdated"]
        for name in ("merged", "kept"):
            told_of = [one["__typename"] for one in await seen(live[name], 6)]
            assert sorted(told_of) == sorted([*after_merge, *written, "ContactUpdated"]), name
        assert [one["__typename"] for one in await seen(live["contact"], 3)] == ["ContactUpdated"] * 3
    # By a cursor from before the merge the same comes once more; after it the old id begins where the kept one is.
    for (name, id), start in starts.items():
        async with api.subscribe(documents[name], {"id": id, "after": start} if id else {"after": start}) as stream:
            assert (await event(stream))["__typename"] == "Subscribed"
            assert (await event(stream))["__typename"] == "ContactMerged", (name, id)
    async with api.subscribe(documents["conversation"], {"id": ids["conversation"][0]}) as stream:
        await event(stream)
        await conversations.save_draft(team.agent, other_thread.id, "Dear")
        assert (await event(stream))["__typename"] == "ConversationUpdated"
    assert (await Contact.get(id=third.id)).merged_into_id is None
    sent = await messages.send_message(
        team.agent, conversation_id=other_thread.id, channel_id=team.channels["EMAIL"].id, body="Hello"
    )
    assert sent.message.conversation_id == team.conversation.id
