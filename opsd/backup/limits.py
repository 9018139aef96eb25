"""How fast a copy may go at which hour.

Promise: `rate_at` is pure. Over any stretch of time no more passes than the rate allows, but for one piece in advance.
"""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import tzinfo
from typing import Final

from opsd.clock import SECOND, Clock, local
from opsd.values import dataclass

#: A wait is cut into steps of this many seconds, so that it ends with the hours of its limit.
_STEP: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Bytes a second from one minute of the day to another; `begin` after `end` means through midnight, both equal all day."""

    begin: int
    end: int
    rate: int

    def holds(self, minute: int) -> bool:
        """Whether it holds at that minute of the day."""
        if self.begin < self.end:
            return self.begin <= minute < self.end
        return minute >= self.begin or minute < self.end


Limits = Sequence[Limit]


def rate_at(limits: Limits, moment: int, zone: tzinfo) -> int | None:
    """The bytes a second that are allowed at a moment (ns UTC), the lowest where several limits hold; None for any."""
    there = local(moment, zone)
    return min((each.rate for each in limits if each.holds(there.hour * 60 + there.minute)), default=None)


class Throttle:
    """Makes its callers wait, however many threads they are; `take` before each piece."""

    def __init__(self, limits: Limits, zone: tzinfo, clock: Clock, sleep: Callable[[float], None] = time.sleep) -> None:
        self._limits = tuple(limits)
        self._zone = zone
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._last = 0
        #: When the next piece may pass, in ns UTC.
        self._next = 0

    def __bool__(self) -> bool:
        return bool(self._limits)

    def take(self, size: int) -> None:
        """Wait until so many bytes may pass."""
        if not self._limits:
            return
        left = self._turn(size)
        while left > 0 and self._rate(self._clock.now()) is not None:
            step = min(left, _STEP)
            self._sleep(step)
            left -= step

    def _rate(self, now: int) -> int | None:
        return rate_at(self._limits, now, self._zone)

    def _turn(self, size: int) -> float:
        """Seconds until the next piece may pass, which this one then is."""
        with self._lock:
            now = self._clock.now()
            if now < self._last:
                # The clock was set back: what is owed stays the same.
                self._next -= self._last - now
            self._last = now
            rate = self._rate(now)
            begin = max(now, self._next) if rate else now
            self._next = begin + size * SECOND // rate if rate else now
            return (begin - now) / SECOND
