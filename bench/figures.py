"""Statistics, tables and the chart: pure functions over what was measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One figure of a workload: its title, and whether less is better."""

    key: str
    title: str
    digits: int = 0
    less_is_better: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One target's medians by measure, or why it has none."""

    name: str
    values: Mapping[str, float]
    rounds: int = 0
    failure: str | None = None
    note: str = ""


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of the values do not exceed."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each figure over the rounds that have it."""
    keys = dict.fromkeys(key for one in rounds for key in one)
    return {key: statistics.median(one[key] for one in rounds if key in one) for key in keys}


def alternating(names: Sequence[str], rounds: int) -> list[tuple[int, str]]:
    """The order of the runs: every target once, then every target again."""
    return [(number, name) for number in range(1, rounds + 1) for name in names]


def number(value: float, digits: int = 0) -> str:
    """A figure with thousands separated."""
    return f"{value:,.{digits}f}"


def ratio(value: float, base: float) -> str:
    """`value` as a multiple of `base`."""
    if base <= 0 or value <= 0:
        return "–"
    times = value / base
    digits = 0 if times >= 10 else max(2, 1 - math.floor(math.log10(times)))
    return f"{times:.{digits}f}×"


def table(measures: Sequence[Measure], rows: Sequence[Row], *, base: str) -> list[list[str]]:
    """Header and cells. The last column compares the first measure with the row named `base`."""
    first = measures[0]
    wanted = next((row.values[first.key] for row in rows if row.name == base and first.key in row.values), 0.0)
    header = ["", *(measure.title for measure in measures), f"against {base}"]
    cells = [header]
    for row in rows:
        if row.failure is not None and not row.values:
            cells.append([row.name, f"failed: {row.failure}", *[""] * len(measures)])
            continue
        shown = [
            number(row.values[measure.key], measure.digits) if measure.key in row.values else "–"
            for measure in measures
        ]
        cells.append([row.name, *shown, ratio(row.values.get(first.key, 0.0), wanted)])
    return cells


def as_text(cells: Sequence[Sequence[str]]) -> str:
    """The table for a terminal: names left, figures right."""
    # A failure's text does not widen its column.
    sized = [row for row in cells if not (len(row) > 1 and row[1].startswith("failed:"))]
    widths = [max(len(row[column]) for row in (sized or cells)) for column in range(len(cells[0]))]
    widths[0] = max(len(row[0]) for row in cells)
    lines = []
    for row in cells:
        parts = [row[0].ljust(widths[0])]
        if len(row) > 1 and row[1].startswith("failed:"):
            parts.append(row[1])
        else:
            parts += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def as_markdown(cells: Sequence[Sequence[str]]) -> str:
    """The table in Markdown; the first row is its header."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
    lines.insert(1, "|---|" + "---:|" * (len(cells[0]) - 1))
    return "\n".join(lines)


# --------------------------------------------------------------------------------------------------------------- chart
_ROW, _LEFT, _WIDTH, _HEAD = 22, 250, 860, 34


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """Bars of one workload: name and value, drawn on a logarithmic scale."""

    title: str
    unit: str
    bars: Sequence[tuple[str, float]]


def chart(panels: Sequence[Panel], *, highlighted: str) -> str:
    """The panels as one SVG, readable on light and dark pages."""
    parts: list[str] = []
    y = 8
    for panel in panels:
        bars = [(name, value) for name, value in panel.bars if value > 0]
        if not bars:
            continue
        least, most = min(value for _, value in bars), max(value for _, value in bars)
        low, high = math.floor(math.log10(least) - 0.05), math.ceil(math.log10(most) + 0.05)
        scale = (_WIDTH - _LEFT - 90) / max(high - low, 1)
        parts.append(f'<text class="t" x="0" y="{y + 14}">{escape(panel.title)}</text>')
        unit = f"{escape(panel.unit)}, logarithmic; shorter is better"
        parts.append(f'<text class="u" x="{_WIDTH}" y="{y + 14}" text-anchor="end">{unit}</text>')
        y += _HEAD - 8
        for power in range(low, high + 1):
            x = _LEFT + (power - low) * scale
            parts.append(f'<path class="g" d="M{x:.1f} {y - 2}v{len(bars) * _ROW}"/>')
        for name, value in bars:
            length = max((math.log10(value) - low) * scale, 2)
            ours = name.startswith(highlighted)
            parts.append(
                f'<text class="{"o" if ours else "n"}" x="{_LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>'
            )
            parts.append(
                f'<rect class="{"a" if ours else "b"}" x="{_LEFT}" y="{y + 2}" width="{length:.1f}" height="14" rx="2"/>'
            )
            shown = number(value, 0 if value >= 100 else 1 if value >= 10 else 2)
            parts.append(f'<text class="v" x="{_LEFT + length + 6:.1f}" y="{y + 13}">{shown}</text>')
            y += _ROW
        y += 16
    style = (
        "text{font:13px system-ui,sans-serif;fill:#1f2328}.t,.o{font-weight:600}.u,.v{font-size:12px;fill:#59636e}"
        ".a{fill:#0969da}.b{fill:#afb8c1}.g{stroke:#d1d9e0;stroke-width:1}"
        "@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.u,.v{fill:#9198a1}.a{fill:#4493f8}.b{fill:#656c76}.g{stroke:#3d444d}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" role="img"'
        f' aria-label="CPU time per unit of work"><style>{style}</style>{"".join(parts)}</svg>\n'
    )
