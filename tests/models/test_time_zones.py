"""Time zones: which names are zones, and when their days begin."""

from datetime import UTC, datetime, timedelta

import pytest

from models import time_zones


@pytest.mark.parametrize(
    "name", ["Europe/Berlin", "America/Argentina/Buenos_Aires", "Asia/Calcutta", "UTC", "Etc/GMT+5", "EST5EDT"]
)
def test_zones_and_links_are_known(name: str) -> None:
    assert time_zones.is_known(name)


@pytest.mark.parametrize(
    "name",
    [
        *("posixrules", "Factory", "localtime", "right/UTC", "posix/UTC", "zone.tab", "tzdata.zi", "leapseconds"),
        *(
            "",
            "Mars/Olympus",
            "europe/berlin",
            "Europe",
            "../etc/passwd",
            "/etc/localtime",
            "Europe/../UTC",
            "Europe/Berlin\0",
        ),
    ],
)
def test_what_is_no_zone_is_not_known(name: str) -> None:
    assert not time_zones.is_known(name)


def test_an_unknown_zone_reads_as_utc() -> None:
    assert time_zones.zone("Mars/Olympus").key == "UTC"


@pytest.mark.parametrize(
    "name",
    [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "America/Sao_Paulo",  # skipped midnight until 2018
        "Africa/Cairo",  # skips midnight
        "America/Havana",  # repeats midnight
        "Asia/Beirut",  # skips midnight, and goes back at it
        "Pacific/Apia",  # had no 30 December 2011
        "Asia/Kathmandu",
        "Australia/Lord_Howe",
    ],
)
def test_a_day_lasts_from_its_first_moment_to_the_next_day_s(name: str) -> None:
    there = time_zones.zone(name)
    now = datetime(2011, 1, 1, tzinfo=UTC)
    while now < datetime(2026, 12, 31, tzinfo=UTC):
        start, end = time_zones.start_of_day(name, now), time_zones.next_midnight(name, now)
        dates = [
            moment.astimezone(there).date()
            for moment in (start - timedelta(seconds=1), start, now, end - timedelta(seconds=1), end)
        ]
        assert start <= now < end
        assert dates[0] < dates[1] == dates[2] == dates[3] < dates[4], (name, now)
        now += timedelta(hours=11, minutes=17)
