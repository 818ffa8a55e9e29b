"""Plants a mistake in a channel's source and runs single tests of the kit in this process."""

from __future__ import annotations

import inspect
import itertools
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from integrations.kit import channels
from integrations.kit.channel_bench import ChannelHarness

PLANTED = "channel_with_a_mistake"


@dataclass(frozen=True)
class Mistake:
    """An author's mistake, and the test that must catch it."""

    name: str
    caught_by: str
    changes: tuple[tuple[str, str], ...]


def of(name: str, caught_by: str, *changes: tuple[str, str]) -> Mistake:
    return Mistake(name, caught_by, changes)


def with_mistake(source: str, mistake: Mistake) -> Any:
    """The module with the mistake; each changed text occurs once."""
    for old, new in mistake.changes:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    module = ModuleType(PLANTED)
    sys.modules[PLANTED] = module
    exec(compile(source, f"{PLANTED}.py", "exec"), module.__dict__)  # noqa: S102 (a source of these tests, changed above)
    return module


def suite() -> list[str]:
    return [name for name in channels.__all__ if name.startswith("test_")]


async def run(name: str, harness: type[ChannelHarness]) -> int:
    """Run one test of the kit with each of its parameters; return how many passed."""
    test = getattr(channels, name)
    choices: list[list[dict[str, Any]]] = []
    for mark in getattr(test, "pytestmark", []):
        names, rows = mark.args
        many = not isinstance(names, str)
        choices.append([dict(zip(names, row, strict=True)) if many else {names: row} for row in rows])
    passed = 0
    for chosen in itertools.product(*choices):
        given = {key: value for part in chosen for key, value in part.items()}
        if "harness" in inspect.signature(test).parameters:
            made = test(harness=harness(), **given)
            if inspect.isawaitable(made):
                await made
        else:
            async with channels.running(harness()) as bench:
                made = test(bench=bench, **given)
                if inspect.isawaitable(made):
                    await made
        passed += 1
    return passed
