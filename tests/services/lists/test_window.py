"""The first items of a list, against a plain sorted list."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.lists.window import Key, Outcome, Window, id_of

IDS = range(1, 9)
VALUES = st.integers(0, 3)
CHANGES = st.lists(st.tuples(st.sampled_from(IDS), st.one_of(st.none(), VALUES)), max_size=40)


def key(value: int, id: int) -> Key:
    return 0, value, id


@given(CHANGES)
def test_every_item_is_at_its_place(changes: list[tuple[int, int | None]]) -> None:
    window, items, shown = Window(100), dict[int, Key](), list[Key]()
    for id, value in changes:
        wanted = key(value, id) if value is not None else None
        before = items.pop(id, None)
        if wanted is not None:
            items[id] = wanted
        placed = window.put(id, wanted)
        expected = (
            (Outcome.NOTHING if wanted is None else Outcome.ENTERED)
            if before is None
            else Outcome.LEFT
            if wanted is None
            else Outcome.STAYED
            if wanted == before
            else Outcome.MOVED
        )
        assert placed.outcome is expected
        # What a reader shows who follows only the steps.
        shown = [one for one in shown if id_of(one) != id]
        if placed.key is not None:
            shown.insert(shown.index(placed.before) + 1 if placed.before is not None else 0, placed.key)
        assert shown == sorted(items.values())
        assert len(window) == len(items)
    assert window.whole


@given(st.integers(1, 4), CHANGES)
def test_a_small_window_holds_the_first_items(most: int, changes: list[tuple[int, int | None]]) -> None:
    window, items, shown = Window(most), dict[int, Key](), set[int]()
    for id, value in changes:
        wanted = key(value, id) if value is not None else None
        items.pop(id, None)
        if wanted is not None:
            items[id] = wanted
        placed = window.put(id, wanted)
        if placed.outcome is Outcome.LEFT:
            shown.remove(id)
        elif placed.outcome is not Outcome.NOTHING:
            shown.add(id)
        if placed.pushed_out is not None:
            shown.remove(placed.pushed_out)
        if window.wants_more:
            window.extend(items.values(), whole=len(items) <= most)
            shown = {id for id in items if id in window}
        assert shown == {id for id in items if id in window}
        assert sorted(items.values())[: len(window)] == sorted(items[id] for id in shown)
        assert len(window) <= most
        assert not window.whole or len(window) == len(items)


def test_more_items_are_added_behind_those_that_it_holds() -> None:
    window = Window(3)
    window.extend([key(5, 1), key(7, 2), key(9, 3), key(11, 4)], whole=False)
    assert (len(window), window.whole, window.wants_more) == (3, False, False)
    window.put(1, None)
    assert window.wants_more
    # 6 is new in front: its own entry of the log brings it.
    window.extend([key(6, 5), key(7, 2), key(9, 3), key(11, 4)], whole=True)
    assert 4 in window
    assert 5 not in window
