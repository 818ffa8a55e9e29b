"""Phone numbers as people type them, to E.164, and the spellings of one telephone. Does not know whether a number is in use."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

import phonenumbers

# Digits of any script, one leading plus, and the separators that people use. Letters (vanity numbers, extensions,
# whole sentences) are refused: the library would guess, and a guess sends a payment link to a stranger.
_SHAPE = re.compile(r"\s*[+＋]?[\d\s().\-/‐-―]{2,40}\s*")

# Mobile numbers with a second spelling: a plan changed, and WhatsApp's ids and old address books keep the other form.
# (first form, second form) by the digits that both have in common; networks take the first, WhatsApp may use either.
_FORMS: Final = (
    # Mexico: the 1 after the country code is gone since 2019.
    (re.compile(r"\+52(\d{10})"), r"+52\1", re.compile(r"\+521(\d{10})"), r"+521\1"),
    # Brazil: a 9 stands before mobile numbers, which begin with 6 to 9, since 2016.
    (re.compile(r"\+55(\d\d)9([6-9]\d{7})"), r"+55\g<1>9\2", re.compile(r"\+55(\d\d)([6-9]\d{7})"), r"+55\1\2"),
    # Argentina: mobile numbers have a 9 when they are dialled from abroad.
    (re.compile(r"\+549(\d{10})"), r"+549\1", re.compile(r"\+54(\d{10})"), r"+54\1"),
    # Benin: every number begins with 01 since November 2024.
    (re.compile(r"\+22901(\d{8})"), r"+22901\1", re.compile(r"\+229(\d{8})"), r"+229\1"),
)


# Prefixes of dialling within a country, which people type before the rest: (as typed, as the network takes it).
_TRUNKS: Final = {
    "+52": (re.compile(r"(?:\+52)?(?:01|04[45])(\d{10})"), r"+52\1"),
    "+54": (re.compile(r"\+549(\d{12})"), r"+54\1"),  # both the 9 and the 15 of mobile numbers
}


def normalise_phone(text: str, region: str | None) -> str | None:
    """The number in E.164 ("+14155550101") as it is spelled, or None if it cannot be one.

    `region` (ISO 3166-1 alpha-2, "US") is used for numbers without a leading plus; None accepts only those with one.
    """
    # Copied numbers carry invisible marks of direction, and links their scheme.
    text = "".join(c for c in text if unicodedata.category(c) != "Cf").strip()
    text = text[4:] if text[:4].lower() == "tel:" else text
    if not _SHAPE.fullmatch(text):
        return None
    try:
        number = phonenumbers.parse(_without_trunk(text, region), region)
    except phonenumbers.NumberParseException:
        return None
    written = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    # Possible, not "valid": ranges opened after the library's release must be reachable. A number that works only
    # within its own area (no area code) is not possible for us. The old spelling of a telephone is possible if the new one is.
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
    """Every spelling of this telephone, the same tuple for each of them; of an address that is no such number, itself alone.

    The first is the one that telephone networks take: the key by which two addresses are compared.
    """
    for first, as_first, second, as_second in _FORMS:
        if match := first.fullmatch(number):
            return number, match.expand(as_second)
        if match := second.fullmatch(number):
            return match.expand(as_first), number
    return (number,)


def dialled(number: str) -> str:
    """The number as telephone networks take it: in its new spelling, where that is certain. In Argentina it may be a landline."""
    return number if number.startswith("+54") else spellings(number)[0]


def _possible(number: str) -> bool:
    found = phonenumbers.is_possible_number_with_reason(phonenumbers.parse(number))
    return found == phonenumbers.ValidationResult.IS_POSSIBLE
