"""Moving windows in one process."""

import limits
import pytest

from services.core import rate_limits
from services.core.rate_limits import MovingWindows


async def test_a_moving_window_admits_its_amount_and_again_when_the_oldest_hit_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(rate_limits, "_clock", lambda: now)
    windows, limit = MovingWindows(""), limits.parse("2/minute")
    assert [await windows.hit(limit, "a") for _ in range(3)] == [True, True, False]
    assert not await windows.test(limit, "a")
    assert await windows.hit(limit, "b")
    now = 60.0
    assert await windows.test(limit, "a")
    assert [await windows.hit(limit, "a") for _ in range(3)] == [True, True, False]


async def test_moving_windows_keep_the_most_recently_used_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits._Windows, "KEYS", 2)
    windows, limit = MovingWindows(""), limits.parse("1/minute")
    assert [await windows.hit(limit, key) for key in "abc"] == [True, True, True]
    assert [await windows.hit(limit, key) for key in "ca"] == [False, True]
