"""When things are due."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsd.clock import DAY, SECOND, local
from opsd.schedule import next_time

HOUR = 3600 * SECOND


def at(text: str, zone: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * SECOND


@pytest.mark.parametrize(
    ("zone", "after", "due", "expected"),
    [
        ("Europe/Paris", "2026-11-26 03:59:59", "04:00", "2026-11-26 04:00"),
        ("Europe/Paris", "2026-11-26 04:00", "04:00", "2026-11-27 04:00"),
        ("Europe/Paris", "2026-12-31 23:00", "00:00", "2027-01-01 00:00"),
        ("Europe/Paris", "2026-03-28 12:00", "02:30", "2026-03-29 03:30"),  # No 02:30 on that day.
        ("America/New_York", "2026-10-31 12:00", "01:30", "2026-11-01 01:30"),  # Twice: the first counts.
        ("Pacific/Apia", "2011-12-29 12:00", "04:00", "2011-12-31 04:00"),  # No 30 December there.
    ],
)
def test_the_next_time_is_told_by_the_clock_on_the_wall(zone: str, after: str, due: str, expected: str) -> None:
    assert next_time(due, ZoneInfo(zone), at(after, zone)) == at(expected, zone)


def test_four_in_paris_is_25_hours_apart_when_summer_time_ends() -> None:
    before = at("2026-10-24 04:00", "Europe/Paris")
    assert next_time("04:00", ZoneInfo("Europe/Paris"), before) - before == 25 * HOUR


@given(
    zone=st.sampled_from(sorted(available_timezones())),
    after=st.integers(0, 4_000_000_000),
    minutes=st.integers(0, 24 * 60 - 1),
)
def test_each_time_comes_after_the_last_and_within_two_days(zone: str, after: int, minutes: int) -> None:
    told = f"{minutes // 60:02}:{minutes % 60:02}"
    first = next_time(told, ZoneInfo(zone), after * SECOND)
    second = next_time(told, ZoneInfo(zone), first)
    assert after * SECOND < first <= after * SECOND + 2 * DAY
    assert 20 * HOUR < second - first <= 2 * DAY + 2 * HOUR
    shown = local(first, ZoneInfo(zone))
    stands = datetime(*shown.timetuple()[:3], *divmod(minutes, 60), tzinfo=ZoneInfo(zone))
    if stands.astimezone(UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None) == stands.replace(tzinfo=None):
        assert f"{shown:%H:%M}" == told
