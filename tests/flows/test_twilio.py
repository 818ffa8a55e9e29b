"""SMS through Twilio's SDK, HTTP and signed callbacks: sending, delivery reports, inbound messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import httpx2
import pytest

from integrations.kit.vendor import FailureMode
from models.tables import ChannelConnection, Job, Message, Notification
from services.core import jobs
from tests.configured import change_environment
from tests.contracts.twilio_server import ACCOUNT_SID, AUTH_TOKEN, FROM_NUMBER, TwilioServer, contracts, signed
from tests.flows import documents as d
from tests.flows import harness
from tests.flows.conftest import Team, opened
from tests.flows.harness import Product

CARDS = """query($id: ID!) { conversation(id: $id) { thread { nodes { ... on ActivityCard { kind message {
  id deliveryStatus resendOptions { channel { id } } } } } } } }"""
MARIA = "+14155552601"  # the number of the team's first contact


@pytest.fixture
async def twilio() -> AsyncIterator[TwilioServer]:
    async with TwilioServer(contracts()[0]) as server:
        yield server
        assert server.violations == []


@pytest.fixture
async def product(database: str, events_url: str, twilio: TwilioServer) -> AsyncIterator[Product]:
    """The server, connected to a fake Twilio with a short timeout."""
    async with harness.in_process(database, events_url, TWILIO_API_BASE=twilio.url) as running:
        change_environment(timeout_s=1.0)
        yield running


@pytest.fixture
async def texting(bare: Team) -> Team:
    """A team with the sandbox and one channel: SMS by Twilio."""
    await bare.connect_sandbox()
    credentials = {"account_sid": ACCOUNT_SID, "auth_token": AUTH_TOKEN, "from_number": FROM_NUMBER}
    payload = await bare.product.ok(
        d.CONNECT_CHANNEL,
        {
            "kind": "SMS",
            "provider": "twilio_sms",
            "displayName": "Text messages",
            "sender": FROM_NUMBER,
            "credentials": [{"name": name, "value": value} for name, value in credentials.items()],
        },
        token=bare.owner,
    )
    bare.channels["SMS"] = payload["channel"]["id"]
    return bare


def sends(twilio: TwilioServer) -> list[dict[str, list[str]]]:
    """What Twilio was asked to send."""
    return [
        parse_qs(call.raw_body.decode())
        for call in twilio.calls
        if call.operation is not None and call.operation.operation_id == "CreateMessage"
    ]


async def post(url: str, body: bytes, headers: dict[str, str]) -> int:
    async with httpx2.AsyncClient() as vendor:
        return (await vendor.post(url, content=body, headers=headers)).status_code


async def callback(twilio: TwilioServer, sid: str, status: str, *, error_code: int | None = None) -> int:
    """Twilio reports a message's delivery status."""
    return await post(*twilio.status_callback(sid, status, error_code=error_code))


def inbound_url(team: Team) -> str:
    return f"{team.product.base_url}/inbound/twilio_sms/{team.channels['SMS']}"


async def writes(team: Team, twilio: TwilioServer, text: str, sender: str = MARIA) -> int:
    """The contact sends a text message to our number."""
    return await post(inbound_url(team), *twilio.inbound(inbound_url(team), sender=sender, body=text))


async def status_of(team: Team, contact: dict[str, Any], message_id: str, *statuses: str) -> str:
    """The message's delivery status, once it is one of these."""
    async with asyncio.timeout(15):
        while True:
            (item,) = [i for i in await team.thread(contact) if i["id"] == message_id]
            if item["deliveryStatus"] in statuses:
                return str(item["deliveryStatus"])
            await asyncio.sleep(0.05)


async def icon(team: Team, contact: dict[str, Any]) -> tuple[bool, str | None]:
    conversation = await team.product.one(d.CHANNELS, {"id": contact["conversation"]["id"]})
    (found,) = [c["paymentRequests"] for c in conversation["channels"]]
    return found["enabled"], found["reason"]


async def refusal(team: Team, contact: dict[str, Any]) -> list[str]:
    """The codes that sending a message is refused with."""
    payload = await team.product.one(
        d.SEND_MESSAGE,
        {
            "input": {
                "idempotencyKey": harness.key(),
                "conversationId": contact["conversation"]["id"],
                "channelId": team.channels["SMS"],
                "body": "Hello again",
            }
        },
    )
    return [e["code"] for e in payload["userErrors"]]


async def test_a_request_is_queued_sent_and_delivered_live(texting: Team, twilio: TwilioServer) -> None:
    maria = await texting.contact()
    request = await texting.request(maria)
    async with texting.product.subscribe(d.CONVERSATION_EVENTS, {"id": maria["conversation"]["id"]}) as feed:
        await opened(feed)
        message = (await texting.send(request))["message"]
        assert message["deliveryStatus"] == "QUEUED"
        await feed.until("MessageUpdated", message__id=message["id"], message__deliveryStatus="SENT")
        assert (await texting.read(request))["deliveryState"] == "SENT"
        (form,) = sends(twilio)
        assert (form["To"], form["From"], form["Body"]) == ([MARIA], [FROM_NUMBER], [message["body"]])
        assert request["checkoutUrl"] in message["body"]
        sid = twilio.messages[0]["sid"]
        assert await callback(twilio, sid, "delivered") == 200
        await feed.until("MessageUpdated", message__id=message["id"], message__deliveryStatus="DELIVERED")
    assert (await texting.read(request))["deliveryState"] == "DELIVERED"
    # Late and repeated callbacks change nothing.
    assert [await callback(twilio, sid, status) for status in ("sent", "queued", "delivered", "failed")] == [200] * 4
    assert (await texting.read(request))["deliveryState"] == "DELIVERED"
    assert await texting.cards(maria) == [("PAYMENT_REQUEST", "SENT")]
    assert len(sends(twilio)) == 1


async def test_a_failed_delivery_is_a_card_and_the_link_stays(texting: Team, twilio: TwilioServer) -> None:
    maria = await texting.contact()
    request = await texting.request(maria)
    message = (await texting.send(request))["message"]
    await status_of(texting, maria, message["id"], "SENT")
    sid = twilio.messages[0]["sid"]
    assert [await callback(twilio, sid, "undelivered", error_code=30003) for _ in range(2)] == [200, 200]
    now = await texting.read(request)
    assert (now["deliveryState"], now["status"]) == ("FAILED", "SENT")
    assert [kind for kind, _ in await texting.cards(maria)] == ["PAYMENT_REQUEST", "DELIVERY_FAILED"]
    assert await Notification.filter(kind="DELIVERY_FAILED").count() == 1
    # The card offers where it can be sent again: here only the channel that it failed on.
    found = await texting.product.one(CARDS, {"id": maria["conversation"]["id"]})
    (card,) = [item for item in found["thread"]["nodes"] if item.get("kind") == "DELIVERY_FAILED"]
    option = {"channel": {"id": texting.channels["SMS"]}}
    assert card["message"] == {"id": message["id"], "deliveryStatus": "FAILED", "resendOptions": [option]}
    given = {"messageId": message["id"], "channelId": texting.channels["SMS"], "idempotencyKey": harness.key()}
    again = (await texting.product.ok(d.RESEND, given))["message"]
    assert again["retryOf"] == {"id": message["id"]}
    await status_of(texting, maria, again["id"], "SENT")
    assert (await texting.read(request))["deliveryState"] == "SENT"
    assert [kind for kind, _ in await texting.cards(maria)] == ["PAYMENT_REQUEST", "DELIVERY_FAILED"]
    assert await icon(texting, maria) == (True, None)
    async with texting.product.browser() as browser:
        assert (await browser.open(request["checkoutUrl"])).status == 200


async def test_what_a_contact_writes_appears_live_once_and_unread(texting: Team, twilio: TwilioServer) -> None:
    maria = await texting.contact()
    body, headers = twilio.inbound(inbound_url(texting), sender=MARIA, body="Are you coming on Thursday?")
    async with texting.inbox() as feed:
        await opened(feed)
        assert await post(inbound_url(texting), body, headers) == 200
        added = await feed.until("ThreadItemAdded", conversation__id=maria["conversation"]["id"])
        assert (added["edge"]["node"]["direction"], added["edge"]["node"]["body"]) == (
            "INBOUND",
            "Are you coming on Thursday?",
        )
        updated = await feed.until("ConversationUpdated", conversation__id=maria["conversation"]["id"])
        assert updated["conversation"]["unreadCount"] == 1
        # Twilio repeats what it got no answer to, also at the same time.
        assert await asyncio.gather(*(post(inbound_url(texting), body, headers) for _ in range(5))) == [200] * 5
        await feed.nothing()
    assert [(i["direction"], i["body"]) for i in await texting.thread(maria)] == [
        ("INBOUND", "Are you coming on Thursday?")
    ]
    listed = await texting.product.one(d.CONVERSATIONS)
    assert [(c["contact"]["id"], c["unreadCount"]) for c in listed["nodes"]] == [(maria["id"], 1)]


async def test_stop_turns_the_icon_off_and_start_on_again(texting: Team, twilio: TwilioServer) -> None:
    maria = await texting.contact()
    request = await texting.request(maria)
    assert await icon(texting, maria) == (True, None)
    assert await writes(texting, twilio, " Stop ") == 200
    assert await icon(texting, maria) == (False, "CONTACT_OPTED_OUT")
    assert await refusal(texting, maria) == ["CONTACT_OPTED_OUT"]
    payload = await texting.product.one(
        d.SEND_REQUEST,
        {
            "input": {
                "idempotencyKey": harness.key(),
                "paymentRequestId": request["id"],
                "channelId": texting.channels["SMS"],
            }
        },
    )
    assert [e["code"] for e in payload["userErrors"]] == ["CONTACT_OPTED_OUT"]
    assert (await texting.read(request))["status"] == "DRAFT"
    assert sends(twilio) == []
    assert await writes(texting, twilio, "START") == 200
    assert await icon(texting, maria) == (True, None)
    message = (await texting.send(request))["message"]
    await status_of(texting, maria, message["id"], "SENT")
    assert len(sends(twilio)) == 1


async def test_an_opt_out_that_only_the_callback_tells_is_remembered_until_start(
    texting: Team, twilio: TwilioServer
) -> None:
    maria = await texting.contact()
    message = (await texting.send(await texting.request(maria)))["message"]
    await status_of(texting, maria, message["id"], "SENT")
    sid = twilio.messages[0]["sid"]
    assert await callback(twilio, sid, "undelivered", error_code=21610) == 200
    assert await status_of(texting, maria, message["id"], "FAILED") == "FAILED"
    assert await icon(texting, maria) == (False, "CONTACT_OPTED_OUT")
    assert await refusal(texting, maria) == ["CONTACT_OPTED_OUT"]
    assert await writes(texting, twilio, "Start") == 200
    assert await callback(twilio, sid, "undelivered", error_code=21610) == 200  # repeated late: old news
    assert await icon(texting, maria) == (True, None)
    assert len(sends(twilio)) == 1


async def test_an_opt_out_that_twilio_knows_is_remembered(texting: Team, twilio: TwilioServer) -> None:
    maria = await texting.contact()
    twilio.opted_out.add(MARIA)
    message = (await texting.send(await texting.request(maria)))["message"]
    await status_of(texting, maria, message["id"], "FAILED")
    assert [kind for kind, _ in await texting.cards(maria)] == ["PAYMENT_REQUEST", "DELIVERY_FAILED"]
    assert await icon(texting, maria) == (False, "CONTACT_OPTED_OUT")
    assert len(sends(twilio)) == 1


@pytest.mark.parametrize("how", ["wrong secret", "no signature", "changed body", "other address", "other account"])
async def test_a_forged_callback_is_refused_and_stores_nothing(texting: Team, twilio: TwilioServer, how: str) -> None:
    maria = await texting.contact()
    message = (await texting.send(await texting.request(maria)))["message"]
    await status_of(texting, maria, message["id"], "SENT")
    url, status_body, status_headers = twilio.status_callback(twilio.messages[0]["sid"], "delivered")
    params = {name: values[0] for name, values in parse_qs(status_body.decode(), keep_blank_values=True).items()}
    text_body, text_headers = twilio.inbound(inbound_url(texting), sender=MARIA, body="STOP")
    text_params = {name: values[0] for name, values in parse_qs(text_body.decode(), keep_blank_values=True).items()}
    if how == "wrong secret":
        status_body, status_headers = signed(url, params, secret="not-the-token")
        text_body, text_headers = signed(inbound_url(texting), text_params, secret="not-the-token")
    elif how == "no signature":
        del status_headers["x-twilio-signature"], text_headers["x-twilio-signature"]
    elif how == "changed body":
        status_body, text_body = status_body + b"&Extra=1", text_body.replace(b"STOP", b"START")
    elif how == "other address":
        status_body, status_headers = signed(url + "0", params)
        text_body, text_headers = signed(inbound_url(texting) + "/", text_params)
    else:
        status_body, status_headers = signed(url, {**params, "AccountSid": "AC" + "9" * 32})
        text_body, text_headers = signed(inbound_url(texting), {**text_params, "AccountSid": "AC" + "9" * 32})
    assert await post(url, status_body, status_headers) == 400
    assert await post(inbound_url(texting), text_body, text_headers) == 400
    assert [m.delivery_status for m in await Message.all()] == ["SENT"]
    assert await icon(texting, maria) == (True, None)
    assert (await ChannelConnection.get(kind="SMS")).last_webhook_at is None


@pytest.mark.parametrize("failure", ["accept_then_500", "hang", "drop"])
async def test_a_lost_answer_is_unknown_never_sent_again_and_resolved_by_the_callback(
    texting: Team, twilio: TwilioServer, failure: FailureMode
) -> None:
    maria = await texting.contact()
    request = await texting.request(maria)
    twilio.fail_next(failure)
    message = (await texting.send(request))["message"]
    await status_of(texting, maria, message["id"], "UNKNOWN")
    assert (await texting.read(request))["deliveryState"] == "UNKNOWN"
    assert [m["body"] for m in twilio.messages] == [message["body"]]
    assert await callback(twilio, twilio.messages[0]["sid"], "delivered") == 200
    assert await status_of(texting, maria, message["id"], "DELIVERED") == "DELIVERED"
    assert (await texting.read(request))["deliveryState"] == "DELIVERED"
    assert len(sends(twilio)) == 1
    assert await texting.cards(maria) == [("PAYMENT_REQUEST", "SENT")]


async def test_what_surely_never_left_is_sent_again_and_arrives_once(texting: Team, twilio: TwilioServer) -> None:
    maria = await texting.contact()
    twilio.fail_next("rate_limit", times=2)
    message = (await texting.send(await texting.request(maria)))["message"]
    for calls in (1, 2):
        async with asyncio.timeout(15):  # each time the connection waits for as long as the limit asks …
            while (
                len(sends(twilio)) < calls
                or not await Job.filter(kind="message.send", status="queued", attempts=0).exists()
            ):
                await asyncio.sleep(0.05)
        assert (await Message.get(body=message["body"])).delivery_status == "QUEUED"
        assert (await ChannelConnection.get(kind="SMS")).next_send_at is not None
        # … which is over.
        await ChannelConnection.filter(kind="SMS").update(next_send_at=None)
        await Job.filter(kind="message.send").update(due_at=datetime.now(UTC))
        jobs.wake()
    await status_of(texting, maria, message["id"], "SENT")
    assert len(sends(twilio)) == 3
    assert [m["body"] for m in twilio.messages] == [message["body"]]
