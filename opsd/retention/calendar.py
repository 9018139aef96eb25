"""What a schedule leads to: the calendar of snapshots after so many nights.

Promise: pure. Every night's prune sees only what the prunes before it left, by the same choice that a real prune makes,
so the calendar is the one that a site will have.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import islice

from opsd import clock
from opsd.errors import UsageError
from opsd.retention import policy
from opsd.values import dataclass

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A snapshot that stands at the end. `age_days`: nights from its own to the next run, so last night's is 1."""

    time_ns: int
    age_days: int
    rule: str


def simulate(days: int, rules: policy.Rules, zone: tzinfo, start_ns: int, hour: int = 4) -> tuple[Kept, ...]:
    """What stands after `days` nights of one complete run at `hour` local and a prune, oldest first.

    The first run is the first one due at or after `start_ns`. ConfigurationError if `rules` keep nothing.
    """
    if days < 0 or not 0 <= hour < 24:
        raise UsageError(f"{days} days at hour {hour} can't be simulated", hint="for example: --simulate 800")
    last = deque(islice(calendars(rules, zone, start_ns, hour), days), maxlen=1)
    if not last:
        return ()
    standing = last[0]
    due = _day(standing[0][0], zone) + timedelta(days=1)
    return tuple(
        Kept(time_ns=one.started, age_days=(due - _day(one, zone)).days, rule=rule) for one, rule in reversed(standing)
    )


def calendars(
    rules: policy.Rules, zone: tzinfo, start_ns: int, hour: int = 4
) -> Iterator[Sequence[tuple[policy.Moment, str]]]:
    """What stands after each night, newest first, with the rule that keeps it."""
    rules.require_meaning()
    standing: list[policy.Moment] = []
    for started in nights(zone, start_ns, hour):  # pragma: no branch (there is always another night)
        standing.insert(0, policy.moment(started, zone))
        chosen = policy.choose(standing, rules, started)
        calendar = [(standing[place], chosen[place]) for place in sorted(chosen)]
        standing = [one for one, _ in calendar]
        yield calendar


def nights(zone: tzinfo, start_ns: int, hour: int = 4) -> Iterator[int]:
    """The instants in ns UTC at which a nightly run at `hour` local is due, from `start_ns` on.

    Where clocks skip that hour the run comes as much later, where they repeat it the first time counts; a
    date that a zone skipped altogether has no night.
    """
    day = clock.local(start_ns, zone).date()
    before = start_ns - 1
    while True:
        due = (datetime.combine(day, time(hour), zone) - _EPOCH) // timedelta(seconds=1) * clock.SECOND
        if due > before:
            yield due
            before = due
        day += timedelta(days=1)


def _day(one: policy.Moment, zone: tzinfo) -> date:
    """The local date of a moment."""
    return clock.local(one.started, zone).date()
