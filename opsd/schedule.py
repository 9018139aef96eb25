"""When things are due, by the clock on the wall of a site.

Pure. Promise: every day has its time once: one that a change of the clocks leaves out comes as much later as they were put forward, one
that comes twice counts the first time.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo

from opsd import clock


def next_time(at: str, zone: tzinfo, after: int) -> int:
    """The first moment after `after` (ns UTC) at which the wall clock of `zone` shows `at` (HH:MM); ns UTC."""
    return next(each for each in _times(at, zone, after) if each > after)


def _times(at: str, zone: tzinfo, after: int) -> Iterator[int]:
    hour, minute = map(int, at.split(":"))
    today = clock.local(after, zone).date()
    for days in range(3):  # Today's may be past, and tomorrow may be no day of this zone at all.
        wall = datetime.combine(today + timedelta(days=days), datetime.min.time(), zone).replace(
            hour=hour, minute=minute
        )
        yield int(wall.astimezone(UTC).timestamp()) * clock.SECOND
