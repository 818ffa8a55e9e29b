"""Subscriptions: every change once and in order, from any cursor, to viewers who may see it; a resync in place of a gap."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from models import database as db
from models import tables
from models.event_log import Cursor as EventCursor
from models.ids import public_id, uuid7
from resolvers import subscription
from services.accounts import accounts
from services.connections import channel_settings, processor_settings
from services.core.moments import Moments
from services.core.permissions import Actor
from services.core.unit_of_work import change
from services.messaging import contacts, conversations, messages
from services.payments import payment_requests, request_sending, voids
from services.thread import notifications
from tests import factories
from tests.clock import moved
from tests.schema.conftest import Api, Failed, event
from tests.schema.test_reads import another_account
from tests.services.conftest import Team

EVENTS = """
  __typename
  ... on Event { cursor }
  ... on ResyncRequired { reason }
"""
THREAD_EVENTS = (
    EVENTS
    + """
  ... on ThreadItemAdded { edge { cursor node { __typename id ... on ActivityCard { kind paymentRequest { status } } } }
    conversation { id preview lastActivityAt } contact { id name } }
  ... on PaymentRequestUpdated { previousStatus paymentRequestEdge { cursor node { id } } card { kind }
    paymentRequest { id status version contact { id } } }
  ... on MessageUpdated { message { id deliveryStatus } conversation { id } }
  ... on ContactUpdated { contact { id name } }
  ... on ConversationUpdated { conversation { id draft unreadCount } }
"""
)
INBOX = f"subscription($after: Cursor) {{ inboxEvents(after: $after) {{ {THREAD_EVENTS} }} }}"
CONVERSATION = f"""subscription($id: ID!, $after: Cursor) {{
  conversationEvents(conversationId: $id, after: $after) {{ {THREAD_EVENTS} }} }}"""
CONTACT = f"""subscription($id: ID!, $after: Cursor) {{ contactPaymentEvents(contactId: $id, after: $after) {{ {EVENTS}
  ... on PaymentRequestUpdated {{ previousStatus paymentRequest {{ id status }} }}
  ... on ContactUpdated {{ contact {{ id paymentSummary {{ openCount }} paymentRequests {{ eventCursor }} }} }} }} }}"""
NOTIFICATIONS = f"""subscription($after: Cursor) {{ notificationEvents(after: $after) {{ {EVENTS}
  ... on NotificationAdded {{ edge {{ cursor node {{ id title }} }} viewer {{ id unreadNotificationCount }} }}
  ... on NotificationsRead {{ viewer {{ id unreadNotificationCount }} }} }} }}"""
DASHBOARD = f"""subscription {{ dashboardEvents(period: {{ range: TODAY }}) {{ {EVENTS}
  ... on DashboardUpdated {{ figures {{ id range eventCursor byCurrency {{ requestsSent outstanding {{ amount }} }} }} }} }} }}"""


async def create(team: Team, key: str = "key-number-1") -> tables.PaymentRequest:
    return await payment_requests.create(
        team.agent, contact_id=team.contact.id, product_name="Clean", amount="10.00", idempotency_key=key
    )


async def send(team: Team, request: tables.PaymentRequest, key: str = "key-number-2") -> None:
    await request_sending.send(
        team.agent, payment_request_id=request.id, channel_id=team.channels["SMS"].id, idempotency_key=key
    )


async def names(stream: Any, count: int) -> list[str]:
    return [(await event(stream))["__typename"] for _ in range(count)]


async def seq_of(cursor: str, team: Team) -> int:
    return EventCursor.decode(cursor, team.account.id).seq


async def test_the_first_event_is_a_resume_point_even_if_nothing_happens(team: Team, api: Api) -> None:
    await create(team)
    head = (await tables.Account.get(id=team.account.id)).event_seq
    async with api.subscribe(INBOX) as stream:
        first = await event(stream)
    assert first["__typename"] == "Subscribed"
    assert await seq_of(first["cursor"], team) == head


async def test_every_change_reaches_the_inbox_once_in_the_order_of_the_log(team: Team, api: Api) -> None:
    async with api.subscribe(INBOX) as stream:
        start = await event(stream)
        request = await create(team)
        await send(team, request)
        await voids.void(team.agent, payment_request_id=request.id)
        await conversations.save_draft(team.agent, team.conversation.id, "Hi")
        await contacts.update_contact(team.agent, team.contact.id, changes={"name": "Maya T."})
        head = (await tables.Account.get(id=team.account.id)).event_seq
        seen: list[dict[str, Any]] = []
        while not seen or await seq_of(seen[-1]["cursor"], team) < head:
            seen.append(await event(stream))
    logged = await db.rows("SELECT seq, kind FROM event WHERE account_id = ? ORDER BY seq", team.account.id)
    wanted = [row["seq"] for row in logged if not row["kind"].startswith("notification.")]
    assert [await seq_of(found["cursor"], team) for found in seen] == wanted
    created = seen[0]
    assert (created["__typename"], created["previousStatus"]) == ("PaymentRequestUpdated", None)
    assert created["paymentRequest"]["contact"] == {"id": public_id("cnt", team.contact.id)}
    kinds = [found["edge"]["node"].get("kind") for found in seen if found["__typename"] == "ThreadItemAdded"]
    assert kinds.count("PAYMENT_REQUEST") == kinds.count("REQUEST_VOIDED") == 1
    statuses = [
        (found["previousStatus"], found["paymentRequest"]["status"])
        for found in seen
        if found["__typename"] == "PaymentRequestUpdated"
    ]
    assert statuses[-1][1] == "VOID"
    assert seen[-2]["conversation"]["draft"] == "Hi"
    assert seen[-1]["contact"]["name"] == "Maya T."

    # Resumed anywhere, the rest follows exactly.
    for given, rest in ((start["cursor"], seen), (seen[2]["cursor"], seen[3:]), (seen[-1]["cursor"], [])):
        async with api.subscribe(INBOX, {"after": given}) as stream:
            assert (await event(stream))["cursor"] == given
            again = [await event(stream) for _ in rest]
        assert [found["cursor"] for found in again] == [found["cursor"] for found in rest]


async def test_query_then_subscribe_loses_nothing(team: Team, api: Api) -> None:
    conversation = public_id("cnv", team.conversation.id)
    shown = await api.one("query($id: ID!) { conversation(id: $id) { eventCursor } }", {"id": conversation})
    sent = await messages.send_message(
        team.agent,
        conversation_id=team.conversation.id,
        channel_id=team.channels["SMS"].id,
        body="Between query and subscription",
        idempotency_key="key-number-3",
    )
    async with api.subscribe(CONVERSATION, {"id": conversation, "after": shown["eventCursor"]}) as stream:
        assert (await event(stream))["__typename"] == "Subscribed"
        added = await event(stream)
    assert added["edge"]["node"] == {"__typename": "Message", "id": public_id("msg", sent.message.id)}


async def test_an_event_shows_the_object_as_it_is_when_it_is_delivered(team: Team, api: Api) -> None:
    request = await create(team)
    async with api.subscribe(INBOX) as stream:
        await event(stream)
        for status in ("SENT", "PAID"):
            await tables.PaymentRequest.filter(id=request.id).update(status=status)
            async with change(team.account.id) as changed:
                changed.request_event("updated", request, previous_status="DRAFT", facets=())
            assert (await event(stream))["paymentRequest"]["status"] == status


async def test_a_conversation_hears_of_itself_and_of_nothing_else(team: Team, api: Api) -> None:
    other = await contacts.create_contact(team.agent, name="Other")
    async with api.subscribe(CONVERSATION, {"id": public_id("cnv", team.conversation.id)}) as stream:
        await event(stream)
        theirs = await payment_requests.create(
            team.agent, contact_id=other.id, product_name="Other", amount="1.00", idempotency_key="key-number-4"
        )
        await contacts.update_contact(team.agent, other.id, changes={"name": "Another"})
        ours = await create(team)
        found = await event(stream)
    assert theirs.id != ours.id
    assert found["paymentRequest"]["id"] == public_id("pr", ours.id)


async def test_the_payments_tab_hears_of_requests_and_totals_only(team: Team, api: Api) -> None:
    async with api.subscribe(CONTACT, {"id": public_id("cnt", team.contact.id)}) as stream:
        await event(stream)
        await messages.send_message(
            team.agent,
            conversation_id=team.conversation.id,
            channel_id=team.channels["SMS"].id,
            body="Not about money",
            idempotency_key="key-number-5",
        )
        request = await create(team)
        await send(team, request)
        created = await event(stream)
        assert created["paymentRequest"] == {"id": public_id("pr", request.id), "status": "SENT"}
        following = [await event(stream) for _ in range(3)]
    # The contact's totals change with its first request in a currency, and with the sending.
    kinds = [found["__typename"] for found in following]
    assert sorted(kinds) == ["ContactUpdated", "ContactUpdated", "PaymentRequestUpdated"]
    contact = [found for found in following if found["__typename"] == "ContactUpdated"][-1]
    assert contact["contact"]["paymentSummary"] == [{"openCount": 1}]
    # What is loaded for an event is at least as new as its cursor: the cursor is a safe place to resume from.
    assert contact["contact"]["paymentRequests"]["eventCursor"] == contact["cursor"]


async def test_notifications_go_to_their_own_person(team: Team, api: Api) -> None:
    async with (
        api.subscribe(NOTIFICATIONS) as mine,
        api.subscribe(NOTIFICATIONS, viewer=team.owner) as theirs,
    ):
        await event(mine)
        await event(theirs)
        users = {who: await tables.User.get(id=actor.user_id) for who, actor in (("a", team.agent), ("o", team.owner))}
        for user in users.values():
            async with change(team.account.id) as changed:
                row = await factories_notification(user)
                changed.notification(row)
        added = await event(mine)
        listed = await api.one("{ notifications { edges { cursor node { id title } } } }")
        assert added["edge"] == listed["edges"][0]
        assert added["edge"]["node"]["title"] == f"For {users['a'].name}"
        assert added["viewer"]["unreadNotificationCount"] == 1
        assert (await event(theirs))["edge"]["node"]["title"] == f"For {users['o'].name}"
        await notifications.mark_read(team.agent, None)
        read = await event(mine)
        assert (read["__typename"], read["viewer"]["unreadNotificationCount"]) == ("NotificationsRead", 0)
        assert read["viewer"] == await api.one("{ viewer { id unreadNotificationCount } }")
        await notifications.mark_read(team.owner, None)
        assert (await event(theirs))["__typename"] == "NotificationsRead"


async def factories_notification(user: tables.User) -> tables.Notification:
    """A row that the change inserts."""
    return tables.Notification(
        account_id=user.account_id,
        user_id=user.id,
        kind="PAYMENT_RECEIVED",
        title=f"For {user.name}",
        body="Paid",
        key=f"{user.id}:1",
        created_at=factories.now(),
    )


async def test_the_dashboard_begins_with_figures_and_coalesces_changes(
    team: Team, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription, "DASHBOARD_INTERVAL_S", 0.3)
    requests = [await create(team, f"key-number-{n}") for n in range(4)]
    async with api.subscribe(DASHBOARD) as stream:
        assert (await event(stream))["__typename"] == "Subscribed"
        first = await event(stream)
        assert first["figures"]["byCurrency"] == []
        assert first["figures"]["eventCursor"] == first["cursor"]
        assert first["figures"]["id"] == (await api.one("{ dashboard(period: { range: TODAY }) { id } }"))["id"]
        for n, request in enumerate(requests):
            await send(team, request, f"key-of-sending-{n}")
        seen: list[dict[str, Any]] = []
        while not seen or seen[-1]["figures"]["byCurrency"] != [
            {"requestsSent": 4, "outstanding": {"amount": "40.00"}}
        ]:
            seen.append(await event(stream))
    logged = await db.rows(
        "SELECT count(*) AS n FROM event WHERE account_id = ? AND kind = 'payment_request.sent'", team.account.id
    )
    assert logged[0]["n"] == 4
    assert len(seen) < 4


async def test_the_dashboard_moves_on_at_the_accounts_midnight_and_after_a_change_of_its_zone(
    team: Team, api: Api
) -> None:
    api.hub.moments = Moments(check_s=0.05)
    with moved() as clock:
        # Noon in New York, whatever the time is here.
        await accounts.update_account(team.owner, changes={"time_zone": "America/New_York"})
        there = clock.now().astimezone(ZoneInfo("America/New_York"))
        clock.move(there.replace(hour=12, minute=0) - there + timedelta(days=1))
        await send(team, await create(team))
        async with api.subscribe(DASHBOARD) as stream:
            await event(stream)
            first = await event(stream)
            assert [row["requestsSent"] for row in first["figures"]["byCurrency"]] == [1]
            clock.move(timedelta(hours=11, minutes=59))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(waiting := asyncio.ensure_future(event(stream))), 0.3)
            clock.move(timedelta(minutes=2))
            async with asyncio.timeout(10):
                second = await waiting
            assert [row["requestsSent"] for row in second["figures"]["byCurrency"]] == [0]
            assert second["cursor"] == first["cursor"]  # nothing was logged
            await accounts.update_account(team.owner, changes={"time_zone": "America/Los_Angeles"})
            async with asyncio.timeout(10):
                third = await event(stream)  # there it is still yesterday
            assert [row["requestsSent"] for row in third["figures"]["byCurrency"]] == [1]
            clock.move(timedelta(hours=3))
            async with asyncio.timeout(10):
                fourth = await event(stream)
            assert [row["requestsSent"] for row in fourth["figures"]["byCurrency"]] == [0]


async def test_settings_processors_and_channels_are_pushed(team: Team, api: Api) -> None:
    inbox = f"subscription {{ inboxEvents {{ {EVENTS} ... on AccountUpdated {{ account {{ name channels {{ connected }} }} }} }} }}"
    async with api.subscribe(inbox) as stream, api.subscribe(DASHBOARD) as figures:
        await event(stream)
        await event(figures)
        await event(figures)
        await accounts.update_account(team.owner, changes={"name": "New name"})
        assert (await event(stream))["account"]["name"] == "New name"
        assert (await event(figures))["__typename"] == "DashboardUpdated"
        await accounts.update_account(team.owner, changes={"name": "New name"})  # changes nothing, says nothing
        await channel_settings.disconnect_channel(team.owner, team.channels["SMS"].id)
        update = await event(stream)
        assert [row["connected"] for row in update["account"]["channels"]].count(False) == 1
        await processor_settings.disconnect_processor(team.owner, team.processor.id)
        assert (await event(stream))["__typename"] == "AccountUpdated"
        assert (await event(figures))["__typename"] == "DashboardUpdated"
    logged = await db.rows(
        "SELECT kind FROM event WHERE account_id = ? AND kind IN ('account.updated', 'processor.updated', 'channel.updated')"
        " ORDER BY seq",
        team.account.id,
    )
    assert [row["kind"] for row in logged] == ["account.updated", "channel.updated", "processor.updated"]


@pytest.mark.parametrize(
    ("document", "variables"),
    [
        (INBOX, {"after": "nonsense"}),
        (INBOX, {"after": ""}),
        (NOTIFICATIONS, {"after": "AAAA"}),
    ],
)
async def test_a_cursor_that_is_none_is_refused(team: Team, api: Api, document: str, variables: dict[str, Any]) -> None:
    async with api.subscribe(document, variables) as stream:
        with pytest.raises(Failed) as failed:
            await event(stream)
    assert failed.value.codes == ["BAD_REQUEST"]


async def test_another_accounts_cursor_is_refused(team: Team, api: Api) -> None:
    them, _ = await another_account()
    theirs = await tables.Account.get(id=them.account_id)
    cursor = EventCursor(theirs.event_epoch, theirs.id, 1).encode()
    async with api.subscribe(INBOX, {"after": cursor}) as stream:
        with pytest.raises(Failed) as failed:
            await event(stream)
    assert failed.value.codes == ["BAD_REQUEST"]


async def test_resync_is_all_that_comes_when_a_gap_is_possible(team: Team, api: Api) -> None:
    request = await create(team)
    account = await tables.Account.get(id=team.account.id)
    async with change(team.account.id) as changed:
        for _ in range(1001):
            changed.request_event("updated", request, previous_status="DRAFT", facets=())
    head = account.event_seq + 1001

    def cursor(seq: int, epoch: str = account.event_epoch) -> str:
        return EventCursor(epoch, account.id, seq).encode()

    for after, reason in (
        (cursor(0), "TOO_FAR_BEHIND"),
        (cursor(head + 1), "AHEAD_OF_LOG"),
        (cursor(head, "restored-old"), "OTHER_EPOCH"),
    ):
        async with api.subscribe(INBOX, {"after": after}) as stream:
            found = await event(stream)
            assert found == {"__typename": "ResyncRequired", "cursor": cursor(head), "reason": reason}
            with pytest.raises(StopAsyncIteration):
                await event(stream)
    async with api.subscribe(INBOX, {"after": cursor(head)}) as stream:
        assert await names(stream, 1) == ["Subscribed"]


async def test_a_foreign_or_unknown_id_can_not_be_subscribed_to(team: Team, api: Api) -> None:
    _, theirs = await another_account()
    for document, wrong in ((CONVERSATION, theirs["cnv"]), (CONVERSATION, "nonsense"), (CONTACT, theirs["cnt"])):
        async with api.subscribe(document, {"id": wrong}) as stream:
            with pytest.raises(Failed) as failed:
                await event(stream)
        assert failed.value.codes == ["NOT_FOUND"]


async def test_nothing_of_another_account_is_pushed(team: Team, api: Api) -> None:
    them, ids = await another_account()
    async with api.subscribe(INBOX) as mine, api.subscribe(INBOX, viewer=them) as theirs:
        await event(mine)
        await event(theirs)
        await create(team)
        request = await tables.PaymentRequest.get(account_id=them.account_id)
        async with change(them.account_id) as changed:
            changed.request_event("updated", request, previous_status="DRAFT", facets=())
        assert (await event(theirs))["paymentRequest"]["id"] == ids["pr"]
        assert (await event(mine))["paymentRequest"]["contact"]["id"] == public_id("cnt", team.contact.id)


@pytest.mark.parametrize("document", [INBOX, NOTIFICATIONS, DASHBOARD])
async def test_without_a_credential_nothing_is_pushed(team: Team, api: Api, document: str) -> None:
    async with api.subscribe(document, viewer=None) as stream:
        with pytest.raises(Failed) as failed:
            await event(stream)
    assert failed.value.codes == ["UNAUTHENTICATED"]


async def test_an_api_key_has_no_notifications_but_an_inbox(team: Team, api: Api) -> None:
    key = Actor(
        account_id=team.account.id, role="AGENT", user_id=None, name="Robot", kind="api_key", credential=str(uuid7())
    )
    async with api.subscribe(NOTIFICATIONS, viewer=key) as feed, api.subscribe(INBOX, viewer=key) as inbox:
        assert await names(feed, 1) == await names(inbox, 1) == ["Subscribed"]
        await create(team)
        assert await names(inbox, 1) == ["PaymentRequestUpdated"]


async def test_kinds_of_another_release_are_passed_over(team: Team, api: Api) -> None:
    async with api.subscribe(INBOX) as stream:
        await event(stream)
        async with change(team.account.id) as changed:
            changed.event("weather.changed", contact_id=team.contact.id)
        await create(team)
        assert await names(stream, 1) == ["PaymentRequestUpdated"]
