"""What a person typed, as it may be stored."""

from __future__ import annotations

import pytest

from models import errors
from services.core import validation


@pytest.mark.parametrize("blank", ["", "  ", "\u200b", "\u2060\ufeff ", "\u3164", "\u00ad\u200d"])
def test_a_text_of_nothing_that_can_be_seen_is_blank(blank: str) -> None:
    assert validation.optional(blank, limit=10, field="name") is None
    with pytest.raises(errors.Blank):
        validation.required(blank, limit=10, field="name")


@pytest.mark.parametrize("kept", ["Zoë’s café", "می‌خواهم", "👩‍🔧 repair", "שלום", "שלום ABC"])
def test_scripts_and_emoji_keep_their_joiners(kept: str) -> None:
    assert validation.required(kept, limit=50, field="name") == kept


@pytest.mark.parametrize("mark", ["\u202e", "\u2066", "\u202a"])
@pytest.mark.parametrize("lines", [False, True])
def test_only_a_message_may_turn_the_direction_of_the_text(mark: str, lines: bool) -> None:
    with pytest.raises(errors.Invalid):
        validation.required(f"Deep{mark}clean", limit=50, field="name", lines=lines)
    written = f"Deep\n{mark}clean"
    assert validation.optional(written, limit=50, field="body", message=True) == written
