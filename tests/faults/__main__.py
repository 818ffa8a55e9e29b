"""Run the seeded faults: `./dev faults [--quick] [name ...]`.

Each worker has a copy of the tree. It patches a fault in, runs the tests that should fail, and restores the file. A fault counts as
killed only if a test failed; an error of collection or of pytest is an error of this program.

With `--quick` only the tests of `./dev test --quick` run. The report then shows how many faults these tests catch.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

from tests.faults.seeded import FAULTS, Fault

ROOT = Path(__file__).resolve().parents[2]
WORKERS = 2
TIMEOUT_S = 300  # of one fault; a test must fail, not hang
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "node_modules", "var", "__pycache__", ".*_cache", ".hypothesis")
FAILED, PASSED, NOTHING_RAN = 1, 0, 5


def say(line: str) -> None:
    """Print one line without buffering."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def pytest(tree: Path, tests: tuple[str, ...], *, postgres: bool, quick: bool) -> tuple[int, str]:
    """Run tests in a tree up to the first failure; return pytest's exit code and output."""
    chosen = ["--quick"] if quick else [] if postgres else ["-k", "not postgres"]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *chosen, *tests]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        done = subprocess.run(
            command,
            cwd=tree,
            env=kept | {"PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return -1, f"no end within {TIMEOUT_S} s"
    return done.returncode, done.stdout


def seed(tree: Path, fault: Fault, *, quick: bool) -> tuple[bool, str]:
    """Return whether the tests caught the fault in this tree, and a line for the report."""
    file = tree / fault.path
    before = file.read_text()
    started = time.monotonic()
    try:
        file.write_text(fault.applied(before))
        code, output = pytest(tree, fault.tests, postgres=fault.postgres, quick=quick)
    except ValueError as error:
        return False, f"DOES NOT APPLY  {error}"
    finally:
        file.write_text(before)
    took = f"{time.monotonic() - started:.0f} s"
    if code == FAILED:
        by = next(
            (line.split(" - ")[0] for line in output.splitlines() if line.startswith(("FAILED tests", "ERROR tests"))),
            "?",
        )
        return True, f"killed    {fault.kind:<12} {fault.name} ({took}) {by.partition('::')[2]}"
    word = "SURVIVES" if code in (PASSED, NOTHING_RAN) else f"ERROR {code}"
    return False, f"{word}  {fault.kind:<12} {fault.name} ({took})\n{output[-2000:] if word != 'SURVIVES' else ''}"


def main(arguments: list[str]) -> int:
    """Run all faults, or those named; 0 if each was killed."""
    quick = "--quick" in arguments
    names = [argument for argument in arguments if argument != "--quick"]
    unknown = set(names) - {fault.name for fault in FAULTS}
    if unknown:
        say(f"no such fault: {', '.join(sorted(unknown))}")
        return 2
    chosen = [fault for fault in FAULTS if not names or fault.name in names]
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="paythread-faults-") as folder:
        trees: Queue[Path] = Queue()
        for n in range(WORKERS):
            shutil.copytree(ROOT, Path(folder, str(n)), ignore=LEFT_OUT, symlinks=True)
            trees.put(Path(folder, str(n)))

        def one(fault: Fault) -> bool:
            tree = trees.get()
            try:
                killed, line = seed(tree, fault, quick=quick)
            finally:
                trees.put(tree)
            say(line)
            return killed

        # These tests must pass without a fault; otherwise a failure proves nothing.
        files = tuple(sorted({test for fault in chosen for test in fault.tests}))
        tree = trees.get()
        code, output = pytest(tree, files, postgres=False, quick=quick)
        trees.put(tree)
        if code != PASSED:
            say(f"the tests fail without any fault:\n{output[-4000:]}")
            return 1
        with ThreadPoolExecutor(WORKERS) as pool:
            killed = sum(pool.map(one, chosen))
    say(f"faults killed {killed}/{len(chosen)} in {time.monotonic() - started:.0f} s")
    return 0 if killed == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
