"""Reads bounces, read receipts and automatic replies.

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

from integrations.inbound_mail import charsets, senders

_MAX_REFERENCES = 50
_MAX_TEXT = 100_000
_ADDRESS = re.compile(r"[^\s<>,;@]{1,64}@[^\s<>,;@]{1,255}")
_MESSAGE_ID = re.compile(r"<[^<>\s]{1,900}>")
_STATUS = re.compile(r"(?<![\d.])([245]\.\d{1,3}\.\d{1,3})(?![\d.])")
_REPLY_CODE = re.compile(r"(?<!\d)(55[0-4]|45[0-2])(?![\d.])")
# Local parts of mail servers, and those that people also have.
_SERVER = re.compile(r"mailer[-_.]?daemon|mail[-_.]?daemon|double-bounce|microsoftexchange[0-9a-f]{32}", re.IGNORECASE)
_PERHAPS_SERVER = re.compile(r"postmaster|mail[-_.]?delivery\S*|bounces?", re.IGNORECASE)
_DELAYED = re.compile(
    r"\bdelay|will (?:be retried|retry|continue trying)|still trying|temporar|not yet been delivered"
    r"|warning:|warning only|for more than \d+ hour",
    re.IGNORECASE,
)
_STATUS_PARTS = frozenset(
    {
        "message/delivery-status",
        "message/global-delivery-status",
        "message/disposition-notification",
        "message/global-disposition-notification",
    }
)
_ACTION_BY_CLASS = {"2": "delivered", "4": "delayed", "5": "failed"}  # for reports without an action
_COPIES = frozenset({"message/rfc822", "message/global"})
_HEADERS = frozenset({"text/rfc822-headers", "text/rfc822-header", "message/global-headers"})
_AUTOMATIC_HEADERS = (
    "x-autoreply",
    "x-autorespond",
    "x-autoresponder",
    "x-auto-reply",
    "x-vacation",
    "x-ms-exchange-generated-message-source",
    "x-ms-exchange-inbox-rules-loop",
    "list-id",
    "list-post",
    "list-unsubscribe",
    "mailing-list",
)
_AUTOMATIC_SUBJECT = re.compile(
    r"^\s*(?:(?:re|aw)\s*:\s*)*(?:auto(?:matic|mated|-)?[\s-]*(?:reply|response|answer)|out of (?:the )?office"
    r"|automatische (?:antwort|beantwoording)"
    r"|automatisch antwoord|afwezig|abwesenheits|réponse automatique|message d'absence|absence du bureau"
    r"|respuesta automática|fuera de la oficina|risposta automatica"
    r"|fuori sede|resposta automática|ausência|autosvar|automatiskt svar"
    r"|automatisk svar|automaattinen vastaus|poissaolo|autoodpowiedź"
    r"|automatyczna odpowiedź|automatická odpov|automatikus válasz|otomatik yanıt"
    r"|автоответ|автоматическ|自動応答|自動返信|不在通知|自动(?:回复|答复)|自動(?:回覆|答覆)|자동 (?:회신|응답)|부재중"
    r"|αυτόματη απάντηση|תשובה אוטומטית|رد تلقائي)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientReport:
    """What a report says about one recipient; fields as in DeliveryReport."""

    address: str
    action: str
    status: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryReport:
    """A server's or mail program's report about a message. Anyone can forge one."""

    action: str  # "failed", "delayed", "delivered", "relayed", "expanded"; of a read receipt such as "displayed"
    status: str | None  # "5.1.1"
    references: Sequence[str]  # Message-IDs and envelope ids
    recipients: Sequence[RecipientReport] = ()  # the first entry of each named recipient


def is_automatic(header: Callable[[str], str], subject: str) -> bool:
    """Whether a program or list sent the email, so that it does not prove that a person read ours."""
    # Feedback-ID proves nothing: Proton, Fastmail and Zoho add it to people's emails.
    submitted = header("auto-submitted").partition(";")[0].strip().lower()
    if submitted not in ("", "no"):
        return True
    if any(header(name) for name in _AUTOMATIC_HEADERS) or header("delivered-to").lower() == "autoresponder":
        return True
    if header("precedence").strip().lower() in ("auto_reply", "bulk", "junk", "list"):
        return True
    if header("x-auto-response-suppress").strip().lower() not in ("", "none"):
        return True
    return header("return-path").strip() == "<>" or _AUTOMATIC_SUBJECT.match(subject) is not None


def read(message: Message, text: str, header: Callable[[str], str]) -> DeliveryReport | None:
    """The report in this message; None for an ordinary email."""
    blocks, named = _parts(message)
    if blocks and (message.get_content_type() == "multipart/report" or _is_from_server(header)):
        return _formal_report(blocks, named)
    failed = header("x-failed-recipients")
    if not (failed or _is_from_server(header) or (_may_be_server(header) and _STATUS.search(text[:_MAX_TEXT]))):
        return None
    answers = bool(header("in-reply-to") or header("references"))
    return _informal_bounce(text, named, _ADDRESS.findall(failed), answers=answers)


def _is_from_server(header: Callable[[str], str]) -> bool:
    local = _local_part(header)
    submitted = header("auto-submitted").partition(";")[0].strip().lower()
    by_program = header("return-path").strip() == "<>" or submitted not in ("", "no")
    return _SERVER.fullmatch(local) is not None or (by_program and (not local or _may_be_server(header)))


def _may_be_server(header: Callable[[str], str]) -> bool:
    return _PERHAPS_SERVER.fullmatch(_local_part(header)) is not None


def _local_part(header: Callable[[str], str]) -> str:
    written = senders.mailboxes(header("from"))
    return written[0].address.partition("@")[0] if written else header("from").partition(" ")[0].strip('<>"')


def _walk(message: Message) -> Iterator[Message]:
    waiting = [message]
    while waiting:
        part = waiting.pop()
        yield part
        kind = part.get_content_type()
        # Servers wrap other servers' reports. A copy of our email is not searched.
        if kind not in _STATUS_PARTS and (kind not in _COPIES or _holds_report(part)):
            waiting.extend(reversed(_subparts(part)))


def _holds_report(part: Message) -> bool:
    return any(one.get_content_type() == "multipart/report" for one in _subparts(part))


def _subparts(part: Message) -> list[Message]:
    payload = part.get_payload() if part.is_multipart() else []
    return [child for child in payload if isinstance(child, Message)] if isinstance(payload, list) else []


def _parts(message: Message) -> tuple[list[Message], list[str]]:
    blocks: list[Message] = []
    named: list[str] = []
    for part in _walk(message):
        kind, inside = part.get_content_type(), _subparts(part)
        if kind in _STATUS_PARTS:
            blocks += _fields(part)
        elif kind in _COPIES:
            for copy in inside:
                named += _message_ids(copy)
        elif kind in _HEADERS:
            for copy in inside or _fields(part):
                named += _message_ids(copy)
    return blocks, named


def _fields(part: Message) -> list[Message]:
    inside = _subparts(part)
    payload = part.get_payload(decode=True)
    content = (
        b"\n\n".join(one.as_bytes() for one in inside) if inside else payload if isinstance(payload, bytes) else b""
    )
    content = content[:_MAX_TEXT].replace(b"\r\n", b"\n")
    encoding = _field_value(part, "content-transfer-encoding").lower()  # RFC 6533 allows encoded reports
    if inside and encoding == "base64":
        content = _decoded_base64(content)
    elif inside and encoding == "quoted-printable":
        content = quopri.decodestring(content)
    blocks = [block for block in re.split(rb"\n[ \t]*\n", content.replace(b"\r\n", b"\n")) if block.strip()]
    return [BytesParser(policy=compat32).parsebytes(block.lstrip(b"\n"), headersonly=True) for block in blocks[:50]]


def _decoded_base64(content: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(content.split()) + b"==")
    except ValueError:
        return b""


def _message_ids(copy: Message) -> list[str]:
    return _MESSAGE_ID.findall(_field_value(copy, "message-id"))


def _field_value(message: Message, name: str) -> str:
    value = message.get(name)
    return "" if value is None else " ".join(charsets.raw_header(str(value)[:2000]).split())


def _formal_report(blocks: Sequence[Message], named: list[str]) -> DeliveryReport:
    action, status = "", ""
    by_address: dict[str, RecipientReport] = {}
    for block in blocks:
        for name in ("original-recipient", "final-recipient"):
            address = _ADDRESS.search(_field_value(block, name))
            if address is None:
                continue
            state = _STATUS.match(_field_value(block, "status"))
            action_of_recipient = _field_value(block, "action").lower().partition(" ")[0] or _disposition(block)
            action_of_recipient = action_of_recipient or (_ACTION_BY_CLASS[state[1][0]] if state else "")
            by_address.setdefault(
                address[0].lower(),
                RecipientReport(
                    address=address[0].lower(), action=action_of_recipient, status=state[1] if state else None
                ),
            )
            break
        named += _MESSAGE_ID.findall(_field_value(block, "original-message-id"))
        if envelope := _field_value(block, "original-envelope-id"):
            named.append(envelope)
        if not action:
            action, status = _field_value(block, "action").lower(), _field_value(block, "status")
            action = _disposition(block) or action
    number = _STATUS.match(status)
    action = action or (_ACTION_BY_CLASS.get(number[1][0], "") if number else "")
    return DeliveryReport(
        action=action.partition(" ")[0],
        status=number[1] if number else None,
        references=named[:_MAX_REFERENCES],
        recipients=tuple(by_address.values()),
    )


def _disposition(block: Message) -> str:
    return _field_value(block, "disposition").partition(";")[2].partition("/")[0].strip().lower()


def _informal_bounce(text: str, named: list[str], failed: Sequence[str], *, answers: bool) -> DeliveryReport | None:
    text = text[:_MAX_TEXT]
    named = [*named, *_MESSAGE_ID.findall(text)]
    if not (named or answers):
        return None
    found = _STATUS.search(text)
    code = _REPLY_CODE.search(text)
    status = found[1] if found else {"5": "5.0.0", "4": "4.0.0"}[code[1][0]] if code else None
    delayed = _DELAYED.search(text.partition("Message-ID")[0][:4000]) is not None and not (status or "").startswith("5")
    action = "delayed" if delayed else "failed"
    recipients = (RecipientReport(address=one.lower(), action=action, status=status) for one in dict.fromkeys(failed))
    return DeliveryReport(
        action=action, status=status, references=named[:_MAX_REFERENCES], recipients=tuple(recipients)
    )
