"""Signed links that connect contacts to a channel."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from integrations.base import Channel
from models import vault

LIFE: Final = timedelta(days=30)
_PURPOSE: Final = "invitation"
_LENGTH: Final = 16 + 4 + 16  # contact, day, mark


def url(channel: Channel, connection_id: UUID, contact_id: UUID, now: datetime) -> str | None:
    """Stable for a day; None if the channel has no such links."""
    if type(channel).deep_link is Channel.deep_link:
        return None
    subject = contact_id.bytes + (_day(now) + LIFE.days).to_bytes(4)
    token = base64.urlsafe_b64encode(subject + vault.mark(_PURPOSE, connection_id.bytes + subject)).decode()
    return channel.deep_link(token)


def contact_of(token: str, connection_id: UUID, now: datetime) -> UUID | None:
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        return None
    subject, mark = raw[:20], raw[20:]
    if len(raw) != _LENGTH or not vault.is_mark(_PURPOSE, connection_id.bytes + subject, mark):
        return None
    return UUID(bytes=subject[:16]) if _day(now) <= int.from_bytes(subject[16:]) else None


def _day(now: datetime) -> int:
    return (now.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)).days
