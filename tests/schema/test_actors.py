"""Who caused something: what each viewer sees of users, API keys, contacts and the system, also on rows of older versions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from models import tables
from models.ids import public_id, uuid7
from resolvers.assemble import SHARING
from services.accounts import api_keys
from services.core.actors import LIMIT, PAYTHREAD, ActorRef, parse
from services.core.permissions import Actor
from tests import factories
from tests.schema.conftest import Api, statements
from tests.services.conftest import Team

BY = """__typename ... on User { id name } ... on ApiKey { id name } ... on Contact { id name } ... on SystemActor { name }"""
THREAD = f"""query($id: ID!) {{ conversation(id: $id) {{ thread {{ nodes {{ ... on Message {{ body author {{ {BY} }} }}
  ... on ActivityCard {{ kind actor {{ {BY} }} }} }} }} }} }}"""
REQUEST = f"""query($id: ID!) {{ paymentRequest(id: $id) {{ createdBy {{ {BY} }} voidedBy {{ {BY} }}
  payments {{ recordedBy {{ {BY} }} }} }} }}"""
KEY = "query($id: ID!) { paymentRequest(id: $id) { createdBy { ... on ApiKey { %s } } } }"
HIDDEN = "role hint createdAt lastUsedAt revokedAt expiresAt managesKeys"


def system(name: str) -> dict[str, str]:
    return {"__typename": "SystemActor", "name": name}


def user(of: Actor) -> dict[str, str]:
    assert of.user_id is not None
    return {"__typename": "User", "id": public_id("usr", of.user_id), "name": of.name}


def contact(of: tables.Contact) -> dict[str, str]:
    return {"__typename": "Contact", "id": public_id("cnt", of.id), "name": of.name}


async def a_program(team: Team, *, role: str = "AGENT", manages_keys: bool = False) -> Actor:
    made, _ = await api_keys.create(team.owner, name="Shop", role=role, manages_keys=manages_keys)
    return Actor(
        account_id=team.account.id,
        role=role,
        user_id=None,
        name="Shop",
        kind="api_key",
        credential=str(made.id),
        manages_keys=manages_keys,
    )


@pytest.mark.parametrize(
    "ref",
    [
        ActorRef("USER", uuid7()),
        ActorRef("API_KEY", uuid7()),
        ActorRef("CONTACT", uuid7()),
        ActorRef("PROCESSOR", name="Stripe: Europe"),
        ActorRef("CHANNEL", name="key_not a key"),
        PAYTHREAD,
    ],
)
def test_an_actor_is_read_as_it_was_stored(ref: ActorRef) -> None:
    assert parse(ref.stored()) == ref
    assert len(ActorRef("PROCESSOR", name="n" * 500).stored()) == LIMIT


async def test_the_authors_of_a_thread(team: Team, api: Api) -> None:
    program = await a_program(team)
    conversation, sent = team.conversation, {"direction": "OUTBOUND"}
    await factories.message(conversation, body="from the contact")
    await factories.message(conversation, **sent, body="user", author=team.agent.ref.stored(), author_name="Agent")
    await factories.message(conversation, **sent, body="key", author=program.ref.stored(), author_name="Shop")
    await factories.message(conversation, **sent, body="inbox", author="channel:Meta inbox", author_name="Meta inbox")
    await factories.message(conversation, **sent, body="old user", author_id=team.owner.user_id, author_name="Was")
    await factories.message(conversation, **sent, body="old key", author_name="Old shop")
    await factories.message(conversation, **sent, body="unknown")
    found = await api.one(THREAD, {"id": public_id("cnv", conversation.id)}, viewer=team.viewer)
    key = {"__typename": "ApiKey", "id": public_id("key", parse(program.ref.stored()).id or uuid7()), "name": "Shop"}
    assert {one["body"]: one["author"] for one in found["thread"]["nodes"]} == {
        "from the contact": contact(team.contact),
        "user": user(team.agent),
        "key": key,
        "inbox": system("Meta inbox"),
        "old user": user(team.owner),
        "old key": system("Old shop"),
        "unknown": system("Unknown"),
    }


async def test_the_actors_of_cards(team: Team, api: Api) -> None:
    request = await factories.payment_request(team.contact)
    await factories.activity_card(request, "PAYMENT_REQUEST", actor_id=team.agent.user_id)
    await factories.activity_card(request, "PAYMENT_FAILED", actor=ActorRef("CONTACT", team.contact.id).stored())
    await factories.activity_card(request, "DISPUTE_OPENED", actor="processor:Stripe")
    await factories.activity_card(request, "REFUND_FAILED", actor=ActorRef("USER", uuid7()).stored())
    await factories.activity_card(request, "LATE_PAYMENT")
    found = await api.one(THREAD, {"id": public_id("cnv", team.conversation.id)}, viewer=team.viewer)
    assert {one["kind"]: one["actor"] for one in found["thread"]["nodes"]} == {
        "PAYMENT_REQUEST": user(team.agent),
        "PAYMENT_FAILED": contact(team.contact),
        "DISPUTE_OPENED": system("Stripe"),
        "REFUND_FAILED": system("Unknown"),
        "LATE_PAYMENT": None,
    }


async def test_the_actors_of_a_request_and_its_money(team: Team, api: Api) -> None:
    program, now = await a_program(team), datetime.now(UTC)
    new = await factories.payment_request(
        team.contact,
        created_by=program.ref.stored(),
        created_by_id=team.agent.user_id,  # the stored actor wins
        void_requested_by=team.owner.ref.stored(),
        void_requested_at=now,
    )
    await factories.money_fact(new, processor_connection_id=team.processor.id)
    await factories.money_fact(new, processor_connection_id=None, recorded_by=team.agent.ref.stored())
    old = await factories.payment_request(team.contact, void_requested_at=now)
    await factories.money_fact(old, processor_connection_id=None)
    mine = await factories.payment_request(team.contact, created_by_id=team.agent.user_id)
    found = [await api.one(REQUEST, {"id": public_id("pr", one.id)}, viewer=team.viewer) for one in (new, old, mine)]
    key = {"__typename": "ApiKey", "id": public_id("key", parse(program.ref.stored()).id or uuid7()), "name": "Shop"}
    assert found == [
        {
            "createdBy": key,
            "voidedBy": user(team.owner),
            "payments": [{"recordedBy": None}, {"recordedBy": user(team.agent)}],
        },
        {
            "createdBy": system("API key"),
            "voidedBy": system("API key"),
            "payments": [{"recordedBy": system("API key")}],
        },
        {"createdBy": user(team.agent), "voidedBy": None, "payments": []},
    ]


async def test_a_disabled_user_and_a_revoked_key_still_show(team: Team, api: Api) -> None:
    program = await a_program(team)
    request = await factories.payment_request(
        team.contact, created_by=program.ref.stored(), void_requested_at=datetime.now(UTC),
        void_requested_by=team.agent.ref.stored(),
    )  # fmt: skip
    await api_keys.revoke(team.owner, parse(program.ref.stored()).id or uuid7())
    await tables.User.filter(id=team.agent.user_id).update(disabled_at=datetime.now(UTC))
    found = await api.one(REQUEST, {"id": public_id("pr", request.id)}, viewer=team.owner)
    assert (found["createdBy"]["name"], found["voidedBy"]["name"]) == ("Shop", "Agent")


async def test_who_may_not_manage_keys_sees_a_keys_name_only(team: Team, api: Api) -> None:
    program = await a_program(team)
    request = await factories.payment_request(team.contact, created_by=program.ref.stored())
    variables = {"id": public_id("pr", request.id)}
    strong, weak = await a_program(team, role="OWNER", manages_keys=True), await a_program(team, role="OWNER")
    for viewer, sees in ((team.owner, True), (strong, True), (weak, False), (team.agent, False), (team.viewer, False)):
        named = await api.one(KEY % "name", variables, viewer=viewer)
        assert named["createdBy"] == {"name": "Shop"}
        found: dict[str, Any] = (await api.one(KEY % HIDDEN, variables, viewer=viewer))["createdBy"]
        if sees:
            assert (found["role"], found["managesKeys"], len(found["hint"])) == ("AGENT", False, 4)
        else:
            assert set(found.values()) == {None}


async def test_a_merged_contact_acts_as_the_one_that_is_kept(team: Team, api: Api) -> None:
    merged = await factories.contact(team.account, name="Twin", merged_into_id=team.contact.id)
    request = await factories.payment_request(team.contact)
    await factories.activity_card(request, actor=ActorRef("CONTACT", merged.id).stored())
    found = await api.one(THREAD, {"id": public_id("cnv", team.conversation.id)})
    assert [one["actor"] for one in found["thread"]["nodes"]] == [contact(team.contact)]


async def test_another_accounts_user_is_never_read(team: Team, api: Api) -> None:
    other = await factories.user(await factories.account(name="Other"), name="Their owner")
    request = await factories.payment_request(team.contact, created_by=ActorRef("USER", other.id).stored())
    found = await api.one(REQUEST, {"id": public_id("pr", request.id)})
    assert found["createdBy"] == system("Unknown")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_many_actors_take_one_statement_a_kind(team: Team, api: Api) -> None:
    request = await factories.payment_request(team.contact)
    for n in range(40):
        one = await factories.user(team.account, name=f"User {n}")
        await factories.activity_card(request, "PAYMENT_FAILED", actor=ActorRef("USER", one.id).stored())
        await factories.message(team.conversation)
    async with statements() as seen:
        found = await api.one(THREAD, {"id": public_id("cnv", team.conversation.id)})
    assert len({str(one.get("actor")) for one in found["thread"]["nodes"]}) > 20
    assert len([sql for sql in seen if "user_account" in sql]) == 1
    assert len([sql for sql in seen if "FROM contact" in sql]) == 1


async def test_viewers_share_events_only_if_they_see_the_same_of_keys(team: Team) -> None:
    strong, weak = await a_program(team, role="OWNER", manages_keys=True), await a_program(team, role="OWNER")
    assert SHARING.scope(strong) != SHARING.scope(weak)
    assert SHARING.scope(weak) == SHARING.scope(await a_program(team, role="OWNER"))
