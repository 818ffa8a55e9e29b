"""WhatsApp through Twilio: free text within 24 hours of the contact's last message, approved templates at any time.

Source: www.twilio.com/docs/whatsapp/api, /docs/content/using-variables-with-content-api, /docs/api/errors/63016.
"""

from __future__ import annotations

import json
from typing import ClassVar

from integrations.base import ChannelKind, ChannelLimits, Feature, OutboundMessage
from integrations.twilio_api import STATES, Credentials, TwilioMessages

__all__ = ["STATES", "Credentials", "TwilioWhatsApp", "provider"]


class TwilioWhatsApp(TwilioMessages):
    """WhatsApp through one Twilio account."""

    name: ClassVar[str] = "twilio_whatsapp"
    display_name: ClassVar[str] = "Twilio WhatsApp"
    kinds: ClassVar[tuple[ChannelKind, ...]] = (ChannelKind.WHATSAPP,)
    prefix: ClassVar[str] = "whatsapp:"
    features: ClassVar[frozenset[Feature]] = TwilioMessages.features | {Feature.OTHER_CONTENT}

    def limits(self, kind: ChannelKind) -> ChannelLimits:
        # Twilio accepts text outside the window and fails it in the callback (63016).
        return ChannelLimits(max_length=1600, window_hours=24, link_preview=True, templates=True)

    def _content(self, message: OutboundMessage) -> dict[str, str]:
        if message.template_id is None:
            return super()._content(message)
        # Twilio refuses a template together with a text.
        content = {"content_sid": message.template_id}
        if message.template_variables:
            content["content_variables"] = json.dumps(dict(message.template_variables), ensure_ascii=False)
        return content

    def _has_content(self, listed: str, message: OutboundMessage) -> bool:
        if message.template_id is None:
            return super()._has_content(listed, message)
        # A template's text is unknown here. A payment link among its variables makes it unique.
        values = [value for value in message.template_variables.values() if value]
        return bool(values) and all(value in listed for value in values)


provider = TwilioWhatsApp
