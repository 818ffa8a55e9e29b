"""Messenger and Instagram DM over HTTP against the contract server, and Meta's webhooks."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
import socket
import traceback
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from integrations.base import (
    Author,
    ChannelKind,
    ChannelLimits,
    ChannelWebhook,
    DeliveryStatus,
    Environment,
    InboundMessage,
    IntegrationError,
    LengthUnit,
    OutboundMessage,
    PayloadInvalid,
    SendResult,
    SignatureInvalid,
    StatusUpdate,
    WebhookRequest,
    WrittenElsewhere,
)
from integrations.channels.meta_messenger import Credentials, MetaMessenger
from integrations.kit.vendor import FailureMode, LoopbackServer
from tests.contracts.meta_server import (
    ACCESS_TOKEN,
    APP_SECRET,
    INSTAGRAM_ID,
    PAGE_ID,
    VENDOR_FILE,
    VERIFY_TOKEN,
    MetaServer,
    contracts,
    our_contract,
    signature,
    signed,
)
from tests.contracts.openapi import Contract, vendor_file

PUBLIC = "https://pay.example.test"
URL = f"{PUBLIC}/inbound/meta_messenger/chn_1"
LINK = f"{PUBLIC}/p/abc"
TO = "200000000000002"
NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
ACCOUNTS = {ChannelKind.MESSENGER: PAGE_ID, ChannelKind.INSTAGRAM_DM: INSTAGRAM_ID}
BOTH = pytest.mark.parametrize("kind", list(ACCOUNTS))


@pytest.fixture(params=contracts(), ids=lambda contract: contract.name)
async def server(request: pytest.FixtureRequest) -> AsyncIterator[MetaServer]:
    async with MetaServer(request.param) as running:
        yield running
        assert running.violations == []


@pytest.fixture
async def whole() -> AsyncIterator[MetaServer]:
    async with MetaServer(Contract(our_contract(), name="ours")) as running:
        yield running
        assert running.violations == []


def make(
    address: str = "", kind: ChannelKind = ChannelKind.MESSENGER, *, timeout_s: float = 5.0, **changes: str
) -> MetaMessenger:
    values = {"access_token": ACCESS_TOKEN, "app_secret": APP_SECRET, "verify_token": VERIFY_TOKEN}
    environment = Environment(
        public_url=PUBLIC,
        sandbox_url="http://127.0.0.1:1",
        base_addresses={"meta": address} if address else {},
        timeout_s=timeout_s,
    )
    credentials = Credentials(**{"account_id": ACCOUNTS[kind], **values, **changes})
    return MetaMessenger(credentials, kind=kind, environment=environment)


def outbound(body: str = f"Pay here: {LINK}", **changes: Any) -> OutboundMessage:
    values = {"message_id": "msg_1", "attempt_id": "att_1", "to": TO, "body": body, "status_url": f"{URL}?m=msg_1"}
    return OutboundMessage(**{**values, **changes})


def request(body: bytes, headers: Mapping[str, str]) -> WebhookRequest:
    return WebhookRequest(method="POST", public_url=URL, headers=headers, body=body, now=NOW)


def sent_json(server: MetaServer) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(server.calls[-1].raw_body)
    return found


# ------------------------------------------------------------------------------------------------------------ sending
@BOTH
async def test_a_payment_link_goes_as_a_button_and_in_the_text(server: MetaServer, kind: ChannelKind) -> None:
    channel = make(server.url, kind)
    result = await channel.send(outbound())
    await channel.aclose()
    assert result.status is DeliveryStatus.SENT
    assert server.operations() == ["sendMessage"]
    assert server.calls[0].path == f"/v26.0/{ACCOUNTS[kind]}/messages"
    assert server.calls[0].headers["authorization"] == f"Bearer {ACCESS_TOKEN}"
    # Only Messenger documents `metadata`, which it returns in the echo.
    metadata = {"metadata": "msg_1"} if kind is ChannelKind.MESSENGER else {}
    assert sent_json(server) == {
        "recipient": {"id": TO},
        "messaging_type": "RESPONSE",
        "message": {
            "attachment": {
                "type": "template",
                "payload": {
                    "template_type": "button",
                    "text": f"Pay here: {LINK}",
                    "buttons": [{"type": "web_url", "url": LINK, "title": "Pay now"}],
                },
            },
            **metadata,
        },
    }


async def test_the_accepted_message_has_metas_id_and_a_long_one_fits_the_column(server: MetaServer) -> None:
    page, instagram = make(server.url), make(server.url, ChannelKind.INSTAGRAM_DM)
    assert await page.send(outbound()) == SendResult(external_id=server.messages[0]["mid"], status=DeliveryStatus.SENT)
    result = await instagram.send(outbound())
    assert len(server.messages[1]["mid"]) > 120 >= len(result.external_id)
    for word in ("echo", "delivery", "read"):
        found = instagram.receive(request(*server.status(server.messages[1], word)))
        assert [update.external_id for update in found.statuses] == [result.external_id]
    await page.aclose()
    await instagram.aclose()


async def test_a_text_without_link_or_too_long_for_a_button_goes_as_text(server: MetaServer) -> None:
    channel = make(server.url)
    long = "x" * (640 - len(LINK)) + " " + LINK
    for text in ("When do you come?", long, "See https://elsewhere.test/p/abc"):
        await channel.send(outbound(text))
        assert sent_json(server)["message"] == {"text": text, "metadata": "msg_1"}
    await channel.send(outbound(long[1:]))
    assert sent_json(server)["message"]["attachment"]["payload"]["text"] == long[1:]
    await channel.aclose()


async def test_the_buttons_address_and_words_can_be_given(server: MetaServer) -> None:
    channel = make(server.url)
    await channel.send(outbound("Hola", link_url="https://x.test/p/1", link_label="Pagar ahora mismo, por favor"))
    await channel.aclose()
    payload = sent_json(server)["message"]["attachment"]["payload"]
    assert payload["text"] == "Hola\nhttps://x.test/p/1"
    assert payload["buttons"] == [{"type": "web_url", "url": "https://x.test/p/1", "title": "Pagar ahora mismo, p"}]


@pytest.mark.parametrize(
    ("kind", "text", "taken"),
    [
        (ChannelKind.MESSENGER, "é" * 2000, True),
        (ChannelKind.MESSENGER, "é" * 2001, False),
        (ChannelKind.INSTAGRAM_DM, "é" * 500, True),
        (ChannelKind.INSTAGRAM_DM, "é" * 500 + "e", False),
    ],
)
async def test_the_limit_counts_characters_or_bytes(
    server: MetaServer, kind: ChannelKind, text: str, taken: bool
) -> None:
    channel = make(server.url, kind)
    if taken:
        await channel.send(outbound(text))
    else:
        with pytest.raises(IntegrationError) as caught:
            await channel.send(outbound(text))
        assert (caught.value.reason, caught.value.retryable, caught.value.ambiguous) == ("too_long", False, False)
    await channel.aclose()
    assert len(server.calls) == len(server.messages) == int(taken)


@pytest.mark.parametrize(
    ("kind", "page_id", "host", "sender", "proof"),
    [
        (ChannelKind.MESSENGER, "", "https://graph.facebook.com", PAGE_ID, True),
        (ChannelKind.INSTAGRAM_DM, "", "https://graph.instagram.com", INSTAGRAM_ID, False),
        (ChannelKind.INSTAGRAM_DM, PAGE_ID, "https://graph.facebook.com", PAGE_ID, True),
    ],
)
async def test_each_login_has_its_host_and_sender(
    server: MetaServer, kind: ChannelKind, page_id: str, host: str, sender: str, proof: bool
) -> None:
    assert make("", kind, page_id=page_id)._base == f"{host}/v26.0"
    channel = make(server.url, kind, page_id=page_id)
    await channel.send(outbound())
    await channel.aclose()
    operation = server.calls[0].operation
    assert operation is not None
    assert operation.path_params["sender_id"] == sender
    assert ("appsecret_proof" in operation.query) is proof


# ------------------------------------------------------------------------------------------------------------- window
def test_the_limits_say_what_a_person_may() -> None:
    messenger = ChannelLimits(max_length=2000, window_hours=24, link_preview=True, link_button=True)
    assert make().limits(ChannelKind.MESSENGER) == messenger
    assert make(human_agent="no").limits(ChannelKind.MESSENGER) == messenger
    instagram = make("", ChannelKind.INSTAGRAM_DM, human_agent="yes").limits(ChannelKind.INSTAGRAM_DM)
    assert instagram == ChannelLimits(
        max_length=1000,
        length_unit=LengthUnit.BYTES,
        window_hours=24,
        link_preview=True,
        link_button=True,
        person_window_hours=168,
    )


@pytest.mark.parametrize(
    ("hours", "author", "human_agent", "expected"),
    [
        (23.9, None, "", {"messaging_type": "RESPONSE"}),
        (23.9, Author.PERSON, "yes", {"messaging_type": "RESPONSE"}),
        (24.1, Author.PERSON, "yes", {"messaging_type": "MESSAGE_TAG", "tag": "HUMAN_AGENT"}),
        (167.9, Author.PERSON, "yes", {"messaging_type": "MESSAGE_TAG", "tag": "HUMAN_AGENT"}),
        (24.1, Author.PERSON, "", None),
        (24.1, Author.AUTOMATION, "yes", None),
        (24.1, None, "yes", None),
        (168.1, Author.PERSON, "yes", None),
    ],
)
@BOTH
async def test_outside_the_window_only_a_person_with_the_permission_gets_through(
    server: MetaServer, kind: ChannelKind, hours: float, author: Author | None, human_agent: str, expected: Any
) -> None:
    wrote = datetime.now(UTC) - timedelta(hours=hours)
    server.last_wrote[TO], server.human_agent = wrote, True
    channel = make(server.url, kind, human_agent=human_agent)
    message = outbound(last_inbound_at=wrote, author=author)
    if expected is None:
        with pytest.raises(IntegrationError) as caught:
            await channel.send(message)
        assert (caught.value.reason, caught.value.retryable, caught.value.ambiguous) == ("window_closed", False, False)
        assert server.calls == []
    else:
        await channel.send(message)
        said = sent_json(server)
        assert {name: said[name] for name in ("messaging_type", "tag") if name in said} == expected
        assert len(server.messages) == 1
    await channel.aclose()


async def test_where_the_window_is_not_known_meta_decides(server: MetaServer) -> None:
    server.last_wrote[TO] = datetime.now(UTC) - timedelta(hours=25)
    channel = make(server.url, human_agent="yes")
    with pytest.raises(IntegrationError) as caught:
        await channel.send(outbound(author=Author.PERSON))
    await channel.aclose()
    assert (caught.value.reason, caught.value.code, caught.value.retryable) == ("window_closed", "10/2018278", False)
    assert len(server.calls) == 1
    assert server.messages == []


# ----------------------------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("who", "reason", "code"),
    [("blocked", "recipient_unavailable", "551/1545041"), ("unknown", "invalid_recipient", "100/2018001")],
)
async def test_a_refusal_has_its_word_and_is_never_repeated(
    server: MetaServer, who: str, reason: str, code: str
) -> None:
    getattr(server, who).add(TO)
    channel = make(server.url)
    with pytest.raises(IntegrationError) as caught:
        await channel.send(outbound())
    await channel.aclose()
    error = caught.value
    assert (error.provider, error.reason, error.code) == ("meta_messenger", reason, code)
    assert (error.retryable, error.ambiguous) == (False, False)
    assert len(server.calls) == 1
    assert server.messages == []
    assert TO not in error.message


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"access_token": "wrong"}, "unauthorized"),
        ({"account_id": "999999999999999"}, "refused"),
        ({"app_secret": "wrong"}, "refused"),
    ],
)
async def test_wrong_credentials_are_refused_and_shown_nowhere(
    server: MetaServer, changes: dict[str, Any], reason: str
) -> None:
    channel = make(server.url, **changes)
    with pytest.raises(IntegrationError) as caught:
        await channel.send(outbound())
    await channel.aclose()
    assert (caught.value.reason, caught.value.retryable, server.messages) == (reason, False, [])
    shown = "".join(traceback.format_exception(caught.value))
    assert ACCESS_TOKEN not in shown
    assert APP_SECRET not in shown


@pytest.mark.parametrize("body", ["", " \n"])
async def test_an_empty_text_is_refused_without_a_call(server: MetaServer, body: str) -> None:
    with pytest.raises(IntegrationError) as caught:
        await make(server.url).send(outbound(body))
    assert (caught.value.reason, server.calls) == ("empty_message", [])


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
    server: MetaServer, mode: FailureMode, reason: str, stored: int
) -> None:
    channel = make(server.url, timeout_s=0.4 if mode == "hang" else 5.0)
    server.fail_next(mode)
    async with asyncio.timeout(20):
        with pytest.raises(IntegrationError) as caught:
            await channel.send(outbound())
    await channel.aclose()
    assert (caught.value.reason, caught.value.ambiguous, caught.value.retryable) == (reason, True, False)
    assert server.operations() == ["sendMessage"]
    assert len(server.messages) == stored


async def test_a_kept_connection_that_falls_is_not_used_to_send_again(server: MetaServer) -> None:
    channel = make(server.url)
    await channel.send(outbound("one"))
    server.fail_next("drop")
    with pytest.raises(IntegrationError) as caught:
        await channel.send(outbound("two"))
    await channel.aclose()
    assert caught.value.ambiguous
    assert [message["text"] for message in server.messages] == ["one", "two"]


async def test_too_many_calls_may_be_tried_again(server: MetaServer) -> None:
    channel = make(server.url)
    server.fail_next("rate_limit")
    with pytest.raises(IntegrationError) as caught:
        await channel.send(outbound())
    assert (caught.value.reason, caught.value.retryable, caught.value.ambiguous) == ("rate_limited", True, False)
    assert server.messages == []
    await channel.send(outbound())
    await channel.aclose()
    assert len(server.messages) == 1


async def test_a_refused_connection_may_be_tried_again() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        channel = make(f"http://127.0.0.1:{closed.getsockname()[1]}")
        for call in (channel.send(outbound()), channel.check()):
            with pytest.raises(IntegrationError) as caught:
                await call
            assert (caught.value.reason, caught.value.retryable, caught.value.ambiguous) == ("unreachable", True, False)
        await channel.aclose()


def _error(code: int, subcode: int | None = None, message: str = "no") -> str:
    named = {} if subcode is None else {"error_subcode": subcode}
    return json.dumps({"error": {"message": message, "code": code, **named}})


@pytest.mark.parametrize(
    ("status", "body", "reason", "retryable", "ambiguous"),
    [
        (200, "<html>ok</html>", "no_answer", False, True),
        (200, "[]", "no_answer", False, True),
        (200, "{}", "no_answer", False, True),
        (200, '{"message_id": 7}', "no_answer", False, True),
        (200, "[" * 20_000, "no_answer", False, True),
        (502, "<html>bad gateway</html>", "server_error", False, True),
        (500, _error(2), "server_error", False, True),
        (400, _error(1), "server_error", False, True),
        (400, _error(1200), "server_error", False, True),
        (408, "", "server_error", False, True),
        (429, "", "rate_limited", True, False),
        (400, _error(4), "rate_limited", True, False),
        (403, _error(613), "rate_limited", True, False),
        (401, "", "unauthorized", False, False),
        (403, "", "forbidden", False, False),
        (404, "", "not_found", False, False),
        (302, "", "refused", False, False),
        (400, _error(190), "unauthorized", False, False),
        (200, _error(190), "unauthorized", False, False),
        (400, _error(10), "forbidden", False, False),
        (400, _error(10, None, "sent outside of allowed window"), "window_closed", False, False),
        (400, _error(10, 2534022), "window_closed", False, False),
        (400, _error(100), "refused", False, False),
        (400, '{"error": {"code": [], "error_subcode": {}}}', "refused", False, False),
        (400, '{"error": "no"}', "refused", False, False),
    ],
)
async def test_every_shape_of_answer_is_wrapped(
    status: int, body: str, reason: str, retryable: bool, ambiguous: bool
) -> None:
    count = 0

    async def say(_: Request) -> Response:
        nonlocal count
        count += 1
        return Response(body, status_code=status, headers={"location": "/elsewhere"})

    async with LoopbackServer(Starlette(routes=[Route("/{path:path}", say, methods=["GET", "POST"])])) as running:
        channel = make(running.url)
        with pytest.raises(IntegrationError) as caught:
            await channel.send(outbound())
        await channel.aclose()
    error = caught.value
    assert (error.reason, error.retryable, error.ambiguous) == (reason, retryable, ambiguous)
    assert count == 1


USAGE = '{"1": [{"type": "messenger", "estimated_time_to_regain_access": %s}, {"type": "pages"}]}'


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-business-use-case-usage": USAGE % 3}, 180.0),
        ({"x-business-use-case-usage": USAGE % 0}, None),
        ({"x-business-use-case-usage": USAGE % 3, "retry-after": "20"}, 20.0),
        ({"x-business-use-case-usage": "[1]"}, None),
        ({"x-business-use-case-usage": '{"1": [{"estimated_time_to_regain_access": "soon"}]}'}, None),
        ({}, None),
    ],
)
async def test_a_rate_limit_says_how_long_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    async def say(_: Request) -> Response:
        return Response(_error(613), status_code=400, headers=headers)

    async with LoopbackServer(Starlette(routes=[Route("/{path:path}", say, methods=["POST"])])) as running:
        channel = make(running.url)
        with pytest.raises(IntegrationError) as caught:
            await channel.send(outbound())
        await channel.aclose()
    assert (caught.value.reason, caught.value.retry_after_s) == ("rate_limited", seconds)


# --------------------------------------------------------------------------------------------------- look-up and check
@BOTH
@pytest.mark.parametrize("mode", ["accept_then_500", "drop"])
async def test_a_look_up_finds_the_one_message_of_a_lost_answer(
    whole: MetaServer, kind: ChannelKind, mode: FailureMode
) -> None:
    before = datetime.now(UTC)
    channel = make(whole.url, kind)
    whole.fail_next(mode)
    with pytest.raises(IntegrationError):
        await channel.send(outbound())
    found = await channel.look_up(outbound(), sent_after=before)
    delivered = channel.receive(request(*whole.status(whole.messages[0], "delivery")))
    await channel.aclose()
    assert found is not None
    assert found.status is DeliveryStatus.SENT
    assert [update.external_id for update in delivered.statuses] == [found.external_id]
    assert whole.operations() == ["sendMessage", "listConversations"]
    assert len(whole.messages) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"text": "another"},
        {"to": "200000000000009"},
        {"sender": TO, "to": PAGE_ID},
        {"at": NOW - timedelta(seconds=1)},
    ],
)
async def test_a_look_up_ignores_what_is_not_this_attempt(whole: MetaServer, other: dict[str, Any]) -> None:
    channel, message = make(whole.url), outbound()
    whole.add(**{"to": TO, "text": message.body, "at": NOW, **other})
    assert await channel.look_up(message, sent_after=NOW) is None
    whole.add(to=TO, text=message.body, at=NOW)
    found = await channel.look_up(message, sent_after=NOW + timedelta(milliseconds=999))
    assert found is not None
    assert found.external_id == whole.messages[1]["mid"]
    whole.add(to=TO, text=message.body, at=NOW)
    assert await channel.look_up(message, sent_after=NOW) is None
    await channel.aclose()


@pytest.mark.parametrize("mode", ["before_500", "hang", "drop", "rate_limit"])
async def test_a_failed_look_up_may_be_repeated(whole: MetaServer, mode: FailureMode) -> None:
    channel = make(whole.url, timeout_s=0.4 if mode == "hang" else 5.0)
    whole.fail_next(mode)
    with pytest.raises(IntegrationError) as caught:
        await channel.look_up(outbound(), sent_after=NOW)
    assert (caught.value.retryable, caught.value.ambiguous) == (True, False)
    assert await channel.look_up(outbound(), sent_after=NOW) is None
    await channel.aclose()


@pytest.mark.parametrize(
    ("kind", "page_id"),
    [(ChannelKind.MESSENGER, ""), (ChannelKind.INSTAGRAM_DM, ""), (ChannelKind.INSTAGRAM_DM, PAGE_ID)],
)
async def test_check_names_the_account_and_notices_anothers_token(
    whole: MetaServer, kind: ChannelKind, page_id: str
) -> None:
    right = make(whole.url, kind, page_id=page_id)
    assert await right.check() == ACCOUNTS[kind]
    await right.aclose()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"account_id": "999999999999999"}, "wrong_account"),
        ({"access_token": "wrong"}, "unauthorized"),
    ]
    for changes, reason in cases:
        wrong = make(whole.url, kind, page_id=page_id, **changes)
        with pytest.raises(IntegrationError) as caught:
            await wrong.check()
        await wrong.aclose()
        assert (caught.value.reason, caught.value.retryable) == (reason, False)
    assert whole.messages == []


@pytest.mark.parametrize("changes", [{"account_id": "me"}, {"account_id": "1/2"}, {"page_id": "../1"}])
def test_ids_that_are_none_are_refused_at_once(changes: dict[str, Any]) -> None:
    with pytest.raises(IntegrationError) as caught:
        make("", **changes)
    assert caught.value.reason == "credentials_invalid"


def test_credentials_do_not_show_their_secrets() -> None:
    shown = repr(Credentials(account_id=PAGE_ID, access_token="s1", app_secret="s2", verify_token="s3"))
    assert PAGE_ID in shown
    assert not [secret for secret in ("s1", "s2", "s3") if secret in shown]


# ---------------------------------------------------------------------------------------------- the check of the address
def verification(**changes: str) -> WebhookRequest:
    query = {"hub.mode": "subscribe", "hub.verify_token": VERIFY_TOKEN, "hub.challenge": "1158201444"}
    query.update({name.replace("_", ".", 1): value for name, value in changes.items()})
    return WebhookRequest(method="GET", public_url=URL, headers={}, body=b"", now=NOW, query=query)


def test_the_address_is_verified_by_handing_back_the_challenge() -> None:
    assert make().receive(verification()) == ChannelWebhook(answer_body="1158201444", answer_type="text/plain")


@pytest.mark.parametrize(
    "changes",
    [{"hub_verify_token": ""}, {"hub_verify_token": VERIFY_TOKEN[:-1]}, {"hub_verify_token": "ü"}, {"hub_mode": "x"}],
)
def test_a_wrong_verification_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(SignatureInvalid):
        make().receive(verification(**changes))


def test_without_a_verify_token_no_address_is_verified() -> None:
    with pytest.raises(SignatureInvalid):
        make(verify_token="").receive(verification(hub_verify_token=""))


@pytest.mark.parametrize("challenge", ["", "<script>alert(1)</script>", "1" * 257, "a b"])
def test_only_a_challenge_is_handed_back(challenge: str) -> None:
    with pytest.raises(PayloadInvalid):
        make().receive(verification(hub_challenge=challenge))


@pytest.mark.parametrize(
    ("kind", "profile", "name"),
    [
        (ChannelKind.MESSENGER, {"name": "Dana Diaz", "first_name": "Dana", "last_name": "Diaz"}, "Dana Diaz"),
        (ChannelKind.MESSENGER, {"first_name": "Dana", "last_name": "Diaz"}, "Dana Diaz"),
        (ChannelKind.MESSENGER, {"first_name": "Dana"}, "Dana"),
        (ChannelKind.MESSENGER, {}, None),
        (ChannelKind.INSTAGRAM_DM, {"name": "Dana Diaz", "username": "dana"}, "Dana Diaz"),
        (ChannelKind.INSTAGRAM_DM, {"name": " ", "username": "dana"}, "dana"),
    ],
)
async def test_a_name_comes_from_the_profile(
    whole: MetaServer, kind: ChannelKind, profile: dict[str, str], name: str | None
) -> None:
    whole.people[TO] = profile
    channel = make(whole.url, kind)
    assert await channel.name_of(TO) == name
    assert await channel.name_of("../me") is None
    await channel.aclose()
    assert whole.operations() == ["readProfile"]


async def test_a_profile_that_may_not_be_read_is_an_error(whole: MetaServer) -> None:
    channel = make(whole.url)
    with pytest.raises(IntegrationError) as caught:
        await channel.name_of(TO)
    assert (caught.value.reason, caught.value.retryable, caught.value.ambiguous) == ("refused", False, False)
    await channel.aclose()


async def test_the_token_of_an_instagram_login_is_renewed_when_half_of_its_life_is_over(whole: MetaServer) -> None:
    async def renewed(kind: ChannelKind = ChannelKind.INSTAGRAM_DM, **changes: Any) -> Mapping[str, str] | None:
        channel = make(whole.url, kind, **changes)
        found = await channel.renewed(now=NOW)
        await channel.aclose()
        return found

    first = await renewed()  # a pasted token: its expiry is unknown
    assert first is not None
    mark = hashlib.sha256(whole.next_token.encode()).hexdigest()[:16]
    assert first == {"access_token": whole.next_token, "token_ends": f"{mark} 2027-01-22T04:00:00+00:00"}
    own = hashlib.sha256(ACCESS_TOKEN.encode()).hexdigest()[:16]
    assert await renewed(token_ends=f"{own} 2026-12-24T04:00:00+00:00") is None  # 31 days left
    assert await renewed(token_ends=f"{own} 2026-12-22T04:00:00+00:00") is not None  # 29
    assert await renewed(token_ends=f"{mark} 2027-01-22T04:00:00+00:00") is not None  # another token was pasted
    assert await renewed(token_ends="garbage") is not None
    assert whole.operations() == ["renewToken"] * 4
    assert await renewed(page_id=PAGE_ID) is None
    assert await renewed(ChannelKind.MESSENGER) is None
    assert whole.operations() == ["renewToken"] * 4


# ---------------------------------------------------------------------------------------------------------- receiving
async def test_a_message_is_echoed_delivered_and_read(whole: MetaServer) -> None:
    channel = make(whole.url)
    sent = await channel.send(outbound())
    await channel.aclose()
    echo, delivery, read = (
        channel.receive(request(*whole.status(whole.messages[0], word))) for word in ("echo", "delivery", "read")
    )
    assert echo.statuses == (
        StatusUpdate(external_id=sent.external_id, status=DeliveryStatus.SENT, message_id="msg_1"),
    )
    assert [(u.external_id, u.status) for u in delivery.statuses] == [(sent.external_id, DeliveryStatus.DELIVERED)]
    # Messenger reports only the time up to which messages were read.
    assert [(u.external_id, u.status, u.address) for u in read.statuses] == [("", DeliveryStatus.READ, TO)]
    assert read.statuses[0].up_to is not None
    assert (echo.messages, delivery.messages, read.messages) == ((), (), ())
    assert echo.answer_body == "EVENT_RECEIVED"


@pytest.mark.parametrize("metadata", ["msg_1\r\n", "pr_1", "", 7, None, "msg_" + "a" * 61])
def test_an_echo_of_anothers_message_names_none_of_ours(metadata: Any) -> None:
    message = {"mid": "m_1", "is_echo": True, "text": "from the page's own inbox", "metadata": metadata}
    event = {"sender": {"id": PAGE_ID}, "recipient": {"id": TO}, "timestamp": 1795392000000, "message": message}
    received = read(event)
    assert received.messages == ()
    assert [(u.external_id, u.message_id) for u in received.statuses] == [("m_1", None)]


def read(*events: Mapping[str, Any], entry: Mapping[str, Any] | None = None) -> ChannelWebhook:
    payload = {"object": "page", "entry": [entry or {"id": PAGE_ID, "time": 1795392000500, "messaging": list(events)}]}
    return make().receive(request(*signed(payload)))


def event(**more: Any) -> dict[str, Any]:
    people = {"sender": {"id": TO}, "recipient": {"id": PAGE_ID}}
    return {**people, "timestamp": 1795392000000, **more}


def message(mid: str, text: str = "hi", **more: Any) -> dict[str, Any]:
    return event(message={"mid": mid, "text": text, **more})


def test_a_message_is_read_with_its_time_its_pictures_and_what_it_answers() -> None:
    pictures = [
        {"type": "image", "payload": {"url": "https://cdn.example.test/a.jpg"}},
        {"type": "file", "payload": {"url": "https://cdn.example.test/b.pdf"}},
        {"type": "fallback", "payload": None},  # a page, not a file
    ]
    received = read(message("m_1", "¿Cuánto? 👍", attachments=pictures, reply_to={"mid": "m_0"}))
    assert received.messages == (
        InboundMessage(
            external_id="m_1",
            sender=TO,
            recipient=PAGE_ID,
            body="¿Cuánto? 👍\n[shared a link]",
            occurred_at=datetime(2026, 11, 23, 0, 0, tzinfo=UTC),
            attachments=[
                {"content_type": "image/*", "url": "https://cdn.example.test/a.jpg"},
                {"content_type": "application/octet-stream", "url": "https://cdn.example.test/b.pdf"},
            ],
            in_reply_to="m_0",
        ),
    )


def test_several_entries_and_events_are_all_read_in_order() -> None:
    payload = {
        "object": "page",
        "entry": [
            {
                "id": PAGE_ID,
                "messaging": [message("m_1", "one"), event(delivery={"mids": ["m_8", "m_9"], "watermark": 1})],
            },
            {"id": PAGE_ID, "messaging": [message("m_2", "two"), event(postback={"title": "Pay now", "payload": "x"})]},
            {"id": PAGE_ID, "changes": [{"field": "feed"}]},
        ],
    }
    received = make().receive(request(*signed(payload)))
    assert [(m.external_id, m.body) for m in received.messages] == [
        ("m_1", "one"),
        ("m_2", "two"),
        (f"postback:{TO}:1795392000000", "Pay now"),
    ]
    assert [(u.external_id, u.status.value) for u in received.statuses] == [("m_8", "DELIVERED"), ("m_9", "DELIVERED")]
    assert received.others == ()


def test_events_of_another_account_are_left_to_its_own_connection() -> None:
    other = {"id": "100000000000009", "messaging": [message("m_2", "not for us")]}
    payload = {"object": "page", "entry": [other, {"id": PAGE_ID, "messaging": [message("m_1")]}, other]}
    body, headers = signed(payload)
    received = make().receive(request(body, headers))
    assert [m.external_id for m in received.messages] == ["m_1"]
    assert received.others == ("100000000000009",)
    theirs = make(account_id="100000000000009").receive(request(body, headers))
    assert [m.external_id for m in theirs.messages] == ["m_2", "m_2"]


def test_events_that_are_no_messages_change_nothing() -> None:
    received = read(event(referral={"source": "SHORTLINK"}), event(optin={"type": "x"}), event(read={}))
    assert (received.messages, received.statuses, received.elsewhere, received.changes) == ((), (), (), ())
    # Threads of other apps, and public events.
    for entry in (
        {"id": PAGE_ID, "standby": [message("m_1")]},
        {"id": PAGE_ID, "changes": [{"field": "feed", "value": {"message": "nice"}}, {"field": "comments"}, 7]},
    ):
        received = read(entry=entry)
        assert (received.messages, received.statuses, received.others) == ((), (), ())


URL_OF_POST = "https://www.instagram.com/p/1"


@pytest.mark.parametrize(
    ("fields", "body", "files"),
    [
        (
            {"is_unsupported": True},
            "[message that can't be shown here: open it in Messenger or Instagram]",
            0,
        ),
        (
            {"is_unsupported": "true", "text": "Hi"},
            "Hi\n[message that can't be shown here: open it in Messenger or Instagram]",
            0,
        ),
        (
            {"attachments": [{"type": "story_mention", "payload": {"url": URL_OF_POST}}]},
            f"[mentioned you in a story] {URL_OF_POST}",
            0,
        ),
        (
            {"text": "Price?", "reply_to": {"story": {"url": URL_OF_POST, "id": "1"}}},
            f"Price?\n[reply to your story] {URL_OF_POST}",
            0,
        ),
        (
            {
                "attachments": [
                    {"type": "ig_post", "payload": {"ig_post_media_id": "1", "title": "Deep clean", "url": URL_OF_POST}}
                ]
            },
            f"[shared a post] Deep clean {URL_OF_POST}",
            0,
        ),
        ({"attachments": [{"type": "share", "payload": {"url": URL_OF_POST}}]}, f"[shared a post] {URL_OF_POST}", 0),
        ({"attachments": [{"type": "ig_reel", "payload": {"url": URL_OF_POST}}]}, f"[shared a reel] {URL_OF_POST}", 0),
        (
            {
                "text": f"see {URL_OF_POST}",
                "attachments": [{"type": "fallback", "title": "Our ovens", "url": URL_OF_POST, "payload": None}],
            },
            f"see {URL_OF_POST}\n[shared a link] Our ovens {URL_OF_POST}",
            0,
        ),
        (
            {"attachments": [{"type": "fallback", "payload": {"url": "javascript:alert(1)", "title": "x"}}]},
            "[shared a link] x",
            0,
        ),
        (
            {
                "attachments": [
                    {
                        "type": "template",
                        "payload": {"product": {"elements": [{"title": "Soap", "item_url": URL_OF_POST}]}},
                    }
                ]
            },
            f"[card] Soap {URL_OF_POST}",
            0,
        ),
        (
            {"attachments": [{"type": "location", "payload": {"coordinates": {"lat": 52.52, "long": 13.4}}}]},
            "[location] 52.52, 13.4",
            0,
        ),
        ({"attachments": [{"type": "hologram", "payload": 7}]}, "[hologram that can't be shown here]", 0),
        ({"attachments": [{"type": "image", "payload": {"url": "https://cdn.example.test/a"}}]}, "", 1),
        ({"text": None, "attachments": [{"type": "audio"}]}, "", 1),
    ],
)
def test_what_is_no_text_and_no_file_is_told_in_words_with_its_link(
    fields: dict[str, Any], body: str, files: int
) -> None:
    (found,) = read(event(message={"mid": "m_1", **fields})).messages
    assert (found.body, len(found.attachments)) == (body, files)


def test_unsent_edited_and_reacted_to_are_changes_of_their_message() -> None:
    page = {"sender": {"id": PAGE_ID}, "recipient": {"id": TO}}
    received = read(
        event(message={"mid": "m_1", "is_deleted": True}),
        event(message={"mid": "m_2", "is_deleted": "true", "text": "gone"}),
        event(message_edit={"mid": "m_3", "text": "At ten", "num_edit": 1}),
        event(reaction={"mid": "m_4", "action": "react", "reaction": "love", "emoji": "❤"}),
        event(reaction={"mid": "m_5", "action": "unreact"}),
        event(reaction={"mid": "m_6", "reaction": "love"}),
        {**event(reaction={"mid": "m_7", "action": "react", "emoji": "👍"}), **page},
    )
    assert [(c.external_id, c.removed, c.body, c.reaction) for c in received.changes] == [
        ("m_1", True, None, None),
        ("m_2", True, None, None),
        ("m_3", False, "At ten", None),
        ("m_4", False, None, "❤"),
        ("m_5", False, None, ""),
        ("m_6", False, None, "love"),
    ]
    assert (received.messages, received.statuses, received.elsewhere) == ((), (), ())


def test_an_echo_of_what_a_colleague_wrote_is_a_message_of_the_thread() -> None:
    people = {"sender": {"id": PAGE_ID}, "recipient": {"id": TO}, "timestamp": 1795392000000}
    received = read(
        {**people, "message": {"mid": "m_1", "is_echo": True, "text": "At nine", "app_id": 26390203743090}},
        {**people, "message": {"mid": "m_2", "is_echo": True, "text": "ours", "metadata": "msg_1"}},
    )
    assert received.elsewhere == (
        WrittenElsewhere(
            external_id="m_1",
            recipient=TO,
            body="At nine",
            author="Meta inbox",
            occurred_at=datetime(2026, 11, 23, 0, 0, tzinfo=UTC),
            attachments=[],
        ),
    )
    assert received.messages == ()


def test_the_dashboards_test_event_is_a_message_of_a_named_sender() -> None:
    value = {"sender": {"id": "12334"}, "recipient": {"id": "23245"}, "timestamp": "1527459824"}
    value |= {"message": {"mid": "random_mid", "text": "random_text"}}
    for account, name in (("0", "Meta's test event"), (PAGE_ID, None)):
        (found,) = read(entry={"id": account, "time": 1, "changes": [{"field": "messages", "value": value}]}).messages
        assert (found.sender, found.body, found.sender_name) == ("12334", "random_text", name)
        assert found.occurred_at == datetime(2018, 5, 27, 22, 23, 44, tzinfo=UTC)


@pytest.mark.parametrize("odd", [7, {"messaging": []}, {"id": PAGE_ID, "messaging": {}}, None])
def test_an_entry_that_cant_be_read_does_not_refuse_those_beside_it(odd: Any) -> None:
    good = {"id": PAGE_ID, "messaging": [message("m_1", "one")]}
    body, headers = signed({"object": "page", "entry": [odd, good, odd]})
    assert [m.body for m in make().receive(request(body, headers)).messages] == ["one"]


@pytest.mark.parametrize(
    "payload",
    [
        [],
        None,
        "x",
        {"hello": "world"},
        {"object": "whatsapp_business_account", "entry": []},
        {"object": "instagram", "entry": []},
        {"object": "page"},
        {"object": "page", "entry": {}},
        {"object": "page", "entry": [1]},
        {"object": "page", "entry": [{"messaging": []}]},
        {"object": "page", "entry": [{"id": PAGE_ID, "messaging": {}}]},
        {"object": "page", "entry": [{"id": PAGE_ID, "messaging": [event(read={"watermark": 1})] * 1001}]},
    ],
)
def test_a_signed_body_outside_the_contract_is_not_taken(payload: Any) -> None:
    with pytest.raises(PayloadInvalid) as caught:
        make().receive(request(*signed(payload)))
    assert not isinstance(caught.value, SignatureInvalid)


@pytest.mark.parametrize(
    "bad",
    [
        7,
        {**message("m_1"), "sender": {"id": "eve"}},
        {**message("m_1"), "sender": None},
        event(read={"watermark": True}),
        event(reaction={"mid": None, "emoji": "x"}),
    ],
)
def test_an_event_that_cant_be_read_is_left_out_and_those_beside_it_are_taken(bad: Any) -> None:
    delivered = event(delivery={"mids": ["m_9"], "watermark": 1795392000000})
    with structlog.testing.capture_logs() as lines:
        received = read(message("m_1", "one"), bad, delivered, message("m_2", "two"))
    assert [(m.external_id, m.body) for m in received.messages] == [("m_1", "one"), ("m_2", "two")]
    assert [(u.external_id, u.status.value) for u in received.statuses] == [("m_9", "DELIVERED")]
    assert [(line["event"], line["provider"]) for line in lines] == [("event_not_understood", "meta_messenger")]


HIDDEN = "[message that can't be shown here: open it in Messenger or Instagram]"


@pytest.mark.parametrize(
    ("payload", "body"),
    [
        (event(message={"text": "no mid"}), "no mid"),
        (event(message={"mid": 7, "text": 8}), "8"),
        (event(message=["x"]), HIDDEN),
        (event(message={"mid": "m", "attachments": "x"}), "[attachment that can't be shown here]"),
        (event(message={"mid": "m", "text": "hi", "attachments": [None]}), "hi\n[attachment that can't be shown here]"),
        (event(message={"mid": "m", "attachments": {"type": "like_heart"}}), "[heart]"),
        (event(message={"mid": "m", "text": "hi", "reply_to": {"mid": 7}}), "hi"),
        (event(message={"mid": "m", "quick_reply": {"payload": "YES"}}), "YES"),
        (event(postback={"payload": "GET_STARTED"}), "GET_STARTED"),
        ({**message("m"), "sender": {"id": int(TO)}}, "hi"),
        ({**message("m"), "recipient": None}, "hi"),
        ({**message("m"), "timestamp": "now"}, "hi"),
        ({**message("m"), "timestamp": 10**30}, "hi"),
        ({**message("m"), "timestamp": 1795392000000.5}, "hi"),
        ({"sender": {"id": TO}, "message": {"mid": "m", "text": "hi"}}, "hi"),
        ({**message("m"), "read": {"watermark": "x"}}, "hi"),
    ],
)
def test_what_a_known_person_wrote_is_kept_whatever_is_odd_about_it(payload: dict[str, Any], body: str) -> None:
    received = read(payload, message("m_2", "two"))
    assert [(m.sender, m.body) for m in received.messages] == [(TO, body), (TO, "two")]
    assert [m.external_id for m in read(payload).messages] == [received.messages[0].external_id]


@pytest.mark.parametrize(("old", "new"), [(b'"one"', b'"o\xffe"'), (b": 1,", b": " + b"9" * 5000 + b",")])
def test_one_odd_character_or_number_does_not_cost_the_batch(old: bytes, new: bytes) -> None:
    raw = json.dumps({"object": "page", "entry": [{"id": PAGE_ID, "time": 1, "messaging": [message("m_1", "one")]}]})
    body = raw.encode().replace(old, new)
    assert new in body
    (found,) = make().receive(request(body, {"x-hub-signature-256": signature(body)})).messages
    assert found.external_id == "m_1"


@pytest.mark.parametrize("body", [b"", b"not json", b"\xff\xfe", b"[" * 100_000])
def test_a_signed_body_that_is_no_json_is_not_taken(body: bytes) -> None:
    with pytest.raises(PayloadInvalid):
        make().receive(request(body, {"x-hub-signature-256": signature(body)}))


# --------------------------------------------------------------------------------------------------------- signatures
# Made with openssl.
VECTOR = (
    b'{"object":"page","entry":[]}',
    "sha256=2b9cbe0b205b971c3311c535dd380b4a695080fdbd651f751e7df72f28a84dcf",
)


def test_a_signature_made_elsewhere_is_accepted() -> None:
    body, header = VECTOR
    assert signature(body) == header
    received = make().receive(request(body, {"x-hub-signature-256": header}))
    assert received == ChannelWebhook(answer_body="EVENT_RECEIVED")


def test_forged_truncated_and_missing_signatures_are_refused() -> None:
    name = "x-hub-signature-256"
    body, headers = signed({"object": "page", "entry": [{"id": PAGE_ID, "messaging": [message("m_1", "¿Qué?")]}]})
    assert b"\\u00bf" in body
    assert make().receive(request(body, headers)).messages
    good = headers[name]
    forgeries: list[tuple[str, bytes, dict[str, str]]] = [
        ("missing", body, {}),
        ("empty", body, {name: ""}),
        ("truncated", body, {name: good[:-1]}),
        ("longer", body, {name: good + "0"}),
        ("no algorithm", body, {name: good.removeprefix("sha256=")}),
        ("other algorithm", body, {name: good.replace("sha256=", "sha1=")}),
        ("not ASCII", body, {name: "ü" * len(good)}),
        ("wrong secret", body, {name: signature(body, secret="guess")}),
        ("empty secret", body, {name: signature(body, secret="")}),
        ("only the old header", body, {"x-hub-signature": good}),
        ("changed body", body.replace(b"m_1", b"m_2"), headers),
        ("truncated body", body[:-1], headers),
        ("written again", json.dumps(json.loads(body), ensure_ascii=False).encode(), headers),
        ("empty body", b"", headers),
    ]
    for what, raw, given in forgeries:
        try:
            got = make().receive(request(raw, given))
        except SignatureInvalid:
            continue
        pytest.fail(f"{what}: accepted as {got}")
    with pytest.raises(SignatureInvalid):
        make(app_secret="").receive(request(body, {name: signature(body, secret="")}))


def test_the_vendors_signed_examples_are_read_and_a_replay_names_the_same_message() -> None:
    fixture = vendor_file("fixtures/meta-messenger-instagram.assembled.json")
    found: dict[str, list[object]] = {}
    for example in fixture["webhooks"] if fixture else []:
        kind = ChannelKind.INSTAGRAM_DM if example["name"].startswith("instagram") else ChannelKind.MESSENGER
        body, headers = example["raw_body"].encode(), {"x-hub-signature-256": example["X-Hub-Signature-256"]}
        channel = make("", kind)
        received = channel.receive(request(body, headers))
        assert channel.receive(request(body, headers)) == received
        for raw in (body[:-1], body + b" ", body.replace(b"1795392000000", b"1795392000001")):
            with pytest.raises(SignatureInvalid):
                channel.receive(request(raw, headers))
        with pytest.raises(PayloadInvalid):  # same app, other kind of channel
            make("", next(k for k in ACCOUNTS if k is not kind)).receive(request(body, headers))
        found[example["name"]] = [
            *((m.external_id, m.body, len(m.attachments)) for m in received.messages),
            *((u.external_id, u.status.value, u.up_to is not None) for u in received.statuses),
        ]
    expected: dict[str, list[object]] = {
        "messenger-text": [("m_test_0001", "Hi, can I pay the deposit?", 0)],
        "messenger-attachment": [("m_test_0002", "", 1)],
        "messenger-echo": [("m_test_0003", "SENT", False)],
        "messenger-postback": [("m_test_0004", "Pay now", 0)],
        "messenger-delivery": [("m_test_0003", "DELIVERED", False)],
        "messenger-read": [("", "READ", True)],
        "instagram-text": [("aWdfZG1f_test_0001", "How much is it?", 0)],
        "instagram-echo": [("aWdfZG1f_test_0002", "SENT", False)],
        "instagram-read": [("aWdfZG1f_test_0002", "READ", False)],
    }
    assert found == (expected if fixture else {})


def test_the_vendors_verification_request_is_answered() -> None:
    fixture = vendor_file("fixtures/meta-messenger-instagram.assembled.json")
    if fixture:
        query = fixture["_about"]["verification_request"]["query"]
        asked = WebhookRequest(method="GET", public_url=URL, headers={}, body=b"", now=NOW, query=query)
        assert make().receive(asked).answer_body == "1158201444"
    assert (fixture is None) == (vendor_file(VENDOR_FILE) is None)


# ----------------------------------------------------------------------------------------------------------- contract
_FACTS = (
    "type",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "required",
    "additionalProperties",
)


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    def compare(mine: Mapping[str, Any], yours: Mapping[str, Any], where: str) -> list[str]:
        mine, yours = _followed(ours, mine), _followed(theirs, yours)
        options = yours.get("oneOf", []) if "properties" not in yours and "type" not in yours else []
        if options:
            tried = [compare(mine, option, where) for option in options]
            return min(tried, key=len)
        found = [f"{where}: {fact}" for fact in _FACTS if not _allows(fact, mine.get(fact), yours.get(fact))]
        for name, schema in mine.get("properties", {}).items():
            if name not in yours.get("properties", {}):
                found.append(f"{where}.{name}: unknown")
            else:
                found += compare(schema, yours["properties"][name], f"{where}.{name}")
        if "items" in mine:
            found += compare(mine["items"], yours.get("items", {}), f"{where}[]")
        return found

    path = "/{version}/{sender_id}/messages"
    mine, yours = ours["paths"][path]["post"], theirs["paths"][path]["post"]
    body = ("requestBody", "content", "application/json", "schema")
    answer = ("responses", "200", "content", "application/json", "schema")
    refusal = ("responses", "default", "content", "application/json", "schema")
    found = []
    for name, keys in (("request", body), ("answer", answer), ("refusal", refusal)):
        left, right = mine, yours
        for key in keys:
            left, right = left[key], right[key]
        found += compare(left, right, name)
    return found


def _followed(spec: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in schema:
        return schema
    found: Mapping[str, Any] = spec["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def _allows(fact: str, mine: Any, yours: Any) -> bool:
    if fact == "enum":
        return yours is None or set(mine or ()) <= set(yours)
    if fact == "required":
        return set(yours or ()) <= set(mine or ())
    if fact in ("pattern", "type"):
        return bool(mine == yours)
    return yours is None or mine == yours


def test_our_contract_allows_only_what_the_vendors_specs_allow() -> None:
    theirs = vendor_file(VENDOR_FILE)
    assert [contract.name for contract in contracts()] == (["ours", "meta's"] if theirs else ["ours"])
    ours = our_contract()
    assert differences(ours, theirs or ours) == []
    # The comparison detects a limit, an enumeration, a property and a requirement.
    changed = copy.deepcopy(ours)
    schemas = changed["components"]["schemas"]
    schemas["Message"]["properties"]["text"]["maxLength"] = 2001
    schemas["SendRequest"]["properties"]["tag"]["enum"] = ["ACCOUNT_UPDATE"]
    schemas["UrlButton"]["properties"]["colour"] = {"type": "string"}
    schemas["SendResponse"]["required"] = []
    assert differences(changed, theirs or ours) == [
        "request.message.text: maxLength",
        "request.message.attachment.payload.buttons[].colour: unknown",
        "request.tag: enum",
        "answer: required",
    ]
