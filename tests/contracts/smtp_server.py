"""An SMTP server in the test's loop: it stores emails, refuses or fails on demand, and writes delivery reports."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage, Message
from email.policy import default
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, Self

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

USERNAME = "mailer"
PASSWORD = "smtp-password-not-real"
# After DATA: taken, then silence, a cut, or two answers. Before it: a cut, silence or a word at one command.
FailureMode = Literal["hang", "drop", "twice", "drop_at_rcpt", "hang_at_rcpt"]


@dataclass(frozen=True, slots=True)
class Letter:
    sender: str
    recipients: list[str]
    raw: bytes

    @property
    def message(self) -> EmailMessage:
        parsed = message_from_bytes(self.raw, policy=default)
        assert isinstance(parsed, EmailMessage)
        return parsed

    def text(self, kind: Literal["plain", "html"] = "plain") -> str:
        part = self.message.get_body((kind,))
        assert part is not None
        content: str = part.get_content()
        return content.replace("\r\n", "\n").removesuffix("\n")


@dataclass
class MailServer:
    """Use as `async with MailServer() as server`; listens on 127.0.0.1:`server.port`."""

    tls: ssl.SSLContext | None = None
    implicit_tls: bool = False
    auth: bool = False
    dsn: bool = False
    letters: list[Letter] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)  # address -> answer to RCPT
    answers: dict[str, str] = field(default_factory=dict)  # "MAIL", "DATA" -> answer instead of 250
    commands: list[str] = field(default_factory=list)  # verbs, in order
    parameters: list[str] = field(default_factory=list)  # arguments of MAIL and RCPT as they came
    failures: list[FailureMode] = field(default_factory=list)
    port: int = 0

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._sessions: list[_Connection] = []
        self._closing = asyncio.Event()
        self._server = await loop.create_server(
            self._connect, "127.0.0.1", 0, ssl=self.tls if self.implicit_tls else None
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        self._server.close()
        for session in self._sessions:
            session.cut()
        await self._server.wait_closed()
        await asyncio.gather(*(session.stop() for session in self._sessions))

    def fail_next(self, mode: FailureMode) -> None:
        self.failures.append(mode)

    def _connect(self) -> _Connection:
        connection = _Connection(self)
        self._sessions.append(connection)
        return connection

    def _take(self, *modes: FailureMode) -> FailureMode | None:
        if self.failures and self.failures[0] in modes:
            return self.failures.pop(0)
        return None

    # --------------------------------------------------------------------------------------------- aiosmtpd's hooks
    async def handle_EHLO(
        self, server: _Connection, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        return [*responses[:-1], "250-DSN", responses[-1]] if self.dsn else responses

    async def handle_MAIL(
        self, server: _Connection, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if answer := self.answers.get("MAIL"):
            return answer
        envelope.mail_from = address
        return "250 2.1.0 OK"

    async def handle_RCPT(
        self, server: _Connection, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        mode = self._take("drop_at_rcpt", "hang_at_rcpt")
        if mode == "drop_at_rcpt":
            server.cut()
        if mode == "hang_at_rcpt":
            await self._closing.wait()
        if answer := self.refusals.get(address):
            return answer
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: _Connection, session: Session, envelope: Envelope) -> str:
        if answer := self.answers.get("DATA"):
            return answer
        assert isinstance(envelope.content, bytes)
        self.letters.append(Letter(envelope.mail_from or "", list(envelope.rcpt_tos), envelope.content))
        mode = self._take("hang", "drop", "twice")
        if mode == "hang":
            await self._closing.wait()
        if mode == "drop":
            server.cut()
        if mode == "twice":
            await server.push("250 2.0.0 OK")
        return "250 2.0.0 OK: queued"

    def authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, given: Any
    ) -> AuthResult:
        right = isinstance(given, LoginPassword) and given == LoginPassword(USERNAME.encode(), PASSWORD.encode())
        return AuthResult(success=right, handled=False)


class _Connection(SMTP):
    def __init__(self, server: MailServer) -> None:
        self._mail_server = server
        self._socket: asyncio.BaseTransport | None = None
        super().__init__(
            server,
            hostname="mail.example.test",
            loop=asyncio.get_running_loop(),
            tls_context=None if server.implicit_tls else server.tls,
            require_starttls=server.tls is not None and not server.implicit_tls,
            authenticator=server.authenticate,
            auth_required=server.auth,
            auth_require_tls=server.tls is not None,
            timeout=30,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = self._socket or transport
        super().connection_made(transport)
        if self._mail_server.implicit_tls:
            self._tls_protocol = transport  # type: ignore[assignment]  # aiosmtpd only knows of TLS that it started itself

    async def stop(self) -> None:
        if self._handler_coroutine is not None:
            self._handler_coroutine.cancel()
            await asyncio.gather(self._handler_coroutine, return_exceptions=True)

    def cut(self) -> None:
        # Over TLS a transport that is closed already has nothing left to abort (asyncio's own raises then).
        if isinstance(self._socket, asyncio.WriteTransport) and not self._socket.is_closing():
            self._socket.abort()

    async def _call_handler_hook(self, command: str, *args: Any) -> Any:
        self._mail_server.commands.append(command)
        return await super()._call_handler_hook(command, *args)

    async def smtp_MAIL(self, arg: str | None) -> None:
        self._mail_server.parameters.append(arg or "")
        await super().smtp_MAIL(arg)

    async def smtp_RCPT(self, arg: str | None) -> None:
        self._mail_server.parameters.append(arg or "")
        await super().smtp_RCPT(arg)

    def _getparams(self, params: Any) -> Any:
        found = super()._getparams(params)
        if found and self._mail_server.dsn:
            for name in ("RET", "ENVID", "NOTIFY", "ORCPT"):
                found.pop(name, None)
        return found


# -------------------------------------------------------------------------------------------------- what servers write
def report(
    original: Message,
    action: str,
    *,
    status: str = "2.0.0",
    to: str = "dana@x.test",
    others: Mapping[str, str] | None = None,  # of one report: recipient -> action
    envelope_id: str | None = None,
    quote: Literal["message", "headers", "nothing"] = "headers",
) -> bytes:
    """A delivery report (RFC 3464)."""
    envelope = f"Original-Envelope-Id: {envelope_id}\r\n" if envelope_id else ""
    further = "".join(
        f"\r\nFinal-Recipient: rfc822; {address}\r\nAction: {said}\r\nStatus: {status}\r\n"
        for address, said in (others or {}).items()
    )
    quoted = f"Message-ID: {original['Message-ID']}\r\nSubject: Your payment\r\n\r\n"
    parts = [
        "Content-Type: text/plain\r\n\r\nThis is the mail system at host mail.example.test.\r\n",
        "Content-Type: message/delivery-status\r\n\r\n"
        f"Reporting-MTA: dns; mail.example.test\r\n{envelope}\r\n"
        f"Final-Recipient: rfc822; {to}\r\nAction: {action}\r\nStatus: {status}\r\n"
        f"Diagnostic-Code: smtp; 550 {status} no\r\n{further}",
    ]
    if quote == "headers":
        parts.append(f"Content-Type: text/rfc822-headers\r\n\r\n{quoted}")
    if quote == "message":
        parts.append(f"Content-Type: message/rfc822\r\n\r\n{quoted}Pay here\r\n")
    return _report("delivery-status", parts)


def receipt(original: Message, *, disposition: str = "manual-action/MDN-sent-manually; displayed") -> bytes:
    """A read receipt (RFC 8098)."""
    fields = f"Original-Message-ID: {original['Message-ID']}\r\nDisposition: {disposition}\r\n"
    return _report(
        "disposition-notification",
        [
            "Content-Type: text/plain\r\n\r\nThe message was read.\r\n",
            f"Content-Type: message/disposition-notification\r\n\r\n{fields}",
        ],
    )


def _report(kind: str, parts: list[str]) -> bytes:
    head = (
        "From: Mail Delivery System <MAILER-DAEMON@mail.example.test>\r\nTo: pay@acme.test\r\nSubject: Report\r\n"
        "Message-ID: <report-1@mail.example.test>\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n"
        f'Content-Type: multipart/report; report-type={kind}; boundary="b1"\r\n\r\n'
    )
    return (head + "".join(f"--b1\r\n{part}\r\n" for part in parts) + "--b1--\r\n").encode()


def certificate(folder: Path, *, host: str = "127.0.0.1") -> tuple[ssl.SSLContext, Path]:
    """A server's TLS context, and its certificate authority's file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail.example.test")])
    now = datetime.now(UTC)
    subject = x509.IPAddress(ip_address(host)) if host[-1].isdigit() else x509.DNSName(host)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([subject]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    authority, private = folder / "authority.pem", folder / "private.pem"
    authority.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority, private)
    return context, authority
