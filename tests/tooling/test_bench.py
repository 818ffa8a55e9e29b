"""The pure parts of the benchmark: statistics, tables, the chart, and the load's reading of answers and frames."""

import xml.etree.ElementTree as ElementTree
from itertools import islice

import pytest

from bench import figures, load, runs
from bench.figures import Measure, Panel, Row

MEASURES = [Measure(key="cpu", title="CPU µs", digits=1), Measure(key="rate", title="per s", less_is_better=False)]
ROWS = [
    Row(name="Paythread", values={"cpu": 14.8, "rate": 63_900}),
    Row(name="peer", values={"cpu": 423.0, "rate": 2_370}),
    Row(name="broken", values={}, failure="no answer within 60 s"),
]


def test_percentile_is_a_measured_value() -> None:
    values = [float(n) for n in range(1, 101)]
    assert (figures.percentile(values, 0.5), figures.percentile(values, 0.99)) == (50.0, 99.0)
    assert figures.percentile([3.0, 1.0, 2.0], 0.99) == 3.0
    with pytest.raises(ValueError, match="no values"):
        figures.percentile([], 0.5)


def test_medians_are_taken_by_figure_over_the_rounds_that_have_it() -> None:
    assert figures.medians([{"a": 1.0}, {"a": 5.0, "b": 2.0}, {"a": 3.0}]) == {"a": 3.0, "b": 2.0}


def test_rounds_alternate() -> None:
    assert figures.alternating(["a", "b"], 2) == [(1, "a"), (1, "b"), (2, "a"), (2, "b")]


@pytest.mark.parametrize(
    ("value", "base", "shown"),
    [(423.0, 14.8, "29×"), (14.8, 14.8, "1.00×"), (0.5, 100.0, "0.0050×"), (1.0, 0.0, "–"), (0.0, 1.0, "–")],
)
def test_ratio_has_few_digits(value: float, base: float, shown: str) -> None:
    assert figures.ratio(value, base) == shown


def test_a_failing_target_has_a_row_that_says_why() -> None:
    cells = figures.table(MEASURES, ROWS, base="Paythread")
    assert cells == [
        ["", "CPU µs", "per s", "against Paythread"],
        ["Paythread", "14.8", "63,900", "1.00×"],
        ["peer", "423.0", "2,370", "29×"],
        ["broken", "failed: no answer within 60 s", "", ""],
    ]
    assert figures.as_text(cells).splitlines() == [
        "           CPU µs   per s  against Paythread",
        "Paythread    14.8  63,900              1.00×",
        "peer        423.0   2,370                29×",
        "broken     failed: no answer within 60 s",
    ]
    assert figures.as_markdown(cells).splitlines()[1:3] == [
        "|---|---:|---:|---:|",
        "| Paythread | 14.8 | 63,900 | 1.00× |",
    ]


def test_the_chart_is_an_svg_for_light_and_dark_pages() -> None:
    drawn = figures.chart(
        [Panel(title="Fan-out", unit="µs", bars=[("Paythread", 14.8), ("a < b", 423.0), ("none", 0.0)])],
        highlighted="Paythread",
    )
    root = ElementTree.fromstring(drawn)  # noqa: S314 (our own text)
    bars = [float(one.attrib["width"]) for one in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert len(bars) == 2
    assert bars[0] < bars[1]
    assert "prefers-color-scheme:dark" in drawn


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ],
)
def test_an_answer_ends_where_its_head_says(answer: bytes) -> None:
    assert load.answer_end(answer + b"HTTP/1.1") == len(answer)
    assert [load.answer_end(answer[:n]) for n in range(len(answer))] == [0] * len(answer)


@pytest.mark.parametrize("size", [5, 125, 126, 300, 70_000])
def test_frames_are_read_whole_and_the_rest_is_kept(size: int) -> None:
    head = bytes([0x81, size]) if size < 126 else b"\x81\x7e" + size.to_bytes(2) if size < 65_536 else b""
    one = (head or b"\x81\x7f" + size.to_bytes(8)) + b"x" * size
    assert load.frames(one + one + one[:-1]) == ([(1, b"x" * size)] * 2, one[:-1])


def test_every_twentieth_webhook_is_a_repeat() -> None:
    known = {"path": "/webhooks/stripe", "requests": [[f"pr_{n}", f"cs_{n}"] for n in range(100)]}
    sent = list(islice(runs.webhooks(known), 60))
    assert [n for n in range(1, 60) if sent[n] == sent[n - 1]] == [19, 39, 59]
    assert len(set(sent)) == 57
