"""Descriptions that several inputs share."""

from __future__ import annotations

from typing import Final

KEY: Final = (
    "8 to 64 characters of your choice, e.g. a UUID: repeating the key with the same input gives the same"
    " object and does nothing twice. Kept for 24 hours or longer."
)
OPTIONAL_KEY: Final = KEY + " Without a key, a repeat is executed again."
REQUEST: Final = "The payment request."
CONVERSATION: Final = "The conversation."
