"""Whether the promise is kept, and what is wrong: one judgement for status, metrics and alerts.

Pure. Promise: a problem keeps its key as long as it lasts; a pause hides none. Each tells what happened to what, and the command to run.

What the whole ends with: 5 when anything is overdue, whatever else is wrong; else 4 when integrity is in question (snapshots are gone that
no prune dropped, a drill was red, a job found damage); else 3 when there is any problem; else 0.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import tzinfo
from functools import cache
from typing import Final

from opsd.clock import DAY, local
from opsd.monitor.deadlines import AHEAD, Past, Plan, deadline, patience
from opsd.monitor.observed import Observed, PlaceSeen, Point
from opsd.monitor.problems import Problem, Severity, told_instead
from opsd.monitor.state import MISDATED, NEVER_RAN, RUNNING, Run
from opsd.values import dataclass

#: A kit that nobody tried for so long may be lost, or illegible.
KIT_TRIED_WITHIN: Final = 365 * DAY
#: A site that starts no drills itself should have made one by then.
DRILLED_WITHIN: Final = 8 * DAY
#: Within this time everything is read again, and a night may be missed.
READ_WITHIN: Final = 31 * DAY
#: So long it is told what happened once: the state was made anew, the clock went back.
TOLD_FOR: Final = DAY
#: A disk with less is full for all that matters.
LEAST_FREE: Final = 256 * 1024 * 1024
#: What a copy of a host that plans none may lag behind.
_UNPLANNED: Final = 2 * DAY
#: Without these nothing new is kept, or nobody would know; the others only prove or tidy.
_VITAL: Final = frozenset({"backup", "copy", "self-check"})
#: How a run ended that only waits for its next try.
_WAITS: Final = frozenset({RUNNING, "postponed"})
#: What says nothing of how the job does.
_NOTHING_TRIED: Final = NEVER_RAN | {MISDATED}
#: Only a daemon does it, and where none ever did, none is missing.
_SELF_CHECK: Final = "self-check"
_COMMANDS: Final = {"check": "opsd check --due", _SELF_CHECK: "systemctl status opsd-daemon"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Until when a person has told the daemon to start nothing, in ns UTC, and why."""

    until: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Besides:
    """What else bears on it.

    `rebuilt`: when the state was made anew, in ns UTC, 0 for never; `problems`: what others found, the daemon about itself for one.
    """

    pause: Pause | None = None
    rebuilt: int = 0
    problems: tuple[Problem, ...] = ()


#: Where nothing else is known.
NOTHING: Final = Besides()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobHealth:
    """A job of the site. `due`: when it is next, 0 where it follows the job `after`; `deadline`: when its next success must be there."""

    job: str
    deadline: int
    due: int = 0
    after: str = ""
    attempt: Run | None = None
    success: Run | None = None
    running: Run | None = None
    is_overdue: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The judgement. Problems: the worst first. `overdue` and `doubted` are the keys of those that mean a broken promise, or lost integrity."""

    time: int
    jobs: tuple[JobHealth, ...] = ()
    problems: tuple[Problem, ...] = ()
    overdue: frozenset[str] = frozenset()
    doubted: frozenset[str] = frozenset()
    pause: Pause | None = None

    @property
    def is_kept(self) -> bool:
        """Whether the promise is kept."""
        return not self.is_overdue and not any(each.severity is Severity.CRITICAL for each in self.problems)

    @property
    def is_overdue(self) -> bool:
        """Whether something should be there that is not."""
        return bool(self.overdue) or any(job.is_overdue for job in self.jobs)

    @property
    def exit_code(self) -> int:
        """What `opsd status` ends with."""
        if self.is_overdue:
            return 5
        return 4 if self.doubted else 3 if self.problems else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    problem: Problem
    is_overdue: bool = False
    is_doubt: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    plan: Plan
    past: Past
    observed: Observed
    now: int

    def due(self, job: str, after: int) -> int:
        """By when a job that is due next after a moment must have done its work."""
        if job in self.plan.times:
            return self.plan.next(job, after) + patience(self.past, job, self.now)
        if job in self.plan.after:
            return self.due(self.plan.after[job], after) + patience(self.past, job, self.now)
        return after + _UNPLANNED


def judge(plan: Plan, past: Past, observed: Observed | None, now: int, besides: Besides = NOTHING) -> Health:
    """What the runs of the past and what was found to be there come to. `observed` None: nobody looked yet."""
    jobs = tuple(_job(plan, past, job, now) for job in plan.jobs)
    found = [*_of_site(past, now, besides), *_of_jobs(jobs, plan.zone)]
    if observed:
        case = _Case(plan=plan, past=past, observed=observed, now=now)
        found += [*_of_repository(case), *_of_others(case), *_of_retention(case), *_of_drills(case)]
    found += [_Finding(problem=each) for each in besides.problems]
    told = {each.problem.key: each for each in found}
    instead = {key: other for key in told if (other := told_instead(key, told))}
    shown = [_covering(each, instead) for key, each in told.items() if key not in instead]
    shown.sort(key=lambda each: (each.problem.severity is not Severity.CRITICAL, not each.is_overdue))
    return Health(
        time=now,
        jobs=jobs,
        problems=tuple(each.problem for each in shown),
        overdue=frozenset(each.problem.key for each in shown if each.is_overdue),
        doubted=frozenset(each.problem.key for each in shown if each.is_doubt),
        pause=besides.pause if besides.pause and besides.pause.until > now else None,
    )


def _covering(found: _Finding, instead: Mapping[str, str]) -> _Finding:
    covers = tuple(sorted(key for key, other in instead.items() if other == found.problem.key))
    return replace(found, problem=replace(found.problem, covers=covers)) if covers else found


def _job(plan: Plan, past: Past, job: str, now: int) -> JobHealth:
    runs = past.of(job, now)
    if job == _SELF_CHECK:  # What a person looked at shows no daemon at work, and owes none.
        looks = [run for run in runs if run.cause == "daemon"]
        past = replace(past, runs={**past.runs, job: looks})
    until = deadline(plan, past, job, now)
    running = next((run for run in runs if run.outcome == RUNNING), None)
    # After a sleep or a restart it looks at once: only where it does not is the daemon out of work.
    is_looking = job == _SELF_CHECK and running is not None and now < running.started + patience(past, job, now)
    return JobHealth(
        job=job,
        deadline=until,
        due=plan.next(job, now) if job in plan.times else 0,
        after=plan.after.get(job, ""),
        attempt=next((run for run in runs if run.outcome not in _NOTHING_TRIED and not run.part), None),
        success=past.good(job, now),
        running=running,
        is_overdue=now > until and (job != _SELF_CHECK or bool(past.runs[job])) and not is_looking,
    )


def _of_site(past: Past, now: int, besides: Besides) -> Iterator[_Finding]:
    """The clock and the state."""
    ahead = max((run.started for runs in past.runs.values() for run in runs), default=past.since)
    if max(ahead, past.since) > now + AHEAD:
        title = (
            "the clock was set back, or was wrong before: runs are dated in the future, and no deadline can be believed"
        )
        yield _critical("clock.back", title, "timedatectl", now)
    elif put_right := [run for runs in past.runs.values() for run in runs if _is_put_right(run, now)]:
        title = f"the clock went back: {_count(len(put_right), 'run')} were dated in the future, and snapshots are too"
        yield _critical("clock.back", title, "timedatectl; this is told for a day", put_right[0].started)
    if besides.rebuilt > now - TOLD_FOR:
        title = "the state was not there, or damaged: it was made from the ledger and the repository"
        yield _warning("state.rebuilt", title, "see the disk that it is on; this is told for a day", besides.rebuilt)


def _is_put_right(run: Run, now: int) -> bool:
    """Whether the daemon found lately that a wrong clock had dated it."""
    return run.outcome == MISDATED and abs(now - run.started) < TOLD_FOR


def _of_jobs(jobs: tuple[JobHealth, ...], zone: tzinfo) -> Iterator[_Finding]:
    for each in jobs:
        command = _COMMANDS.get(each.job, f"opsd {each.job}")
        if each.is_overdue:
            tell = _critical if each.job in _VITAL else _warning
            yield tell(f"{each.job}.overdue", _lateness(each, zone), command, each.deadline, is_overdue=True)
        last = each.attempt
        if last and not last.is_good and last.outcome not in _WAITS:
            is_doubt = last.exit_code == 4
            tell = _critical if is_doubt or each.job in _VITAL else _warning
            title = f"the last {each.job} " + _ending(last)
            step = last.hint or command
            yield tell(f"{each.job}.failed", title, step, last.ended or last.started, is_doubt=is_doubt)


def _lateness(job: JobHealth, zone: tzinfo) -> str:
    last = f"the last good one began {_time(job.success.started, zone)}" if job.success else ""
    if job.job == _SELF_CHECK:
        return f"the daemon does not work: it has not looked as it should; {last or 'it never did'}"
    return f"{job.job} is overdue: {last or ('none succeeded yet' if job.attempt else 'it never ran')}"


def _ending(run: Run) -> str:
    if run.exit_code == 4 and not run.error:
        return "found damage"
    words = {"interrupted": "was cut off", "stopped": "was stopped", "refused": "was refused"}
    return words.get(run.outcome, "failed") + (f": {run.error.partition(chr(10))[0]}" if run.error else "")


def _of_repository(case: _Case) -> Iterator[_Finding]:
    """What of the repository and its sources is not as promised."""
    place = case.observed.places.get("repository")
    if place is None:
        return
    if place.lost:
        gone = place.error or f"{_count(place.lost, 'snapshot')} of the repository gone, and no prune dropped them"
        step = place.hint or "opsd check --repair"
        yield _critical("repository.emptied", gone, step, place.looked or case.now, is_doubt=True)
    if place.error:
        title = f"the repository can't be read: {place.error}"
        if not place.lost:
            doubt = bool(place.looked)
            yield _critical("repository.unreadable", title, place.hint or "opsd check", case.now, is_doubt=doubt)
        return
    yield from _damage("repository", place, "opsd check --repair")
    yield from _of_sources(case, place)
    yield from _of_room(case, "repository", place)
    yield from _of_reading(case, "repository", place)


def _of_sources(case: _Case, place: PlaceSeen) -> Iterator[_Finding]:
    reasons = _reasons(case.past, case.now)
    due = cache(lambda stored: case.due("backup", stored))  # Hundreds of sources are in one snapshot.
    for label, seen in case.observed.sources.items():
        stored = place.points.get(label, Point()).stored
        if seen.outcome == "failed":
            why, step = reasons.get(label, ("", ""))
            title = f"source {label} failed in the last backup" + (why and f": {why.removeprefix(f'source {label}: ')}")
            yield _critical(f"source.{label}.failed", title, step or "opsd backup", case.now)
        if seen.outcome == "warnings":
            title = f"source {label}: {_count(seen.warnings, 'thing')} could not be read in the last backup"
            yield _warning(f"source.{label}.unread", title, "opsd backup", case.now)
        if place.lost or place.damaged:
            continue
        if not stored:
            yield _warning(f"source.{label}.stale", f"source {label} is in no snapshot yet", "opsd backup", case.now)
        elif "backup" in case.plan.jobs and case.now > (until := due(stored)):
            title = f"source {label}: its newest good snapshot is of {_time(stored, case.plan.zone)}"
            yield _critical(f"source.{label}.stale", title, "opsd backup", until, is_overdue=True)


def _reasons(past: Past, now: int) -> Mapping[str, Sequence[str]]:
    """Why sources failed in the last backup of all of them, and the next step, by label."""
    last = next((run for run in past.of("backup", now) if run.ended and not run.part), None)
    found: Mapping[str, Sequence[str]] = last.details.get("failures", {}) if last else {}
    return found


def _damage(subject: str, place: PlaceSeen, step: str) -> Iterator[_Finding]:
    """Snapshots that are there, and give nothing back."""
    if place.damaged:
        title = f"{_count(place.damaged, 'snapshot')} of {subject.replace('.', ' ')} can't be restored: damaged, or its packs are gone"
        yield _critical(f"{subject}.damaged", title, step, place.looked, is_doubt=True)


def _of_others(case: _Case) -> Iterator[_Finding]:
    """What of copies and pulls is not as promised."""
    newest = max((each.newest for each in case.observed.places.values() if each.kind == "repository"), default=0)
    for name, place in case.observed.places.items():
        if place.kind == "repository":
            continue
        if place.lost:
            title = (
                place.error or f"{place.kind} {name}: {_count(place.lost, 'snapshot')} gone, and no prune dropped them"
            )
            yield _critical(
                f"copy.{name}.emptied", title, place.hint or "opsd copy", place.looked or case.now, is_doubt=True
            )
        elif place.error:
            title = f"{place.kind} {name} can't be read: {place.error}"
            yield _warning(f"copy.{name}.unreadable", title, place.hint or f"opsd copy --to {name}", case.now)
        yield from _damage(f"copy.{name}", place, f"opsd check --copy {name} --repair")
        if not place.damaged:
            yield from _behind(case, name, place, newest)
        yield from _of_room(case, f"copy.{name}", place)
        yield from _of_reading(case, f"copy.{name}", place)


def _behind(case: _Case, name: str, place: PlaceSeen, newest: int) -> Iterator[_Finding]:
    """Whether a copy lacks what it should have by now; a pull goes by what its hosts promised."""
    key, command = f"copy.{name}.behind", f"opsd copy --{'from' if place.kind == 'pull' else 'to'} {name}"
    since = place.newest or case.observed.kit_made or case.past.since
    if place.kind == "pull":
        until = (place.due or case.due("copy", since)) + patience(case.past, "copy", case.now)
        is_behind = place.due or not place.newest
    else:
        until, is_behind = case.due("copy", since), place.newest < newest
    if is_behind and case.now > until:
        last = (
            f"its newest snapshot is of {_time(place.newest, case.plan.zone)}"
            if place.newest
            else "it was never filled"
        )
        title = f"{place.kind} {name} is behind: {last}"
        yield _critical(key, title, command, until, is_overdue=True)
    elif is_behind and place.looked and not place.newest:
        yield _warning(key, f"{place.kind} {name} was never filled", command, since)


def _of_room(case: _Case, subject: str, place: PlaceSeen) -> Iterator[_Finding]:
    """Whether the next nights still fit; the first one, which brought everything, tells nothing of the next."""
    key = "space.low" if subject == "repository" else f"{subject}.space"
    added = sum(each.added_bytes for each in case.observed.sources.values()) if place.snapshots > 1 else 0
    if place.free is not None and place.free < max(2 * added, LEAST_FREE):
        tell = _critical if place.free < added else _warning
        copy = "" if subject == "repository" else f" --copy {subject.partition('.')[2]}"
        yield tell(key, f"the disk of {subject.replace('.', ' ')} is almost full", f"opsd prune{copy}", case.now)


def _of_reading(case: _Case, subject: str, place: PlaceSeen) -> Iterator[_Finding]:
    """Whether everything was read again within 30 days."""
    if place.unread and case.now > place.unread + READ_WITHIN:
        key = "check.unread" if subject == "repository" else f"{subject}.unread"
        copy = "" if subject == "repository" else f" --copy {subject.partition('.')[2]}"
        title = f"a part of {subject.replace('.', ' ')} was not read again for {(case.now - place.unread) // DAY} days"
        yield _warning(key, title, f"opsd check{copy} --due", place.unread + READ_WITHIN)


def _of_retention(case: _Case) -> Iterator[_Finding]:
    short = {name: tier for name, tier in case.observed.tiers.items() if tier.kept < tier.required}
    if short:
        told = ", ".join(f"{tier.kept} of {tier.required} {name}" for name, tier in short.items())
        yield _warning("retention.short", f"snapshots are missing: {told}", "opsd snapshots", case.now)


def _of_drills(case: _Case) -> Iterator[_Finding]:
    """What the last drill showed, and whether a person ever used the recovery kit."""
    drill, made = case.observed.drill, case.observed.kit_made
    if drill.verdict == "red":
        title = "the last drill was red: something did not come back as it was"
        yield _critical("drill.red", title, "opsd drill show latest", drill.time, is_doubt=True)
    elif drill.verdict == "failed":
        yield _warning("drill.undone", "the last drill could not be carried out", "opsd drill show latest", drill.time)
    elif slow := drill.missed_targets:
        yield _warning("drill.slow", f"the last drill missed a target: {slow}", "opsd drill show latest", drill.time)
    elif drill.verdict == "deviating":
        title = "the last drill could not ask everything"
        yield _warning("drill.deviating", title, "opsd drill show latest", drill.time)
    if not drill.time and "drill" not in case.plan.jobs and 0 < made < case.now - DRILLED_WITHIN:
        yield _warning("drill.never", "no drill ever proved that it comes back", "opsd drill", made)
    if made and max(made, case.observed.kit_used) < case.now - KIT_TRIED_WITHIN:
        title = "nobody tried the recovery kit for a year"
        yield _warning("kit.unused", title, "opsd drill --kit", max(made, case.observed.kit_used) + KIT_TRIED_WITHIN)


def _time(moment: int, zone: tzinfo) -> str:
    return f"{local(moment, zone):%Y-%m-%d %H:%M}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _critical(
    key: str, title: str, step: str, since: int, *, is_overdue: bool = False, is_doubt: bool = False
) -> _Finding:  # budget: what a problem is
    problem = Problem(key=key, severity=Severity.CRITICAL, title=title, next_step=step, since=since)
    return _Finding(problem=problem, is_overdue=is_overdue, is_doubt=is_doubt)


def _warning(
    key: str, title: str, step: str, since: int, *, is_overdue: bool = False, is_doubt: bool = False
) -> _Finding:  # budget: likewise
    found = _critical(key, title, step, since, is_overdue=is_overdue, is_doubt=is_doubt)
    return replace(found, problem=replace(found.problem, severity=Severity.WARNING))
