"""The team through the API: users are changed and disabled, and their open sockets follow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from models.ids import public_id
from models.tables import AuditEntry, Conversation, User
from services.accounts import authentication, login, users
from services.accounts.sessions import Tokens
from tests.flows import documents as d
from tests.flows import harness, probes
from tests.flows.conftest import Team
from tests.flows.harness import PASSWORD, Product
from tests.flows.test_sign_in import closed, subscribed

UPDATE = f"mutation($input: UpdateUserInput!) {{ updateUser(input: $input) {{ user {{ id name role }} {d.ERRORS} }} }}"
DISABLE = f"mutation($input: DisableUserInput!) {{ disableUser(input: $input) {{ user {{ disabled }} {d.ERRORS} }} }}"
ENABLE = f"mutation($input: EnableUserInput!) {{ enableUser(input: $input) {{ user {{ disabled }} {d.ERRORS} }} }}"
WITHIN_S = 5.0


@pytest.fixture
async def product(database: str, events_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Product]:
    probes.hash_quickly(monkeypatch)
    async with harness.in_process(database, events_url, LOGIN_ADDRESS_LIMIT="1000/minute") as running:
        yield running


async def mate(team: Team, role: str = "AGENT") -> tuple[User, Tokens]:
    """A further user, signed in."""
    owner = await authentication.authenticate(team.owner)
    assert owner is not None
    email = f"nora-{harness.key()}@example.com"
    user = await users.add(owner, email=email, name="Nora", role=role, password=PASSWORD)
    return user, await login.sign_in(email, PASSWORD, client_address=None)


async def ask(team: Team, document: str, input: dict[str, Any], token: str | None = None) -> Any:
    return await team.product.one(document, {"input": input}, token=token or team.owner)


async def eventually(check: Any) -> None:
    async with asyncio.timeout(10):
        while not await check():
            await asyncio.sleep(0.05)


async def test_a_lowered_role_ends_the_socket_within_five_seconds_and_holds_after_reconnecting(bare: Team) -> None:
    user, tokens = await mate(bare)
    async with AsyncExitStack() as stack:
        theirs = await subscribed(stack, bare.product, tokens.access_token)
        own = await subscribed(stack, bare.product, bare.owner)
        started = time.monotonic()
        changed = await ask(bare, UPDATE, {"userId": public_id("usr", user.id), "role": "VIEWER", "name": "Nora B."})
        assert (changed["user"]["role"], changed["user"]["name"], changed["userErrors"]) == ("VIEWER", "Nora B.", [])
        assert await closed(theirs) == 4403
        assert time.monotonic() - started < WITHIN_S
        again = await subscribed(stack, bare.product, tokens.access_token)
        await again.send('{"type":"ping"}')
        assert own.close_code is None
    refused = await bare.product.one(d.CREATE_CONTACT, {"input": {"name": "Zoe"}}, token=tokens.access_token)
    assert [e["code"] for e in refused["userErrors"]] == ["FORBIDDEN"]


async def test_disabling_ends_sockets_and_tokens_and_frees_the_conversations(bare: Team) -> None:
    user, tokens = await mate(bare)
    contact = await bare.contact("Maria")
    conversation = contact["conversation"]["id"]
    given = {"conversationId": conversation, "userId": public_id("usr", user.id)}
    await bare.product.ok(d.ASSIGN, given, token=bare.owner)
    async with AsyncExitStack() as stack:
        theirs = await subscribed(stack, bare.product, tokens.access_token)
        started = time.monotonic()
        assert (await ask(bare, DISABLE, {"userId": given["userId"]}))["user"] == {"disabled": True}
        assert await closed(theirs) == 4403
        assert time.monotonic() - started < WITHIN_S
    answer = await bare.product.raw("{ account { name } }", token=tokens.access_token)
    assert answer["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"

    async def free() -> bool:
        return (await Conversation.get(id=probes.row_id(conversation))).assignee_id is None

    await eventually(free)
    refused = await bare.product.one(d.ASSIGN, {"input": given}, token=bare.owner)
    assert [e["code"] for e in refused["userErrors"]] == ["NOT_FOUND"]
    assert (await ask(bare, ENABLE, {"userId": given["userId"]}))["user"] == {"disabled": False}
    entries = await AuditEntry.filter(subject=given["userId"]).order_by("id")
    assert [entry.action for entry in entries] == ["user.created", "user.disabled", "user.enabled"]


async def test_an_open_settings_page_sees_changed_users(bare: Team) -> None:
    user, _ = await mate(bare)
    document = (
        "subscription { inboxEvents { __typename ... on Event { cursor } ... on AccountUpdated { account { id } } } }"
    )
    async with bare.product.subscribe(document, token=bare.owner) as feed:
        assert (await feed.next())["__typename"] == "Subscribed"
        await ask(bare, UPDATE, {"userId": public_id("usr", user.id), "name": "Nora C."})
        assert (await feed.next())["__typename"] == "AccountUpdated"


async def test_an_admin_invites_an_agent_who_accepts_and_works(bare: Team) -> None:
    _, admin = await mate(bare, "ADMIN")
    email = f"cem-{harness.key()}@example.com"
    document = f"mutation($input: InviteUserInput!) {{ inviteUser(input: $input) {{ link invitation {{ status }} {d.ERRORS} }} }}"
    refused = await ask(bare, document, {"email": email, "role": "OWNER"}, admin.access_token)
    assert [(e["code"], e["field"]) for e in refused["userErrors"]] == [("FORBIDDEN", ["input", "role"])]
    invited = await ask(bare, document, {"email": email, "role": "AGENT"}, admin.access_token)
    assert (invited["invitation"]["status"], invited["userErrors"]) == ("OPEN", [])
    assert invited["link"].startswith(f"{bare.product.base_url}/join#")
    accept = f"""mutation($input: AcceptInvitationInput!) {{ acceptInvitation(input: $input) {{
      accessToken user {{ email name role }} {d.ERRORS} }} }}"""
    given = {"input": {"token": invited["link"].partition("#")[2], "name": "Cem", "password": PASSWORD}}
    async with bare.product.subscribe(d.NOTIFICATION_EVENTS, token=bare.owner) as feed:
        assert (await feed.next())["__typename"] == "Subscribed"
        session = (await bare.product.raw(accept, given))["data"]["acceptInvitation"]
        assert session["user"] == {"email": email, "name": "Cem", "role": "AGENT"}
        assert (await feed.next())["__typename"] == "NotificationAdded"
    again = (await bare.product.raw(accept, given))["data"]["acceptInvitation"]
    assert ([e["code"] for e in again["userErrors"]], again["accessToken"]) == (["LINK_INVALID"], None)
    made = await bare.product.one(d.CREATE_CONTACT, {"input": {"name": "Zoe"}}, token=session["accessToken"])
    assert made["userErrors"] == []
    listed = "{ account { invitations(first: 1) { totalCount nodes { status user { name } invitedBy { name } } } } }"
    shown = (await bare.product.one(listed, token=bare.owner))["invitations"]
    assert shown["nodes"] == [{"status": "ACCEPTED", "user": {"name": "Cem"}, "invitedBy": {"name": "Nora"}}]
    assert shown["totalCount"] == 1


async def test_the_last_owner_stays_also_when_two_owners_remove_each_other(bare: Team) -> None:
    second, tokens = await mate(bare, "OWNER")
    first = (await bare.product.one("{ viewer { user { id } } }", token=bare.owner))["user"]["id"]
    # The later request may already be FORBIDDEN or UNAUTHENTICATED; tests/services/accounts/test_users.py sees the rule itself.
    await asyncio.gather(
        bare.product.raw(DISABLE, {"input": {"userId": public_id("usr", second.id)}}, token=bare.owner),
        bare.product.raw(UPDATE, {"input": {"userId": first, "role": "AGENT"}}, token=tokens.access_token),
    )
    assert await User.filter(account_id=second.account_id, role="OWNER", disabled_at=None).count() == 1


SESSIONS = "{ viewer { id sessions { id device network current } } }"
REVOKE = f"mutation($input: RevokeSessionInput!) {{ revokeSession(input: $input) {{ sessionId {d.ERRORS} }} }}"


async def test_a_person_sees_the_own_sign_ins_and_ends_one_with_its_sockets(bare: Team) -> None:
    product = bare.product
    user, tokens = await mate(bare)
    headers = {"User-Agent": "Mozilla/5.0 (Windows NT 10.0) Gecko/20100101 Firefox/140.0", "Accept": "application/json"}
    given = {"input": {"email": user.email, "password": PASSWORD}}
    document = "mutation($input: SignInInput!) { signIn(input: $input) { accessToken } }"
    answer = await product.http.post("/graphql", json={"query": document, "variables": given}, headers=headers)
    laptop = answer.json()["data"]["signIn"]["accessToken"]
    shown = (await product.one(SESSIONS, token=laptop))["sessions"]
    assert [(one["device"], one["network"], one["current"]) for one in shown] == [
        ("Firefox on Windows", "127.0.0.0/24", True),
        (None, None, False),
    ]
    async with AsyncExitStack() as stack:
        here = await subscribed(stack, product, laptop)
        there = await subscribed(stack, product, tokens.access_token)
        started = time.monotonic()
        ended = await ask(bare, REVOKE, {"sessionId": shown[1]["id"]}, laptop)
        assert (ended["sessionId"], ended["userErrors"]) == (shown[1]["id"], [])
        assert await closed(there) == 4403
        assert time.monotonic() - started < WITHIN_S
        assert here.close_code is None
    assert [one["id"] for one in (await product.one(SESSIONS, token=laptop))["sessions"]] == [shown[0]["id"]]


async def test_a_password_change_ends_the_sockets_of_the_other_sign_ins_only(bare: Team) -> None:
    user, other = await mate(bare)
    mine = await login.sign_in(user.email, PASSWORD, client_address=None)
    document = (
        f"mutation($input: ChangePasswordInput!) {{ changePassword(input: $input) {{ user {{ id }} {d.ERRORS} }} }}"
    )
    async with AsyncExitStack() as stack:
        here = await subscribed(stack, bare.product, mine.access_token)
        there = await subscribed(stack, bare.product, other.access_token)
        changed = await ask(
            bare, document, {"currentPassword": PASSWORD, "newPassword": "another-long-one"}, mine.access_token
        )
        assert changed["userErrors"] == []
        assert await closed(there) == 4403
        assert here.close_code is None
    assert (await bare.product.one("{ account { name } }", token=mine.access_token))["name"]
