"""A clock that tests can move: it shifts `datetime.now` in this repository's modules; monotonic time stays."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

ROOMS = ("services", "models", "integrations", "schema", "resolvers", "web", "tests")


class _IsDatetime(type):
    """Values stay plain datetimes; only the name `datetime` in our modules is replaced."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, datetime)


class Clock:
    """How far ahead of the real time the clock is."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def move(self, by: timedelta) -> None:
        self.ahead += by

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@contextmanager
def moved() -> Iterator[Clock]:
    """Replace `datetime` in every loaded module of this repository by one that follows the clock; restore it at the end."""
    clock = Clock()

    class Moved(datetime, metaclass=_IsDatetime):
        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            return datetime(*args, **kwargs)  # noqa: DTZ001 (a plain one, as fromisoformat and its like make it)

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return datetime.now(tz) + clock.ahead

    holders = [
        module
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in ROOMS and name != __name__ and vars(module).get("datetime") is datetime
    ]
    for module in holders:
        module.__dict__["datetime"] = Moved
    try:
        yield clock
    finally:
        for module in holders:
            module.__dict__["datetime"] = datetime
