"""Draws the import structure into docs/architecture.md: `./dev drawing`; with `--check` it only compares."""

from __future__ import annotations

import sys
from pathlib import Path

import grimp

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "architecture.md"
BEGIN = "<!-- import structure: written by `./dev drawing` -->\n"
END = "<!-- end of the import structure -->\n"
PACKAGES = ("commands", "web", "resolvers", "schema", "services", "models", "integrations")
# The last commit with all of services/ in one folder, counted by the functions below.
BEFORE = "Before (commit 74ec0c6): `services/` had 59 files in one folder, 250 arrows, 11 floors, no circle."

Arrows = dict[str, set[str]]


def arrows_between(graph: grimp.ImportGraph, modules: set[str]) -> Arrows:
    """Which of these modules, with everything inside them, import which others."""
    return {
        importer: {
            imported
            for imported in modules - {importer}
            if graph.direct_import_exists(importer=importer, imported=imported, as_packages=True)
        }
        for importer in modules
    }


def floors(arrows: Arrows) -> list[list[str]]:
    """The modules by the longest way down, lowest first. Raises: ValueError for a circle."""
    left, found = set(arrows), []
    while left:
        floor = sorted(module for module in left if not arrows[module] & left)
        if not floor:
            raise ValueError(f"circle among {', '.join(sorted(left))}")
        found.append(floor)
        left -= set(floor)
    return found


def drawn(arrows: Arrows) -> list[str]:
    """One line for each module, highest floor first, with what it imports, and a line of figures."""
    levels = floors(arrows)
    order = [module for floor in reversed(levels) for module in floor]
    width = max(len(_short(module)) for module in arrows)
    lines = []
    for level, floor in reversed(list(enumerate(levels))):
        for module in floor:
            below = ", ".join(_short(other) for other in order if other in arrows[module])
            lines.append(f"{level}  {_short(module):<{width}}  {'→ ' + below if below else ''}".rstrip())
    return lines


def figures(arrows: Arrows) -> str:
    """How many arrows and floors."""
    return f"{sum(map(len, arrows.values()))} arrows, {len(floors(arrows))} floors, no circle"


def section() -> str:
    """The section between the markers."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    packages = arrows_between(graph, set(PACKAGES))
    rooms = arrows_between(graph, graph.find_children("services"))
    return "\n".join(
        [
            "The number is the floor; an arrow points at what a package imports.",
            "",
            "```",
            *drawn(packages),
            "",
            "services/",
            *drawn(rooms),
            "```",
            "",
            f"- {BEFORE}",
            f"- Now: `services/` has {len(rooms)} rooms, {figures(rooms)}.",
            "",
        ]
    )


def _short(module: str) -> str:
    return module.removeprefix("services.")


def main(options: list[str]) -> int:
    """Write the section, or compare it; 1 if it is stale."""
    text = DOCUMENT.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    current = before + begin + section() + end + after
    if current == text:
        return 0
    if options == ["--check"]:
        sys.stdout.write("docs/architecture.md: the import structure is out of date; `./dev drawing` writes it\n")
        return 1
    DOCUMENT.write_text(current)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
