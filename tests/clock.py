"""A clock that tests move: `datetime.now` of our own rooms tells the real time plus what was added. Nothing waits; monotonic time stays."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

ROOMS = ("services", "models", "integrations", "schema", "resolvers", "web", "tests")


class _IsDatetime(type):
    """Values stay plain datetimes: only the name in our modules stands for another class."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, datetime)


class Clock:
    """How far ahead of the real time our rooms are."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def move(self, by: timedelta) -> None:
        """Let time pass."""
        self.ahead += by

    def now(self) -> datetime:
        """The moved time, aware."""
        return datetime.now(UTC) + self.ahead


@contextmanager
def moved() -> Iterator[Clock]:
    """Give every loaded module of ours a `datetime` whose `now` follows the clock; put the real one back at the end."""
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
