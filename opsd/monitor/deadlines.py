"""By when each job must have done its work, so that one rule tells of all of them what is overdue.

Pure. Promise: a deadline is a moment, worked out by the site's wall clock, so it is right on the days on which the clocks change. A
pause moves none. Times are ns UTC.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from datetime import tzinfo
from typing import Final

from opsd import clock
from opsd.monitor.state import Run
from opsd.schedule import last_time, next_time, times_between
from opsd.values import dataclass

HOUR: Final = 3600 * clock.SECOND
#: In the order in which they go where several are due at once.
JOBS: Final = ("backup", "copy", "prune", "check", "drill", "self-check")
#: How a time is written that comes every so often.
EVERY: Final = "every "
#: What a job may take of which nothing is known yet; the first copy may take a day.
_UNKNOWN: Final = {"copy": 24 * HOUR}
_UNKNOWN_OTHER: Final = 4 * HOUR
_LEAST: Final = HOUR
#: A run dated so far ahead of the clock was made by a clock that was wrong.
AHEAD: Final = HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """When each job is due. `times`: `04:00`, `Sun 06:00` or `every 1h` by job; `after`: the job that one follows, by job."""

    zone: tzinfo
    times: Mapping[str, str] = field(default_factory=dict)
    after: Mapping[str, str] = field(default_factory=dict)

    @property
    def jobs(self) -> tuple[str, ...]:
        """The jobs of this site, in order."""
        return tuple(job for job in JOBS if job in self.times or job in self.after)

    def last(self, job: str, now: int) -> int:
        """The newest due time of a timed job that is not after now."""
        at = self.times[job]
        return now - now % _interval(at) if at.startswith(EVERY) else last_time(at, self.zone, now)

    def next(self, job: str, after: int) -> int:
        """The first due time of a timed job after a moment."""
        at = self.times[job]
        if at.startswith(EVERY):
            return after - after % _interval(at) + _interval(at)
        return next_time(at, self.zone, after)

    def between(self, job: str, after: int, until: int) -> Iterator[int]:
        """All due times of a timed job after a moment, and not after another. Those of one that comes every so often are nobody's debt."""
        at = self.times[job]
        return iter(()) if at.startswith(EVERY) else times_between(at, self.zone, after, until)


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What is known of the past: runs by job, newest first; `since`: when that knowledge begins; `configured`: when the configuration was taken."""

    runs: Mapping[str, Sequence[Run]]
    since: int
    configured: int = 0

    def of(self, job: str, now: int) -> list[Run]:
        """A job's runs that no wrong clock has dated, newest first."""
        return [run for run in self.runs.get(job, ()) if run.started <= now + AHEAD]

    def good(self, job: str, now: int) -> Run | None:
        """The newest that did what the job is for."""
        return next((run for run in self.of(job, now) if run.is_good), None)


def deadline(plan: Plan, past: Past, job: str, now: int) -> int:
    """When the next success of a job must be there."""
    good = past.good(job, now)
    begun = good.started if good else past.since
    if job in plan.times:
        return plan.next(job, begun) + patience(past, job, now)
    before = plan.after[job]
    trigger = past.good(before, now)
    if trigger and (good is None or good.started < trigger.ended):
        return trigger.ended + patience(past, job, now)
    until = deadline(plan, past, before, now)
    # One that did its work after the last success of the one before can do no more while that is late.
    return (max(until, now) if trigger else until) + patience(past, job, now)


def patience(past: Past, job: str, now: int) -> int:
    """How long after it is due a job may be at work: an hour, or twice what it took lately."""
    lately = [run.ended - run.started for run in past.of(job, now) if run.is_good][:5]
    return max(_LEAST, 2 * max(lately)) if lately else _UNKNOWN.get(job, _UNKNOWN_OTHER)


def _interval(at: str) -> int:
    return int(at.removeprefix(EVERY).removesuffix("h")) * HOUR
