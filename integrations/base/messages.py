"""Messages to and from a contact."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class DeliveryStatus(StrEnum):
    """QUEUED < SENDING < SENT < DELIVERED < READ; FAILED final; UNKNOWN yields to any."""

    QUEUED = "QUEUED"
    SENDING = "SENDING"
    SENT = "SENT"
    DELIVERED = "DELIVERED"
    READ = "READ"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"


class Author(StrEnum):
    """Who wrote an outgoing message: vendors allow a person more than a program."""

    PERSON = "PERSON"
    AUTOMATION = "AUTOMATION"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundMessage:
    """One message to hand to a provider. A provider that has no use for an optional field ignores it."""

    message_id: str  # our public id
    attempt_id: str  # unique per call
    to: str  # E.164, e-mail address, page-scoped id, visitor id
    body: str
    subject: str | None = None
    status_url: str | None = None  # absolute public URL for delivery callbacks
    sender_name: str | None = None
    author: Author | None = None  # None: not known, which counts as neither
    last_inbound_at: datetime | None = None  # when this contact last wrote on this channel; None: not known
    template_id: str | None = None  # the vendor's id of an approved template, sent instead of `body`
    template_variables: Mapping[str, str] = field(default_factory=dict)  # placeholder -> text
    link_url: str | None = None  # what the button opens; None: the first payment link in `body`
    link_label: str | None = None  # the button's words; None: "Pay now"
    reply_to: str | None = None  # where answers go, if not to the sender
    in_reply_to: str | None = None  # external_id of the message that this one answers
    references: Sequence[str] = ()  # external_ids of the thread so far, oldest first
    unsubscribe_url: str | None = None  # https address that takes a one-click POST (RFC 8058)
    cc: Sequence[str] = ()  # e-mail: who gets a copy; never more than ChannelLimits.max_cc


@dataclass(frozen=True, slots=True, kw_only=True)
class SendResult:
    """The provider accepted the message."""

    external_id: str
    status: DeliveryStatus = DeliveryStatus.SENT
    relay_id: str | None = None  # what the vendor calls the message where it may replace our id
    refused_cc: Sequence[str] = ()  # of OutboundMessage.cc: the vendor sends them no copy


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundMessage:
    """What a contact wrote.

    `external_id` is unique on this connection: of a vendor that counts in each chat, it is made of chat and number. Times have a zone.
    """

    external_id: str
    sender: str  # the address that `send` takes, in one spelling
    body: str
    recipient: str | None = None
    sender_name: str | None = None
    opt_out: bool | None = None  # True: STOP, False: START, None: neither
    occurred_at: datetime | None = None
    # Of url, content_type, name, size (bytes): what the vendor tells. In place of url: `id`, for `media_url` to find the address
    # later; or `content` (base64), which came along.
    attachments: Sequence[Mapping[str, str]] = ()
    subject: str | None = None
    in_reply_to: str | None = (
        None  # external_id of the message, of either side, that it points at; a letter: proved to be ours
    )
    references: Sequence[str] = ()  # ids that it names, of which one may be a relay's
    quoted: str | None = None  # what the message quotes of earlier ones: kept, and shown apart from `body`
    cc: Sequence[str] = ()  # addresses of the other recipients of a letter
    help_answered: bool = False  # a HELP that the vendor has answered itself
    stop_unanswered: bool = False  # a STOP that the vendor leaves to us to confirm
    link_token: str | None = None  # what `deep_link` was given, where the contact came by such a link


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageChange:
    """What is told later of a message of either side: its writer changed or removed it, or the contact reacted to it."""

    external_id: str  # of the message
    body: str | None = None  # the new text; None: it stays
    removed: bool = False
    reaction: str | None = None  # the contact's emoji; "": taken back; None: it stays
    opt_out: bool | None = None  # of the new text, as in InboundMessage
    occurred_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenElsewhere:
    """A message to a contact that was not sent through us: a colleague wrote it in the vendor's own inbox or app."""

    external_id: str
    recipient: str  # the contact's address
    body: str
    author: str  # what the thread shows as its author
    occurred_at: datetime | None = None
    attachments: Sequence[Mapping[str, str]] = ()  # as in InboundMessage
    in_reply_to: str | None = None
    template: bool = False  # a button or a card, which colleagues rarely write: without words of its own it may be ours


EXTERNAL_ID_LIMIT = 120


def external_id(text: str) -> str:
    """A vendor's message id as it is stored: itself up to EXTERNAL_ID_LIMIT characters, else its SHA-256.

    Instagram's ids and some mail programs' Message-IDs are longer; the same id gives the same text wherever it comes up.
    """
    if len(text) <= EXTERNAL_ID_LIMIT:
        return text
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
