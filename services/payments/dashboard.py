"""The account's live figures per currency, from counts of its requests and its ledger."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from models import database, time_zones
from services.payments import figure_counts
from services.payments.figure_facts import CurrencyFigures

__all__ = ["CurrencyFigures"]

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


async def figures(account_id: UUID, range: str, now: datetime) -> list[CurrencyFigures]:
    """One row per currency; test money until the account asks for live money."""
    (account,) = await database.rows(_ACCOUNT, account_id)
    since = start_of(range, account["time_zone"], now)
    return await figure_counts.read(account_id, not account["live"], since)


def start_of(range: str, time_zone: str, now: datetime) -> datetime:
    """The start of a range by the account's days, in UTC. Raises: KeyError."""
    days = RANGES[range]
    return BEGINNING if days is None else time_zones.start_of_day(time_zone, now, days_ahead=1 - days)


async def day_ends(account_id: UUID, now: datetime) -> datetime:
    (account,) = await database.rows("SELECT time_zone FROM account WHERE id = ?", account_id)
    return time_zones.next_midnight(account["time_zone"], now)
