"""One run a night and a prune after each: the calendar that a site will have, against an oracle and a golden file."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from opsd import clock
from opsd.errors import ConfigurationError, UsageError
from opsd.retention.calendar import calendars, nights, simulate
from opsd.retention.policy import DEFAULT_RULES, Rules, decide
from tests.retention import oracle
from tests.support.torture import TORTURE

PARIS = ZoneInfo("Europe/Paris")

#: A million days in all, over the zones; a torture run goes through the 400 years after which the calendar repeats.
DAYS_PER_ZONE = 1_000_000 // len(oracle.ZONES)
TIMES = 3 if TORTURE else 1

#: Local dates that these zones left out, when they moved across the date line.
SKIPPED = {"Pacific/Apia": "2011-12-30", "Pacific/Kwajalein": "1993-08-21"}


def local_dates(starts: list[int], zone: ZoneInfo) -> list[str]:
    return [f"{datetime.fromtimestamp(start // oracle.SECOND, zone):%Y-%m-%d}" for start in starts]


def test_eight_hundred_nights_of_30_and_12_leave_the_golden_calendar() -> None:
    kept = simulate(800, DEFAULT_RULES, PARIS, oracle.moment("2024-01-01 00:00", "Europe/Paris"))
    lines = [f"{clock.iso(one.time_ns, PARIS)} {one.age_days} {one.rule}" for one in kept]
    assert lines == (Path(__file__).parent / "calendar_30_12.txt").read_text().splitlines()


@pytest.mark.parametrize("first", range(0, 366, 5))
def test_30_and_12_are_42_and_reach_back_twelve_months_whatever_the_last_day(first: int) -> None:
    kept = simulate(800, DEFAULT_RULES, PARIS, oracle.moment("2023-01-01 00:00") + first * oracle.DAY)
    assert [one.rule for one in kept] == ["monthly"] * 12 + ["daily"] * 30
    assert kept[0].age_days >= 365
    assert [one.age_days for one in kept[12:]] == list(range(30, 0, -1))


def test_no_months_end_goes_before_it_is_twelve_months_old() -> None:
    before: dict[int, str] = {}
    for calendar in islice(calendars(DEFAULT_RULES, PARIS, oracle.moment("2019-06-01 00:00")), 2000):
        now = calendar[0][0].started
        standing = {one.started: rule for one, rule in calendar}
        gone = [start for start, rule in before.items() if rule == "monthly" and start not in standing]
        assert all(now - start >= 365 * oracle.DAY for start in gone)
        before = standing


@pytest.mark.slow
@pytest.mark.timeout(180 * TIMES)
@pytest.mark.parametrize("name", oracle.ZONES)
def test_every_night_of_a_million_days_agrees_with_the_oracle(name: str) -> None:
    zone = ZoneInfo(name)
    start = oracle.moment("1950-01-01 00:00")
    told_twice = zip(
        calendars(DEFAULT_RULES, zone, start), oracle.nightly(nights(zone, start), zone, 30, 12), strict=False
    )
    count = 0
    for calendar, wanted in islice(told_twice, DAYS_PER_ZONE * TIMES):
        assert [one.started for one, _ in reversed(calendar)] == wanted
        count += 1
    assert count == DAYS_PER_ZONE * TIMES


@pytest.mark.parametrize("name", oracle.ZONES)
@pytest.mark.parametrize("hour", [0, 2])
def test_every_local_date_has_one_night_at_its_hour_or_just_after_a_gap(name: str, hour: int) -> None:
    zone = ZoneInfo(name)
    starts = list(islice(nights(zone, oracle.moment("1993-01-01 00:00", name), hour), 10_000))
    dates = local_dates(starts, zone)
    days = [datetime.fromisoformat(date).replace(tzinfo=UTC) for date in dates]
    missing = {f"{day + timedelta(days=1):%Y-%m-%d}" for day, after in pairwise(days) if (after - day).days > 1}
    assert missing == ({SKIPPED[name]} if name in SKIPPED else set())
    assert len(set(dates)) == len(dates)
    odd = [start for start in starts if datetime.fromtimestamp(start // oracle.SECOND, zone).hour != hour]
    for start in odd:
        before = datetime.fromtimestamp(start // oracle.SECOND - 2 * 3600, zone)
        assert before.utcoffset() != datetime.fromtimestamp(start // oracle.SECOND, zone).utcoffset()
    assert len(odd) < 60


@pytest.mark.parametrize(
    "rules",
    [
        DEFAULT_RULES,
        Rules(keep_last=3, keep_weekly=5, keep_monthly=4, keep_yearly=2),
        Rules(keep_within=timedelta(days=9), keep_daily=7, keep_weekly=4),
        Rules(keep_hourly=24, keep_yearly=3),
    ],
    ids=str,
)
def test_the_simulation_is_what_deciding_and_pruning_every_night_gives(rules: Rules) -> None:
    start = oracle.moment("2023-02-01 00:00")
    standing: list[int] = []
    for night in islice(nights(PARIS, start), 500):
        standing.append(night)
        verdicts = decide([oracle.snapshot(one) for one in standing], rules, night, PARIS)
        standing = [one for one, verdict in zip(standing, verdicts, strict=True) if verdict.keep]
    assert [one.time_ns for one in simulate(500, rules, PARIS, start)] == standing


def test_the_first_run_is_the_first_due_at_or_after_the_start() -> None:
    at_four = oracle.moment("2024-05-05 04:00", "Europe/Paris")
    assert next(nights(PARIS, at_four)) == at_four
    assert next(nights(PARIS, at_four + 1)) == at_four + oracle.DAY


def test_no_nights_leave_nothing_and_one_leaves_last_nights_run() -> None:
    assert simulate(0, DEFAULT_RULES, PARIS, 0) == ()
    (only,) = simulate(1, DEFAULT_RULES, PARIS, 0)
    assert (only.age_days, only.rule) == (1, "daily")


def test_a_simulation_without_meaning_is_refused() -> None:
    with pytest.raises(UsageError):
        simulate(-1, DEFAULT_RULES, PARIS, 0)
    with pytest.raises(UsageError):
        simulate(1, DEFAULT_RULES, PARIS, 0, hour=24)
    with pytest.raises(ConfigurationError):
        simulate(1, Rules(), PARIS, 0)
