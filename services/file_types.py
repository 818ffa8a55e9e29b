"""What a file is, by its first bytes: the kinds that a contact may send. What anybody says about it does not count."""

from __future__ import annotations

from typing import Final

_STARTS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
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
    """The media type; text of any kind (HTML and SVG, too) is text/plain. None: empty, or none of the kinds that are taken."""
    for start, found in _STARTS:
        if content.startswith(start):
            return found
    if content[:4] == b"RIFF":
        return _RIFF.get(content[8:12])
    if content[4:8] == b"ftyp":
        return next((found for brands, found in _BRANDS if content[8:12].startswith(brands)), None)
    return "text/plain" if _is_text(content) else None


def _is_text(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return bool(content) and len(content.translate(None, _CONTROLS)) == len(content)
