"""Email received by our own LMTP server, handled as the mail webhook handles it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from integrations import inbound_mail, signatures
from integrations.base import WebhookRequest
from integrations.channels.smtp_email import NAME, SIGNATURE_HEADER
from models.errors import NotFound
from models.tables import ChannelConnection
from services.connections import providers
from services.core import configuration
from services.messaging import inbound

LIMIT: Final = inbound_mail.MAX_BYTES  # bytes of an email, with its files


async def takes(connection_id: UUID) -> bool:
    return bool(await _secret(connection_id))


async def receive(connection_id: UUID, raw: bytes) -> None:
    """Store a raw RFC 5322 message; returns after the commit.

    Raises: NotFound, BadPayload.
    """
    secret = await _secret(connection_id)
    if not secret:
        raise NotFound
    now = datetime.now(UTC)
    request = WebhookRequest(
        method="POST",
        public_url=configuration.current().environment.public_url,
        headers={SIGNATURE_HEADER.lower(): await asyncio.to_thread(signatures.sign, secret, raw, at=now)},
        body=raw,
        now=now,
    )
    await inbound.receive(NAME, connection_id, request)


async def _secret(connection_id: UUID) -> str:
    row = await ChannelConnection.get_or_none(id=connection_id, provider=NAME)
    return "" if row is None else providers.credentials_of(row).get("inbound_secret", "")
