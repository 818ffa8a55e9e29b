"""What one transaction adds appears together, in commit order, or not at all."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from models import database as db
from models import event_log, tables
from models.ids import uuid7
from models.ledger import CardKind
from models.tables import ActivityCard, Conversation, Message, Notification
from services.core import unit_of_work
from services.core.unit_of_work import Change, change
from tests import factories
from tests.services.scripted import World, assert_consistent


@pytest.fixture
async def world(database: str) -> World:
    return await World.make()


async def log(account_id: UUID) -> list[tuple[int, str]]:
    found = await db.rows("SELECT seq, kind FROM event WHERE account_id = ? ORDER BY seq", account_id)
    return [(row["seq"], row["kind"]) for row in found]


async def a_message(world: World, text: str = "Hello") -> Message:
    conversation = await factories.conversation(world.contact)
    channel = await factories.channel_connection(world.account)
    return Message(
        id=uuid7(),
        account_id=world.account.id,
        conversation_id=conversation.id,
        contact_id=world.contact.id,
        direction="INBOUND",
        kind="SMS",
        channel_connection_id=channel.id,
        address="+14155550101",
        body=text,
        delivery_status="DELIVERED",
        occurred_at=factories.now(),
    )


async def test_items_and_events_get_the_numbers_of_their_order(world: World) -> None:
    request, _ = await world.request()
    message = await a_message(world)
    async with change(world.account.id) as changed:
        card = await changed.log_card(request, CardKind.PAYMENT_REQUEST, text="Asked", key="1", message_id=message.id)
        changed.message(message)  # after the card that refers to it
        changed.request_event("sent", request, previous_status="DRAFT", facets=())
        changed.notification(
            Notification(
                id=uuid7(),
                account_id=world.account.id,
                user_id=world.user.id,
                kind="PAYMENT_RECEIVED",
                title="Paid",
                body="Paid",
                key="k",
                created_at=changed.now,
            )
        )
    assert card is not None
    assert await log(world.account.id) == [
        (1, "activity.created"),
        (2, "message.created"),
        (3, "payment_request.sent"),
        (4, "notification.created"),
    ]
    assert (await ActivityCard.get()).seq == 1
    assert (await Message.get()).seq == 2
    assert (await Notification.get()).seq == 4
    await assert_consistent(world.account.id)


async def test_the_conversation_shows_its_newest_item(world: World) -> None:
    message = await a_message(world, "x" * 500)
    async with change(world.account.id) as changed:
        changed.message(message)
    conversation = await Conversation.get()
    assert (conversation.preview, conversation.last_activity_at) == ("x" * 160, changed.now)


async def test_the_time_of_the_last_activity_never_steps_back(world: World) -> None:
    message = await a_message(world)
    ahead = factories.now() + timedelta(minutes=1)
    await Conversation.all().update(last_activity_at=ahead)  # a change that began later has committed first
    async with change(world.account.id) as changed:
        changed.message(message)
    assert (await Conversation.get()).last_activity_at == ahead


async def test_a_rolled_back_change_leaves_no_number_behind(world: World) -> None:
    request, _ = await world.request()
    announced: list[tuple[UUID, int]] = []
    unit_of_work.on_change(lambda account_id, seq: announced.append((account_id, seq)))

    async def fail() -> None:
        async with change(world.account.id) as changed:
            await changed.log_card(request, CardKind.PAYMENT_REQUEST, text="Asked", key="1")
            raise ZeroDivisionError

    try:
        with pytest.raises(ZeroDivisionError):
            await fail()
        assert (await log(world.account.id), announced) == ([], [])
        assert await ActivityCard.all().count() == 0
        async with change(world.account.id) as changed:
            changed.event("contact.updated")
            changed.event("contact.updated")
        assert announced == [(world.account.id, 2)]
        async with change(world.account.id):
            pass
        assert announced == [(world.account.id, 2)]
    finally:
        unit_of_work.on_change(None)
    assert await log(world.account.id) == [(1, "contact.updated"), (2, "contact.updated")]


async def test_the_hub_is_told_after_the_commit(world: World) -> None:
    seen: list[bool] = []
    unit_of_work.on_change(lambda _account_id, _seq: seen.append(db.in_transaction()))
    try:
        async with db.transaction():
            async with change(world.account.id) as changed:
                changed.event("contact.updated")
            assert seen == []
        assert seen == [False]
    finally:
        unit_of_work.on_change(None)


async def test_a_nested_change_joins_the_outer_one(world: World) -> None:
    async with change(world.account.id) as outer:
        outer.event("a")
        async with change(world.account.id) as inner:
            inner.event("b")
        assert inner is outer
        assert await log(world.account.id) == []
    assert await log(world.account.id) == [(1, "a"), (2, "b")]


async def test_a_change_belongs_to_one_account(world: World) -> None:
    other = await World.make()

    async def mix() -> None:
        async with change(world.account.id), change(other.account.id):
            pass

    with pytest.raises(RuntimeError, match="one account"):
        await mix()


async def test_a_card_is_said_once_per_key(world: World) -> None:
    request, _ = await world.request()

    async def say(changed: Change) -> bool:
        return await changed.log_card(request, CardKind.PAYMENT_FAILED, text="Declined", key="1") is not None

    async with change(world.account.id) as changed:
        assert [await say(changed), await say(changed)] == [True, False]
    async with change(world.account.id) as changed:
        assert await say(changed) is False
    assert await world.cards(request) == ["PAYMENT_FAILED"]
    assert await log(world.account.id) == [(1, "activity.created")]


async def test_changes_at_the_same_time_get_numbers_without_holes(world: World) -> None:
    async def one(n: int) -> None:
        async with change(world.account.id) as changed:
            for _ in range(n % 3 + 1):
                changed.event("contact.updated")
            if n % 5 == 0:
                raise ZeroDivisionError

    results = await asyncio.gather(*(one(n) for n in range(25)), return_exceptions=True)
    assert sum(isinstance(result, ZeroDivisionError) for result in results) == 5
    numbers = [seq for seq, _ in await log(world.account.id)]
    assert numbers == list(range(1, sum(n % 3 + 1 for n in range(25) if n % 5) + 1))


async def test_a_change_whose_log_cannot_be_written_did_not_happen(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = await factories.account(name="Before")

    async def fails(entries: object) -> None:
        raise RuntimeError("no log")

    async def rename() -> None:
        async with change(account.id) as changed:
            await tables.Account.filter(id=account.id).update(name="After")
            changed.event("account.updated")

    monkeypatch.setattr(event_log, "append", fails)
    with pytest.raises(RuntimeError, match="no log"):
        await rename()
    now = await tables.Account.get(id=account.id)
    assert (now.name, now.event_seq) == ("Before", 0)
