"""Decodes bytes as mail programs and browsers do; never fails.

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

# Wider codecs where Python's codec knows fewer characters than WHATWG's decoder.
_WIDER_CODECS = {
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc-kr": "cp949",
    "big5": "big5hkscs",
    "euc-jp": "euc_jp",
    "iso-2022-jp": "iso2022_jp_ext",
}
# Used in mail, not on the Web. Python's other codecs are excluded: some are quadratic or not text.
_MAIL_ONLY = {
    "utf-7": "utf-7",
    "utf7": "utf-7",
    "unicode-1-1-utf-7": "utf-7",
    "utf-32": "utf-32",
    "utf-32le": "utf-32-le",
    "utf-32be": "utf-32-be",
    "iso-2022-kr": "iso2022_kr",
    "hz": "hz",
    "hz-gb-2312": "hz",
    "uhc": "cp949",
    "johab": "johab",
    "x-johab": "johab",
    "x-mac-ce": "mac_latin2",
    "x-mac-centraleurroman": "mac_latin2",
    "x-mac-greek": "mac_greek",
    "x-mac-turkish": "mac_turkish",
    "latin9": "iso8859-15",
    "latin-9": "iso8859-15",
    "cp932": "cp932",
    "cp936": "gb18030",
    "cp949": "cp949",
    "cp950": "big5hkscs",
    **{
        f"cp{number}": f"cp{number}"
        for number in (437, 720, 737, 775, 850, 852, 855, 857, 858, *range(860, 867), 869, 874)
    },
}
_CODE_PAGE = re.compile(r"(?:x-)?(?:windows|win|cp|ansi|ms|ibm)[-_ ]?(\d{3,4})")
_ISO_8859 = re.compile(r"iso[-_ ]?8859[-_ ]?(\d{1,2})")
_JAPANESE_7_BIT = re.compile(r"(?:x-windows-)?iso-?2022-?jp.*|cp5022[0-2]")
# Only ISO-2022-JP has these.
_JAPANESE_ESCAPE = re.compile(rb"\x1b(?:\$[@B]|\([IJ])")
_JAPANESE_RUN = re.compile(rb"\x1b(\$\(?[@-D]|\([A-Z])")
_EUC_JP_LIMIT = 1 << 20  # bytes
_BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xfe\xff", "utf-16-be"), (b"\xff\xfe", "utf-16-le"))
_META = re.compile(rb"<meta\b[^>]{0,400}?charset\s*=\s*[\"']?([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
_SURROGATES = re.compile("[\ud800-\udfff]")
# Some programs write "?" and spaces inside.
_ENCODED_WORD = re.compile(r"=\?([^?\s]{1,60})\?([bBqQ])\?(.{0,2000}?)\?=")
_BETWEEN_WORDS = re.compile(r"\s+")


def decode(data: bytes, label: str | None) -> str:
    """Decode with the sender's charset `label`; if that fails, as UTF-8, else as windows-1252.

    Single damaged characters become U+FFFD.
    """
    codec = next((name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), None) or _codec(label)
    if codec.startswith("utf-16"):
        codec = _utf_16_codec(data, codec)
    if data.isascii() and _JAPANESE_ESCAPE.search(data):
        codec = "iso2022_jp_ext"
    if codec in ("ascii", "cp1252"):
        # Programs often label UTF-8 this way; windows-1252 text is hardly ever valid UTF-8.
        text = _decode_strictly(data, "utf-8")
        return text if text is not None else _decode_windows_1252(data)
    text = _decode_strictly(data, codec)
    if text is None:
        guess = _decode_strictly(data, "utf-8") if codec != "iso2022_jp_ext" else None
        if guess is not None:
            text = guess
        elif codec in ("euc_jp", "iso2022_jp_ext"):
            text = _decode_japanese(data)
        elif codec == "utf-8" and not _mostly_utf8(data):
            text = _decode_windows_1252(data)
        else:
            text = data.decode(codec, "replace")
    text = whole(text.removeprefix("\ufeff"))
    # windows-1258 separates Vietnamese characters and accents.
    return unicodedata.normalize("NFC", text) if codec == "cp1258" else text


def whole(text: str) -> str:
    """Replace lone surrogates, which neither UTF-8 nor a database can store."""
    if not _SURROGATES.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def decode_header(value: str) -> str:
    """Decode a raw header: 8-bit bytes (surrogate escapes) and encoded words."""
    return decode_words(raw_header(value))


def raw_header(value: str, label: str | None = None) -> str:
    """Decode a header's 8-bit bytes (`label`: the email's charset, tried after UTF-8); encoded words stay, to keep the structure."""
    if value.isascii() and "\x1b" not in value:
        return value
    data = value.encode("utf-8", "surrogateescape")
    text = _decode_strictly(data, "utf-8") if label and not data.isascii() else None
    return decode(data, label) if text is None else whole(text)


def declared(data: bytes) -> str | None:
    """The charset that an HTML page declares."""
    found = _META.search(data, 0, 4096)
    label = found[1].decode("ascii") if found else None
    # Not UTF-16, or the declaration would not be readable as ASCII.
    return "utf-8" if label is not None and label.lower().startswith("utf-16") else label


def decode_words(text: str) -> str:
    """Decode RFC 2047 encoded words, also inside quotes."""
    pieces: list[str | tuple[str, bytes]] = []
    position = 0
    for found in _ENCODED_WORD.finditer(text):
        between = text[position : found.start()]
        data = _encoded_word_bytes(found[2], found[3])
        if data is None:
            pieces.append(text[position : found.end()])
        else:
            charset = found[1].partition("*")[0].lower()
            after_word = bool(pieces) and isinstance(pieces[-1], tuple)
            if between and not (after_word and _BETWEEN_WORDS.fullmatch(between)):
                pieces.append(between)
                after_word = False
            last = pieces[-1] if pieces else ""
            if after_word and isinstance(last, tuple) and last[0] == charset:  # may share one character's bytes
                pieces[-1] = (charset, last[1] + data)
            else:
                pieces.append((charset, data))
        position = found.end()
    pieces.append(text[position:])
    return whole("".join(piece if isinstance(piece, str) else decode(piece[1], piece[0]) for piece in pieces))


def base64_bytes(data: bytes) -> bytes:
    """Decode as much Base64 as possible, also truncated or concatenated."""
    pieces = re.split(rb"=+", re.sub(rb"[^A-Za-z0-9+/=]", b"", data))
    whole_ones = (piece[:-1] if len(piece) % 4 == 1 else piece for piece in pieces)
    return b"".join(base64.b64decode(piece + b"=" * (-len(piece) % 4)) for piece in whole_ones)


def _codec(label: str | None) -> str:
    name = (label or "").strip(" \t\"';").lower()[:60]
    if name in ("us-ascii", "ascii", "ansi_x3.4-1968"):
        return "ascii"
    known = webencodings.lookup(name)
    if known is not None and known.name not in ("replacement", "x-user-defined"):
        return _WIDER_CODECS.get(known.name) or ("cp1252" if known.name == "windows-1252" else known.codec_info.name)
    if name in _MAIL_ONLY:
        return _MAIL_ONLY[name]
    if _JAPANESE_7_BIT.fullmatch(name):
        return "iso2022_jp_ext"
    spelled = name.replace("_", "-")
    if number := _CODE_PAGE.fullmatch(name):
        spelled = f"windows-{number[1]}" if webencodings.lookup(f"windows-{number[1]}") else f"cp{number[1]}"
    elif number := _ISO_8859.fullmatch(name):
        spelled = f"iso-8859-{number[1]}"
    return "utf-8" if spelled == name else _codec(spelled)


def _decode_strictly(data: bytes, codec: str) -> str | None:
    try:
        return codecs.decode(data, codec, "strict")
    except (UnicodeError, ValueError):
        return None


def _utf_16_codec(data: bytes, codec: str) -> str:
    if b"\x00" not in data and data.isascii():
        return "ascii"
    high, low = data[::2].count(0), data[1::2].count(0)
    return codec if high == low else "utf-16-be" if high > low else "utf-16-le"


def _decode_japanese(data: bytes) -> str:
    # With the characters of Windows (①, ㈱, 髙), which Python's codecs lack.
    if not _JAPANESE_ESCAPE.search(data):
        return _euc_jp(data)
    pieces = _JAPANESE_RUN.split(data)
    words = [pieces[0].decode("ascii", "replace")]
    for escape, run in zip(pieces[1::2], pieces[2::2], strict=True):
        high = bytes(byte | 0x80 if byte > 0x20 else byte for byte in run)
        if escape in (b"$B", b"$@"):
            words.append(_euc_jp(high))
        elif escape == b"(I":
            words.append(high.decode("cp932", "replace"))
        else:
            words.append((b"\x1b" + escape + run).decode("iso2022_jp_ext", "replace"))
    return "".join(words)


def _euc_jp(data: bytes) -> str:
    # EUC-JP through Windows' Shift_JIS.
    data, rest = data[:_EUC_JP_LIMIT], data[_EUC_JP_LIMIT:]
    found = bytearray()
    position = 0
    while position < len(data):
        pair = data[position : position + 2]
        if len(pair) == 2 and min(pair) >= 0xA1:
            row, cell = pair[0] - 0xA1, pair[1] - 0xA1
            lead = row // 2 + (0x81 if row < 62 else 0xC1)
            found += bytes((lead, cell + (0x9F if row % 2 else 0x40 if cell < 63 else 0x41)))
            position += 2
        elif pair[:1] == b"\x8e" and len(pair) == 2:
            found.append(pair[1])
            position += 2
        else:
            found.append(pair[0] if pair[0] < 0x80 else 0xFD)
            position += 1
    return found.decode("cp932", "replace") + rest.decode("euc_jp", "replace")


def _decode_windows_1252(data: bytes) -> str:
    return data.decode("cp1252", "c1-control")


def _c1_control(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)  # noqa: S101  (registered for decoding only)
    return "".join(map(chr, error.object[error.start : error.end])), error.end


codecs.register_error("c1-control", _c1_control)


def _mostly_utf8(data: bytes) -> bool:
    text = data.decode("utf-8", "replace")
    damaged = text.count("\ufffd")
    return sum(character > "\x7f" for character in text) - damaged >= damaged


def _encoded_word_bytes(encoding: str, payload: str) -> bytes | None:
    try:
        if encoding in "bB":
            payload = "".join(payload.split()).rstrip("=")
            return base64.b64decode(payload + "=" * (-len(payload) % 4), validate=True)
        return quoprimime.header_decode(payload).encode("latin-1")
    except (binascii.Error, ValueError, UnicodeError):
        return None
