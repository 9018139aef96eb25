"""`opsd status` for people: one screen, the answer in its first line, what to do right below.

Promise: pure; on a terminal it fits: the worst is shown first, and what is left out is counted.
"""

import textwrap
from collections.abc import Sequence
from datetime import tzinfo
from typing import Final

from opsd.app.status import Row, Status
from opsd.cli import output
from opsd.cli.output import Column
from opsd.clock import SECOND
from opsd.monitor.health import JobHealth
from opsd.monitor.observed import Observed
from opsd.monitor.problems import Problem, Severity
from opsd.monitor.state import Run

_SOURCES: Final = (
    Column("SOURCE", elastic=True),
    Column("RESTORABLE TO"),
    Column("FROM", elastic=True),
    Column("PROVED"),
)
_JOBS: Final = (Column("JOB"), Column("LAST SUCCESS"), Column("NEXT"), Column("STATE", elastic=True))
_COLOURS: Final = {Severity.CRITICAL: "red", Severity.WARNING: "yellow"}
#: The daemon's own look at all this; a person sees it only where it fails.
_OWN: Final = "self-check"
#: So many rows are shown, however many there are.
_LEAST_ROWS: Final = 2
_TITLE_LINES: Final = 2


def screen(found: Status, zone: tzinfo, height: int) -> list[str]:
    """At most so many lines."""
    health = found.health
    head = [_verdict(found)]
    if health.pause:
        until = output.moment(health.pause.until, zone)
        text = f"paused until {until}: {output.plain(health.pause.reason)}"
        head += [output.paint(each, "yellow") for each in output.wrapped(text, output.width())]
    head += [output.paint(_running(job.running, health.time), "cyan") for job in health.jobs if job.running]
    head += [*_late_places(found, zone), *_uncovered(found.observed)]
    jobs = ["", *output.table_lines(_JOBS, [_job(each, zone) for each in health.jobs if _is_shown(each)])]
    room = height - len(head) - len(jobs) - 3
    problems = [_problem(each) for each in health.problems]
    sources = [_source(row, zone) for row in sorted(found.rows, key=lambda row: row.restorable)]
    shown = _fitting(problems, room - min(len(sources), _LEAST_ROWS + 1))
    rows = max(_LEAST_ROWS, room - sum(map(len, shown)))
    lines = [*head, *(each for problem in shown for each in problem), ""]
    if sources:
        lines += output.table_lines(_SOURCES, sources[: rows if rows >= len(sources) else rows - 1])
    if rows < len(sources):
        lines.append(f"… and {output.count(len(sources) - rows + 1, 'more source')}; 'opsd status --json' has all")
    return lines + jobs


def _verdict(found: Status) -> str:
    health = found.health
    host = output.plain(found.observed.host)
    worst = sum(each.severity is Severity.CRITICAL for each in health.problems)
    if not health.is_kept:
        why = "something is overdue" if health.is_overdue else output.count(worst, "critical problem")
        return output.paint(f"{host}: THE PROMISE IS NOT KEPT: {why}", "red", bold=True)
    if found.rows and not any(row.restorable for row in found.rows):
        return output.paint(f"{host}: nothing is backed up yet", "yellow", bold=True)
    if health.problems:
        warned = output.count(len(health.problems), "warning")
        return output.paint(f"{host}: the promise is kept, with {warned}", "yellow", bold=True)
    return output.paint(f"{host}: the promise is kept", "green", bold=True)


def _running(run: Run, now: int) -> str:
    """What runs now, and how far it is."""
    files = output.count(run.files, "file") if run.files else ""
    done = ", ".join(filter(None, (run.stage, files, output.size(run.bytes) if run.bytes else "")))
    return f"{run.job} runs for {output.duration((now - run.started) / SECOND)}" + (
        f": {output.plain(done)}" if done else ""
    )


def _late_places(found: Status, zone: tzinfo) -> list[str]:
    """Places that did not answer in time."""
    seen = {name: max(each.looked, each.failed) for name, each in found.observed.places.items()}
    return [
        f"{name} did not answer in time; " + (f"as seen {output.moment(time, zone)}" if time else "never seen")
        for name, time in seen.items()
        if time < found.observed.time
    ]


def _uncovered(observed: Observed) -> list[str]:
    """What was found on this host and no source has, as far as somebody looked."""
    found = ((observed.uncovered_databases, "database"), (observed.uncovered_folders, "folder"))
    told = " and ".join(output.count(number, noun) for number, noun in found if number)
    return [f"not covered: {told}; 'opsd doctor' names them"] if told else []


def _problem(problem: Problem) -> list[str]:
    """What is wrong, and the next step below it."""
    mark = "!!" if problem.severity is Severity.CRITICAL else " !"
    title = textwrap.wrap(
        output.plain(problem.title),
        output.width() - 3,
        max_lines=_TITLE_LINES,
        placeholder=" …",
        break_on_hyphens=False,
    )
    step = textwrap.wrap(
        output.plain(problem.next_step), output.width() - 6, break_long_words=False, break_on_hyphens=False
    )
    colour = _COLOURS[problem.severity]
    return [
        *(output.paint(f"{mark if not number else '  '} {text}", colour) for number, text in enumerate(title)),
        *(f"   {'→' if not number else ' '} {text}" for number, text in enumerate(step)),
    ]


def _fitting(problems: Sequence[list[str]], room: int) -> list[list[str]]:
    """As many as fit, and how many don't."""
    shown: list[list[str]] = []
    for number, each in enumerate(problems):
        taken = sum(map(len, shown))
        is_last = number == len(problems) - 1
        if shown and taken + len(each) > room - (not is_last):
            return [
                *shown,
                [f"   … and {output.count(len(problems) - number, 'more problem')}; 'opsd status --json' has all"],
            ]
        shown.append(each)
    return shown


def _source(row: Row, zone: tzinfo) -> tuple[str, ...]:
    proved = f"{row.proof} {output.moment(row.proved, zone)}" if row.proof else "never"
    return (
        f"{row.name} (host)" if row.is_host else row.name,
        output.moment(row.restorable, zone) if row.restorable else output.paint("never", "yellow"),
        ", ".join(row.newest_in) or "-",
        output.paint(proved, None if row.proof else "yellow"),
    )


def _is_shown(job: JobHealth) -> bool:
    return job.job != _OWN or job.is_overdue


def _job(job: JobHealth, zone: tzinfo) -> tuple[str, ...]:
    return (
        job.job,
        output.moment(job.success.started, zone) if job.success else "never",
        output.moment(job.due, zone) if job.due else f"after {job.after}",
        _state(job, zone),
    )


def _state(job: JobHealth, zone: tzinfo) -> str:
    """What it does, or how it stands."""
    if job.running:
        return output.paint("running", "cyan")
    if job.is_overdue:
        return output.paint(f"overdue since {output.moment(job.deadline, zone)}", "red")
    if job.attempt and not job.attempt.is_good:
        return output.paint(f"{job.attempt.outcome} {output.moment(job.attempt.started, zone)}", "yellow")
    return job.attempt.outcome if job.attempt else ""
