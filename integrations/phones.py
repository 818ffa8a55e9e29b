"""Phone numbers as people type them, to E.164. Knows numbering plans, not whether anybody answers."""

from __future__ import annotations

import re

import phonenumbers

# Digits of any script, one leading plus, and the separators that people use. Letters (vanity numbers, extensions,
# whole sentences) are refused: the library would guess, and a guess sends a payment link to a stranger.
_SHAPE = re.compile(r"\s*[+＋]?[\d\s().\-/‐-―]{2,40}\s*")


def normalise_phone(text: str, region: str | None) -> str | None:
    """The number in E.164 ("+14155550101"), or None if it cannot be one.

    `region` (ISO 3166-1 alpha-2, "US") is used for numbers without a leading plus; None accepts only those with one.
    """
    if not _SHAPE.fullmatch(text):
        return None
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
    # Possible, not "valid": ranges opened after the library's release must be reachable. A number that works only
    # within its own area (no area code) is not possible for us.
    if phonenumbers.is_possible_number_with_reason(number) != phonenumbers.ValidationResult.IS_POSSIBLE:
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
