"""Eight hundred days of a host: outages, jumps of the clock, both changes of the clocks, in many zones."""

from collections import Counter
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from opsd.clock import DAY, SECOND
from opsd.schedule import times_between
from tests.daemon.years import HOUR, MINUTE, Host
from tests.support.torture import TORTURE

ZONES = (
    ("Europe/Paris", "04:00"),
    ("America/New_York", "02:30"),
    ("America/Sao_Paulo", "04:00"),
    ("America/St_Johns", "01:15"),
    ("America/Santiago", "00:00"),
    ("America/Havana", "00:30"),
    ("Australia/Lord_Howe", "02:00"),
    ("Pacific/Chatham", "03:00"),
    ("Africa/Casablanca", "02:30"),
    ("Africa/Cairo", "00:00"),
    ("Asia/Kathmandu", "04:00"),
    ("Antarctica/Troll", "02:00"),
    ("Atlantic/Azores", "00:30"),
)
DAYS = 800
#: All of them in scripts/torture and benchmarks/years.py; two here.
SOME = ZONES if TORTURE else ZONES[:2]


def begin(zone: str) -> int:
    return int(datetime(2026, 1, 10, 12, 0, tzinfo=ZoneInfo(zone)).timestamp()) * SECOND


@pytest.mark.parametrize(("zone", "at"), SOME)
def test_after_800_days_every_night_is_accounted_for_and_42_snapshots_stand(zone: str, at: str, tmp_path: Path) -> None:
    start = begin(zone)
    with Host.new(tmp_path, zone, start, at) as host:
        host.live(DAYS, seed=len(zone))
        require_every_night(host, at, start)
        kept = host.jobs.repository.times
        assert len(kept) == 42
        assert host.clock.now() - min(kept) >= 364 * DAY


def require_every_night(host: Host, at: str, start: int) -> None:
    runs = [run for run in host.runs("backup") if run.outcome != "misdated"]
    good = Counter(run.slot for run in runs if run.is_good)
    noted = {run.slot for run in runs if not run.is_good}
    nights = list(times_between(at, host.settings.zone, start, host.clock.now() - HOUR))
    assert len(nights) >= DAYS - 1
    assert [night for night in nights if night not in good and night not in noted] == []
    assert [night for night in nights if good[night] > 1] == []
    done = sum(1 for night in nights if good[night])
    assert done > 0.93 * len(nights)


def test_a_year_back_and_forth_costs_no_night(tmp_path: Path) -> None:
    zone = "Europe/Paris"
    with Host.new(tmp_path, zone, begin(zone)) as host:
        host.boot()
        host.until(host.clock.now() + 3 * DAY)
        before = host.clock.now()
        host.clock.advance(366 * DAY)
        host.until(host.clock.now() + HOUR)
        ahead = [run for run in host.runs("backup") if run.slot > before]
        assert [run.outcome for run in ahead].count("done") == 1
        host.clock.advance(before + HOUR - host.clock.now())
        host.until(before + 3 * HOUR)
        assert host.keeper
        assert "clock.back" in host.keeper.trouble
        host.until(before + 4 * DAY)
        nights = list(times_between("04:00", host.settings.zone, before, host.clock.now()))
        good = {run.slot for run in host.runs("backup") if run.is_good}
        assert set(nights) <= good
        assert "clock.back" not in host.keeper.trouble


def test_a_failing_backup_is_tried_again_at_growing_pauses_and_given_up_until_the_next_night(tmp_path: Path) -> None:
    zone = "Europe/Paris"
    with Host.new(tmp_path, zone, begin(zone)) as host:
        host.jobs.outcome = lambda start: "failed" if start.job == "backup" else "done"
        host.boot()
        host.until(host.clock.now() + 2 * DAY, step=5 * MINUTE)
        runs = sorted(host.runs("backup"), key=lambda run: run.started)
        assert [run.attempt for run in runs] == [1, 2, 3, 4] * 2
        pauses = [(later.started - run.ended) // MINUTE for run, later in pairwise(runs[:4])]
        assert pauses == [15, 60, 180]
