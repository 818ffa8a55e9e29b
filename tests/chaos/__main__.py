"""The long runs: `./dev chaos [histories] [orders] [options]`.

They run random histories of one request, by seed, in three profiles of which webhooks arrive, and all orders of two tabs, a void, the
webhooks and the sweeper; on SQLite and PostgreSQL, in one process per core, each with its own database. A violation is printed with
the command that repeats it.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from tests import servers
from tests.chaos import runs
from tests.services import histories
from tests.services.orders import Scene

PARTS = ("histories", "orders")
DATABASES = ("sqlite", "postgres")
SCENES = (
    Scene("tab × tab × void × webhooks × sweeper", sweeps=True),
    Scene("tab with its page × tab × void × webhooks × sweeper", in_hand=True, sweeps=True),
    Scene("tab × tab × void × webhooks in finer steps", fine=True),
)
# They have too many orders to run all.
SAMPLED = (
    Scene("all five in finer steps", fine=True, sweeps=True),
    Scene("all five, the money captured by us", approving=True, sweeps=True),
)
BATCH = 25  # histories of one task
SHOWN = 5  # violations that are printed in full


@dataclass(frozen=True)
class Size:
    """How much runs. `histories`, `postgres`: histories per profile on each engine; `sample`: orders of a sampled scene."""

    histories: int
    postgres: int
    sample: int
    exhaustive: bool


FULL = Size(histories=2000, postgres=500, sample=2000, exhaustive=True)
QUICK = Size(histories=150, postgres=25, sample=60, exhaustive=False)


def say(line: str) -> None:
    """Print one line without buffering."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


# -------------------------------------------------------------------------------------------------------------- the report
@contextlib.contextmanager
def processes(database: str, server_url: str) -> Iterator[ProcessPoolExecutor]:
    """One process per core, each with its own database."""
    with ProcessPoolExecutor(
        os.cpu_count() or 1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=runs.begin,
        initargs=(database, server_url),
    ) as pool:
        yield pool


def gathered(
    pool: ProcessPoolExecutor, work: Callable[..., runs.Found], tasks: Sequence[tuple[Any, ...]]
) -> runs.Found:
    """The results of all tasks."""
    found = runs.Found()
    for done in [pool.submit(work, *task) for task in tasks]:
        found.add(done.result())
    return found


def report(found: runs.Found, line: str, started: float) -> int:
    """Print a line of figures and the first violations; return the number of violations."""
    say(f"{line} {dict(sorted(found.ends.items()))} ({time.monotonic() - started:.0f} s)")
    for violation in found.violations[:SHOWN]:
        say(f"  VIOLATION {violation}")
    return len(found.violations)


def chaos_of_histories(pool: ProcessPoolExecutor, database: str, count: int, first: int) -> int:
    """Run `count` histories of each profile from seed `first` on; return the number of violations."""
    started, found = time.monotonic(), runs.Found()
    tasks = [
        (profile, range(seed, min(seed + BATCH, first + count)))
        for profile in histories.PROFILES
        for seed in range(first, first + count, BATCH)
    ]
    found = gathered(pool, runs.some_histories, tasks)
    figures = f"{len(histories.PROFILES)} x {count:,} histories from seed {first}"
    return report(found, f"{database}: {figures}: violations {len(found.violations)}", started)


def chaos_of_orders(pool: ProcessPoolExecutor, database: str, scene: Scene, sample: int | None, first: int) -> int:
    """Run all orders of a scene, or a sample; return the number of violations."""
    started = time.monotonic()
    if sample is None:
        begun = pool.submit(runs.beginnings, scene, 3).result()
        found = gathered(pool, runs.all_orders, [(scene, beginning) for beginning in begun])
    else:
        tasks = [(scene, range(seed, seed + 20)) for seed in range(first, first + sample, 20)]
        found = gathered(pool, runs.some_orders, tasks)
    wrong = len(found.violations)
    what = "all" if sample is None else "a sample of"
    line = f"{database}: {scene.name}: {what} {found.ends.total() + wrong:,} orders: wrong {wrong}, late 0"
    return report(found, line, started)


def main(arguments: list[str]) -> int:
    """Run the named parts, or all; 0 if there was no violation."""
    parser = argparse.ArgumentParser(prog="./dev chaos", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="histories|orders", help="default: both")
    parser.add_argument("--quick", action="store_true", help="a small part of each; CI=true does the same")
    parser.add_argument("--seed", type=int, help="the first seed (default: by chance; it is printed)")
    parser.add_argument("--count", type=int, help="histories of each profile")
    parser.add_argument("--database", choices=DATABASES, help="default: both")
    given = parser.parse_args(arguments)
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    size = QUICK if given.quick or os.environ.get("CI") == "true" else FULL
    if given.count is not None:
        size = replace(size, histories=given.count, postgres=given.count)
    seed = secrets.randbelow(10**6) if given.seed is None else given.seed
    parts = given.parts or PARTS
    say(f"chaos from seed {seed}; the same again: the same command with --seed {seed}")
    started, wrong = time.monotonic(), 0
    for database in [given.database] if given.database else DATABASES:
        server = servers.postgres() if database == "postgres" else contextlib.nullcontext("")
        with server as server_url, processes(database, server_url) as pool:
            if "histories" in parts:
                count = size.histories if database == "sqlite" else size.postgres
                wrong += chaos_of_histories(pool, database, count, seed)
            if "orders" in parts:
                for scene in (*SCENES, *SAMPLED):
                    sample = None if size.exhaustive and scene in SCENES else size.sample
                    wrong += chaos_of_orders(pool, database, scene, sample, seed)
    say(f"chaos: {'no violation' if not wrong else f'{wrong} VIOLATIONS'} in {time.monotonic() - started:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
