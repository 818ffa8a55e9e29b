"""The account's live figures, per currency, from its requests and its ledger. Coalescing updates is the subscription's business."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from models import database

RANGES: Final[Mapping[str, int]] = {"TODAY": 1, "LAST_7_DAYS": 7, "LAST_30_DAYS": 30}  # days, today included


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrencyFigures:
    """Figures of one currency; amounts in its minor units. `paid_minor` is counted money that arrived, part payments too."""

    currency: str
    test_mode: bool
    requests_sent: int
    requested_minor: int
    paid_count: int
    paid_minor: int
    outstanding_minor: int  # of all requests that are open now, whenever they were sent
    median_seconds_to_pay: int | None


async def figures(account_id: UUID, range: str, now: datetime) -> list[CurrencyFigures]:
    """One row per currency with anything to show, in order of the code. Days are those of the account's time zone.

    Live money; test money only while the account has no live processor. Four queries.
    """
    account = (
        await database.rows(
            "SELECT time_zone, EXISTS (SELECT 1 FROM processor_connection p WHERE p.account_id = account.id"
            " AND NOT p.test_mode) AS live FROM account WHERE id = ?",
            account_id,
        )
    )[0]
    test_mode = not account["live"]
    since = start_of(range, account["time_zone"], now)
    sent = await database.rows(
        "SELECT currency, count(*) AS n, sum(amount_minor) AS requested FROM payment_request"
        " WHERE account_id = ? AND test_mode = ? AND discarded_at IS NULL AND sent_at >= ? GROUP BY currency",
        account_id,
        test_mode,
        since,
    )
    open_now = await database.rows(
        "SELECT currency, sum(amount_minor - amount_paid_minor) AS outstanding FROM payment_request"
        " WHERE account_id = ? AND test_mode = ? AND status IN ('SENT', 'PROCESSING', 'PARTIALLY_PAID')"
        " AND amount_minor > amount_paid_minor AND discarded_at IS NULL GROUP BY currency",
        account_id,
        test_mode,
    )
    money = await database.rows(
        "SELECT currency, sum(amount_minor) AS paid FROM money_fact f WHERE account_id = ? AND test_mode = ?"
        " AND kind = 'CHARGE' AND outcome = 'SUCCEEDED' AND counted AND occurred_at >= ? AND NOT EXISTS ("
        "SELECT 1 FROM money_fact undone WHERE f.processor_connection_id IS NULL AND undone.processor_connection_id IS NULL"
        " AND undone.account_id = f.account_id AND undone.kind = f.kind AND undone.external_id = f.external_id"
        " AND undone.outcome = 'CANCELED') GROUP BY currency",
        account_id,
        test_mode,
        since,
    )
    paid = await database.rows(
        "SELECT currency, sent_at, paid_at FROM payment_request"
        " WHERE account_id = ? AND test_mode = ? AND status = 'PAID' AND paid_at >= ?",
        account_id,
        test_mode,
        since,
    )
    by_currency: dict[str, dict[str, Any]] = defaultdict(dict)
    for row in sent:
        by_currency[row["currency"]] |= {"sent": int(row["n"]), "requested": int(row["requested"])}
    for row in open_now:
        by_currency[row["currency"]]["outstanding"] = int(row["outstanding"])
    for row in money:
        by_currency[row["currency"]]["paid"] = int(row["paid"])
    seconds: dict[str, list[float]] = defaultdict(list)
    for row in paid:
        entry = by_currency[row["currency"]]
        entry["count"] = entry.get("count", 0) + 1
        if row["sent_at"] is not None:
            took = database.to_time(row["paid_at"]) - database.to_time(row["sent_at"])
            seconds[row["currency"]].append(max(0.0, took.total_seconds()))
    return [
        CurrencyFigures(
            currency=currency,
            test_mode=test_mode,
            requests_sent=entry.get("sent", 0),
            requested_minor=entry.get("requested", 0),
            paid_count=entry.get("count", 0),
            paid_minor=entry.get("paid", 0),
            outstanding_minor=entry.get("outstanding", 0),
            median_seconds_to_pay=round(median(seconds[currency])) if seconds[currency] else None,
        )
        for currency, entry in sorted(by_currency.items())
    ]


def start_of(range: str, time_zone: str, now: datetime) -> datetime:
    """The first moment of a range, in UTC: midnight of the account's day, so many days back. Raises: KeyError for an unknown range."""
    today = now.astimezone(ZoneInfo(time_zone)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (today - timedelta(days=RANGES[range] - 1)).astimezone(UTC)
