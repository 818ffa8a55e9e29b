"""Tokens in addresses to which a messenger, mail program or person has added characters."""

from __future__ import annotations

import re
from typing import Final

from starlette.convertors import StringConvertor, register_url_convertor

_READ_AT_MOST: Final = 300  # characters
# White space, soft hyphens, zero-width characters and marks of direction: programs put them where they break a line.
_INVISIBLE: Final = re.compile(
    r"[\s\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]+"
)


def tokens(text: str, length: int) -> list[str]:
    """Up to four tokens of this length that `text` may begin with, the likeliest first."""
    # Messengers write `_` and `-` around words, and tokens contain both: only the length shows where one ends.
    visible = _INVISIBLE.sub("", text[:_READ_AT_MOST])
    begun = re.sub(r"^[^A-Za-z0-9_-]+", "", visible)
    in_front = len(begun) - len(begun.lstrip("_-"))
    token = re.compile(rf"[A-Za-z0-9_-]{{{length}}}")
    return [found[0] for start in range(min(in_front, 3) + 1) if (found := token.match(begun, start))]


class _Rest(StringConvertor):
    regex = r"[\s\S]+"  # Starlette's `path` does not match line feeds


register_url_convertor("rest", _Rest())
