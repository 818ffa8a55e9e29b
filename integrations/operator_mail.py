"""Emails of the installation itself, such as invitations; an account's own emails go through its channel.

Source: RFC 5321, 5322, 3834 (Auto-Submitted); aiosmtplib.readthedocs.io (5.1).
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.utils import format_datetime, formataddr, make_msgid, parseaddr
from typing import Final

PORTS: Final[Mapping[str, int]] = {"starttls": 587, "tls": 465, "none": 25}
TIMEOUT_S: Final = 20.0
# Stricter than what accounts store: a library must not read another address in it.
_MAILBOX: Final = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+")


@dataclass(frozen=True, slots=True, kw_only=True)
class MailServer:
    host: str
    port: int = 0  # 0: of its `security`
    security: str = "starttls"  # or "tls", "none"
    username: str = ""
    password: str = field(default="", repr=False)
    sender: str = ""  # an address, with or without a name


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    recipient: str
    subject: str
    text: str


class MailRefused(Exception):
    """The mail server refuses this recipient or message for good."""


class MailUnavailable(Exception):
    """The email was not sent; a later attempt may succeed."""


async def send(server: MailServer, mail: Mail) -> None:
    """Raises: MailRefused, MailUnavailable."""
    import aiosmtplib  # loads with the first email

    try:
        tls = None if server.security == "none" else await asyncio.to_thread(ssl.create_default_context)
        async with asyncio.timeout(TIMEOUT_S):
            await aiosmtplib.send(
                composed(server, mail),
                hostname=server.host,
                port=server.port or PORTS[server.security],
                username=server.username or None,
                password=server.password or None,
                use_tls=server.security == "tls",
                start_tls=server.security == "starttls",
                tls_context=tls,
                timeout=TIMEOUT_S,
            )
    except aiosmtplib.SMTPAuthenticationError as error:  # a mistake of the settings, not of the email
        raise MailUnavailable("login refused") from error
    except aiosmtplib.SMTPRecipientsRefused as error:
        final = all(500 <= each.code < 600 for each in error.recipients)
        raise (MailRefused if final else MailUnavailable)("recipient refused") from error
    except aiosmtplib.SMTPResponseException as error:
        raise (MailRefused if 500 <= error.code < 600 else MailUnavailable)(f"answer {error.code}") from error
    except (aiosmtplib.SMTPException, OSError, TimeoutError, ValueError) as error:
        raise MailUnavailable(type(error).__name__) from error


def _mailbox(address: str) -> str:
    local, _, domain = address.rpartition("@")
    try:
        mailbox = f"{local}@{domain.encode('idna').decode()}"
    except UnicodeError as error:
        raise MailRefused("no domain") from error
    if _MAILBOX.fullmatch(mailbox) is None:
        raise MailRefused("not a mailbox that every mail server takes")
    return mailbox


def composed(server: MailServer, mail: Mail) -> EmailMessage:
    """Raises: MailRefused."""
    name, address = parseaddr(server.sender)
    message = EmailMessage(policy=policy.SMTP)
    message["From"] = formataddr((name or "Paythread", address))
    message["To"] = _mailbox(mail.recipient)
    message["Subject"] = " ".join(mail.subject.split())
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = make_msgid(domain=address.rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(mail.text, cte="quoted-printable")
    return message
