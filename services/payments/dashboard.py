"""The account's live figures per currency, from its requests and its ledger."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from models import database, time_zones
from services.thread.figures import ARRIVED, DUE, LEFT, NOT_UNDONE, PAID_IN_FULL, REQUESTED, SENT_AT

# In days, including today; None: all.
RANGES: Final[Mapping[str, int | None]] = {"TODAY": 1, "LAST_7_DAYS": 7, "LAST_30_DAYS": 30, "ALL_TIME": None}
BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)

# Live while a live processor is connected, and always after a live request was sent through it.
_ACCOUNT: Final = """
SELECT time_zone, EXISTS (SELECT 1 FROM processor_connection p WHERE p.account_id = account.id AND NOT p.test_mode
  AND (p.connected OR EXISTS (SELECT 1 FROM payment_request r WHERE r.account_id = account.id
    AND r.processor_connection_id = p.id AND NOT r.test_mode AND r.status <> 'DRAFT'))) AS live
FROM account WHERE id = ?
"""

# Payments from before the sending, such as dated cash records, do not count.
_MEDIANS: Final = f"""
WITH took AS (SELECT currency, {{seconds}} AS s FROM payment_request
  WHERE account_id = ? AND test_mode = ? AND {PAID_IN_FULL} AND paid_at >= ? AND paid_at >= sent_at),
ranked AS (SELECT currency, s, row_number() OVER (PARTITION BY currency ORDER BY s) AS k,
  count(*) OVER (PARTITION BY currency) AS n FROM took)
SELECT currency, avg(s) AS median FROM ranked WHERE k IN ((n + 1) / 2, (n + 2) / 2) GROUP BY currency
"""  # noqa: S608 (constants)
_SECONDS: Final = {
    "sqlite": "(julianday(paid_at) - julianday(sent_at)) * 86400",
    "postgres": "extract(epoch FROM paid_at - sent_at)",
}


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


_Rows = list[dict[str, Any]]


async def figures(account_id: UUID, range: str, now: datetime) -> list[CurrencyFigures]:
    """One row per currency; test money until the account asks for live money."""
    (account,) = await database.rows(_ACCOUNT, account_id)
    test_mode = not account["live"]
    since = start_of(range, account["time_zone"], now)
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
    medians = await database.rows(_MEDIANS.format(seconds=_SECONDS[database.dialect()]), account_id, test_mode, since)
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


def start_of(range: str, time_zone: str, now: datetime) -> datetime:
    """The start of a range by the account's days, in UTC. Raises: KeyError."""
    days = RANGES[range]
    return BEGINNING if days is None else time_zones.start_of_day(time_zone, now, days_ahead=1 - days)


async def day_ends(account_id: UUID, now: datetime) -> datetime:
    (account,) = await database.rows("SELECT time_zone FROM account WHERE id = ?", account_id)
    return time_zones.next_midnight(account["time_zone"], now)
