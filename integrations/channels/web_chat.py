"""The chat widget as a channel. Source: none, there is no vendor: services/web_chat/ and web/widget.py are the other side."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from integrations.base import (
    Channel,
    ChannelKind,
    ChannelLimits,
    ChannelWebhook,
    DeliveryStatus,
    Environment,
    Feature,
    IntegrationError,
    OutboundMessage,
    SendResult,
    SignatureInvalid,
    StatusUpdate,
    WebhookRequest,
)

NAME = "web_chat"
MAX_LENGTH = 4000
SECRET_LENGTH = 32  # characters; HS256 is only as strong as its key
LIMITS = ChannelLimits(max_length=MAX_LENGTH, link_button=True)
# What the widget reports about a message.
STATES: Mapping[str, DeliveryStatus] = {"shown": DeliveryStatus.DELIVERED, "read": DeliveryStatus.READ}


@dataclass(frozen=True, slots=True)
class Credentials:
    """The secret with which the site's server signs its visitors' identities (HS256)."""

    identity_secret: str = field(repr=False)


class WebChat(Channel):
    """One widget."""

    name: ClassVar[str] = NAME
    display_name: ClassVar[str] = "Website chat"
    kinds: ClassVar[tuple[ChannelKind, ...]] = (ChannelKind.WEB_CHAT,)
    credentials: ClassVar[type[Any]] = Credentials
    features: ClassVar[frozenset[Feature]] = frozenset({Feature.DELIVERED, Feature.READ, Feature.LOOK_UP})

    def __init__(self, credentials: Credentials, *, kind: ChannelKind, environment: Environment) -> None:
        if kind not in self.kinds:
            raise ValueError(f"{NAME} does not serve {kind}")
        if len(credentials.identity_secret) < SECRET_LENGTH:
            raise IntegrationError(
                NAME, "credentials_incomplete", f"identity_secret must have at least {SECRET_LENGTH} characters."
            )

    def limits(self, kind: ChannelKind) -> ChannelLimits:
        return LIMITS

    async def send(self, message: OutboundMessage) -> SendResult:
        """Nothing leaves this server: the visitor can read the message once it is SENT. Raises: IntegrationError."""
        if not message.body.strip():
            raise IntegrationError(NAME, "empty_message", "The message is empty.", code="empty_message")
        if len(message.body) > MAX_LENGTH:
            raise IntegrationError(
                NAME, "too_long", f"The message is longer than {MAX_LENGTH} characters.", code="too_long"
            )
        return SendResult(external_id=external_id_of(message.attempt_id))

    async def look_up(self, message: OutboundMessage, *, sent_after: datetime) -> StatusUpdate | None:
        return StatusUpdate(external_id=external_id_of(message.attempt_id), status=DeliveryStatus.SENT)

    def receive(self, request: WebhookRequest) -> ChannelWebhook:
        """Raises: SignatureInvalid, always: there are no callbacks."""
        raise SignatureInvalid(NAME, "no_callbacks")


def external_id_of(attempt_id: str) -> str:
    return "wc_" + hashlib.sha256(attempt_id.encode()).hexdigest()[:32]


def address_of(visitor_id: str, widget_key: str) -> str:
    """A visitor's address. It includes the widget's key: the same visitor id on another site may be another person."""
    return f"{visitor_id}@{widget_key}"


def widget_of(address: str) -> str | None:
    """The key of the address's widget; None if it is not a visitor's."""
    head, _, key = address.rpartition("@")
    return key if head and key.startswith("chn_") else None


provider = WebChat
