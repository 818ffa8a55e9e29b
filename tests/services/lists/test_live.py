"""Live lists: what a screen shows from events equals a fresh query, whatever happens and wherever it is cut."""

from __future__ import annotations

import random

import pytest

from models import event_log
from services.lists.filters import ConversationFilter, MoneyRange, PaymentRequestFilter
from services.lists.orders import Order
from services.lists.subjects import Wanted
from tests.services.conftest import Team
from tests.services.lists.stories import Screen, Story, different, running_hub


def lists(team: Team) -> list[Wanted]:
    """Some that differ, with every order."""
    newest = Order("payment_requests", "CREATED_AT", descending=True)
    oldest = Order("payment_requests", "CREATED_AT", descending=False)
    due, paid = (
        Order("payment_requests", "DUE_AT", descending=False),
        Order("payment_requests", "PAID_AT", descending=True),
    )
    amount = Order("payment_requests", "AMOUNT_DUE", descending=True)
    active = Order("conversations", "LAST_ACTIVITY_AT", descending=True)
    waiting = Order("conversations", "WAITING_SINCE", descending=False)
    changed = Order("payment_requests", "UPDATED_AT", descending=True)
    mine = (team.agent.user_id,)
    requests = [
        (PaymentRequestFilter(), newest),
        (PaymentRequestFilter(status=("SENT", "PARTIALLY_PAID")), due),
        (PaymentRequestFilter(status=("PAID",)), paid),
        (PaymentRequestFilter(status=("SENT", "PARTIALLY_PAID", "PAID", "VOID")), changed),
        (PaymentRequestFilter(overdue=True), due),
        (PaymentRequestFilter(not_=PaymentRequestFilter(overdue=True)), amount),
        (PaymentRequestFilter(needs_attention=True), oldest),
        (PaymentRequestFilter(assignee_ids=mine), changed),
        (PaymentRequestFilter(assignee_ids=(None,), status=("SENT",)), amount),
        (PaymentRequestFilter(tags=("vip",)), changed),
        (PaymentRequestFilter(search="maya"), due),
        (PaymentRequestFilter(contact_ids=(team.contact.id,)), amount),
        (PaymentRequestFilter(amount=MoneyRange("EUR", 1_000, 10_000), channel_kinds=("SMS",)), newest),
    ]
    talks = [
        (ConversationFilter(), active),
        (ConversationFilter(closed=False), active),
        (ConversationFilter(unread=True), active),
        (ConversationFilter(assignee_ids=(None,), closed=False), waiting),
        (ConversationFilter(assignee_ids=mine), Order("conversations", "CREATED_AT", descending=True)),
        (ConversationFilter(has_open_request=True), active),
        (ConversationFilter(or_=(ConversationFilter(tags=("vip", "late")), ConversationFilter(search="omar"))), active),
        (ConversationFilter(channel_kinds=("SMS",), not_=ConversationFilter(tags=("new",))), waiting),
    ]
    return [*(Wanted(*one) for one in requests), *(Wanted(*one) for one in talks)]


async def follow_a_story(team: Team, changes: int, seed: int) -> tuple[list[Screen], Story]:
    story, rng = Story(team, seed), random.Random(seed)
    account_id, wrong = team.account.id, []
    for _ in range(30):
        await story.act()
    async with running_hub() as hub:
        screens = [Screen(hub, account_id, wanted) for wanted in lists(team)]
        for screen in screens:
            await screen.connect()
        for n in range(1, changes + 1):
            await story.act()
            if rng.random() < 0.1:
                screen = rng.choice(screens)
                await screen.cut()
                for _ in range(rng.randrange(4)):
                    await story.act()
                await screen.connect()
            if n % 100 == 0 or n == changes:
                seq = (await event_log.heads([account_id]))[account_id]
                for screen in screens:
                    await screen.is_at(seq)
                    wrong += [found] if (found := await different(screen, account_id)) else []
        for screen in screens:
            await screen.cut()
    assert not wrong, "\n".join(wrong)
    return screens, story


async def test_events_lead_to_what_a_query_shows(team: Team) -> None:
    screens, _ = await follow_a_story(team, 150, seed=1)
    assert sum(screen.entered for screen in screens) > 50
    assert sum(screen.left for screen in screens) > 20
    assert not any(screen.resyncs for screen in screens)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
async def test_events_lead_to_what_a_query_shows_for_long(team: Team, seed: int) -> None:
    screens, story = await follow_a_story(team, 1_000, seed)
    assert sum(screen.cuts for screen in screens) > 80
    assert len(story.done) > 20, story.done
