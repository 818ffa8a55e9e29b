"""Receives emails from your own mail server by LMTP (RFC 2033). Keep the port private."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import structlog
from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import Envelope

from models.errors import NotFound
from models.ids import parse_public_id
from services.core import webhooks
from services.messaging import mail

log = structlog.get_logger(__name__)

TIMEOUT_S: Final = 300.0  # RFC 5321, 4.5.3.2.7
NO_CHANNEL: Final = "550 5.1.1 no channel receives email at this address"


class MailHandler:
    async def handle_RCPT(self, server: Any, session: Any, envelope: Envelope, address: str, options: list[str]) -> str:
        if envelope.rcpt_tos:
            return "452 4.5.3 one recipient at a time"  # the mail server sends one transaction each
        channel_id = parse_public_id(address.partition("@")[0], "chn")
        if channel_id is None or not await mail.takes(channel_id):
            return NO_CHANNEL
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:
        channel_id = parse_public_id(envelope.rcpt_tos[0].partition("@")[0], "chn")
        try:
            if channel_id is None:
                raise NotFound
            await mail.receive(channel_id, envelope.original_content or b"")
        except NotFound:
            return NO_CHANNEL
        except webhooks.BadPayload as error:
            log.info("letter_refused", error=str(error))
            return "554 5.6.0 this email cannot be read"
        except Exception as error:  # the mail server keeps the email and retries
            log.exception("letter_failed", error=type(error).__name__)
            return "451 4.3.0 temporary failure"
        return "250 2.0.0 stored"


async def listen(host: str, port: int) -> asyncio.Server:
    """Accept emails until the server is closed. Raises: OSError."""
    return await asyncio.get_running_loop().create_server(
        lambda: LMTP(
            MailHandler(), data_size_limit=mail.LIMIT, hostname="paythread", ident="Paythread", timeout=TIMEOUT_S
        ),
        host,
        port,
    )
