"""Fails a test in which a user error has a code that its payload's description does not name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from schema import payload_codes, user_errors

_make = user_errors._user_error
_unlisted: set[tuple[str, str]] = set()


async def _checked(info: Any, refusal: Any) -> Any:
    field = info._raw_info.field_name
    if refusal.code not in payload_codes.CODES.get(field, ()):
        _unlisted.add((field, refusal.code))
    return await _make(info, refusal)


@pytest.fixture(autouse=True)
def only_listed_codes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every code that this process answers is in the table of schema/payload_codes.py."""
    monkeypatch.setattr(user_errors, "_user_error", _checked)
    _unlisted.clear()
    yield
    assert sorted(_unlisted) == []
