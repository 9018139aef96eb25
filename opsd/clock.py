"""The only place that reads the wall clock.

Promise: times are signed 64-bit nanoseconds UTC; whoever needs the time takes a `Clock`, so tests can own it.
"""

import time
from datetime import UTC, datetime, tzinfo
from typing import Protocol

SECOND = 1_000_000_000
DAY = 86_400 * SECOND


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> int:
        """Nanoseconds since 1970-01-01 UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> int:
        """Nanoseconds since 1970-01-01 UTC."""
        return time.time_ns()


class FixedClock:
    """A clock that moves only when told; for tests and simulations."""

    def __init__(self, now: int) -> None:
        self._now = now

    def now(self) -> int:
        """Nanoseconds since 1970-01-01 UTC."""
        return self._now

    def advance(self, nanoseconds: int) -> None:
        """Move by that much; a negative number moves back."""
        self._now += nanoseconds


def local(moment: int, zone: tzinfo) -> datetime:
    """The moment as an aware datetime in `zone`, to the microsecond."""
    return datetime.fromtimestamp(moment // SECOND, UTC).replace(microsecond=moment % SECOND // 1000).astimezone(zone)


def iso(moment: int, zone: tzinfo = UTC) -> str:
    """ISO 8601 with offset, to the second: `2026-11-24T04:00:00+01:00`."""
    return local(moment, zone).replace(microsecond=0).isoformat()


def stamp(moment: int) -> str:
    """The time as it stands in object names: `20261124T040000.000000000Z`."""
    whole, fraction = divmod(moment, SECOND)
    return f"{datetime.fromtimestamp(whole, UTC):%Y%m%dT%H%M%S}.{fraction:09d}Z"


def parse_stamp(text: str) -> int:
    """The nanoseconds of `stamp`.

    Raises:
        ValueError: the text has another form.
    """
    whole, _, fraction = text.removesuffix("Z").partition(".")
    if len(fraction) != 9 or not text.endswith("Z"):
        raise ValueError(text)
    moment = datetime.strptime(whole, "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    return int(moment.timestamp()) * SECOND + int(fraction)
