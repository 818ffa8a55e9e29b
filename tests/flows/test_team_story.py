"""Three people of one business through the API and its emails, from the invitation to a lowered role."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.contracts.smtp_server import MailServer
from tests.flows import documents as d
from tests.flows import harness, probes
from tests.flows.conftest import Team, new_team
from tests.flows.test_sign_in import closed, subscribed

INVITE = f"mutation($input: InviteUserInput!) {{ inviteUser(input: $input) {{ invitation {{ id email }} link {d.ERRORS} }} }}"
ACCEPT = f"""mutation($input: AcceptInvitationInput!) {{ acceptInvitation(input: $input) {{
  accessToken user {{ id name role }} {d.ERRORS} }} }}"""
FOLLOW = f"mutation($input: FollowConversationInput!) {{ followConversation(input: $input) {{ conversation {{ id }} {d.ERRORS} }} }}"
NOTE = f"mutation($input: AddNoteInput!) {{ addNote(input: $input) {{ note {{ id }} {d.ERRORS} }} }}"
TAG = f"""mutation($input: UpdateConversationTagsInput!) {{ updateConversationTags(input: $input) {{
  conversation {{ tags }} {d.ERRORS} }} }}"""
RULES = f"""mutation($input: UpdateNotificationRulesInput!) {{ updateNotificationRules(input: $input) {{
  notificationRules {{ digest }} {d.ERRORS} }} }}"""
ASK_RESET = f"mutation($input: RequestPasswordResetInput!) {{ requestPasswordReset(input: $input) {{ {d.ERRORS} }} }}"
RESET = f"mutation($input: ResetPasswordInput!) {{ resetPassword(input: $input) {{ {d.ERRORS} }} }}"
UPDATE = f"mutation($input: UpdateUserInput!) {{ updateUser(input: $input) {{ user {{ role }} {d.ERRORS} }} }}"
SIGN_IN = f"mutation($input: SignInInput!) {{ signIn(input: $input) {{ accessToken {d.ERRORS} }} }}"
BELL = "{ notifications(first: 20) { nodes { kind title conversation { id } } } viewer { unreadNotificationCount } }"
WITHIN_S = 5.0


@pytest.fixture
async def mailbox() -> AsyncIterator[MailServer]:
    async with MailServer() as running:
        yield running


@pytest.fixture
async def acme(
    database: str, events_url: str, mailbox: MailServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Team]:
    probes.hash_quickly(monkeypatch)
    mail = {
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": str(mailbox.port),
        "SMTP_SECURITY": "none",
        "SMTP_FROM": "team@acme.test",
    }
    async with harness.in_process(database, events_url, LOGIN_ADDRESS_LIMIT="1000/minute", **mail) as product:
        team = await new_team(product)
        await team.connect_sandbox()
        await team.connect_channels()
        yield team


async def link_token(mailbox: MailServer, address: str, seen: int = 0) -> str:
    """The token in the newest email to this address."""
    async with asyncio.timeout(15):
        while True:
            letters = [letter for letter in mailbox.letters if address in letter.recipients]
            if len(letters) > seen:
                break
            await asyncio.sleep(0.05)
    found = re.search(r"http\S+#(\S+)", letters[-1].text())
    assert found is not None, letters[-1].text()
    return found[1]


async def joined(team: Team, mailbox: MailServer, name: str, role: str) -> tuple[str, str]:
    """Invite a person, who accepts by the emailed link: the user's id and access token."""
    address = f"{name.lower()}@acme.test"
    invited = await team.product.ok(
        INVITE, {"email": address, "role": role, "idempotencyKey": harness.key()}, token=team.owner
    )
    assert (invited["invitation"]["email"], invited["link"]) == (address, None)
    token = await link_token(mailbox, address)
    given = {"token": token, "name": name, "password": f"{name}-long-password"}
    accepted = await team.product.ok(ACCEPT, given)
    assert (accepted["user"]["name"], accepted["user"]["role"]) == (name, role)
    again = await team.product.one(ACCEPT, {"input": given})
    assert [error["code"] for error in again["userErrors"]] != []
    return accepted["user"]["id"], accepted["accessToken"]


async def bell(team: Team, token: str) -> list[tuple[str, str]]:
    answer = await team.product.raw(BELL, token=token)
    return [(one["kind"], one["title"]) for one in answer["data"]["notifications"]["nodes"]]


async def test_three_people_share_an_inbox(acme: Team, mailbox: MailServer) -> None:
    product = acme.product
    ana_id, ana = await joined(acme, mailbox, "Ana", "AGENT")
    ben_id, ben = await joined(acme, mailbox, "Ben", "AGENT")
    maria = await acme.contact()
    talk = {"conversationId": maria["conversation"]["id"]}

    # One is assigned, the other only follows; both hear of the payment, and only once.
    await product.ok(d.ASSIGN, {**talk, "userId": ana_id}, token=acme.owner)
    await product.ok(FOLLOW, {**talk, "following": True}, token=ben)
    async with product.subscribe(d.INBOX, token=ben) as feed:
        assert (await feed.next())["__typename"] == "Subscribed"
        note = {**talk, "body": "Ask her about the keys, Ben", "mentions": [ben_id], "idempotencyKey": harness.key()}
        added = await product.ok(NOTE, note, token=ana)
        event = await feed.until("ThreadItemAdded")
        assert event["edge"]["node"]["id"] == added["note"]["id"]
    tagged = await product.ok(TAG, {**talk, "add": ["keys"]}, token=ana)
    assert tagged["conversation"]["tags"] == ["keys"]
    request = await acme.request(maria)
    await acme.send(request)
    await acme.pay(request)
    async with asyncio.timeout(20):
        while (await acme.read(request))["status"] != "PAID" or len(await bell(acme, ben)) < 2:
            await asyncio.sleep(0.05)
    assert sorted(kind for kind, _ in await bell(acme, ana)) == ["ASSIGNED", "PAYMENT_RECEIVED"]
    assert sorted(kind for kind, _ in await bell(acme, ben)) == ["MENTIONED", "PAYMENT_RECEIVED"]

    # Ben no longer wants payments that he only follows.
    mine = {"rules": [{"topic": "PAYMENTS", "scope": "MINE"}], "digest": "DAILY"}
    assert (await product.ok(RULES, mine, token=ben))["notificationRules"] == {"digest": "DAILY"}
    second = await acme.request(maria)
    await acme.send(second)
    await acme.pay(second)
    async with asyncio.timeout(20):
        while len(await bell(acme, ana)) < 3:
            await asyncio.sleep(0.05)
    assert len(await bell(acme, ben)) == 2

    # Ana forgot her password: the emailed link works once and ends her sessions.
    sent = len([letter for letter in mailbox.letters if "ana@acme.test" in letter.recipients])
    await product.ok(ASK_RESET, {"email": "ana@acme.test"})
    given = {"token": await link_token(mailbox, "ana@acme.test", sent), "password": "a-new-long-password"}
    assert (await product.one(RESET, {"input": given}))["userErrors"] == []
    assert (await product.one(RESET, {"input": given}))["userErrors"] != []
    assert (await product.raw("{ account { id } }", token=ana))["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
    signed_in = await product.ok(SIGN_IN, {"email": "ana@acme.test", "password": "a-new-long-password"})
    ana = signed_in["accessToken"]

    # Her role is lowered while her socket is open.
    async with AsyncExitStack() as stack:
        open_socket = await subscribed(stack, product, ana)
        started = time.monotonic()
        assert (await product.ok(UPDATE, {"userId": ana_id, "role": "VIEWER"}, token=acme.owner))["user"] == {
            "role": "VIEWER"
        }
        assert await closed(open_socket) == 4403
        assert time.monotonic() - started < WITHIN_S
    refused = await product.one(NOTE, {"input": note | {"idempotencyKey": harness.key()}}, token=ana)
    assert [error["code"] for error in refused["userErrors"]] == ["FORBIDDEN"]
    thread = "query($id: ID!) { conversation(id: $id) { thread { nodes { __typename } } } }"
    shown: dict[str, Any] = await product.one(thread, {"id": talk["conversationId"]}, token=ana)
    assert "Note" not in {item["__typename"] for item in shown["thread"]["nodes"]}

    # The business keeps an owner.
    owner_id = (await product.one("{ viewer { user { id } } }", token=acme.owner))["user"]["id"]
    kept = await product.one(UPDATE, {"input": {"userId": owner_id, "role": "AGENT"}}, token=acme.owner)
    assert [error["code"] for error in kept["userErrors"]] == ["LAST_OWNER"]
