"""Contacts and their addresses."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from models.errors import AlreadyUsed, Blank, Forbidden, Invalid, NotFound, Refusal, TooLong
from models.ids import uuid7
from models.tables import AuditEntry, Contact, ContactAddress, Conversation, ConversationFollower
from services.messaging import contacts, conversations
from tests import factories
from tests.services.conftest import Team, actor_of, counts, kinds_logged


async def addresses_of(contact: Contact) -> dict[str, str]:
    return {row.kind: row.address for row in await ContactAddress.filter(contact_id=contact.id)}


async def test_a_contact_has_a_conversation_and_addresses_from_phone_and_email(team: Team) -> None:
    made = await contacts.create_contact(
        team.agent,
        name="  Jonas Weber ",
        email="Jonas@Example.test",
        phone="(415) 555-0134",
        addresses=[("INSTAGRAM_DM", "ig_jonas"), ("WHATSAPP", "+49 30 5550 1234")],
    )
    row = await Contact.get(id=made.id)
    assert (row.name, row.email, row.phone, row.version) == ("Jonas Weber", "jonas@example.test", "+14155550134", 1)
    assert await addresses_of(row) == {
        "SMS": "+14155550134",
        "WHATSAPP": "+493055501234",
        "EMAIL": "jonas@example.test",
        "INSTAGRAM_DM": "ig_jonas",
    }
    thread = await Conversation.get(contact_id=row.id)
    assert (thread.unread_count, thread.preview) == (0, "")
    assert await kinds_logged(team.account.id) == ["contact.updated", "conversation.updated"]
    assert (await AuditEntry.get()).action == "contact.created"


@pytest.mark.parametrize(
    ("given", "refusal", "field"),
    [
        ({"name": " "}, Blank, "name"),
        ({"name": "x" * 121}, TooLong, "name"),
        ({"name": "a\x00b"}, Invalid, "name"),
        ({"email": "nobody"}, Invalid, "email"),
        ({"email": "a@b.c@d.ef"}, Invalid, "email"),
        ({"phone": "call me"}, Invalid, "phone"),
        ({"phone": "123"}, Invalid, "phone"),
        ({"addresses": [("FAX", "1")]}, Invalid, "addresses.0.kind"),
        ({"addresses": [("SMS", "nonsense")]}, Invalid, "addresses.0.address"),
        ({"addresses": [("WEB_CHAT", " ")]}, Blank, "addresses.0.address"),
        ({"addresses": [("WEB_CHAT", "a"), ("WEB_CHAT", "b")]}, Invalid, "addresses.1.kind"),
        ({"addresses": [("MESSENGER", "x" * 255)]}, TooLong, "addresses.0.address"),
    ],
)
async def test_a_bad_contact_is_refused_and_changes_nothing(
    team: Team, given: dict[str, Any], refusal: type[Refusal], field: str
) -> None:
    before = await counts("contact", "contact_address", "conversation", "event", "audit_entry")
    with pytest.raises(refusal) as refused:
        await contacts.create_contact(team.agent, **({"name": "Jonas"} | given))
    assert refused.value.field == tuple(field.split("."))
    assert await counts("contact", "contact_address", "conversation", "event", "audit_entry") == before


async def test_an_address_belongs_to_one_contact_of_the_account(team: Team) -> None:
    taken = team.addresses["SMS"].address
    before = await counts("contact", "contact_address", "event")
    with pytest.raises(AlreadyUsed) as refused:
        await contacts.create_contact(team.agent, name="Double", phone=taken)
    assert refused.value.field == ("phone",)
    assert await counts("contact", "contact_address", "event") == before
    elsewhere = actor_of(await factories.user(await factories.account()))
    await contacts.create_contact(elsewhere, name="Same number, another account", phone=taken)


async def test_of_two_concurrent_contacts_with_one_address_one_is_created(team: Team) -> None:
    answers = await asyncio.gather(
        *(contacts.create_contact(team.agent, name=f"N{n}", email="same@example.test") for n in range(4)),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, Contact) for answer in answers) == 1
    assert sum(isinstance(answer, AlreadyUsed) for answer in answers) == 3
    assert await Contact.filter(email="same@example.test").count() == 1


async def test_an_update_moves_the_addresses_and_the_new_one_starts_afresh(team: Team) -> None:
    made = await contacts.create_contact(team.agent, name="Jonas", phone="+14155550134", email="j@example.test")
    await team.hears("SMS", "STOP", "in-1", sender="+14155550134")
    changed = await contacts.update_contact(
        team.agent, made.id, changes={"phone": "+14155550135", "addresses": [("MESSENGER", "fb_jonas")]}
    )
    assert (changed.phone, changed.email, changed.version) == ("+14155550135", "j@example.test", 2)
    assert await addresses_of(made) == {
        "SMS": "+14155550135",
        "WHATSAPP": "+14155550135",
        "EMAIL": "j@example.test",
        "MESSENGER": "fb_jonas",
    }
    row = await ContactAddress.get(contact_id=made.id, kind="SMS")
    assert (row.opted_out_at, row.last_inbound_at) == (None, None)
    entry = await AuditEntry.get(action="contact.updated")
    assert entry.detail == {"fields": ["MESSENGER", "SMS", "WHATSAPP", "phone"]}


async def test_an_update_that_changes_nothing_is_silent(team: Team) -> None:
    made = await contacts.create_contact(team.agent, name="Jonas", phone="+14155550134")
    before = await counts("event", "audit_entry")
    same = await contacts.update_contact(team.agent, made.id, changes={"name": "Jonas ", "phone": "+1 415 555 0134"})
    assert same.version == 1
    assert await counts("event", "audit_entry") == before


async def test_an_email_may_be_taken_away(team: Team) -> None:
    made = await contacts.create_contact(team.agent, name="Jonas", email="j@example.test")
    assert (await contacts.update_contact(team.agent, made.id, changes={"email": None})).email is None


async def test_another_accounts_contacts_are_not_found_and_viewers_refused(team: Team) -> None:
    stranger = actor_of(await factories.user(await factories.account()))
    for actor, refusal in ((stranger, NotFound), (team.viewer, Forbidden)):
        with pytest.raises(refusal):
            await contacts.update_contact(actor, team.contact.id, changes={"name": "Mine"})
    with pytest.raises(Forbidden):
        await contacts.create_contact(team.viewer, name="Mine")
    with pytest.raises(AlreadyUsed):
        await contacts.update_contact(
            team.agent,
            (await contacts.create_contact(team.agent, name="Other")).id,
            changes={"addresses": [("WEB_CHAT", team.addresses["WEB_CHAT"].address)]},
        )
    assert (await Contact.get(id=team.contact.id)).name == "Maya Torres"


async def test_reading_clears_the_teams_unread_count_once(team: Team) -> None:
    await team.hears("SMS", "one", "in-1")
    await team.hears("SMS", "two", "in-2")
    before = len(await kinds_logged(team.account.id))
    assert (await conversations.mark_read(team.agent, team.conversation.id)).unread_count == 0
    await conversations.mark_read(team.agent, team.conversation.id)
    assert (await kinds_logged(team.account.id))[before:] == ["conversation.updated"]
    assert (await Conversation.get(id=team.conversation.id)).unread_count == 0


async def test_a_conversation_is_assigned_to_users_of_the_account_only(team: Team) -> None:
    assert team.agent.user_id is not None
    row = await conversations.assign(team.owner, team.conversation.id, team.agent.user_id)
    await conversations.assign(team.owner, team.conversation.id, team.agent.user_id)
    assert row.assignee_id == team.agent.user_id
    other_user = await factories.user(await factories.account())
    for user_id in (other_user.id, uuid7()):
        with pytest.raises(NotFound) as refused:
            await conversations.assign(team.owner, team.conversation.id, user_id)
        assert refused.value.field == ("userId",)
    assert (await Conversation.get(id=team.conversation.id)).assignee_id == team.agent.user_id
    assert await kinds_logged(team.account.id) == ["conversation.updated", "notification.created"]
    assert (await conversations.assign(team.owner, team.conversation.id, None)).assignee_id is None


async def test_following_is_a_persons_own_and_can_be_repeated(team: Team) -> None:
    for following, count in ((True, 1), (True, 1), (False, 0), (False, 0)):
        await conversations.follow(team.viewer, team.conversation.id, following)
        assert await ConversationFollower.filter(user_id=team.viewer.user_id).count() == count
    machine = type(team.agent)(
        account_id=team.account.id, role="OWNER", user_id=None, name="Key", kind="api_key", credential=str(uuid7())
    )
    with pytest.raises(Forbidden):
        await conversations.follow(machine, team.conversation.id, True)


async def test_a_draft_is_kept_as_typed_and_cleared_by_blank_text(team: Team) -> None:
    assert (await conversations.save_draft(team.agent, team.conversation.id, " Hel ")).draft == " Hel "
    with pytest.raises(TooLong):
        await conversations.save_draft(team.agent, team.conversation.id, "x" * 10_001)
    assert (await Conversation.get(id=team.conversation.id)).draft == " Hel "
    assert (await conversations.save_draft(team.agent, team.conversation.id, "  ")).draft is None
    assert await kinds_logged(team.account.id) == ["conversation.updated"] * 2


async def test_another_accounts_conversations_are_not_found(team: Team) -> None:
    stranger = actor_of(await factories.user(await factories.account()))
    for call in (
        conversations.mark_read(stranger, team.conversation.id),
        conversations.assign(stranger, team.conversation.id, None),
        conversations.follow(stranger, team.conversation.id, True),
        conversations.save_draft(stranger, team.conversation.id, "x"),
    ):
        with pytest.raises(NotFound) as refused:
            await call
        assert refused.value.field == ("conversationId",)
    for call in (
        conversations.mark_read(team.viewer, team.conversation.id),
        conversations.assign(team.viewer, team.conversation.id, None),
        conversations.save_draft(team.viewer, team.conversation.id, "x"),
    ):
        with pytest.raises(Forbidden):
            await call
    assert await kinds_logged(team.account.id) == []
