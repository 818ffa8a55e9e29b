"""Notifications once per user and cause, and the dashboard's figures."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from models.errors import Forbidden
from models.ledger import CardKind
from models.tables import Account, Conversation, Notification, PaymentRequest, ProcessorConnection, User
from services.core.permissions import system_actor
from services.core.unit_of_work import change
from services.messaging import conversations
from services.payments import dashboard
from services.thread import notifications
from tests import factories
from tests.services.conftest import Team, actor_of, kinds_logged
from tests.services.figures_book import shown_figures


async def tell(request: PaymentRequest, cause: str = "paid:1") -> None:
    async with change(request.account_id) as changed:
        locked = await PaymentRequest.filter(id=request.id).select_for_update().get()
        await notifications.notify(
            changed, locked, CardKind.PAYMENT_RECEIVED, title="Payment received", body="$125.00", cause_key=cause
        )


async def told() -> list[UUID]:
    return sorted(row.user_id for row in await Notification.all())


def ids(*people: UUID | None) -> list[UUID]:
    return sorted(person for person in people if person is not None)


async def test_creator_assignee_and_followers_are_notified_once_each(team: Team) -> None:
    request = await factories.payment_request(team.contact, created_by_id=team.agent.user_id)
    await factories.user(team.account, role="OWNER")
    await conversations.assign(team.owner, team.conversation.id, team.owner.user_id)
    for actor in (team.viewer, team.agent):
        await conversations.follow(actor, team.conversation.id, True)
    await tell(request)
    await tell(request)
    assert await told() == ids(team.agent.user_id, team.owner.user_id, team.viewer.user_id)
    row = await Notification.get(user_id=team.agent.user_id)
    assert (row.kind, row.title, row.body, row.read_at) == ("PAYMENT_RECEIVED", "Payment received", "$125.00", None)
    assert (row.payment_request_id, row.conversation_id) == (request.id, team.conversation.id)
    assert (await kinds_logged(team.account.id)).count("notification.created") == 3
    await tell(request, "paid:2")
    assert len(await told()) == 6


async def test_concurrent_changes_of_one_cause_notify_once(team: Team) -> None:
    request = await factories.payment_request(team.contact, created_by_id=team.agent.user_id)
    await asyncio.gather(*(tell(request) for _ in range(5)))
    assert await told() == ids(team.agent.user_id)


async def test_without_an_audience_the_owners_and_admins_are_notified(team: Team) -> None:
    admin = await factories.user(team.account, role="ADMIN")
    request = await factories.payment_request(team.contact)
    await tell(request)
    assert await told() == ids(team.owner.user_id, admin.id)


async def test_a_disabled_creator_is_not_notified_and_another_user_is(team: Team) -> None:
    request = await factories.payment_request(team.contact, created_by_id=team.agent.user_id)
    await User.filter(id=team.agent.user_id).update(disabled_at=datetime.now(UTC))
    await tell(request)
    assert await told() == ids(team.owner.user_id)


async def test_a_rolled_back_change_notifies_no_one(team: Team) -> None:
    request = await factories.payment_request(team.contact, created_by_id=team.agent.user_id)

    async def failing() -> None:
        async with change(request.account_id) as changed:
            await notifications.notify(
                changed, request, CardKind.PAYMENT_RECEIVED, title="Paid", body="", cause_key="x"
            )
            raise LookupError

    with pytest.raises(LookupError):
        await failing()
    assert await told() == []
    assert await kinds_logged(team.account.id) == []


async def test_reading_up_to_a_place_leaves_the_newer_ones_and_other_peoples(team: Team) -> None:
    agent = await User.get(id=team.agent.user_id)
    rows = [await factories.notification(agent) for _ in range(3)]
    await factories.notification(await User.get(id=team.owner.user_id))
    assert await notifications.mark_read(team.agent, rows[1].seq) == 1
    assert [row.read_at is not None for row in await Notification.filter(user_id=agent.id).order_by("seq")] == [
        True,
        True,
        False,
    ]
    before = await kinds_logged(team.account.id)
    assert before[-1] == "notification.read"
    assert await notifications.mark_read(team.agent, rows[1].seq) == 1
    assert await kinds_logged(team.account.id) == before
    assert await notifications.mark_read(team.agent, None) == 0
    assert team.owner.user_id is not None
    assert await notifications.unread_count(team.owner.user_id) == 1


async def test_a_program_has_no_notifications(team: Team) -> None:
    with pytest.raises(Forbidden):
        await notifications.mark_read(system_actor(team.account.id), None)


def test_the_audience_has_no_doubles_and_no_gaps(team_ids: tuple[UUID, UUID]) -> None:
    first, second = team_ids
    request = PaymentRequest(created_by_id=first)
    conversation = Conversation(assignee_id=first)
    everyone = notifications.audience(request, conversation, [second, first])
    assert everyone == notifications.Audience(frozenset({first}), frozenset({first, second}))
    assert notifications.audience(PaymentRequest(), Conversation(), []) == notifications.Audience(
        frozenset(), frozenset()
    )


@pytest.fixture
def team_ids() -> tuple[UUID, UUID]:
    return UUID(int=1), UUID(int=2)


# ---------------------------------------------------------------------------------------------------------- dashboard
NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


async def test_figures_count_per_currency_what_was_sent_paid_and_is_open(team: Team) -> None:
    async def request(**values: Any) -> PaymentRequest:
        return await factories.payment_request(team.contact, **values)

    sent = NOON - timedelta(hours=3)
    for minutes, amount in ((10, 1000), (30, 2000), (50, 4000)):
        paid = await request(
            status="PAID",
            amount_minor=amount,
            amount_paid_minor=amount,
            sent_at=sent,
            paid_at=sent + timedelta(minutes=minutes),
        )
        await factories.money_fact(paid, occurred_at=paid.paid_at)
    part = await request(status="PARTIALLY_PAID", amount_minor=500, amount_paid_minor=200, sent_at=sent)
    await factories.money_fact(part, amount_minor=200, occurred_at=sent)
    await factories.money_fact(part, amount_minor=999, counted=False, occurred_at=sent)
    await factories.money_fact(part, amount_minor=50, kind="REFUND", occurred_at=sent)
    await request(status="SENT", amount_minor=700, currency="EUR", sent_at=NOON - timedelta(days=40))
    await request(status="DRAFT", amount_minor=9)
    await request(status="VOID", amount_minor=60, currency="EUR", sent_at=sent)
    await request(status="SENT", amount_minor=77, test_mode=False, sent_at=sent)
    found = await shown_figures(team.account.id, "TODAY", NOON)
    assert found == [
        dashboard.CurrencyFigures(
            currency="EUR",
            test_mode=True,
            requests_sent=0,
            converted_count=0,
            requested_minor=0,
            paid_count=0,
            paid_minor=0,
            outstanding_minor=700,
            median_seconds_to_pay=None,
            p90_seconds_to_pay=None,
        ),
        dashboard.CurrencyFigures(
            currency="USD",
            test_mode=True,
            requests_sent=4,
            converted_count=3,
            requested_minor=7500,
            paid_count=3,
            paid_minor=8199,  # the mismatching money arrived, too
            outstanding_minor=300,
            median_seconds_to_pay=1800,
            p90_seconds_to_pay=3000,
        ),
    ]


async def test_a_live_processor_makes_the_figures_live(team: Team) -> None:
    await factories.payment_request(team.contact, status="SENT", amount_minor=77, test_mode=False, sent_at=NOON)
    await factories.payment_request(team.contact, status="SENT", amount_minor=55, sent_at=NOON)
    assert [(f.test_mode, f.requested_minor) for f in await shown_figures(team.account.id, "TODAY", NOON)] == [
        (True, 55)
    ]
    await ProcessorConnection.filter(id=team.processor.id).update(test_mode=False)
    assert [(f.test_mode, f.requested_minor) for f in await shown_figures(team.account.id, "TODAY", NOON)] == [
        (False, 77)
    ]


async def test_a_day_begins_at_the_accounts_midnight(team: Team) -> None:
    await Account.filter(id=team.account.id).update(time_zone="America/New_York")
    for sent_at in ("2026-11-20T04:59:59+00:00", "2026-11-20T05:00:00+00:00"):
        await factories.payment_request(team.contact, status="SENT", sent_at=datetime.fromisoformat(sent_at))
    assert [f.requests_sent for f in await shown_figures(team.account.id, "TODAY", NOON)] == [1]
    assert [f.requests_sent for f in await shown_figures(team.account.id, "LAST_7_DAYS", NOON)] == [2]
    assert dashboard.start_of("LAST_30_DAYS", "UTC", NOON) == datetime(2026, 10, 22, tzinfo=UTC)


async def test_figures_of_another_account_are_its_own(team: Team) -> None:
    await factories.payment_request(team.contact, status="SENT", sent_at=NOON)
    stranger = actor_of(await factories.user(await factories.account()))
    assert await shown_figures(stranger.account_id, "TODAY", NOON) == []
