"""Bytes to text as mail programs and browsers read them. Never fails, and guesses before it gives a letter up.

Source: encoding.spec.whatwg.org (labels); RFC 2047 (encoded words).
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
import unicodedata
from email import quoprimime

import webencodings

# WHATWG's decoders where Python's codec of that name knows fewer characters.
_WIDER = {
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc-kr": "cp949",
    "big5": "big5hkscs",
    "euc-jp": "euc_jis_2004",
    "iso-2022-jp": "iso2022_jp_ext",
}
# In mail, not on the Web. No other codec of Python's is used: some are quadratic, some are not text.
_MAIL_ONLY = {
    "utf-7": "utf-7",
    "utf7": "utf-7",
    "unicode-1-1-utf-7": "utf-7",
    "utf-32": "utf-32",
    "utf-32le": "utf-32-le",
    "utf-32be": "utf-32-be",
    "iso-2022-kr": "iso2022_kr",
    "cp437": "cp437",
    "ibm437": "cp437",
    "cp850": "cp850",
    "ibm850": "cp850",
    "cp852": "cp852",
    "ibm852": "cp852",
    "cp932": "cp932",
    "cp936": "gb18030",
    "cp949": "cp949",
    "cp950": "big5hkscs",
    "cp874": "cp874",
}
_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xfe\xff", "utf-16-be"), (b"\xff\xfe", "utf-16-le"))
_SURROGATES = re.compile("[\ud800-\udfff]")
_ENCODED_WORD = re.compile(r"=\?([^?\s]{1,60})\?([bBqQ])\?([^?]*)\?=")
_BETWEEN_WORDS = re.compile(r"\s+")


def decode(data: bytes, label: str | None) -> str:
    """The text of these bytes. `label`: the charset that the sender names; None: none.

    A text that its charset can't be is read as UTF-8, else as windows-1252; single damaged characters become U+FFFD.
    """
    codec = next((name for mark, name in _MARKS if data.startswith(mark)), None) or _codec(label)
    if codec in ("ascii", "cp1252"):
        # Programs write these labels on UTF-8; text in windows-1252 is hardly ever valid UTF-8 by chance.
        text = _strictly(data, "utf-8")
        return text if text is not None else _windows_1252(data)
    text = _strictly(data, codec)
    if text is None:
        guess = _strictly(data, "utf-8")
        if guess is not None:
            text = guess
        elif codec == "utf-8" and not _mostly_utf8(data):
            text = _windows_1252(data)
        else:
            text = data.decode(codec, "replace")
    text = whole(text.removeprefix("\ufeff"))
    # Vietnamese windows-1258 writes letter and accent apart.
    return unicodedata.normalize("NFC", text) if codec == "cp1258" else text


def whole(text: str) -> str:
    """The text without half characters (lone surrogates), which neither UTF-8 nor a database can hold."""
    if not _SURROGATES.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def decode_header(value: str) -> str:
    """A header as it came (8-bit bytes as surrogate escapes) in words: raw bytes guessed, encoded words decoded."""
    return decode_words(raw_header(value))


def raw_header(value: str) -> str:
    """A header's text with its raw 8-bit bytes decoded; encoded words stay as they are, and with them its structure."""
    if value.isascii():
        return value
    return decode(value.encode("utf-8", "surrogateescape"), None)


def decode_words(text: str) -> str:
    """RFC 2047: encoded words decoded, also inside quotes; a character cut between two words of one charset is joined."""
    pieces: list[str | tuple[str, bytes]] = []
    position = 0
    for found in _ENCODED_WORD.finditer(text):
        between = text[position : found.start()]
        data = _word_bytes(found[2], found[3])
        if data is None:
            pieces.append(text[position : found.end()])
        else:
            charset = found[1].partition("*")[0].lower()
            after_word = bool(pieces) and isinstance(pieces[-1], tuple)
            if between and not (after_word and _BETWEEN_WORDS.fullmatch(between)):
                pieces.append(between)
                after_word = False
            last = pieces[-1] if pieces else ""
            if after_word and isinstance(last, tuple) and last[0] == charset:
                pieces[-1] = (charset, last[1] + data)
            else:
                pieces.append((charset, data))
        position = found.end()
    pieces.append(text[position:])
    return whole("".join(piece if isinstance(piece, str) else decode(piece[1], piece[0]) for piece in pieces))


def _codec(label: str | None) -> str:
    name = (label or "").strip().strip("\"'").lower()[:60]
    if name in ("us-ascii", "ascii", "ansi_x3.4-1968"):
        return "ascii"
    known = webencodings.lookup(name)
    if known is not None and known.name not in ("replacement", "x-user-defined"):
        return _WIDER.get(known.name) or ("cp1252" if known.name == "windows-1252" else known.codec_info.name)
    if name in _MAIL_ONLY:
        return _MAIL_ONLY[name]
    return "utf-8"


def _strictly(data: bytes, codec: str) -> str | None:
    try:
        return codecs.decode(data, codec, "strict")
    except (UnicodeError, ValueError):
        return None


def _windows_1252(data: bytes) -> str:
    return data.decode("cp1252", "c1-control")


def _c1_control(error: UnicodeError) -> tuple[str, int]:
    """As browsers do: the five bytes without a character in windows-1252 become the control of their number."""
    assert isinstance(error, UnicodeDecodeError)  # noqa: S101  (registered for decoding only)
    return "".join(map(chr, error.object[error.start : error.end])), error.end


codecs.register_error("c1-control", _c1_control)


def _mostly_utf8(data: bytes) -> bool:
    """Whether damaged UTF-8 is likelier than another charset: most of its 8-bit characters are valid."""
    text = data.decode("utf-8", "replace")
    damaged = text.count("\ufffd")
    return sum(character > "\x7f" for character in text) - damaged >= damaged or (
        # Cut off inside its last character.
        damaged == 1 and text.endswith("\ufffd")
    )


def _word_bytes(encoding: str, payload: str) -> bytes | None:
    try:
        if encoding in "bB":
            payload = payload.rstrip("=")
            return base64.b64decode(payload + "=" * (-len(payload) % 4), validate=True)
        return quoprimime.header_decode(payload).encode("latin-1")
    except (binascii.Error, ValueError, UnicodeError):
        return None
