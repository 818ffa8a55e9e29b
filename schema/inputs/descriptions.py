"""Descriptions that several inputs share."""

from __future__ import annotations

from typing import Final

KEY: Final = (
    "8 to 64 characters of your choice, e.g. a UUID: the same key and input again gives the same object and does nothing"
    " twice. Kept for 24 hours or longer."
)
OPTIONAL_KEY: Final = KEY + " Left out: a repeat is done again."
REQUEST: Final = "The payment request."
CONVERSATION: Final = "The conversation."
