"""When things are due, by the clock on the wall of a site.

Pure. Promise: every day has its time once: one that a change of the clocks leaves out comes as much later as they were put forward, one
that comes twice counts the first time. A time is written `04:00`, or `Sun 06:00` for once a week.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final

from opsd import clock

WEEKDAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
#: How many days to look around for a weekly time: a zone may have left a whole day out.
_DAYS: Final = 15


def next_time(at: str, zone: tzinfo, after: int) -> int:
    """The first moment after `after` (ns UTC) at which the wall clock of `zone` shows `at`; ns UTC."""
    today = clock.local(after, zone).date()
    return next(each for each in _times(at, zone, today, today + timedelta(days=_DAYS)) if each > after)


def last_time(at: str, zone: tzinfo, now: int) -> int:
    """The newest such moment that is not after `now` (ns UTC); ns UTC."""
    today = clock.local(now, zone).date()
    return max(each for each in _times(at, zone, today - timedelta(days=_DAYS), today) if each <= now)


def times_between(at: str, zone: tzinfo, after: int, until: int) -> Iterator[int]:
    """All such moments after `after` and not after `until`, oldest first; ns UTC."""
    first, last = clock.local(after, zone).date(), clock.local(until, zone).date()
    before = after
    for each in _times(at, zone, first, last):
        if before < each <= until:
            yield each
            before = each


def odd_days(at: str, zone: tzinfo, after: int, days: int = 366) -> Iterator[tuple[date, str]]:
    """The days on which the clock on the wall never shows this time, or shows it twice: (day, 'does not come' or 'comes twice')."""
    first = clock.local(after, zone).date()
    for wall in _walls(at, zone, first, first + timedelta(days=days)):
        if wall.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != wall.replace(tzinfo=None):
            yield wall.date(), "does not come"
        elif wall.utcoffset() != wall.replace(fold=1).utcoffset():
            yield wall.date(), "comes twice"


def _times(at: str, zone: tzinfo, first: date, last: date) -> Iterator[int]:
    for wall in _walls(at, zone, first, last):
        yield int(wall.astimezone(UTC).timestamp()) * clock.SECOND


def _walls(at: str, zone: tzinfo, first: date, last: date) -> Iterator[datetime]:
    """What the wall shows at each due time from day `first` to `last`."""
    weekday, _, told = at.rpartition(" ")
    hour, minute = map(int, told.split(":"))
    for number in range((last - first).days + 1):
        day = first + timedelta(days=number)
        if not weekday or day.weekday() == WEEKDAYS.index(weekday):
            yield datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
