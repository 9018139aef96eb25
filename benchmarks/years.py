"""Eight hundred days of the schedule in 13 zones, on a simulated clock: the time that takes, and what came of every night.

python -m benchmarks.years [--days 800] [--zones 13]
"""

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

from opsd.clock import DAY
from opsd.schedule import times_between
from tests.daemon.test_years import ZONES, begin
from tests.daemon.years import HOUR, Host


def main() -> None:
    """Print a line a zone."""
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--days", type=int, default=800)
    given.add_argument("--zones", type=int, default=len(ZONES))
    options = given.parse_args()
    began = time.monotonic()
    print(f"{'zone':22} nights  done  missed or cut off  twice  kept  oldest  seconds")
    for zone, at in ZONES[: options.zones]:
        print(_line(zone, at, options.days), flush=True)
    print(f"all: {time.monotonic() - began:.0f} s")


def _line(zone: str, at: str, days: int) -> str:
    began = time.monotonic()
    start = begin(zone)
    with tempfile.TemporaryDirectory() as folder, Host.new(Path(folder), zone, start, at) as host:
        host.live(days, seed=len(zone))
        runs = [run for run in host.runs("backup") if run.outcome != "misdated"]
        good = Counter(run.slot for run in runs if run.is_good)
        noted = {run.slot for run in runs if not run.is_good}
        nights = list(times_between(at, host.settings.zone, start, host.clock.now() - HOUR))
        kept = host.jobs.repository.times
    done = sum(1 for night in nights if good[night])
    accounted = sum(1 for night in nights if not good[night] and night in noted)
    assert done + accounted == len(nights), "a night is not accounted for"
    twice = sum(1 for night in nights if good[night] > 1)
    oldest = (host.clock.now() - min(kept)) // DAY
    seconds = time.monotonic() - began
    return f"{zone:22} {len(nights):6} {done:5} {accounted:18} {twice:6} {len(kept):5} {oldest:7} {seconds:8.1f}"


if __name__ == "__main__":
    main()
