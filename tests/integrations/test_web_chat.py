"""The web chat as a channel."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import pytest

from integrations import registry
from integrations.base import (
    ChannelKind,
    DeliveryStatus,
    Environment,
    IntegrationError,
    OutboundMessage,
    SignatureInvalid,
    WebhookRequest,
)
from integrations.channels import web_chat

SECRET = "s" * 32


def channel(secret: str = SECRET, kind: ChannelKind = ChannelKind.WEB_CHAT) -> web_chat.WebChat:
    environment = Environment(public_url="https://pay.example.test", sandbox_url="http://127.0.0.1:1")
    credentials = registry.read_credentials(web_chat.WebChat, {"identity_secret": secret})
    return web_chat.WebChat(credentials, kind=kind, environment=environment)


def message(body: str = "Hello", attempt: str = "att_1") -> OutboundMessage:
    return OutboundMessage(message_id="msg_1", attempt_id=attempt, to="vis_1@chn_1", body=body)


def test_it_declares_itself() -> None:
    assert registry.channel_class("web_chat") is web_chat.WebChat
    assert web_chat.WebChat.kinds == (ChannelKind.WEB_CHAT,)
    assert SECRET not in repr(web_chat.Credentials(SECRET))
    assert [f.name for f in dataclasses.fields(web_chat.Credentials)] == ["identity_secret"]
    limits = channel().limits(ChannelKind.WEB_CHAT)
    assert (limits.max_length, limits.length_unit, limits.window_hours, limits.link_button) == (
        4000,
        "CHARACTERS",
        None,
        True,
    )
    with pytest.raises(ValueError, match="does not serve"):
        channel(kind=ChannelKind.SMS)
    with pytest.raises(IntegrationError):
        channel(secret="s" * 31)


async def test_one_attempt_has_one_id_that_is_found_again() -> None:
    first, other = await channel().send(message()), await channel().send(message(attempt="att_2"))
    assert first.external_id != other.external_id
    assert first.status is DeliveryStatus.SENT
    found = await channel().look_up(message(), sent_after=datetime.now(UTC))
    assert found is not None
    assert (found.external_id, found.status) == (first.external_id, DeliveryStatus.SENT)


async def test_a_text_at_the_limit_is_taken_and_one_more_or_none_is_refused() -> None:
    assert (await channel().send(message("é" * 4000))).external_id
    for body, reason in (("é" * 4001, "too_long"), (" ", "empty_message")):
        with pytest.raises(IntegrationError) as refused:
            await channel().send(message(body))
        assert (refused.value.reason, refused.value.retryable, refused.value.ambiguous) == (reason, False, False)


def test_nothing_that_is_posted_is_taken() -> None:
    request = WebhookRequest(
        method="POST",
        public_url="https://pay.example.test/inbound/web_chat/chn_1",
        headers={"paythread-simulator-signature": "t=1,v1=0"},
        body=b"{}",
        now=datetime.now(UTC),
    )
    with pytest.raises(SignatureInvalid):
        channel().receive(request)


@pytest.mark.parametrize(
    ("address", "widget"),
    [
        (web_chat.address_of("vis_1", "chn_1"), "chn_1"),
        (web_chat.address_of("maria@shop.example", "chn_1"), "chn_1"),
        ("visitor-1", None),
        ("maria@shop.example", None),
        ("@chn_1", None),
    ],
)
def test_an_address_names_its_widget(address: str, widget: str | None) -> None:
    assert web_chat.widget_of(address) == widget
