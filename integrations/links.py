"""Finds a message's payment link."""

from __future__ import annotations

import re

from integrations.base import OutboundMessage

DEFAULT_LABEL = "Pay now"


def payment_link(message: OutboundMessage, *, public_url: str) -> str | None:
    """`link_url`, else the first `{public_url}/p/...` in the text."""
    if message.link_url is not None:
        return message.link_url
    found = re.search(re.escape(public_url.rstrip("/")) + r"/p/[A-Za-z0-9_-]+", message.body)
    return found[0] if found else None
