"""Converts typed phone numbers to E.164, and knows a number's alternative spellings. Does not check whether it is in use."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

import phonenumbers

# Digits of any script, one leading plus, and the separators that people use. Letters (vanity numbers, extensions,
# sentences) are refused: the library would guess, and a wrong guess sends a payment link to a stranger.
_SHAPE = re.compile(r"\s*[+＋]?[\d\s().\-/‐-―]{2,40}\s*")

# Mobile numbers with two spellings, since WhatsApp's ids and old address books keep the form before a numbering change.
# (first form, second form) by their common digits. Networks accept the first, WhatsApp may use either.
_FORMS: Final = (
    # Mexico: the 1 after the country code was dropped in 2019.
    (re.compile(r"\+52(\d{10})"), r"+52\1", re.compile(r"\+521(\d{10})"), r"+521\1"),
    # Brazil: since 2016, a 9 precedes mobile numbers, which begin with 6 to 9.
    (re.compile(r"\+55(\d\d)9([6-9]\d{7})"), r"+55\g<1>9\2", re.compile(r"\+55(\d\d)([6-9]\d{7})"), r"+55\1\2"),
    # Argentina: mobile numbers have a 9 when dialed from abroad.
    (re.compile(r"\+549(\d{10})"), r"+549\1", re.compile(r"\+54(\d{10})"), r"+54\1"),
    # Benin: since November 2024, every number begins with 01.
    (re.compile(r"\+22901(\d{8})"), r"+22901\1", re.compile(r"\+229(\d{8})"), r"+229\1"),
)


# National dialing prefixes that people type: (as typed, as the network accepts it).
_TRUNKS: Final = {
    "+52": (re.compile(r"(?:\+52)?(?:01|04[45])(\d{10})"), r"+52\1"),
    "+54": (re.compile(r"\+549(\d{12})"), r"+54\1"),  # both the 9 and the 15 of mobile numbers
}


def normalise_phone(text: str, region: str | None) -> str | None:
    """The number in E.164 ("+14155550101"), keeping its spelling; None if it cannot be a phone number.

    `region` (ISO 3166-1 alpha-2, "US") applies to numbers without a leading plus; None refuses those.
    """
    # Copied numbers may contain invisible direction marks, and links have a scheme.
    text = "".join(c for c in text if unicodedata.category(c) != "Cf").strip()
    text = text[4:] if text[:4].lower() == "tel:" else text
    if not _SHAPE.fullmatch(text):
        return None
    try:
        number = phonenumbers.parse(_without_trunk(text, region), region)
    except phonenumbers.NumberParseException:
        return None
    written = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    # Possible, not "valid": ranges assigned after the library's release must be reachable. A number without its area code is not
    # possible. An old spelling is possible if the new one is.
    if any(_possible(spelled) for spelled in spellings(written)):
        return written
    return None


def _without_trunk(text: str, region: str | None) -> str:
    digits = "".join("+" if c in "+＋" else str(unicodedata.decimal(c, "")) for c in text)
    country = digits[:3] if digits.startswith("+") else {"MX": "+52"}.get(region or "", "")
    typed, dialled_as = _TRUNKS.get(country, (None, ""))
    found = typed.fullmatch(digits) if typed else None
    return found.expand(dialled_as) if found else text


def spellings(number: str) -> tuple[str, ...]:
    """All spellings of this number, the same tuple for each of them. Any other address is returned alone.

    Phone networks accept the first spelling, which is also the key to compare addresses.
    """
    for first, as_first, second, as_second in _FORMS:
        if match := first.fullmatch(number):
            return number, match.expand(as_second)
        if match := second.fullmatch(number):
            return match.expand(as_first), number
    return (number,)


def dialled(number: str) -> str:
    """The number as phone networks accept it: in its new spelling, except in Argentina, where it may be a landline."""
    return number if number.startswith("+54") else spellings(number)[0]


def _possible(number: str) -> bool:
    found = phonenumbers.is_possible_number_with_reason(phonenumbers.parse(number))
    return found == phonenumbers.ValidationResult.IS_POSSIBLE
