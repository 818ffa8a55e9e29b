"""The server is killed and restarted on the same port: resuming by cursor gives every card once, and no message is sent twice."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed

import app
from models import database as db
from models.event_log import Cursor
from models.ids import parse_public_id
from models.tables import Message, MoneyFact, Notification, ProcessorEvent
from settings import Settings
from tests.contracts import stripe_contract, twilio_server
from tests.contracts.stripe_server import SECRET_KEY, WEBHOOK_SECRET, StripeServer
from tests.contracts.twilio_server import ACCOUNT_SID, AUTH_TOKEN, FROM_NUMBER, TwilioServer
from tests.flows import documents as d
from tests.flows import harness
from tests.flows.conftest import Team, opened
from tests.flows.harness import Feed, Process, Product

pytestmark = pytest.mark.slow

AT_ONCE = 3  # requests that are paid in one round
ROUNDS = ("in flight", "at the answer", "a moment later")


@pytest.fixture
async def stripe() -> AsyncIterator[StripeServer]:
    async with StripeServer(stripe_contract.contracts()[0]) as server:
        yield server
        assert server.violations == []


@pytest.fixture
async def twilio() -> AsyncIterator[TwilioServer]:
    async with TwilioServer(twilio_server.contracts()[0]) as server:
        yield server
        assert server.violations == []


@pytest.fixture
async def running(
    database: str, events_url: str, stripe: StripeServer, twilio: TwilioServer
) -> AsyncIterator[tuple[Product, Process]]:
    """The server as a process; this process has the same settings, to create the account."""
    values = {k.lower(): v for k, v in harness.environment(1, database, events_url).items()}
    app.configure(Settings(_env_file=None, **values))  # type: ignore[call-arg, arg-type]
    async with harness.process(database, events_url, STRIPE_API_BASE=stripe.url, TWILIO_API_BASE=twilio.url) as (
        product,
        server,
    ):
        yield product, server


@pytest.fixture
def product(running: tuple[Product, Process]) -> Product:
    return running[0]


@pytest.fixture
def server(running: tuple[Product, Process]) -> Process:
    return running[1]


@pytest.fixture
async def shop(bare: Team) -> Team:
    """A team with Stripe and six simulated channels."""
    await bare.connect_channels()
    payload = await bare.product.ok(
        d.CONFIGURE_PROCESSOR,
        {"credentials": {"stripe": {"secretKey": SECRET_KEY, "webhookSecret": WEBHOOK_SECRET}}},
        token=bare.owner,
    )
    bare.processor = payload["processor"]
    return bare


async def press_pay(team: Team, request: dict[str, Any]) -> str:
    """The contact presses Pay; return the id of Stripe's checkout session."""
    async with httpx2.AsyncClient() as contact:
        answer = await contact.post(
            request["checkoutUrl"] + "/pay", headers={"Origin": team.product.base_url}, follow_redirects=False
        )
    assert answer.status_code == 303, answer.text
    return answer.headers["location"].rsplit("/", 1)[1].split("#")[0]


async def deliver(team: Team, stripe: StripeServer, event: dict[str, Any]) -> int | None:
    """Stripe posts the event; return the status, or None without a response."""
    body, headers = stripe.webhook(event)
    try:
        async with httpx2.AsyncClient() as vendor:
            return (await vendor.post(team.processor["webhookUrl"], content=body, headers=headers)).status_code
    except httpx2.TransportError:
        return None


async def listen(feed: Feed) -> None:
    """Take events until the connection is cut."""
    with contextlib.suppress(ConnectionClosed, TimeoutError):
        while True:
            await feed.next(within=20)


async def pay_and_kill(
    team: Team, stripe: StripeServer, server: Process, events: list[dict[str, Any]], *, when: str, dice: random.Random
) -> list[int | None]:
    """Stripe delivers all events concurrently while the server is killed; return the responses."""
    posts = [asyncio.create_task(deliver(team, stripe, event)) for event in events]
    if when == "in flight":
        await asyncio.sleep(dice.uniform(0, 0.02))
    else:
        await asyncio.wait(posts, return_when=asyncio.FIRST_COMPLETED)
        if when == "a moment later":
            await asyncio.sleep(dice.uniform(0, 0.05))
    await server.kill()
    return list(await asyncio.gather(*posts))


def told(events: list[dict[str, Any]]) -> tuple[Counter[str], Counter[str]]:
    """For each request: how many events said that it became PAID, and how many PAYMENT_RECEIVED cards arrived."""
    paid = [
        e["paymentRequest"]["id"]
        for e in events
        if e["__typename"] == "PaymentRequestUpdated" and e["card"] and e["card"]["kind"] == "PAYMENT_RECEIVED"
    ]
    cards = [
        e["edge"]["node"]["paymentRequest"]["id"]
        for e in events
        if e["__typename"] == "ThreadItemAdded" and e["edge"]["node"].get("kind") == "PAYMENT_RECEIVED"
    ]
    return Counter(paid), Counter(cards)


async def everything_since(team: Team, cursor: str | None, last: str) -> list[dict[str, Any]]:
    """The events that a subscriber with this cursor gets, up to the cursor `last`."""
    async with team.inbox(after=cursor) as feed:
        await opened(feed)
        while feed.cursor != last:
            await feed.next()
    seen: list[dict[str, Any]] = feed.seen[1:]
    return seen


async def test_a_kill_between_webhook_and_push_loses_no_card_and_doubles_none(
    shop: Team, stripe: StripeServer, server: Process
) -> None:
    maria = await shop.contact()
    dice = random.Random(9)
    everyone: list[str] = []
    for when in ROUNDS:
        requests = [await shop.request(maria) for _ in range(AT_ONCE)]
        sessions = [await press_pay(shop, request) for request in requests]
        ids = {request["id"] for request in requests}
        everyone += ids
        events = [stripe.pay(session) for session in sessions]
        async with shop.inbox() as feed:
            start = (await opened(feed)).cursor
            listening = asyncio.create_task(listen(feed))
            answers = await pay_and_kill(shop, stripe, server, events, when=when, dice=dice)
            await listening
        assert set(answers) <= {200, None}
        before_the_kill, cursor = feed.seen[1:], feed.cursor

        await server.start()
        async with shop.inbox(after=cursor) as feed:
            await opened(feed)
            # The vendor repeats the events that got no response.
            again = [event for event, answer in zip(events, answers, strict=True) if answer is None]
            assert [await deliver(shop, stripe, event) for event in again] == [200] * len(again)
            while min(len(told(before_the_kill + feed.seen)[0]), len(told(before_the_kill + feed.seen)[1])) < AT_ONCE:
                await feed.next()
            mark = await shop.request(maria)
            await feed.until("PaymentRequestUpdated", paymentRequest__id=mark["id"])
        seen = before_the_kill + feed.seen[1:]
        assert told(seen) == (Counter(ids), Counter(ids))
        # Cut and resumed, or never cut: the same events in the same order.
        whole = await everything_since(shop, start, seen[-1]["cursor"])
        assert [(e["cursor"], e["__typename"]) for e in seen] == [(e["cursor"], e["__typename"]) for e in whole]
        cards = await shop.cards(maria)
        assert Counter(kind for kind, _ in cards) == {
            "PAYMENT_REQUEST": len(everyone),
            "PAYMENT_RECEIVED": len(everyone),
        }
    assert [f.outcome for f in await MoneyFact.filter(kind="CHARGE")] == ["SUCCEEDED"] * len(everyone)
    told_users = Counter(n.payment_request_id for n in await Notification.filter(kind="PAYMENT_RECEIVED"))
    assert set(told_users.values()) == {1}
    assert len(told_users) == len(everyone)
    assert await ProcessorEvent.filter(handled_at=None).count() == 0
    (holes,) = await db.rows(
        "SELECT a.event_seq - count(e.seq) AS count FROM account a JOIN event e ON e.account_id = a.id GROUP BY a.id"
    )
    assert holes["count"] == 0


async def test_a_kill_while_twilio_is_asked_sends_nothing_twice_and_loses_nothing(
    bare: Team, twilio: TwilioServer, server: Process
) -> None:
    team = bare
    credentials = [{"name": "account_sid", "value": ACCOUNT_SID}, {"name": "auth_token", "value": AUTH_TOKEN}]
    payload = await team.product.ok(
        d.CONNECT_CHANNEL,
        {
            "kind": "SMS",
            "provider": "twilio_sms",
            "sender": FROM_NUMBER,
            "credentials": [*credentials, {"name": "from_number", "value": FROM_NUMBER}],
        },
        token=team.owner,
    )
    maria = await team.contact()
    other = await team.contact("Ada Byron", 2)

    async def write(body: str, contact: dict[str, Any] = maria) -> UUID:
        message = (
            await team.product.ok(
                d.SEND_MESSAGE,
                {
                    "idempotencyKey": harness.key(),
                    "conversationId": contact["conversation"]["id"],
                    "channelId": payload["channel"]["id"],
                    "body": body,
                },
            )
        )["message"]
        found = parse_public_id(message["id"], "msg")
        assert found is not None
        return found

    async def statuses() -> list[str]:
        return [m.delivery_status for m in await Message.all().order_by("seq")]

    def texts() -> list[str]:
        sent = [call for call in twilio.calls if call.operation and call.operation.operation_id == "CreateMessage"]
        return [parse_qs(call.raw_body.decode())["Body"][0] for call in sent]

    twilio.fail_next("hang")
    first = await write("first")
    async with asyncio.timeout(15):
        while len(texts()) < 1:
            await asyncio.sleep(0.02)
    await write("second")  # waits for the first: one conversation and channel go out in order
    assert await statuses() == ["SENDING", "QUEUED"]
    await server.kill()
    await server.start()
    assert await statuses() == ["SENDING", "QUEUED"]
    # Another conversation does not wait until the killed process's lease is over; this one does, and no longer.
    await write("third", other)
    async with asyncio.timeout(20):
        while (await statuses())[2] != "SENT":
            await asyncio.sleep(0.02)
    assert await statuses() == ["SENDING", "QUEUED", "SENT"]
    async with asyncio.timeout(30):
        while await statuses() != ["UNKNOWN", "SENT", "SENT"]:
            await asyncio.sleep(0.05)
    assert texts() == ["first", "third", "second"]

    # Twilio had accepted it; its callback reports that.
    url, body, headers = twilio.status_callback(twilio.messages[0]["sid"], "delivered")
    async with httpx2.AsyncClient() as vendor:
        assert (await vendor.post(url, content=body, headers=headers)).status_code == 200
    assert await statuses() == ["DELIVERED", "SENT", "SENT"]
    assert (await Message.get(id=first)).external_id == twilio.messages[0]["sid"]
    assert texts() == ["first", "third", "second"]


async def test_a_cursor_is_good_on_the_next_process(shop: Team, server: Process) -> None:
    maria = await shop.contact()
    async with shop.inbox() as feed:
        await opened(feed)
        request = await shop.request(maria)
        await feed.until("PaymentRequestUpdated", paymentRequest__id=request["id"])
        created = await feed.until("ContactUpdated")  # its totals have a new currency
    await server.kill()
    await server.start()
    await shop.product.ok(d.COPIED, {"paymentRequestId": request["id"]})
    async with shop.inbox(after=created["cursor"]) as feed:
        assert (await opened(feed)).cursor == created["cursor"]
        copied = await feed.until("PaymentRequestUpdated", paymentRequest__id=request["id"])
    account = parse_public_id((await shop.product.one(d.SETTINGS))["id"], "acc")
    assert account is not None
    assert Cursor.decode(copied["cursor"], account).seq == Cursor.decode(created["cursor"], account).seq + 1
