"""Checks and trims typed text."""

from __future__ import annotations

import re
from typing import Final

from models.errors import AmountTooSmall, Blank, Invalid, TooLong
from models.money import MOST_DECIMALS, InvalidAmount, Money

ADDRESS_LIMIT: Final = 254  # characters of an address on a channel
# One @, no space, a dot in the domain. Only a message shows whether the mailbox exists.
_EMAIL = re.compile(r"[^@\s<>()\[\],;:\\\"]{1,64}@[^@\s<>()\[\],;:\\\"]+\.[^@\s.<>()\[\],;:\\\"]{2,}")
EMAIL_LIMIT = 254
PHONE_LIMIT = 40  # as typed
# Control characters and lone surrogates: databases can't store NUL and surrogates, and escapes forge log and terminal lines.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")

# Direction overrides: they could disguise a name or an amount on the checkout page.
_DIRECTION = re.compile(r"[\u202a-\u202e\u2066-\u2069]")
# Zero-width characters: a text of nothing else looks blank. Some scripts and emoji need them inside words.
_INVISIBLE = re.compile(
    r"[\s\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2060-\u2064\u3164\ufeff\uffa0]*"
)

Field = str | tuple[str, ...]


def optional(value: str | None, *, limit: int, field: Field, lines: bool = False, message: bool = False) -> str | None:
    """The trimmed text, or None if blank. Raises: TooLong, Invalid."""
    text = (value or "").strip()
    if _INVISIBLE.fullmatch(text):
        return None
    if _CONTROL.search(text) or (not message and _DIRECTION.search(text)):
        raise Invalid("This text contains a character that is not allowed.", field=field)
    if not (lines or message) and ("\n" in text or "\r" in text):
        raise Invalid("This text must be one line.", field=field)
    if len(text) > limit:
        raise TooLong.beyond(limit, field=field)
    return text or None


def required(value: str | None, *, limit: int, field: Field, lines: bool = False, message: bool = False) -> str:
    text = optional(value, limit=limit, field=field, lines=lines, message=message)
    if text is None:
        raise Blank(field=field)
    return text


def email(value: str | None, *, field: Field) -> str | None:
    """Lower case, or None if blank. Raises: Invalid, TooLong."""
    text = optional(value, limit=EMAIL_LIMIT, field=field)
    if text is None:
        return None
    if not _EMAIL.fullmatch(text):
        raise Invalid("This is not an email address.", field=field)
    return text.lower()


def parse_amount(
    value: str, currency: str | None, *, field: Field, minimum: Money | None = None, maximum: Money | None = None
) -> Money:
    """Parse "125.00". The limits are facts of the refusal, not checked. Raises: Invalid, AmountTooSmall (negative)."""
    try:
        return Money.from_decimal(value, MOST_DECIMALS if currency is None else currency)
    except InvalidAmount as error:
        if value.strip().startswith("-"):
            raise AmountTooSmall(minimum=minimum, maximum=maximum, field=field) from error
        raise Invalid(
            "Give the amount as a decimal number with the currency's number of decimals.", field=field
        ) from error
