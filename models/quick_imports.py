"""Imports Tortoise and structlog without the work that they do needlessly: 0.1 s. Import this module before them.

A process that imports them earlier only starts more slowly.
"""

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def _no_source(_: object) -> str:
    raise OSError("the source is not needed")


@contextmanager
def _without_source() -> Iterator[None]:
    usual = inspect.getsource
    inspect.getsource = _no_source  # type: ignore[assignment]  # its parameter has another name
    try:
        yield
    finally:
        inspect.getsource = usual


@contextmanager
def _without(*optional: str) -> Iterator[None]:
    hidden = [name for name in optional if name not in sys.modules]
    # Python's own mark of a module that cannot be imported.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # typeshed omits None
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


# Tortoise would parse its longest module to find `#:` comments in its base class, which has none.
with _without_source():
    import tortoise.models
# structlog imports these for tracebacks in colour and for green threads; the logs are JSON.
with _without("rich", "greenlet"):
    import structlog

__all__ = ["structlog", "tortoise"]
