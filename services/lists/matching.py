"""Filters decided in memory, from one snapshot of an item. Equal to sql.py: tests/services/lists/test_matching.py compares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, TypeAlias
from uuid import UUID

from models import ledger, searching
from services.lists.filters import ConversationFilter, MoneyRange, PaymentRequestFilter, TimeRange

KEPT: Final = 4_096  # compiled filters


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSnapshot:
    """A payment request with what filters read beside it. The contact and the conversation are the kept ones."""

    id: UUID
    discarded: bool
    status: str
    refund_state: str
    dispute_state: str
    delivery_state: str
    unresolved: bool
    amount_minor: int
    amount_paid_minor: int
    waived_minor: int
    excess_minor: int
    late_minor: int
    currency: str
    test_mode: bool
    created_at: datetime
    updated_at: datetime
    due_at: datetime | None
    paid_at: datetime | None
    processor_id: UUID
    channel_kind: str | None
    assignee_id: UUID | None
    contact_ids: frozenset[UUID]  # of the contact and of those merged with it
    tags: frozenset[str]
    search: str | None
    contact_search: str | None

    @property
    def due_minor(self) -> int:
        return max(0, self.amount_minor - self.amount_paid_minor - self.waived_minor)

    @property
    def is_outstanding(self) -> bool:
        return self.status in ledger.OUTSTANDING

    def is_overdue(self, now: datetime) -> bool:
        return self.due_at is not None and self.due_at < now and self.is_outstanding

    @property
    def needs_attention(self) -> bool:
        return (
            self.unresolved
            or self.excess_minor > 0
            or self.late_minor > 0
            or self.dispute_state == "NEEDS_RESPONSE"
            or (self.delivery_state == "FAILED" and self.is_outstanding)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationSnapshot:
    """A conversation with what filters read of its contact."""

    id: UUID
    merged: bool
    closed: bool
    unread: bool
    assignee_id: UUID | None
    channel_kinds: str  # each between two spaces
    waiting_since: datetime | None
    last_activity_at: datetime
    created_at: datetime
    has_open_request: bool
    merged_ids: frozenset[UUID]
    contact_ids: frozenset[UUID]
    tags: frozenset[str]  # also the contact's
    contact_search: str | None


Snapshot: TypeAlias = RequestSnapshot | ConversationSnapshot
Test: TypeAlias = Callable[[Any, datetime], bool]  # of a snapshot and the time


def matches(filter: PaymentRequestFilter | ConversationFilter, snapshot: Snapshot, now: datetime) -> bool:
    if isinstance(snapshot, RequestSnapshot):
        return not snapshot.discarded and _compiled(filter)(snapshot, now)
    return not snapshot.merged and _compiled(filter)(snapshot, now)


@lru_cache(maxsize=KEPT)
def _compiled(filter: PaymentRequestFilter | ConversationFilter) -> Test:
    leaves = _REQUEST if isinstance(filter, PaymentRequestFilter) else _CONVERSATION
    tests = [leaves[name](value) for name, value in filter.conditions]
    tests += [_compiled(one) for one in filter.and_]
    if filter.or_ is not None:
        tests.append(_any_of([_compiled(one) for one in filter.or_]))
    if filter.not_ is not None:
        tests.append(_none_of(_compiled(filter.not_)))
    return _all_of(tests)


def _all_of(tests: Sequence[Test]) -> Test:
    return tests[0] if len(tests) == 1 else lambda item, now: all(test(item, now) for test in tests)


def _any_of(tests: Sequence[Test]) -> Test:
    return lambda item, now: any(test(item, now) for test in tests)


def _none_of(test: Test) -> Test:
    return lambda item, now: not test(item, now)


# --- conditions ------------------------------------------------------------------------------------------------------
Leaf: TypeAlias = Callable[[Any], Test]  # of the condition's value


def _one_of(read: Callable[[Any], Any]) -> Leaf:
    def leaf(values: Sequence[Any]) -> Test:
        wanted = frozenset(values)
        return lambda item, now: read(item) in wanted

    return leaf


def _shares(read: Callable[[Any], frozenset[Any]]) -> Leaf:
    def leaf(values: Sequence[Any]) -> Test:
        wanted = frozenset(values)
        return lambda item, now: not wanted.isdisjoint(read(item))

    return leaf


def _equals(read: Callable[[Any], bool]) -> Leaf:
    return lambda wanted: lambda item, now: read(item) is wanted


def _during(read: Callable[[Any], datetime | None]) -> Leaf:
    def leaf(range: TimeRange) -> Test:
        def test(item: Any, now: datetime) -> bool:
            at = read(item)
            return (
                at is not None and (range.start is None or at >= range.start) and (range.end is None or at < range.end)
            )

        return test

    return leaf


def _overdue(wanted: bool) -> Test:
    return lambda request, now: request.is_overdue(now) is wanted


def _amount(range: MoneyRange) -> Test:
    least, most = range.minimum_minor, range.maximum_minor
    return lambda request, now: (
        request.currency == range.currency
        and (least is None or request.amount_minor >= least)
        and (most is None or request.amount_minor <= most)
    )


def _kinds(kinds: Sequence[str]) -> Test:
    wanted = [f" {kind} " for kind in kinds]
    return lambda conversation, now: any(kind in conversation.channel_kinds for kind in wanted)


def _request_searched(search: str) -> Test:
    terms, amounts = searching.terms(search), frozenset(searching.amounts(search))
    return lambda request, now: (
        _contains(request.search, terms)
        or _contains(request.contact_search, terms)
        or (request.currency, request.amount_minor) in amounts
    )


def _conversation_searched(search: str) -> Test:
    terms = searching.terms(search)
    return lambda conversation, now: _contains(conversation.contact_search, terms)


def _contains(text: str | None, terms: Sequence[str]) -> bool:
    return text is not None and any(term in text for term in terms)


_REQUEST: Final[Mapping[str, Leaf]] = {
    "status": _one_of(lambda request: request.status),
    "overdue": _overdue,
    "needs_attention": _equals(lambda request: request.needs_attention),
    "refund_state": _one_of(lambda request: request.refund_state),
    "dispute_state": _one_of(lambda request: request.dispute_state),
    "delivery_state": _one_of(lambda request: request.delivery_state),
    "created_at": _during(lambda request: request.created_at),
    "updated_at": _during(lambda request: request.updated_at),
    "due_at": _during(lambda request: request.due_at),
    "paid_at": _during(lambda request: request.paid_at),
    "amount": _amount,
    "contact_ids": _shares(lambda request: request.contact_ids),
    "assignee_ids": _one_of(lambda request: request.assignee_id),
    "channel_kinds": _one_of(lambda request: request.channel_kind),
    "processor_ids": _one_of(lambda request: request.processor_id),
    "tags": _shares(lambda request: request.tags),
    "test_mode": _equals(lambda request: request.test_mode),
    "search": _request_searched,
}
_CONVERSATION: Final[Mapping[str, Leaf]] = {
    "closed": _equals(lambda conversation: conversation.closed),
    "unread": _equals(lambda conversation: conversation.unread),
    "assignee_ids": _one_of(lambda conversation: conversation.assignee_id),
    "channel_kinds": _kinds,
    "tags": _shares(lambda conversation: conversation.tags),
    "has_open_request": _equals(lambda conversation: conversation.has_open_request),
    "waiting_since": _during(lambda conversation: conversation.waiting_since),
    "search": _conversation_searched,
}
