"""Reads an email's text and files; each part is one or the other. Opens no attachment but winmail.dat.

Source: RFC 2046 (parts), RFC 2231 (names), RFC 3676 (format=flowed).
"""

from __future__ import annotations

import base64
import quopri
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message

from integrations.inbound_mail import charsets, senders

_MAX_HEADER = 2000
TEXTS = ("text/plain", "text/html")
# Alternatives to the text parts.
_UNSHOWN = ("text/x-amp-html", "application/x-amp-html", "text/watch-html", "text/enriched")
_ALTERNATIVES = (*TEXTS, *_UNSHOWN)
_PLAIN_FILES = {"message/rfc822": "message.eml", "message/global": "message.eml", "text/calendar": "invite.ics"}
_TNEF_SIGNATURE = b"\x78\x9f\x3e\x22"  # of winmail.dat
_BASE64 = re.compile(rb"[A-Za-z0-9+/]+={0,2}")
_WORD = re.compile(r"\w+")
_IN_BRACKETS = re.compile(r"<[^<>\s]{1,2000}>")  # link addresses
_COMPARED_WORDS = 500  # words compared of two alternatives
_COMPARED_TEXT = 100_000  # characters


def charset_of_words(message: Message) -> str | None:
    """The charset of the first text part, which raw headers usually share."""
    for part in message.walk():
        if part.get_content_type() in TEXTS:
            charset = part.get_param("charset")
            return charset if isinstance(charset, str) else None
    return None


def header_of(message: Message, name: str, *, label: str | None = None, each: bool = False) -> str:
    """A header's text on one line, encoded words kept. `each` joins all headers of this name with commas."""
    # `Message.get` loses the bytes of 8-bit headers.
    values = [str(value) for key, value in message.raw_items() if key.lower() == name]
    found = (", ".join(values) if each else (values[0] if values else "")).replace("\x00", "")
    return " ".join(charsets.raw_header(found[: _MAX_HEADER * (10 if each else 1)], label).split())


@dataclass(slots=True)
class _Part:
    message: Message
    hidden: bool = False  # an alternative is shown instead; pictures in it still count


def _subparts(part: Message) -> list[Message]:
    # Never ask a leaf: that decodes its payload with any codec it names.
    payload = part.get_payload() if part.is_multipart() else []
    return [child for child in payload if isinstance(child, Message)] if isinstance(payload, list) else []


class Content:
    """An email's text parts in order, and its other parts as files."""

    def __init__(self, message: Message) -> None:
        self._text_by_part: dict[int, str] = {}  # text by the part's identity
        parts = list(self._parts(message))
        words = [self._words(part.message) for part in parts if self._is_words(part.message) and not part.hidden]
        unnamed = any(text.strip() for text in words)
        self.words: list[str] = []
        self.files: list[dict[str, str]] = []
        for part in parts:
            if self._is_words(part.message):
                self._add_words(part)
            elif not unnamed and not part.hidden and _is_text(part.message):
                unnamed = True  # MMS gateways give a message's text a file name
                self._add_words(part)
            elif not (part.hidden and part.message.get_content_type() in _UNSHOWN):
                self._add_file(part.message)

    @property
    def text(self) -> str:
        return "\n\n".join(text for text in self.words if text.strip())

    def _add_words(self, part: _Part) -> None:
        if part.message.get_content_type() == "text/html":
            from integrations.inbound_mail import markup  # loads lxml (5 MB) only where HTML arrives

            source = _text(part.message)
            for kind, content in markup.pictures(source):
                picture = charsets.base64_bytes(content.encode())
                self.files.append(file_of(f"picture.{kind.partition('/')[2].partition('+')[0]}", kind, picture))
            if not part.hidden and markup.is_cut(source):
                self.files.append(file_of("message.html", "text/html", source.encode()))
        if not part.hidden:
            self.words.append(self._words(part.message).strip("\n"))

    def _add_file(self, part: Message) -> None:
        kind, content = part.get_content_type(), _content_bytes(part)
        unpacked = _unpacked(content) if content.startswith(_TNEF_SIGNATURE) else None
        if unpacked is not None:
            self.words.append(unpacked[0])
            self.files += [file_of(name, "application/octet-stream", data) for name, data in unpacked[1]]
        self.files.append(file_of(_filename(part) or _PLAIN_FILES.get(kind, ""), kind, content))

    def _parts(self, message: Message) -> Iterator[_Part]:
        waiting = [_Part(message)]
        while waiting:
            part = waiting.pop()
            if part.message.is_multipart() and part.message.get_content_maintype() == "multipart":
                inside = _subparts(part.message)
                shown = (
                    self._best_alternative(inside) if part.message.get_content_subtype() == "alternative" else inside
                )
                waiting.extend(_Part(one, part.hidden or one not in shown) for one in reversed(inside))
            else:
                yield part

    def _best_alternative(self, forms: list[Message]) -> list[Message]:
        worded = [form for form in forms if self._form_words(form).strip()]
        if not worded:
            return forms
        plain = next((form for form in worded if form.get_content_type() == "text/plain"), worded[-1])
        chosen = worded[-1] if _lacks_words_of(self._form_words(plain), self._form_words(worded[-1])) else plain
        return [
            form for form in forms if form is chosen or not (form in worded or form.get_content_type() in _ALTERNATIVES)
        ]

    def _form_words(self, form: Message) -> str:
        inside = _subparts(form) if form.get_content_maintype() == "multipart" else []
        if inside:
            return "\n".join(self._form_words(part) for part in inside)
        return self._words(form) if self._is_words(form) else ""

    @staticmethod
    def _is_words(part: Message) -> bool:
        if part.get_content_maintype() == "multipart":
            return not part.is_multipart()  # its boundary is missing: show the source
        return _is_text(part) and not _filename(part)

    def _words(self, part: Message) -> str:
        found = self._text_by_part.get(id(part))
        if found is None:
            found = _text(part)
            if part.get_content_type() == "text/html":
                from integrations.inbound_mail import markup  # as above

                found = markup.to_text(found)
            self._text_by_part[id(part)] = found
        return found


def _unpacked(content: bytes) -> tuple[str, list[tuple[str, bytes]]] | None:
    from integrations.inbound_mail import winmail  # loads its library only where winmail.dat arrives

    return winmail.unpacked(content)


def _is_text(part: Message) -> bool:
    return part.get_content_type() in TEXTS and part.get_content_disposition() != "attachment"


def _lacks_words_of(plain: str, rich: str) -> bool:
    # The plain alternative may only say "Your mail program shows no HTML".
    had = _WORD.findall(plain[: 2 * _COMPARED_TEXT].casefold())
    words = set(_WORD.findall(_IN_BRACKETS.sub(" ", rich[:_COMPARED_TEXT].casefold())))
    joined = "".join(had)  # a line break may split a word
    return any(word not in joined for word in sorted(words - set(had))[:_COMPARED_WORDS])


def _content_bytes(part: Message) -> bytes:
    if part.get_content_maintype() != "message":
        return _payload(part)
    inside = _subparts(part)
    content = b"\n".join(one.as_bytes() for one in inside) if inside else _payload(part)
    encoding = _transfer_encoding(part) if inside else ""
    if encoding == "base64":  # forbidden for messages, but it occurs
        return charsets.base64_bytes(content)
    return quopri.decodestring(content) if encoding == "quoted-printable" else content


def _transfer_encoding(part: Message) -> str:
    return re.sub(r"\(.*?\)|[\s\"';]", "", header_of(part, "content-transfer-encoding")).lower()


def _payload(part: Message) -> bytes:
    encoding = _transfer_encoding(part)
    if encoding == "base64" and part.get_content_type() in TEXTS:
        part.replace_header("content-transfer-encoding", "8bit")
        source = _decoded(part)
        lines = [line.strip() for line in source.splitlines() if line.strip()]
        if all(map(_BASE64.fullmatch, lines)):  # truncated or concatenated: the library reads only one
            return charsets.base64_bytes(source)
        if b" " in lines[0]:
            return source  # never encoded
    if encoding in ("base64", "quoted-printable"):
        part.replace_header("content-transfer-encoding", encoding)
    return _decoded(part)


def _decoded(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _text(part: Message) -> str:
    charset = part.get_param("charset")
    content = _payload(part)
    label = charset if isinstance(charset, str) else None
    if part.get_content_type() == "text/html" and not label:
        label = charsets.declared(content)
    text = charsets.decode(content, label)
    text = text.replace("\r\n", "\n").replace("\x00", "")
    if part.get_content_type() == "text/plain" and str(part.get_param("format", "")).lower() == "flowed":
        return _unflowed(text, delete_space=str(part.get_param("delsp", "")).lower() == "yes")
    return text


def _unflowed(text: str, *, delete_space: bool) -> str:
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
    name = _declared_name(part)
    if not name and part.get_content_maintype() == "message":
        inside = _subparts(part)
        subject = header_of(inside[0], "subject") if inside else ""
        name = f"{charsets.decode_words(subject)}.eml" if subject else ""
    return re.split(r"[/\\]", senders.words(name))[-1][:200]


def _declared_name(part: Message) -> str:
    for name, parameter in (("content-disposition", "filename"), ("content-type", "name")):
        given = header_of(part, name)
        if not given.isascii():  # the library would lose raw 8-bit characters
            part.replace_header(name, given)
        values = [value for key, value in part.get_params([], header=name) if key.lower() == parameter]
        for value in values:
            if isinstance(value, tuple):
                return charsets.decode(value[2].encode("latin-1", "replace"), value[0])
        if values and values[0]:
            return charsets.decode_header(str(values[0]))
    return ""


def file_of(name: str, kind: str, content: bytes) -> dict[str, str]:
    found = {"content_type": kind[:100], "size": str(len(content)), "content": base64.b64encode(content).decode()}
    return {**found, "name": name} if name else found
