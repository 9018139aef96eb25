"""Moments as people type them.

Promise: pure. What is typed means its end, for what a list shows is cut off: a day, a minute or a second is over when it is over.
"""

from datetime import date, datetime, time, timedelta, tzinfo
from typing import Final

from opsd.clock import SECOND, local
from opsd.errors import UsageError

_MICROSECOND: Final = SECOND // 1_000_000
#: Times are signed 64-bit nanoseconds.
_LATEST: Final = 2**63 - 1


def parse_since(text: str, zone: tzinfo, now: int) -> int:
    """The same as `parse_time`, but the beginning of what is typed: for what a list shows from then on."""
    return _span(text, zone, now)[0]


def parse_time(text: str, zone: tzinfo, now: int) -> int:
    """A moment in ns UTC: ISO 8601 (`2026-11-24`, `2026-11-24 04:00`), `now`, `today` or `yesterday`; local to `zone`.

    Raises:
        UsageError: it is none of these.
    """
    return _span(text, zone, now)[1]


def _span(text: str, zone: tzinfo, now: int) -> tuple[int, int]:
    """The first and the last nanosecond that are meant."""
    if text == "now":
        return now, now
    today = local(now, zone).date()
    days = {"today": today, "yesterday": today - timedelta(days=1)}
    try:
        day = days.get(text) or (date.fromisoformat(text) if len(text) == 10 else None)
        if day:
            moment, length = datetime.combine(day, time(), zone), timedelta(days=1)
        else:
            moment = datetime.fromisoformat(text)
            length = _length(text, moment)
        begin = moment if moment.tzinfo else moment.replace(tzinfo=zone)
        first, found = (round(each.timestamp() * 1_000_000) * _MICROSECOND for each in (begin, begin + length))
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{text!r} is no time", hint="for example: 2026-11-24, '2026-11-24 04:00' or yesterday"
        ) from error
    if not 0 <= found <= _LATEST:
        raise UsageError(f"{text!r} is too far away", hint="times from 1970 to 2262 can be kept")
    return first, (found if not length else found - 1)


def _length(text: str, moment: datetime) -> timedelta:
    """How long what was typed lasts: a minute, or a second where seconds were typed; nothing with a fraction."""
    if moment.microsecond or "." in text:
        return timedelta()
    clock = text[11:].partition("+")[0].partition("-")[0].rstrip("Z")
    return timedelta(seconds=1) if clock.count(":") == 2 else timedelta(minutes=1)
