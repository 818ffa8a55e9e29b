"""How long a vendor asks to wait, as its header says it."""

from __future__ import annotations

import pytest

from integrations.base import retry_after


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        (" 120 ", 120.0),
        ("0", 0.0),
        ("999999999", 999_999_999.0),
        ("1764288000", None),  # seconds since 1970
        ("1764288000123", None),
        ("Fri, 27 Nov 2026 23:59:59 GMT", None),
        ("-1", None),
        ("1.5", None),
        ("٧", None),
        ("", None),
        (None, None),
    ],
)
def test_a_number_of_seconds_is_read_and_a_moment_is_not(header: str | None, seconds: float | None) -> None:
    assert retry_after(header) == seconds
