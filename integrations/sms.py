"""Pure facts about text messages: how many segments a text costs, which replies are opt-out words. Sends nothing."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Literal

SmsEncoding = Literal["GSM-7", "UCS-2"]

# 3GPP TS 23.038, 6.2.1: the default alphabet, and its extension table, whose characters are sent as two septets.
_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION = frozenset("\f^{}\\[~]|€")

_LIMITS: dict[SmsEncoding, tuple[int, int]] = {"GSM-7": (160, 153), "UCS-2": (70, 67)}  # alone, per part when split

# As Twilio's default list since 2025, and the words of 47 CFR 64.1200(a)(10).
_STOP_WORDS = frozenset({"STOP", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "STOPALL", "REVOKE", "OPTOUT"})
_START_WORDS = frozenset({"START", "YES", "UNSTOP"})
_PLAIN_STOP_WORDS = frozenset({"STOP", "STOPALL", "UNSUBSCRIBE", "OPTOUT"})
_PLAIN_START_WORDS = frozenset({"START"})
_HELP_WORDS = frozenset({"HELP", "INFO"})
_KEYWORD_LIMIT = 40  # characters, punctuation included


@dataclass(frozen=True, slots=True)
class SmsSegments:
    """What a text costs. `characters` counts what fills a segment: septets (GSM-7) or UTF-16 units (UCS-2).

    `remaining`: how many more of them the last segment holds.
    """

    encoding: SmsEncoding
    characters: int
    count: int
    remaining: int


def is_gsm7(text: str) -> bool:
    """Whether every character is in the GSM-7 alphabet or its extension."""
    return all(character in _BASIC or character in _EXTENSION for character in text)


def outside_gsm7(text: str, *, limit: int) -> list[str]:
    """The characters that force the whole text into UCS-2, each once, in order, at most `limit`; none for GSM-7."""
    return [character for character in dict.fromkeys(text) if not is_gsm7(character)][:limit]


def segments(text: str) -> SmsSegments:
    """Segments of one SMS with this text; an empty text has none.

    160 septets or 70 UTF-16 units alone; 153 or 67 each when split, and a two-unit character is never cut in half.
    Source: www.twilio.com/docs/glossary/what-sms-character-limit; 3GPP TS 23.038 and 23.040.
    """
    encoding: SmsEncoding = "GSM-7" if is_gsm7(text) else "UCS-2"
    if encoding == "GSM-7":
        widths = [2 if character in _EXTENSION else 1 for character in text]
    else:
        widths = [2 if ord(character) > 0xFFFF else 1 for character in text]
    alone, part = _LIMITS[encoding]
    characters = sum(widths)
    if characters <= alone:
        return SmsSegments(encoding, characters, 1 if text else 0, alone - characters)
    count, used = 1, 0
    for width in widths:
        if used + width > part:
            count, used = count + 1, 0
        used += width
    return SmsSegments(encoding, characters, count, part - used)


def opt_out_word(text: str, *, by_phone: bool = True) -> bool | None:
    """True: the reply withdraws consent (STOP and its kin), False: it gives it again (START, YES, UNSTOP), None: neither.

    Only a reply that is nothing but the word counts; case, spaces and punctuation don't ("Stop all." is STOPALL, "opt-out" OPTOUT).
    Off phones no carrier has taught people what CANCEL, END, QUIT, REVOKE and YES do: an e-mail that says "Yes" answers a question.
    """
    word = _word(text)
    if word in (_STOP_WORDS if by_phone else _PLAIN_STOP_WORDS):
        return True
    return False if word in (_START_WORDS if by_phone else _PLAIN_START_WORDS) else None


def asks_help(text: str) -> bool:
    """Whether the reply is nothing but HELP or INFO: who writes here, and how does one stop it?"""
    return _word(text) in _HELP_WORDS


def _word(text: str) -> str:
    if len(text) > _KEYWORD_LIMIT:
        return ""
    # NFKC: telephones in East Asia write full-width letters.
    return "".join(c for c in unicodedata.normalize("NFKC", text) if c.isalnum()).upper()
