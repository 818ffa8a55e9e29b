"""The drawing of the import structure: floors, arrows and figures of small graphs."""

from __future__ import annotations

import pytest

from tests.tooling import drawing


def test_each_module_is_one_floor_above_the_highest_that_it_imports() -> None:
    arrows = {
        "services.top": {"services.middle", "services.low"},
        "services.middle": {"services.low"},
        "services.low": set(),
    }
    assert drawing.floors(arrows) == [["services.low"], ["services.middle"], ["services.top"]]
    assert drawing.drawn(arrows) == ["2  top     → middle, low", "1  middle  → low", "0  low"]
    assert drawing.figures(arrows) == "3 arrows, 3 floors, no circle"


def test_a_circle_has_no_floors() -> None:
    with pytest.raises(ValueError, match="circle among a, b"):
        drawing.floors({"a": {"b"}, "b": {"a"}, "c": set()})
