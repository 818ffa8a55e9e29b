"""The figures per currency from counts, in few rows. Triggers write changes (migration 0026); `fold` adds them to the counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from models import database
from services.core import jobs
from services.payments import figure_facts
from services.payments.figure_facts import CurrencyFigures
from services.thread.figures import PAID_IN_FULL

BATCH: Final = 500  # changes
ROWS: Final = 50  # in one statement
QUARTER: Final = 900  # s; every time zone's day begins on one
DAY: Final = 86_400
ALL: Final = 0
SPANS: Final = (QUARTER, DAY, ALL)
KEPT: Final = timedelta(days=40)  # for quarters and days; the longest range but ALL_TIME has 30

_DIGITS_SQLITE: Final = "CAST(CAST((julianday(paid_at) - julianday(sent_at)) * 86400 AS INTEGER) AS TEXT)"
_DIGITS_POSTGRES: Final = "floor(extract(epoch FROM paid_at - sent_at))::bigint::text"

_KEY: Final = ("account_id", "test_mode", "span", "starts", "currency", "took")
_VALUES: Final = (
    "sent_count",
    "requested_minor",
    "converted_count",
    "outstanding_minor",
    "paid_count",
    "charge_count",
    "paid_minor",
)
_OUTSTANDING: Final = _VALUES.index("outstanding_minor")
_PAID: Final = _VALUES.index("paid_count")
_LIST: Final = ", ".join(_VALUES)
_SUMS: Final = ", ".join(f"sum({name}) AS {name}" for name in _VALUES)

# `whole`: of all requests, else of the range. One statement sees one moment, while `fold` moves rows.
_PART: Final = (
    "SELECT {whole} AS whole, currency, {took} AS took, {values} FROM {table}"
    " WHERE account_id = ? AND test_mode = ? AND {within}"
)
_CHANGED: Final = (
    _PART.format(whole=1, took=-1, values=_SUMS, table="figure_change", within="at >= ? GROUP BY currency"),
    _PART.format(whole=0, took="took", values=_SUMS, table="figure_change", within="at >= ? GROUP BY currency, took"),
)
_COUNTED: Final = _PART.format(
    whole="{whole}", took=-1, values=_SUMS, table="figure_count", within="{within} AND took = -1 GROUP BY currency"
)
# Rows with a class have nothing but paid requests.
_TIMED: Final = _PART.format(
    whole=0,
    took="took",
    values=", ".join("sum(paid_count)" if name == "paid_count" else "0" for name in _VALUES),
    table="figure_count",
    within="{within} AND took >= 0 GROUP BY currency, took",
)
_WHOLE: Final = "span = 0 AND starts = 0"
_QUARTERS: Final = f"span = {QUARTER} AND starts >= ? AND starts < ?"
_DAYS: Final = f"span = {DAY} AND starts >= ?"

# As in the index payment_request_took: the number of digits and the first two of them.
_TOOK: Final = {
    engine: f"CASE WHEN length({digits}) < 3 THEN {whole} ELSE length({digits}) * 100 + {first_two} END"
    for engine, digits, whole, first_two in (
        (
            "sqlite",
            _DIGITS_SQLITE,
            f"CAST({_DIGITS_SQLITE} AS INTEGER)",
            f"CAST(substr({_DIGITS_SQLITE}, 1, 2) AS INTEGER)",
        ),
        ("postgres", _DIGITS_POSTGRES, f"({_DIGITS_POSTGRES})::int", f"left({_DIGITS_POSTGRES}, 2)::int"),
    )
}

_UPSERT: Final = " ON CONFLICT ({}) DO UPDATE SET {}".format(
    ", ".join(_KEY), ", ".join(f"{name} = figure_count.{name} + excluded.{name}" for name in _VALUES)
)


# ------------------------------------------------------------------------------------------------------------- reading
@dataclass(frozen=True, slots=True)
class _Middle:
    """Where the median of a currency is: the classes of its one or two values, and their places among those classes' values."""

    currency: str
    classes: tuple[int, int]
    places: tuple[int, int]


async def read(account_id: UUID, test_mode: bool, since: datetime) -> list[CurrencyFigures]:
    starts = int(since.timestamp())
    if starts % QUARTER:  # no zone's day begins there today
        return await figure_facts.read(account_id, test_mode, since)
    whole_days = -(-starts // DAY) * DAY
    ranges: list[tuple[str, list[int]]] = [(_QUARTERS, [starts, whole_days]), (_DAYS, [whole_days])]
    if starts <= 0:
        ranges = [(_WHOLE, [])]
    of = [account_id, test_mode]
    parts: list[tuple[str, list[int]]] = [
        (_COUNTED.format(whole=1, within=_WHOLE), []),
        (_CHANGED[0], [0]),
        (_CHANGED[1], [starts]),
        *((_COUNTED.format(whole=0, within=within), bounds) for within, bounds in ranges),
        *((_TIMED.format(within=within), bounds) for within, bounds in ranges),
    ]
    sql = " UNION ALL ".join(part for part, _ in parts)
    found = await database.records(sql, *(value for _, bounds in parts for value in (*of, *bounds)))
    outstanding: dict[str, int] = defaultdict(int)
    sums: dict[str, list[int]] = defaultdict(lambda: [0] * len(_VALUES))
    classes: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for whole, currency, took, *values in found:
        if whole:
            outstanding[currency] += int(values[_OUTSTANDING])
        elif took >= 0:
            classes[currency][took] += int(values[_PAID])
            sums[currency][_PAID] += int(values[_PAID])
        else:
            sums[currency] = [one + int(more) for one, more in zip(sums[currency], values, strict=True)]
    times = {
        currency: sorted((took, count) for took, count in counts.items() if count > 0)
        for currency, counts in classes.items()
    }
    medians = await _medians(
        account_id, test_mode, since, [_middle(currency, counts) for currency, counts in times.items() if counts]
    )
    return [
        figures
        for currency in sorted(outstanding.keys() | sums.keys())
        if (figures := _figures(currency, test_mode, sums[currency], outstanding.get(currency, 0), medians))
    ]


def _figures(
    currency: str, test_mode: bool, sums: Sequence[int], outstanding: int, medians: Mapping[str, int]
) -> CurrencyFigures | None:
    sent, requested, converted, _, paid, charges, money = sums
    if not (sent or outstanding or paid or charges):
        return None
    return CurrencyFigures(
        currency=currency,
        test_mode=test_mode,
        requests_sent=sent,
        converted_count=converted,
        requested_minor=requested,
        paid_count=paid,
        paid_minor=money,
        outstanding_minor=outstanding,
        median_seconds_to_pay=medians.get(currency),
    )


def _middle(currency: str, times: Sequence[tuple[int, int]]) -> _Middle:
    """`times`: classes in order, and how many values each has."""
    total = sum(count for _, count in times)
    wanted = ((total + 1) // 2, (total + 2) // 2)
    found: list[int] = []
    before, first = 0, None
    for took, count in times:
        for place in wanted[len(found) :]:
            if place <= before + count:
                first = before if first is None else first
                found.append(took)
        before += count
    return _Middle(currency, (found[0], found[1]), (wanted[0] - 1 - (first or 0), wanted[1] - 1 - (first or 0)))


async def _medians(account_id: UUID, test_mode: bool, since: datetime, middles: Sequence[_Middle]) -> dict[str, int]:
    """Read the values of the classes that hold the medians."""
    if not middles:
        return {}
    engine = database.dialect()
    either = " OR ".join([f"currency = ? AND {_TOOK[engine]} IN (?, ?)"] * len(middles))
    found = await database.records(
        f"SELECT currency, {figure_facts.SECONDS[engine]} AS s FROM payment_request WHERE account_id = ? AND test_mode = ?"  # noqa: S608 (only constants are put in)
        f" AND {PAID_IN_FULL} AND paid_at >= sent_at AND ({either}) AND paid_at >= ? ORDER BY currency, s",
        account_id,
        test_mode,
        *(value for middle in middles for value in (middle.currency, *middle.classes)),
        since,
    )
    values: dict[str, list[Any]] = defaultdict(list)
    for currency, seconds in found:
        values[currency].append(seconds)
    medians = {}
    for middle in middles:
        if of_one := values[middle.currency]:
            # A request that was paid since the counts were read moves a place by one.
            low, high = (of_one[min(place, len(of_one) - 1)] for place in middle.places)
            medians[middle.currency] = round(float((low + high) / 2))
    return medians


# ------------------------------------------------------------------------------------------------------------- folding
@jobs.periodic("figures.fold", 10)
async def fold_changes(job: jobs.JobContext) -> None:
    while await fold(datetime.now(UTC)):
        pass


@jobs.periodic("figures.prune", 3600)
async def prune(job: jobs.JobContext) -> None:
    await database.execute("DELETE FROM figure_count WHERE span > 0 AND starts < ?", _kept_since(datetime.now(UTC)))


async def fold(now: datetime) -> int:
    """Add the oldest changes to the counts; return how many. Processes may run it at the same time."""
    skip = "" if database.dialect() == "sqlite" else " FOR UPDATE SKIP LOCKED"
    async with database.transaction():
        changes = await database.records(
            f"SELECT id, account_id, test_mode, currency, at, took, {_LIST} FROM figure_change ORDER BY id LIMIT {BATCH}{skip}"  # noqa: S608 (only constants are put in)
        )
        if not changes:
            return 0
        kept_since = _kept_since(now)
        sums: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0] * len(_VALUES))
        for _, account_id, test_mode, currency, at, took, *values in changes:
            for span in SPANS if at >= kept_since else (ALL,):
                key = (account_id, test_mode, span, at - at % span if span else 0, currency, took)
                sums[key] = [one + more for one, more in zip(sums[key], values, strict=True)]
        # In one order: another process may fold other changes of the same account.
        counts = [(*key, *values) for key, values in sorted(sums.items(), key=lambda of: tuple(map(str, of[0])))]
        for start in range(0, len(counts), ROWS):
            await _add(counts[start : start + ROWS])
        within, ids = database.among("id", [change[0] for change in changes])
        await database.execute(f"DELETE FROM figure_change WHERE {within}", ids)  # noqa: S608 (only constants are put in)
    return len(changes)


async def _add(counts: Sequence[tuple[Any, ...]]) -> None:
    marks = ", ".join([f"({database.placeholders(len(_KEY) + len(_VALUES))})"] * len(counts))
    await database.execute(
        f"INSERT INTO figure_count ({', '.join(_KEY)}, {_LIST}) VALUES {marks}{_UPSERT}",  # noqa: S608 (only constants are put in)
        *(value for count in counts for value in count),
    )


def _kept_since(now: datetime) -> int:
    return int((now - KEPT).timestamp()) // DAY * DAY
