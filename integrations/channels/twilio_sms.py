"""SMS through Twilio, and RCS of the same sender: one conversation, one consent.

Source: www.twilio.com/docs/messaging/api/message-resource (API 2010-04-01), /docs/api/errors/21617.
"""

from __future__ import annotations

from typing import ClassVar

from integrations.base import ChannelKind, ChannelLimits
from integrations.twilio_api import STATES, Credentials, TwilioMessages

__all__ = ["STATES", "Credentials", "TwilioSms", "provider"]


class TwilioSms(TwilioMessages):
    """SMS through one Twilio account."""

    name: ClassVar[str] = "twilio_sms"
    display_name: ClassVar[str] = "Twilio SMS"
    kinds: ClassVar[tuple[ChannelKind, ...]] = (ChannelKind.SMS,)
    inbound_prefixes: ClassVar[tuple[str, ...]] = ("rcs:",)
    answers_help: ClassVar[bool] = True

    def limits(self, kind: ChannelKind) -> ChannelLimits:
        return ChannelLimits(max_length=1600)  # error 21617


provider = TwilioSms
