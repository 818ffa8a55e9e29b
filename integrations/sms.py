"""Counts SMS segments and recognises opt-out and help words."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Literal

SmsEncoding = Literal["GSM-7", "UCS-2"]

# 3GPP TS 23.038, 6.2.1: the default alphabet, and the extension (two septets each).
_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION = frozenset("\f^{}\\[~]|€")

_LENGTHS: dict[SmsEncoding, tuple[int, int]] = {"GSM-7": (160, 153), "UCS-2": (70, 67)}  # alone, or per part

# Twilio's default list since 2025, and 47 CFR 64.1200(a)(10).
_STOP_WORDS = frozenset({"STOP", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "STOPALL", "REVOKE", "OPTOUT"})
_START_WORDS = frozenset({"START", "YES", "UNSTOP"})
# Off phones, words such as CANCEL and YES answer questions.
_PLAIN_STOP_WORDS = frozenset({"STOP", "STOPALL", "UNSUBSCRIBE", "OPTOUT"})
_PLAIN_START_WORDS = frozenset({"START"})
_HELP_WORDS = frozenset({"HELP", "INFO"})
_KEYWORD_LIMIT = 40  # characters, with punctuation


@dataclass(frozen=True, slots=True)
class SmsSegments:
    """`characters` and `remaining` (in the last segment) count septets (GSM-7) or UTF-16 units (UCS-2)."""

    encoding: SmsEncoding
    characters: int
    count: int
    remaining: int


def is_gsm7(text: str) -> bool:
    return all(character in _BASIC or character in _EXTENSION for character in text)


def outside_gsm7(text: str, *, limit: int) -> list[str]:
    """The first `limit` distinct characters that are not GSM-7."""
    return [character for character in dict.fromkeys(text) if not is_gsm7(character)][:limit]


def segments(text: str) -> SmsSegments:
    """Count the segments of one SMS; an empty text has none.

    Source: www.twilio.com/docs/glossary/what-sms-character-limit; 3GPP TS 23.038 and 23.040.
    """
    encoding: SmsEncoding = "GSM-7" if is_gsm7(text) else "UCS-2"
    if encoding == "GSM-7":
        widths = [2 if character in _EXTENSION else 1 for character in text]
    else:
        widths = [2 if ord(character) > 0xFFFF else 1 for character in text]
    alone, part = _LENGTHS[encoding]
    characters = sum(widths)
    if characters <= alone:
        return SmsSegments(encoding, characters, 1 if text else 0, alone - characters)
    count, used = 1, 0
    for width in widths:
        if used + width > part:  # a character of two units is never split
            count, used = count + 1, 0
        used += width
    return SmsSegments(encoding, characters, count, part - used)


def opt_out_word(text: str, *, by_phone: bool = True) -> bool | None:
    """True for STOP and similar words, False for START, else None.

    Only the word alone counts; case, spaces and punctuation do not matter.
    """
    word = _keyword(text)
    if word in (_STOP_WORDS if by_phone else _PLAIN_STOP_WORDS):
        return True
    return False if word in (_START_WORDS if by_phone else _PLAIN_START_WORDS) else None


def asks_help(text: str) -> bool:
    """Whether the text is only HELP or INFO."""
    return _keyword(text) in _HELP_WORDS


def _keyword(text: str) -> str:
    if len(text) > _KEYWORD_LIMIT:
        return ""
    # NFKC: East Asian phones write full-width characters.
    return "".join(c for c in unicodedata.normalize("NFKC", text) if c.isalnum()).upper()
