"""One process of `./dev chaos`: it creates a database and runs histories and orders on it. It prints nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing.util
import secrets
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from models import migrate
from models.database import open_database
from tests.chaos.here import without_threads
from tests.conftest import database_beside, run_on
from tests.services import histories
from tests.services.orders import Scene, Stage, at_random


@dataclass
class Found:
    """The ends and violations of some runs."""

    ends: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def add(self, other: Found) -> None:
        self.ends.update(other.ends)
        self.violations += other.violations


_work_on: Callable[[Coroutine[Any, Any, Found]], Found] | None = None


def begin(database: str, server_url: str) -> None:
    """Create this process's database and open it, with one event loop, until the process ends."""
    global _work_on
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)
    stack = contextlib.ExitStack()
    runner = stack.enter_context(asyncio.Runner(loop_factory=asyncio.new_event_loop))
    if database == "sqlite":
        url = f"sqlite:///{stack.enter_context(tempfile.TemporaryDirectory(prefix='paythread-chaos-'))}/chaos.db"
        stack.enter_context(without_threads())
    else:
        name = f"paythread_chaos_{secrets.token_hex(4)}"
        runner.run(run_on(server_url, f"CREATE DATABASE {name}"))
        url = database_beside(server_url, name)
    runner.run(migrate.migrate(url))
    options: dict[str, Any] = {"synchronous": "OFF"} if database == "sqlite" else {"pool_max": 6}
    opened = contextlib.AsyncExitStack()
    runner.run(opened.enter_async_context(open_database(url, **options)))

    def close() -> None:
        runner.run(opened.aclose())
        stack.close()
        if database == "postgres":
            asyncio.run(run_on(server_url, f"DROP DATABASE {name} WITH (FORCE)"))

    multiprocessing.util.Finalize(None, close, exitpriority=100)
    _work_on = runner.run


def _run(work: Coroutine[Any, Any, Found]) -> Found:
    assert _work_on is not None
    return _work_on(work)


def _why(error: BaseException) -> str:
    """The last line of this repository in the traceback."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    last = frames[-1]
    return f"{type(error).__name__}: {error} at {Path(last.filename).name}:{last.lineno}: {last.line}"


def some_histories(profile: str, seeds: Sequence[int]) -> Found:
    """Run the histories of these seeds; shorten those that fail."""
    webhooks, sweeps = histories.PROFILES[profile]

    async def error_of(history: histories.History) -> BaseException | None:
        try:
            await histories.live(history, webhooks=webhooks, sweeps=sweeps)
        except Exception as error:  # noqa: BLE001 (whatever goes wrong is a violation)
            return error
        return None

    async def one(seed: int, found: Found) -> None:
        history = histories.chosen_by(seed)
        try:
            found.ends[await histories.live(history, webhooks=webhooks, sweeps=sweeps)] += 1
        except Exception as error:  # noqa: BLE001 (as above)
            kind = type(error)

            async def fails(shorter: histories.History) -> bool:
                return isinstance(await error_of(shorter), kind)

            shortest = await histories.shrunk(history, fails)
            last = await error_of(shortest) or error
            found.violations.append(f"{profile}, seed {seed}: {_why(last)}\n    {shortest}")

    async def all_of_them() -> Found:
        found = Found()
        for seed in seeds:
            await one(seed, found)
        return found

    return _run(all_of_them())


def beginnings(scene: Scene, length: int) -> list[list[str]]:
    """The possible beginnings of a scene's orders."""
    made: list[list[str]] = []

    async def find() -> Found:
        made.extend(await Stage(scene).beginnings(length))
        return Found()

    _run(find())
    return made


def all_orders(scene: Scene, beginning: Sequence[str]) -> Found:
    """Run every order of a scene with this beginning."""
    return _run(_orders(scene, beginning))


async def _orders(scene: Scene, beginning: Sequence[str]) -> Found:
    found, stage = Found(), Stage(scene)
    try:
        async for run in stage.all_after(beginning):
            found.ends[run.end] += 1
    except Exception as error:  # noqa: BLE001 (whatever goes wrong is a violation)
        # A failure hides the orders after it; other beginnings still run.
        found.violations.append(f"{scene.name}, order {''.join(stage.next or [])}…: {_why(error)}")
    return found


def some_orders(scene: Scene, seeds: Sequence[int]) -> Found:
    """Run the orders that these seeds choose."""

    async def play() -> Found:
        found, stage = Found(), Stage(scene)
        for seed in seeds:
            try:
                found.ends[(await stage.play(at_random(seed))).end] += 1
            except Exception as error:  # noqa: BLE001 (whatever goes wrong is a violation)
                found.violations.append(f"{scene.name}, seed {seed}: {_why(error)}")
        return found

    return _run(play())
