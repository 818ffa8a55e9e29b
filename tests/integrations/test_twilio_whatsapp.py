"""WhatsApp through Twilio: the real SDK against the contract server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest

from integrations.base import (
    ChannelKind,
    ChannelLimits,
    DeliveryStatus,
    Environment,
    InboundMessage,
    IntegrationError,
    OutboundMessage,
    PayloadInvalid,
    SendResult,
    SignatureInvalid,
    StatusUpdate,
    WebhookRequest,
)
from integrations.channels.twilio_whatsapp import Credentials, TwilioWhatsApp
from integrations.kit.vendor import FailureMode
from tests.contracts.openapi import vendor_file
from tests.contracts.twilio_server import (
    ACCOUNT_SID,
    AUTH_TOKEN,
    FROM_NUMBER,
    SERVICE_SID,
    TEMPLATE_SID,
    WHATSAPP,
    TwilioServer,
    contracts,
    signed,
)

PUBLIC = "https://pay.example.test"
URL = f"{PUBLIC}/inbound/twilio_whatsapp/chn_1"
STATUS_URL = f"{URL}?m=msg_1"
TO = "+14155550101"
LINK = f"{PUBLIC}/p/abc"
NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
CLOSED = "The 24 hours since the contact's last message are over; only an approved template can be sent."


@pytest.fixture(params=contracts(), ids=lambda contract: contract.name)
async def server(request: pytest.FixtureRequest) -> AsyncIterator[TwilioServer]:
    async with TwilioServer(request.param) as running:
        yield running
        assert running.violations == []


def make(address: str, *, timeout_s: float = 5.0, **changes: str) -> TwilioWhatsApp:
    values = {"account_sid": ACCOUNT_SID, "auth_token": AUTH_TOKEN, "from_number": FROM_NUMBER, **changes}
    environment = Environment(
        public_url=PUBLIC, sandbox_url="http://127.0.0.1:1", base_addresses={"twilio": address}, timeout_s=timeout_s
    )
    return TwilioWhatsApp(Credentials(**values), kind=ChannelKind.WHATSAPP, environment=environment)


@pytest.fixture
async def whatsapp(server: TwilioServer) -> AsyncIterator[TwilioWhatsApp]:
    channel = make(server.url)
    yield channel
    await channel.aclose()


def outbound(body: str = f"Pay here: {LINK}", **changes: Any) -> OutboundMessage:
    values = {"message_id": "msg_1", "attempt_id": "att_1", "to": TO, "body": body, "status_url": STATUS_URL}
    return OutboundMessage(**{**values, **changes})


def template(**changes: Any) -> OutboundMessage:
    return outbound(template_id=TEMPLATE_SID, template_variables={"1": LINK, "2": "Daña 👍"}, **changes)


def request(body: bytes, headers: Mapping[str, str], *, url: str = URL) -> WebhookRequest:
    return WebhookRequest(method="POST", public_url=url, headers=headers, body=body, now=NOW)


def test_the_limits_say_window_and_templates() -> None:
    assert make("").limits(ChannelKind.WHATSAPP) == ChannelLimits(
        max_length=1600, window_hours=24, link_preview=True, templates=True
    )


# ------------------------------------------------------------------------------------------------------------ sending
@pytest.mark.parametrize("sender", [FROM_NUMBER, WHATSAPP + FROM_NUMBER])
async def test_both_numbers_wear_the_prefix_once(server: TwilioServer, sender: str) -> None:
    channel = make(server.url, from_number=sender)
    result = await channel.send(outbound())
    await channel.aclose()
    assert result == SendResult(external_id=server.messages[0]["sid"], status=DeliveryStatus.SENT)
    assert parse_qs(server.calls[0].raw_body.decode()) == {
        "To": ["whatsapp:+14155550101"],
        "From": ["whatsapp:+14155550100"],
        "Body": [f"Pay here: {LINK}"],
        "StatusCallback": [STATUS_URL],
    }


async def test_a_template_goes_by_its_id_and_variables_and_without_a_text(
    server: TwilioServer, whatsapp: TwilioWhatsApp
) -> None:
    await whatsapp.send(template())
    form = parse_qs(server.calls[0].raw_body.decode())
    assert form["ContentSid"] == [TEMPLATE_SID]
    assert json.loads(form["ContentVariables"][0]) == {"1": LINK, "2": "Daña 👍"}
    assert "Body" not in form
    assert server.messages[0]["body"] == f"Your payment link: {LINK}. Thank you, Daña 👍!"


async def test_a_template_without_variables_sends_none(server: TwilioServer, whatsapp: TwilioWhatsApp) -> None:
    await whatsapp.send(outbound(template_id=TEMPLATE_SID))
    assert "ContentVariables" not in parse_qs(server.calls[0].raw_body.decode())


async def test_a_messaging_service_may_send(server: TwilioServer) -> None:
    channel = make(server.url, messaging_service_sid=SERVICE_SID, from_number="")
    await channel.send(template())
    await channel.aclose()
    form = parse_qs(server.calls[0].raw_body.decode())
    assert form["MessagingServiceSid"] == [SERVICE_SID]
    assert "From" not in form


@pytest.mark.parametrize(
    ("changes", "reason", "code"),
    [
        ({"to": "12"}, "invalid_recipient", "21211"),
        ({"to": "+14155550188"}, "opted_out", "21610"),
        ({"body": "a" * 1601}, "too_long", "21617"),
        ({"template_id": "HX" + "f" * 32}, "invalid_template", "21655"),
    ],
)
async def test_a_refusal_has_its_word_and_is_never_repeated(
    server: TwilioServer, whatsapp: TwilioWhatsApp, changes: dict[str, Any], reason: str, code: str
) -> None:
    server.opted_out.add("whatsapp:+14155550188")
    with pytest.raises(IntegrationError) as caught:
        await whatsapp.send(outbound(**changes))
    error = caught.value
    assert (error.provider, error.reason, error.code) == ("twilio_whatsapp", reason, code)
    assert (error.retryable, error.ambiguous) == (False, False)
    assert server.operations() == ["CreateMessage"]
    assert server.messages == []


async def test_a_number_that_is_no_whatsapp_sender_is_refused(server: TwilioServer) -> None:
    channel = make(server.url, from_number="+14155550111")
    with pytest.raises(IntegrationError) as caught:
        await channel.send(outbound())
    await channel.aclose()
    assert (caught.value.reason, caught.value.code, server.messages) == ("invalid_sender", "63007", [])


@pytest.mark.parametrize(
    ("mode", "reason"), [("accept_then_500", "server_error"), ("hang", "timeout"), ("drop", "connection_lost")]
)
@pytest.mark.parametrize("make_message", [outbound, template], ids=["text", "template"])
async def test_a_lost_answer_is_one_call_ambiguous_and_found_again(
    server: TwilioServer, mode: FailureMode, reason: str, make_message: Any
) -> None:
    before = datetime.now(UTC)
    channel = make(server.url, timeout_s=0.4 if mode == "hang" else 5.0)
    server.fail_next(mode)
    async with asyncio.timeout(20):
        with pytest.raises(IntegrationError) as caught:
            await channel.send(make_message())
    assert (caught.value.reason, caught.value.ambiguous, caught.value.retryable) == (reason, True, False)
    assert server.operations() == ["CreateMessage"]
    found = await channel.look_up(make_message(), sent_after=before)
    await channel.aclose()
    assert found is not None
    assert (found.external_id, found.status) == (server.messages[0]["sid"], DeliveryStatus.SENT)
    assert len(server.messages) == 1


async def test_a_look_up_of_a_template_needs_its_variables_in_exactly_one_message(
    server: TwilioServer, whatsapp: TwilioWhatsApp
) -> None:
    since = datetime.now(UTC) - timedelta(seconds=2)
    server.add(to=WHATSAPP + TO, body="Your payment link: another. Thank you!", sender=WHATSAPP + FROM_NUMBER)
    assert await whatsapp.look_up(template(), sent_after=since) is None
    assert await whatsapp.look_up(outbound(template_id=TEMPLATE_SID), sent_after=since) is None
    await whatsapp.send(template())
    found = await whatsapp.look_up(template(), sent_after=since)
    assert found is not None
    assert found.external_id == server.messages[1]["sid"]
    await whatsapp.send(template())
    assert await whatsapp.look_up(template(), sent_after=since) is None


async def test_an_sms_with_the_same_text_is_not_found(server: TwilioServer, whatsapp: TwilioWhatsApp) -> None:
    server.add(to=TO, body=outbound().body)
    assert await whatsapp.look_up(outbound(), sent_after=datetime.now(UTC) - timedelta(seconds=2)) is None


# ---------------------------------------------------------------------------------------------------------- receiving
async def test_a_message_is_sent_delivered_and_read(server: TwilioServer, whatsapp: TwilioWhatsApp) -> None:
    sent = await whatsapp.send(outbound())
    seen: list[StatusUpdate] = []
    for word in ("sent", "delivered", "read"):
        url, body, headers = server.status_callback(sent.external_id, word)
        assert url == STATUS_URL
        seen += whatsapp.receive(request(body, headers, url=url)).statuses
    assert [(update.external_id, update.status.value) for update in seen] == [
        (sent.external_id, "SENT"),
        (sent.external_id, "DELIVERED"),
        (sent.external_id, "READ"),
    ]


async def test_63016_in_the_callback_says_that_the_window_is_closed(
    server: TwilioServer, whatsapp: TwilioWhatsApp
) -> None:
    sent = await whatsapp.send(outbound())
    assert sent.status is DeliveryStatus.SENT
    url, body, headers = server.status_callback(sent.external_id, "failed", error_code=63016)
    assert whatsapp.receive(request(body, headers, url=url)).statuses == (
        StatusUpdate(
            external_id=sent.external_id,
            status=DeliveryStatus.FAILED,
            error_code="63016",
            error_message=CLOSED,
            reason="window_closed",
        ),
    )


async def test_an_answer_comes_with_its_name_and_without_the_prefix(
    server: TwilioServer, whatsapp: TwilioWhatsApp
) -> None:
    raw, headers = server.inbound(URL, sender=WHATSAPP + TO, body="Hola, ¿me envías el enlace?")
    received = whatsapp.receive(request(raw, headers))
    assert received.messages == (
        InboundMessage(
            external_id=server.messages[0]["sid"],
            sender=TO,
            body="Hola, ¿me envías el enlace?",
            recipient=FROM_NUMBER,
            sender_name="Dana Diaz",
            attachments=[],
        ),
    )
    assert (received.statuses, received.answer_body) == ((), "<Response/>")


@pytest.mark.parametrize("sender", [TO, "messenger:123", "whatsapp:", "whatsapp:whatsapp:+14155550101", ""])
def test_another_channels_message_is_not_taken(sender: str) -> None:
    form = {"MessageSid": "SM" + "a" * 32, "AccountSid": ACCOUNT_SID, "SmsStatus": "received", "From": sender}
    body, headers = signed(URL, {**form, "Body": "hi"})
    with pytest.raises(PayloadInvalid) as caught:
        make("").receive(request(body, headers))
    assert caught.value.reason == "channel_mismatch"


def test_the_vendors_signed_examples_are_read_and_their_forgeries_are_not() -> None:
    fixture = vendor_file("fixtures/twilio-webhooks.assembled.json")
    examples = [r for r in fixture["requests"] if "whatsapp" in json.dumps(r["params"])] if fixture else []
    channel = make("")
    read: dict[str, list[object]] = {}
    for example in examples:
        url, name = example["url"], "x-twilio-signature"
        body, headers = signed(url, example["params"])
        assert headers[name] == example["X-Twilio-Signature"]
        got = channel.receive(request(body, headers, url=url))
        read[example["name"]] = [
            *((s.status.value, s.error_code, s.reason) for s in got.statuses),
            *((m.sender, m.sender_name, m.body) for m in got.messages),
        ]
        assert channel.receive(request(body, headers, url=url)) == got  # a replay has the same message id
        for raw, given, address in (
            (body, {}, url),
            (body, {**headers, name: headers[name][:-1]}, url),
            (body, signed(url, example["params"], secret="guess")[1], url),
            (body[:-1], headers, url),
            (body.replace(b"whatsapp%3A%2B14155550101", b"whatsapp%3A%2B14155550102"), headers, url),
            (body, headers, url.replace("pay.example.test", "evil.example.test")),
        ):
            with pytest.raises(SignatureInvalid):
                channel.receive(request(raw, given, url=address))
    expected = {
        "inbound-whatsapp": [(TO, "Dana Diaz", "Hola, ¿me envías el enlace?")],
        "inbound-whatsapp-button": [(TO, "Dana Diaz", "Pay now")],
        "status-failed-63016": [("FAILED", "63016", "window_closed")],
        "status-whatsapp-read": [("READ", None, None)],
    }
    assert read == (expected if fixture else {})


# ------------------------------------------------------------------------------------------- messages without words
PLACE = {"Latitude": "52.520008", "Longitude": "13.404954"}
CARD = {"NumMedia": "1", "MediaUrl0": "https://api.twilio.com/a", "MediaContentType0": "text/vcard"}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (PLACE, "Location: 52.520008, 13.404954"),
        ({**PLACE, "Address": "Mill Lane 12"}, "Location: Mill Lane 12, 52.520008, 13.404954"),
        (
            {**PLACE, "Address": "Mill Lane 12", "Label": "Bakery"},
            "Location: Bakery, Mill Lane 12, 52.520008, 13.404954",
        ),
        ({**PLACE, "Address": "Mill Lane 12", "Body": "Mill Lane 12"}, "Location: Mill Lane 12, 52.520008, 13.404954"),
        ({**PLACE, "Body": "Here!"}, "Here!\nLocation: 52.520008, 13.404954"),
        ({"Latitude": "-7", "Longitude": "-110.5"}, "Location: -7, -110.5"),
        ({"Latitude": "here", "Longitude": "1", "Body": "Hi"}, "Hi"),
        ({"ButtonText": "Yes, please", "ButtonPayload": "yes", "MessageType": "button"}, "Yes, please"),
        ({"Body": "Yes", "ButtonText": "Yes", "ButtonPayload": "yes"}, "Yes"),
        ({"ListId": "deep", "ListTitle": "Deep clean", "MessageType": "interactive"}, "Deep clean"),
        ({"ButtonPayload": "yes"}, "yes"),
        (CARD, "[contact card]"),
        ({**CARD, "Body": "Call her"}, "Call her"),
        ({**CARD, "MediaContentType0": "image/jpeg"}, ""),  # shown by its file
        ({"Address": "Mill Lane 12", "Label": "Bakery"}, "Location: Bakery, Mill Lane 12"),
        ({"InteractiveData": '{"day": "Monday"}', "MessageType": "interactive"}, '{"day": "Monday"}'),
        ({"MessageType": "order"}, "[order message that can't be shown here]"),
        ({"MessageType": "unsupported"}, "[unsupported message that can't be shown here]"),
    ],
)
def test_a_message_without_words_says_what_it_is(more: dict[str, str], expected: str) -> None:
    form = {"MessageSid": "SM" + "a" * 32, "AccountSid": ACCOUNT_SID, "SmsStatus": "received", "From": WHATSAPP + TO}
    body, headers = signed(URL, {**form, "Body": "", **more})
    message = make("").receive(request(body, headers)).messages[0]
    assert message.body == expected
    assert len(message.attachments) == int(more.get("NumMedia", "0"))


def test_an_answer_names_the_message_that_it_answers() -> None:
    form = {"MessageSid": "SM" + "a" * 32, "AccountSid": ACCOUNT_SID, "SmsStatus": "received", "From": WHATSAPP + TO}
    body, headers = signed(URL, {**form, "Body": "That one", "OriginalRepliedMessageSid": "MM" + "b" * 32})
    assert make("").receive(request(body, headers)).messages[0].in_reply_to == "MM" + "b" * 32
