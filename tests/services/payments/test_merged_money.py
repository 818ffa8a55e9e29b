"""Money of two merged contacts: totals, open checkouts, webhooks, requests by old ids."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from models.ids import uuid7
from models.tables import ActivityCard, Contact, ContactSummary, Conversation, MoneyFact, Notification, PaymentRequest
from services.messaging import contact_merging, conversations
from services.payments import integrity_check, offline_payments, payment_requests, payment_views, voids
from services.thread import contact_totals
from tests import factories
from tests.services.scripted import World, assert_consistent


@pytest.fixture
async def world(database: str) -> World:
    return await World.make()


async def another(world: World) -> Contact:
    contact = await factories.contact(world.account)
    await factories.conversation(contact)
    return contact


async def asks(world: World, contact: Contact, **more: Any) -> tuple[PaymentRequest, str]:
    """A request of that contact, and its token."""
    first, world.contact = world.contact, contact
    try:
        return await world.request(**more)
    finally:
        world.contact = first


async def merge(world: World, merged: Contact) -> Contact:
    return await contact_merging.merge(
        world.actor, contact_id=world.contact.id, merged_contact_id=merged.id, idempotency_key=f"merge-{uuid7()}"
    )


async def totals(contact: Contact) -> dict[str, int]:
    row = await ContactSummary.get(contact_id=contact.id)
    return {"requested": row.requested_minor, "outstanding": row.outstanding_minor, "paid": row.paid_minor}


async def test_totals_are_those_of_both_and_payments_keep_whom_they_came_from(world: World) -> None:
    other = await another(world)
    mine, my_token = await world.request()
    theirs, their_token = await asks(world, other)
    open_one, _ = await asks(world, other)
    for token in (my_token, their_token):
        world.vendor.pay(await world.open(token))
    await world.deliver()
    before = [await contact_totals.recompute(world.account.id, one.id) for one in (world.contact, other)]
    assert [next(iter(one.values()))["paid_minor"] for one in before] == [12500, 12500]
    facts, cards = await MoneyFact.all().values(), await ActivityCard.all().values()
    await merge(world, other)
    assert await totals(world.contact) == {"requested": 37500, "outstanding": 12500, "paid": 25000}
    assert await ContactSummary.filter(contact_id=other.id).count() == 0
    assert [await MoneyFact.all().values(), await ActivityCard.all().values()] == [facts, cards]  # append-only
    shown = await payment_views.payments(world.account.id, [mine.id, theirs.id])
    assert [shown[one.id][0].contact_id for one in (mine, theirs)] == [world.contact.id, other.id]
    assert await integrity_check.audit(world.account.id) == []
    # The merged contact's request continues: a manual record, a void, and a new request by its old ids.
    conversation = await Conversation.get(contact_id=other.id)
    await offline_payments.record(
        world.actor,
        payment_request_id=open_one.id,
        method="CASH",
        amount=None,
        note=None,
        received_at=None,
        idempotency_key="record-key-1",
    )
    made = await payment_requests.create(
        world.actor,
        contact_id=other.id,
        conversation_id=conversation.id,
        product_name="More",
        amount="10.00",
        idempotency_key="create-key-1",
    )
    kept = await Conversation.get(contact_id=world.contact.id)
    assert (made.contact_id, made.conversation_id) == (world.contact.id, kept.id)
    await voids.void(world.actor, payment_request_id=made.id)
    assert await totals(world.contact) == {"requested": 37500, "outstanding": 0, "paid": 37500}
    assert {card.conversation_id for card in await ActivityCard.filter(payment_request_id=open_one.id)} == {kept.id}
    assert await integrity_check.audit(world.account.id) == []
    await assert_consistent(world.account.id)


async def test_a_payment_that_arrives_after_the_merge_is_told_to_who_looks_after_the_kept_conversation(
    world: World,
) -> None:
    other = await another(world)
    request, token = await asks(world, other, created_by_id=None)
    page = await world.open(token)
    conversation = await Conversation.get(contact_id=world.contact.id)
    await conversations.assign(world.actor, conversation.id, world.user.id)
    await conversations.close(world.actor, conversation.id)
    await merge(world, other)
    world.vendor.pay(page)
    await world.deliver()
    assert await world.cards(request) == ["PAYMENT_RECEIVED"]
    now = await Conversation.get(id=conversation.id)
    assert (now.closed_at, now.preview) == (None, (await ActivityCard.get(payment_request_id=request.id)).text)
    (notice,) = await Notification.all()
    assert (notice.user_id, notice.conversation_id) == (world.user.id, conversation.id)
    assert "customer" in (await Contact.get(id=world.contact.id)).tags
    assert "customer" not in (await Contact.get(id=other.id)).tags
    assert await totals(world.contact) == {"requested": 12500, "outstanding": 0, "paid": 12500}


async def test_webhooks_that_meet_a_merge_are_counted_once(world: World) -> None:
    for n in range(6):
        other = await another(world)
        mine, my_token = await world.request()
        theirs, their_token = await asks(world, other)
        pages = [await world.open(token) for token in (my_token, their_token)]
        for page in pages:
            world.vendor.pay(page)
        webhooks, world.vendor.outbox = world.vendor.outbox, []
        await asyncio.gather(
            *(world.deliver(one) for one in webhooks), merge(world, other), *(world.deliver(one) for one in webhooks)
        )
        assert [await world.status(one) for one in (mine, theirs)] == ["PAID", "PAID"]
        assert await totals(world.contact) == {
            "requested": (n + 1) * 25000,
            "outstanding": 0,
            "paid": (n + 1) * 25000,
        }
        assert await ContactSummary.filter(contact_id=other.id).count() == 0
    assert await Contact.filter(merged_into_id=world.contact.id).count() == 6
    assert await integrity_check.audit(world.account.id) == []
    await assert_consistent(world.account.id)
