"""Random histories of one request (histories.py) with fixed seeds; `./dev chaos` runs more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.services.histories import CHOICES, live

pytestmark = pytest.mark.slow

HISTORIES = 150  # of each profile
HISTORY = st.lists(st.tuples(st.sampled_from(CHOICES), st.integers(0, 7)), min_size=6, max_size=16)


def profile(test: Callable[..., Any]) -> Callable[..., Any]:
    """Hypothesis with a fixed seed, on SQLite, without its own database."""
    bounded = settings(
        max_examples=HISTORIES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
    done: Callable[..., Any] = sqlite(bounded(given(history=HISTORY)(test)))
    return done


@profile
async def test_histories_with_webhooks_and_the_sweeper_end_as_the_vendors_book_says(
    database: str, history: list[tuple[str, int]]
) -> None:
    await live(history, webhooks=True, sweeps=True)


@profile
async def test_histories_with_webhooks_only_end_as_the_vendors_book_says(
    database: str, history: list[tuple[str, int]]
) -> None:
    await live(history, webhooks=True, sweeps=False)


@profile
async def test_histories_with_the_sweeper_only_end_as_the_vendors_book_says(
    database: str, history: list[tuple[str, int]]
) -> None:
    await live(history, webhooks=False, sweeps=True)
