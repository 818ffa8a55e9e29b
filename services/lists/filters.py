"""Filters of lists: immutable, equal when they mean the same, checked when they are made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, ClassVar, Final, Self, TypeAlias
from uuid import UUID

from models import money, searching
from models.errors import Invalid

MOST_LEVELS: Final = 5
MOST_CONDITIONS: Final = 40
MOST_VALUES: Final = 100  # of one condition
LONGEST_SEARCH: Final = 100  # characters
LONGEST_TAG: Final = 100
_TREE: Final = ("and_", "or_", "not_")


@dataclass(frozen=True, slots=True)
class TimeRange:
    """`start` is included, `end` is not; None: no bound. Raises: Invalid."""

    start: datetime | None = None
    end: datetime | None = None

    def __post_init__(self) -> None:
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise Invalid("`from` must be before `until`.")


@dataclass(frozen=True, slots=True)
class MoneyRange:
    """Amounts of one currency in minor units, both bounds included; None: no bound. Raises: Invalid."""

    currency: str
    minimum_minor: int | None = None
    maximum_minor: int | None = None

    def __post_init__(self) -> None:
        low, high = self.minimum_minor, self.maximum_minor
        if low is not None and high is not None and low > high:
            raise Invalid("`minimum` must not be above `maximum`.")

    @classmethod
    def from_decimals(cls, currency: str, minimum: str | None, maximum: str | None) -> Self:
        """Read "125.00". Raises: Invalid."""
        bounds: list[int | None] = []
        for name, text in (("minimum", minimum), ("maximum", maximum)):
            try:
                money.exponent_of(currency)
                bounds.append(None if text is None else money.Money.from_decimal(text, currency).amount_minor)
            except money.UnknownCurrency:
                raise Invalid("This is not a currency's code.", field="currency") from None
            except money.InvalidAmount as error:
                raise Invalid(f"This is not an amount: {error}.", field=name) from None
            if (bounds[-1] or 0) >= 2**63:
                raise Invalid("This amount is too large.", field=name)
        return cls(currency, *bounds)


class _Tree:
    """What the filters share: `and_`, `or_`, `not_`, and limits. A filter without conditions matches everything."""

    __slots__ = ()
    and_: tuple[Self, ...]
    or_: tuple[Self, ...] | None  # an empty one matches nothing
    not_: Self | None

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]  # each subclass is a dataclass
            value = getattr(self, field.name)
            if field.name in ("and_", "or_"):
                kept = None if value is None else _sub_filters(value, neutral=field.name == "and_")
                object.__setattr__(self, field.name, kept)
            elif isinstance(value, tuple):
                object.__setattr__(self, field.name, _values(value, field.name))
        if (search := getattr(self, "search", None)) is not None:
            object.__setattr__(self, "search", _search(search))
        if self.levels > MOST_LEVELS:
            raise Invalid(f"A filter has at most {MOST_LEVELS} levels.")
        if self.count > MOST_CONDITIONS:
            raise Invalid(f"A filter has at most {MOST_CONDITIONS} conditions.")

    @property
    def conditions(self) -> list[tuple[str, Any]]:
        """The filter's own, by field."""
        own = [(field.name, getattr(self, field.name)) for field in fields(self)]  # type: ignore[arg-type]  # as above
        return [(name, value) for name, value in own if value is not None and name not in _TREE]

    @property
    def below(self) -> list[Self]:
        return [*self.and_, *(self.or_ or ()), *([self.not_] if self.not_ is not None else [])]

    @property
    def levels(self) -> int:
        return 1 + max((filter.levels for filter in self.below), default=0)

    @property
    def count(self) -> int:
        return len(self.conditions) + sum(filter.count for filter in self.below)

    @property
    def is_empty(self) -> bool:
        return not self.conditions and not self.and_ and self.or_ is None and self.not_ is None

    def uses(self, *names: str) -> bool:
        """Whether a condition of this name is anywhere in it."""
        return any(name in names for name, _ in self.conditions) or any(one.uses(*names) for one in self.below)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentRequestFilter(_Tree):
    """Discarded requests never match. Raises: Invalid."""

    TIMED: ClassVar = ("overdue",)  # conditions that time alone changes

    status: tuple[str, ...] | None = None
    overdue: bool | None = None
    needs_attention: bool | None = None
    refund_state: tuple[str, ...] | None = None
    dispute_state: tuple[str, ...] | None = None
    delivery_state: tuple[str, ...] | None = None
    created_at: TimeRange | None = None
    updated_at: TimeRange | None = None
    due_at: TimeRange | None = None
    paid_at: TimeRange | None = None
    amount: MoneyRange | None = None
    contact_ids: tuple[UUID, ...] | None = None
    assignee_ids: tuple[UUID | None, ...] | None = None  # of the conversation; None: unassigned
    channel_kinds: tuple[str, ...] | None = None  # chosen for the request
    processor_ids: tuple[UUID, ...] | None = None
    tags: tuple[str, ...] | None = None  # any of these, of the contact
    test_mode: bool | None = None
    search: str | None = None
    and_: tuple[PaymentRequestFilter, ...] = ()
    or_: tuple[PaymentRequestFilter, ...] | None = None
    not_: PaymentRequestFilter | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationFilter(_Tree):
    """Raises: Invalid."""

    TIMED: ClassVar = ()

    closed: bool | None = None
    unread: bool | None = None
    assignee_ids: tuple[UUID | None, ...] | None = None  # None: unassigned
    channel_kinds: tuple[str, ...] | None = None  # of its messages
    tags: tuple[str, ...] | None = None  # any of these, its own or the contact's
    has_open_request: bool | None = None
    waiting_since: TimeRange | None = None
    search: str | None = None
    and_: tuple[ConversationFilter, ...] = ()
    or_: tuple[ConversationFilter, ...] | None = None
    not_: ConversationFilter | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactFilter(_Tree):
    """Raises: Invalid."""

    TIMED: ClassVar = ()

    tags: tuple[str, ...] | None = None  # any of these
    search: str | None = None
    created_at: TimeRange | None = None
    has_open_request: bool | None = None
    and_: tuple[ContactFilter, ...] = ()
    or_: tuple[ContactFilter, ...] | None = None
    not_: ContactFilter | None = None


Filter: TypeAlias = PaymentRequestFilter | ConversationFilter | ContactFilter


def checked_search(text: str) -> str:
    """Without space around it. Raises: Invalid."""
    if len(text.strip()) > LONGEST_SEARCH or "\x00" in text:
        raise Invalid(f"`search` must be text of at most {LONGEST_SEARCH} characters.", field="search")
    return text.strip()


def _search(text: str) -> str | None:
    found = checked_search(text)
    return found if searching.terms(found) else None


def _values(values: Iterable[Any], name: str) -> tuple[Any, ...]:
    kept = set(values)
    if len(kept) > MOST_VALUES:
        raise Invalid(f"A condition has at most {MOST_VALUES} values.", field=name)
    if name == "tags" and any(len(tag) > LONGEST_TAG or "\x00" in tag for tag in kept):
        raise Invalid(f"A label has at most {LONGEST_TAG} characters.", field=name)
    return tuple(sorted(kept, key=lambda value: (value is not None, str(value))))


def _sub_filters(given: Sequence[Any], *, neutral: bool) -> tuple[Any, ...]:
    # Empty ones change nothing in `and_`; in `or_` they match everything.
    kept = {filter for filter in given if not (neutral and filter.is_empty)}
    return tuple(sorted(kept, key=repr))
