"""Saved views through the API, and their live feeds on shared sockets."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.flows import documents as d
from tests.flows import harness, probes
from tests.flows.conftest import Team, opened
from tests.flows.harness import Feed, GraphQLFailed
from tests.flows.test_sharing import colleague, me

CREATE = (
    f"mutation($input: CreateViewInput!) {{ createView(input: $input) {{ view {{ __typename id name }} {d.ERRORS} }} }}"
)
UPDATE = f"mutation($input: UpdateViewInput!) {{ updateView(input: $input) {{ view {{ id name }} {d.ERRORS} }} }}"
DELETE = f"mutation($input: DeleteViewInput!) {{ deleteView(input: $input) {{ deletedViewId {d.ERRORS} }} }}"
TOTALS = (
    "... on PaymentRequestView { totals { currency testMode count amount { minorUnits } amountDue { minorUnits } } }"
)
VIEW = f"""query($id: ID!) {{ node(id: $id) {{ ... on View {{
  id name filter orderBy {{ field direction }} totalCount eventCursor owner {{ id }} {TOTALS}
  ... on PaymentRequestView {{ items(first: 50) {{ edges {{ cursor node {{ id status }} }} }} }}
  ... on ConversationView {{ items(first: 50) {{ edges {{ cursor node {{ id unreadCount }} }} }} }} }} }} }}"""
EDGES = "edge { cursor node { id status } } conversationEdge { cursor node { id unreadCount } }"
EVENTS = f"""subscription($id: ID!, $after: Cursor) {{ viewEvents(viewId: $id, after: $after) {{
  __typename ... on Event {{ cursor }} ... on ResyncRequired {{ reason }}
  ... on ViewItemEntered {{ view {{ id }} afterCursor {EDGES} }}
  ... on ViewItemMoved {{ view {{ id }} afterCursor {EDGES} }}
  ... on ViewItemLeft {{ id view {{ id totalCount }} }}
  ... on ViewChanged {{ view {{ id name totalCount {TOTALS} }} }} }} }}"""
UNPAID = {"paymentRequests": {"filter": {"not": {"status": ["PAID", "VOID"]}}}}
UNREAD = {"conversations": {"filter": {"unread": True}, "orderBy": {"field": "CREATED_AT", "direction": "ASC"}}}


async def create(team: Team, listed: dict[str, Any], *, shared: bool = True, token: str | None = None) -> str:
    given = {"name": "Mine", "list": listed, "shared": shared}
    payload = await team.product.ok(CREATE, given, token=token or team.owner)
    id: str = payload["view"]["id"]
    return id


async def read(team: Team, id: str, token: str | None = None) -> Any:
    return await team.product.one(VIEW, {"id": id}, token=token)


class Screen:
    """A client that keeps a view's edges by its events."""

    def __init__(self, view: dict[str, Any]) -> None:
        self.edges = list(view["items"]["edges"])
        self.total = view["totalCount"]
        self.cursor = view["eventCursor"]

    def take(self, event: dict[str, Any]) -> None:
        self.cursor = event["cursor"]
        if event["__typename"] in ("ViewItemEntered", "ViewItemMoved"):
            edge = event["edge"] or event["conversationEdge"]
            self._remove(edge["node"]["id"])
            cursors = [one["cursor"] for one in self.edges]
            place = cursors.index(event["afterCursor"]) + 1 if event["afterCursor"] is not None else 0
            self.edges.insert(place, edge)
        elif event["__typename"] == "ViewItemLeft":
            self._remove(event["id"])
        elif event["__typename"] == "ViewChanged":
            self.total = event["view"]["totalCount"]

    def _remove(self, id: str) -> None:
        self.edges = [edge for edge in self.edges if edge["node"]["id"] != id]

    async def follow(self, feed: Feed, *, until: str) -> dict[str, Any]:
        while True:
            event = await feed.next()
            self.take(event)
            if event["__typename"] == until:
                return event

    async def settled(self, team: Team, feed: Feed, id: str, token: str | None = None) -> None:
        """Follow until it shows what a query shows."""
        async with asyncio.timeout(10):
            while True:
                fresh = await read(team, id, token)
                if self.edges == fresh["items"]["edges"] and self.total == fresh["totalCount"]:
                    return
                self.take(await feed.next())


async def test_items_enter_move_and_leave(team: Team) -> None:
    maria = await team.contact()
    first = await team.request(maria)
    id = await create(team, UNPAID)
    view = await read(team, id)
    assert view["filter"] == {"not": {"status": ["PAID", "VOID"]}}
    assert view["orderBy"] == {"field": "CREATED_AT", "direction": "DESC"}
    assert [edge["node"]["id"] for edge in view["items"]["edges"]] == [first["id"]]
    assert (view["totalCount"], view["owner"]) == (1, None)
    screen = Screen(view)
    async with team.product.subscribe(EVENTS, {"id": id, "after": screen.cursor}) as feed:
        await opened(feed)
        second = await team.request(maria, amount={"amount": "30.00"})
        entered = await screen.follow(feed, until="ViewItemEntered")
        assert (entered["edge"]["node"]["id"], entered["afterCursor"]) == (second["id"], None)
        await team.send(first)
        moved = await screen.follow(feed, until="ViewItemMoved")
        while moved["edge"]["node"]["status"] != "SENT":
            moved = await screen.follow(feed, until="ViewItemMoved")
        assert (moved["edge"]["node"]["id"], moved["afterCursor"]) == (first["id"], entered["edge"]["cursor"])
        await team.pay(first)
        left = await screen.follow(feed, until="ViewItemLeft")
        assert (left["id"], left["view"]) == (first["id"], {"id": id, "totalCount": 1})
        changed = await screen.follow(feed, until="ViewChanged")
        while changed["view"]["totalCount"] != 1:
            changed = await screen.follow(feed, until="ViewChanged")
        (totals,) = changed["view"]["totals"]
        assert (totals["count"], totals["amount"], totals["amountDue"]) == (
            1,
            {"minorUnits": "3000"},
            {"minorUnits": "3000"},
        )
        await screen.settled(team, feed, id)


async def test_conversations_enter_and_leave_and_a_cut_screen_resumes(team: Team) -> None:
    people = [await team.contact(name, n) for n, name in enumerate(("Maria", "Omar", "Zoë"), 1)]
    id = await create(team, UNREAD)
    screen = Screen(await read(team, id))
    for n in (3, 1, 2):
        await hear(team, n)
    async with team.product.subscribe(EVENTS, {"id": id, "after": screen.cursor}) as feed:
        await opened(feed)
        await screen.settled(team, feed, id)
        assert [edge["node"]["id"] for edge in screen.edges] == [one["conversation"]["id"] for one in people]
        await team.product.ok(d.MARK_READ, {"conversationId": people[1]["conversation"]["id"]}, token=team.agent)
        await screen.follow(feed, until="ViewItemLeft")
    await team.product.ok(d.MARK_READ, {"conversationId": people[0]["conversation"]["id"]}, token=team.agent)
    await hear(team, 2)
    async with team.product.subscribe(EVENTS, {"id": id, "after": screen.cursor}) as feed:
        await opened(feed)
        await screen.follow(feed, until="ViewChanged")
        assert [edge["node"]["id"] for edge in screen.edges] == [one["conversation"]["id"] for one in people[1:]]
        await screen.settled(team, feed, id)


async def hear(team: Team, n: int) -> None:
    """The n-th contact writes."""
    await probes.writes(team, "WEB_CHAT", f"visitor-{n}", "Hello")


async def test_an_edited_view_is_read_again_and_a_deleted_one_ends(team: Team) -> None:
    id = await create(team, UNPAID)
    tokens = (team.agent, team.owner)
    async with AsyncExitStack() as stack:
        feeds = [
            await opened(await stack.enter_async_context(team.product.subscribe(EVENTS, {"id": id}, token=token)))
            for token in tokens * 2
        ]
        await team.product.ok(UPDATE, {"viewId": id, "name": "Unpaid"}, token=team.owner)
        for feed in feeds:
            assert (await feed.until("ViewChanged"))["view"]["name"] == "Unpaid"
        paid = {"paymentRequests": {"filter": {"status": ["PAID"]}}}
        await team.product.ok(UPDATE, {"viewId": id, "list": paid}, token=team.owner)
        for feed in feeds:
            assert (await feed.until("ResyncRequired"))["reason"] == "VIEW_CHANGED"
            with pytest.raises(AssertionError, match="the feed ended"):
                await feed.next()
        cursor = feeds[0].cursor
    before = (await read(team, id))["eventCursor"]
    await team.product.ok(UPDATE, {"viewId": id, "list": UNPAID}, token=team.owner)
    async with team.product.subscribe(EVENTS, {"id": id, "after": before}) as behind:
        assert (await behind.next())["reason"] == "VIEW_CHANGED"
    async with AsyncExitStack() as stack:
        feeds = [
            await opened(await stack.enter_async_context(team.product.subscribe(EVENTS, {"id": id}, token=token)))
            for token in tokens * 2
        ]
        payload = await team.product.ok(DELETE, {"viewId": id}, token=team.owner)
        assert payload["deletedViewId"] == id
        for feed in feeds:
            with pytest.raises(AssertionError, match="the feed ended"):
                await feed.next()
    assert await read(team, id) is None
    async with team.product.subscribe(EVENTS, {"id": id, "after": cursor}) as gone:
        with pytest.raises(GraphQLFailed) as caught:
            await gone.next()
        assert caught.value.code == "NOT_FOUND"


async def test_an_own_view_is_no_one_elses_also_while_its_owner_follows_it(team: Team) -> None:
    second, viewer = await colleague(team, "AGENT"), await colleague(team, "VIEWER")
    id = await create(team, UNPAID, shared=False, token=team.agent)
    assert (await read(team, id, team.agent))["owner"] == {"id": await me(team, team.agent)}
    async with team.product.subscribe(EVENTS, {"id": id}, token=team.agent) as mine:
        await opened(mine)
        for token in (second, viewer, team.owner):
            assert await read(team, id, token) is None
            async with team.product.subscribe(EVENTS, {"id": id}, token=token) as theirs:
                with pytest.raises(GraphQLFailed) as caught:
                    await theirs.next()
                assert caught.value.code == "NOT_FOUND"
        await team.request(await team.contact())
        await mine.until("ViewItemEntered")
    listed = "{ views { totalCount nodes { id } } }"
    assert await team.product.one(listed, token=team.agent) == {"totalCount": 1, "nodes": [{"id": id}]}
    assert await team.product.one(listed, token=second) == {"totalCount": 0, "nodes": []}


async def test_sockets_of_many_views_with_one_filter_share_its_evaluation(team: Team) -> None:
    ids = [await create(team, UNPAID) for _ in range(3)]
    tokens = (team.agent, team.owner)
    maria = await team.contact()
    async with AsyncExitStack() as stack:
        feeds = [
            (id, await opened(await stack.enter_async_context(team.product.subscribe(EVENTS, {"id": id}, token=token))))
            for id in ids
            for token in tokens * 2
        ]
        before = await counters(team)
        request = await team.request(maria)
        for id, feed in feeds:
            entered = await feed.until("ViewItemEntered")
            assert (entered["view"]["id"], entered["edge"]["node"]["id"]) == (id, request["id"])
        after = await counters(team)
    assert after["lists"] == 1
    assert after["evaluations"] - before["evaluations"] == after["changes"] - before["changes"] > 0


async def counters(team: Team) -> dict[str, float]:
    text = (await team.product.http.get("/metrics")).text
    lines = [line.split() for line in text.splitlines() if line.startswith("paythread_live_view_")]
    return {name.removeprefix("paythread_live_view_").removesuffix("_total"): float(number) for name, number in lines}


async def test_a_lowered_role_closes_the_feed_and_the_own_view_with_it(team: Team) -> None:
    id = await create(team, UNPAID, shared=False, token=team.agent)
    async with team.product.subscribe(EVENTS, {"id": id}, token=team.agent) as feed:
        await opened(feed)
        lower = f"mutation($input: UpdateUserInput!) {{ updateUser(input: $input) {{ user {{ id }} {d.ERRORS} }} }}"
        given = {"userId": await me(team, team.agent), "role": "VIEWER"}
        await team.product.ok(lower, given, token=team.owner)
        with pytest.raises(ConnectionClosed) as caught:
            await feed.next(within=6)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 4403


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_a_feed_goes_on_at_another_server_process(team: Team, database: str, events_url: str) -> None:
    maria = await team.contact()
    id = await create(team, UNPAID)
    screen = Screen(await read(team, id))
    async with harness.process(database, events_url, RUN_JOBS="false") as (other, _):
        async with team.product.subscribe(EVENTS, {"id": id, "after": screen.cursor}) as feed:
            await opened(feed)
            first = await team.request(maria)
            await screen.follow(feed, until="ViewItemEntered")
        # While no one listens, the one process changes what the other shows next.
        second = await team.request(maria)
        await team.product.ok(d.VOID, {"paymentRequestId": first["id"], "confirmPartiallyPaid": True}, token=team.agent)
        async with other.subscribe(EVENTS, {"id": id, "after": screen.cursor}, token=team.agent) as feed:
            await opened(feed)
            await screen.follow(feed, until="ViewChanged")
            assert [edge["node"]["id"] for edge in screen.edges] == [second["id"]]
            third = await team.request(maria)
            await screen.follow(feed, until="ViewItemEntered")
            assert [edge["node"]["id"] for edge in screen.edges] == [third["id"], second["id"]]
            await screen.settled(team, feed, id)
