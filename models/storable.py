"""Text as both engines store it. Whatever comes from outside (ids, names, bodies, headers) passes here on its way into a query.

PostgreSQL takes no NUL, neither engine takes half of a surrogate pair. Each becomes U+FFFD, so that two texts that differ
stay different. Where a person typed it, services/core/validation.py refuses it first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import orjson

_NOT_STORED: Final = re.compile("[\x00\ud800-\udfff]")
REPLACEMENT: Final = "\ufffd"


def storable(value: Any) -> Any:
    """The value with its texts as they are stored: of a text, of lists and of dictionaries of them; anything else as it is."""
    if isinstance(value, str):
        # Most texts are ASCII without NUL, and asking for that is faster than the search.
        return value if value.isascii() and "\x00" not in value else _NOT_STORED.sub(REPLACEMENT, value)
    if isinstance(value, dict):
        return {storable(name): storable(below) for name, below in value.items()}
    if isinstance(value, list | tuple):
        return [storable(below) for below in value]
    return value


def json_text(value: Any) -> str:
    """JSON of a value for a JSON column."""
    return orjson.dumps(storable(value)).decode()


class StorableTexts:
    """For Tortoise's clients of both engines: every parameter of every statement is storable."""

    async def execute_insert(self, query: str, values: Sequence[Any]) -> Any:
        """As the client does it."""
        return await super().execute_insert(query, texts(values))  # type: ignore[misc]  # Tortoise's executors are untyped

    async def execute_many(self, query: str, values: Sequence[Sequence[Any]]) -> None:
        """As the client does it."""
        await super().execute_many(query, [texts(row) for row in values])  # type: ignore[misc]  # Tortoise's executors are untyped

    async def execute_query(self, query: str, values: Sequence[Any] | None = None) -> Any:
        """As the client does it."""
        return await super().execute_query(query, texts(values) if values else values)  # type: ignore[misc]  # Tortoise's executors are untyped

    async def execute_query_dict(self, query: str, values: Sequence[Any] | None = None) -> Any:
        """As the client does it."""
        return await super().execute_query_dict(query, texts(values) if values else values)  # type: ignore[misc]  # Tortoise's executors are untyped


def texts(values: Sequence[Any]) -> list[Any]:
    """The parameters of one statement."""
    return [storable(value) if isinstance(value, str) else value for value in values]
