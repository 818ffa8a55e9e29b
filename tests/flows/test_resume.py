"""Live feeds over sockets: resume by cursor, query then subscribe, two servers, a bus that fails, a stalled reader."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

import app
from models import database as db
from models import event_log
from models.event_log import Cursor, LogEntry
from models.ids import parse_public_id, public_id
from models.tables import Account, Job
from resolvers.transport.http import GraphQLView, get_view
from services.accounts import accounts
from services.sandbox import channels
from settings import Settings
from tests.flows import documents as d
from tests.flows import harness
from tests.flows.conftest import Team, opened
from tests.flows.harness import PASSWORD, Feed, GraphQLFailed, Product
from tests.servers import RedisServer, free_port

pytestmark = pytest.mark.slow

FEEDS = ("inbox", "conversation", "contact", "notifications")


def feed_of(team: Team, name: str, contact: dict[str, Any], after: str | None = None) -> Any:
    """One of the feeds that resume by cursor."""
    document, variables = {
        "inbox": (d.INBOX, {}),
        "conversation": (d.CONVERSATION_EVENTS, {"id": contact["conversation"]["id"]}),
        "contact": (d.CONTACT_EVENTS, {"id": contact["id"]}),
        "notifications": (d.NOTIFICATION_EVENTS, {}),
    }[name]
    return team.product.subscribe(document, {**variables, "after": after}, token=team.agent)


def brief(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """An event without the current state of its object."""
    return [(event["cursor"], event["__typename"]) for event in events]


async def writes(team: Team, kind: str, address: str, text: str) -> None:
    """A contact writes on a simulated channel."""
    channel = parse_public_id(team.channels[kind], "chn")
    assert channel is not None
    await channels.contact_writes(channel, address, text)


async def account_of(team: Team) -> Account:
    return await Account.get(id=UUID(team.account_id))


# ------------------------------------------------------------------------------------------------------------- cursor
async def fees_told() -> None:
    """The sandbox tells a payment's fee some seconds after the payment, which is an event of its own."""
    async with asyncio.timeout(20):
        while await Job.filter(kind__startswith="sandbox.", status__in=["queued", "running"]).exists():
            await asyncio.sleep(0.05)


async def test_a_cursor_gives_exactly_what_was_missed_in_order_on_every_feed(team: Team) -> None:
    maria, ben = await team.contact(), await team.contact("Ben Okafor", 2)
    async with contextlib.AsyncExitStack() as stack:
        feeds = {name: await stack.enter_async_context(feed_of(team, name, maria)) for name in FEEDS}
        for feed in feeds.values():
            await opened(feed)
        requests = [await team.request(contact) for contact in (maria, ben)]
        for request in requests:
            await team.send(request)
            await team.pay(request)
        await writes(team, "SMS", "+14155552601", "Paid!")
        await feeds["notifications"].until("NotificationAdded", edge__node__paymentRequest__id=requests[1]["id"])
        await fees_told()
        for feed in feeds.values():
            with contextlib.suppress(TimeoutError):
                while True:  # until it is quiet
                    await feed.next(within=0.7)
    live = {name: feed.seen for name, feed in feeds.items()}
    assert {name: seen[0]["__typename"] for name, seen in live.items()} == dict.fromkeys(FEEDS, "Subscribed")
    assert {e["__typename"] for e in live["conversation"][1:]} <= {e["__typename"] for e in live["inbox"][1:]}
    assert [e["__typename"] for e in live["notifications"][1:]] == ["NotificationAdded"] * 2
    account = UUID(team.account_id)
    for name, seen in live.items():
        numbers = [Cursor.decode(event["cursor"], account).seq for event in seen]
        assert numbers == sorted(set(numbers)), name
        for place in {0, len(seen) // 3, len(seen) // 2, len(seen) - 1}:
            async with feed_of(team, name, maria, after=seen[place]["cursor"]) as feed:
                assert (await opened(feed)).cursor == seen[place]["cursor"]
                for _ in seen[place + 1 :]:
                    await feed.next()
                assert brief(feed.seen[1:]) == brief(seen[place + 1 :]), name
                if place == len(seen) - 1:
                    await feed.nothing()


async def test_a_cursor_that_is_none_of_this_account_is_refused_on_every_feed(team: Team) -> None:
    maria = await team.contact()
    stranger, _ = await accounts.create_account(
        name="Other", currency="EUR", email="other@example.com", password=PASSWORD, user_name="Otto Other"
    )
    foreign = Cursor((await Account.get(id=stranger.id)).event_epoch, stranger.id, 0).encode()
    own = (await team.product.one(d.CONVERSATIONS))["eventCursor"]
    for name in FEEDS:
        for after in (foreign, "garbage", "", own[:20], "A" * 400):
            async with feed_of(team, name, maria, after=after) as feed:
                with pytest.raises(GraphQLFailed) as refused:
                    await feed.next()
            assert refused.value.code == "BAD_REQUEST", (name, after)
    async with feed_of(team, "inbox", maria, after=own) as feed:
        await opened(feed)


async def test_a_resync_is_asked_for_when_the_log_cannot_give_everything(team: Team) -> None:
    maria = await team.contact()
    account = await account_of(team)

    def cursor(seq: int) -> str:
        return Cursor(account.event_epoch, account.id, seq).encode()

    async def add(count: int) -> int:
        async with db.transaction():
            first = await event_log.reserve(account.id, count)
            conversation = parse_public_id(maria["conversation"]["id"], "cnv")
            entries = [
                LogEntry(
                    account_id=account.id,
                    seq=first + n,
                    kind="conversation.updated",
                    at=datetime.now(UTC),
                    conversation_id=conversation,
                )
                for n in range(count)
            ]
            await event_log.append(entries)
        return first + count - 1

    async def answers(after: str) -> dict[str, tuple[str, str | None]]:
        found = {}
        for name in FEEDS:
            async with feed_of(team, name, maria, after=after) as feed:
                event = await feed.next()
                found[name] = (event["__typename"], event.get("reason"))
                if event["__typename"] == "ResyncRequired":
                    assert event["cursor"] == cursor(head)
                    with pytest.raises(AssertionError, match="the feed ended"):
                        await feed.next()
        return found

    head = await add(1001)
    assert await answers(cursor(head + 1)) == dict.fromkeys(FEEDS, ("ResyncRequired", "AHEAD_OF_LOG"))
    assert await answers(cursor(head - 1001)) == dict.fromkeys(FEEDS, ("ResyncRequired", "TOO_FAR_BEHIND"))
    other = Cursor("restored", account.id, head).encode()
    assert await answers(other) == dict.fromkeys(FEEDS, ("ResyncRequired", "OTHER_EPOCH"))
    async with feed_of(team, "inbox", maria, after=cursor(head - 1000)) as feed:
        await opened(feed)
        for _ in range(1000):
            await feed.next()
        assert feed.cursor == cursor(head)
    # As old as its log: an audit would miss the entries of a young account.
    await Account.filter(id=account.id).update(created_at=datetime.now(UTC) - timedelta(days=31))
    await event_log.prune(datetime.now(UTC) + timedelta(days=31))
    assert await answers(cursor(head - 10)) == dict.fromkeys(FEEDS, ("ResyncRequired", "EXPIRED"))
    assert await answers(cursor(head)) == dict.fromkeys(FEEDS, ("Subscribed", None))


# ------------------------------------------------------------------------------------------------------ many at once
ALL_REQUESTS = """query($id: ID!) { contact(id: $id) { paymentRequests(first: 100) { eventCursor nodes { id } } } }"""
CLIENTS = 50
WRITERS = 4
WRITES = 12


async def test_fifty_clients_that_join_while_others_write_see_one_order_and_miss_nothing(team: Team) -> None:
    maria = await team.contact()
    dice = random.Random(50)
    # A credential may have 20 sockets.
    tokens = [await further_key(team, n) for n in range(4)]
    writing, joined = asyncio.Event(), asyncio.Semaphore(0)
    made: list[str] = []

    async def write() -> None:
        for _ in range(WRITES):
            made.append((await team.request(maria))["id"])
            if len(made) >= WRITERS:
                writing.set()

    async def client(n: int, last: asyncio.Future[str]) -> tuple[list[tuple[str, str]], set[str]]:
        await writing.wait()
        await asyncio.sleep(dice.uniform(0, 0.8))
        token = tokens[n % len(tokens)]
        found = (await team.product.one(ALL_REQUESTS, {"id": maria["id"]}, token=token))["paymentRequests"]
        known = {node["id"] for node in found["nodes"]}
        async with team.product.subscribe(d.INBOX, {"after": found["eventCursor"]}, token=token) as feed:
            assert (await opened(feed)).cursor == found["eventCursor"]
            joined.release()
            cursor = await last
            while feed.cursor != cursor:
                await feed.next()
        known |= {e["paymentRequest"]["id"] for e in feed.seen if e["__typename"] == "PaymentRequestUpdated"}
        return brief(feed.seen[1:]), known

    async with team.inbox() as reference:
        await opened(reference)
        last: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        clients = [asyncio.create_task(client(n, last)) for n in range(CLIENTS)]
        await asyncio.gather(*(write() for _ in range(WRITERS)))
        for _ in range(CLIENTS):  # who joins behind the mark would wait for it for ever
            await joined.acquire()
        mark = await team.contact("Last One", 99)
        await reference.until("ContactUpdated", contact__id=mark["id"])
        assert reference.cursor is not None
        last.set_result(reference.cursor)
        seen = await asyncio.gather(*clients)
    order = brief(reference.seen[1:])
    assert len(set(made)) == WRITERS * WRITES
    for events, known in seen:
        assert events == order[len(order) - len(events) :]
        assert known == set(made)
    assert min(len(events) for events, _ in seen) < len(order)  # some really joined in the middle


async def further_key(team: Team, n: int) -> str:
    """A further credential of the account: an API key."""
    payload = await team.product.ok(
        "mutation($input: CreateApiKeyInput!) { createApiKey(input: $input) { secret userErrors { code message } } }",
        {"name": f"client {n}", "role": "AGENT"},
        token=team.owner,
    )
    return str(payload["secret"])


# ------------------------------------------------------------------------------------------------------------ stalled
@pytest.fixture
def views(monkeypatch: pytest.MonkeyPatch) -> list[GraphQLView]:
    """The servers' GraphQL views, as they are made; who takes nothing for 0.3 s (instead of 10) is cut off."""
    made: list[GraphQLView] = []

    def make(schema: Any, **options: Any) -> GraphQLView:
        options["limits"] = dataclasses.replace(options["limits"], stalled_s=0.3)
        made.append(get_view(schema, **options))
        return made[-1]

    monkeypatch.setattr(app, "get_view", make)
    return made


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_socket_that_stalls_is_cut_and_the_others_get_everything(views: list[GraphQLView], team: Team) -> None:
    maria = await team.contact()
    url = team.product.base_url.replace("http", "ws", 1) + "/graphql"
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    small.setblocking(False)
    await asyncio.get_running_loop().sock_connect(small, ("127.0.0.1", int(team.product.base_url.rsplit(":", 1)[1])))
    async with contextlib.AsyncExitStack() as stack:
        stalled = await stack.enter_async_context(
            connect(url, sock=small, subprotocols=[Subprotocol("graphql-transport-ws")], max_queue=1, close_timeout=1)
        )
        await stalled.send(
            json.dumps({"type": "connection_init", "payload": {"Authorization": f"Bearer {team.agent}"}})
        )
        assert json.loads(await stalled.recv())["type"] == "connection_ack"
        for n in range(50):  # each message is pushed fifty times into this one socket
            payload = {"query": d.INBOX, "variables": {}}
            await stalled.send(json.dumps({"type": "subscribe", "id": str(n), "payload": payload}))
        for _ in range(50):
            cursor = next(iter(json.loads(await stalled.recv())["payload"]["data"].values()))["cursor"]
        stalled.transport.pause_reading()
        others: list[Feed] = [await stack.enter_async_context(team.inbox()) for _ in range(10)]
        for feed in others:
            await opened(feed)
        texts = [f"{n} " + "long " * 8000 for n in range(12)]
        for text in texts:
            await team.product.ok(
                d.SEND_MESSAGE,
                {
                    "idempotencyKey": harness.key(),
                    "conversationId": maria["conversation"]["id"],
                    "channelId": team.channels["EMAIL"],
                    "body": text,
                },
            )
        for feed in others:
            bodies: list[str] = []
            while len(bodies) < len(texts):
                event = await feed.next()
                if event["__typename"] == "ThreadItemAdded":
                    bodies.append(event["edge"]["node"]["body"])
            assert bodies == [text.strip() for text in texts]
        async with asyncio.timeout(20):
            while len(views[0].admission.connections) > len(others):
                await asyncio.sleep(0.05)
        stalled.transport.resume_reading()
        heard = 0
        with contextlib.suppress(ConnectionClosed):
            while True:
                message = json.loads(await asyncio.wait_for(stalled.recv(), 15))
                event = next(iter(message["payload"]["data"].values()))
                heard += event["__typename"] == "ThreadItemAdded"
        assert heard < 50 * len(texts)
        # It reconnects with its cursor and has everything.
        feed = await stack.enter_async_context(team.inbox(after=cursor))
        await opened(feed)
        added = [await feed.until("ThreadItemAdded") for _ in texts]
        assert [event["edge"]["node"]["body"] for event in added] == [text.strip() for text in texts]


# -------------------------------------------------------------------------------------------------------- two servers
@pytest.fixture
async def two(database: str) -> AsyncIterator[tuple[Team, Product, RedisServer]]:
    """A team on server A, server B on the same database, and their Redis, which does not run yet."""
    redis = RedisServer(port=free_port())
    values = {k.lower(): v for k, v in harness.environment(1, database, redis.url).items()}
    app.configure(Settings(_env_file=None, **values))  # type: ignore[call-arg, arg-type]
    async with (
        harness.process(database, redis.url) as (a, _),
        harness.process(database, redis.url) as (b, _),
    ):
        email = "olga@example.com"
        account, user = await accounts.create_account(
            name="Acme Cleaning", currency="USD", email=email, password=PASSWORD, user_name="Olga Owner"
        )
        token = await a.sign_in(email)
        a.token = b.token = token
        team = Team(product=a, account_id=str(account.id), owner=token, agent=token, agent_id=str(user.id))
        await team.connect_sandbox()
        try:
            yield team, b, redis
        finally:
            redis.stop()


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_what_happens_on_one_server_reaches_the_other_whatever_becomes_of_redis(
    two: tuple[Team, Product, RedisServer],
) -> None:
    team, b, redis = two
    maria = await team.contact()
    made: list[str] = []

    async def some_more(feed: Feed, count: int) -> None:
        expected = [(await team.request(maria))["id"] for _ in range(count)]
        made.extend(expected)
        for request_id in expected:
            event = await feed.until("PaymentRequestUpdated")
            assert event["paymentRequest"]["id"] == request_id

    assert (await team.product.http.get("/readyz")).status_code == 200  # also while the bus is away
    async with b.subscribe(d.INBOX) as feed:
        start = (await opened(feed)).cursor
        await some_more(feed, 5)  # dead from the beginning: the poll finds it
        await asyncio.to_thread(redis.start)
        await some_more(feed, 5)
        await asyncio.to_thread(redis.kill)
        await some_more(feed, 5)
        await asyncio.to_thread(redis.start)
        await some_more(feed, 5)
    async with team.product.subscribe(d.INBOX, {"after": start}) as again:  # B's cursor on A
        await opened(again)
        while again.cursor != feed.cursor:
            await again.next()
    assert brief(again.seen[1:]) == brief(feed.seen[1:])
    created = [e for e in feed.seen if e["__typename"] == "PaymentRequestUpdated"]
    assert [e["paymentRequest"]["id"] for e in created] == made


# ------------------------------------------------------------------------------------------- state + events = state
_REQUEST = """id status version voidPending deliveryState sentVia linkCopiedAt discardedAt lastAttempt { status }
  amountPaid { minorUnits } amountDue { minorUnits } payments { id status }"""
_MESSAGE = "id direction channelKind body deliveryStatus paymentRequests { id }"
_CARD = "id kind status text paymentRequest { id } payment { id }"
_CONVERSATION = "id unreadCount draft assignee { id } contact { id }"
_CONTACT = """id name tags addresses { kind address optedOutAt } paymentSummary { currency requested { minorUnits }
  outstanding { minorUnits } paid { minorUnits } net { minorUnits } openCount paidCount }"""
_THREAD = f"""thread(last: 50) {{ nodes {{ __typename
  ... on Message {{ {_MESSAGE} }} ... on ActivityCard {{ {_CARD} }} ... on Note {{ id body }} }} }}"""
LIST = f"{{ conversations(first: 20) {{ eventCursor nodes {{ {_CONVERSATION} }} }} }}"
DETAIL = f"""query($id: ID!) {{ conversation(id: $id) {{ contact {{ {_CONTACT} paymentRequests(first: 30) {{ nodes {{ {_REQUEST} }} }} }}
  {_THREAD} }} }}"""
CHANGES = f"""subscription($after: Cursor) {{ inboxEvents(after: $after) {{ __typename
  ... on Subscribed {{ cursor }}
  ... on ResyncRequired {{ cursor reason }}
  ... on AccountUpdated {{ cursor }}
  ... on ThreadItemAdded {{ cursor conversation {{ {_CONVERSATION} }} edge {{ node {{ __typename
    ... on Message {{ {_MESSAGE} }} ... on ActivityCard {{ {_CARD} }} ... on Note {{ id body }} }} }} }}
  ... on MessageUpdated {{ cursor message {{ __typename {_MESSAGE} }} }}
  ... on PaymentRequestUpdated {{ cursor paymentRequest {{ {_REQUEST} }} }}
  ... on ContactUpdated {{ cursor contact {{ {_CONTACT} }} }}
  ... on ContactMerged {{ cursor mergedContactId mergedConversationId
    contact {{ {_CONTACT} paymentRequests(first: 30) {{ nodes {{ {_REQUEST} }} }} }} conversation {{ {_CONVERSATION} {_THREAD} }} }}
  ... on ConversationUpdated {{ cursor conversation {{ {_CONVERSATION} }} }} }} }}"""

State = dict[str, dict[str, Any]]


async def fetch(team: Team) -> tuple[State, str]:
    """Everything that this client shows, and the cursor read before it."""
    found = await team.product.one(LIST)
    state: State = {"conversations": {}, "contacts": {}, "requests": {}, "items": {}, "order": {}}
    for conversation in found["nodes"]:
        detail = await team.product.one(DETAIL, {"id": conversation["id"]})
        contact, items = detail["contact"], detail["thread"]["nodes"]
        state["requests"] |= {request["id"]: request for request in contact.pop("paymentRequests")["nodes"]}
        state["contacts"][contact["id"]] = contact
        state["items"] |= {item["id"]: item for item in items}
        state["order"][conversation["id"]] = [item["id"] for item in items]
        state["conversations"][conversation["id"]] = conversation
    return state, found["eventCursor"]


def apply(state: State, event: dict[str, Any]) -> None:
    """Apply an event as an inbox does: its object replaces the one with the same id."""
    match event["__typename"]:
        case "ThreadItemAdded":
            item = event["edge"]["node"]
            state["items"][item["id"]] = item
            order = state["order"].setdefault(event["conversation"]["id"], [])
            if item["id"] not in order:
                order.append(item["id"])
        case "MessageUpdated":
            state["items"][event["message"]["id"]] = event["message"]
        case "PaymentRequestUpdated":
            request = event["paymentRequest"]
            if request["discardedAt"] is not None:
                state["requests"].pop(request["id"], None)
            elif request["version"] >= state["requests"].get(request["id"], {"version": 0})["version"]:
                state["requests"][request["id"]] = request
        case "ContactUpdated":
            state["contacts"][event["contact"]["id"]] = event["contact"]
        case "ContactMerged":
            contact, conversation = event["contact"], event["conversation"]
            del state["contacts"][event["mergedContactId"]]
            for part in ("conversations", "order"):
                del state[part][event["mergedConversationId"]]
            items = conversation.pop("thread")["nodes"]
            state["requests"] |= {request["id"]: request for request in contact.pop("paymentRequests")["nodes"]}
            state["contacts"][contact["id"]] = contact
            state["conversations"][conversation["id"]] = conversation
            state["items"] |= {item["id"]: item for item in items}
            state["order"][conversation["id"]] = [item["id"] for item in items]
        case "ConversationUpdated":
            conversation = event["conversation"]
            state["conversations"][conversation["id"]] = conversation
            state["order"].setdefault(conversation["id"], [])
        case "AccountUpdated":
            pass  # a new tag, which this client does not list
        case name:
            raise AssertionError(name)


BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/130.0"}
UPDATE_CONTACT = (
    f"mutation($input: UpdateContactInput!) {{ updateContact(input: $input) {{ contact {{ id }} {d.ERRORS} }} }}"
)


MERGE = f"mutation($input: MergeContactsInput!) {{ mergeContacts(input: $input) {{ contact {{ id }} {d.ERRORS} }} }}"


async def test_state_and_events_give_what_a_fresh_fetch_gives(team: Team) -> None:
    maria = await team.contact()
    conversation = {"conversationId": maria["conversation"]["id"]}
    agent = public_id("usr", UUID(team.agent_id))
    drafts = [await team.request(maria) for _ in range(6)]
    paid, declined, voided, discarded, copied, viewed = drafts
    for request in (paid, declined, voided):
        await team.send(request)
    state, cursor = await fetch(team)

    async def decline() -> None:
        async with team.product.browser() as browser:
            await browser.open(declined["checkoutUrl"])
            await browser.press("Pay")
            await browser.press("decline")

    async def view() -> None:
        async with httpx2.AsyncClient() as contact:
            # What the page's script says when somebody looks.
            answer = await contact.post(
                viewed["checkoutUrl"] + "/view", headers=BROWSER | {"Origin": team.product.base_url}
            )
            assert answer.status_code == 204, answer.status_code

    others: dict[str, dict[str, Any]] = {}

    async def add_ben() -> None:
        others["ben"] = await team.contact("Ben Okafor", 2)

    async def ask_ben() -> None:
        others["request"] = await team.request(others["ben"])
        await team.send(others["request"])

    send = {**conversation, "channelId": team.channels["SMS"], "body": f"Here: {copied['checkoutUrl']}"}
    actions: dict[str, Callable[[], Awaitable[object]]] = {
        "createPaymentRequest": lambda: team.request(maria, amount={"amount": "3.50"}),
        "recordLinkCopied": lambda: team.product.ok(d.COPIED, {"paymentRequestId": copied["id"]}),
        "saveDraft": lambda: team.product.ok(d.SAVE_DRAFT, {**conversation, "text": "Dear Maria"}),
        "sendMessage": lambda: team.product.ok(d.SEND_MESSAGE, {"idempotencyKey": harness.key(), **send}),
        "sendPaymentRequest": lambda: team.send(paid, "EMAIL"),
        "an inbound message": lambda: writes(team, "WHATSAPP", "+14155552601", "Thank you!"),
        "a stranger's message": lambda: writes(team, "WEB_CHAT", "visitor-77", "Hello?"),
        "an opt-out": lambda: writes(team, "SMS", "+14155552601", "STOP"),
        "markConversationRead": lambda: team.product.ok(d.MARK_READ, conversation),
        "addNote": lambda: team.product.ok(
            d.ADD_NOTE, {"idempotencyKey": harness.key(), **conversation, "body": "Ask Ben"}
        ),
        "updateConversationTags": lambda: team.product.ok(d.TAG_CONVERSATION, {**conversation, "add": ["VIP"]}),
        "assignConversation": lambda: team.product.ok(d.ASSIGN, {**conversation, "userId": agent}),
        "a view": view,
        "a decline": decline,
        "a payment": lambda: team.pay(paid),
        "voidPaymentRequest": lambda: team.product.ok(d.VOID, {"paymentRequestId": voided["id"]}),
        "discardPaymentRequest": lambda: team.product.ok(d.DISCARD, {"paymentRequestId": discarded["id"]}),
        "createContact": add_ben,
        "updateContact": lambda: team.product.ok(
            UPDATE_CONTACT, {"contactId": maria["id"], "name": "Maria Lopez-Ruiz"}
        ),
        "a request of Ben's": ask_ben,
        "mergeContacts": lambda: team.product.ok(
            MERGE, {"idempotencyKey": harness.key(), "contactId": maria["id"], "mergedContactId": others["ben"]["id"]}
        ),
        "a payment of the merged contact": lambda: team.pay(others["request"]),
        "a message of the merged contact": lambda: writes(team, "SMS", "+14155552602", "It is me"),
    }
    differences = 0
    async with team.product.subscribe(CHANGES, {"after": cursor}) as feed:
        await opened(feed)
        for name, act in actions.items():
            heard = len(feed.seen)
            await act()
            # At rest the two are equal; jobs may still be at work when the mutation answers.
            for _ in range(20):
                with contextlib.suppress(TimeoutError):
                    while True:
                        apply(state, await feed.next(within=0.15))
                fresh, _ = await fetch(team)
                if state == fresh and len(feed.seen) > heard:
                    break
            assert state == fresh, name
            assert len(feed.seen) > heard, f"{name} told nobody"
            differences += state != fresh
    assert differences == 0
    assert state["requests"][paid["id"]]["status"] == "PAID"
    assert discarded["id"] not in state["requests"]
