"""The figures per currency, added up from requests and facts: what the counts must equal. It reads all of the period."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from itertools import pairwise
from typing import Any, Final, NamedTuple
from uuid import UUID

from models import database
from services.thread.figures import ARRIVED, DUE, LEFT, NOT_UNDONE, PAID_IN_FULL, REQUESTED, SENT_AT

SECONDS: Final = {
    "sqlite": "(julianday(paid_at) - julianday(sent_at)) * 86400",
    "postgres": "extract(epoch FROM paid_at - sent_at)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrencyFigures:
    currency: str
    test_mode: bool
    requests_sent: int
    converted_count: int  # of the requests sent in the period, those paid in full now
    requested_minor: int
    paid_count: int
    paid_minor: int
    outstanding_minor: int  # of all requests open now, whenever sent
    median_seconds_to_pay: int | None  # of the requests paid in the period
    p90_seconds_to_pay: int | None  # nearest rank


NAMES: Final = tuple(field.name for field in fields(CurrencyFigures) if field.name not in ("currency", "test_mode"))


@dataclass(frozen=True, slots=True)
class Grouping:
    """What names a group: expressions of payment_request `r`, then the number of the day on which it happened."""

    columns: tuple[str, ...] = ()
    days: tuple[datetime, ...] = ()  # where each day begins, and where the last one ends


Key = tuple[Any, ...]
_ALL: Final = Grouping()


class _Measure(NamedTuple):
    """What one SELECT adds up: `values` of the rows that match, each at a moment."""

    values: str
    where: str
    at: str
    table: str = "payment_request r"
    of: str = "r"  # the table with account, mode and currency
    bounded: bool = True  # by the period


_SENT: Final = _Measure(
    f"count(*), sum(amount_minor), sum(CASE WHEN {PAID_IN_FULL} THEN 1 ELSE 0 END)", REQUESTED, SENT_AT
)
_OPEN: Final = _Measure(f"sum({LEFT})", DUE, SENT_AT, bounded=False)
_MONEY: Final = _Measure(
    "sum(f.amount_minor)",
    f"{ARRIVED} AND {NOT_UNDONE}",
    "f.occurred_at",
    "money_fact f",
    "f",
)
_PAID: Final = _Measure("count(*)", PAID_IN_FULL, "paid_at")
# Payments from before the sending, such as dated cash records, do not count.
_TOOK: Final = _Measure("", f"{PAID_IN_FULL} AND paid_at >= sent_at", "paid_at")


async def read(
    account_id: UUID, test_mode: bool, since: datetime, until: datetime | None = None
) -> list[CurrencyFigures]:
    return [figures for _, figures in await grouped(account_id, test_mode, since, until, _ALL)]


async def grouped(
    account_id: UUID, test_mode: bool, since: datetime, until: datetime | None, grouping: Grouping
) -> list[tuple[Key, CurrencyFigures]]:
    """Per group and currency. By day, `outstanding_minor` is of the requests sent on that day."""
    asked = (account_id, test_mode, since, until, grouping)
    sent = await _sums(_SENT, *asked)
    open_now = await _sums(_OPEN, *asked)
    money = await _sums(_MONEY, *asked)
    paid = await _sums(_PAID, *asked)
    times = await _times(*asked)
    keys = sorted({*sent, *open_now, *money, *paid}, key=lambda key: tuple(map(str, key)))
    return [
        (
            key[1:],
            CurrencyFigures(
                currency=key[0],
                test_mode=test_mode,
                **dict(
                    zip(("requests_sent", "requested_minor", "converted_count"), sent.get(key, (0, 0, 0)), strict=True)
                ),
                outstanding_minor=open_now.get(key, (0,))[0],
                paid_minor=money.get(key, (0,))[0],
                paid_count=paid.get(key, (0,))[0],
                median_seconds_to_pay=times.get(key, (None, None))[0],
                p90_seconds_to_pay=times.get(key, (None, None))[1],
            ),
        )
        for key in keys
    ]


async def _sums(
    measure: _Measure, account_id: UUID, test_mode: bool, since: datetime, until: datetime | None, grouping: Grouping
) -> dict[Key, tuple[int, ...]]:
    select = _Select(measure, grouping, since, until)
    size = len(select.keys)
    places = ", ".join(str(n + 1) for n in range(size))
    sql = f"SELECT {', '.join(select.keys)}, {measure.values} FROM {select.source} GROUP BY {places}"  # noqa: S608 (constants)
    found = await database.scanned_records(sql, *select.days, account_id, test_mode, *select.bounds)
    return {tuple(row[:size]): tuple(map(int, row[size:])) for row in found}


async def _times(
    account_id: UUID, test_mode: bool, since: datetime, until: datetime | None, grouping: Grouping
) -> dict[Key, tuple[int, int]]:
    """The median of the seconds to payment, and their 90th percentile."""
    select = _Select(_TOOK, grouping, since, until)
    size = len(select.keys)
    took = ", ".join(f"{key} AS k{n}" for n, key in enumerate(select.keys))
    keys = ", ".join(f"k{n}" for n in range(size))
    found = await database.scanned_records(
        f"WITH took AS (SELECT {took}, {SECONDS[database.dialect()]} AS s FROM {select.source}),"  # noqa: S608 (constants)
        f" ranked AS (SELECT took.*, row_number() OVER (PARTITION BY {keys} ORDER BY s) AS place,"
        f" count(*) OVER (PARTITION BY {keys}) AS total FROM took)"
        f" SELECT {keys}, avg(CASE WHEN place IN ((total + 1) / 2, (total + 2) / 2) THEN s END),"
        f" max(CASE WHEN place = (total * 9 + 9) / 10 THEN s END) FROM ranked GROUP BY {keys}",
        *select.days,
        account_id,
        test_mode,
        *select.bounds,
    )
    return {tuple(row[:size]): (round(float(row[size])), round(float(row[size + 1]))) for row in found}


class _Select:
    """The parts of a SELECT that reads a measure's rows by group."""

    def __init__(self, measure: _Measure, grouping: Grouping, since: datetime, until: datetime | None) -> None:
        keys = [f"{measure.of}.currency", *grouping.columns]
        table = measure.table
        if measure.of != "r" and grouping.columns:
            table += f" JOIN payment_request r ON r.id = {measure.of}.payment_request_id"
        join, where = "", f"{measure.of}.account_id = ? AND {measure.of}.test_mode = ? AND {measure.where}"
        self.days: list[datetime] = []
        self.bounds: list[datetime] = []
        if grouping.days:
            mark = "CAST(? AS TIMESTAMPTZ)" if database.dialect() == "postgres" else "?"
            each = ", ".join(f"({n}, {mark}, {mark})" for n in range(len(grouping.days) - 1))
            join = f" JOIN (VALUES {each}) AS d ON {measure.at} >= d.column2 AND {measure.at} < d.column3"
            self.days = [moment for day in pairwise(grouping.days) for moment in day]
            keys.append("d.column1")
        if measure.bounded or grouping.days:
            where += f" AND {measure.at} >= ?" + (f" AND {measure.at} < ?" if until is not None else "")
            self.bounds = [moment for moment in (since, until) if moment is not None]
        self.keys = keys
        self.source = f"{table}{join} WHERE {where}"
