"""SMS, WhatsApp, email, Messenger and Instagram over their real protocols: request, delivery, reply, payment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.policy import SMTP as WIRE
from typing import Any
from urllib.parse import parse_qs

import httpx2
import pytest

from integrations.channels.smtp_email import SIGNATURE_HEADER
from integrations.signatures import sign
from models.tables import ActivityCard, ChannelConnection, Message
from services.payments import integrity_check
from tests.contracts import meta_server, twilio_server
from tests.contracts.meta_server import INSTAGRAM_ID, PAGE_ID, MetaServer
from tests.contracts.smtp_server import MailServer, report
from tests.contracts.twilio_server import ACCOUNT_SID, AUTH_TOKEN, FROM_NUMBER, WHATSAPP, TwilioServer
from tests.flows import documents as d
from tests.flows import harness
from tests.flows.conftest import Team, new_team, opened
from tests.flows.harness import Feed, Product

MARIA_MAIL = "maria1@example.com"  # of the team's first contact, as are the next two
MARIA_PHONE = "+14155552601"
MARIA_AT_META = "24000000000000001"
OUR_MAIL = "pay@acme.test"
MAIL_SECRET = "a-secret-of-the-mailbox"


@pytest.fixture
async def twilio() -> AsyncIterator[TwilioServer]:
    async with TwilioServer(twilio_server.contracts()[0]) as server:
        yield server
        assert server.violations == []


@pytest.fixture
async def meta() -> AsyncIterator[MetaServer]:
    async with MetaServer(meta_server.contracts()[0]) as server:
        yield server
        assert server.violations == []


@pytest.fixture
async def mail() -> AsyncIterator[MailServer]:
    async with MailServer() as server:
        yield server


@pytest.fixture
async def product(database: str, events_url: str, twilio: TwilioServer, meta: MetaServer) -> AsyncIterator[Product]:
    """The server, connected to fake vendors."""
    async with harness.in_process(database, events_url, TWILIO_API_BASE=twilio.url, META_API_BASE=meta.url) as running:
        yield running
        assert [str(difference) for difference in await integrity_check.audit()] == []


class Line:
    """A connected channel with one contact, and the feed of the conversation."""

    def __init__(self, team: Team, kind: str, provider: str, contact: Mapping[str, Any]) -> None:
        self.team, self.kind, self.provider, self.contact = team, kind, provider, dict(contact)

    @classmethod
    async def connect(cls, team: Team, kind: str, provider: str, sender: str, credentials: Mapping[str, str]) -> Line:
        """connectChannel, as the owner; the contact is made afterwards."""
        await team.connect_sandbox()
        payload = await team.product.ok(
            d.CONNECT_CHANNEL,
            {
                "kind": kind,
                "provider": provider,
                "displayName": f"Our {kind}",
                "sender": sender,
                "credentials": [{"name": name, "value": value} for name, value in credentials.items()],
            },
            token=team.owner,
        )
        assert (payload["channel"]["kind"], payload["channel"]["connected"]) == (kind, True)
        team.channels[kind] = payload["channel"]["id"]
        addresses = [{"kind": name, "address": MARIA_AT_META} for name in ("MESSENGER", "INSTAGRAM_DM")]
        return cls(team, kind, provider, await team.contact(addresses=addresses))

    @property
    def url(self) -> str:
        """What is pasted at the vendor."""
        return f"{self.team.product.base_url}/inbound/{self.provider}/{self.team.channels[self.kind]}"

    def feed(self) -> Any:
        return self.team.product.subscribe(d.CONVERSATION_EVENTS, {"id": self.contact["conversation"]["id"]})

    async def icon(self) -> tuple[bool, str | None]:
        """Whether the $ icon is on, and why not."""
        conversation = await self.team.product.one(d.CHANNELS, {"id": self.contact["conversation"]["id"]})
        (found,) = [c["paymentRequests"] for c in conversation["channels"]]
        return found["enabled"], found["reason"]

    async def taken(self, body: bytes, headers: Mapping[str, str], url: str | None = None) -> str:
        """The vendor posts a callback twice and gets 200; return the response's text."""
        async with httpx2.AsyncClient() as vendor:
            answers = [await vendor.post(url or self.url, content=body, headers=dict(headers)) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 200]
        return answers[0].text

    async def appears(self, feed: Feed, text: str) -> None:
        """The contact's message arrives live."""
        added = await feed.until("ThreadItemAdded", edge__node__direction="INBOUND")
        assert added["edge"]["node"]["body"] == text

    async def asks(self, feed: Feed) -> tuple[dict[str, Any], dict[str, Any]]:
        """The agent sends a request and sees it sent: (request, message)."""
        request = await self.team.request(self.contact)
        message = (await self.team.send(request, self.kind))["message"]
        assert message["deliveryStatus"] == "QUEUED"
        assert request["checkoutUrl"] in message["body"]
        await self.becomes(feed, request, message, "SENT")
        return request, message

    async def becomes(self, feed: Feed, request: dict[str, Any], message: dict[str, Any], status: str) -> None:
        """The message's new status arrives live, and the request has it too."""
        await feed.until("MessageUpdated", message__id=message["id"], message__deliveryStatus=status)
        assert (await self.team.read(request))["deliveryState"] == status

    async def is_paid(self, feed: Feed, request: dict[str, Any]) -> None:
        """The contact pays on the link: the card turns Paid live, a second one is logged, and nothing was sent twice."""
        await self.team.pay(request)
        await self.team.until_paid(feed, request)
        assert await self.team.cards(self.contact) == [("PAYMENT_REQUEST", "SENT"), ("PAYMENT_RECEIVED", "PAID")]
        items = await self.team.thread(self.contact)
        assert {i["paymentRequest"]["status"] for i in items if i["__typename"] == "ActivityCard"} == {"PAID"}


async def status_of(message: Mapping[str, Any], line: Line, *statuses: str) -> str:
    """The message's delivery status, once it is one of these."""
    async with asyncio.timeout(15):
        while True:
            (item,) = [i for i in await line.team.thread(line.contact) if i["id"] == message["id"]]
            if item["deliveryStatus"] in statuses:
                return str(item["deliveryStatus"])
            await asyncio.sleep(0.05)


# ---------------------------------------------------------------------------------------------------------------- SMS
async def test_sms_from_the_request_to_paid_and_the_answer_comes_in(bare: Team, twilio: TwilioServer) -> None:
    credentials = {"account_sid": ACCOUNT_SID, "auth_token": AUTH_TOKEN, "from_number": FROM_NUMBER}
    line = await Line.connect(bare, "SMS", "twilio_sms", FROM_NUMBER, credentials)
    assert await line.icon() == (True, None)
    async with line.feed() as feed:
        await opened(feed)
        request, message = await line.asks(feed)
        (sent,) = [m for m in twilio.messages if m["to"] == MARIA_PHONE]
        url, body, headers = twilio.status_callback(sent["sid"], "delivered")
        await line.taken(body, headers, url)
        await line.becomes(feed, request, message, "DELIVERED")
        await line.taken(*twilio.inbound(line.url, sender=MARIA_PHONE, body="Thank you"))
        await line.appears(feed, "Thank you")
        await line.is_paid(feed, request)
    assert len([m for m in twilio.messages if m["to"] == MARIA_PHONE]) == 1


OTHER_NUMBER = "+14155550199"
PREFERRED = "query($id: ID!) { conversation(id: $id) { channels { preferred channel { id } messages { reason } } } }"


async def test_an_answer_to_one_of_two_numbers_starts_there_and_a_stop_to_it_holds_for_both(
    bare: Team, twilio: TwilioServer
) -> None:
    credentials = {"account_sid": ACCOUNT_SID, "auth_token": AUTH_TOKEN, "from_number": FROM_NUMBER}
    line = await Line.connect(bare, "SMS", "twilio_sms", FROM_NUMBER, credentials)
    twilio.numbers.add(OTHER_NUMBER)
    named = {**credentials, "from_number": OTHER_NUMBER}.items()
    given = {"provider": "twilio_sms", "credentials": [{"name": name, "value": value} for name, value in named]}
    connected = await bare.product.ok(d.CONNECT_CHANNEL, {"kind": "SMS", **given}, token=bare.owner)
    second = connected["channel"]["id"]
    other_url = line.url.replace(bare.channels["SMS"], second)

    async def asked() -> dict[str, tuple[bool, str | None]]:
        found = await bare.product.one(PREFERRED, {"id": line.contact["conversation"]["id"]})
        return {c["channel"]["id"]: (c["preferred"], c["messages"]["reason"]) for c in found["channels"]}

    await line.taken(*twilio.inbound(other_url, sender=MARIA_PHONE, body="Hi", To=OTHER_NUMBER), other_url)
    assert await asked() == {bare.channels["SMS"]: (False, None), second: (True, None)}
    request = await bare.request(line.contact)
    bare.channels["OTHER"] = second
    message = (await bare.send(request, "OTHER"))["message"]
    await status_of(message, line, "SENT")
    assert [m["from"] for m in twilio.messages if m["to"] == MARIA_PHONE] == [OTHER_NUMBER]
    await line.taken(*twilio.inbound(other_url, sender=MARIA_PHONE, body="Stop!", To=OTHER_NUMBER), other_url)
    assert {reason for _, reason in (await asked()).values()} == {"CONTACT_OPTED_OUT"}
    await line.taken(*twilio.inbound(line.url, sender=MARIA_PHONE, body="START"))  # to the number that was not stopped
    assert {reason for _, reason in (await asked()).values()} == {"CONTACT_OPTED_OUT"}
    await line.taken(*twilio.inbound(other_url, sender=MARIA_PHONE, body="Start", To=OTHER_NUMBER), other_url)
    assert await asked() == {bare.channels["SMS"]: (False, None), second: (True, None)}


# ----------------------------------------------------------------------------------------------------------- WhatsApp
async def whatsapp(team: Team) -> Line:
    credentials = {"account_sid": ACCOUNT_SID, "auth_token": AUTH_TOKEN, "from_number": FROM_NUMBER}
    return await Line.connect(team, "WHATSAPP", "twilio_whatsapp", FROM_NUMBER, credentials)


async def test_whatsapp_from_the_contacts_first_word_to_paid(bare: Team, twilio: TwilioServer) -> None:
    line = await whatsapp(bare)
    assert await line.icon() == (False, "MESSAGING_WINDOW_CLOSED")
    async with line.feed() as feed:
        await opened(feed)
        sender = WHATSAPP + MARIA_PHONE
        await line.taken(*twilio.inbound(line.url, sender=sender, body="Do you clean ovens?"))
        await line.appears(feed, "Do you clean ovens?")
        assert await line.icon() == (True, None)
        request, message = await line.asks(feed)
        (call,) = [c for c in twilio.calls if c.operation is not None and c.operation.operation_id == "CreateMessage"]
        form = parse_qs(call.raw_body.decode())
        assert (form["To"], form["From"]) == ([sender], [WHATSAPP + FROM_NUMBER])
        assert form["Body"] == [message["body"]]
        sid = next(m["sid"] for m in twilio.messages if m["to"] == sender)
        for word in ("delivered", "read"):
            url, body, headers = twilio.status_callback(sid, word)
            await line.taken(body, headers, url)
            await line.becomes(feed, request, message, word.upper())
        await line.taken(*twilio.inbound(line.url, sender=sender, body="Thank you"))
        await line.appears(feed, "Thank you")
        await line.is_paid(feed, request)
    assert len([m for m in twilio.messages if m["to"] == sender]) == 1
    assert [i["body"] for i in await bare.thread(line.contact) if i.get("direction") == "INBOUND"] == [
        "Do you clean ovens?",
        "Thank you",
    ]


async def test_whatsapps_closed_window_is_told_by_the_card(bare: Team, twilio: TwilioServer) -> None:
    line = await whatsapp(bare)
    async with line.feed() as feed:
        await opened(feed)
        await line.taken(*twilio.inbound(line.url, sender=WHATSAPP + MARIA_PHONE, body="Hi"))
        request, message = await line.asks(feed)
        url, body, headers = twilio.status_callback(twilio.messages[-1]["sid"], "undelivered", error_code=63016)
        await line.taken(body, headers, url)
        await line.becomes(feed, request, message, "FAILED")
    assert (await Message.get(direction="OUTBOUND")).error_code == "window_closed"
    assert "the time to answer the contact's last message" in (await ActivityCard.get(kind="DELIVERY_FAILED")).text
    assert (await bare.read(request))["status"] == "SENT"  # the link still works


# -------------------------------------------------------------------------------------------------------------- email
def signed_mail(raw: bytes, *, secret: str = MAIL_SECRET) -> tuple[bytes, dict[str, str]]:
    """An email as a mail service's inbound route posts it."""
    now = datetime.now(UTC)
    return raw, {"content-type": "message/rfc822", SIGNATURE_HEADER: sign(secret, raw, at=now)}


def letter(text: str, *, answers: EmailMessage) -> bytes:
    """The contact's reply, as a mail program writes it."""
    made = EmailMessage(policy=WIRE)
    made["From"] = f"Maria Lopez <{MARIA_MAIL}>"
    made["To"] = str(answers["Reply-To"] or answers["From"])
    made["Subject"] = f"Re: {answers['Subject']}"
    made["Message-ID"] = "<answer-1@mail.example.com>"
    made["In-Reply-To"] = made["References"] = str(answers["Message-ID"])
    made.set_content(text)
    return made.as_bytes()


async def test_email_from_the_request_to_paid_in_one_thread(bare: Team, mail: MailServer) -> None:
    credentials = {
        "host": "127.0.0.1",
        "port": str(mail.port),
        "security": "none",
        "from_address": OUR_MAIL,
        "inbound_secret": MAIL_SECRET,
    }
    line = await Line.connect(bare, "EMAIL", "smtp_email", "Answers@acme.test", credentials)
    assert await line.icon() == (True, None)
    async with line.feed() as feed:
        await opened(feed)
        request, message = await line.asks(feed)
        (out,) = mail.letters
        assert (out.sender, out.recipients) == (OUR_MAIL, [MARIA_MAIL])
        assert (out.message["Subject"], out.message["Reply-To"]) == ("Acme Cleaning: Deep clean", "answers@acme.test")
        assert (out.message["In-Reply-To"], out.message["Auto-Submitted"]) == (None, None)
        assert out.text("plain") == message["body"]
        assert f'<a href="{request["checkoutUrl"]}" style=' in out.text("html")
        assert ">Pay now</a>" in out.text("html")
        await line.taken(*signed_mail(report(out.message, "delivered", to=MARIA_MAIL)))
        await line.becomes(feed, request, message, "DELIVERED")
        answer = letter("When do you come?", answers=out.message)
        async with httpx2.AsyncClient() as anybody:
            forged, headers = signed_mail(answer, secret="another")
            assert (await anybody.post(line.url, content=forged, headers=headers)).status_code == 400
        await line.taken(*signed_mail(answer))
        # A reply proves that the message was read.
        await line.becomes(feed, request, message, "READ")
        await line.appears(feed, "When do you come?")
        received = await Message.get(direction="INBOUND")
        assert (received.subject, received.external_id) == (
            "Re: Acme Cleaning: Deep clean",
            "<answer-1@mail.example.com>",
        )
        again = await bare.product.ok(
            d.SEND_MESSAGE,
            {
                "idempotencyKey": harness.key(),
                "conversationId": line.contact["conversation"]["id"],
                "channelId": bare.channels["EMAIL"],
                "body": "On Thursday",
            },
        )
        await feed.until("MessageUpdated", message__id=again["message"]["id"], message__deliveryStatus="SENT")
        second = mail.letters[1].message
        assert second["In-Reply-To"] == "<answer-1@mail.example.com>"
        assert second["References"].split() == [str(out.message["Message-ID"]).strip(), "<answer-1@mail.example.com>"]
        assert "Pay now" not in mail.letters[1].text("html")
        await line.is_paid(feed, request)
    assert len(mail.letters) == 2


# ----------------------------------------------------------------------------------------------- Messenger, Instagram
async def at_meta(team: Team, kind: str, **more: str) -> Line:
    credentials = {
        "account_id": PAGE_ID if kind == "MESSENGER" else INSTAGRAM_ID,
        "access_token": meta_server.ACCESS_TOKEN,
        "app_secret": meta_server.APP_SECRET,
        "verify_token": meta_server.VERIFY_TOKEN,
        **more,
    }
    return await Line.connect(team, kind, "meta_messenger", "acmecleaning", credentials)


def our_account(line: Line) -> str:
    return PAGE_ID if line.kind == "MESSENGER" else INSTAGRAM_ID


async def story_at_meta(line: Line, meta: MetaServer) -> None:
    account = our_account(line)
    # Meta's form checks the address before it sends anything.
    query = {"hub.mode": "subscribe", "hub.verify_token": meta_server.VERIFY_TOKEN, "hub.challenge": "1158201444"}
    checked = await line.team.product.http.get(line.url, params=query)
    assert (checked.status_code, checked.text) == (200, "1158201444")
    wrong = await line.team.product.http.get(line.url, params={**query, "hub.verify_token": "guessed"})
    assert wrong.status_code == 400
    assert await line.icon() == (False, "MESSAGING_WINDOW_CLOSED")
    async with line.feed() as feed:
        await opened(feed)
        assert await line.taken(*meta.inbound(account, MARIA_AT_META, "Do you clean ovens?")) == "EVENT_RECEIVED"
        await line.appears(feed, "Do you clean ovens?")
        assert await line.icon() == (True, None)
        request, message = await line.asks(feed)
        (sent,) = meta.messages
        assert (sent["to"], sent["body"]["messaging_type"]) == (MARIA_AT_META, "RESPONSE")
        assert sent["body"]["message"]["attachment"]["payload"] == {
            "template_type": "button",
            "text": message["body"],
            "buttons": [{"type": "web_url", "url": request["checkoutUrl"], "title": "Pay now"}],
        }
        sent = {**sent, "from": account}  # what events say of a message that a page sent for its Instagram account
        await line.taken(*meta.status(sent, "echo"))
        await line.taken(*meta.status(sent, "delivery"))
        await line.becomes(feed, request, message, "DELIVERED")
        await line.taken(*meta.status(sent, "read"))
        await line.becomes(feed, request, message, "READ")
        await line.taken(*meta.inbound(account, MARIA_AT_META, "Thank you", reply_to={"mid": sent["mid"]}))
        await line.appears(feed, "Thank you")
        await line.is_paid(feed, request)
    assert len(meta.messages) == 1
    assert [m.delivery_status for m in await Message.filter(direction="OUTBOUND")] == ["READ"]


async def test_messenger_from_the_contacts_first_word_to_paid(bare: Team, meta: MetaServer) -> None:
    await story_at_meta(await at_meta(bare, "MESSENGER"), meta)


async def test_instagram_of_a_page_from_the_contacts_first_word_to_paid(bare: Team, meta: MetaServer) -> None:
    line = await at_meta(bare, "INSTAGRAM_DM", page_id=PAGE_ID)
    await story_at_meta(line, meta)
    calls = [call.path for call in meta.calls if call.method == "POST"]
    assert calls == [f"/v26.0/{PAGE_ID}/messages"]  # sent by the page that the account is connected to


async def test_instagram_from_the_contacts_first_word_to_paid(bare: Team, meta: MetaServer) -> None:
    await story_at_meta(await at_meta(bare, "INSTAGRAM_DM"), meta)
    row = await Message.get(direction="OUTBOUND")
    assert row.external_id is not None
    assert row.external_id.startswith("sha256:")  # Instagram's ids are longer than we keep


async def test_messengers_lost_answer_is_resolved_by_the_echo_that_names_our_message(
    bare: Team, meta: MetaServer
) -> None:
    line = await at_meta(bare, "MESSENGER")
    await line.taken(*meta.inbound(PAGE_ID, MARIA_AT_META, "Hi"))
    request = await bare.request(line.contact)
    meta.fail_next("accept_then_500")
    message = (await bare.send(request, "MESSENGER"))["message"]
    await status_of(message, line, "UNKNOWN")
    (sent,) = meta.messages
    await line.taken(*meta.status(sent, "echo"))
    assert await status_of(message, line, "SENT") == "SENT"
    await line.taken(*meta.status(sent, "delivery"))
    assert (await bare.read(request))["deliveryState"] == "DELIVERED"
    assert len(meta.messages) == 1


async def test_metas_closed_window_is_told_by_the_card(bare: Team, meta: MetaServer) -> None:
    line = await at_meta(bare, "MESSENGER")
    await line.taken(*meta.inbound(PAGE_ID, MARIA_AT_META, "Hi"))
    meta.last_wrote[MARIA_AT_META] = datetime.now(UTC) - timedelta(hours=25)
    message = (await bare.send(await bare.request(line.contact), "MESSENGER"))["message"]
    await status_of(message, line, "FAILED")
    assert (await Message.get(direction="OUTBOUND")).error_code == "window_closed"
    assert "the time to answer the contact's last message" in (await ActivityCard.get(kind="DELIVERY_FAILED")).text
    assert meta.messages == []


@pytest.mark.parametrize("wrong", ["access_token", "account_id"])
async def test_wrong_credentials_connect_nothing(bare: Team, meta: MetaServer, wrong: str) -> None:
    credentials = {
        "account_id": PAGE_ID,
        "access_token": meta_server.ACCESS_TOKEN,
        "app_secret": meta_server.APP_SECRET,
        "verify_token": meta_server.VERIFY_TOKEN,
    } | {wrong: "100000000000009"}
    payload = await bare.product.one(
        d.CONNECT_CHANNEL,
        {
            "input": {
                "kind": "MESSENGER",
                "provider": "meta_messenger",
                "displayName": "Our page",
                "credentials": [{"name": name, "value": value} for name, value in credentials.items()],
            }
        },
        token=bare.owner,
    )
    assert [(e["code"], e["field"]) for e in payload["userErrors"]] == [("INVALID", ["input", "credentials"])]
    assert payload["channel"] is None
    assert await ChannelConnection.all().count() == 0


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_mail_server_in_a_private_network_is_not_connected_to_and_looks_like_an_unknown_one(
    database: str, mail: MailServer
) -> None:
    """The response reveals neither whether a server listens there nor whether the name resolves."""
    allowed = f"127.0.0.1:{mail.port}"
    async with harness.in_process(database, "memory://", ALLOWED_PRIVATE_HOSTS=allowed) as running:
        team = await new_team(running)

        async def connect(host: str, port: int, **more: str) -> list[dict[str, Any]]:
            values = {"host": host, "port": str(port), "security": "none", "from_address": OUR_MAIL, **more}
            given = {
                "kind": "EMAIL",
                "provider": "smtp_email",
                "credentials": [{"name": name, "value": value} for name, value in values.items()],
            }
            payload = await running.one(d.CONNECT_CHANNEL, {"input": given}, token=team.owner)
            errors: list[dict[str, Any]] = payload["userErrors"]
            return errors

        hosts = (
            "localhost",
            "0.0.0.0",  # noqa: S104
            "2130706433",
            "127.1",
            "::1",
            "::ffff:127.0.0.1",
            "169.254.169.254",
            "10.0.0.1",
        )
        answers = {str(await connect(host, 25)) for host in (*hosts, "127.0.0.1", "nobody.invalid")}
        (refusal,) = answers
        assert "No mail server with a public address has this name." in refusal
        assert "'credentials', '0', 'value'" in refusal
        (port_refusal,) = {str(await connect(host, mail.port)) for host in (*hosts, "nobody.invalid")}
        assert "A mail server's port must be one of 25, 465, 587, 2525." in port_refusal
        assert mail.commands == []
        assert await ChannelConnection.filter(provider="smtp_email").count() == 0
        assert await connect("127.0.0.1", mail.port) == []  # as the operator allows it
        assert mail.commands == ["EHLO", "QUIT"]
