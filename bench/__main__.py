"""The command: run the chosen workloads in alternating rounds, print the tables, and with --write docs/performance.md."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from bench import runs, targets
from bench.figures import Panel, Row, alternating, as_markdown, as_text, chart, medians, table
from bench.processes import Failed, allow_many_files
from bench.runs import Figures, Lab, Size
from bench.stores import Stores
from bench.targets import ROOT
from bench.workloads import WORKLOADS, Workload

PAGE = ROOT / "docs" / "performance.md"
CHART = ROOT / "docs" / "performance.svg"
FULL = Size(rounds=3, seconds=5.0, warm_s=1.0, sockets=2_000, webhooks=25_000)
QUICK = Size(rounds=1, seconds=0.6, warm_s=0.3, sockets=500, webhooks=3_000)
OURS = "Paythread"
GROWTH_S = 3600


# These run inside the product, and nothing in bench/ imports them.
GROWTH = [sys.executable, "-m", "tests.growth"]
ALONE = {"growth": GROWTH, "views": [sys.executable, "-m", "tests.live_views"]}


def main(arguments: list[str]) -> int:
    if arguments and arguments[0] in ALONE:
        return subprocess.run([*ALONE[arguments[0]], *arguments[1:]], cwd=ROOT, check=False).returncode
    chosen = _options(arguments)
    base = QUICK if chosen.quick else FULL
    size = Size(
        rounds=chosen.rounds or base.rounds,
        seconds=chosen.seconds or base.seconds,
        warm_s=base.warm_s,
        sockets=chosen.sockets or base.sockets,
        webhooks=chosen.webhooks or base.webhooks,
    )
    wanted = [one for one in WORKLOADS if not chosen.workloads or one.name in chosen.workloads]
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    allow_many_files()
    started = time.monotonic()
    results = _measure(wanted, size, chosen.only)
    growth = ""
    if "growth" in chosen.workloads or not (chosen.workloads or chosen.quick):
        growth = _growth(chosen.items)
    for workload, rows in results:
        print(f"\n{workload.title}: {workload.unit}\n{_text(workload, rows)}")
    print(f"\n{time.monotonic() - started:.0f} s, {_machine()}, commit {_commit()}")
    if chosen.write:
        PAGE.write_text(_page(results, size, arguments, growth))
        CHART.write_text(chart([_panel(*one) for one in results], highlighted=OURS))
        print(f"wrote {PAGE.relative_to(ROOT)} and {CHART.relative_to(ROOT)}")
    ours = [row for _, rows in results for row in rows if row.name == OURS]
    return 1 if any(row.failure is not None for row in ours) else 0


def _options(arguments: list[str]) -> argparse.Namespace:
    names = [*dict.fromkeys(one.name for one in WORKLOADS), "growth"]
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument(
        "workloads",
        nargs="*",
        metavar="workload",
        help=f"{', '.join(names)}; default: all; `growth` or `views` as the first word runs only it, with its own options",
    )
    parser.add_argument(
        "--quick", action="store_true", help="one short round with fewer sockets: 3 minutes, a smoke test"
    )
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)} and its chart")
    parser.add_argument("--rounds", type=int, help="rounds of all targets")
    parser.add_argument("--seconds", type=float, help="of each measurement")
    parser.add_argument("--sockets", type=int, help="subscribers of fanout")
    parser.add_argument("--webhooks", type=int, help="prepared payments per database of webhook")
    parser.add_argument("--items", type=int, help="thread items of growth's large account")
    parser.add_argument(
        "--only", action="append", default=[], metavar="TEXT", help="only targets whose name contains it"
    )
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.workloads) - set(names):
        parser.error(f"no workload {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return chosen


def _measure(wanted: list[Workload], size: Size, only: list[str]) -> list[tuple[Workload, list[Row]]]:
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="paythread-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        postgres = redis = None
        if any(one.engine == "postgres" for one in wanted) and (postgres := runs.open_postgres()) is not None:
            stack.callback(postgres.stop)
        if any(one.name == "fanout" for one in wanted) and (redis := runs.open_redis()) is not None:
            stack.callback(redis.stop)
        no_npm = targets.install_peers() if any(target.npm for one in wanted for target in one.targets) else None
        lab = Lab(
            size=size,
            stores=Stores(folder, postgres),
            folder=folder,
            postgres=postgres,
            redis=redis,
            no_npm=no_npm,
        )
        return [(workload, _rounds(lab, workload, only)) for workload in wanted]


def _rounds(lab: Lab, workload: Workload, only: list[str]) -> list[Row]:
    chosen = [one for one in workload.targets if not only or any(text in one.name for text in only)]
    found: dict[str, list[Figures]] = {one.name: [] for one in chosen}
    failures: dict[str, str] = {}
    by_name = {one.name: one for one in chosen}
    for number, name in alternating(list(by_name), lab.size.rounds):
        label = f"{workload.title}, round {number}: {name}"
        try:
            figures = workload.run(lab, by_name[name], workload.engine)
        except (Failed, OSError, subprocess.SubprocessError, ValueError, LookupError) as error:
            failures[name] = " ".join(f"{error}".split()) or type(error).__name__
            print(f"{label}: failed: {failures[name]}", flush=True)
            continue
        found[name].append(figures)
        print(f"{label}: " + ", ".join(f"{key} {value:,.1f}" for key, value in figures.items()), flush=True)
    return [
        Row(name=name, values=medians(rounds), rounds=len(rounds), failure=failures.get(name))
        for name, rounds in found.items()
    ]


def _text(workload: Workload, rows: list[Row]) -> str:
    return as_text(table(workload.measures, rows, base=workload.base))


def _panel(workload: Workload, rows: list[Row]) -> Panel:
    """The workload's first figure; no bars where nothing is beside Paythread."""
    first = workload.measures[0]
    bars = [(row.name, row.values[first.key]) for row in rows if first.key in row.values]
    bars = bars if len(bars) > 1 else []
    return Panel(title=workload.title, unit=first.title, bars=bars)


def _growth(items: int | None) -> str:
    """The growth tables in Markdown, or why there are none."""
    size = ["--items", str(items)] if items else []
    try:
        done = subprocess.run([*GROWTH, *size], cwd=ROOT, capture_output=True, text=True, timeout=GROWTH_S, check=False)
    except subprocess.TimeoutExpired:
        return f"failed: not done after {GROWTH_S} s"
    printed = "\n".join(line if line.startswith("|") else "" for line in done.stdout.splitlines()).strip()
    if done.returncode != 0:
        printed += f"\n\nfailed: {(done.stderr.strip().splitlines() or ['no reason'])[-1][:300]}"
    print(f"\nGrowth with the account\n{printed}", flush=True)
    return printed


def _page(results: list[tuple[Workload, list[Row]]], size: Size, arguments: list[str], growth: str) -> str:
    command = " ".join(["./dev bench", *arguments])
    parts = [
        "# Performance",
        "Written by `./dev bench --write`; do not edit. [bench/README.md](../bench/README.md) says how it measures.",
        "![CPU time per unit of work](performance.svg)",
        f"- Command: `{command}`\n- Machine: {_machine()}\n- Commit: {_commit()}, {datetime.now(UTC):%Y-%m-%d}\n"
        f"- Rounds: {size.rounds}, alternating, {size.seconds:g} s for each target, medians; {size.sockets:,} sockets",
        "CPU µs is the time of the server's processes per unit of work, as the operating system counts it. It is the steady figure;"
        " rates depend on the load generator and the database, which share the machine's cores. The last column divides a row's first"
        " figure by Paythread's.",
    ]
    for workload, rows in results:
        parts += [f"## {workload.title}", f"A unit is {workload.unit}."]
        parts.append(as_markdown(table(workload.measures, rows, base=workload.base)))
        if workload.notes:
            parts.append(workload.notes)
        broken = [f"- {row.name}: {row.failure}" for row in rows if row.failure is not None and row.values]
        if broken:
            parts.append("Rounds that failed:\n" + "\n".join(broken))
    if growth:
        parts += [
            "## Growth with the account",
            "Each operation in a small account and in a large one, without HTTP.",
            growth,
        ]
    return "\n\n".join(parts) + "\n"


def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in _read("/proc/cpuinfo").splitlines()
            if line.startswith("model name")
        ),
        "",
    )
    memory = next(
        (int(line.split()[1]) for line in _read("/proc/meminfo").splitlines() if line.startswith("MemTotal")), 0
    )
    python = platform.python_version()
    return (
        f"{os.cpu_count()} cores ({model or platform.machine()}), {memory / 2**20:.0f} GiB, Python {python}, {_node()}"
    )


def _file_system(folder: str) -> str:
    """Its type. On tmpfs a commit reaches no disk."""
    mounts = [line.split()[1:3] for line in _read("/proc/mounts").splitlines()]
    above = [(point, kind) for point, kind in mounts if Path(folder).resolve().is_relative_to(point)]
    return max(above, key=lambda one: len(one[0]))[1] if above else "an unknown file system"


def _node() -> str:
    node = shutil.which("node")
    if node is None:
        return "no Node"
    return f"Node {subprocess.run([node, '--version'], capture_output=True, text=True, check=False).stdout.strip()}"


def _commit() -> str:
    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    # The page itself may differ: it is written by the run.
    changed = git("status", "--porcelain", "--", ".", ":!docs/performance.*")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + (", changed" if changed else "")


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
