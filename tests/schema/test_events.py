"""Events contain the objects and edges that a normalised cache needs, and are answered by plans."""

from __future__ import annotations

import asyncio
from typing import Any, get_args

import pytest

from models import tables
from models.ids import public_id
from models.ledger import Facet
from schema.events import EventCause, PaymentRequestFacet
from schema.scalars import time_text
from services.core import actors
from services.core.unit_of_work import change
from services.messaging import contacts, conversations
from services.payments import payment_requests, voids
from services.thread import notifications
from tests import factories
from tests.schema.conftest import Api, event, statements
from tests.schema.test_subscriptions import create, factories_notification, send
from tests.services.conftest import Team

NODE = "__typename id occurredAt ... on Message { body deliveryStatus } ... on ActivityCard { kind text paymentRequest { id } }"
ROW = "id preview lastActivityAt unreadCount draft closedAt assignee { id name } contact { id name }"
REQUEST = "id number status amount { amount currency formatted } contact { id } conversation { id }"
INBOX = f"""subscription {{ inboxEvents {{ __typename
  ... on Event {{ cursor }}
  ... on ThreadItemAdded {{ edge {{ __typename cursor node {{ {NODE} }} again: node {{ id }} }} conversation {{ {ROW} }}
    contact {{ id name tags paymentSummary {{ currency outstanding {{ amount }} }} }} }}
  ... on PaymentRequestUpdated {{ paymentRequestEdge {{ __typename cursor node {{ {REQUEST} }} }} previousStatus card {{ id }}
    paymentRequest {{ {REQUEST} }} }}
  ... on MessageUpdated {{ message {{ id deliveryStatus }} conversation {{ {ROW} }} }}
  ... on ContactUpdated {{ contact {{ id name }} }}
  ... on ConversationUpdated {{ conversation {{ {ROW} }} }}
}} }}"""
LISTS = f"""query($id: ID!) {{ conversation(id: $id) {{ {ROW} thread {{ edges {{ __typename cursor node {{ {NODE} }} }} }}
  contact {{ paymentRequests {{ edges {{ cursor node {{ {REQUEST} }} }} }} }} }} }}"""


async def test_an_events_edge_is_the_one_of_the_list(team: Team, api: Api) -> None:
    async with api.subscribe(INBOX) as stream:
        await event(stream)
        request = await create(team)
        created = await event(stream)
        await send(team, request)
        added = [found for found in [await event(stream) for _ in range(4)] if found["__typename"] == "ThreadItemAdded"]
    shown = await api.one(LISTS, {"id": public_id("cnv", team.conversation.id)})
    (in_list,) = shown["contact"].pop("paymentRequests")["edges"]
    edge = created["paymentRequestEdge"]
    assert (edge["cursor"], edge["node"]["id"]) == (in_list["cursor"], in_list["node"]["id"])
    edges = shown["thread"]["edges"]
    for found in added:
        assert found["edge"].pop("again") == {"id": found["edge"]["node"]["id"]}
    assert [found["edge"] for found in added] == edges
    assert len(edges) == 2
    # The row of the inbox comes with the item: preview, time and place.
    row = {name: value for name, value in shown.items() if name != "thread"}
    assert added[-1]["conversation"] == row
    assert row["preview"] == edges[-1]["node"]["text"]


async def test_a_first_request_in_a_currency_updates_the_contacts_totals(team: Team, api: Api) -> None:
    async with api.subscribe(INBOX) as stream:
        await event(stream)
        for number, currency in enumerate(("USD", "USD", "JPY")):
            await payment_requests.create(
                team.agent,
                contact_id=team.contact.id,
                product_name="Clean",
                amount="10",
                currency=currency,
                idempotency_key=f"key-number-{number}",
            )
        async with asyncio.timeout(5):
            seen = [(await event(stream))["__typename"] for _ in range(5)]
    assert seen == ["PaymentRequestUpdated", "ContactUpdated"] + ["PaymentRequestUpdated"] * 2 + ["ContactUpdated"]


FACETS = """subscription { inboxEvents { __typename ... on PaymentRequestUpdated { previousStatus changed } } }"""


async def test_an_event_names_what_has_changed(team: Team, api: Api) -> None:
    async def facets(stream: Any) -> list[str]:
        found: dict[str, Any] = {}
        while found.get("__typename") != "PaymentRequestUpdated":
            found = await event(stream)
        return list(found["changed"])

    async with api.subscribe(FACETS) as stream:
        await event(stream)
        request = await create(team)
        assert await facets(stream) == ["STATUS"]
        await send(team, request)
        assert await facets(stream) == ["STATUS", "DELIVERY"]
        await payment_requests.record_link_copied(team.agent, request.id)
        assert await facets(stream) == ["DELIVERY"]
        await voids.void(team.agent, payment_request_id=request.id)
        assert await facets(stream) == ["VOID"]  # pending
        assert await facets(stream) == ["STATUS", "VOID"]
        logged = await tables.PaymentRequest.get(id=request.id)
        async with change(team.account.id) as changed:
            changed.event("payment_request.updated", payment_request_id=logged.id, data={"previous_status": "VOID"})
            later = {"previous_status": "VOID", "changed": ["VIEWS", "COLOR"]}
            changed.event("payment_request.updated", payment_request_id=logged.id, data=later)
        assert await facets(stream) == list(PaymentRequestFacet.__members__)  # of an older version
        assert await facets(stream) == ["VIEWS"]  # of a newer one


def test_the_facets_of_the_api_are_those_of_the_log() -> None:
    assert list(PaymentRequestFacet.__members__) == [facet.value for facet in Facet]


async def test_only_a_new_request_has_an_edge(team: Team, api: Api) -> None:
    async with api.subscribe(INBOX) as stream:
        await event(stream)
        request = await create(team)
        assert (await event(stream))["paymentRequestEdge"] is not None
        assert (await event(stream))["__typename"] == "ContactUpdated"  # its first in this currency
        for _ in range(2):
            async with change(team.account.id) as changed:
                changed.request_event("updated", request, previous_status="DRAFT", facets=())
            assert (await event(stream))["paymentRequestEdge"] is None


async def test_events_of_an_inbox_are_planned(team: Team, api: Api, planned: list[str]) -> None:
    seen: list[str] = []
    async with api.subscribe(INBOX) as stream:
        await event(stream)
        await send(team, await create(team))
        await contacts.update_contact(team.agent, team.contact.id, changes={"name": "Maya T."})
        await conversations.save_draft(team.agent, team.conversation.id, "Hi")
        while not seen or seen[-1] != "ConversationUpdated":
            seen.append((await event(stream))["__typename"])
    assert {"PaymentRequestUpdated", "ThreadItemAdded", "ContactUpdated"} <= set(seen)
    assert len(planned) == len(seen) + 1  # and Subscribed


CAUSES = """subscription($after: Cursor) { inboxEvents(after: $after) { __typename
  ... on Event { cursor occurredAt cause actor { __typename ... on User { id name } ... on ApiKey { id name }
    ... on Contact { id name } ... on SystemActor { name } } } } }"""


async def test_an_event_says_when_it_happened_and_who_caused_it(team: Team, api: Api, planned: list[str]) -> None:
    key = await factories.api_key(team.account, "ptk_some_key_that_is_long", name="Shop")
    agent, contact = await tables.User.get(id=team.agent.user_id), team.contact
    by = {
        "USER": (actors.user(agent.id), "User", {"id": public_id("usr", agent.id), "name": agent.name}),
        "API_KEY": (actors.ActorRef("API_KEY", key.id), "ApiKey", {"id": public_id("key", key.id), "name": "Shop"}),
        "CONTACT": (
            actors.contact(contact.id),
            "Contact",
            {"id": public_id("cnt", contact.id), "name": contact.name},
        ),
        "PROCESSOR": (actors.processor("Stripe"), "SystemActor", {"name": "Stripe"}),
        "CHANNEL": (actors.channel("Our SMS"), "SystemActor", {"name": "Our SMS"}),
        "SYSTEM": (actors.PAYTHREAD, "SystemActor", {"name": "Paythread"}),
    }
    assert by.keys() == EventCause.__members__.keys() == set(get_args(actors.Kind))
    async with api.subscribe(CAUSES) as stream:
        first = await event(stream)
        assert (first["cause"], first["actor"]) == ("SYSTEM", None)
        for cause, (ref, kind, shown) in by.items():
            async with change(team.account.id, actor=ref) as changed:
                changed.event("contact.updated", contact_id=team.contact.id, conversation_id=team.conversation.id)
            found = await event(stream)
            assert found["actor"] == {"__typename": kind} | shown
            assert (found["cause"], found["occurredAt"]) == (cause, time_text(changed.now))
    assert len(planned) == len(by) + 1


async def test_an_entry_of_an_older_version_has_no_actor(team: Team, api: Api) -> None:
    async with api.subscribe(CAUSES) as stream:
        await event(stream)
        await factories.message(team.conversation)  # logs without an actor
        found = await event(stream)
    assert (found["__typename"], found["cause"], found["actor"]) == ("ThreadItemAdded", "SYSTEM", None)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_an_event_takes_few_statements(team: Team, api: Api) -> None:
    request = await create(team)
    async with api.subscribe(INBOX) as stream:
        await event(stream)
        await factories.activity_card(request)
        async with statements() as seen:
            await event(stream)
    reads = [one for one in seen if one.startswith("SELECT") and "FROM event " not in one and "event_seq" not in one]
    # Card, request, conversation, its contact, the contact, its summary: by the plan, then by the stock executor to compare.
    assert 6 <= len(reads) <= 2 * 6, "\n".join(reads)


async def test_the_bell_follows_from_events(team: Team, api: Api) -> None:
    document = """subscription { notificationEvents { __typename ... on Event { cursor }
      ... on NotificationAdded { edge { cursor node { id title readAt } } viewer { id unreadNotificationCount } }
      ... on NotificationsRead { viewer { id unreadNotificationCount } } } }"""
    query = "{ viewer { id unreadNotificationCount } notifications { edges { cursor node { id title readAt } } } }"

    async def bell() -> Any:
        return await api.all(query)

    async with api.subscribe(document) as stream:
        await event(stream)
        for number in (1, 2):
            async with change(team.account.id) as changed:
                row = await factories_notification(await tables.User.get(id=team.agent.user_id))
                row.key += str(number)
                changed.notification(row)
            added = await event(stream)
            shown = await bell()
            assert added["edge"] == shown["notifications"]["edges"][0]
            assert added["viewer"] == shown["viewer"]
            assert added["viewer"]["unreadNotificationCount"] == number
        await notifications.mark_read(team.agent, None)
        assert (await event(stream))["viewer"] == (await bell())["viewer"]
