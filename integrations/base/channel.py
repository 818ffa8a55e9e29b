"""The interface of a messaging channel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar

from integrations.base.channel_features import ChannelKind, ChannelLimits, Feature
from integrations.base.channel_webhooks import ChannelWebhook, StatusUpdate, WebhookRequest
from integrations.base.errors import IntegrationError
from integrations.base.messages import OutboundMessage, SendResult


class Channel(ABC):
    """A connected channel. One instance serves concurrent tasks; methods raise only IntegrationError."""

    name: ClassVar[str]  # the module's name
    display_name: ClassVar[str]
    kinds: ClassVar[tuple[ChannelKind, ...]]
    credentials: ClassVar[type[Any]]
    features: ClassVar[frozenset[Feature]] = frozenset()

    @abstractmethod
    def limits(self, kind: ChannelKind) -> ChannelLimits: ...

    @abstractmethod
    async def send(self, message: OutboundMessage) -> SendResult:
        """Make one call, never repeated. Raises: IntegrationError (`ambiguous` if the outcome is unknown)."""

    @abstractmethod
    def receive(self, request: WebhookRequest) -> ChannelWebhook:
        """Verify and parse without a call; omit unusable events. Raises: SignatureInvalid, PayloadInvalid."""

    def media_headers(self, url: str) -> Mapping[str, str]:
        """Headers for an attachment's GET; empty unless the address is the vendor's."""
        return {}

    async def media_url(self, media_id: str) -> str:
        """The address of an attachment with only an `id`; never stored or logged."""
        raise IntegrationError(self.name, "unsupported", "this channel does not support files by id")

    async def register_webhook(self, url: str) -> Mapping[str, str] | None:
        """Register `url`; return credentials to store, or None if a person must enter it."""
        # A repeated call must keep the stored secret.
        return None

    def deep_link(self, token: str) -> str | None:
        """An address that returns `token` (48 of A-Z a-z 0-9 _ -) as `link_token`."""
        return None

    async def look_up(self, message: OutboundMessage, *, sent_after: datetime) -> StatusUpdate | None:
        """Resolve an ambiguous send; None unless exactly one message matches."""
        return None

    async def name_of(self, address: str) -> str | None:
        return None

    async def renewed(self, *, now: datetime) -> Mapping[str, str] | None:
        """Replacements for credentials that expire soon."""
        return None

    async def check(self) -> str | None:
        """Verify the credentials; return the vendor's account id."""
        return None

    async def aclose(self) -> None:  # noqa: B027 (optional to override)
        ...
