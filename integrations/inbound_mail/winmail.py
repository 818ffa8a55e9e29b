"""Reads the text and files of Outlook's winmail.dat (TNEF), within limits.

Source: [MS-OXTNEF].
"""

from __future__ import annotations

import re
import struct

import tnefparse

from integrations.inbound_mail import charsets, markup, senders

_MAX_OBJECTS = 300  # for each, the library copies the rest of the stream
_MAX_COUNT = 1000  # properties, or values of one
_HEADER = struct.Struct("<BHHL")
_RECIPIENTS, _PROPERTIES, _FILE_PROPERTIES = 0x9004, 0x9003, 0x9005
_EMBEDDED = b"\x07\x03\x02\x00\x00\x00\x00\x00\xc0\x00\x00\x00\x00\x00\x00\x46"  # a nested stream
_SIZES = {0x02: 2, 0x0B: 2, 0x03: 4, 0x04: 4, 0x0A: 4, 0x05: 8, 0x06: 8, 0x07: 8, 0x14: 8, 0x40: 8, 0x48: 16}
_VARIABLE_LENGTH = frozenset({0x00, 0x0D, 0x1E, 0x1F, 0x102})
_MULTIPLE, _NAMED = 0x1000, 0x8000
# Exceptions of the library on damaged streams.
_DAMAGE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    NameError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)


def unpacked(content: bytes) -> tuple[str, list[tuple[str, bytes]]] | None:
    """The text, and the files as (name, content); None if unreadable."""
    try:
        packet = tnefparse.TNEF(_bounded(content), do_checksum=False)
        body = packet.body or packet.htmlbody or b""
        words = body if isinstance(body, str) else charsets.decode(body, None)
        files = [(_file_name(one), bytes(one.data or b"")) for one in packet.attachments]
    except _DAMAGE_ERRORS:
        return None
    if words.lstrip()[:1] == "<":
        words = markup.to_text(words)
    return charsets.whole(words.replace("\x00", "")).strip(), files


def _file_name(attachment: tnefparse.tnef.TNEFAttachment) -> str:
    name = charsets.whole(str(attachment.long_filename() or attachment.name or ""))
    return re.split(r"[/\\]", senders.words(name))[-1][:200]


def _bounded(content: bytes) -> bytes:
    # The library trusts every count in the stream: a few bytes could keep it busy for hours.
    kept = [content[:6]]
    position = 6
    for _ in range(_MAX_OBJECTS):
        if position + _HEADER.size + 2 > len(content):
            return b"".join(kept)
        _, name, _, length = _HEADER.unpack_from(content, position)
        end = position + _HEADER.size + length + 2
        data = content[position + _HEADER.size : end - 2]
        listed = name in (_PROPERTIES, _FILE_PROPERTIES)
        if name != _RECIPIENTS and not (listed and (_EMBEDDED in data or not _is_within_bounds(data))):
            kept.append(content[position:end])
        position = end
    raise ValueError("too many objects")


def _is_within_bounds(data: bytes) -> bool:
    try:
        end = _end_of_properties(data)
    except struct.error:
        return False
    return end is not None and end <= len(data) + 3  # the padding may be missing


def _end_of_properties(data: bytes) -> int | None:
    (count,) = struct.unpack_from("<L", data)
    position = 4
    if count > _MAX_COUNT:
        return None
    for _ in range(count):
        kind, name = struct.unpack_from("<HH", data, position)
        position += 4
        if name >= _NAMED:
            (how,) = struct.unpack_from("<L", data, position + 16)
            position += 24
            if how:
                position += _padded(struct.unpack_from("<L", data, position - 4)[0])
        values, several = 1, bool(kind & _MULTIPLE)
        kind &= ~_MULTIPLE
        if several:
            (values,) = struct.unpack_from("<L", data, position)
            position += 4
        if values > _MAX_COUNT or (kind not in _SIZES and kind not in _VARIABLE_LENGTH):
            return None
        if kind in _SIZES:
            position += _SIZES[kind] * values + (2 if _SIZES[kind] == 2 and values % 2 else 0)
            continue
        for _ in range(values):
            inner = 1
            if not several:
                (inner,) = struct.unpack_from("<L", data, position)
                position += 4
            if inner > _MAX_COUNT:
                return None
            for _ in range(inner):
                position += 4 + _padded(struct.unpack_from("<L", data, position)[0])
    return position


def _padded(length: int) -> int:
    return length + -length % 4
