"""Descriptions that several inputs share."""

from __future__ import annotations

from typing import Final

from services.team import tags

KEY: Final = (
    "8 to 64 characters of your choice, e.g. a UUID: repeating the key with the same input gives the same"
    " object and does nothing twice. Kept for 24 hours or longer."
)
OPTIONAL_KEY: Final = KEY + " Without a key, a repeat is executed again."
REQUEST: Final = "The payment request."
CONVERSATION: Final = "The conversation."
ADDED_TAGS: Final = (
    f"Tags of at most {tags.LENGTH} characters. One that is there in any case of letters stays as it is; at most"
    f" {tags.MOST} in all, and {tags.MOST_GIVEN} in one change."
)
REMOVED_TAGS: Final = (
    f"Tags to take off, in any case of letters; unknown ones change nothing. At most {tags.LENGTH} characters,"
    f" and {tags.MOST_GIVEN} tags in one change."
)
