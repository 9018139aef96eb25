"""The plan of a site: which jobs it has, and when each is due, from its configuration.

Promise: a job that has nothing to work on is not in the plan, so nothing of it can be overdue.
"""

from contextlib import suppress

from opsd.app.pausing import pause_of
from opsd.events import Warning
from opsd.monitor.deadlines import EVERY, JOBS, Past, Plan
from opsd.monitor.health import Besides
from opsd.monitor.observed import Observed
from opsd.monitor.state import State
from opsd.schedule import odd_days
from opsd.settings import Settings
from opsd.settings.schedule import AFTER_BACKUP, AFTER_COPY, OFF

#: When a host that only pulls does so, where its file doesn't say.
_PULL: str = "06:00"
#: Runs of each job that decisions go by, beside its last success.
_RUNS: int = 12
#: The fact that a state's runs were made again, and how many.
REBUILT: str = "rebuilt"
#: The fact of what was found to be there.
OBSERVED: str = "observed"


def plan_of(settings: Settings) -> Plan:
    """When each job is due."""
    stated = settings.schedule
    jobs = {"backup": stated.backup} if settings.repository and settings.sources else {}
    if settings.copies or settings.pulls:
        jobs["copy"] = _PULL if stated.copy == AFTER_BACKUP and "backup" not in jobs else stated.copy
    if settings.repository or any(each.retention for each in settings.pulls.values()):
        jobs["prune"] = stated.prune
    jobs |= {"check": stated.check}
    if settings.repository:
        jobs["drill"] = stated.drill
    jobs = {job: at for job, at in jobs.items() if at != OFF}
    followed = {AFTER_BACKUP: "backup", AFTER_COPY: "copy" if "copy" in jobs else "backup"}
    after = {job: followed[at] for job, at in jobs.items() if at in followed and followed[at] in jobs}
    times = {job: at for job, at in jobs.items() if at not in followed}
    return Plan(zone=settings.zone, times=times | {"self-check": "every 1h"}, after=after)


def past_of(state: State) -> Past:
    """What the state knows of it."""
    runs = {job: state.runs(job, most=_RUNS) for job in JOBS}
    for job, known in runs.items():
        good = None if any(run.is_good for run in known) else state.newest_good(job)
        runs[job] = [*known, good] if good else known
    return Past(runs=runs, since=state.since)


def besides_of(state: State, now: int) -> Besides:
    """What else the state knows that bears on how the host stands."""
    rebuilt = state.fact(REBUILT)
    return Besides(pause=pause_of(state, now), rebuilt=rebuilt[0] if rebuilt and rebuilt[1]["runs"] else 0)


def observed_of(state: State) -> Observed | None:
    """What was found at the last look; None where nobody looked, or another version did that we can't read."""
    found = state.fact(OBSERVED)
    with suppress(TypeError, ValueError, KeyError, AttributeError):
        return Observed.from_json(found[1]) if found else None
    return None


def odd_times(settings: Settings, now: int) -> list[Warning]:
    """The times of the plan that some day of the next year lacks or has twice."""
    plan = plan_of(settings)
    return [
        Warning(
            subject=f"schedule.{job}",
            problem=f"{at} {what} on {day}, when the clocks of {settings.timezone} change",
            hint="it runs once all the same; a time outside the change needs no thought",
        )
        for job, at in plan.times.items()
        if not at.startswith(EVERY)
        for day, what in odd_days(at, settings.zone, now)
    ]
