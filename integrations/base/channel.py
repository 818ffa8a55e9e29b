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
    """A connected channel. One instance serves one connection, and many tasks at the same time. Methods raise only IntegrationError."""

    name: ClassVar[str]  # the module's name
    display_name: ClassVar[str]
    kinds: ClassVar[tuple[ChannelKind, ...]]
    credentials: ClassVar[type[Any]]
    features: ClassVar[frozenset[Feature]] = frozenset()

    @abstractmethod
    def limits(self, kind: ChannelKind) -> ChannelLimits:
        """The limits of messages on this kind of channel."""

    @abstractmethod
    async def send(self, message: OutboundMessage) -> SendResult:
        """Send by one call, never repeated. Raises: IntegrationError (`ambiguous` if the outcome is unknown)."""

    @abstractmethod
    def receive(self, request: WebhookRequest) -> ChannelWebhook:
        """Verify, then parse, without a call. Large bodies are parsed on another thread.

        Omit events that the channel cannot use, so that the rest is kept. Raises: SignatureInvalid, PayloadInvalid.
        """

    def media_headers(self, url: str) -> Mapping[str, str]:
        """Headers that a GET of an attachment needs, such as authorization. Empty for any address that is not the vendor's."""
        return {}

    async def media_url(self, media_id: str) -> str:
        """The address of an attachment that has only an `id`. It may contain a secret, so it is neither stored nor logged."""
        raise IntegrationError(self.name, "unsupported", "this channel does not support files by id")

    async def register_webhook(self, url: str) -> Mapping[str, str] | None:
        """Register `url` at the vendor for callbacks; return the resulting credentials to store.

        None: a person enters the address there. A repeated call keeps the secret that the credentials already hold.
        """
        return None

    def deep_link(self, token: str) -> str | None:
        """An address that opens this channel and returns `token` (48 of A-Z a-z 0-9 _ -) as `link_token`; None: not supported."""
        return None

    async def look_up(self, message: OutboundMessage, *, sent_after: datetime) -> StatusUpdate | None:
        """Resolve an ambiguous send by a query at the vendor. None unless exactly one message matches."""
        return None

    async def name_of(self, address: str) -> str | None:
        """The name of the person with this address, if messages lack it; None: not known."""
        return None

    async def renewed(self, *, now: datetime) -> Mapping[str, str] | None:
        """Replacements to store for credentials that expire soon; None: none expire soon."""
        return None

    async def check(self) -> str | None:
        """Verify the credentials at the vendor; return the vendor's account id."""
        return None

    async def aclose(self) -> None:  # noqa: B027 (optional to override)
        """Close HTTP clients."""
