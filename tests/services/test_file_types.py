"""What a file is, is what its bytes are."""

from __future__ import annotations

import pytest

from services import file_types

KNOWN = {
    b"\xff\xd8\xff\xe0": "image/jpeg",
    b"\x89PNG\r\n\x1a\n\x00": "image/png",
    b"GIF89a\x01": "image/gif",
    b"RIFF\x00\x00\x00\x00WEBPVP8 ": "image/webp",
    b"\x00\x00\x00\x18ftypheic": "image/heic",
    b"%PDF-1.7": "application/pdf",
    b"ID3\x04": "audio/mpeg",
    b"RIFF\x00\x00\x00\x00WAVEfmt ": "audio/wav",
    b"OggS\x00": "audio/ogg",
    b"#!AMR\n": "audio/amr",
    b"\x00\x00\x00\x1cftypM4A ": "audio/mp4",
    b"\x00\x00\x00\x1cftypmp42": "video/mp4",
    b"\x00\x00\x00\x1cftyp3gp5": "video/3gpp",
    b"\x00\x00\x00\x14ftypqt  ": "video/quicktime",
    "BEGIN:VCARD\r\nFN:Zoë\r\n".encode(): "text/plain",
    b"<html><script>": "text/plain",
    b"<?xml version='1.0'?><svg onload='x'/>": "text/plain",
}


@pytest.mark.parametrize("content", KNOWN)
def test_a_known_kind_is_recognised(content: bytes) -> None:
    assert file_types.of(content) == KNOWN[content]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"MZ\x90\x00",
        b"\x7fELF\x02",
        b"PK\x03\x04",
        b"\xca\xfe\xba\xbe",
        b"RIFF\x00\x00\x00\x00AVI ",
        b"\x00\x00\x00\x1cftypevil",
        b"\x00\x00\x00\x1cftyp",
        b"hello\x00world",
        b"caf\xe9",
        b"\x1b[2J",
        b"\x89PNX",
    ],
)
def test_everything_else_is_not_taken(content: bytes) -> None:
    assert file_types.of(content) is None


def test_only_pictures_are_shown_in_place() -> None:
    assert {"image/png", "image/jpeg", "image/gif", "image/webp"} == file_types.INLINE
