"""Twilio's error codes, mapped to our reasons and to sentences for the team.

Source: www.twilio.com/docs/api/errors/N, and the dictionary at www.twilio.com/docs/api/errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

CANCELED: Final = "The message was cancelled before it was sent."

# Our reasons for refused calls and failed deliveries. Those about the account or sender show on the channel.
REASONS: Final[Mapping[str, str]] = {
    "10001": "account_inactive",
    "20003": "unauthorized",
    "20005": "account_inactive",
    "20006": "forbidden",
    "20008": "unauthorized",
    "20404": "not_found",
    "20429": "rate_limited",
    "21211": "invalid_recipient",
    "21212": "invalid_sender",
    "21408": "region_not_allowed",
    "21602": "empty_message",
    "21603": "invalid_sender",
    "21606": "invalid_sender",
    "21608": "trial_account",
    "21610": "opted_out",
    "21614": "not_a_mobile",
    "21617": "too_long",
    "21635": "landline",
    "21655": "invalid_template",
    "21656": "invalid_template",
    "21659": "invalid_sender",
    "21660": "invalid_sender",
    "21661": "invalid_sender",
    "21703": "invalid_sender",
    "21704": "invalid_sender",
    "21705": "invalid_sender",
    "30002": "account_inactive",
    "30018": "sender_not_registered",
    "30022": "sender_limited",
    "30023": "sender_limited",
    "30024": "sender_not_registered",
    "30027": "sender_limited",
    "30032": "sender_not_registered",
    "30033": "sender_not_registered",
    "30034": "sender_not_registered",
    "30035": "sender_not_registered",
    "30037": "account_inactive",
    "63001": "unauthorized",
    "63002": "invalid_sender",
    "63003": "invalid_recipient",
    "63007": "invalid_sender",
    "63008": "sender_not_registered",
    "63016": "window_closed",
    "63018": "sender_limited",
    "63020": "account_inactive",
    "63022": "sender_not_registered",
    "63024": "invalid_recipient",
    "63038": "sender_limited",
    "63051": "account_inactive",
    "63112": "account_inactive",
}

# Explanations for the team.
WORDS: Final[Mapping[str, str]] = {
    "10001": "The Twilio account is not active.",
    "20003": "Twilio does not accept the credentials.",
    "20005": "The Twilio account is not active.",
    "20429": "Twilio received too many requests.",
    "21211": "The number is not valid.",
    "21408": "Messages to this country are not enabled in the Twilio account.",
    "21606": "The sender cannot send messages to this number.",
    "21608": "A Twilio trial account can only write to verified numbers.",
    "21610": "The recipient has opted out.",
    "21611": "Too many messages of this sender are queued at Twilio.",
    "21612": "No carrier accepts messages from this sender to this number.",
    "21614": "The number is not a mobile number.",
    "21617": "The message is too long.",
    "21635": "The number is a landline.",
    "30001": "Too many messages are queued at Twilio.",
    "30002": "The Twilio account is suspended.",
    "30003": "The handset could not be reached.",
    "30004": "The recipient's carrier or the recipient blocks messages.",
    "30005": "The number is unknown.",
    "30006": "The number is a landline or its carrier cannot be reached.",
    "30007": "The carrier filtered the message.",
    "30008": "The carrier did not deliver the message and gave no reason.",
    "30009": "A part of the message was lost.",
    "30010": "The message costs more than the maximum price set at Twilio.",
    "30011": "The number cannot receive pictures.",
    "30012": "The message expired before it was sent.",
    "30013": "The message's lifetime is too long for Twilio.",
    "30014": "Twilio did not accept the message's attributes.",
    "30017": "The carrier's network is congested.",
    "30018": "This country's carriers require a registered sender.",
    "30019": "The content is too large for the carrier.",
    "30022": "The number sends more than its US registration (A2P 10DLC) allows.",
    "30023": "The number has reached its daily limit of the US registration (A2P 10DLC).",
    "30024": "The carrier does not know this number as a sender.",
    "30027": "The number has reached T-Mobile's daily limit of the US registration (A2P 10DLC).",
    "30032": "The toll-free number is not verified at Twilio.",
    "30033": "The US registration (A2P 10DLC campaign) of the number is suspended.",
    "30034": "The number is not registered for messages to the US (A2P 10DLC).",
    "30035": "The number's US registration (A2P 10DLC) is still being set up.",
    "30036": "The message expired before it was delivered.",
    "30037": "Outgoing messages are disabled for the Twilio account.",
    "30038": "The message looks like a one-time password and was filtered.",
    "30039": "Twilio stopped the message because it replies to an automatic reply.",
    "30044": "The message is too long for a Twilio trial account.",
    "30410": "The carrier did not answer in time.",
    "30450": "Twilio's protection against SMS fraud blocked the message.",
    "30453": "Twilio's protection against SMS fraud blocked the message.",
    "63001": "WhatsApp does not accept the sender's credentials.",
    "63002": "WhatsApp does not know the sender.",
    "63003": "There is no WhatsApp account at this number.",
    "63005": "The recipient's network did not accept the content.",
    "63006": "The message could not be formatted for the recipient's network.",
    "63007": "Twilio does not know the sender of this channel.",
    "63008": "The sender's setup at Twilio is incomplete.",
    "63009": "The recipient's network answered with an error.",
    "63010": "The recipient's network had an internal error.",
    "63012": "The recipient's network had an internal error.",
    "63013": "The message violates the network's policy.",
    "63014": "The recipient has blocked messages.",
    "63015": "Twilio's sandbox only writes to numbers that have joined it.",
    "63016": "The 24 hours since the contact's last message are over; only an approved template can be sent.",
    "63017": "The network limits messages to this recipient at the moment.",
    "63018": "The sender has reached the network's rate limit.",
    "63019": "The file could not be fetched.",
    "63020": "The business account at Meta is not accepted or has an unpaid bill.",
    "63021": "The network does not accept the content.",
    "63022": "The sender's WhatsApp name is not approved.",
    "63023": "The recipient's network answered with an error.",
    "63024": "The recipient cannot be reached on WhatsApp.",
    "63025": "The file already exists at WhatsApp.",
    "63026": "The sender's data at WhatsApp cannot be read.",
    "63027": "The template does not exist in this language.",
    "63028": "The number of variables does not match the template.",
    "63029": "The recipient's app could not load the template.",
    "63030": "A parameter of the message is not supported.",
    "63031": "The sender and the recipient are the same.",
    "63032": "WhatsApp does not deliver this message to this user at the moment.",
    "63033": "The recipient has blocked the sender.",
    "63034": "The file is too large for the recipient's network.",
    "63035": "The recipient's network does not support this.",
    "63036": "The recipient's phone cannot receive RCS messages.",
    "63038": "The account has reached its daily limit of messages.",
    "63040": "The template is rejected by WhatsApp.",
    "63041": "The template is paused by WhatsApp.",
    "63042": "The template is disabled by WhatsApp.",
    "63049": "Meta chose not to deliver this marketing message to this user.",
    "63051": "The WhatsApp business account is restricted by Meta.",
    "63112": "The business account is disabled by Meta.",
}


def reason_of(code: str | None) -> str | None:
    """None if the code concerns only this message."""
    return REASONS.get(code) if code else None


def explanation_of(code: str | None, vendor_message: str = "") -> str:
    """A sentence for the team; unknown codes include `vendor_message`."""
    if not code:
        return "Twilio did not deliver the message and gave no reason."
    if code in WORDS:
        return WORDS[code]
    more = vendor_message.strip().rstrip(".")
    return f"Twilio did not deliver the message (error {code}{f': {more}' if more else ''})."[:300]
