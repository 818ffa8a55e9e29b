"""Filters: equal when they mean the same, and refused beyond their limits."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from models.errors import Invalid
from services.lists.filters import (
    MOST_CONDITIONS,
    MOST_LEVELS,
    MOST_VALUES,
    ContactFilter,
    ConversationFilter,
    MoneyRange,
    PaymentRequestFilter,
    TimeRange,
)

NOW = datetime(2026, 11, 28, tzinfo=UTC)


def test_order_and_repetition_of_values_do_not_matter() -> None:
    one = PaymentRequestFilter(status=("SENT", "PAID", "SENT"), assignee_ids=(None, UUID(int=2), UUID(int=1)))
    other = PaymentRequestFilter(status=("PAID", "SENT"), assignee_ids=(UUID(int=1), UUID(int=2), None, None))
    assert one == other
    assert hash(one) == hash(other)
    assert one.status == ("PAID", "SENT")


def test_order_of_filters_below_does_not_matter() -> None:
    paid, overdue = PaymentRequestFilter(status=("PAID",)), PaymentRequestFilter(overdue=True)
    assert PaymentRequestFilter(and_=(paid, overdue)) == PaymentRequestFilter(and_=(overdue, paid, paid))
    assert PaymentRequestFilter(or_=(paid, overdue)) == PaymentRequestFilter(or_=(overdue, paid))
    assert PaymentRequestFilter(and_=(paid,)) != PaymentRequestFilter(or_=(paid,))


def test_an_empty_filter_is_dropped_only_where_it_changes_nothing() -> None:
    empty = ContactFilter()
    assert ContactFilter(and_=(empty,)) == empty
    assert ContactFilter(search="  \u0301 ") == empty
    assert ContactFilter(or_=(empty,)).or_ == (empty,)
    assert ContactFilter(or_=()) != empty
    assert ContactFilter(not_=empty) != empty


def test_levels_are_limited() -> None:
    filter = ConversationFilter(unread=True)
    for _ in range(MOST_LEVELS - 1):
        filter = ConversationFilter(not_=filter)
    with pytest.raises(Invalid, match="5 levels"):
        ConversationFilter(and_=(filter,))


def test_conditions_are_limited() -> None:
    many = tuple(PaymentRequestFilter(search=f"word {n}") for n in range(MOST_CONDITIONS))
    assert PaymentRequestFilter(or_=many).count == MOST_CONDITIONS
    with pytest.raises(Invalid, match="40 conditions"):
        PaymentRequestFilter(or_=many, overdue=True)


def test_values_are_limited() -> None:
    ids = tuple(UUID(int=n) for n in range(MOST_VALUES + 1))
    PaymentRequestFilter(contact_ids=ids[1:])
    with pytest.raises(Invalid, match="100 values") as refused:
        PaymentRequestFilter(contact_ids=ids)
    assert refused.value.field == ("contact_ids",)


@pytest.mark.parametrize("tag", ["x" * 101, "a\0b"])
def test_long_and_binary_labels_are_refused(tag: str) -> None:
    ContactFilter(tags=("x" * 100,))
    with pytest.raises(Invalid, match="100 characters"):
        ContactFilter(tags=(tag,))


@pytest.mark.parametrize("end", [NOW, NOW - timedelta(seconds=1)])
def test_a_range_of_no_time_is_refused(end: datetime) -> None:
    TimeRange(NOW, NOW + timedelta(microseconds=1))
    with pytest.raises(Invalid, match="before"):
        TimeRange(NOW, end)


def test_a_range_of_money_is_of_one_currency() -> None:
    assert MoneyRange.from_decimals("JPY", "5", None) == MoneyRange("JPY", 5, None)
    assert MoneyRange.from_decimals("USD", "5", "7.5") == MoneyRange("USD", 500, 750)
    for currency, minimum, maximum, field in (
        ("XYZ", None, None, ("currency",)),
        ("USD", "1.005", None, ("minimum",)),
        ("USD", None, "-1", ("maximum",)),
        ("USD", None, "9" * 30, ("maximum",)),
        ("USD", "2", "1", None),
    ):
        with pytest.raises(Invalid) as refused:
            MoneyRange.from_decimals(currency, minimum, maximum)
        assert refused.value.field == field


@pytest.mark.parametrize("search", ["x" * 101, "a\0b"])
def test_long_and_binary_searches_are_refused(search: str) -> None:
    assert ContactFilter(search=" Ana ").search == "Ana"
    with pytest.raises(Invalid, match="100 characters"):
        ContactFilter(search=search)


def test_a_condition_is_found_at_every_level() -> None:
    filter = PaymentRequestFilter(not_=PaymentRequestFilter(or_=(PaymentRequestFilter(overdue=True),)))
    assert filter.uses("overdue")
    assert not filter.uses("search")
