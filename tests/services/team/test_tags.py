"""Tags of contacts and conversations: added and removed without losing a colleague's change."""

from __future__ import annotations

import asyncio

import pytest

from models.errors import Blank, Forbidden, Invalid, NotFound, Refusal, TooLong
from models.ids import uuid7
from models.tables import Contact, Conversation
from services.messaging import contact_merging
from services.team import tags
from tests import factories
from tests.services.conftest import Team, kinds_logged


async def test_tags_keep_their_order_and_first_spelling(team: Team) -> None:
    row = await tags.update_of_conversation(team.agent, team.conversation.id, add=["VIP", " late   payer "], remove=[])
    assert row.tags == ["VIP", "late payer"]
    row = await tags.update_of_conversation(
        team.agent, team.conversation.id, add=["vip", "new"], remove=["LATE payer", "x"]
    )
    assert row.tags == (await Conversation.get(id=team.conversation.id)).tags == ["VIP", "new"]
    assert await kinds_logged(team.account.id) == ["account.updated", "conversation.updated"] * 2
    await tags.update_of_conversation(team.agent, team.conversation.id, add=["new"], remove=["gone"])
    assert len(await kinds_logged(team.account.id)) == 4
    await tags.update_of_conversation(team.agent, team.conversation.id, add=[], remove=["new"])
    assert (await kinds_logged(team.account.id))[4:] == ["conversation.updated"]  # the account knows the tag
    assert await tags.listed(team.account.id) == ["VIP", "late payer", "new", "vip"]


async def test_a_contacts_tags_raise_its_version(team: Team) -> None:
    before = await Contact.get(id=team.contact.id)
    row = await tags.update_of_contact(team.agent, team.contact.id, add=["customer", "VIP"], remove=[])
    assert (row.tags, row.version) == (["customer", "VIP"], before.version + 1)
    assert await kinds_logged(team.account.id) == ["account.updated", "contact.updated"]


async def test_concurrent_changes_lose_no_tag(team: Team) -> None:
    await asyncio.gather(
        *(tags.update_of_contact(team.agent, team.contact.id, add=[f"tag {n}"], remove=[]) for n in range(8))
    )
    assert len((await Contact.get(id=team.contact.id)).tags) == 8


@pytest.mark.parametrize(
    ("add", "error"),
    [([" "], Blank), (["x" * 51], TooLong), (["a\x00b"], Invalid), ([str(n) for n in range(51)], Invalid)],
    ids=["blank", "long", "NUL", "too many"],
)
async def test_what_is_no_tag_is_refused_and_changes_nothing(team: Team, add: list[str], error: type[Refusal]) -> None:
    for update, id in (
        (tags.update_of_conversation, team.conversation.id),
        (tags.update_of_contact, team.contact.id),
    ):
        with pytest.raises(error) as refused:
            await update(team.agent, id, add=["good", *add], remove=[])
        assert refused.value.field == (("add",) if len(add) > 1 else ("add", "1"))
        with pytest.raises(NotFound):
            await update(team.agent, uuid7(), add=["good"], remove=[])
        with pytest.raises(Forbidden):
            await update(team.viewer, id, add=["good"], remove=[])
    assert await tags.listed(team.account.id) == await kinds_logged(team.account.id) == []


async def test_a_list_of_many_spellings_is_refused_before_any_statement(team: Team) -> None:
    name = "abcdefghij"
    spellings = ["".join(c.upper() if n >> i & 1 else c for i, c in enumerate(name)) for n in range(1024)]
    for given in ({"add": spellings, "remove": []}, {"add": [], "remove": [" "] * 10_000}):
        for update, id in (
            (tags.update_of_conversation, team.conversation.id),
            (tags.update_of_contact, team.contact.id),
        ):
            with pytest.raises(Invalid) as refused:
                await update(team.agent, id, **given)
            assert len(refused.value.all) == 1
            assert refused.value.field == ("add" if given["add"] else "remove",)
    assert await tags.listed(team.account.id) == []


async def test_more_tags_than_allowed_can_be_taken_off_one_by_one(team: Team) -> None:
    many = [f"tag {n}" for n in range(tags.MOST + 30)]  # after a merge
    await Conversation.filter(id=team.conversation.id).update(tags=many)
    row = await tags.update_of_conversation(team.agent, team.conversation.id, add=[], remove=["tag 0"])
    assert row.tags == many[1:]
    with pytest.raises(Invalid):
        await tags.update_of_conversation(team.agent, team.conversation.id, add=["more"], remove=["tag 1"])


async def test_a_merge_unites_the_tags_of_both(team: Team) -> None:
    other = await factories.contact(team.account, email=None, phone=None)
    talk = await factories.conversation(other)
    for update, ids in (
        (tags.update_of_conversation, (team.conversation.id, talk.id)),
        (tags.update_of_contact, (team.contact.id, other.id)),
    ):
        for id, names in zip(ids, (["VIP"], ["vip", "new"]), strict=True):
            await update(team.agent, id, add=names, remove=[])
    kept = await contact_merging.merge(
        team.agent,
        contact_id=team.contact.id,
        merged_contact_id=other.id,
        addresses=[],
        idempotency_key=str(uuid7()),
    )
    assert kept.tags == (await Conversation.get(id=team.conversation.id)).tags == ["VIP", "new"]
