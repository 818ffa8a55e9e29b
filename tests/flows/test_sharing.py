"""Shared execution on the real schema: many viewers of one role get the same events; what depends on the person is never shared."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack

from services.accounts import authentication, users
from tests.flows import documents as d
from tests.flows import harness
from tests.flows.conftest import Team, opened
from tests.flows.harness import PASSWORD, Feed

JOINS = 18  # a token may have 20 sockets


async def colleague(team: Team, role: str) -> str:
    owner = await authentication.authenticate(team.owner)
    assert owner is not None
    email = f"{role.lower()}-{harness.key()}@example.com"
    await users.add(owner, email=email, name=role.title(), role=role, password=PASSWORD)
    return await team.product.sign_in(email)


async def test_viewers_of_one_role_see_the_same_events_and_other_roles_their_own(team: Team) -> None:
    maria = await team.contact()
    request = await team.request(maria)
    tokens = [team.agent, await colleague(team, "AGENT"), await colleague(team, "VIEWER"), team.owner]
    actions = d.INBOX.replace(" amountPaid {", " availableActions { action } amountPaid {")
    assert actions != d.INBOX
    async with AsyncExitStack() as stack:
        feeds: list[Feed] = []
        for token in tokens * 2:
            feed = await stack.enter_async_context(team.product.subscribe(actions, token=token))
            feeds.append(await opened(feed))
        await team.send(request)
        await team.pay(request)
        for feed in feeds:
            await team.until_paid(feed, request)
        seen = [json.dumps(feed.seen[1:], sort_keys=True) for feed in feeds]
    agent, second_agent, viewer, owner = seen[:4]
    assert agent == second_agent == seen[4] == seen[5]
    assert viewer == seen[6]
    assert owner == seen[7]
    assert '"action": "VOID"' in agent
    assert '"action"' not in viewer


async def test_a_field_that_depends_on_the_person_is_answered_per_person(team: Team) -> None:
    maria = await team.contact()
    second = await colleague(team, "AGENT")
    async with (
        team.product.subscribe(d.FOLLOWING, token=team.agent) as mine,
        team.product.subscribe(d.FOLLOWING, token=second) as theirs,
    ):
        await opened(mine)
        await opened(theirs)
        await team.product.ok(
            d.FOLLOW, {"conversationId": maria["conversation"]["id"], "following": True}, token=team.agent
        )
        await team.product.ok(
            d.ASSIGN,
            {"conversationId": maria["conversation"]["id"], "userId": (await me(team, team.agent))},
            token=team.agent,
        )
        assert (await mine.until("ConversationUpdated"))["conversation"]["following"] is True
        assert (await theirs.until("ConversationUpdated"))["conversation"]["following"] is False


async def me(team: Team, token: str) -> str:
    viewer = await team.product.one("{ viewer { user { id } } }", token=token)
    return str(viewer["user"]["id"])


async def test_joining_in_the_middle_of_events_misses_nothing(team: Team) -> None:
    maria = await team.contact()
    cursor = (await team.product.one(d.CONVERSATIONS))["eventCursor"]
    requests = [await team.request(maria) for _ in range(6)]

    async def watch(n: int) -> list[str]:
        await asyncio.sleep(n * 0.02)
        async with team.inbox(after=cursor) as feed:
            await opened(feed)
            await feed.until(
                "PaymentRequestUpdated", within=30, paymentRequest__id=requests[-1]["id"], paymentRequest__status="PAID"
            )
            return [event["cursor"] for event in feed.seen[1:]]

    async def work() -> None:
        for request in requests:
            await team.send(request)
            await team.pay(request)

    working = asyncio.create_task(work())
    seen = await asyncio.gather(*(watch(n) for n in range(JOINS)))
    await working
    longest = max(seen, key=len)
    for cursors in seen:
        assert cursors == longest[: len(cursors)]
        assert len(set(cursors)) == len(cursors)
