"""The account's live figures per currency, of a period and by group, from counts of its requests and its ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Self
from uuid import UUID

from models import database, time_zones
from models.errors import Invalid
from services.payments import figure_counts, figure_facts
from services.payments.figure_facts import CurrencyFigures, Grouping

__all__ = ["CurrencyFigures"]

# In days, including today; None: all.
RANGES: Final[Mapping[str, int | None]] = {"TODAY": 1, "LAST_7_DAYS": 7, "LAST_30_DAYS": 30, "ALL_TIME": None}
BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
LAST: Final = datetime(9999, 12, 29, tzinfo=UTC)  # the calendar has two more days, in every zone
MOST_DAYS: Final = 400  # by day
MOST_GROUPS: Final = 1_000
MOST_DIMENSIONS: Final = 2

DAY: Final = "DAY"
_COLUMNS: Final = {
    # Of the newest message that carries the link; null: no message does.
    "CHANNEL": "(SELECT m.kind FROM message m WHERE m.id = r.last_message_id)",
    "AGENT": "r.created_by_id",
    "PROCESSOR": "r.processor_connection_id",
    "PRODUCT": "r.product_name",
}
_IDS: Final = frozenset({"AGENT", "PROCESSOR"})
DIMENSIONS: Final = (DAY, *_COLUMNS)

# Live while a live processor is connected, and always after a live request was sent through it.
_ACCOUNT: Final = """
SELECT time_zone, EXISTS (SELECT 1 FROM processor_connection p WHERE p.account_id = account.id AND NOT p.test_mode
  AND (p.connected OR EXISTS (SELECT 1 FROM payment_request r WHERE r.account_id = account.id
    AND r.processor_connection_id = p.id AND NOT r.test_mode AND r.status <> 'DRAFT'))) AS live
FROM account WHERE id = ?
"""


@dataclass(frozen=True, slots=True)
class Period:
    """A named range, which moves with the account's days, or one between two moments."""

    range: str | None = None
    since: datetime = BEGINNING
    until: datetime | None = None  # None: up to now

    @classmethod
    def between(cls, since: datetime | None, until: datetime | None) -> Self:
        """Raises: Invalid."""
        since = max(since or BEGINNING, BEGINNING)
        if until is not None and until <= since:
            raise Invalid("`until` must be later than `from`.", field="period")
        return cls(None, since, until)


@dataclass(frozen=True, slots=True)
class Board:
    """What a dashboard shows."""

    period: Period
    dimensions: tuple[str, ...] = ()

    def __str__(self) -> str:
        """A stable name, which `parse` reads."""
        period = self.period
        moments = (_micros(at) if at is not None else "" for at in (period.since, period.until))
        return "-".join([period.range or "~".join(map(str, moments)), *self.dimensions])

    @classmethod
    def parse(cls, name: str) -> Self:
        """Raises: ValueError, Invalid."""
        period, *dimensions = name.split("-")
        if not set(dimensions) <= set(DIMENSIONS):
            raise ValueError(name)
        if period in RANGES:
            return cls(Period(period), tuple(dimensions))
        since, until = period.split("~")
        return cls(Period.between(_moment(since), _moment(until) if until else None), tuple(dimensions))


def _micros(at: datetime) -> int:
    return (at - BEGINNING) // timedelta(microseconds=1)


def _moment(micros: str) -> datetime:
    try:
        return BEGINNING + timedelta(microseconds=int(micros))
    except OverflowError as error:
        raise ValueError(micros) from error


@dataclass(slots=True)
class Group:
    """Money and requests with the same keys; a key that was not asked for is missing, None is a group of its own."""

    keys: dict[str, Any]  # dimension -> date, channel kind, user id, connection id or product name
    by_currency: list[CurrencyFigures] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Figures:
    since: datetime
    until: datetime | None
    by_currency: Sequence[CurrencyFigures]
    groups: Sequence[Group]
    left_out: int  # groups beyond MOST_GROUPS


async def figures(account_id: UUID, board: Board, now: datetime) -> Figures:
    """Test money until the account asks for live money. Raises: Invalid."""
    period, dimensions = board.period, board.dimensions
    (account,) = await database.rows(_ACCOUNT, account_id)
    since = start_of(period.range, account["time_zone"], now) if period.range else period.since
    days = _days(account["time_zone"], since, min(period.until or now, LAST)) if DAY in dimensions else []
    if len(dimensions) > MOST_DIMENSIONS or len(set(dimensions)) < len(dimensions):
        raise Invalid(f"Group by at most {MOST_DIMENSIONS} different dimensions.", field="groupBy")
    of_all = await figure_counts.read(account_id, not account["live"], since, period.until)
    groups: list[Group] = []
    if dimensions and (days or DAY not in dimensions):
        groups = await _groups(account_id, not account["live"], since, period.until, dimensions, days)
    shown = sorted(sorted(groups, key=_size, reverse=True)[:MOST_GROUPS], key=_order)
    return Figures(since, period.until, of_all, shown, len(groups) - len(shown))


async def _groups(
    account_id: UUID,
    test_mode: bool,
    since: datetime,
    until: datetime | None,
    dimensions: Sequence[str],
    days: Sequence[tuple[date, datetime]],
) -> list[Group]:
    names = [name for name in dimensions if name != DAY]
    grouping = Grouping(tuple(_COLUMNS[name] for name in names), tuple(start for _, start in days))
    if days:
        names.append(DAY)
    groups: dict[tuple[Any, ...], Group] = {}
    if names == [DAY]:
        groups = {(number,): Group({DAY: day}) for number, (day, _) in enumerate(days[:-1])}
    for key, of_one in await figure_facts.grouped(account_id, test_mode, since, until, grouping):
        if key not in groups:
            groups[key] = Group({name: _value(name, value, days) for name, value in zip(names, key, strict=True)})
        groups[key].by_currency.append(of_one)
    return sorted(groups.values(), key=_order)  # of groups of one size, the first are given


def _value(name: str, value: Any, days: Sequence[tuple[date, datetime]]) -> Any:
    if name == DAY:
        return days[value][0]
    return database.to_uuid(value) if name in _IDS and value is not None else value


def _size(group: Group) -> int:
    return sum(max(of_one.requests_sent, of_one.paid_count) for of_one in group.by_currency)


def _order(group: Group) -> tuple[Any, ...]:
    """By day; then the most requests first."""
    return (group.keys.get(DAY, date.min), -_size(group), *(str(value) for value in group.keys.values()))


def _days(time_zone: str, since: datetime, until: datetime) -> list[tuple[date, datetime]]:
    """The account's days from `since` to `until`, and the day after them; each with its start in UTC. Raises: Invalid."""
    if since >= until:
        return []
    there, longest = time_zones.zone(time_zone), timedelta(days=MOST_DAYS)
    # By the clock: an hour that it skips or repeats makes no day.
    if until.astimezone(there).replace(tzinfo=None) - since.astimezone(there).replace(tzinfo=None) > longest:
        raise Invalid(f"By day, choose a period of at most {MOST_DAYS} days.", field="period")
    days = []
    start = time_zones.start_of_day(time_zone, since)
    while True:
        days.append((start.astimezone(there).date(), start))
        if start >= until:
            return days
        start = time_zones.next_midnight(time_zone, start)


def start_of(range: str, time_zone: str, now: datetime) -> datetime:
    """The start of a range by the account's days, in UTC. Raises: KeyError."""
    days = RANGES[range]
    return BEGINNING if days is None else time_zones.start_of_day(time_zone, now, days_ahead=1 - days)


async def day_ends(account_id: UUID, now: datetime) -> datetime:
    (account,) = await database.rows("SELECT time_zone FROM account WHERE id = ?", account_id)
    return time_zones.next_midnight(account["time_zone"], now)
