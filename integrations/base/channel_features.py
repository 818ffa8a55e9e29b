"""What a channel's vendor supports, and its message limits."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ChannelKind(StrEnum):
    """CUSTOM is a plug-in with declared limits."""

    SMS = "SMS"
    EMAIL = "EMAIL"
    WHATSAPP = "WHATSAPP"
    INSTAGRAM_DM = "INSTAGRAM_DM"
    MESSENGER = "MESSENGER"
    WEB_CHAT = "WEB_CHAT"
    CUSTOM = "CUSTOM"


class Feature(StrEnum):
    """What a channel supports beyond text; the kit tests that the channel does exactly this."""

    SIGNED_BODY = "SIGNED_BODY"  # callbacks are signed over their raw body; otherwise they carry a secret
    DELIVERED = "DELIVERED"  # callbacks report that a message was delivered
    READ = "READ"  # callbacks report that a message was read
    FAILED = "FAILED"  # callbacks report that a message was not delivered
    LOOK_UP = "LOOK_UP"  # `look_up` can find a message whose send had no answer
    BATCHES = "BATCHES"  # one callback may hold several events
    OTHER_EVENTS = "OTHER_EVENTS"  # callbacks may hold events that the channel does not use
    SHARED_CALLBACKS = "SHARED_CALLBACKS"  # a callback names the vendor's account, which may not be the connection's
    HANDSHAKE = "HANDSHAKE"  # the vendor verifies the address by a GET whose challenge must be returned
    REGISTRATION = "REGISTRATION"  # `register_webhook` registers the callback address
    FILES = "FILES"  # contacts send files
    CAPTIONS = "CAPTIONS"  # a file may come with text in the same message
    GROUPS = "GROUPS"  # callbacks may hold group messages, which are omitted: they are not private
    OTHER_CONTENT = "OTHER_CONTENT"  # contacts send messages that are neither text nor file (a location, a sticker)
    ANSWERS = "ANSWERS"  # a message can reply to an earlier one: `in_reply_to`
    EDITS = "EDITS"  # contacts edit messages
    REMOVALS = "REMOVALS"  # contacts remove messages
    ECHOES = "ECHOES"  # callbacks include Paythread's own messages
    BLOCKS = "BLOCKS"  # callbacks report that a contact blocked or unblocked the business
    DEEP_LINKS = "DEEP_LINKS"  # `deep_link`: a link opens the chat and returns Paythread's token


class LengthUnit(StrEnum):
    CHARACTERS = "CHARACTERS"  # Unicode code points
    UTF16_UNITS = "UTF16_UNITS"  # characters above U+FFFF, as most emoji, count twice
    BYTES = "BYTES"  # of UTF-8


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelLimits:
    max_length: int | None = None  # of one message's text, in `length_unit`
    length_unit: LengthUnit = LengthUnit.CHARACTERS
    window_hours: int | None = None  # free text only within this time after the contact's last message
    needs_subject: bool = False
    link_preview: bool = False
    link_button: bool = False  # the payment link becomes a button, and also stays in the text
    templates: bool = False  # after the window, an approved template (`template_id`) may be sent
    person_window_hours: int | None = None  # the window for messages from a person, if it is longer
    messages_per_s: float | None = None  # per connection; further messages are queued
    max_cc: int = 0  # email: the maximum of addresses in OutboundMessage.cc; 0: `cc` is not supported
    recipient_messages_per_s: float | None = None  # per recipient; messages to others are not delayed

    def length_of(self, text: str) -> int:
        match self.length_unit:
            case LengthUnit.CHARACTERS:
                return len(text)
            case LengthUnit.UTF16_UNITS:
                return len(text.encode("utf-16-le", "surrogatepass")) // 2
            case LengthUnit.BYTES:
                return len(text.encode("utf-8", "surrogatepass"))
