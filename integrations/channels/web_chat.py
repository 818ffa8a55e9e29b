"""The chat widget as a channel: its limits and addresses. A sent message is one that the visitor may read.

Visitors and their threads are in services/web_chat/, the widget in web/widget.py.

Source: none, there is no vendor; the limits are this project's.
"""

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
SECRET_LENGTH = 32  # characters: HS256 is as strong as its key
LIMITS = ChannelLimits(max_length=MAX_LENGTH, link_button=True)
# What the widget reports about a message that it has.
STATES: Mapping[str, DeliveryStatus] = {"shown": DeliveryStatus.DELIVERED, "read": DeliveryStatus.READ}


@dataclass(frozen=True, slots=True)
class Credentials:
    """The secret with which the site's own server signs who its visitors are (HS256)."""

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
            raise IntegrationError(NAME, "credentials_incomplete", f"identity_secret has {SECRET_LENGTH} characters.")

    def limits(self, kind: ChannelKind) -> ChannelLimits:
        """4,000 characters, no window; the link becomes a card."""
        return LIMITS

    async def send(self, message: OutboundMessage) -> SendResult:
        """Nothing leaves us: from SENT on the visitor reads the message. One attempt, one id. Raises: IntegrationError."""
        if not message.body.strip():
            raise IntegrationError(NAME, "empty_message", "The text is empty.", code="empty_message")
        if len(message.body) > MAX_LENGTH:
            raise IntegrationError(NAME, "too_long", f"Over {MAX_LENGTH}.", code="too_long")
        return SendResult(external_id=external_id_of(message.attempt_id))

    async def look_up(self, message: OutboundMessage, *, sent_after: datetime) -> StatusUpdate | None:
        """The row itself is the delivery, so that no answer is ever lost for good."""
        return StatusUpdate(external_id=external_id_of(message.attempt_id), status=DeliveryStatus.SENT)

    def receive(self, request: WebhookRequest) -> ChannelWebhook:
        """Nobody calls back. Raises: SignatureInvalid, always."""
        raise SignatureInvalid(NAME, "no_callbacks")


def external_id_of(attempt_id: str) -> str:
    """The id of one attempt to send: `wc_` and 32 hexadecimal digits."""
    return "wc_" + hashlib.sha256(attempt_id.encode()).hexdigest()[:32]


def address_of(who: str, widget_key: str) -> str:
    """A visitor's address. It names the widget: the same name on another site may be another person."""
    return f"{who}@{widget_key}"


def widget_of(address: str) -> str | None:
    """The key of the widget that an address belongs to; None: it is no visitor's."""
    head, _, key = address.rpartition("@")
    return key if head and key.startswith("chn_") else None


provider = WebChat
