"""Bounces, receipts and automatic answers in the shapes that mail servers and programs give them.

Source: RFC 3464 and 6533 (delivery reports), RFC 8098 (read receipts), RFC 3834 (automatic answers), exim.org (X-Failed-Recipients).
"""

from __future__ import annotations

import base64
import quopri
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from email.policy import compat32

from integrations.inbound_mail import charsets

_MAX_REFERENCES = 50
_MAX_TEXT = 100_000
_ADDRESS = re.compile(r"[^\s<>,;@]{1,64}@[^\s<>,;@]{1,255}")
_MESSAGE_ID = re.compile(r"<[^<>\s]{1,900}>")
_STATUS = re.compile(r"(?<![\d.])([245]\.\d{1,3}\.\d{1,3})(?![\d.])")
_REPLY_CODE = re.compile(r"(?<!\d)(55[0-4]|45[0-2])(?=[ -])")
_SERVER = re.compile(
    r"<?(?:mailer[-_.]?daemon|postmaster|mail[-_.]?delivery\S*|bounce\S*|double-bounce)@?", re.IGNORECASE
)
_DELAYED = re.compile(
    r"\bdelay|will (?:be retried|retry|continue trying)|still trying|temporar|not yet been delivered|warning:", re.I
)
_STATUS_PARTS = frozenset(
    {
        "message/delivery-status",
        "message/global-delivery-status",
        "message/disposition-notification",
        "message/global-disposition-notification",
    }
)
_COPIES = frozenset({"message/rfc822", "message/global"})
_HEADERS = frozenset({"text/rfc822-headers", "text/rfc822-header", "message/global-headers"})
_AUTOMATIC_SUBJECT = re.compile(
    r"^\s*(?:auto(?:matic|mated|-)?[\s-]*(?:reply|response|answer)|out of (?:the )?office|automatische (?:antwort|beantwoording)"
    r"|abwesenheits|réponse automatique|message d'absence|absence du bureau"
    r"|respuesta automática|fuera de la oficina|risposta automatica"
    r"|fuori sede|resposta automática|ausência|autosvar|automatiskt svar"
    r"|automatisk svar|automaattinen vastaus|poissaolo|autoodpowiedź"
    r"|automatyczna odpowiedź|automatická odpov|automatikus válasz|otomatik yanıt"
    r"|автоответ|автоматическ|自動応答|自动回复|自動回覆|자동 회신)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a report says of one recipient: `action` and `status` as in DeliveryReport."""

    address: str
    action: str
    status: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryReport:
    """What a mail server or a mail program says about a message. Anyone can write one."""

    action: str  # "failed", "delayed", "delivered", "relayed", "expanded"; of a read receipt "displayed" and its kin
    status: str | None  # "5.1.1"
    references: Sequence[str]  # Message-IDs and envelope ids that it names
    recipients: Sequence[Told] = ()  # what it says of each recipient that it names, the first word of each


def is_automatic(header: Callable[[str], str], subject: str) -> bool:
    """Whether a program wrote a letter, or a list sent it: that nobody has read ours because of it."""
    submitted = header("auto-submitted").partition(";")[0].strip().lower()
    if submitted not in ("", "no"):
        return True
    if any(
        header(name)
        for name in ("x-autoreply", "x-autorespond", "x-auto-reply", "list-id", "list-unsubscribe", "feedback-id")
    ):
        return True
    if header("precedence").strip().lower() in ("auto_reply", "bulk", "junk", "list"):
        return True
    if header("x-auto-response-suppress").strip().lower() not in ("", "none"):
        return True
    return header("return-path").strip() == "<>" or _AUTOMATIC_SUBJECT.match(subject) is not None


def read(message: Message, text: str, header: Callable[[str], str]) -> DeliveryReport | None:
    """The report that a message is, wherever its parts lie; None for a letter."""
    blocks, named = _parts(message)
    if blocks and (message.get_content_type() == "multipart/report" or _is_from_server(header)):
        return _standard(blocks, named)
    failed = header("x-failed-recipients")
    if not (failed or _SERVER.search(header("from"))):
        return None
    return _worded(text, named, _ADDRESS.findall(failed))


def _is_from_server(header: Callable[[str], str]) -> bool:
    return header("return-path").strip() == "<>" or _SERVER.search(header("from")) is not None


def _walk(message: Message) -> Iterator[Message]:
    waiting = [message]
    while waiting:
        part = waiting.pop()
        yield part
        kind = part.get_content_type()
        # Servers wrap another server's report into their own; a copy of our letter is not looked into.
        if kind not in _STATUS_PARTS and (kind not in _COPIES or _holds_report(part)):
            waiting.extend(reversed(_inside(part)))


def _holds_report(part: Message) -> bool:
    return any(one.get_content_type() == "multipart/report" for one in _inside(part))


def _inside(part: Message) -> list[Message]:
    payload = part.get_payload() if part.is_multipart() else []
    return [child for child in payload if isinstance(child, Message)] if isinstance(payload, list) else []


def _parts(message: Message) -> tuple[list[Message], list[str]]:
    """The blocks of fields of a report, and the Message-IDs of the copies that it has."""
    blocks: list[Message] = []
    named: list[str] = []
    for part in _walk(message):
        kind, inside = part.get_content_type(), _inside(part)
        if kind in _STATUS_PARTS:
            blocks += _fields(part)
        elif kind in _COPIES:
            for copy in inside:
                named += _ids(copy)
        elif kind in _HEADERS:
            for copy in inside or _fields(part):
                named += _ids(copy)
    return blocks, named


def _fields(part: Message) -> list[Message]:
    """The blocks of fields in a part, also in one that is encoded (RFC 6533 allows that)."""
    inside = _inside(part)
    payload = part.get_payload(decode=True)
    content = (
        b"\n\n".join(one.as_bytes() for one in inside) if inside else payload if isinstance(payload, bytes) else b""
    )
    content = content[:_MAX_TEXT].replace(b"\r\n", b"\n")
    encoding = _value(part, "content-transfer-encoding").lower()
    if inside and encoding == "base64":
        content = _decoded(content)
    elif inside and encoding == "quoted-printable":
        content = quopri.decodestring(content)
    blocks = [block for block in re.split(rb"\n[ \t]*\n", content.replace(b"\r\n", b"\n")) if block.strip()]
    return [BytesParser(policy=compat32).parsebytes(block.lstrip(b"\n"), headersonly=True) for block in blocks[:50]]


def _decoded(content: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(content.split()) + b"==")
    except ValueError:
        return b""


def _ids(copy: Message) -> list[str]:
    return _MESSAGE_ID.findall(_value(copy, "message-id"))


def _value(message: Message, name: str) -> str:
    value = message.get(name)
    return "" if value is None else " ".join(charsets.raw_header(str(value)[:2000]).split())


def _standard(blocks: Sequence[Message], named: list[str]) -> DeliveryReport:
    action, status = "", ""
    told: dict[str, Told] = {}
    for block in blocks:
        for name in ("original-recipient", "final-recipient"):
            address = _ADDRESS.search(_value(block, name))
            if address is None:
                continue
            state = _STATUS.match(_value(block, "status"))
            said = _value(block, "action").lower().partition(" ")[0] or _disposition(block)
            told.setdefault(
                address[0].lower(), Told(address=address[0].lower(), action=said, status=state[1] if state else None)
            )
            break
        named += _MESSAGE_ID.findall(_value(block, "original-message-id"))
        if envelope := _value(block, "original-envelope-id"):
            named.append(envelope)
        if not action:
            action, status = _value(block, "action").lower(), _value(block, "status")
            action = _disposition(block) or action
    number = _STATUS.match(status)
    return DeliveryReport(
        action=action.partition(" ")[0],
        status=number[1] if number else None,
        references=named[:_MAX_REFERENCES],
        recipients=tuple(told.values()),
    )


def _disposition(block: Message) -> str:
    return _value(block, "disposition").partition(";")[2].partition("/")[0].strip().lower()


def _worded(text: str, named: list[str], failed: Sequence[str]) -> DeliveryReport | None:
    """A bounce in words (Exim, qmail, old Gmail): it quotes our letter with its headers. None if it names no letter."""
    text = text[:_MAX_TEXT]
    named = [*named, *_MESSAGE_ID.findall(text)]
    if not named:
        return None
    found = _STATUS.search(text)
    code = _REPLY_CODE.search(text)
    status = found[1] if found else {"5": "5.0.0", "4": "4.0.0"}[code[1][0]] if code else None
    delayed = _DELAYED.search(text.partition("Message-ID")[0][:4000]) is not None and not (status or "").startswith("5")
    action = "delayed" if delayed else "failed"
    told = (Told(address=one.lower(), action=action, status=status) for one in dict.fromkeys(failed))
    return DeliveryReport(action=action, status=status, references=named[:_MAX_REFERENCES], recipients=tuple(told))
