"""WhatsApp through Twilio: free text within 24 hours of the contact's last message, an approved template at any time.

Both numbers of a message wear "whatsapp:". Twilio takes a text outside the window and fails it in the callback with 63016.
The calls and callbacks stand in integrations/twilio_api.py.
Source: www.twilio.com/docs/whatsapp/api, /docs/content/using-variables-with-content-api, /docs/api/errors/63016.
"""

from __future__ import annotations

import json
from typing import ClassVar

from integrations.base import ChannelKind, ChannelLimits, Feature, OutboundMessage
from integrations.twilio_api import STATES, Credentials, TwilioMessages

__all__ = ["STATES", "Credentials", "TwilioWhatsApp", "provider"]


class TwilioWhatsApp(TwilioMessages):
    """WhatsApp through one Twilio account; `from_number` is the sender's number without "whatsapp:"."""

    name: ClassVar[str] = "twilio_whatsapp"
    display_name: ClassVar[str] = "Twilio WhatsApp"
    kinds: ClassVar[tuple[ChannelKind, ...]] = (ChannelKind.WHATSAPP,)
    prefix: ClassVar[str] = "whatsapp:"
    features: ClassVar[frozenset[Feature]] = TwilioMessages.features | {Feature.OTHER_CONTENT}

    def limits(self, kind: ChannelKind) -> ChannelLimits:
        """Twilio's 1,600 characters (Meta alone takes 4,096); 24 hours, then templates."""
        return ChannelLimits(max_length=1600, window_hours=24, link_preview=True, templates=True)

    def _content(self, message: OutboundMessage) -> dict[str, str]:
        """A template goes without a text: Twilio refuses both together."""
        if message.template_id is None:
            return super()._content(message)
        content = {"content_sid": message.template_id}
        if message.template_variables:
            content["content_variables"] = json.dumps(dict(message.template_variables), ensure_ascii=False)
        return content

    def _has_content(self, listed: str, message: OutboundMessage) -> bool:
        """Of a template only the variables are known here: one that is a payment link makes the message unique."""
        if message.template_id is None:
            return super()._has_content(listed, message)
        values = [value for value in message.template_variables.values() if value]
        return bool(values) and all(value in listed for value in values)


provider = TwilioWhatsApp
