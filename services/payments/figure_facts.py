"""The figures per currency, added up from all requests and facts: what the counts must equal. It reads the whole account."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from models import database
from services.thread.figures import ARRIVED, DUE, LEFT, NOT_UNDONE, PAID_IN_FULL, REQUESTED, SENT_AT

SECONDS: Final = {
    "sqlite": "(julianday(paid_at) - julianday(sent_at)) * 86400",
    "postgres": "extract(epoch FROM paid_at - sent_at)",
}

# Payments from before the sending, such as dated cash records, do not count.
_MEDIANS: Final = f"""
WITH took AS (SELECT currency, {{seconds}} AS s FROM payment_request
  WHERE account_id = ? AND test_mode = ? AND {PAID_IN_FULL} AND paid_at >= ? AND paid_at >= sent_at),
ranked AS (SELECT currency, s, row_number() OVER (PARTITION BY currency ORDER BY s) AS k,
  count(*) OVER (PARTITION BY currency) AS n FROM took)
SELECT currency, avg(s) AS median FROM ranked WHERE k IN ((n + 1) / 2, (n + 2) / 2) GROUP BY currency
"""  # noqa: S608 (constants)


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrencyFigures:
    currency: str
    test_mode: bool
    requests_sent: int
    converted_count: int  # of the requests sent in the range, those paid in full now
    requested_minor: int
    paid_count: int
    paid_minor: int
    outstanding_minor: int  # of all requests open now, whenever sent
    median_seconds_to_pay: int | None  # of the requests paid in the range


NAMES: Final = tuple(field.name for field in fields(CurrencyFigures) if field.name not in ("currency", "test_mode"))

_Rows = list[dict[str, Any]]


async def read(account_id: UUID, test_mode: bool, since: datetime) -> list[CurrencyFigures]:
    sent = await database.rows(
        "SELECT currency, count(*) AS n, sum(amount_minor) AS requested,"  # noqa: S608 (constants)
        f" sum(CASE WHEN {PAID_IN_FULL} THEN 1 ELSE 0 END) AS converted FROM payment_request"
        f" WHERE account_id = ? AND test_mode = ? AND {REQUESTED} AND {SENT_AT} >= ? GROUP BY currency",
        account_id,
        test_mode,
        since,
    )
    open_now = await database.rows(
        f"SELECT currency, sum({LEFT}) AS outstanding FROM payment_request"  # noqa: S608 (constants)
        f" WHERE account_id = ? AND test_mode = ? AND {DUE} GROUP BY currency",
        account_id,
        test_mode,
    )
    money = await database.rows(
        "SELECT currency, sum(amount_minor) AS paid FROM money_fact f WHERE account_id = ? AND test_mode = ?"  # noqa: S608 (only constants are put in)
        f" AND {ARRIVED} AND occurred_at >= ? AND {NOT_UNDONE} GROUP BY currency",
        account_id,
        test_mode,
        since,
    )
    paid = await database.rows(
        f"SELECT currency, count(*) AS n FROM payment_request WHERE account_id = ? AND test_mode = ? AND {PAID_IN_FULL}"  # noqa: S608 (only constants are put in)
        " AND paid_at >= ? GROUP BY currency",
        account_id,
        test_mode,
        since,
    )
    medians = await database.rows(_MEDIANS.format(seconds=SECONDS[database.dialect()]), account_id, test_mode, since)
    return _by_currency(sent, open_now, money, paid, medians, test_mode=test_mode)


def _by_currency(
    sent: _Rows, open_now: _Rows, money: _Rows, paid: _Rows, medians: _Rows, *, test_mode: bool
) -> list[CurrencyFigures]:
    by_currency: dict[str, dict[str, Any]] = defaultdict(dict)
    for row in sent:
        by_currency[row["currency"]] |= {
            "sent": int(row["n"]),
            "requested": int(row["requested"]),
            "converted": int(row["converted"]),
        }
    for row in open_now:
        by_currency[row["currency"]]["outstanding"] = int(row["outstanding"])
    for row in money:
        by_currency[row["currency"]]["paid"] = int(row["paid"])
    for row in paid:
        by_currency[row["currency"]]["count"] = int(row["n"])
    for row in medians:
        by_currency[row["currency"]]["median"] = round(float(row["median"]))
    return [
        CurrencyFigures(
            currency=currency,
            test_mode=test_mode,
            requests_sent=entry.get("sent", 0),
            converted_count=entry.get("converted", 0),
            requested_minor=entry.get("requested", 0),
            paid_count=entry.get("count", 0),
            paid_minor=entry.get("paid", 0),
            outstanding_minor=entry.get("outstanding", 0),
            median_seconds_to_pay=entry.get("median"),
        )
        for currency, entry in sorted(by_currency.items())
    ]
