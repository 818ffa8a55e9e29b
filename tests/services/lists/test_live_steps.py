"""Moments of a live list that chance rarely meets: cuts inside an entry, changes while it is read, a reader that is ahead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing
from typing import Any
from uuid import UUID

import pytest

from models import event_log
from services.core.event_hub import Hub, ResyncNeeded, ResyncReason
from services.core.unit_of_work import change
from services.lists import live, snapshots, subjects
from services.lists.filters import ConversationFilter, PaymentRequestFilter
from services.lists.live_list import FiguresChanged, ItemLeft, ItemPlaced
from services.lists.orders import Order
from services.lists.subjects import Wanted
from services.lists.watching import Started, watch
from services.messaging import contacts, conversations
from services.payments import payment_requests
from tests import factories
from tests.services.conftest import Team
from tests.services.lists.stories import VIEW, running_hub

NEWEST = Order("payment_requests", "CREATED_AT", descending=True)
ACTIVE = Order("conversations", "LAST_ACTIVITY_AT", descending=True)
DRAFTS = Wanted(PaymentRequestFilter(status=("DRAFT",)), NEWEST)
MAYAS = Wanted(PaymentRequestFilter(search="maya"), NEWEST)


def follow(hub: Hub, team: Team, wanted: Wanted, after: int | None) -> AsyncGenerator[Any, None]:
    async def current() -> Wanted:
        return wanted

    return watch(hub, team.account.id, VIEW, current, after)


async def head(team: Team) -> int:
    return (await event_log.heads([team.account.id]))[team.account.id]


async def requests(team: Team, count: int) -> list[UUID]:
    made = [
        await factories.payment_request(team.contact, processor_connection_id=team.processor.id) for _ in range(count)
    ]
    return [one.id for one in made]


async def test_a_reader_that_is_cut_inside_an_entry_gets_the_rest_of_it_again(team: Team) -> None:
    ids = set(await requests(team, 3))
    before = await head(team)
    async with running_hub() as hub:
        async with aclosing(follow(hub, team, MAYAS, None)) as events:
            assert isinstance(await anext(events), Started)
            await contacts.update_contact(team.agent, team.contact.id, changes={"name": "Omar"})
            left = [await anext(events) for _ in range(3)]
        assert {event.id for event in left} == ids
        assert [event.seq for event in left] == [before, before, before + 1]
        async with aclosing(follow(hub, team, MAYAS, left[0].seq)) as events:
            assert isinstance(await anext(events), Started)
            again = [await anext(events) for _ in range(4)]
        assert {event.id for event in again if isinstance(event, ItemLeft)} == ids
        assert isinstance(again[-1], FiguresChanged)
        assert [event.seq for event in again] == [before, before, before, before + 1]


async def test_what_changes_while_a_list_is_read_is_decided_again(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = await requests(team, 2)
    read, reading, go_on = subjects.read, asyncio.Event(), asyncio.Event()

    async def slowly(*given: Any) -> Any:
        rows = await read(*given)
        reading.set()
        await go_on.wait()
        return rows

    monkeypatch.setattr(subjects, "read", slowly)
    async with running_hub() as hub:
        events = follow(hub, team, DRAFTS, None)
        started = asyncio.ensure_future(anext(events))
        await reading.wait()
        await payment_requests.discard(team.agent, first)
        account = live.of(hub)._accounts[team.account.id]
        await until(lambda: account._noted >= 1 and not account._touches)
        go_on.set()
        found: Started = await started
        assert (first.int in found.list.window, second.int in found.list.window) == (False, True)
        await events.aclose()


async def test_a_reader_that_has_seen_more_than_the_list_waits_for_it(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    (id,) = await requests(team, 1)
    read, go_on = snapshots.of_requests, asyncio.Event()

    async def slowly(account_id: UUID, ids: Collection[UUID]) -> Any:
        if ids:
            await go_on.wait()
        return await read(account_id, ids)

    async with running_hub() as hub, aclosing(follow(hub, team, DRAFTS, None)) as other:
        await anext(other)
        monkeypatch.setattr(snapshots, "of_requests", slowly)
        await payment_requests.discard(team.agent, id)
        events = follow(hub, team, DRAFTS, await head(team))
        started = asyncio.ensure_future(anext(events))
        await asyncio.wait({started}, timeout=0.3)
        assert not started.done()
        go_on.set()
        assert isinstance(await started, Started)
        assert [type(await anext(events)) for _ in range(2)] == [ItemLeft, FiguresChanged]
        await events.aclose()


async def test_an_item_beyond_the_window_is_like_one_that_left(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "WINDOW", 2)
    monkeypatch.setattr(live, "SMALLEST", 2)
    first, second = await requests(team, 2)
    async with running_hub() as hub, aclosing(follow(hub, team, DRAFTS, None)) as events:
        found = await anext(events)
        assert found.list.figures.total == 2
        third = await payment_requests.create(
            team.agent, contact_id=team.contact.id, product_name="Windows", amount="9.00", idempotency_key="a" * 8
        )
        entered, left, figures = [await anext(events) for _ in range(3)]
        assert (entered.id, entered.entered, entered.before) == (third.id, True, None)
        assert (type(left), left.id) == (ItemLeft, first)
        assert (type(figures), figures.figures) == (FiguresChanged, None)
        # Room again: what is beyond comes in without an event.
        await payment_requests.discard(team.agent, third.id)
        assert (await anext(events)).id == third.id
        await until(lambda: first.int in found.list.window)
        assert second.int in found.list.window


async def test_a_place_that_is_gone_from_the_log_needs_a_resync(team: Team) -> None:
    async with running_hub() as hub:
        for after, reason in ((10_000, ResyncReason.AHEAD_OF_LOG), (0, ResyncReason.TOO_FAR_BEHIND)):
            async with change(team.account.id) as changed:
                for _ in range(1_001):
                    changed.event("account.updated")
            async with aclosing(follow(hub, team, DRAFTS, after)) as events:
                found = [event async for event in events]
            assert [(type(one), one.reason) for one in found] == [(ResyncNeeded, reason)]


async def test_changes_of_a_contact_reach_requests_only_where_filters_read_them(team: Team) -> None:
    ids = await requests(team, 3)
    async with (
        running_hub() as hub,
        aclosing(follow(hub, team, MAYAS, None)) as events,
        aclosing(follow(hub, team, Wanted(ConversationFilter(), ACTIVE), None)) as talks,
    ):
        await anext(events)
        await anext(talks)
        counters = live.of(hub).counters
        await conversations.save_draft(team.agent, team.conversation.id, "Hi")
        assert isinstance(await anext(talks), ItemPlaced)
        spread = counters.changes  # the first entry about a contact reads its requests once
        await conversations.save_draft(team.agent, team.conversation.id, "Hello")
        while not isinstance(await anext(talks), ItemPlaced):
            pass
        assert (spread, counters.changes - spread) == (1 + len(ids), 1)


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not reached():
            await asyncio.sleep(0.005)
