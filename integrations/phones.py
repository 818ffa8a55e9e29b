"""Converts phone numbers to E.164 and lists their alternative spellings."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

# Digits of any script, a leading plus and usual separators. Not vanity numbers and extensions: the library guesses, and a
# wrong guess sends a payment link to a stranger.
_SHAPE = re.compile(r"\s*[+＋]?[\d\s().\-/‐-―]{2,40}\s*")

# Mobile numbers with two spellings. Networks accept the first; WhatsApp and old address books may have either.
_SPELLINGS: Final = (
    # Mexico dropped the 1 after the country code in 2019.
    (re.compile(r"\+52(\d{10})"), r"+52\1", re.compile(r"\+521(\d{10})"), r"+521\1"),
    # Brazil put a 9 before mobile numbers (6 to 9) in 2016.
    (re.compile(r"\+55(\d\d)9([6-9]\d{7})"), r"+55\g<1>9\2", re.compile(r"\+55(\d\d)([6-9]\d{7})"), r"+55\1\2"),
    # Argentina: mobile numbers have a 9 from abroad.
    (re.compile(r"\+549(\d{10})"), r"+549\1", re.compile(r"\+54(\d{10})"), r"+54\1"),
    # Benin: all numbers begin with 01 since November 2024.
    (re.compile(r"\+22901(\d{8})"), r"+22901\1", re.compile(r"\+229(\d{8})"), r"+229\1"),
)


# National dialing prefixes: (as typed, as accepted by networks).
_TRUNKS: Final = {
    "+52": (re.compile(r"(?:\+52)?(?:01|04[45])(\d{10})"), r"+52\1"),
    "+54": (re.compile(r"\+549(\d{12})"), r"+54\1"),  # both 9 and 15, the prefixes of mobile numbers
}


def normalise_phone(text: str, region: str | None) -> str | None:
    """The number in E.164 ("+14155550101"), or None if it is not possible.

    `region` (ISO 3166-1 alpha-2, "US") is for numbers without a plus; None refuses those.
    """
    import phonenumbers  # loads 1 MB: with the first number

    # Copied numbers may contain invisible direction marks or a scheme.
    text = "".join(c for c in text if unicodedata.category(c) != "Cf").strip()
    text = text[4:] if text[:4].lower() == "tel:" else text
    if not _SHAPE.fullmatch(text):
        return None
    try:
        number = phonenumbers.parse(_without_trunk(text, region), region)
    except phonenumbers.NumberParseException:
        return None
    written = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    # "Possible" is enough: "valid" excludes ranges that are newer than the library.
    if any(_is_possible(spelled) for spelled in spellings(written)):
        return written
    return None


def _without_trunk(text: str, region: str | None) -> str:
    digits = "".join("+" if c in "+＋" else str(unicodedata.decimal(c, "")) for c in text)
    country = digits[:3] if digits.startswith("+") else {"MX": "+52"}.get(region or "", "")
    typed, dialled_as = _TRUNKS.get(country, (None, ""))
    found = typed.fullmatch(digits) if typed else None
    return found.expand(dialled_as) if found else text


def spellings(number: str) -> tuple[str, ...]:
    """All spellings of the number; phone networks accept the first, which is also the comparison key."""
    for first, as_first, second, as_second in _SPELLINGS:
        if match := first.fullmatch(number):
            return number, match.expand(as_second)
        if match := second.fullmatch(number):
            return match.expand(as_first), number
    return (number,)


def dialled(number: str) -> str:
    # Networks accept new spellings; an Argentine number without the 9 may be a landline.
    return number if number.startswith("+54") else spellings(number)[0]


def _is_possible(number: str) -> bool:
    import phonenumbers  # as in `normalise_phone`

    found = phonenumbers.is_possible_number_with_reason(phonenumbers.parse(number))
    return found == phonenumbers.ValidationResult.IS_POSSIBLE
