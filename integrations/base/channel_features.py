"""What a channel's vendor offers and how much a message may carry."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ChannelKind(StrEnum):
    """The six kinds of channel (CUSTOM: a plug-in with declared limits)."""

    SMS = "SMS"
    EMAIL = "EMAIL"
    WHATSAPP = "WHATSAPP"
    INSTAGRAM_DM = "INSTAGRAM_DM"
    MESSENGER = "MESSENGER"
    WEB_CHAT = "WEB_CHAT"
    CUSTOM = "CUSTOM"


class Feature(StrEnum):
    """What a channel's vendor offers beside taking texts and telling of them. The kit tests what is declared, and that no more is done."""

    SIGNED_BODY = "SIGNED_BODY"  # callbacks are signed over their raw body; without it they carry a secret
    DELIVERED = "DELIVERED"  # callbacks tell that a message was delivered
    READ = "READ"  # … read
    FAILED = "FAILED"  # … not delivered
    LOOK_UP = "LOOK_UP"  # a message whose answer was lost can be found again: `look_up`
    BATCHES = "BATCHES"  # one callback may tell of several events
    OTHER_EVENTS = "OTHER_EVENTS"  # callbacks may tell of what the channel has no use for
    SHARED_CALLBACKS = "SHARED_CALLBACKS"  # a callback names the vendor's account; it may be another than ours
    HANDSHAKE = "HANDSHAKE"  # the vendor checks the address with a GET that wants its challenge back
    REGISTRATION = "REGISTRATION"  # `register_webhook` tells the vendor our address
    FILES = "FILES"  # contacts send files
    CAPTIONS = "CAPTIONS"  # a file may have words beside it, in the same message
    GROUPS = "GROUPS"  # callbacks may tell of what is written in groups: no private messages, left out
    OTHER_CONTENT = (
        "OTHER_CONTENT"  # contacts send what is neither text nor file (a place, a sticker): a message all the same
    )
    ANSWERS = "ANSWERS"  # a message can point at an earlier one: `in_reply_to`
    EDITS = "EDITS"  # contacts change what they wrote
    REMOVALS = "REMOVALS"  # contacts take back what they wrote
    ECHOES = "ECHOES"  # callbacks tell of our own messages, too
    BLOCKS = "BLOCKS"  # callbacks tell that a contact has blocked us, and that this is over
    DEEP_LINKS = "DEEP_LINKS"  # a link opens the chat and brings our token back: `deep_link`


class LengthUnit(StrEnum):
    """What a vendor counts a text in."""

    CHARACTERS = "CHARACTERS"  # Unicode code points
    UTF16_UNITS = "UTF16_UNITS"  # what is beyond U+FFFF, as most emoji, counts twice
    BYTES = "BYTES"  # of UTF-8


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelLimits:
    """What a provider can carry, as data."""

    max_length: int | None = None  # of one message's text, in `length_unit`
    length_unit: LengthUnit = LengthUnit.CHARACTERS
    window_hours: int | None = None  # free text only within so many hours of the contact's last inbound message
    needs_subject: bool = False
    link_preview: bool = False
    link_button: bool = False  # the payment link becomes a button; it stays in the text all the same
    templates: bool = False  # outside the window an approved template (`template_id`) may be sent
    person_window_hours: int | None = None  # the window for what a person writes, where it is longer
    messages_per_s: float | None = None  # what the vendor takes on one connection; more wait their turn
    max_cc: int = 0  # e-mail: how many addresses may get a copy (OutboundMessage.cc); 0: `cc` is not sent
    recipient_messages_per_s: float | None = None  # … for one recipient; the others need not wait

    def length_of(self, text: str) -> int:
        """How long a text is, in `length_unit`."""
        match self.length_unit:
            case LengthUnit.CHARACTERS:
                return len(text)
            case LengthUnit.UTF16_UNITS:
                return len(text.encode("utf-16-le", "surrogatepass")) // 2
            case LengthUnit.BYTES:
                return len(text.encode("utf-8", "surrogatepass"))
