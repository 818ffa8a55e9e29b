"""File types are detected from bytes."""

from __future__ import annotations

import io
import zipfile

import pytest

from services.messaging import file_types

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


def _zip(*names: str) -> bytes:
    kept = io.BytesIO()
    with zipfile.ZipFile(kept, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return kept.getvalue()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (
            _zip("[Content_Types].xml", "word/document.xml"),
            "vnd.openxmlformats-officedocument.wordprocessingml.document",
        ),
        (_zip("[Content_Types].xml", "xl/workbook.xml"), "vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
        (_zip("photo.jpg"), "zip"),
        (b"PK\x03\x04 cut", "zip"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "x-ole-storage"),
        (b"{\\rtf1 hello}", "rtf"),
        (b"\x78\x9f\x3e\x22\x00", "ms-tnef"),
        (b"\x30\x80\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02", "pkcs7-mime"),
        (b"RIFF\x00\x00\x00\x00AVI ", "octet-stream"),
        (b"\x00\x00\x00\x1cftypevil", "octet-stream"),
        (b"hello\x00world", "octet-stream"),
        (b"caf\xe9", "octet-stream"),
        (b"\x1b[2J", "octet-stream"),
    ],
)
def test_documents_and_unknown_files_are_kept_to_be_downloaded(content: bytes, kind: str) -> None:
    assert file_types.of(content) == f"application/{kind}"


def test_a_note_that_begins_as_a_program_is_text() -> None:
    assert file_types.of("MZ: München, Zürich".encode()) == "text/plain"


@pytest.mark.parametrize("content", [b"", b"MZ\x90\x00", b"\x7fELF\x02", b"\xca\xfe\xba\xbe", b"#!/bin/sh\n"])
def test_programs_and_empty_files_are_not_taken(content: bytes) -> None:
    assert file_types.of(content) is None


def test_only_pictures_are_shown_in_place() -> None:
    assert {"image/png", "image/jpeg", "image/gif", "image/webp"} == file_types.INLINE
