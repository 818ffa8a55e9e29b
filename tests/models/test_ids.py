"""UUIDv7 and public ids."""

import itertools
import random
import re
import threading
import time
from pathlib import Path
from uuid import UUID

import pytest

from models import ids


def test_uuid7_carries_version_variant_and_the_time_of_its_making() -> None:
    before = time.time_ns() // 1_000_000
    value = ids.uuid7()
    after = time.time_ns() // 1_000_000
    assert value.version == 7
    assert value.int >> 62 & 0b11 == 0b10
    assert before <= (value.int >> 80) <= after + 1


def test_uuid7_is_strictly_increasing_within_a_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 4_000_000_000_000 * 1_000_000)
    made = [ids.uuid7() for _ in range(20_000)]
    assert all(a < b for a, b in itertools.pairwise(made))
    assert {value.int >> 80 for value in made} == {4_000_000_000_000}


@pytest.fixture(autouse=True)
def _own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_last_ms", ids._last_ms)
    monkeypatch.setattr(ids, "_tail", ids._tail)


def test_uuid7_stays_increasing_when_the_clock_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([5_000_000_000_000, 4_999_999_999_000, 5_000_000_000_001])
    monkeypatch.setattr(time, "time_ns", lambda: next(clock) * 1_000_000)
    first, second, third = ids.uuid7(), ids.uuid7(), ids.uuid7()
    assert first < second < third
    assert second.int >> 80 == 5_000_000_000_000


def test_uuid7_moves_to_the_next_millisecond_when_the_tail_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_last_ms", 5_000_000_000_000)
    monkeypatch.setattr(ids, "_tail", (1 << 74) - 1)
    monkeypatch.setattr(time, "time_ns", lambda: 5_000_000_000_000 * 1_000_000)
    assert ids.uuid7().int >> 80 == 5_000_000_000_001


def test_uuid7_is_unique_over_threads() -> None:
    made: list[UUID] = []
    threads = [threading.Thread(target=lambda: made.extend(ids.uuid7() for _ in range(2_000))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 8_000


def test_public_id_has_fixed_length_and_sorts_as_the_uuid_does() -> None:
    values = [UUID(int=random.Random(seed).getrandbits(128)) for seed in range(500)]
    texts = [ids.public_id("pr", value) for value in values]
    assert {len(text) for text in texts} == {29}
    assert sorted(texts) == [ids.public_id("pr", value) for value in sorted(values)]


def test_public_id_is_this_text_and_comes_back() -> None:
    assert ids.public_id("pr", UUID(int=0)) == "pr_00000000000000000000000000"
    assert ids.public_id("card", UUID(int=(1 << 128) - 1)) == "card_7zzzzzzzzzzzzzzzzzzzzzzzzz"
    for prefix in ids.PREFIXES.values():
        value = ids.uuid7()
        assert ids.parse_public_id(ids.public_id(prefix, value), prefix) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pr",
        "pr_",
        "_00000000000000000000000000",
        "00000000000000000000000000",
        "usr_00000000000000000000000000",  # another type
        "pr_0000000000000000000000000",  # 25 characters
        "pr_000000000000000000000000000",  # 27 characters
        "pr_80000000000000000000000000",  # 129 bits
        "pr_0000000000000000000000000A",  # upper case would be a second spelling
        "pr_0000000000000000000000000i",  # not in the alphabet
        "pr_0000000000000000000000000é",
        "pr_0000000000000000000000000٣",
        "PR_00000000000000000000000000",
        " pr_00000000000000000000000000",
        "pr_00000000000000000000000000\n",
        "pr__00000000000000000000000000",
    ],
)
def test_malformed_public_ids_are_none(text: str) -> None:
    assert ids.parse_public_id(text, "pr") is None


def test_prefixes_are_unique() -> None:
    assert len(set(ids.PREFIXES.values())) == len(ids.PREFIXES)


def test_the_guide_names_the_type_of_each_prefix() -> None:
    guide = (Path(__file__).resolve().parents[2] / "docs/howto/build-an-inbox.md").read_text()
    listed = re.findall(r"`([a-z]+)_` (\w+)", guide)
    assert {name: prefix for prefix, name in listed} == ids.PREFIXES
