"""Time zones and where their days begin."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

# Zone files that are not zones: a placeholder and the machine's own setting.
_NO_ZONES: Final = frozenset({"Factory", "localtime", "posixrules"})


@cache
def names() -> frozenset[str]:
    return frozenset(available_timezones()) - _NO_ZONES


def is_known(name: str) -> bool:
    return name in names()


def zone(name: str) -> ZoneInfo:
    """UTC if the name is unknown."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")


def start_of_day(name: str, now: datetime, *, days_ahead: int = 0) -> datetime:
    """In UTC, of the zone's day of `now` or `days_ahead` days later."""
    there = zone(name)
    date = now.astimezone(there).date() + timedelta(days=days_ahead)
    start = datetime.combine(date, time(), there).astimezone(UTC)
    # Where the clock skips midnight, that moment is before the day; where it repeats, the first counts.
    while start.astimezone(there).date() < date:
        start += timedelta(minutes=15)
    return start


def next_midnight(name: str, now: datetime) -> datetime:
    """In UTC, always after `now`."""
    return start_of_day(name, now, days_ahead=1)
