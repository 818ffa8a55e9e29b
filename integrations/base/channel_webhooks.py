"""Callbacks from a channel's vendor: the request, and what a provider parses from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from integrations.base.messages import DeliveryStatus, InboundMessage, MessageChange, WrittenElsewhere


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRequest:
    method: str
    public_url: str  # scheme and host from PUBLIC_URL, path and query as received
    headers: Mapping[str, str]  # lower-case names
    body: bytes
    now: datetime
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusUpdate:
    """A delivery report.

    `message_id` (Paythread's public id) is set if the vendor returns it; it finds a message whose external id was lost.
    With `up_to`, `external_id` is empty and the status applies to all messages sent to `address` until then.
    Otherwise `address` is the recipient that the report is about, if an email had several.
    """

    external_id: str
    status: DeliveryStatus
    error_code: str | None = None
    error_message: str | None = None
    occurred_at: datetime | None = None
    reason: str | None = None  # of a failure that Paythread acts on: "opted_out", "window_closed"
    message_id: str | None = None
    address: str | None = None
    up_to: datetime | None = None
    answered: bool = False  # the contact replied to this message, so it arrived, whatever an earlier report said
    opted_out: bool = False  # not delivered because the recipient withdrew consent


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocking:
    """A contact blocked or unblocked the business at the vendor. It does not change a STOP that the contact sent."""

    address: str
    blocked: bool
    occurred_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelWebhook:
    """A verified callback: its events and the response.

    `others`: further vendor accounts that the callback concerns; Paythread passes it to their connections.
    """

    statuses: Sequence[StatusUpdate] = ()
    messages: Sequence[InboundMessage] = ()
    elsewhere: Sequence[WrittenElsewhere] = ()
    changes: Sequence[MessageChange] = ()
    blockings: Sequence[Blocking] = ()
    others: Sequence[str] = ()
    answer_body: str = ""
    answer_type: str = "text/plain"
