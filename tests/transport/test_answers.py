"""The cache of answers: validity by position and time, and its bound."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from resolvers.transport.answers import LARGEST, Answer, Answers


def test_an_answer_is_kept_only_for_its_position() -> None:
    answers = Answers(100_000)
    answers.keep("key", Answer(1, None, b"one"))
    assert answers.find("key", 1) == b"one"
    assert answers.find("key", 2) is None
    assert answers.find("other", 1) is None


def test_an_answer_ends_at_its_time() -> None:
    answers = Answers(100_000)
    now = datetime.now(UTC)
    answers.keep("later", Answer(1, now + timedelta(minutes=1), b"one"))
    answers.keep("over", Answer(1, now - timedelta(seconds=1), b"two"))
    assert answers.find("later", 1) == b"one"
    assert answers.find("over", 1) is None


def test_only_a_repeated_key_is_worth_an_answer() -> None:
    answers = Answers(100_000)
    assert [answers.asked_again("key") for _ in range(3)] == [False, True, True]
    assert answers.find("key", None) is None


def test_the_least_recently_used_answers_are_dropped_first() -> None:
    answers = Answers(30_000)
    for n in range(3):
        answers.keep(n, Answer(1, None, b"x" * 8_000))
    assert answers.find(0, 1) is not None
    answers.keep(3, Answer(1, None, b"x" * 8_000))
    assert [answers.find(n, 1) is not None for n in range(4)] == [True, False, True, True]
    answers.keep(4, Answer(1, None, b"x" * (LARGEST + 1)))
    assert answers.find(4, 1) is None


def test_a_replaced_answer_frees_its_bytes() -> None:
    answers = Answers(30_000)
    for n in range(100):
        answers.keep("same", Answer(n, None, b"x" * 8_000))
    answers.keep("other", Answer(1, None, b"x" * 8_000))
    assert answers.find("same", 99) is not None
    assert answers.find("other", 1) is not None
