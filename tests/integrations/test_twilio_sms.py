"""Twilio SMS: the real SDK over HTTP against the contract server."""

from __future__ import annotations

import asyncio
import base64
import copy
import logging
import socket
import traceback
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from integrations.base import (
    ChannelKind,
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
from integrations.channels.twilio_sms import STATES, Credentials, TwilioSms
from integrations.kit.vendor import FailureMode, LoopbackServer
from integrations.twilio_errors import REASONS, WORDS
from tests.contracts.openapi import Contract, vendor_file
from tests.contracts.twilio_server import (
    ACCOUNT_SID,
    API_KEY_SECRET,
    API_KEY_SID,
    AUTH_TOKEN,
    FROM_NUMBER,
    SERVICE_SID,
    VENDOR_FILE,
    TwilioServer,
    contracts,
    our_contract,
    signature,
    signed,
)

PUBLIC = "https://pay.example.test"
URL = f"{PUBLIC}/inbound/twilio_sms/chn_1"
STATUS_URL = f"{URL}?message=msg_1.3f9a"
TO = "+14155550101"
NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)


@pytest.fixture(params=contracts(), ids=lambda contract: contract.name)
async def server(request: pytest.FixtureRequest) -> AsyncIterator[TwilioServer]:
    async with TwilioServer(request.param) as running:
        yield running
        assert running.violations == []


def credentials(**changes: str) -> Credentials:
    values = {"account_sid": ACCOUNT_SID, "auth_token": AUTH_TOKEN, "from_number": FROM_NUMBER, **changes}
    return Credentials(**values)


def make(address: str, changes: Mapping[str, str] | None = None, *, timeout_s: float = 5.0, **more: str) -> TwilioSms:
    environment = Environment(
        public_url=PUBLIC,
        sandbox_url="http://127.0.0.1:1",
        base_addresses={"twilio": address} if address else {},
        timeout_s=timeout_s,
    )
    return TwilioSms(credentials(**(changes or {}), **more), kind=ChannelKind.SMS, environment=environment)


@pytest.fixture
async def twilio(server: TwilioServer) -> AsyncIterator[TwilioSms]:
    channel = make(server.url)
    yield channel
    await channel.aclose()


def outbound(body: str = "Pay here: https://pay.example.test/p/abc", **changes: Any) -> OutboundMessage:
    values = {"message_id": "msg_1", "attempt_id": "att_1", "to": TO, "body": body, "status_url": STATUS_URL}
    return OutboundMessage(**{**values, **changes})


def inbound_request(body: bytes, headers: Mapping[str, str], *, url: str = URL) -> WebhookRequest:
    return WebhookRequest(method="POST", public_url=url, headers=headers, body=body, now=NOW)


# ------------------------------------------------------------------------------------------------------------ sending
async def test_a_message_is_sent_once_with_sender_and_callback(server: TwilioServer, twilio: TwilioSms) -> None:
    result = await twilio.send(outbound())
    assert result == SendResult(external_id=server.messages[0]["sid"], status=DeliveryStatus.SENT)
    assert server.operations() == ["CreateMessage"]
    assert parse_qs(server.calls[0].raw_body.decode()) == {
        "To": [TO],
        "From": [FROM_NUMBER],
        "Body": ["Pay here: https://pay.example.test/p/abc"],
        "StatusCallback": [STATUS_URL],
    }


async def test_a_messaging_service_replaces_the_number(server: TwilioServer) -> None:
    channel = make(server.url, messaging_service_sid=SERVICE_SID)
    result = await channel.send(outbound(status_url=None))
    await channel.aclose()
    assert result.status is DeliveryStatus.SENT
    form = parse_qs(server.calls[0].raw_body.decode())
    assert form["MessagingServiceSid"] == [SERVICE_SID]
    assert "From" not in form
    assert "StatusCallback" not in form
    assert server.messages[0]["status"] == "accepted"


async def test_an_api_key_signs_in_instead_of_the_auth_token(server: TwilioServer) -> None:
    channel = make(server.url, api_key_sid=API_KEY_SID, api_key_secret=API_KEY_SECRET, auth_token="only-for-webhooks")
    await channel.send(outbound())
    await channel.aclose()
    assert len(server.messages) == 1


async def test_without_a_sender_nothing_is_sent(server: TwilioServer) -> None:
    channel = make(server.url, from_number="")
    for call in (channel.send(outbound()), channel.check()):
        with pytest.raises(IntegrationError) as caught:
            await call
        assert (caught.value.reason, caught.value.retryable, caught.value.ambiguous) == ("invalid_sender", False, False)
    await channel.aclose()
    assert server.calls == []


async def test_twenty_sends_at_once_are_twenty_messages(server: TwilioServer, twilio: TwilioSms) -> None:
    results = await asyncio.gather(*(twilio.send(outbound(f"text {n}")) for n in range(20)))
    assert len({result.external_id for result in results}) == 20
    assert sorted(m["body"] for m in server.messages) == sorted(f"text {n}" for n in range(20))


async def test_any_text_arrives_as_it_was_written(server: TwilioServer, twilio: TwilioSms) -> None:
    text = "¿Pagas? 100% & más = ok + 👍\nhttps://pay.example.test/p/a?b=c#d"
    await twilio.send(outbound(text))
    assert server.messages[0]["body"] == text


@pytest.mark.parametrize(
    ("changes", "credential_changes", "reason", "code"),
    [
        ({"to": "12"}, {}, "invalid_recipient", "21211"),
        ({"to": "+14155550188"}, {}, "opted_out", "21610"),
        ({"to": "+14155550199"}, {}, "not_a_mobile", "21614"),
        ({"body": "a" * 1601}, {}, "too_long", "21617"),
        ({}, {"from_number": "+14155550111"}, "invalid_sender", "21606"),
        ({}, {"auth_token": "wrong"}, "unauthorized", "20003"),
        ({"status_url": "nowhere"}, {}, "refused", "21609"),
        ({}, {"account_sid": "AC" + "f" * 32}, "unauthorized", "20003"),
    ],
)
async def test_a_refusal_has_its_word_and_is_never_repeated(
    server: TwilioServer, changes: dict[str, Any], credential_changes: dict[str, str], reason: str, code: str
) -> None:
    server.opted_out.add("+14155550188")
    server.landlines.add("+14155550199")
    channel = make(server.url, credential_changes)
    with pytest.raises(IntegrationError) as caught:
        await channel.send(outbound(**changes))
    await channel.aclose()
    error = caught.value
    assert (error.provider, error.reason, error.code) == ("twilio_sms", reason, code)
    assert (error.retryable, error.ambiguous) == (False, False)
    assert len(server.calls) == 1
    assert server.messages == []


async def test_a_text_of_exactly_1600_characters_is_sent(server: TwilioServer, twilio: TwilioSms) -> None:
    assert twilio.limits(ChannelKind.SMS).max_length == 1600
    await twilio.send(outbound("a" * 1600))
    assert len(server.messages) == 1


async def test_an_errors_words_and_traceback_hold_no_phone_number(server: TwilioServer, twilio: TwilioSms) -> None:
    server.opted_out.add(TO)
    with pytest.raises(IntegrationError) as caught:
        await twilio.send(outbound())
    shown = "".join(traceback.format_exception(caught.value)) + caught.value.message
    assert "unsubscribed recipient …" in shown
    assert TO.removeprefix("+") not in shown


async def test_the_sdk_logs_nothing(server: TwilioServer, twilio: TwilioSms, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        await twilio.send(outbound())
        await twilio.look_up(outbound(), sent_after=datetime.now(UTC) - timedelta(minutes=1))
    ours = [record for record in caplog.records if not record.name.startswith("uvicorn")]  # the fake vendor's own log
    assert [record.name for record in ours if record.name.startswith("twilio")] == []
    assert TO.removeprefix("+") not in "".join(record.getMessage() for record in ours)


async def test_the_process_environment_does_not_move_the_address(
    server: TwilioServer, twilio: TwilioSms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWILIO_EDGE", "sydney")
    monkeypatch.setenv("TWILIO_REGION", "au1")
    await twilio.send(outbound())
    assert len(server.messages) == 1


async def test_closing_is_harmless_twice_and_before_any_call() -> None:
    channel = make("http://127.0.0.1:1")
    await channel.aclose()
    await channel.aclose()


# ------------------------------------------------------------------------------------------------------- lost answers
@pytest.mark.parametrize(
    ("mode", "reason", "stored"),
    [
        ("accept_then_500", "server_error", 1),
        ("hang", "timeout", 1),
        ("drop", "connection_lost", 1),
        ("before_500", "server_error", 0),
    ],
)
async def test_a_lost_answer_is_ambiguous_and_the_call_is_made_once(
    server: TwilioServer, mode: FailureMode, reason: str, stored: int
) -> None:
    channel = make(server.url, timeout_s=0.4 if mode == "hang" else 5.0)
    server.fail_next(mode)
    async with asyncio.timeout(20):  # fails if the provider never gives up
        with pytest.raises(IntegrationError) as caught:
            await channel.send(outbound())
    await channel.aclose()
    assert (caught.value.reason, caught.value.ambiguous, caught.value.retryable) == (reason, True, False)
    assert server.operations() == ["CreateMessage"]
    assert len(server.messages) == stored


async def test_too_many_requests_is_retryable_and_not_ambiguous(server: TwilioServer, twilio: TwilioSms) -> None:
    server.fail_next("rate_limit")
    with pytest.raises(IntegrationError) as caught:
        await twilio.send(outbound())
    assert (caught.value.reason, caught.value.code) == ("rate_limited", "20429")
    assert (caught.value.retryable, caught.value.ambiguous) == (True, False)
    assert server.operations() == ["CreateMessage"]
    assert server.messages == []
    await twilio.send(outbound())
    assert len(server.messages) == 1


async def test_a_refused_connection_is_retryable_and_not_ambiguous() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        channel = make(f"http://127.0.0.1:{closed.getsockname()[1]}")
        for call in (channel.send(outbound()), channel.check()):
            with pytest.raises(IntegrationError) as caught:
                await call
            assert (caught.value.reason, caught.value.retryable, caught.value.ambiguous) == ("unreachable", True, False)
        await channel.aclose()


class _FixedAnswer:
    def __init__(self, status: int, body: str, media_type: str = "application/json", **headers: str) -> None:
        self.count = 0
        self._answer = (status, body, media_type)
        self._headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.app = Starlette(routes=[Route("/{path:path}", self._say, methods=["GET", "POST"])])

    async def _say(self, request: Request) -> Response:
        self.count += 1
        status, body, media_type = self._answer
        return Response(body, status_code=status, media_type=media_type, headers=self._headers)


RFC_9457 = '{"type": "about:blank", "title": "No +14155550101", "status": %s, "code": 21610, "detail": "+14155550101"}'


@pytest.mark.parametrize(
    ("status", "body", "reason", "retryable", "ambiguous", "code"),
    [
        (201, "<html>ok</html>", "no_answer", False, True, None),
        (201, "[]", "no_answer", False, True, None),
        (201, "{}", "no_answer", False, True, None),
        (201, '{"sid": "not-a-sid", "status": "queued"}', "no_answer", False, True, None),
        (502, "<html>bad gateway</html>", "server_error", False, True, None),
        (503, '{"code": 20503, "message": "busy", "status": 503}', "server_error", False, True, "20503"),
        (408, "", "server_error", False, True, None),
        (429, "", "rate_limited", True, False, None),
        (401, "", "unauthorized", False, False, None),
        (403, "", "unauthorized", False, False, None),
        (404, "", "not_found", False, False, None),
        (302, "", "refused", False, False, None),
        (400, '{"code": 29999, "message": "new", "status": 400}', "refused", False, False, "29999"),
        (400, RFC_9457 % 400, "opted_out", False, False, "21610"),
        (500, RFC_9457 % 500, "server_error", False, True, "21610"),
    ],
)
async def test_every_shape_of_answer_is_wrapped(
    status: int, body: str, reason: str, retryable: bool, ambiguous: bool, code: str | None
) -> None:
    server = _FixedAnswer(status, body)
    async with LoopbackServer(server.app) as running:
        channel = make(running.url)
        with pytest.raises(IntegrationError) as caught:
            await channel.send(outbound())
        await channel.aclose()
    error = caught.value
    assert (error.reason, error.retryable, error.ambiguous, error.code) == (reason, retryable, ambiguous, code)
    assert server.count == 1
    assert "4155550101" not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"retry_after": "17"}, 17.0), ({"retry_after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None), ({}, None)],
)
async def test_a_rate_limit_says_how_long_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    server = _FixedAnswer(429, '{"code": 20429, "message": "Too Many Requests", "status": 429}', **headers)
    async with LoopbackServer(server.app) as running:
        channel = make(running.url)
        with pytest.raises(IntegrationError) as caught:
            await channel.send(outbound())
        await channel.aclose()
    assert (caught.value.reason, caught.value.retry_after_s) == ("rate_limited", seconds)


# ------------------------------------------------------------------------------------------------------------ look-up
@pytest.mark.parametrize("mode", ["accept_then_500", "drop"])
async def test_a_look_up_finds_the_one_message_of_a_lost_answer(
    server: TwilioServer, twilio: TwilioSms, mode: FailureMode
) -> None:
    before = datetime.now(UTC)
    server.fail_next(mode)
    with pytest.raises(IntegrationError):
        await twilio.send(outbound())
    found = await twilio.look_up(outbound(), sent_after=before)
    assert found is not None
    assert (found.external_id, found.status) == (server.messages[0]["sid"], DeliveryStatus.SENT)
    assert server.operations() == ["CreateMessage", "ListMessage"]
    assert len(server.messages) == 1


async def test_a_look_up_tells_what_became_of_the_message(server: TwilioServer, twilio: TwilioSms) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    await twilio.send(outbound())
    server.status_callback(server.messages[0]["sid"], "undelivered", error_code=30003)
    found = await twilio.look_up(outbound(), sent_after=before)
    assert found is not None
    assert (found.status, found.error_code) == (DeliveryStatus.FAILED, "30003")
    assert found.error_message == "The handset could not be reached."
    assert found.occurred_at is not None
    assert found.occurred_at.tzinfo is not None


async def test_a_look_up_of_what_never_arrived_finds_nothing(server: TwilioServer, twilio: TwilioSms) -> None:
    server.fail_next("before_500")
    with pytest.raises(IntegrationError):
        await twilio.send(outbound())
    assert await twilio.look_up(outbound(), sent_after=datetime.now(UTC) - timedelta(minutes=1)) is None


@pytest.mark.parametrize(
    "other",
    [
        {"body": "another text"},
        {"to": "+14155550102"},
        {"sender": "+14155550177"},
        {"direction": "inbound"},
        {"at": NOW - timedelta(seconds=1)},
    ],
)
async def test_a_look_up_ignores_what_is_not_this_attempt(
    server: TwilioServer, twilio: TwilioSms, other: dict[str, Any]
) -> None:
    message = outbound()
    server.add(**{"to": TO, "body": message.body, "at": NOW, **other})
    assert await twilio.look_up(message, sent_after=NOW) is None
    server.add(to=TO, body=message.body, at=NOW)
    found = await twilio.look_up(message, sent_after=NOW + timedelta(milliseconds=999))
    assert found is not None
    assert found.external_id == server.messages[1]["sid"]


async def test_a_look_up_that_finds_two_decides_nothing(server: TwilioServer, twilio: TwilioSms) -> None:
    message = outbound()
    for _ in range(2):
        server.add(to=TO, body=message.body, at=NOW)
    assert await twilio.look_up(message, sent_after=NOW) is None


async def test_a_look_up_that_cannot_see_all_decides_nothing(server: TwilioServer, twilio: TwilioSms) -> None:
    message = outbound()
    server.add(to=TO, body=message.body, at=NOW)
    for number in range(99):
        server.add(to=TO, body=f"text {number}", at=NOW)
    assert await twilio.look_up(message, sent_after=NOW) is None


async def test_a_look_up_compares_the_messaging_service(server: TwilioServer) -> None:
    channel = make(server.url, messaging_service_sid=SERVICE_SID)
    message = outbound()
    server.add(to=TO, body=message.body, at=NOW)
    assert await channel.look_up(message, sent_after=NOW) is None
    server.add(to=TO, body=message.body, at=NOW, sender=None, service=SERVICE_SID)
    found = await channel.look_up(message, sent_after=NOW)
    await channel.aclose()
    assert found is not None
    assert found.external_id == server.messages[1]["sid"]


@pytest.mark.parametrize("mode", ["before_500", "hang", "drop", "rate_limit"])
async def test_a_failed_look_up_may_be_repeated(server: TwilioServer, mode: FailureMode) -> None:
    # A cut connection is answered by a new one: aiohttp itself repeats a GET once.
    server.fail_next(mode, times=2 if mode == "drop" else 1)
    channel = make(server.url, timeout_s=0.4 if mode == "hang" else 5.0)
    with pytest.raises(IntegrationError) as caught:
        await channel.look_up(outbound(), sent_after=NOW)
    await channel.aclose()
    assert (caught.value.retryable, caught.value.ambiguous) == (True, False)


# -------------------------------------------------------------------------------------------------------------- check
async def test_check_names_the_account(server: TwilioServer, twilio: TwilioSms) -> None:
    assert await twilio.check() == ACCOUNT_SID
    assert server.operations() == ["FetchAccount"]


async def test_check_refuses_a_wrong_token_and_a_suspended_account(server: TwilioServer, twilio: TwilioSms) -> None:
    wrong = make(server.url, auth_token="wrong")
    with pytest.raises(IntegrationError) as caught:
        await wrong.check()
    await wrong.aclose()
    assert (caught.value.reason, caught.value.retryable) == ("unauthorized", False)
    server.account_status = "suspended"
    with pytest.raises(IntegrationError) as caught:
        await twilio.check()
    assert caught.value.reason == "account_inactive"


def test_credentials_do_not_show_their_secrets() -> None:
    shown = repr(credentials(api_key_secret="s3", secondary_auth_token="s4", shared_key="s5"))
    assert ACCOUNT_SID in shown
    assert not [secret for secret in (AUTH_TOKEN, "s3", "s4", "s5") if secret in shown]


def test_another_kind_of_channel_is_refused() -> None:
    with pytest.raises(ValueError, match="does not serve"):
        TwilioSms(credentials(), kind=ChannelKind.EMAIL, environment=Environment(public_url=PUBLIC, sandbox_url=PUBLIC))


# ------------------------------------------------------------------------------------------------------------ receive
@pytest.mark.parametrize("algorithm", [None, "HMAC_SHA1", "HMAC_SHA256"])
async def test_a_message_and_its_callbacks_have_one_id(
    server: TwilioServer, twilio: TwilioSms, algorithm: str | None
) -> None:
    result = await twilio.send(outbound())
    for status, ours in (("sent", DeliveryStatus.SENT), ("delivered", DeliveryStatus.DELIVERED)):
        url, body, headers = server.status_callback(result.external_id, status, algorithm=algorithm)
        assert url == STATUS_URL
        received = twilio.receive(inbound_request(body, headers, url=url))
        assert received.statuses == (StatusUpdate(external_id=result.external_id, status=ours),)
        assert received.messages == ()
        assert (received.answer_body, received.answer_type) == ("<Response/>", "text/xml")


async def test_a_failed_delivery_brings_its_code(server: TwilioServer, twilio: TwilioSms) -> None:
    result = await twilio.send(outbound())
    url, body, headers = server.status_callback(result.external_id, "undelivered", error_code=30003)
    assert twilio.receive(inbound_request(body, headers, url=url)).statuses == (
        StatusUpdate(
            external_id=result.external_id,
            status=DeliveryStatus.FAILED,
            error_code="30003",
            error_message="The handset could not be reached.",
        ),
    )


@pytest.mark.parametrize(
    ("state", "code", "vendor_message", "words", "reason"),
    [
        (
            "undelivered",
            "30034",
            "",
            "The number is not registered for messages to the US (A2P 10DLC).",
            "sender_not_registered",
        ),
        ("undelivered", "30032", "", "The toll-free number is not verified at Twilio.", "sender_not_registered"),
        ("failed", "30002", "", "The Twilio account is suspended.", "account_inactive"),
        ("failed", "63032", "", "WhatsApp does not deliver this message to this user at the moment.", None),
        ("failed", "39999", "", "Twilio did not deliver the message (error 39999).", None),
        (
            "failed",
            "39999",
            "No route to +14155550101.",
            "Twilio did not deliver the message (error 39999: No route to …).",
            None,
        ),
        ("failed", "", "", "Twilio did not deliver the message and gave no reason.", None),
        ("canceled", "", "", "The message was cancelled before it was sent.", None),
        ("delivered", "", "", None, None),
    ],
)
def test_a_failed_delivery_always_says_why(
    state: str, code: str, vendor_message: str, words: str | None, reason: str | None
) -> None:
    form = {**STATUS_FORM, "MessageStatus": state, "ErrorCode": code, "ErrorMessage": vendor_message}
    body, headers = signed(URL, form)
    update = receive(body, headers)[0]
    assert (update.error_code, update.error_message, update.reason) == (code or None, words, reason)


def test_every_code_with_consequences_has_words_or_is_a_refused_call() -> None:
    assert {code for code in REASONS if code.startswith(("3", "6"))} <= set(WORDS)
    assert all(sentence.endswith(".") and len(sentence) <= 120 for sentence in WORDS.values())


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("", "https://api.twilio.com"),
        ("us1", "https://api.twilio.com"),
        (" IE1 ", "https://api.dublin.ie1.twilio.com"),
        ("au1", "https://api.sydney.au1.twilio.com"),
    ],
)
async def test_each_region_has_its_host(region: str, host: str) -> None:
    channel = make("", region=region)
    media = f"/2010-04-01/Accounts/{ACCOUNT_SID}/Messages/MM1/Media/ME1"
    assert channel._open().api.base_url == host
    assert "Authorization" in channel.media_headers(host + media)
    assert channel.media_headers("https://api.de1.twilio.com" + media) == {}
    await channel.aclose()


@pytest.mark.parametrize("region", ["de1", "ie1.evil.example.test", "ie1/", "eu"])
def test_an_unknown_region_is_refused(region: str) -> None:
    with pytest.raises(IntegrationError) as caught:
        make("", region=region)
    assert (caught.value.reason, caught.value.message) == (
        "credentials_invalid",
        "region must be one of us1, ie1, au1.",
    )


def test_every_status_of_the_contract_is_mapped() -> None:
    documented = set(our_contract()["components"]["schemas"]["message_enum_status"]["enum"])
    assert set(STATES) == documented - {"receiving", "received"}


@pytest.mark.parametrize(
    ("body", "more", "opt_out"),
    [
        ("Hi, can I pay the deposit?", {}, None),
        ("STOP", {}, True),
        (" stop ", {}, True),
        ("START", {}, False),
        ("ARRET", {"OptOutType": "STOP"}, True),
        ("DEBUT", {"OptOutType": "START"}, False),
        ("STOP", {"OptOutType": "HELP"}, None),
        ("", {}, None),
    ],
)
async def test_an_inbound_message_is_read(
    server: TwilioServer, twilio: TwilioSms, body: str, more: dict[str, str], opt_out: bool | None
) -> None:
    raw, headers = server.inbound(URL, sender=TO, body=body, **more)
    received = twilio.receive(inbound_request(raw, headers))
    assert received.statuses == ()
    assert received.messages == (
        InboundMessage(
            external_id=server.messages[0]["sid"],
            sender=TO,
            body=body,
            recipient=FROM_NUMBER,
            opt_out=opt_out,
            attachments=[],
            help_answered=more.get("OptOutType") == "HELP",
        ),
    )
    assert (received.answer_body, received.answer_type) == ("<Response/>", "text/xml")


@pytest.mark.parametrize(
    ("text", "more", "credential", "answered"),
    [
        ("HELP", {}, "", True),  # Twilio's own handling of a number answers it
        ("HELP", {}, "yes", False),
        ("HELP", {"OptOutType": "HELP"}, "yes", True),
        ("AIDE", {"OptOutType": "HELP"}, "", True),
        ("Hello", {}, "", False),
    ],
)
async def test_a_help_that_twilio_answers_is_not_ours_to_answer(
    server: TwilioServer, text: str, more: dict[str, str], credential: str, answered: bool
) -> None:
    raw, headers = server.inbound(URL, sender=TO, body=text, **more)
    received = make(server.url, answer_help=credential).receive(inbound_request(raw, headers))
    assert received.messages[0].help_answered is answered


SHORT = {"To": "22334"}


@pytest.mark.parametrize(
    ("text", "more", "help_answered", "stop_unanswered"),
    [
        ("HELP", SHORT, False, False),  # Twilio does not answer on a dedicated short code
        ("STOP", SHORT, False, True),
        ("opt out", SHORT, False, True),
        ("START", SHORT, False, False),
        ("Hello", SHORT, False, False),
        ("HELP", {**SHORT, "MessagingServiceSid": SERVICE_SID}, True, False),
        ("STOP", {**SHORT, "MessagingServiceSid": SERVICE_SID}, False, False),
        ("STOP", {**SHORT, "OptOutType": "STOP"}, False, False),
        ("STOP", {"To": FROM_NUMBER}, False, False),
    ],
)
def test_twilio_answers_neither_help_nor_stop_on_a_standalone_short_code(
    text: str, more: dict[str, str], help_answered: bool, stop_unanswered: bool
) -> None:
    form = {"MessageSid": "SM" + "a" * 32, "AccountSid": ACCOUNT_SID, "SmsStatus": "received", "From": TO, "Body": text}
    body, headers = signed(URL, {**form, **more})
    message = make("").receive(inbound_request(body, headers)).messages[0]
    assert (message.help_answered, message.stop_unanswered) == (help_answered, stop_unanswered)


@pytest.mark.parametrize(
    ("more", "count"),
    [
        ({"NumMedia": "many"}, 0),
        ({"NumMedia": "-1"}, 0),
        ({"NumMedia": "1000000", "MediaUrl0": "https://api.twilio.com/0"}, 1),
        ({"NumMedia": "12", **{f"MediaUrl{n}": f"https://api.twilio.com/{n}" for n in range(12)}}, 12),
        ({"MediaUrl1": "https://api.twilio.com/1"}, 2),
    ],
)
def test_an_odd_count_of_files_refuses_no_message(more: dict[str, str], count: int) -> None:
    form = {"MessageSid": "SM" + "a" * 32, "AccountSid": ACCOUNT_SID, "SmsStatus": "received", "From": TO, "Body": "Hi"}
    (message,) = make("").receive(inbound_request(*signed(URL, {**form, **more}))).messages
    assert (message.body, len(message.attachments)) == ("Hi", count)


@pytest.mark.parametrize(
    ("more", "opt_out"),
    [
        ({"Body": "STOP", "OptOutType": "SOMETHING"}, True),
        ({"Body": "Stop promotions", "ButtonPayload": "STOP"}, True),
        ({"Body": "Cancel the visit", "ButtonPayload": "CANCEL"}, None),
        ({"Body": "ＳＴＯＰ"}, True),
    ],
)
def test_consent_is_read_from_the_word_and_the_button(more: dict[str, str], opt_out: bool | None) -> None:
    form = {"MessageSid": "SM" + "a" * 32, "AccountSid": ACCOUNT_SID, "SmsStatus": "received", "From": TO}
    (message,) = make("").receive(inbound_request(*signed(URL, {**form, **more}))).messages
    assert message.opt_out is opt_out


@pytest.mark.parametrize(("text", "opt_out"), [("Hi", None), ("STOP", True), ("START", False)])
def test_rcs_is_the_same_conversation_as_sms(text: str, opt_out: bool | None) -> None:
    form = {"MessageSid": "SM" + "a" * 32, "AccountSid": ACCOUNT_SID, "SmsStatus": "received", "From": "rcs:" + TO}
    body, headers = signed(URL, {**form, "To": "rcs:acme_agent", "Body": text})
    message = make("").receive(inbound_request(body, headers)).messages[0]
    assert (message.sender, message.body, message.opt_out) == (TO, text, opt_out)


async def test_a_stop_makes_twilio_refuse_the_next_message(server: TwilioServer, twilio: TwilioSms) -> None:
    server.inbound(URL, sender=TO, body="STOP")
    with pytest.raises(IntegrationError) as caught:
        await twilio.send(outbound())
    assert caught.value.reason == "opted_out"
    server.inbound(URL, sender=TO, body="START")
    await twilio.send(outbound())
    assert [m["direction"] for m in server.messages].count("outbound-api") == 1


async def test_pictures_are_attachments(server: TwilioServer, twilio: TwilioSms) -> None:
    raw, headers = server.inbound(
        URL,
        sender=TO,
        body="",
        NumMedia="2",
        MediaUrl0="https://api.twilio.com/a",
        MediaContentType0="image/jpeg",
        MediaUrl1="https://api.twilio.com/b",
        MediaContentType1="image/png",
    )
    message = twilio.receive(inbound_request(raw, headers)).messages[0]
    assert list(message.attachments) == [
        {"url": "https://api.twilio.com/a", "content_type": "image/jpeg"},
        {"url": "https://api.twilio.com/b", "content_type": "image/png"},
    ]


async def test_credentials_go_to_twilios_own_address_only(server: TwilioServer, twilio: TwilioSms) -> None:
    media = f"/2010-04-01/Accounts/{ACCOUNT_SID}/Messages/MM1/Media/ME1"
    basic = "Basic " + base64.b64encode(f"{ACCOUNT_SID}:{AUTH_TOKEN}".encode()).decode()
    assert twilio.media_headers(server.url + media) == {"Authorization": basic}
    for url in (
        "https://api.twilio.com" + media,  # the tests use another address
        server.url + ".evil.example.test" + media,
        server.url + media.replace(ACCOUNT_SID, "AC" + "f" * 32),
        "https://evil.example.test/" + server.url + media,
        server.url.replace("http://", "http://x@") + media,
        "",
    ):
        assert twilio.media_headers(url) == {}


STATUS_FORM = {
    "MessageSid": "SM" + "a" * 32,
    "AccountSid": ACCOUNT_SID,
    "From": FROM_NUMBER,
    "To": TO,
    "MessageStatus": "delivered",
    "Blank": "",
}
DELIVERED = (StatusUpdate(external_id="SM" + "a" * 32, status=DeliveryStatus.DELIVERED),)


def receive(body: bytes, headers: Mapping[str, str], *, url: str = URL, **changes: str) -> tuple[StatusUpdate, ...]:
    return tuple(make("", changes).receive(inbound_request(body, headers, url=url)).statuses)


def test_forged_requests_are_refused() -> None:
    body, headers = signed(URL, STATUS_FORM)
    name = "x-twilio-signature"
    assert receive(body, headers) == DELIVERED
    good = headers[name]
    forgeries: list[tuple[str, bytes, dict[str, str], str]] = [
        ("no header", body, {k: v for k, v in headers.items() if k != name}, URL),
        ("empty header", body, {**headers, name: ""}, URL),
        ("truncated signature", body, {**headers, name: good[:-1]}, URL),
        ("longer signature", body, {**headers, name: good + "="}, URL),
        ("not ASCII", body, {**headers, name: "ü" * len(good)}, URL),
        ("wrong secret", body, signed(URL, STATUS_FORM, secret="guess")[1], URL),
        ("empty secret", body, signed(URL, STATUS_FORM, secret="")[1], URL),
        ("changed value", body.replace(b"delivered", b"read"), headers, URL),
        ("added parameter", body + b"&ErrorCode=1", headers, URL),
        ("blank parameter dropped", body.replace(b"&Blank=", b""), headers, URL),
        ("truncated body", body[:-8], headers, URL),
        ("empty body", b"", headers, URL),
        ("other host", body, headers, URL.replace("pay.example.test", "evil.example.test")),
        ("other scheme", body, headers, URL.replace("https://", "http://")),
        ("other connection", body, headers, URL.replace("chn_1", "chn_2")),
        ("added query", body, headers, URL + "?x=1"),
        ("not UTF-8", body + b"\xff", headers, URL),
        ("unknown algorithm", body, {**headers, "x-twilio-webhooks-signature-settings": "algorithm=HMAC_MD5"}, URL),
        ("other algorithm", body, {**headers, "x-twilio-webhooks-signature-settings": "algorithm=HMAC_SHA256"}, URL),
        ("501 fields", b"&".join(b"a=%d" % n for n in range(501)), headers, URL),
    ]
    for what, raw, given, url in forgeries:
        try:
            got = receive(raw, given, url=url)
        except SignatureInvalid:
            continue
        pytest.fail(f"{what}: accepted as {got}")


def test_the_port_may_be_left_out_of_the_signed_address() -> None:
    body, headers = signed(URL.replace("example.test", "example.test:443"), STATUS_FORM)
    assert receive(body, headers) == DELIVERED


def test_repeated_names_are_signed_once_per_value_in_order() -> None:
    form: dict[str, Any] = {**STATUS_FORM, "Extra": ["b", "a", "b"]}
    body, headers = signed(URL, form)
    assert body.count(b"Extra=") == 3
    assert receive(body, headers) == DELIVERED


def test_while_tokens_are_rotated_both_are_accepted() -> None:
    body, headers = signed(URL, STATUS_FORM, secret="the-new-token")
    assert receive(body, headers, secondary_auth_token="the-new-token") == DELIVERED
    with pytest.raises(SignatureInvalid):
        receive(body, headers)


def test_a_shared_key_signs_only_with_its_own_algorithm() -> None:
    body, headers = signed(URL, STATUS_FORM, secret="the-shared-key", algorithm="HMAC_SHA256")
    assert receive(body, headers, shared_key="the-shared-key") == DELIVERED
    for secret, algorithm in (("the-shared-key", None), (AUTH_TOKEN, "HMAC_SHA256")):
        body, headers = signed(URL, STATUS_FORM, secret=secret, algorithm=algorithm)
        with pytest.raises(SignatureInvalid):
            receive(body, headers, shared_key="the-shared-key")


def test_without_a_token_nothing_is_verified() -> None:
    for algorithm in (None, "HMAC_SHA256"):
        body, headers = signed(URL, STATUS_FORM, secret="", algorithm=algorithm)
        with pytest.raises(SignatureInvalid):
            receive(body, headers, auth_token="")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"AccountSid": "AC" + "f" * 32}, "foreign_account"),
        ({"AccountSid": ""}, "foreign_account"),
        ({"MessageSid": ""}, "no_message_id"),
        ({"MessageSid": "SM1"}, "no_message_id"),
        ({"MessageStatus": "teleported"}, "unknown_status"),
        ({"MessageStatus": ""}, "unknown_status"),
        ({"MessageStatus": "", "SmsStatus": "received", "From": "whatsapp:+14155550101"}, "channel_mismatch"),
        ({"MessageStatus": "", "SmsStatus": "received", "From": ""}, "channel_mismatch"),
    ],
)
def test_a_signed_request_outside_the_contract_is_not_taken(changes: dict[str, str], reason: str) -> None:
    body, headers = signed(URL, {**STATUS_FORM, **changes})
    with pytest.raises(PayloadInvalid) as caught:
        receive(body, headers)
    assert caught.value.reason == reason


# --------------------------------------------------------------------------------------- the vendor's own files
# The vector of Twilio's helper libraries' own tests, and the same with SHA-256, made with openssl.
_VECTOR_URL = "https://mycompany.com/myapp.php?foo=1&bar=2"
_VECTOR_PARAMS = {
    "CallSid": "CA1234567890ABCDE",
    "Caller": "+14158675309",
    "Digits": "1234",
    "From": "+14158675309",
    "To": "+18005551212",
}
VECTORS: list[tuple[str, str, str, dict[str, str], str]] = [
    ("12345", _VECTOR_URL, "RSOYDt4T1cUTdK1PDd93/VVr8B8=", _VECTOR_PARAMS, "HMAC_SHA1"),
    ("12345", _VECTOR_URL, "033hgUJA9M/hXIZsYjwkerEP/DBm35nEri5FhCYjA5s=", _VECTOR_PARAMS, "HMAC_SHA256"),
]


def test_published_signatures_are_accepted_and_every_change_is_not() -> None:
    vectors = list(VECTORS)
    fixture = vendor_file("fixtures/twilio-webhooks.assembled.json")
    if fixture is not None:
        token = fixture["_about"]["auth_token"]
        vectors += [(token, r["url"], r["X-Twilio-Signature"], r["params"], "HMAC_SHA1") for r in fixture["requests"]]
        assert len(vectors) == 12
    for token, url, given, params, algorithm in vectors:
        assert signature(url, params, secret=token, algorithm=algorithm) == given
        body, headers = signed(url, params, secret=token, algorithm=algorithm)
        assert headers["x-twilio-signature"] == given
        assert _is_verified(body, headers, url, token)
        assert not _is_verified(body + b"0", headers, url, token)
        assert not _is_verified(body, headers, url.replace("https://", "https://x."), token)
        assert not _is_verified(body, headers, url, token + "x")
        assert not _is_verified(body, {**headers, "x-twilio-signature": given[:-2] + "_="}, url, token)


def _is_verified(body: bytes, headers: Mapping[str, str], url: str, token: str) -> bool:
    try:
        receive(body, headers, url=url, auth_token=token)
    except SignatureInvalid:
        return False
    except PayloadInvalid:
        return True
    return True


def test_the_vendors_example_requests_are_read() -> None:
    fixture = vendor_file("fixtures/twilio-webhooks.assembled.json")
    read: dict[str, list[object]] = {}
    for request in fixture["requests"] if fixture else []:
        body, headers = signed(request["url"], request["params"])
        try:
            got = make("").receive(inbound_request(body, headers, url=request["url"]))
            read[request["name"]] = [*(s.status.value for s in got.statuses), *(m.opt_out for m in got.messages)]
        except PayloadInvalid as error:
            read[request["name"]] = [error.reason]
    expected = {
        "inbound-sms": [None],
        "inbound-sms-stop": [True],
        "inbound-mms": [None],
        "inbound-whatsapp": ["channel_mismatch"],
        "inbound-whatsapp-button": ["channel_mismatch"],
        "status-sent": ["SENT"],
        "status-delivered": ["DELIVERED"],
        "status-undelivered-30003": ["FAILED"],
        "status-failed-63016": ["FAILED"],
        "status-whatsapp-read": ["READ"],
    }
    assert read == (expected if fixture else {})


_FACTS = ("type", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum", "nullable", "format")


def _resolved(spec: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in schema:
        return schema
    found: Mapping[str, Any] = spec["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def _schema_differences(ours: tuple[Any, Any], theirs: tuple[Any, Any], where: str) -> list[str]:
    """`ours` and `theirs`: (document, schema). Ours may have fewer properties."""
    mine, yours = _resolved(*ours), _resolved(*theirs)
    found = [f"{where}: {fact}" for fact in _FACTS if mine.get(fact) != yours.get(fact)]
    if set(mine.get("required") or ()) != set(yours.get("required") or ()):
        found.append(f"{where}: required")
    for name, schema in (mine.get("properties") or {}).items():
        other = (yours.get("properties") or {}).get(name)
        if other is None:
            found.append(f"{where}.{name}: unknown")
        else:
            found += _schema_differences((ours[0], schema), (theirs[0], other), f"{where}.{name}")
    if "items" in mine:
        found += _schema_differences((ours[0], mine["items"]), (theirs[0], yours.get("items", {})), f"{where}[]")
    return found


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for path, item in ours["paths"].items():
        for method, mine in item.items():
            where = f"{method} {path}"
            yours = (theirs["paths"].get(path) or {}).get(method)
            if yours is None:
                found.append(f"{where}: unknown")
                continue
            known = {(p["in"], p["name"]): p for p in yours["parameters"]}
            named = {(p["in"], p["name"]) for p in mine["parameters"]}
            found += [f"{where}: {key} missing" for key, p in known.items() if p.get("required") and key not in named]
            for parameter in mine["parameters"]:
                key = (parameter["in"], parameter["name"])
                if key not in known:
                    found.append(f"{where}: {key} unknown")
                    continue
                if bool(parameter.get("required")) != bool(known[key].get("required")):
                    found.append(f"{where}: {key} required")
                found += _schema_differences(
                    (ours, parameter["schema"]), (theirs, known[key]["schema"]), f"{where} {key}"
                )
            pairs = [("body", mine.get("requestBody"), yours.get("requestBody"))]
            pairs += [(code, mine["responses"][code], yours["responses"].get(code)) for code in mine["responses"]]
            for what, left, right in pairs:
                if (left is None) != (right is None):
                    found.append(f"{where} {what}: only one has it")
                elif left is not None and right is not None:
                    for media, content in left["content"].items():
                        other = right["content"].get(media)
                        found += (
                            [f"{where} {what}: {media} unknown"]
                            if other is None
                            else _schema_differences(
                                (ours, content["schema"]), (theirs, other["schema"]), f"{where} {what}"
                            )
                        )
    return found


def test_our_contract_says_what_twilios_own_says() -> None:
    theirs = vendor_file(VENDOR_FILE)
    assert [contract.name for contract in contracts()] == (["ours", "twilio's"] if theirs else ["ours"])
    ours = our_contract()
    assert differences(ours, theirs or ours) == []
    # The comparison detects an unknown parameter, a required one, a pattern, an enumeration, a property, a status.
    messages = "/2010-04-01/Accounts/{AccountSid}/Messages.json"
    changed = copy.deepcopy(ours)
    changed["paths"][messages]["get"]["parameters"][1]["name"] = "Too"
    changed["paths"][messages]["get"]["parameters"][2]["required"] = True
    changed["paths"][messages]["post"]["parameters"][0]["schema"]["pattern"] = "^AC"
    changed["paths"][messages]["post"]["responses"] = {"200": changed["paths"][messages]["post"]["responses"]["201"]}
    changed["paths"][messages]["post"]["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"][
        "required"
    ] = []
    changed["components"]["schemas"]["account_enum_type"]["enum"] = ["Full"]
    changed["components"]["schemas"]["api.v2010.account"]["properties"]["colour"] = {"type": "string"}
    account = "get /2010-04-01/Accounts/{Sid}.json 200"
    assert differences(changed, theirs or ours) == [
        f"post {messages} ('path', 'AccountSid'): pattern",
        f"post {messages} body: required",
        f"post {messages} 200: only one has it",
        f"get {messages}: ('query', 'Too') unknown",
        f"get {messages}: ('query', 'DateSent>') required",
        f"{account}.type: enum",
        f"{account}.colour: unknown",
    ]


async def test_the_vendors_example_answers_keep_our_contract() -> None:
    fixture = vendor_file("fixtures/twilio-examples.official.json")
    ours = Contract(our_contract(), name="ours")
    judged = 0
    for operation in fixture["operations"] if fixture else []:
        method, path = operation["operation"].split()
        if method.lower() not in (our_contract()["paths"].get(path) or {}):
            continue
        concrete = path.replace("{AccountSid}", ACCOUNT_SID)
        concrete = concrete.replace("{Sid}", ACCOUNT_SID if path.count("{") == 1 else "SM" + "a" * 32)
        for status, examples in operation["responses"].items():
            for example in examples.values():
                ours.check_response(ours.find(method, concrete), int(status), example)
                judged += 1
    assert judged > 10 if fixture else judged == 0
