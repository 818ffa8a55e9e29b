"""Decodes a raw, untrusted RFC 5322 message.

Source: RFC 5322, RFC 2046 (parts), RFC 3676 (format=flowed), RFC 3834 (automatic answers); docs.python.org/3/library/email.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from email.policy import compat32

from integrations.inbound_mail import charsets, quotes, reports, senders
from integrations.inbound_mail.content import Content, charset_of_words, file_of, header_of

MAX_BYTES = 14 << 20  # a 10 MiB file in base64, and the text
_MAX_LINES = 40_000
_BYTES_PER_LINE = 70  # base64 has 76: more than _MAX_LINES lines are allowed only of files
_MAX_PARTS = 100
_MAX_NESTING = 20
_MAX_PART_HEADER = 4096
_MAX_TEXT = 50_000
_MAX_REFERENCES = 50

_HEADER = re.compile(rb"([!-9;-~]+)[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)\n?")
_BOUNDARY = re.compile(rb"boundary\s*=\s*(?:\"([^\"\n]{1,200})\"|([^\s;\"]{1,200}))", re.IGNORECASE)
_MESSAGE_ID = re.compile(r"<[^<>\s]{1,900}>")
_BARE_ID = re.compile(r"[^\s<>,;\"()]{1,450}@[^\s<>,;\"()]{1,450}")


class Unreadable(Exception):
    """The message is malformed or too large; the text is a short reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """A decoded message."""

    message_id: str | None  # in angle brackets
    sender: str  # "" in a report without sender
    sender_name: str | None
    recipient: str | None
    cc: Sequence[str]  # other recipients, without the business and the writer
    subject: str
    text: str  # shown in the inbox
    quoted: str | None  # the earlier message, hidden in the inbox
    own: str  # `text` without quoted lines
    references: Sequence[str]
    attachments: Sequence[dict[str, str]]
    report: reports.DeliveryReport | None = None
    automatic: bool = False  # sent by a program or a list


def read(raw: bytes, *, own: Collection[str] = ()) -> Mail:
    """Decode a message. `own`: the channel's addresses, lower case. Raises: Unreadable."""
    body = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").removeprefix(b"\xef\xbb\xbf").lstrip(b"\n")
    _refuse_hostile(body)
    try:
        message: Message = BytesParser(policy=compat32).parsebytes(body)
    except (ValueError, RecursionError) as error:
        raise Unreadable("malformed") from error

    label = charset_of_words(message)

    def header(name: str) -> str:
        return header_of(message, name, label=label)

    received = [header_of(message, name, label=label, each=True) for name in ("to", "cc")]
    recipients = senders.mailboxes(received[0])
    own_id = _MESSAGE_ID.findall(header("message-id"))
    answered = f"{header('in-reply-to')} {header_of(message, 'references', each=True)}"
    references = _MESSAGE_ID.findall(answered) or [f"<{one}>" for one in _BARE_ID.findall(answered)]
    subject = senders.words(charsets.decode_words(header("subject")))
    content = Content(message)
    text, attachments = content.text, content.files
    report = reports.read(message, text, header)
    writer = senders.writer(header, own=own) or (senders.Mailbox("", "") if report else None)
    if writer is None:
        raise Unreadable("no_sender")
    cc = senders.others(received, without={*own, writer.address.lower()})
    known = {writer.address.lower(), *(one.lower() for one in cc)}
    names = {one.name.casefold() for one in recipients if len(one.name) > 2 and one.address.lower() in own}
    divided = quotes.divide(text, subject=subject, own=own, known=known, names=names)
    if len(divided.visible) > _MAX_TEXT or len(divided.quoted or "") > _MAX_TEXT:
        attachments.append(file_of("message.txt", "text/plain", text.encode()))
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
        report=report,
        automatic=reports.is_automatic(header, subject),
    )


# ------------------------------------------------------------------------------------------------------------- bounds
def _refuse_hostile(body: bytes) -> None:
    # The standard library's parser is quadratic for some inputs: check the structure before it runs.
    if len(body) > MAX_BYTES or body.count(b"\n") > _MAX_LINES + len(body) // _BYTES_PER_LINE:
        raise Unreadable("too_large")
    parts = 0
    waiting = [(body, 0)]
    while waiting:
        part, level = waiting.pop()
        parts += 1
        # Each level costs time per line and a stack frame.
        if parts > _MAX_PARTS or level > _MAX_NESTING:
            raise Unreadable("too_many_parts")
        kind, end = _kind_of(part)
        if kind.lstrip()[:8].lower() == b"message/":
            waiting.append((part[end:].lstrip(b"\n"), level + 1))
        elif kind.lstrip()[:10].lower() == b"multipart/" and (found := _BOUNDARY.search(kind)):
            inside = _split(part[end:], found[1] or found[2])
            waiting.extend((piece, level + 1) for piece in inside[: _MAX_PARTS + 1])


def _kind_of(part: bytes) -> tuple[bytes, int]:
    position, kind = 0, b""
    while (found := _HEADER.match(part, position)) is not None:
        name = found[1].lower()
        if name.startswith(b"content-") and len(found[0]) > _MAX_PART_HEADER:  # parsing parameters is quadratic
            raise Unreadable("header_too_long")
        if name == b"content-type" and not kind:
            kind = found[2]
        position = found.end()
    return kind, position


def _split(body: bytes, boundary: bytes) -> list[bytes]:
    delimiter = b"\n--" + boundary.rstrip()
    pieces = (b"\n" + body).split(delimiter)[1:]
    return [piece.partition(b"\n")[2] for piece in pieces if not piece.startswith(b"--")]
