"""The figures per currency from counts, in few rows. Triggers write changes (migration 0026); `fold` adds them to the counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
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
    _PART.format(whole=1, took=-1, values=_SUMS, table="figure_change", within="at >= ? AND at < ? GROUP BY currency"),
    _PART.format(
        whole=0, took="took", values=_SUMS, table="figure_change", within="at >= ? AND at < ? GROUP BY currency, took"
    ),
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
_SPAN: Final = "span = {} AND starts >= ? AND starts < ?"
_LAST: Final = 2**53  # s; later than every moment

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
class _Place(NamedTuple):
    """Of one value among the sorted times: its class, and its place in that class, from 0."""

    took: int
    place: int


_Times = tuple[int | None, int | None]  # median, 90th percentile


async def read(
    account_id: UUID, test_mode: bool, since: datetime, until: datetime | None = None
) -> list[CurrencyFigures]:
    starts, ends = int(since.timestamp()), _LAST if until is None else int(until.timestamp())
    whole = starts <= 0 and until is None
    # Counts have quarters, where every zone's days begin, of the last days.
    counted = _on_quarter(since) and (until is None or _on_quarter(until)) and starts >= _kept_since(datetime.now(UTC))
    if not whole and not counted:
        return await figure_facts.read(account_id, test_mode, since, until)
    spans = [(_WHOLE, [])] if whole else _spans(starts, ends)
    of = [account_id, test_mode]
    parts: list[tuple[str, list[int]]] = [
        (_COUNTED.format(whole=1, within=_WHOLE), []),
        (_CHANGED[0], [0, _LAST]),
        (_CHANGED[1], [starts, ends]),
        *((_COUNTED.format(whole=0, within=within), bounds) for within, bounds in spans),
        *((_TIMED.format(within=within), bounds) for within, bounds in spans),
    ]
    sql = " UNION ALL ".join(part for part, _ in parts)
    found = await database.records(sql, *(value for _, bounds in parts for value in (*of, *bounds)))
    outstanding: dict[str, int] = defaultdict(int)
    sums: dict[str, list[int]] = defaultdict(lambda: [0] * len(_VALUES))
    classes: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for of_all, currency, took, *values in found:
        if of_all:
            outstanding[currency] += int(values[_OUTSTANDING])
        elif took >= 0:
            classes[currency][took] += int(values[_PAID])
            sums[currency][_PAID] += int(values[_PAID])
        else:
            sums[currency] = [one + int(more) for one, more in zip(sums[currency], values, strict=True)]
    places = {currency: _places(counts) for currency, counts in classes.items()}
    times = await _times(account_id, test_mode, since, until, {name: found for name, found in places.items() if found})
    return [
        figures
        for currency in sorted(outstanding.keys() | sums.keys())
        if (figures := _figures(currency, test_mode, sums[currency], outstanding.get(currency, 0), times))
    ]


def _on_quarter(moment: datetime) -> bool:
    return not moment.microsecond and int(moment.timestamp()) % QUARTER == 0


def _spans(starts: int, ends: int) -> list[tuple[str, list[int]]]:
    """The rows that add up to the period: whole days in UTC, and quarters before and after them."""
    first, last = -(-starts // DAY) * DAY, ends // DAY * DAY
    if first >= last:
        return [(_SPAN.format(QUARTER), [starts, ends])]
    parts = [(QUARTER, starts, first), (DAY, first, last), (QUARTER, last, ends)]
    return [(_SPAN.format(span), [since, until]) for span, since, until in parts if since < until]


def _figures(
    currency: str, test_mode: bool, sums: Sequence[int], outstanding: int, times: Mapping[str, _Times]
) -> CurrencyFigures | None:
    sent, requested, converted, _, paid, charges, money = sums
    if not (sent or outstanding or paid or charges):
        return None
    median, p90 = times.get(currency, (None, None))
    return CurrencyFigures(
        currency=currency,
        test_mode=test_mode,
        requests_sent=sent,
        converted_count=converted,
        requested_minor=requested,
        paid_count=paid,
        paid_minor=money,
        outstanding_minor=outstanding,
        median_seconds_to_pay=median,
        p90_seconds_to_pay=p90,
    )


def _places(counts: Mapping[int, int]) -> list[_Place]:
    """Of the one or two middle values, and of the 90th percentile."""
    times = sorted((took, count) for took, count in counts.items() if count > 0)
    total = sum(count for _, count in times)
    found: list[_Place] = []
    for place in ((total + 1) // 2, (total + 2) // 2, (total * 9 + 9) // 10):
        before = 0
        for took, count in times:
            if before < place <= before + count:
                found.append(_Place(took, place - before - 1))
            before += count
    return found


async def _times(
    account_id: UUID, test_mode: bool, since: datetime, until: datetime | None, places: Mapping[str, Sequence[_Place]]
) -> dict[str, _Times]:
    """Median and 90th percentile per currency, from the values of the classes that hold them."""
    if not places:
        return {}
    engine = database.dialect()
    either = " OR ".join([f"currency = ? AND {_TOOK[engine]} IN (?, ?, ?)"] * len(places))
    found = await database.records(
        f"SELECT currency, {_TOOK[engine]}, {figure_facts.SECONDS[engine]} AS s FROM payment_request"  # noqa: S608 (only constants are put in)
        f" WHERE account_id = ? AND test_mode = ? AND {PAID_IN_FULL} AND paid_at >= sent_at AND ({either}) AND paid_at >= ?"
        f"{'' if until is None else ' AND paid_at < ?'} ORDER BY currency, s",
        account_id,
        test_mode,
        *(value for currency, of in places.items() for value in (currency, *(place.took for place in of))),
        *(moment for moment in (since, until) if moment is not None),
    )
    values: dict[tuple[str, int], list[float]] = defaultdict(list)
    for currency, took, seconds in found:
        values[currency, took].append(float(seconds))
    times: dict[str, _Times] = {}
    for currency, of in places.items():
        classes = [(values[currency, place.took], place.place) for place in of]
        if all(seconds for seconds, _ in classes):
            # A request that was paid since the counts were read moves a place by one.
            low, high, ninetieth = (seconds[min(place, len(seconds) - 1)] for seconds, place in classes)
            times[currency] = (round((low + high) / 2), round(ninetieth))
    return times


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
