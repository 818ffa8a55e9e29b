"""Text search that ignores case and accents, equal on both engines."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache
from typing import Final

from models.money import CURRENCIES

# Letters that Unicode does not decompose but people type without stroke or ligature.
_LETTERS: Final = str.maketrans(
    {
        "ø": "o",
        "ł": "l",
        "đ": "d",
        "ð": "d",
        "ħ": "h",
        "ŧ": "t",
        "ı": "i",
        "þ": "th",
        "æ": "ae",
        "œ": "oe",
        "ŋ": "n",
        "ĸ": "k",
        "ƀ": "b",
        "ɨ": "i",
        "ʉ": "u",
        "ȼ": "c",
        "ǥ": "g",
        "ɉ": "j",
        "ɍ": "r",
        "ƶ": "z",
        "ɏ": "y",
        **dict.fromkeys("’‘ʼʻ′`´", "'"),
        **dict.fromkeys("“”„«»", '"'),
        **dict.fromkeys("‐‑‒–—―−", "-"),
        "٫": ".",
        "٬": ",",
        "ـ": None,  # tatweel, which only lengthens a line
    }
)
# Combining marks of Latin, Greek, Cyrillic, Hebrew and Arabic, and variation selectors. Marks of other scripts (kana voicing,
# Thai and Indic vowels) make different letters and stay.
_MARKS: Final = re.compile(
    "[\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed"
    "\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe00-\ufe0f\ufe20-\ufe2f]"
)
_NUMBER: Final = re.compile(r"\d(?:[\d.,' ]*\d)?", re.ASCII)
_PHONE: Final = re.compile(r"[+\d\s().\-/]+", re.ASCII)
_PHONE_LEAST: Final = 4  # digits
_CODE: Final = re.compile(r"[a-z]{3}")


def fold(text: str) -> str:
    """Remove case, accents, invisible characters and width."""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    folded = _MARKS.sub("", folded).translate(_LETTERS)
    kept = (_plain_character(character) for character in folded)
    return " ".join(unicodedata.normalize("NFC", "".join(kept)).split())


@lru_cache(maxsize=4096)
def _plain_character(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Nd":
        return str(unicodedata.decimal(character))
    return "" if category == "Cf" else " " if category == "Cc" else character


def stored(values: Iterable[str | None]) -> str:
    """A row's searched text, one value a line: no match spans two."""
    return "\n".join(fold(value) for value in values if value)


def terms(query: str) -> list[str]:
    """Texts of which one must occur in the searched text. "(0151) 234-56" finds +4915123456."""
    text = fold(query)
    wanted = [text] if text else []
    if _PHONE.fullmatch(text):
        digits = re.sub(r"\D", "", text.replace("(0)", "")).lstrip("0")
        if len(digits) >= _PHONE_LEAST and digits != text:
            wanted.append(digits)
    return wanted


CONTAINS: Final = "search LIKE ? ESCAPE '!'"


def patterns(terms: Iterable[str]) -> list[str]:
    """LIKE patterns with escape "!"."""
    return [f"%{re.sub('[!%_]', lambda found: '!' + found[0], term)}%" for term in terms]


def amounts(query: str) -> list[tuple[str, int]]:
    """(currency, minor units) that "1,250.00", "125 €" or "EUR 125" may mean."""
    text = fold(query)
    match = _NUMBER.search(text)
    if match is None:
        return []
    around = f"{text[: match.start()]} {text[match.end() :]}".split()
    codes = [word.upper() for word in around if _CODE.fullmatch(word) and word.upper() in CURRENCIES]
    if len(around) > 1 or not all(word.upper() in codes or _is_symbol(word) for word in around):
        return []
    wanted = codes or list(CURRENCIES)
    found = set()
    for value in _possible_values(match[0]):
        for currency in wanted:
            minor = value.scaleb(CURRENCIES[currency])
            if minor == minor.to_integral_value() and 0 < minor < 2**63:
                found.add((currency, int(minor)))
    return sorted(found)


def _is_symbol(word: str) -> bool:
    letters = word.replace(".", "")
    return any(unicodedata.category(character) == "Sc" for character in word) or (
        letters.isalpha() and len(letters) <= 3
    )


def _possible_values(number: str) -> set[Decimal]:
    parts = re.split(r"[.,' ]", number)
    values = set()
    grouped = all(len(part) in (2, 3) for part in parts[1:-1])
    if grouped and (len(parts) == 1 or len(parts[-1]) == 3):
        values.add(Decimal("".join(parts)))
    if len(parts) > 1 and grouped and number[-len(parts[-1]) - 1] in ".," and len(parts[-1]) <= 3:
        values.add(Decimal(f"{''.join(parts[:-1])}.{parts[-1]}"))
    return values
