"""Messages to and from contacts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class DeliveryStatus(StrEnum):
    """QUEUED < SENDING < SENT < DELIVERED < READ; FAILED is final; any status replaces UNKNOWN."""

    QUEUED = "QUEUED"
    SENDING = "SENDING"
    SENT = "SENT"
    DELIVERED = "DELIVERED"
    READ = "READ"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"


class Author(StrEnum):
    """Vendors restrict automation more than people."""

    PERSON = "PERSON"
    AUTOMATION = "AUTOMATION"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundMessage:
    """A provider ignores optional fields that it cannot use."""

    message_id: str  # Paythread's public id
    attempt_id: str  # unique per call
    to: str  # E.164 number, email address, page-scoped id, visitor id
    body: str
    subject: str | None = None
    status_url: str | None = None  # absolute public URL for delivery callbacks
    sender_name: str | None = None
    author: Author | None = None  # None: not known; treat as neither
    last_inbound_at: datetime | None = None  # when this contact last wrote on this channel; None: not known
    template_id: str | None = None  # the vendor's id of an approved template, sent instead of `body`
    template_variables: Mapping[str, str] = field(default_factory=dict)  # placeholder -> text
    link_url: str | None = None  # the button's address; None: the first payment link in `body`
    link_label: str | None = None  # the button's text; None: "Pay now"
    reply_to: str | None = None  # the address for replies, if not the sender
    in_reply_to: str | None = None  # external_id of the message that this one replies to
    references: Sequence[str] = ()  # external_ids of the thread so far, oldest first
    unsubscribe_url: str | None = None  # https address that takes a one-click POST (RFC 8058)
    cc: Sequence[str] = ()  # email: at most ChannelLimits.max_cc addresses


@dataclass(frozen=True, slots=True, kw_only=True)
class SendResult:
    external_id: str
    status: DeliveryStatus = DeliveryStatus.SENT
    relay_id: str | None = None  # the vendor's id, if the vendor may replace the Message-ID
    refused_cc: Sequence[str] = ()  # addresses in OutboundMessage.cc that the vendor refused


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundMessage:
    external_id: str  # unique per connection; combine chat and number if the vendor numbers per chat
    sender: str  # the address for `send`, always in the same spelling
    body: str
    recipient: str | None = None
    sender_name: str | None = None
    opt_out: bool | None = None  # True: STOP, False: START, None: neither
    occurred_at: datetime | None = None
    # Keys: content_type, name, size (bytes), and one of `url`, `id` (for `media_url`) and `content` (base64).
    attachments: Sequence[Mapping[str, str]] = ()
    subject: str | None = None
    # external_id of the message, of either side, that this one replies to. Of an email: only if proved to be Paythread's.
    in_reply_to: str | None = None
    references: Sequence[str] = ()  # ids from its References; one may be a relay's
    quoted: str | None = None  # quoted text of earlier messages, shown apart from `body`
    cc: Sequence[str] = ()  # the other recipients of an email
    help_answered: bool = False  # a HELP that the vendor answered
    stop_unanswered: bool = False  # a STOP that Paythread has to confirm
    link_token: str | None = None  # the token passed to `deep_link`, if the contact used such a link


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageChange:
    """A contact's edit, removal or reaction, of either side's message."""

    external_id: str  # the message's
    body: str | None = None  # the new text; None: unchanged
    removed: bool = False
    reaction: str | None = None  # the contact's emoji; "": removed; None: unchanged
    opt_out: bool | None = None  # of the new text, as in InboundMessage
    occurred_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenElsewhere:
    """A message that a colleague sent from the vendor's own inbox or app."""

    external_id: str
    recipient: str  # the contact's address
    body: str
    author: str  # the author's name in the thread
    occurred_at: datetime | None = None
    attachments: Sequence[Mapping[str, str]] = ()  # as in InboundMessage
    in_reply_to: str | None = None
    template: bool = False  # a button or card, which colleagues rarely send; without text it may be Paythread's own


EXTERNAL_ID_LIMIT = 120


def external_id(text: str) -> str:
    """The stored form of a vendor's message id: its SHA-256 above EXTERNAL_ID_LIMIT."""
    if len(text) <= EXTERNAL_ID_LIMIT:
        return text
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
