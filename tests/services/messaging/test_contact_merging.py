"""Merging two contacts: records, addresses, conversations, work under way, refusals and concurrent merges."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from integrations.base import InboundMessage, SendResult
from models import database as db
from models.errors import ContactOptedOut, Forbidden, Invalid, NotFound, Refusal
from models.ids import public_id, uuid7
from models.tables import (
    Account,
    AuditEntry,
    Contact,
    ContactAddress,
    Conversation,
    ConversationFollower,
    Message,
    Visitor,
)
from services.connections import availability
from services.core import merged_rows
from services.core.unit_of_work import change
from services.messaging import contact_merging, contacts, conversations, inbound, messages, opt_outs, resending
from services.payments import integrity_check
from tests import factories
from tests.services.conftest import Team, counts, kinds_logged
from tests.services.outgoing import replace_vendor, run_job, send

NOW = datetime.now(UTC)


async def person(team: Team, name: str, **addresses: str) -> tuple[Contact, Conversation]:
    """A contact with its conversation and addresses (kind: address)."""
    contact = await factories.contact(team.account, name=name, email=None, phone=None)
    for kind, address in addresses.items():
        await factories.contact_address(contact, kind, address=address)
    return contact, await factories.conversation(contact)


async def merge(team: Team, kept_id: UUID, merged_id: UUID, **more: Any) -> Contact:
    given = {"contact_id": kept_id, "merged_contact_id": merged_id, "idempotency_key": f"merge-{uuid7()}", **more}
    return await contact_merging.merge(
        more.pop("actor", team.agent), **{k: v for k, v in given.items() if k != "actor"}
    )


async def hears(team: Team, kind: str, sender: str, body: str, at: datetime | None = None) -> Message:
    said = InboundMessage(external_id=f"in-{uuid7()}", sender=sender, body=body, occurred_at=at)
    await inbound.store(team.channels[kind], said, datetime.now(UTC))
    return await Message.get(external_id=said.external_id)


async def thread(team: Team, contact: Contact) -> list[str]:
    """The texts of the contact's thread, oldest first."""
    conversation = await Conversation.get(contact_id=contact.id)
    rows = await Message.filter(conversation_id__in=merged_rows.ids_of(conversation)).order_by("seq")
    return [row.body for row in rows]


async def test_record_addresses_and_conversation_are_united_and_nothing_is_overwritten(team: Team) -> None:
    one, talk = await person(team, "Maria Lopez", SMS="+14155550111")
    other, told = await person(team, "Mary L.", SMS="+14155550122", EMAIL="maria@example.com", WEB_CHAT="visitor-9")
    await Contact.filter(id=one.id).update(tags=["vip", "customer"], phone="+14155550111")
    await Contact.filter(id=other.id).update(tags=["customer", "new"], phone="+14155550122", email="maria@example.com")
    older, newer = NOW - timedelta(hours=2), NOW - timedelta(hours=1)
    assert team.agent.user_id is not None
    assert team.owner.user_id is not None
    assert team.viewer.user_id is not None
    await Conversation.filter(id=talk.id).update(
        unread_count=2, draft="Dear Maria", last_activity_at=older, preview="old", closed_at=older,
        assignee_id=team.agent.user_id,
    )  # fmt: skip
    await Conversation.filter(id=told.id).update(
        unread_count=3, draft="Hello Mary", last_activity_at=newer, preview="new", assignee_id=team.owner.user_id
    )
    for conversation in (talk, told):
        await ConversationFollower.create(
            account_id=team.account.id, conversation_id=conversation.id, user_id=team.viewer.user_id
        )
    visitor = await Visitor.create(
        account_id=team.account.id,
        channel_connection_id=team.channels["WEB_CHAT"].id,
        contact_id=other.id,
        token_hash="x" * 64,
        last_seen_at=NOW,
    )
    row = await merge(team, one.id, other.id)
    assert (row.id, row.name, row.phone, row.email) == (one.id, "Maria Lopez", "+14155550111", "maria@example.com")
    assert (row.tags, row.version) == (["vip", "customer", "new"], one.version + 1)
    held = await ContactAddress.filter(contact_id=one.id).order_by("kind", "address")
    assert [(a.kind, a.address, a.in_use) for a in held] == [
        ("EMAIL", "maria@example.com", True),
        ("SMS", "+14155550111", True),
        ("SMS", "+14155550122", False),
        ("WEB_CHAT", "visitor-9", True),
    ]
    now = await Conversation.get(contact_id=one.id)
    assert (now.id, now.unread_count, now.draft) == (talk.id, 5, "Dear Maria\n\nHello Mary")
    assert (now.last_activity_at, now.preview, now.closed_at) == (newer, "new", None)
    assert now.assignee_id == team.agent.user_id
    followers = await ConversationFollower.filter(conversation_id=talk.id)
    assert {f.user_id for f in followers} == {team.viewer.user_id, team.owner.user_id}
    assert await ConversationFollower.filter(conversation_id=told.id).count() == 0
    assert (await Visitor.get(id=visitor.id)).contact_id == one.id
    assert await kinds_logged(team.account.id) == ["contact.merged", "contact.updated", "conversation.updated"]
    (entry,) = await AuditEntry.filter(action="contact.merged")
    assert (entry.subject, entry.detail) == (
        public_id("cnt", one.id),
        {"merged": public_id("cnt", other.id), "fields": ["email", "tags"]},
    )
    assert await integrity_check.audit(team.account.id) == []


async def test_a_name_that_is_only_an_address_gives_way_to_a_name(team: Team) -> None:
    number, _ = await person(team, "+14155550111", SMS="+14155550111")
    named, _ = await person(team, "Maria", EMAIL="maria@example.com")
    assert (await merge(team, number.id, named.id)).name == "Maria"


async def test_one_thread_in_the_order_in_which_it_was_said_and_answered_where_the_person_wrote_last(
    team: Team,
) -> None:
    one, _ = await person(team, "Maria", WHATSAPP="+14155550111")
    other, told = await person(team, "Mary", WHATSAPP="+14155550122", SMS="+14155550122")
    await hears(team, "WHATSAPP", "+14155550111", "first")
    await hears(team, "WHATSAPP", "+14155550122", "second")
    await hears(team, "SMS", "+14155550122", "third")
    await hears(team, "WHATSAPP", "+14155550111", "fourth", at=NOW - timedelta(days=2))
    await merge(team, one.id, other.id)
    assert await thread(team, one) == ["first", "second", "third", "fourth"]
    # By the old id of the conversation, on the channel where the window is open by the merged one's message.
    for body, address in (("fifth", "+14155550122"), ("seventh", "+14155550111")):
        sent = await messages.send_message(
            team.agent, conversation_id=told.id, channel_id=team.channels["WHATSAPP"].id, body=body
        )
        assert (sent.message.address, sent.message.contact_id) == (address, one.id)
        if body == "fifth":
            await hears(team, "WHATSAPP", "+14155550111", "sixth")
            await hears(team, "WHATSAPP", "+14155550122", "late", at=NOW - timedelta(days=3))
    assert await thread(team, one) == ["first", "second", "third", "fourth", "fifth", "sixth", "late", "seventh"]
    assert (await Conversation.get(contact_id=one.id)).preview == "seventh"
    assert await Contact.filter(merged_into_id=None).count() == 2  # Maria, and the team's


async def test_the_caller_chooses_the_address_that_is_used_and_can_change_it_later(team: Team) -> None:
    one, _ = await person(team, "Maria", SMS="+14155550111", EMAIL="maria@example.com")
    other, _ = await person(team, "Mary", SMS="+14155550122")
    with pytest.raises(Invalid) as error:
        await merge(team, one.id, other.id, addresses=[("SMS", team.addresses["SMS"].address)])
    assert error.value.field == ("addresses", "0", "address")
    assert (await Contact.get(id=other.id)).merged_into_id is None
    await merge(team, one.id, other.id, addresses=[("SMS", "(415) 555-0122")])

    async def used() -> str:
        conversation = await Conversation.get(contact_id=one.id)
        found = await availability.address_of(conversation, team.channels["SMS"])
        assert found is not None
        return found.address

    assert await used() == "+14155550122"
    await contacts.update_contact(team.agent, other.id, changes={"addresses": [("SMS", "+14155550111")]})
    assert await used() == "+14155550111"
    assert await ContactAddress.filter(contact_id=one.id, kind="SMS").count() == 2


async def test_pages_of_a_vendor_write_to_their_own_address_of_the_person(team: Team) -> None:
    second = await factories.channel_connection(team.account, "MESSENGER")
    one, talk = await person(team, "Maria", MESSENGER="psid-of-page-1")
    other, _ = await person(team, "Mary", MESSENGER="psid-of-page-2")
    await hears(team, "MESSENGER", "psid-of-page-1", "Hi")
    team.channels["PAGE_2"] = second
    await hears(team, "PAGE_2", "psid-of-page-2", "Hi")
    await merge(team, one.id, other.id)
    conversation = await Conversation.get(id=talk.id)
    for kind, address in (("MESSENGER", "psid-of-page-1"), ("PAGE_2", "psid-of-page-2")):
        sent = await messages.send_message(
            team.agent, conversation_id=conversation.id, channel_id=team.channels[kind].id, body="Hello"
        )
        assert sent.message.address == address


async def test_an_opt_out_stays_with_its_address(team: Team) -> None:
    one, talk = await person(team, "Maria", EMAIL="maria@example.com")
    other, _ = await person(team, "Mary", SMS="+14155550122")
    async with change(team.account.id) as changed:
        await opt_outs.opt_out(changed, team.channels["SMS"].id, "SMS", "+14155550122")
    await merge(team, one.id, other.id)
    with pytest.raises(ContactOptedOut):
        await messages.send_message(
            team.agent, conversation_id=talk.id, channel_id=team.channels["SMS"].id, body="Hello"
        )
    await hears(team, "SMS", "+14155550122", "Hello again")
    async with change(team.account.id) as changed:
        await opt_outs.opt_in(changed, team.channels["SMS"].id, "SMS", "+14155550122")
    await messages.send_message(team.agent, conversation_id=talk.id, channel_id=team.channels["SMS"].id, body="Hello")


async def test_a_message_under_way_goes_to_the_address_that_it_was_written_to(team: Team) -> None:
    one, _ = await person(team, "Maria", SMS="+14155550111")
    waiting = (await send(team, "Are you there?")).message  # to the team's contact
    await hears(team, "SMS", "+14155550111", "It is me")
    await merge(team, one.id, team.contact.id)
    # Maria's own number, the one in use now, is opted out; the message is not for it.
    async with change(team.account.id) as changed:
        await opt_outs.opt_out(changed, team.channels["SMS"].id, "SMS", "+14155550111")
    vendor = replace_vendor(team, "SMS", SendResult(external_id="v-1"))
    await run_job("message.send", waiting.id)
    assert [message.to for message in vendor.sent] == [team.addresses["SMS"].address]
    row = await Message.get(id=waiting.id)
    assert (row.delivery_status, row.conversation_id) == ("SENT", team.conversation.id)
    (updated,) = await db.rows("SELECT * FROM event WHERE kind = 'message.updated'")
    assert db.to_uuid(updated["conversation_id"]) == (await Conversation.get(contact_id=one.id)).id
    assert db.to_uuid(updated["contact_id"]) == one.id


async def test_a_failed_message_of_the_merged_conversation_is_sent_again_once(team: Team) -> None:
    failed = (await send(team, "Hello")).message
    await Message.filter(id=failed.id).update(delivery_status="FAILED")
    one, _ = await person(team, "Maria", EMAIL="maria@example.com")
    await merge(team, one.id, team.contact.id)
    again = await messages.resend_message(
        team.agent, message_id=failed.id, channel_id=team.channels["SMS"].id, idempotency_key="again-key-1"
    )
    assert again.message.retry_of_id == failed.id
    assert [row.id for row in await resending.family_of(failed)] == [again.message.id]
    with pytest.raises(Refusal):
        await messages.resend_message(
            team.agent, message_id=failed.id, channel_id=team.channels["SMS"].id, idempotency_key="again-key-2"
        )


async def test_old_ids_work_in_every_use_case_and_repeats_give_the_kept_contact(team: Team) -> None:
    made = await contacts.create_contact(team.agent, name="Mary", idempotency_key="create-key-1")
    told = await Conversation.get(contact_id=made.id)
    one, talk = await person(team, "Maria", SMS="+14155550111")
    key: dict[str, Any] = {"contact_id": one.id, "merged_contact_id": made.id, "idempotency_key": "merge-key-1"}
    first = await contact_merging.merge(team.agent, **key)
    again = await contact_merging.merge(team.agent, **key)
    assert (first.id, again.id, again.version) == (one.id, one.id, first.version)
    assert (await Account.get(id=team.account.id)).merge_count == 1
    assert (await contacts.create_contact(team.agent, name="Mary", idempotency_key="create-key-1")).id == one.id
    assert (await contacts.update_contact(team.agent, made.id, changes={"name": "Maria Lopez"})).id == one.id
    assert (await conversations.save_draft(team.agent, told.id, "Dear")).id == talk.id
    assert (await conversations.assign(team.agent, told.id, team.agent.user_id)).id == talk.id
    assert (await conversations.close(team.agent, told.id)).id == talk.id
    assert (await conversations.reopen(team.agent, told.id)).id == talk.id
    assert (await conversations.follow(team.agent, told.id, True)).id == talk.id
    assert (await conversations.mark_read(team.agent, told.id)).id == talk.id
    assert (await Conversation.get(id=told.id)).draft is None


async def test_chains_end_at_the_last_and_a_cycle_is_refused(team: Team) -> None:
    people = [await person(team, name, EMAIL=f"{name}@example.com") for name in "abcd"]
    (a, _), (b, _), (c, _), (d, talk) = people
    await merge(team, b.id, a.id)
    await merge(team, c.id, b.id)
    await merge(team, d.id, c.id)
    assert {(await Contact.get(id=one.id)).merged_into_id for one in (a, b, c)} == {d.id}
    last = await Contact.get(id=d.id)
    assert set(merged_rows.ids_of(last)) == {one.id for one, _ in people}
    assert set(merged_rows.ids_of(await Conversation.get(id=talk.id))) == {
        conversation.id for _, conversation in people
    }
    assert await ContactAddress.filter(contact_id=d.id).count() == 4
    for one, other in ((a, d), (d, a), (a, b), (c, c)):
        with pytest.raises(Invalid) as error:
            await merge(team, one.id, other.id)
        assert error.value.field == ("mergedContactId",)
    # An old id may name either side.
    spare, _ = await person(team, "e")
    assert (await merge(team, a.id, spare.id)).id == d.id
    assert (await Account.get(id=team.account.id)).merge_count == 4


async def test_what_may_not_be_merged_is_refused_and_changes_nothing(team: Team) -> None:
    one, _ = await person(team, "Maria")
    foreign = await factories.contact(await factories.account())
    await factories.conversation(foreign)
    for kept_id, merged_id, field in (
        (one.id, foreign.id, "mergedContactId"),
        (foreign.id, one.id, "contactId"),
        (one.id, uuid7(), "mergedContactId"),
    ):
        with pytest.raises(NotFound) as error:
            await merge(team, kept_id, merged_id)
        assert error.value.field == (field,)
    with pytest.raises(NotFound) as both:
        await merge(team, uuid7(), foreign.id)
    assert [refusal.field for refusal in both.value.all] == [("contactId",), ("mergedContactId",)]
    with pytest.raises(Forbidden):
        await merge(team, one.id, team.contact.id, actor=team.viewer)
    assert await Contact.filter(merged_into_id__not_isnull=True).count() == 0
    assert await counts("event", "audit_entry") == {"event": 0, "audit_entry": 0}


async def test_merges_that_cross_end_in_one_contact(team: Team) -> None:
    for n in range(6):
        (a, _), (b, _) = [await person(team, name, EMAIL=f"{name}{n}@example.com") for name in "ab"]
        done = await asyncio.gather(merge(team, a.id, b.id), merge(team, b.id, a.id), return_exceptions=True)
        refused = [one for one in done if isinstance(one, Invalid)]
        merged = [one for one in done if isinstance(one, Contact)]
        assert (len(refused), len(merged)) == (1, 1), done
        last = merged[0]
        assert {(await Contact.get(id=one.id)).merged_into_id for one in (a, b)} == {last.id, None}
        assert await ContactAddress.filter(contact_id=last.id).count() == 2
    # Three in a ring: two merges are made, whichever they are.
    people = [(await person(team, f"r{n}", EMAIL=f"r{n}@example.com"))[0] for n in range(3)]
    ring = [merge(team, people[n].id, people[(n + 1) % 3].id) for n in range(3)]
    ended = await asyncio.gather(*ring, return_exceptions=True)
    assert sorted(type(one).__name__ for one in ended) == ["Contact", "Contact", "Invalid"], ended
    roots = {one.merged_into_id or one.id for one in [await Contact.get(id=one.id) for one in people]}
    assert len(roots) == 1
    assert len(merged_rows.ids_of(await Contact.get(id=roots.pop()))) == 3


async def test_messages_written_during_a_merge_are_in_the_kept_thread(team: Team) -> None:
    for n in range(8):
        number, email = f"+1415555{1000 + n}", f"maria{n}@example.com"
        one, talk = await person(team, "Maria", EMAIL=email)
        other, told = await person(team, "Mary", SMS=number)
        writes: dict[str, Any] = {"conversation_id": told.id, "channel_id": team.channels["SMS"].id}
        done = await asyncio.gather(
            messages.send_message(team.agent, body="from us", **writes),
            merge(team, one.id, other.id),
            hears(team, "SMS", number, "from Mary"),
            hears(team, "EMAIL", email, "from Maria"),
            conversations.save_draft(team.agent, told.id, "unsent"),
            contacts.update_contact(team.agent, other.id, changes={"name": "Mary L."}),
        )
        assert len(done) == 6
        assert sorted(await thread(team, one)) == ["from Maria", "from Mary", "from us"]
        now = await Conversation.get(id=talk.id)
        assert (now.unread_count, (await Conversation.get(id=told.id)).unread_count) == (2, 0)
        # What came after the merge names the kept one only.
        (at,) = await db.rows("SELECT max(seq) AS seq FROM event WHERE kind = 'contact.merged'")
        later = await db.rows("SELECT * FROM event WHERE seq > ?", at["seq"])
        assert {db.to_uuid(e["conversation_id"]) for e in later if e["conversation_id"]} <= {talk.id}
        assert {db.to_uuid(e["contact_id"]) for e in later if e["contact_id"]} <= {one.id}
        assert now.preview in ("from Maria", "from Mary", "from us")
    assert await Message.all().count() == 24
    assert await integrity_check.audit(team.account.id) == []
