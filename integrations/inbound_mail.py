"""Reads a raw RFC 5322 message that anybody may have written: sender, words, attachments, delivery reports.

It bounds the work before the standard library's parser sees a byte (that parser is quadratic in some hostile inputs), uses no
codec outside a list, never opens an attachment and never renders HTML. It decides nothing: smtp_email.py does.
Source: RFC 5322, RFC 2047, RFC 3464 (delivery reports), RFC 8098 (read receipts), RFC 3834 (automatic answers);
docs.python.org/3/library/email.
"""

from __future__ import annotations

import base64
import codecs
import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.header import decode_header
from email.message import Message
from email.parser import BytesParser
from email.policy import compat32
from email.utils import getaddresses
from string import ascii_lowercase, ascii_uppercase

MAX_BYTES = 14 << 20  # a file of 10 MiB in base64, and the words around it
_MAX_LINES = 40_000
_BYTES_A_LINE = 70  # base64 has 76: what is longer than _MAX_LINES must have lines like a file's
_MAX_PARTS = 100
_MAX_NESTING = 20
_MAX_PART_HEADER = 4096
_MAX_HEADER = 2000
_MAX_TEXT = 50_000
_MAX_HTML = 100_000
_MAX_ATTACHMENTS = 20
_MAX_REFERENCES = 50

_PART_HEADER = re.compile(rb"^content-[a-z-]+:[^\n]*(?:\n[ \t][^\n]*)*", re.IGNORECASE | re.MULTILINE)
_ADDRESS = re.compile(r"[^\s@<>,;:\"()\[\]\x00-\x1f]{1,64}@[^\s@<>,;:\"()\[\]\x00-\x1f]{1,189}")
_MESSAGE_ID = re.compile(r"<[^<>\s]{1,900}>")
# Not "punycode" or "idna" (quadratic), nor Python's own ("unicode_escape").
_CODECS = re.compile(
    r"ascii|utf-8|utf-16(?:-[bl]e)?|utf-7|iso8859-\d+|cp\d{3,4}|koi8-[rut]|mac-roman|gb2312|gbk|gb18030|big5|big5hkscs"
    r"|shift_jis|euc_jp|euc_kr|iso2022_(?:jp(?:_\d|_ext)?|kr)|tis-620"
)
_ATTRIBUTION = re.compile(
    r"(?:On|Am|Le|El|Il|Em|Op|Den)\b.{0,300}\b(?:wrote|schrieb|a écrit|escribió|ha scritto|escreveu|schreef|skrev)\s?:"
)
_ORIGINAL = re.compile(r"-{3,}\s{0,3}Original Message\s{0,3}-{3,}", re.IGNORECASE)
_BREAKS = re.compile(r"<(?:br|/p|/div|/tr|/li|/h[1-6]|/table)\b[^<>]*>", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*>")
_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)  # keeps every position, as str.lower does not
_QUOTE_MARKS = ("<blockquote", 'class="gmail_quote', "class=gmail_quote", 'id="divrplyfwdmsg')


class Unreadable(Exception):
    """The bytes are not a message that can be taken; the text is a word of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryReport:
    """What a mail server (RFC 3464) or a mail program (RFC 8098) says about a message. Anybody can write one."""

    action: str  # "failed", "delayed", "delivered", "relayed", "expanded"; of a read receipt "displayed" and its kin
    status: str | None  # "5.1.1"
    references: Sequence[str]  # Message-IDs and envelope ids that it names


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """A message, decoded. `text` is without the quoted original; `report` is set if this is no letter but a report.

    `automatic`: a program wrote it (RFC 3834), such as an answer of somebody who is away.
    """

    message_id: str | None  # with its angle brackets
    sender: str
    sender_name: str | None
    recipient: str | None
    subject: str
    text: str
    references: Sequence[str]
    attachments: Sequence[dict[str, str]]
    report: DeliveryReport | None = None
    automatic: bool = False


def read(raw: bytes) -> Mail:
    """Decode one message. Raises: Unreadable."""
    body = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    _refuse_hostile(body)
    try:
        message: Message = BytesParser(policy=compat32).parsebytes(body)
    except (ValueError, RecursionError) as error:
        raise Unreadable("malformed") from error
    senders = _addresses(message, "from")
    if len(senders) != 1:
        raise Unreadable("no_sender")
    recipients = _addresses(message, "to")
    own_id = _MESSAGE_ID.findall(_header(message, "message-id"))
    references = [
        *_MESSAGE_ID.findall(_header(message, "in-reply-to")),
        *_MESSAGE_ID.findall(_header(message, "references")),
    ]
    text, attachments = _content(message)
    return Mail(
        message_id=own_id[0] if own_id else None,
        sender=senders[0][1],
        sender_name=senders[0][0] or None,
        recipient=recipients[0][1] if recipients else None,
        subject=_words(_header(message, "subject")),
        text=text,
        references=references[:_MAX_REFERENCES],
        attachments=attachments,
        report=_report(message),
        automatic=_automatic(message),
    )


def _refuse_hostile(body: bytes) -> None:
    if len(body) > MAX_BYTES or body.count(b"\n") > _MAX_LINES + len(body) // _BYTES_A_LINE:
        raise Unreadable("too_large")
    headers = _PART_HEADER.findall(body)
    # Parsing a parameter list is quadratic in its length.
    if any(len(header) > _MAX_PART_HEADER for header in headers):
        raise Unreadable("header_too_long")
    kinds = [header.lower() for header in headers if header[:13].lower() == b"content-type:"]
    # Each level of nesting costs time per line, and a frame of the stack.
    if len(kinds) > _MAX_PARTS or sum(b"multipart/" in kind or b"message/" in kind for kind in kinds) > _MAX_NESTING:
        raise Unreadable("too_many_parts")


# ------------------------------------------------------------------------------------------------------------- headers
def _header(message: Message, name: str) -> str:
    value = message.get(name)
    return "" if value is None else " ".join(str(value)[:_MAX_HEADER].split())


def _words(text: str) -> str:
    """RFC 2047 words decoded, control characters gone."""
    try:
        pieces = decode_header(text)
    except (ValueError, AttributeError):  # HeaderParseError is a ValueError; base64 that cannot be
        return _clean(text)
    return _clean("".join(p if isinstance(p, str) else _decoded(p, charset or "ascii") for p, charset in pieces))


def _clean(text: str) -> str:
    return " ".join("".join(c if c.isprintable() or c.isspace() else "" for c in text).split())


def _addresses(message: Message, name: str) -> list[tuple[str, str]]:
    """(name, address) of each mailbox in a header; anything that is not plainly an address is left out."""
    found = getaddresses([_header(message, name)])
    return [(_words(shown)[:120], address) for shown, address in found if _ADDRESS.fullmatch(address)]


def _automatic(message: Message) -> bool:
    """RFC 3834, 5; the others are what mail programs wrote before it and beside it."""
    submitted = _header(message, "auto-submitted").partition(";")[0].strip().lower()
    if submitted not in ("", "no") or _header(message, "x-autoreply") or _header(message, "x-autorespond"):
        return True
    return _header(message, "precedence").strip().lower() == "auto_reply"


def _decoded(data: bytes, charset: str) -> str:
    try:
        name = codecs.lookup(charset.strip()[:40]).name
    except (LookupError, ValueError):
        name = "utf-8"
    return data.decode(name if _CODECS.fullmatch(name) else "utf-8", "replace")


# ------------------------------------------------------------------------------------------------------------- content
def _inside(part: Message) -> list[Message]:
    """The parts of a part. Of a leaf nothing is asked: its payload would be decoded by whatever codec it names."""
    payload = part.get_payload() if part.is_multipart() else []
    return [child for child in payload if isinstance(child, Message)] if isinstance(payload, list) else []


def _leaves(message: Message) -> Iterator[Message]:
    """The parts in reading order; an attached message is one part and is not looked into."""
    waiting = [message]
    while waiting:
        part = waiting.pop()
        if part.get_content_maintype() == "multipart" and part.is_multipart():
            waiting.extend(reversed(_inside(part)))
        else:
            yield part


def _content(message: Message) -> tuple[str, list[dict[str, str]]]:
    plain: str | None = None
    rich: str | None = None
    attachments: list[dict[str, str]] = []
    for part in _leaves(message):
        kind = part.get_content_type()
        attached = part.get_content_disposition() == "attachment"
        if kind == "text/plain" and not attached and plain is None:
            plain = _text(part)[:_MAX_TEXT]
        elif kind == "text/html" and not attached and rich is None:
            rich = _text(part)[:_MAX_HTML]
        elif (kind not in ("text/plain", "text/html") or attached) and len(attachments) < _MAX_ATTACHMENTS:
            attachments.append(_attachment(part, kind))
    text = plain if plain is not None and plain.strip() else _words_of_html(rich or "")
    return _without_quote(text), attachments


def _bytes(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _text(part: Message) -> str:
    text = _decoded(_bytes(part), str(part.get_param("charset", "utf-8")))
    return text.replace("\r\n", "\n").replace("\x00", "")


def _attachment(part: Message, kind: str) -> dict[str, str]:
    content = _bytes(part)
    found = {"content_type": kind[:100], "size": str(len(content))}
    if content:  # an attached message has parts and no bytes of its own
        found["content"] = base64.b64encode(content).decode()
    try:
        name = part.get_filename()
    except (ValueError, LookupError):  # a charset that is none
        name = None
    if name:
        # A name, never a path.
        found["name"] = re.split(r"[/\\]", _words(str(name)))[-1][:200]
    return found


def _words_of_html(source: str) -> str:
    """The words of an HTML part, with its line breaks. Every step is linear in the length."""
    lowered = source.translate(_LOWER)
    ends = [position for mark in _QUOTE_MARKS if (position := lowered.find(mark)) >= 0]
    if ends:
        source = source[: min(ends)]
    for name in ("script", "style", "head", "title"):
        source = _cut_element(source, name)
    text = html.unescape(_TAG.sub("", _BREAKS.sub("\n", source.replace("\n", " "))))
    lines = [" ".join(line.split()) for line in text.split("\n")]
    kept = [line for i, line in enumerate(lines) if line or (i and lines[i - 1])]
    return "\n".join(kept).strip()[:_MAX_TEXT]


def _cut_element(source: str, name: str) -> str:
    lowered, kept, position = source.translate(_LOWER), [], 0
    while (start := lowered.find(f"<{name}", position)) >= 0:
        after = lowered[start + len(name) + 1 : start + len(name) + 2]
        if after.isalnum():  # <header> is not <head>
            kept.append(source[position : start + len(name) + 1])
            position = start + len(name) + 1
            continue
        kept.append(source[position:start])
        end = lowered.find(f"</{name}", start)
        if end < 0:
            return "".join(kept)
        close = lowered.find(">", end)
        position = len(source) if close < 0 else close + 1
    return "".join(kept) + source[position:]


def _without_quote(text: str) -> str:
    """What was written now: without the quoted original below it; all of it if nothing else is there."""
    lines = text.strip().split("\n")
    end = len(lines)
    for index, line in enumerate(lines):
        here = line.strip()[:400]
        # Mail programs break a long attribution into two lines.
        both = f"{here} {lines[index + 1].strip()[:400]}" if index + 1 < len(lines) else here
        if _ORIGINAL.fullmatch(here) or _ATTRIBUTION.fullmatch(here) or _ATTRIBUTION.fullmatch(both):
            end = index
            break
    while end and (not lines[end - 1].strip() or lines[end - 1].startswith(">")):
        end -= 1
    return "\n".join(lines[:end]).strip() or text.strip()


# ------------------------------------------------------------------------------------------------------------- reports
def _report(message: Message) -> DeliveryReport | None:
    if message.get_content_type() != "multipart/report" or not message.is_multipart():
        return None
    blocks: list[Message] = []
    named: list[str] = []
    action, status = "", ""
    for part in _inside(message):
        kind, inside = part.get_content_type(), _inside(part)
        if kind in ("message/delivery-status", "message/disposition-notification"):
            blocks += inside
        elif kind == "message/rfc822" and inside:
            named += _MESSAGE_ID.findall(_header(inside[0], "message-id"))
        elif kind == "text/rfc822-headers":
            original: Message = BytesParser(policy=compat32).parsebytes(_bytes(part), headersonly=True)
            named += _MESSAGE_ID.findall(_header(original, "message-id"))
    for block in blocks:
        named += _MESSAGE_ID.findall(_header(block, "original-message-id"))
        if envelope := _header(block, "original-envelope-id"):
            named.append(envelope)
        if not action:
            action, status = _header(block, "action").lower(), _header(block, "status")
            if disposition := _header(block, "disposition"):
                action = disposition.partition(";")[2].partition("/")[0].strip().lower()
    number = re.match(r"[245]\.\d{1,3}\.\d{1,3}", status)
    return DeliveryReport(
        action=action.partition(" ")[0], status=number[0] if number else None, references=named[:_MAX_REFERENCES]
    )
