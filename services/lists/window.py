"""The first items of an ordered list, each at its place."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

# Smaller comes first. The last part is the item's id, negative in a descending order, so that no two keys are equal.
Key = tuple[int, int, int]

REFILLED_BELOW: Final = 0.9  # of the window, if items beyond it exist


class Outcome(Enum):
    NOTHING = auto()
    ENTERED = auto()
    MOVED = auto()
    STAYED = auto()  # a member at its former place
    LEFT = auto()


@dataclass(frozen=True, slots=True)
class Placed:
    """What one change did. `before`: the key of the item in front of it."""

    outcome: Outcome
    key: Key | None = None
    before: Key | None = None
    pushed_out: int | None = None  # the id of the item that fell out at the end


class Window:
    """At most `most` items, from the first one on. `whole`: no item of the list is beyond them."""

    __slots__ = ("_key_of", "_keys", "most", "whole")

    def __init__(self, most: int) -> None:
        self.most = most
        self.whole = True
        self._keys: list[Key] = []
        self._key_of: dict[int, Key] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, id: int) -> bool:
        return id in self._key_of

    @property
    def wants_more(self) -> bool:
        return not self.whole and len(self._keys) < self.most * REFILLED_BELOW

    def extend(self, keys: Iterable[Key], *, whole: bool) -> None:
        """Add the items that come after the last one. `whole`: there are no others."""
        last = self._keys[-1] if self._keys else None
        added = [key for key in keys if (last is None or key > last) and id_of(key) not in self._key_of]
        self._keys += sorted(added)
        self._key_of.update((id_of(key), key) for key in added)
        self.whole = whole
        while len(self._keys) > self.most:
            self._drop_last()

    def find(self, id: int) -> tuple[Key, Key | None] | None:
        """The item's key, and the key in front of it."""
        key = self._key_of.get(id)
        return (key, self._in_front(bisect_left(self._keys, key))) if key is not None else None

    def put(self, id: int, key: Key | None) -> Placed:
        """Bring one item to its place. `key` None: it is not in the list."""
        old = self._key_of.get(id)
        if key is not None and not self.whole and (not self._keys or key > self._keys[-1]) and key != old:
            key = None  # beyond the window
        if key is not None and key == old:
            return Placed(Outcome.STAYED, key, self._in_front(bisect_left(self._keys, key)))
        if old is not None:
            del self._keys[bisect_left(self._keys, old)]
            del self._key_of[id]
        if key is None:
            return Placed(Outcome.LEFT if old is not None else Outcome.NOTHING)
        insort(self._keys, key)
        self._key_of[id] = key
        before = self._in_front(bisect_left(self._keys, key))
        pushed_out = self._drop_last() if len(self._keys) > self.most else None
        outcome = Outcome.ENTERED if old is None else Outcome.MOVED
        if pushed_out == id:
            return Placed(Outcome.NOTHING)
        return Placed(outcome, key, before, pushed_out)

    def _in_front(self, place: int) -> Key | None:
        return self._keys[place - 1] if place else None

    def _drop_last(self) -> int:
        self.whole = False
        dropped = self._keys.pop()
        del self._key_of[id_of(dropped)]
        return id_of(dropped)


def id_of(key: Key) -> int:
    return abs(key[-1])
