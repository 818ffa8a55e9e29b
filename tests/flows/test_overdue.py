"""A due date passes while inboxes are open: every feed that shows the request gets its new state."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import pytest

from models.ids import parse_public_id
from models.tables import PaymentRequest, Tick
from tests.flows.conftest import Team, opened


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_becoming_overdue_reaches_every_open_feed(team: Team) -> None:
    maria = await team.contact()
    request = await team.request(maria)
    await team.send(request)
    events = (
        "{ __typename ... on Event { cursor } ... on PaymentRequestUpdated { paymentRequest { id status isOverdue } } }"
    )
    queries = [
        f"subscription {{ inboxEvents {events} }}",
        f'subscription {{ conversationEvents(conversationId: "{maria["conversation"]["id"]}") {events} }}',
        f'subscription {{ contactPaymentEvents(contactId: "{maria["id"]}") {events} }}',
    ]
    dashboard = "subscription { dashboardEvents { __typename ... on Event { cursor } } }"
    async with AsyncExitStack() as stack:
        feeds = [await stack.enter_async_context(team.product.subscribe(query)) for query in queries]
        watching = await stack.enter_async_context(team.product.subscribe(dashboard, token=team.owner))
        for feed in [*feeds, watching]:
            await opened(feed)
        request_id = parse_public_id(request["id"], "pr")
        await PaymentRequest.filter(id=request_id).update(due_at=datetime.now(UTC) - timedelta(minutes=1))
        await Tick.filter(name="requests.overdue").update(next_at=datetime.now(UTC))
        for feed in feeds:
            while True:
                event = await feed.next()
                if event["__typename"] == "PaymentRequestUpdated" and event["paymentRequest"]["isOverdue"]:
                    break
            assert event["paymentRequest"] == {"id": request["id"], "status": "SENT", "isOverdue": True}
        assert (await watching.next())["__typename"] == "DashboardUpdated"
