"""docs/mission.md names an existing test for every statement of the mission."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WANTED = [*(f"S{n}" for n in range(1, 21)), "S20b", *(f"S{n}" for n in range(21, 35))]


def rows() -> dict[str, str]:
    text = (ROOT / "docs/mission.md").read_text()
    return dict(re.findall(r"^\| (S\d+b?) \|.*\| `(test_\w+)` \|$", text, re.M))


def living_tests() -> set[str]:
    tree = ast.parse((ROOT / "tests/flows/test_mission.py").read_text())
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.AsyncFunctionDef)
        and any(isinstance(part, ast.Assert) for part in ast.walk(node))
        and not any("skip" in ast.unparse(mark) or "xfail" in ast.unparse(mark) for mark in node.decorator_list)
    }


def test_every_statement_has_a_row() -> None:
    assert list(rows()) == WANTED


def test_every_row_names_a_living_test() -> None:
    missing = {row: test for row, test in rows().items() if test not in living_tests()}
    assert missing == {}


def test_every_mission_test_stands_in_a_row() -> None:
    assert {t for t in living_tests() if t.startswith("test_s")} == set(rows().values())
