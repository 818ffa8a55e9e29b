"""Callbacks from a channel's vendor."""

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
    """A delivery report on one message, or with `up_to` on all sent to `address` until then."""

    external_id: str  # "" with `up_to`
    status: DeliveryStatus
    error_code: str | None = None
    error_message: str | None = None
    occurred_at: datetime | None = None
    reason: str | None = None  # of a failure that Paythread acts on: "opted_out", "window_closed"
    message_id: str | None = None  # Paythread's id, if the vendor returns it: finds a message without an external id
    address: str | None = None  # the recipient that the report is about
    up_to: datetime | None = None
    answered: bool = False  # the contact replied to this message, so it arrived, whatever an earlier report said
    opted_out: bool = False  # not delivered because the recipient withdrew consent


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocking:
    """A contact blocked or unblocked the business at the vendor; a STOP stays in force."""

    address: str
    blocked: bool
    occurred_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelWebhook:
    statuses: Sequence[StatusUpdate] = ()
    messages: Sequence[InboundMessage] = ()
    elsewhere: Sequence[WrittenElsewhere] = ()
    changes: Sequence[MessageChange] = ()
    blockings: Sequence[Blocking] = ()
    others: Sequence[str] = ()  # further vendor accounts: the callback goes to their connections too
    answer_body: str = ""
    answer_type: str = "text/plain"
