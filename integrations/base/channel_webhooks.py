"""Requests from a channel's vendor, and what a provider reads from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from integrations.base.messages import DeliveryStatus, InboundMessage, MessageChange, WrittenElsewhere


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRequest:
    """An inbound HTTP request as a provider needs it for verification."""

    method: str
    public_url: str  # scheme and host from PUBLIC_URL, path and query as received
    headers: Mapping[str, str]  # lower-case names
    body: bytes
    now: datetime
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusUpdate:
    """A delivery callback.

    `message_id` (our public id) is known where the vendor hands back what we gave it: it names the message although its
    external id was lost. With `up_to` there is no external id: the status holds for every message to `address` sent until then.
    Without it `address` is the recipient that the status is about, where an e-mail had several.
    """

    external_id: str
    status: DeliveryStatus
    error_code: str | None = None
    error_message: str | None = None
    occurred_at: datetime | None = None
    reason: str | None = None  # of a failure: our word where it has consequences ("opted_out", "window_closed")
    message_id: str | None = None
    address: str | None = None
    up_to: datetime | None = None
    answered: bool = False  # the contact answered this very message: it arrived, whatever a report said before
    opted_out: bool = False  # not delivered because the recipient has withdrawn the consent


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocking:
    """A contact has blocked us at the vendor, or has taken that back. A STOP that they wrote stays whatever this says."""

    address: str
    blocked: bool
    occurred_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelWebhook:
    """A verified callback: any mix of statuses, messages and changes of messages, and what to answer.

    `others`: vendor accounts that the callback speaks of besides this connection's; hand it to their connections, too.
    """

    statuses: Sequence[StatusUpdate] = ()
    messages: Sequence[InboundMessage] = ()
    elsewhere: Sequence[WrittenElsewhere] = ()
    changes: Sequence[MessageChange] = ()
    blockings: Sequence[Blocking] = ()
    others: Sequence[str] = ()
    answer_body: str = ""
    answer_type: str = "text/plain"
