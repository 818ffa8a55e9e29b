"""Answers kept in memory, each valid while its account's log has not grown."""

from collections import OrderedDict
from collections.abc import Hashable
from datetime import UTC, datetime
from typing import Final, NamedTuple

LARGEST: Final = 262_144  # bytes of one answer


class Answer(NamedTuple):
    position: Hashable  # of the log, read before the data
    until: datetime | None  # the answer changes then, although nothing is logged
    body: bytes


class Answers:
    """At most `limit` bytes of answers, the least recently used ones dropped first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._answers: OrderedDict[Hashable, Answer | None] = OrderedDict()

    def asked_again(self, key: Hashable) -> bool:
        """Whether this key was asked for before: an answer asked for once is not worth a read of the position."""
        if key in self._answers:
            return True
        self._put(key, None)
        return False

    def find(self, key: Hashable, position: Hashable) -> bytes | None:
        """The body that is still the answer at this position."""
        answer = self._answers.get(key)
        if answer is None or answer.position != position:
            return None
        if answer.until is not None and answer.until <= datetime.now(UTC):
            return None
        self._answers.move_to_end(key)
        return answer.body

    def keep(self, key: Hashable, answer: Answer) -> None:
        if len(answer.body) <= LARGEST:
            self._put(key, answer)

    def _put(self, key: Hashable, answer: Answer | None) -> None:
        self._size += _size(answer) - _size(self._answers.get(key)) + (0 if key in self._answers else _KEY)
        self._answers[key] = answer
        self._answers.move_to_end(key)
        while self._size > self._limit:
            _, dropped = self._answers.popitem(last=False)
            self._size -= _size(dropped) + _KEY


_KEY: Final = 1_000  # bytes, about: a key with its operation and variables


def _size(answer: Answer | None) -> int:
    return len(answer.body) if answer is not None else 0
