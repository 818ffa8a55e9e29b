"""Replaces characters that a database refuses (NUL, lone surrogates) by U+FFFD in every parameter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import orjson

_NOT_STORED: Final = re.compile("[\x00\ud800-\udfff]")
REPLACEMENT: Final = "\ufffd"


def storable(value: Any) -> Any:
    if isinstance(value, str):
        # Most texts are ASCII without NUL, and this test is faster than the regular expression.
        return value if value.isascii() and "\x00" not in value else _NOT_STORED.sub(REPLACEMENT, value)
    if isinstance(value, dict):
        return {storable(name): storable(below) for name, below in value.items()}
    if isinstance(value, list | tuple):
        return [storable(below) for below in value]
    return value


def json_text(value: Any) -> str:
    return orjson.dumps(storable(value)).decode()


class StorableTexts:
    """For Tortoise's clients of both engines."""

    async def execute_insert(self, query: str, values: Sequence[Any]) -> Any:
        return await super().execute_insert(query, texts(values))  # type: ignore[misc]  # Tortoise's executors are untyped

    async def execute_many(self, query: str, values: Sequence[Sequence[Any]]) -> None:
        await super().execute_many(query, [texts(row) for row in values])  # type: ignore[misc]  # Tortoise's executors are untyped

    async def execute_query(self, query: str, values: Sequence[Any] | None = None) -> Any:
        return await super().execute_query(query, texts(values) if values else values)  # type: ignore[misc]  # Tortoise's executors are untyped

    async def execute_query_dict(self, query: str, values: Sequence[Any] | None = None) -> Any:
        return await super().execute_query_dict(query, texts(values) if values else values)  # type: ignore[misc]  # Tortoise's executors are untyped


def texts(values: Sequence[Any]) -> list[Any]:
    return [storable(value) if isinstance(value, str) else value for value in values]
