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
    """One connected way to send. One instance per connection; safe to share between tasks."""

    name: ClassVar[str]  # file name
    display_name: ClassVar[str]
    kinds: ClassVar[tuple[ChannelKind, ...]]
    credentials: ClassVar[type[Any]]
    features: ClassVar[frozenset[Feature]] = frozenset()

    @abstractmethod
    def limits(self, kind: ChannelKind) -> ChannelLimits:
        """What this provider can carry on this kind of channel."""

    @abstractmethod
    async def send(self, message: OutboundMessage) -> SendResult:
        """One call to the vendor, at most once. Raises IntegrationError (`ambiguous` when the outcome is unknown)."""

    @abstractmethod
    def receive(self, request: WebhookRequest) -> ChannelWebhook:
        """Verify, then parse, without a call; the caller reads large bodies on another thread. Raises SignatureInvalid, PayloadInvalid.

        What the channel has no use for is left out, and never keeps the rest of the callback from being taken.
        """

    def media_headers(self, url: str) -> Mapping[str, str]:
        """What a GET of one of its attachments needs (authorization); empty for any address that is not the vendor's own."""
        return {}

    async def media_url(self, media_id: str) -> str:
        """The address of an attachment that its callback named by `id` only. Raises IntegrationError.

        Asked by the job that fetches the file. It may carry a secret: it is neither stored nor logged.
        """
        raise IntegrationError(self.name, "unsupported", "this channel names no files by id")

    async def register_webhook(self, url: str) -> Mapping[str, str] | None:
        """Have the vendor call `url` for this connection; the credentials that come of it, to be stored. Raises IntegrationError.

        None: a person pastes the address. It may be asked again: a secret that these credentials have already stays.
        """
        return None

    def deep_link(self, token: str) -> str | None:
        """An address that opens this channel and brings `token` (48 of A-Z a-z 0-9 _ -) back as `link_token`; None: there is none."""
        return None

    async def look_up(self, message: OutboundMessage, *, sent_after: datetime) -> StatusUpdate | None:
        """Resolve an ambiguous send by asking the vendor; None when it has no answer (exactly one match counts)."""
        return None

    async def name_of(self, address: str) -> str | None:
        """The name of the person with this address, where messages do not bring it; None: the vendor tells none.

        Raises IntegrationError.
        """
        return None

    async def renewed(self, *, now: datetime) -> Mapping[str, str] | None:
        """Credentials in place of those that end soon, to be stored; None: none end soon. Raises IntegrationError."""
        return None

    async def check(self) -> str | None:
        """Call the vendor with the credentials; return its account id. Raises IntegrationError."""
        return None

    async def aclose(self) -> None:  # noqa: B027 (optional to override)
        """Release HTTP clients."""
