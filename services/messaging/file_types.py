"""Detects a file's type by its bytes; the sender's claim does not count."""

from __future__ import annotations

import io
import zipfile
from typing import Final

_STARTS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"{\\rtf", "application/rtf"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"),  # Office files until 2003, Outlook's .msg
    (b"\x78\x9f\x3e\x22", "application/ms-tnef"),  # winmail.dat
    (b"\x30\x80\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07", "application/pkcs7-mime"),  # S/MIME
    (b"BEGIN:VCALENDAR", "text/calendar"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"\xff\xf3", "audio/mpeg"),
    (b"\xff\xf1", "audio/aac"),
    (b"\xff\xf9", "audio/aac"),
    (b"#!AMR", "audio/amr"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
    (b"\x1aE\xdf\xa3", "video/webm"),
)
_PROGRAMS: Final = (
    b"MZ",
    b"\x7fELF",
    b"\xca\xfe\xba\xbe",
    b"\xfe\xed\xfa",
    b"\xcf\xfa\xed\xfe",
    b"\xce\xfa\xed\xfe",
    b"#!",
)
_BYTES: Final = "application/octet-stream"
_OFFICE: Final = (  # by a folder in the ZIP archive
    ("word/", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ("xl/", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ("ppt/", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
)
_RIFF: Final = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}
_BRANDS: Final = (  # of ISO media files: the four bytes after "ftyp"
    ((b"heic", b"heix", b"hevc", b"mif1", b"msf1"), "image/heic"),
    ((b"avif",), "image/avif"),
    ((b"M4A ", b"M4B "), "audio/mp4"),
    ((b"3gp", b"3g2"), "video/3gpp"),
    ((b"qt  ",), "video/quicktime"),
    ((b"isom", b"iso2", b"iso4", b"iso5", b"iso6", b"mp41", b"mp42", b"avc1", b"M4V ", b"MSNV", b"dash"), "video/mp4"),
)
_CONTROLS: Final = bytes(set(range(32)) - set(b"\t\n\v\f\r"))
INLINE: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})  # what a browser may show in place


def of(content: bytes) -> str | None:
    """The media type; text/plain for any text, HTML and SVG too. None: empty, or a program."""
    for start, found in _STARTS:
        if content.startswith(start):
            return found
    if not content or (content.startswith(_PROGRAMS) and not _is_text_with_mz(content)):
        return None
    if content[:4] == b"RIFF":
        return _RIFF.get(content[8:12], _BYTES)
    if content[4:8] == b"ftyp":
        return next((found for brands, found in _BRANDS if content[8:12].startswith(brands)), _BYTES)
    if content[:4] == b"PK\x03\x04":
        return _archive_type(content)
    return "text/plain" if _is_text(content) else _BYTES


def _is_text_with_mz(content: bytes) -> bool:
    return content.startswith(b"MZ") and _is_text(content)


def _archive_type(content: bytes) -> str:
    if content[30:38] == b"mimetype":
        named = content[38:138].partition(b"PK")[0].decode("ascii", "replace")
        if named.startswith(("application/vnd.oasis.opendocument.", "application/epub+zip")):
            return named
    try:
        names = zipfile.ZipFile(io.BytesIO(content)).namelist()
    except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError, RuntimeError):
        return "application/zip"
    return next((kind for folder, kind in _OFFICE if any(name.startswith(folder) for name in names)), "application/zip")


def _is_text(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return len(content.translate(None, _CONTROLS)) == len(content)
