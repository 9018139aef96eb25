"""What is due now: the daemon's only decision.

Pure. Promise: each due time is answered exactly once: by a run, by a catching up after the daemon was down, or by a note that it was
skipped (the one before still ran) or missed (a later one has come since). A failure is tried again at growing pauses, an interruption
at once, a mistake in the configuration as soon as another one is taken, damage not at all. Times are ns UTC.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Final

from opsd.clock import SECOND
from opsd.monitor.deadlines import AHEAD, Past, Plan
from opsd.monitor.state import INTERRUPTED, MISDATED, MISSED, NEVER_RAN, RUNNING, SKIPPED, Run
from opsd.values import dataclass

MINUTE: Final = 60 * SECOND
#: The pauses before a failed run is tried again.
_FAILED: Final = (15 * MINUTE, 60 * MINUTE, 180 * MINUTE)
#: A run that was cut off goes on at once; one that always is must not do so all day.
_INTERRUPTED: Final = (0, 0, 5 * MINUTE, 15 * MINUTE, 60 * MINUTE)
_POSTPONED: Final = 10 * MINUTE
_MISCONFIGURED: Final = 2
_DAMAGED: Final = 4
SELF_CHECK: Final = "self-check"
_LOOK: Final = 60 * MINUTE
_NEWEST: Final = 3
#: So many missed times are noted one by one.
MOST_MISSED: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A job to start: the due time that it answers, and which attempt it is, from 1."""

    job: str
    slot: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A due time at which nothing ran, and why: `skipped` or `missed`."""

    job: str
    slot: int
    outcome: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do now."""

    starts: tuple[Start, ...] = ()
    notes: tuple[Note, ...] = ()


def decide(plan: Plan, past: Past, busy: Collection[str], now: int) -> Decision:
    """What is due. `busy`: the jobs that run."""
    starts: list[Start] = []
    notes: list[Note] = []
    for job in plan.jobs:
        runs = past.of(job, now)
        if job == SELF_CHECK:
            starts += _look_again(past, runs, now) if job not in busy else ()
            continue
        slot = plan.last(job, now) if job in plan.times else _after(plan, past, job, now)
        if slot <= past.since:
            continue
        if job in plan.times:
            notes += _missed(plan, job, runs, past.since, slot)
        if job in busy:
            if job in plan.times and _runs_for_another(runs, slot) and not _noted(runs, slot):
                notes.append(Note(job=job, slot=slot, outcome=SKIPPED))
            continue
        attempts = _attempts(runs, slot)
        due = None if _is_answered(runs, slot) else next_attempt(attempts, past.configured)
        if due is not None and due <= now:
            starts.append(Start(job=job, slot=slot, attempt=len(attempts) + 1))
    return Decision(starts=tuple(starts), notes=tuple(notes))


def _look_again(past: Past, runs: Sequence[Run], now: int) -> Iterator[Start]:
    """The self-check: every hour, after each end of another job, and when a configuration was taken, which may name other places."""
    last = runs[0].started if runs else 0
    ends = (run.ended for job in past.runs if job != SELF_CHECK for run in past.of(job, now)[:_NEWEST])
    if now - last >= _LOOK or max(ends, default=0) > last or last < past.configured <= now:
        yield Start(job=SELF_CHECK, slot=now, attempt=1)


def next_attempt(attempts: Sequence[Run], configured: int) -> int | None:
    """When a due time that had these attempts (newest first) is tried again; None: it is settled. `configured`: as in `Past`."""
    if not attempts:
        return 0
    last = attempts[0]
    if last.is_good or last.outcome == RUNNING or last.exit_code == _DAMAGED:
        return None
    if last.exit_code == _MISCONFIGURED and last.ended < configured:
        return configured
    if last.outcome == "postponed":
        return last.ended + _POSTPONED
    pauses = _INTERRUPTED if last.outcome in {INTERRUPTED, "stopped"} else _FAILED
    alike = sum(1 for run in attempts if run.outcome == last.outcome)
    return max(last.ended, last.started) + pauses[alike - 1] if alike <= len(pauses) else None


def _attempts(runs: Sequence[Run], slot: int) -> list[Run]:
    return [run for run in runs if run.slot == slot and run.outcome not in NEVER_RAN]


def _is_answered(runs: Sequence[Run], slot: int) -> bool:
    """Whether a due time has had what it asks for, whoever started it, or was skipped."""
    return any(
        (run.slot == slot and (run.is_good or run.outcome == SKIPPED)) or (run.is_good and run.started >= slot)
        for run in runs
    )


def _noted(runs: Sequence[Run], slot: int) -> bool:
    return any(run.slot == slot for run in runs)


def _runs_for_another(runs: Sequence[Run], slot: int) -> bool:
    """Whether what runs now was begun for an earlier due time."""
    return any(run.outcome == RUNNING and run.slot < slot and run.started < slot for run in runs)


def _missed(plan: Plan, job: str, runs: Sequence[Run], since: int, slot: int) -> Iterator[Note]:
    """The due times before the newest that nothing answered."""
    known = max((each for each in map(_looked, runs) if each < slot), default=since)
    before = [each for each in plan.between(job, max(known, since), slot) if each < slot]
    for each in before[-MOST_MISSED:]:
        if not _noted(runs, each):
            yield Note(job=job, slot=each, outcome=MISSED)


def _looked(run: Run) -> int:
    """Up to when a run shows that its job was cared for: also one that the clock, set back since, has dated right."""
    return run.details.get("dated", 0) if run.outcome == MISDATED else run.slot or run.started


def _after(plan: Plan, past: Past, job: str, now: int) -> int:
    """The due time of a job that follows another: when that one was last done with; 0 for never."""
    before = plan.after[job]
    runs = past.of(before, now)
    for run in runs:
        if run.outcome in NEVER_RAN or not run.ended:
            continue
        if run.is_good or run.details.get("snapshot"):
            return run.ended
        if run.slot and before != "backup" and next_attempt(_attempts(runs, run.slot), past.configured) is None:
            return run.ended  # It was given up: what follows must not wait for ever.
    return 0


def misdated(past: Past, now: int) -> list[Run]:
    """The runs that a clock far ahead has dated."""
    return [run for runs in past.runs.values() for run in runs if run.started > now + AHEAD and run.ended]
