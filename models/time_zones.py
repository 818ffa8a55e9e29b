"""Time zones: which names are zones, and where the days of a zone begin."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

# Entries of the zone files that are no zones: a placeholder, and the machine's own setting.
_NO_ZONES: Final = frozenset({"Factory", "localtime", "posixrules"})


@cache
def names() -> frozenset[str]:
    """Every IANA zone and link."""
    return frozenset(available_timezones()) - _NO_ZONES


def is_known(name: str) -> bool:
    """Whether this is an IANA zone, such as Europe/Berlin."""
    return name in names()


def zone(name: str) -> ZoneInfo:
    """The zone of this name; UTC if the machine does not know it."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")


def start_of_day(name: str, now: datetime, *, days_ahead: int = 0) -> datetime:
    """The first moment, in UTC, of the zone's day that `now` is in, or of one so many days later."""
    there = zone(name)
    date = now.astimezone(there).date() + timedelta(days=days_ahead)
    start = datetime.combine(date, time(), there).astimezone(UTC)
    # Where the clock skips midnight, that moment is before the day; where it repeats midnight, the first one begins the day.
    while start.astimezone(there).date() < date:
        start += timedelta(minutes=15)
    return start


def next_midnight(name: str, now: datetime) -> datetime:
    """When the zone's next day begins, in UTC: always after `now`."""
    return start_of_day(name, now, days_ahead=1)
