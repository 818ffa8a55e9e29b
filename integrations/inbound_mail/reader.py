"""Reads a raw RFC 5322 message that anyone may have written: sender, words, files, delivery reports.

It bounds the work before the standard library's parser sees a byte (that parser is quadratic in some hostile inputs), never opens an
attachment but winmail.dat and never renders HTML. It decides nothing: smtp_email.py does.
Source: RFC 5322, RFC 2046 (parts), RFC 3676 (format=flowed), RFC 3834 (automatic answers); docs.python.org/3/library/email.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from email.policy import compat32

import tnefparse

from integrations.inbound_mail import charsets, markup, quotes, reports, senders

MAX_BYTES = 14 << 20  # a file of 10 MiB in base64, and the words around it
_MAX_LINES = 40_000
_BYTES_A_LINE = 70  # base64 has 76: what is longer than _MAX_LINES must have lines like a file's
_MAX_PARTS = 100
_MAX_NESTING = 20
_MAX_PART_HEADER = 4096
_MAX_HEADER = 2000
_MAX_TEXT = 50_000
_MAX_REFERENCES = 50

_HEADER = re.compile(rb"([!-9;-~]+)[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)\n?")
_BOUNDARY = re.compile(rb"boundary\s*=\s*(?:\"([^\"\n]{1,200})\"|([^\s;\"]{1,200}))", re.IGNORECASE)
_MESSAGE_ID = re.compile(r"<[^<>\s]{1,900}>")
_TEXTS = ("text/plain", "text/html")
_UNSHOWN = ("text/x-amp-html", "application/x-amp-html", "text/watch-html", "text/enriched")  # forms of the same words
_PLAIN_FILES = {"message/rfc822": "message.eml", "message/global": "message.eml", "text/calendar": "invite.ics"}


class Unreadable(Exception):
    """The bytes are not a message that can be taken; the text is a word of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """A message, decoded.

    `text` is what the inbox shows, `quoted` the earlier message that it hides, `own` the words of `text` that are not quoted.
    `report` is set if this is no letter but a report; `automatic`: a program wrote it, or a list sends it.
    """

    message_id: str | None  # with its angle brackets
    sender: str
    sender_name: str | None
    recipient: str | None
    cc: Sequence[str]  # who else received it, without the business and the writer
    subject: str
    text: str
    quoted: str | None
    own: str
    references: Sequence[str]
    attachments: Sequence[dict[str, str]]
    report: reports.DeliveryReport | None = None
    automatic: bool = False


def read(raw: bytes, *, own: Collection[str] = ()) -> Mail:
    """Decode one message. `own`: the addresses of the channel, in lower case. Raises: Unreadable."""
    body = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    _refuse_hostile(body)
    try:
        message: Message = BytesParser(policy=compat32).parsebytes(body)
    except (ValueError, RecursionError) as error:
        raise Unreadable("malformed") from error

    def header(name: str) -> str:
        return _header(message, name)

    writer = senders.writer(header, own=own)
    if writer is None:
        raise Unreadable("no_sender")
    received = [_header(message, name, each=True) for name in ("to", "cc")]
    recipients = senders.mailboxes(received[0])
    cc = senders.others(received, without={*own, writer.address.lower()})
    own_id = _MESSAGE_ID.findall(header("message-id"))
    references = [
        *_MESSAGE_ID.findall(header("in-reply-to")),
        *_MESSAGE_ID.findall(_header(message, "references", each=True)),
    ]
    subject = senders.words(charsets.decode_words(header("subject")))
    text, attachments = _content(message)
    known = {writer.address.lower(), *(one.lower() for one in cc)}
    divided = quotes.divide(text, subject=subject, own=own, known=known)
    if len(divided.visible) > _MAX_TEXT or len(divided.quoted or "") > _MAX_TEXT:
        attachments.append(_file("message.txt", "text/plain", text.encode()))
    return Mail(
        message_id=own_id[0] if own_id else None,
        sender=writer.address,
        sender_name=writer.name or None,
        recipient=next((one.address for one in recipients if one.address.lower() in own), None)
        or (recipients[0].address if recipients else None),
        cc=tuple(cc),
        subject=subject,
        text=divided.visible[:_MAX_TEXT],
        quoted=divided.quoted[:_MAX_TEXT] if divided.quoted else None,
        own=divided.own[:_MAX_TEXT],
        references=tuple(references[:_MAX_REFERENCES]),
        attachments=attachments,
        report=reports.read(message, text, header),
        automatic=reports.is_automatic(header, subject),
    )


# ------------------------------------------------------------------------------------------------------------- bounds
def _refuse_hostile(body: bytes) -> None:
    """Bound what the parser will do, by the structure that it will see: the words of a letter never count."""
    if len(body) > MAX_BYTES or body.count(b"\n") > _MAX_LINES + len(body) // _BYTES_A_LINE:
        raise Unreadable("too_large")
    parts = 0
    waiting = [(body, 0)]
    while waiting:
        part, level = waiting.pop()
        parts += 1
        # Each level of nesting costs time per line, and a frame of the stack.
        if parts > _MAX_PARTS or level > _MAX_NESTING:
            raise Unreadable("too_many_parts")
        kind, end = _kind_of(part)
        if kind.lstrip()[:8].lower() == b"message/":
            waiting.append((part[end:].lstrip(b"\n"), level + 1))
        elif kind.lstrip()[:10].lower() == b"multipart/" and (found := _BOUNDARY.search(kind)):
            inside = _split(part[end:], found[1] or found[2])
            waiting.extend((piece, level + 1) for piece in inside[: _MAX_PARTS + 1])


def _kind_of(part: bytes) -> tuple[bytes, int]:
    """The Content-Type of a part and where its headers end. Parsing a parameter list is quadratic in its length."""
    position, kind = 0, b""
    while (found := _HEADER.match(part, position)) is not None:
        name = found[1].lower()
        if name.startswith(b"content-") and len(found[0]) > _MAX_PART_HEADER:
            raise Unreadable("header_too_long")
        if name == b"content-type" and not kind:
            kind = found[2]
        position = found.end()
    return kind, position


def _split(body: bytes, boundary: bytes) -> list[bytes]:
    delimiter = b"\n--" + boundary.rstrip()
    pieces = (b"\n" + body).split(delimiter)[1:]
    return [piece.partition(b"\n")[2] for piece in pieces if not piece.startswith(b"--")]


# ------------------------------------------------------------------------------------------------------------- headers
def _header(message: Message, name: str, *, each: bool = False) -> str:
    """A header's text on one line, encoded words as they are. `each`: of every header of this name, with commas between."""
    # As they came: `get` has lost the bytes of an 8-bit header already.
    values = [str(value) for key, value in message.raw_items() if key.lower() == name]
    found = ", ".join(values) if each else (values[0] if values else "")
    return " ".join(charsets.raw_header(found[: _MAX_HEADER * (10 if each else 1)]).split())


# ------------------------------------------------------------------------------------------------------------- content
def _inside(part: Message) -> list[Message]:
    """The parts of a part. Of a leaf nothing is asked: its payload would be decoded by whatever codec it names."""
    payload = part.get_payload() if part.is_multipart() else []
    return [child for child in payload if isinstance(child, Message)] if isinstance(payload, list) else []


def _leaves(message: Message) -> Iterator[Message]:
    """The parts in reading order, of alternatives the best form; an attached message is one part."""
    waiting = [message]
    while waiting:
        part = waiting.pop()
        if part.get_content_maintype() == "multipart" and part.is_multipart():
            inside = _inside(part)
            if part.get_content_subtype() == "alternative":
                inside = _best(inside)
            waiting.extend(reversed(inside))
        else:
            yield part


def _best(forms: list[Message]) -> list[Message]:
    """Of the forms of the same words the one in plain text, if it has any; what is no form of them (an invitation) besides."""
    worded = [form for form in forms if _has_words(form)]
    plain = [form for form in worded if form.get_content_type() == "text/plain"]
    chosen = plain[:1] or worded[-1:]
    kinds = (*_TEXTS, *_UNSHOWN)
    return [form for form in forms if form in chosen or not (form in worded or form.get_content_type() in kinds)]


def _has_words(form: Message) -> bool:
    if form.get_content_maintype() == "multipart":
        return any(_has_words(part) for part in _inside(form))
    kind = form.get_content_type()
    if form.get_content_disposition() == "attachment":
        return False
    return bool((kind == "text/plain" and _text(form).strip()) or (kind == "text/html" and markup.to_text(_text(form))))


def _content(message: Message) -> tuple[str, list[dict[str, str]]]:
    """The words of all parts that are words, in order, and the other parts as files. Each part is one or the other."""
    words: list[str] = []
    files: list[dict[str, str]] = []
    for part in _leaves(message):
        kind = part.get_content_type()
        if kind not in _TEXTS or part.get_content_disposition() == "attachment" or _filename(part):
            content = _bytes(part)
            unpacked = _unpacked(content) if content[:4] == _TNEF else None
            if unpacked is not None:
                words.append(unpacked[0])
                files += unpacked[1]
            files.append(_file(_filename(part) or _PLAIN_FILES.get(kind, ""), kind, content))
            continue
        text = _text(part)
        if kind == "text/html":
            if len(text) > markup.SOURCE_LIMIT:
                files.append(_file("message.html", kind, text.encode()))
            text = markup.to_text(text)
        words.append(text.strip("\n"))
    return "\n\n".join(text for text in words if text.strip()), files


def _bytes(part: Message) -> bytes:
    if part.get_content_maintype() == "message":
        inside = _inside(part)
        return b"\n".join(one.as_bytes() for one in inside) if inside else _payload(part)
    return _payload(part)


def _payload(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _text(part: Message) -> str:
    charset = part.get_param("charset")
    text = charsets.decode(_payload(part), charset if isinstance(charset, str) else None)
    text = text.replace("\r\n", "\n").replace("\x00", "")
    if part.get_content_type() == "text/plain" and str(part.get_param("format", "")).lower() == "flowed":
        return _unflowed(text, delete_space=str(part.get_param("delsp", "")).lower() == "yes")
    return text


def _unflowed(text: str, *, delete_space: bool) -> str:
    """RFC 3676: lines that end in a space go on in the next one of the same quote."""
    lines: list[str] = []
    flowing, depth_before = False, 0
    for line in text.split("\n"):
        words = line.lstrip(">")
        depth = len(line) - len(words)
        words = words.removeprefix(" ")
        flows = words.endswith(" ") and words != "-- "
        kept = words[:-1] if flows and delete_space else words
        if flowing and depth == depth_before and words != "-- ":
            lines[-1] += kept
        else:
            lines.append(f"{'>' * depth} {kept}" if depth else kept)
        flowing, depth_before = flows, depth
    return "\n".join(line.rstrip() if line != "-- " else line for line in lines)


def _filename(part: Message) -> str:
    """A name, never a path; "" if there is none."""
    try:
        name = part.get_filename()
    except (ValueError, LookupError):  # a charset that is none
        name = None
    if not name and part.get_content_maintype() == "message":
        inside = _inside(part)
        subject = _header(inside[0], "subject") if inside else ""
        name = f"{charsets.decode_words(subject)}.eml" if subject else None
    if not name:
        return ""
    return re.split(r"[/\\]", senders.words(charsets.decode_header(str(name))))[-1][:200]


def _file(name: str, kind: str, content: bytes) -> dict[str, str]:
    found = {"content_type": kind[:100], "size": str(len(content)), "content": base64.b64encode(content).decode()}
    return {**found, "name": name} if name else found


_TNEF = b"\x78\x9f\x3e\x22"


def _unpacked(content: bytes) -> tuple[str, list[dict[str, str]]] | None:
    """The words and files in a winmail.dat of Outlook's; None if it can't be read."""
    try:
        packet = tnefparse.TNEF(content, do_checksum=False)
        body = packet.body or packet.htmlbody or b""
        words = body if isinstance(body, str) else charsets.decode(body, None)
        files = [
            _file(_tnef_name(one), "application/octet-stream", bytes(one.data or b"")) for one in packet.attachments
        ]
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError, struct.error):
        return None
    if words.lstrip()[:1] == "<":
        words = markup.to_text(words)
    return words.replace("\x00", "").strip(), files


def _tnef_name(attachment: tnefparse.tnef.TNEFAttachment) -> str:
    return re.split(r"[/\\]", senders.words(charsets.whole(str(attachment.long_filename() or attachment.name or ""))))[
        -1
    ][:200]
