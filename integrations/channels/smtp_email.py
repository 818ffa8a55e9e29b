"""Email: out by SMTP through any mail service, in by a signed webhook that takes the raw message.

docs/howto/connect-channels.md describes the webhook's header and has a pipe script for it.
Source: RFC 5321, 5322, 3461 and 3464 (delivery reports), 8058 (one-click unsubscribe), 3834 (Auto-Submitted);
aiosmtplib.readthedocs.io (5.1); support.google.com/a/answer/14229414.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import html
import re
import ssl
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import charset
from email.mime.multipart import MIMEMultipart
from email.mime.nonmultipart import MIMENonMultipart
from email.policy import compat32
from email.utils import format_datetime, formataddr
from ipaddress import ip_address
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

import aiosmtplib

from integrations import addresses, inbound_mail, signatures
from integrations.addresses import AddressRefused
from integrations.base import (
    Author,
    Channel,
    ChannelKind,
    ChannelLimits,
    ChannelWebhook,
    DeliveryStatus,
    Environment,
    Feature,
    InboundMessage,
    IntegrationError,
    OutboundMessage,
    PayloadInvalid,
    SendResult,
    StatusUpdate,
    WebhookRequest,
    external_id,
)
from integrations.links import DEFAULT_LABEL, payment_link
from integrations.sms import opt_out_word

NAME = "smtp_email"
SIGNATURE_HEADER = "Paythread-Mail-Signature"
UNSUBSCRIBE = "unsubscribe"  # the subject of emails to the List-Unsubscribe address

# The action of a delivery report (RFC 3464) or disposition of a read receipt (RFC 8098).
STATES: Mapping[str, DeliveryStatus] = {
    "delayed": DeliveryStatus.SENT,
    "relayed": DeliveryStatus.SENT,
    "expanded": DeliveryStatus.SENT,
    "delivered": DeliveryStatus.DELIVERED,
    "displayed": DeliveryStatus.READ,
    "failed": DeliveryStatus.FAILED,
}
# RFC 3463 statuses, longest prefix first, explained to the team.
DELIVERY_ERRORS: Mapping[str, str] = {
    "5.1.1": "There is no such mailbox.",
    "5.1": "The address is not valid.",
    "5.2.2": "The mailbox is full.",
    "5.2": "The mailbox cannot receive mail.",
    "5.4": "The recipient's mail server is unreachable.",
    "5.7": "The recipient's mail server rejected the message because of its policy.",
    "4": "The recipient's mail server did not accept the message in time.",
}
_GENERAL_FAILURE = "The message could not be delivered."

_PORTS: Mapping[str, int] = {"starttls": 587, "tls": 465, "none": 25}
ALLOWED_PORTS = frozenset({25, 465, 587, 2525})
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*")
_TOKEN = re.compile(r"(msg_[A-Za-z0-9]{1,60})\.([0-9a-f]{24})")
_MESSAGE_ID = re.compile(r"<[^<>\s\x00-\x1f\x7f]{1,300}>")
_ENHANCED = re.compile(r"\b[245]\.\d{1,3}\.\d{1,3}\b")
_ANY_ADDRESS = re.compile(r"[^\s<>@]+@[^\s<>@]+")
_LINK = re.compile(r"https?://[^\s<>\"]+[^\s<>\".,;:!?)\]']")
# Footers of mail programs, phones and virus scanners: a verb of sending and a product name.
_PRODUCT = re.compile(
    r"iphone|ipad|android|samsung|galaxy|huawei|xiaomi|redmi|pixel|nokia"
    r"|blackberry|windows|outlook|hotmail|yahoo|gmail|aol|icloud"
    r"|proton|thunderbird|mail\.ru|яндекс|yandex|web\.de|gmx|t-online|telekom"
    r"|orange|libero|seznam|naver|qq|163|126|fairphone|spark|mailspring"
    r"|k-9|fairemail|aqua ?mail|blue ?mail|edison|airmail|evolution|kmail|mailbird|tutanota|tuta|fastmail|zoho",
    re.IGNORECASE,
)
_SENDING_VERB = re.compile(
    r"sent|sendt|gesendet|versendet|von mein|envoyé|envia[dt]|inviato|verzonden|verstuurd|skickat|lähetetty|wysłan|odeslán|odoslan"
    r"|küldve|trimis|posla[nt]o|отправлено|надіслано|изпратено|στάλθηκε|gönderildi|dikirim|dihantar|gửi từ|ส่งจาก|भेजा"
    r"|saadetud|nosūtīts|išsiųsta|bidalia|ارسال|مرسل|رسلت|נשלח|送信|发送|发自|發自|寄自|보냄",
    re.IGNORECASE,
)
_SENT_FROM = re.compile(r"sent (?:from my|via|using|with) [^,;!]{1,60}", re.IGNORECASE)
_ADVERT = re.compile(
    r"outlook (?:for|für|para|pour|per|voor|för|til|til) (?:ios|android|mac|windows)|virus-free|virenfrei|avast\.com|avg\.com|yahoo mail:",
    re.IGNORECASE,
)
# Footers of company mail servers.
_DISCLAIMER = re.compile(
    r"(?=.{60})(?:.*\b(?:confidential|privileged|disclaimer|vertraulich|confidentiel|confidencial|riservat|vertrouwelijk|poufn|конфиденц))",
    re.IGNORECASE,
)
_CLOSING = re.compile(
    r"(?:all the |with )?(?:best|kind|kindest|warm|many)?\s*(?:regards|rgds|wishes|thanks|thank you|thx|cheers"
    r"|sincerely)|best|bye|ciao|yours(?: (?:sincerely|truly|faithfully))?"
    r"|(?:mit )?(?:freundliche[nr]?|viele|beste|liebe) grü(?:ß|ss)en?"
    r"|mfg|lg|vg|danke|cordialement|bien à vous|merci|saludos|gracias"
    r"|cordiali saluti|saluti|grazie|atenciosamente|obrigad[oa]|groet(?:en|jes)?"
    r"|met vriendelijke groet|mvh|med vänlig hälsning|vänliga hälsningar|hilsen"
    r"|terveisin|pozdrawiam|s pozdravem|üdvözlettel|с уважением|спасибо",
    re.IGNORECASE,
)
_DELIMITER = re.compile(r"--|—|__|[-_=*—]{2,}")  # RFC 3676, 4.3, and lines of Outlook and phones
_REFERENCES = 20
MAX_CC = 20  # mail services count each recipient

_UTF8 = charset.Charset("utf-8")
_UTF8.body_encoding = charset.QP
_POLICY = compat32.clone(linesep="\r\n", max_line_length=78)


@dataclass(frozen=True, slots=True)
class Credentials:
    """One mail service and one sender address. `security`: "starttls", "tls" or "none"."""

    host: str
    from_address: str
    port: str = ""  # empty: 587 for starttls, 465 for tls, 25 for none
    security: str = "starttls"
    username: str = ""
    password: str = field(default="", repr=False)
    reply_to: str = ""  # the address for replies, if not from_address
    inbound_secret: str = field(default="", repr=False)  # signs inbound requests; empty: all are refused
    delivery_reports: str = ""  # "yes": also request success reports if the server supports them (RFC 3461)


class SmtpEmail(Channel):
    """Email through one SMTP service."""

    name: ClassVar[str] = NAME
    display_name: ClassVar[str] = "Email (SMTP)"
    kinds: ClassVar[tuple[ChannelKind, ...]] = (ChannelKind.EMAIL,)
    credentials: ClassVar[type[Any]] = Credentials
    features: ClassVar[frozenset[Feature]] = frozenset(
        {Feature.SIGNED_BODY, Feature.DELIVERED, Feature.READ, Feature.FAILED, Feature.FILES, Feature.CAPTIONS}
    )

    def __init__(self, credentials: Credentials, *, kind: ChannelKind, environment: Environment) -> None:
        if kind not in self.kinds:
            raise ValueError(f"{NAME} does not serve {kind}")
        self._credentials = credentials
        self._environment = environment
        self._security = credentials.security or "starttls"
        self._port = _port(credentials.port, self._security)
        self._own_addresses = frozenset(one.lower() for one in (credentials.from_address, credentials.reply_to) if one)
        self._tls: ssl.SSLContext | None = None
        for name in ("from_address", "reply_to"):
            given = getattr(credentials, name)
            if given and not _ADDRESS.fullmatch(given):
                raise IntegrationError(NAME, "credentials_invalid", f"{name} must be an email address.")
        if self._security == "none" and credentials.password and not _is_loopback(credentials.host):
            raise IntegrationError(NAME, "insecure", "A password requires TLS.")

    def limits(self, kind: ChannelKind) -> ChannelLimits:
        return ChannelLimits(needs_subject=True, link_button=True, max_cc=MAX_CC)

    # --------------------------------------------------------------------------------------------------- calls out
    async def send(self, message: OutboundMessage) -> SendResult:
        """Send in one SMTP transaction, never repeated.

        Raises: IntegrationError; `ambiguous` if the connection is lost or times out during DATA.
        """
        if not message.body.strip():
            raise IntegrationError(NAME, "empty_message", "The message is empty.", code="empty_message")
        if not (message.subject or "").strip():
            raise IntegrationError(NAME, "subject_required", "An email needs a subject.", code="subject_required")
        recipient = _envelope_address(message.to)
        copies, refused = _cc_addresses(message.cc)
        content = self._compose(message, recipient, copies.values())
        async with self._session() as (client, phase):
            mail_options, recipient_options = self._report_options(client, message.message_id)
            phase.name = "mail"
            await client.mail(self._credentials.from_address, options=mail_options)
            phase.name = "rcpt"
            await client.rcpt(recipient, options=recipient_options)
            for given, address in copies.items():
                try:
                    await client.rcpt(address, options=recipient_options)
                except aiosmtplib.SMTPRecipientRefused:  # the others still get the email
                    refused.append(given)
            phase.name = "data"
            answer = await client.data(content)
        return SendResult(
            external_id=self.message_id_of(message.message_id),
            status=DeliveryStatus.SENT,
            relay_id=_relay_id(answer.message),
            refused_cc=tuple(refused),
        )

    async def check(self) -> str | None:
        """Connect and log in. Raises: IntegrationError."""
        async with self._session():
            return None

    def message_id_of(self, message_id: str) -> str:
        """The Message-ID of one of our messages, in angle brackets."""
        domain = self._credentials.from_address.rpartition("@")[2]
        return f"<{self._token(message_id)}@{domain}>"

    def _token(self, message_id: str) -> str:
        key = self._credentials.inbound_secret or self._credentials.from_address
        # Only the recipient and the servers on the way know this code: reports without it could be forged.
        digest = hmac.new(key.encode(), f"message-id:{message_id}".encode(), hashlib.sha256).hexdigest()
        return f"{message_id}.{digest[:24]}"

    def _report_options(self, client: aiosmtplib.SMTP, message_id: str) -> tuple[list[str], list[str]]:
        wanted = self._credentials.delivery_reports.strip().lower() == "yes"
        if not wanted or not client.supports_extension("dsn"):
            return [], []
        return ["RET=HDRS", f"ENVID={self._token(message_id)}"], ["NOTIFY=SUCCESS,FAILURE,DELAY"]

    def _compose(self, message: OutboundMessage, recipient: str, copies: Collection[str]) -> bytes:
        credentials = self._credentials
        answers = message.reply_to or credentials.reply_to or credentials.from_address
        mime = MIMEMultipart("alternative")
        mime["From"] = formataddr((_header_line(message.sender_name or ""), credentials.from_address))
        mime["To"] = recipient
        if copies:
            mime["Cc"] = ", ".join(copies)
        mime["Subject"] = _header_line(message.subject or "")
        mime["Date"] = format_datetime(datetime.now(UTC))
        mime["Message-ID"] = self.message_id_of(message.message_id)
        if answers != credentials.from_address:
            mime["Reply-To"] = _header_line(answers)
        thread = [known for known in message.references if _MESSAGE_ID.fullmatch(known)]
        if message.in_reply_to is not None and _MESSAGE_ID.fullmatch(message.in_reply_to):
            mime["In-Reply-To"] = message.in_reply_to
            if message.in_reply_to not in thread:
                thread.append(message.in_reply_to)
        if thread:
            # The first id names the thread and the last ones the replied messages; drop ids between them.
            mime["References"] = " ".join([thread[0], *thread[1:][-_REFERENCES:]])
        unsubscribe = [f"<mailto:{quote(answers, safe='@')}?subject={UNSUBSCRIBE}>"]
        if message.unsubscribe_url is not None and message.unsubscribe_url.startswith("https://"):
            unsubscribe.insert(0, f"<{quote(message.unsubscribe_url, safe=_URL_SAFE)}>")
            mime["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        mime["List-Unsubscribe"] = ", ".join(unsubscribe)
        if message.author is Author.AUTOMATION:
            mime["Auto-Submitted"] = "auto-generated"
        link = payment_link(message, public_url=self._environment.public_url)
        mime.attach(_text_part("plain", _plain_body(message.body, link)))
        mime.attach(_text_part("html", _html_body(message, link)))
        return mime.as_bytes(policy=_POLICY)

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[tuple[aiosmtplib.SMTP, _Phase]]:
        credentials, phase = self._credentials, _Phase()
        client: aiosmtplib.SMTP | None = None
        try:
            async with asyncio.timeout(self._environment.timeout_s):
                client = aiosmtplib.SMTP(
                    hostname=credentials.host.removesuffix("."),  # the name that TLS verifies
                    use_tls=self._security == "tls",
                    start_tls=self._security == "starttls",
                    tls_context=await self._tls_context(),
                    local_hostname=_ehlo_name(self._environment.public_url),
                    timeout=None,  # asyncio.timeout bounds the session
                )
                connection = await addresses.connect(
                    credentials.host,
                    self._port,
                    ports=ALLOWED_PORTS,
                    private_hosts=self._environment.private_hosts,
                )
                await client.connect(sock=connection)
                if client.is_ehlo_or_helo_needed:
                    await client.ehlo()
                if credentials.username:
                    phase.name = "login"
                    await client.login(credentials.username, credentials.password)
                yield client, phase
                phase.name = "quit"
                await client.quit()
        except AddressRefused as error:
            raise _host_error(error) from error
        except (aiosmtplib.SMTPException, OSError, TimeoutError, ValueError) as error:
            if phase.name != "quit":  # after the message was accepted, a failing QUIT does not matter
                raise _mapped_error(error, phase.name) from error
        finally:
            if client is not None:
                with suppress(RuntimeError):  # the event loop is closed
                    client.close()

    async def _tls_context(self) -> ssl.SSLContext | None:
        if self._security == "none":
            return None
        if self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context)  # reads certificate files
        return self._tls

    # ---------------------------------------------------------------------------------------------------- calls in
    def receive(self, request: WebhookRequest) -> ChannelWebhook:
        """Verify and read an email, a delivery report or a read receipt.

        Raises: SignatureInvalid, PayloadInvalid.
        """
        signatures.verify(
            request.headers.get(SIGNATURE_HEADER.lower(), ""),
            secret=self._credentials.inbound_secret,
            body=request.body,
            now=request.now,
            provider=NAME,
        )
        try:
            mail = inbound_mail.read(request.body, own=self._own_addresses)
        except inbound_mail.Unreadable as error:
            raise PayloadInvalid(NAME, str(error), "The message is not readable.") from error
        if mail.report is not None:
            return ChannelWebhook(statuses=self._statuses(mail, mail.report))
        if self._our_message_id((mail.message_id or "",)) is not None:  # our own message, returned
            return ChannelWebhook()
        local = mail.sender.partition("@")[0].lower()
        if local == "mailer-daemon" or (local == "postmaster" and mail.automatic):  # people also write from postmaster@
            return ChannelWebhook()
        answered = self._our_message_id(mail.references)
        # A reply proves that its sender read the message; an automatic reply, that it arrived.
        proven = DeliveryStatus.DELIVERED if mail.automatic else DeliveryStatus.READ
        return ChannelWebhook(
            messages=(_inbound(mail, request.body, self.message_id_of(answered) if answered else None),),
            # Also resolves a message whose SMTP answer was lost.
            statuses=() if answered is None else (self._status(answered, proven, answered=True, address=mail.sender),),
        )

    def _our_message_id(self, references: object) -> str | None:
        for reference in references if isinstance(references, list | tuple) else ():
            found = _TOKEN.search(reference)
            if found and hmac.compare_digest(found[0], self._token(found[1])):
                return found[1]
        return None

    def _statuses(self, mail: inbound_mail.Mail, report: inbound_mail.DeliveryReport) -> tuple[StatusUpdate, ...]:
        if not report.recipients:
            return self._updates(mail, report, None, report.action, report.status)
        by_recipient = (
            self._updates(mail, report, one.address, one.action, one.status) for one in report.recipients[:MAX_CC]
        )
        return tuple(update for updates in by_recipient for update in updates)

    def _updates(
        self,
        mail: inbound_mail.Mail,
        report: inbound_mail.DeliveryReport,
        address: str | None,
        action: str,
        status: str | None,
    ) -> tuple[StatusUpdate, ...]:
        state = STATES.get(action)
        if state is None:
            return ()
        failed = state is DeliveryStatus.FAILED
        code = status or "failed" if failed else None
        words = _explanation(status or "") if failed else None
        named = [*report.references, *mail.references]
        if (message_id := self._our_message_id(named)) is not None:
            return (self._status(message_id, state, code=code, words=words, address=address),)
        domain = f"@{self._credentials.from_address.rpartition('@')[2].lower()}"
        # Some relays replace our Message-ID with their own.
        return tuple(
            StatusUpdate(external_id=one, status=state, error_code=code, error_message=words, address=address)
            for one in dict.fromkeys(reference.strip("<>")[:300] for reference in named)
            if not one.lower().endswith(domain)
        )

    def _status(
        self,
        message_id: str,
        status: DeliveryStatus,
        *,
        code: str | None = None,
        words: str | None = None,
        answered: bool = False,
        address: str | None = None,
    ) -> StatusUpdate:
        return StatusUpdate(
            external_id=self.message_id_of(message_id),
            message_id=message_id,
            status=status,
            error_code=code,
            error_message=words,
            answered=answered,
            address=address,
        )


@dataclass(slots=True)
class _Phase:
    name: str = "connect"


_URL_SAFE = "/:?#[]@!$&'()*+;=%~-._"


def _inbound(mail: inbound_mail.Mail, raw: bytes, answered: str | None) -> InboundMessage:
    # The subject suffices: mail programs add their own text.
    unsubscribes = mail.subject.strip().lower() == UNSUBSCRIBE
    opt_out = unsubscribes or opt_out_word(_text_without_signature(mail), by_phone=False)
    return InboundMessage(
        external_id=external_id(mail.message_id or "sha256:" + hashlib.sha256(raw).hexdigest()),
        sender=mail.sender,
        sender_name=mail.sender_name,
        recipient=mail.recipient,
        subject=mail.subject or None,
        body=mail.text,
        quoted=mail.quoted,
        cc=mail.cc,
        opt_out=opt_out,
        attachments=mail.attachments,
        in_reply_to=answered,
        references=mail.references,
    )


def _relay_id(answer: str) -> str | None:
    # Some relays make the id in their answer to DATA ("250 Ok 0100018f…-000000") the Message-ID.
    named = _MESSAGE_ID.search(answer)
    if named:
        return named[0].strip("<>")[:120]
    found = [word for word in re.findall(r"[A-Za-z0-9._=@+-]{12,120}", answer) if any(c.isdigit() for c in word)]
    return found[-1] if found else None


def _text_without_signature(mail: inbound_mail.Mail) -> str:
    lines = [line.strip() for line in mail.own.split("\n")]
    lines = [line for line in lines if re.search(r"\w", line) or _DELIMITER.fullmatch(line)]
    if not lines or _DELIMITER.fullmatch(lines[0]) or all(_is_program_footer(line) for line in lines):
        return mail.subject
    first, rest = lines[0], lines[1:]
    name = {
        part.casefold() for part in re.findall(r"\w{2,}", f"{mail.sender_name or ''} {mail.sender.partition('@')[0]}")
    }
    closed = False
    for line in rest:
        words = re.findall(r"\w{2,}", line)
        if _DELIMITER.fullmatch(line) or _DISCLAIMER.match(line):
            break
        if words and {word.casefold() for word in words} <= name:
            break  # the sender's name starts the signature
        if closed and len(words) <= 3 and all(word.istitle() for word in words) and re.fullmatch(r"[\w\s.'-]+", line):
            break  # another name after the closing
        closed = _CLOSING.fullmatch(line.strip(" ,.!")) is not None
        if not closed and not _is_program_footer(line):
            return mail.own
    return first


def _is_program_footer(line: str) -> bool:
    words = re.sub(r"<?https?://\S+", "", line)
    if len(words) > 120 or "?" in words:
        return False
    named = _SENDING_VERB.search(words) and _PRODUCT.search(words)
    return bool(named or _SENT_FROM.fullmatch(words) or _ADVERT.search(words))


def _port(text: str, security: str) -> int:
    if security not in _PORTS:
        raise IntegrationError(NAME, "credentials_invalid", "security must be starttls, tls or none.")
    if not text:
        return _PORTS[security]
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:6]) < 65536):
        raise IntegrationError(NAME, "credentials_invalid", "port must be a port number.")
    return int(text)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _ehlo_name(public_url: str) -> str:
    # Not the resolver's name for this machine: the lookup may block.
    host = urlsplit(public_url).hostname or "localhost"
    try:
        address = ip_address(host)
    except ValueError:
        return host
    return f"[IPv6:{address}]" if address.version == 6 else f"[{address}]"


def _envelope_address(address: str) -> str:
    local, _, domain = address.strip().rpartition("@")
    with suppress(UnicodeError):
        address = f"{local}@{domain.encode('idna').decode('ascii')}"
    if not _ADDRESS.fullmatch(address):
        raise IntegrationError(
            NAME, "recipient_refused", "This is not a valid email address.", code="recipient_refused"
        )
    return address


def _cc_addresses(given: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    found, refused = {}, []
    for one in given:
        try:
            found[one] = _envelope_address(one)
        except IntegrationError:
            refused.append(one)
    return found, refused


def _header_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _text_part(kind: str, text: str) -> MIMENonMultipart:
    part = MIMENonMultipart("text", kind, charset="utf-8")
    part.set_payload(text, _UTF8)
    return part


# ---------------------------------------------------------------------------------------------------------- content
def _plain_body(body: str, link: str | None) -> str:
    return body if link is None or link in body else f"{body}\n\n{link}"


def _html_body(message: OutboundMessage, link: str | None) -> str:
    paragraphs = "".join(f'<p style="margin:0 0 16px">{_with_links(part)}</p>' for part in message.body.split("\n\n"))
    button = "" if link is None else _button(link, message.link_label or DEFAULT_LABEL)
    return (
        '<!doctype html><html><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(_header_line(message.subject or ''))}</title></head>"
        '<body style="margin:0;padding:24px;font:16px/1.5 system-ui,-apple-system,Segoe UI,Roboto,sans-serif">'
        f'<div style="max-width:560px;margin:0 auto" dir="auto">{paragraphs}{button}</div></body></html>'
    )


def _with_links(text: str) -> str:
    pieces, position = [], 0
    for found in _LINK.finditer(text):
        address = html.escape(found[0])
        pieces += [html.escape(text[position : found.start()]), f'<a href="{address}">{address}</a>']
        position = found.end()
    return "".join([*pieces, html.escape(text[position:])]).replace("\n", "<br>")


def _button(link: str, label: str) -> str:
    return (
        f'<p style="margin:24px 0"><a href="{html.escape(link)}" style="display:inline-block;padding:14px 28px;'
        'border-radius:8px;background:#1a56db;color:#ffffff;font-weight:600;text-decoration:none">'
        f"{html.escape(_header_line(label))}</a></p>"
    )


# ------------------------------------------------------------------------------------------------------------- errors
def _explanation(status: str) -> str:
    return next((words for prefix, words in DELIVERY_ERRORS.items() if status.startswith(prefix)), _GENERAL_FAILURE)


def _host_error(error: AddressRefused) -> IntegrationError:
    if error.reason == "bad_port":
        ports = ", ".join(map(str, sorted(ALLOWED_PORTS)))
        return IntegrationError(NAME, "port_refused", f"A mail server's port must be one of {ports}.")
    # One message for unknown and private hosts, so that it reveals no private names. A resolver may be down briefly.
    return IntegrationError(NAME, "host_refused", "No mail server with a public address has this name.", retryable=True)


def _mapped_error(error: Exception, phase: str) -> IntegrationError:
    # Servers quote addresses, and tracebacks print the error: mask them.
    error.args = tuple(_ANY_ADDRESS.sub("…", part) if isinstance(part, str) else part for part in error.args)
    if isinstance(error, aiosmtplib.SMTPResponseException) and error.code >= 400:
        error.message = _ANY_ADDRESS.sub("…", error.message)
        return _refusal(error.code, error.message, phase)
    if phase == "data":
        reason = "timeout" if isinstance(error, TimeoutError) else "connection_lost"
        return IntegrationError(NAME, reason, "The mail server did not confirm the message.", ambiguous=True)
    if _has_cause(error, ssl.SSLError):
        return IntegrationError(NAME, "tls_failed", "The mail server's certificate or TLS is not valid.")
    if isinstance(error, TimeoutError):
        return IntegrationError(NAME, "timeout", "The mail server did not answer.", retryable=True)
    if isinstance(error, OSError):
        return IntegrationError(NAME, "unreachable", "No connection to the mail server.", retryable=True)
    # A missing feature (STARTTLS, a login method), or a malformed answer.
    return IntegrationError(NAME, "not_supported", str(error.args[0]) if error.args else "")


_BUSY_CODES = frozenset({421, 452})  # busy, or too many at the same time (RFC 5321, 4.2)
_TRY_AFTER_S = 60.0  # SMTP names no delay; greylisting accepts a retry after one to five minutes
_REASON_BY_PHASE: Mapping[str, str] = {"login": "unauthorized", "mail": "invalid_sender", "rcpt": "recipient_refused"}


def _refusal(status: int, words: str, phase: str) -> IntegrationError:
    found = _ENHANCED.search(words)
    code = found[0] if found else str(status)
    if 400 <= status < 500:
        # A recipient's 4xx (greylisting) delays this message, one about the sender the whole channel.
        busy = status in _BUSY_CODES or (status == 450 and phase != "rcpt")
        return IntegrationError(
            NAME, "rate_limited" if busy else "try_later", words, retryable=True, code=code, retry_after_s=_TRY_AFTER_S
        )
    reason = "unauthorized" if status in (530, 534, 535) else _REASON_BY_PHASE.get(phase, "refused")
    return IntegrationError(NAME, reason, words, code=code)


def _has_cause(error: BaseException, kind: type[BaseException]) -> bool:
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, kind):
            return True
        found = found.__cause__ or found.__context__
    return False


provider = SmtpEmail
