"""Keep the schedule: look, note what was missed, start what is due, remember.

Promise: works by its clock alone, and can be driven through years in a test. What the state can't take it keeps in mind, so that a full
disk starts no job twice; what was lost or damaged is begun anew, and said.
"""

import queue
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Final, Protocol

import structlog

from opsd import clock
from opsd.app.pausing import pause_of
from opsd.app.planning import past_of, plan_of
from opsd.clock import Clock
from opsd.daemon.schedule import Note, Start, decide, misdated
from opsd.errors import StorageError
from opsd.monitor.deadlines import AHEAD, Past, Plan
from opsd.monitor.health import TOLD_FOR, Pause
from opsd.monitor.state import INTERRUPTED, MISDATED, RUNNING, Run, State, read_only
from opsd.settings import Settings
from opsd.values import dataclass

#: Of each job, so many of its newest runs may still be at work.
_NEWEST: Final = 5
_ONCE: Final = frozenset({"clock.back", "state.lost"})
log = structlog.get_logger()


class Starter(Protocol):
    """What runs jobs."""

    @property
    def jobs(self) -> frozenset[str]:
        """The jobs that run."""
        ...

    def start(self, start: Start) -> bool:
        """Start one; False where something else must end first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What is wrong with the daemon itself: what happened, and the next step."""

    text: str
    hint: str
    since: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How it stands at a tick. `changed`: something has ended or begun since the last; `trouble` by the key of the problem."""

    settings: Settings
    plan: Plan
    past: Past
    state: State
    now: int
    trouble: dict[str, Trouble]
    changed: bool


class Keeper:
    """Keeps the schedule of one host."""

    def __init__(self, settings: Settings, clock_: Clock) -> None:
        self._settings = settings
        self._clock = clock_
        self.plan = plan_of(settings)
        self.trouble: dict[str, Trouble] = {}
        self._state: State | None = None
        #: It holds also while the state can't be read.
        self._pause: Pause | None = None
        #: What is looked at where the state can't be opened.
        self._read: State | None = None
        self._configured = clock_.now()
        self._known = Past(runs={}, since=self._configured, configured=self._configured)
        self._changes = -1
        self._dirty = True
        self._ended: queue.SimpleQueue[Run] = queue.SimpleQueue()
        #: Runs and notes that the state has not taken yet.
        self._in_mind: dict[str, Run] = {}

    def take(self, settings: Settings) -> None:
        """Go by another configuration."""
        self._settings = settings
        self.plan = plan_of(settings)
        self._configured = self._clock.now()
        self._dirty = True

    def ended(self, run: Run) -> None:
        """A job ended, as its starter saw it; what the job has told of itself counts more. From any thread."""
        self._ended.put(run)

    def say(self, key: str, text: str, hint: str) -> None:
        """Tell a trouble, once."""
        if key not in self.trouble:
            log.error(text, hint=hint)
        self.trouble[key] = Trouble(text=text, hint=hint, since=self._clock.now())

    def tick(self, starter: Starter) -> Look | None:
        """Look once, and start what is due; None where there is no state to look at."""
        now = self._clock.now()
        self._let_pass(now)
        ended = self._just_ended()  # Before the state is read: a job writes its run before it ends.
        try:
            state = self._opened(now)
            changed = self._learn(state, now)
            self._pause = pause_of(state, now)
        except StorageError as error:
            self.say("state.unwritable", str(error), error.hint or "see its disk")
            self._drop()
            changed, state = self._read_only(now), None
        self._remember(state, self._untold(ended))
        if state and not self._in_mind:
            self.trouble.pop("state.unwritable", None)
        if self._pause is None or self._pause.until <= now:
            self._start(starter, state, now)
        looked = state or self._read
        if looked is None:
            return None
        return Look(
            settings=self._settings,
            plan=self.plan,
            past=self._past(),
            state=looked,
            now=now,
            trouble=dict(self.trouble),
            changed=changed,
        )

    def close(self) -> None:
        """Write what is still in mind, and let go of the state."""
        self._remember(self._state, self._untold(self._just_ended()))
        self._drop()
        self._release()

    def _let_pass(self, now: int) -> None:
        """What happened once, and goes on no more, is told for a day."""
        for key in _ONCE & self.trouble.keys():
            if abs(now - self.trouble[key].since) >= TOLD_FOR:
                del self.trouble[key]

    def _start(self, starter: Starter, state: State | None, now: int) -> None:
        past = self._past()
        others = {job for job, runs in past.runs.items() if any(_runs(run) for run in runs[:_NEWEST])}
        decision = decide(self.plan, past, starter.jobs | others, now)
        self._remember(state, [_noted(note, now) for note in decision.notes])
        for start in decision.starts:
            starter.start(start)

    def _opened(self, now: int) -> State:
        """The state; one that was removed or damaged meanwhile is begun anew."""
        if self._state is not None and self._state.is_there():
            return self._state
        lost = self._state is not None
        self._drop()
        self._state = State.open(self._settings.state, now, verify=True)
        if self._state.is_new and lost:
            self.say(
                "state.lost", f"{self._state.path} was lost or damaged, and begun anew", "see the disk that it is on"
            )
        self._state.forget(now)
        self._dirty = True
        return self._state

    def _drop(self) -> None:
        if self._state:
            self._state.close()
        self._state = None

    def _learn(self, state: State, now: int) -> bool:
        """Read the past again where it may have changed; whether it did."""
        self._release()
        changes = state.changes
        running = any(run.outcome == RUNNING for runs in self._known.runs.values() for run in runs[:_NEWEST])
        if not (self._dirty or running or changes != self._changes):
            return False
        self._changes, self._dirty = changes, False
        self._known = replace(past_of(state), since=self._since(state, now), configured=self._configured)
        wrong = misdated(self._known, now)
        if wrong:
            self.say(
                "clock.back",
                f"the clock went back: {len(wrong)} runs were dated in the future",
                "see 'timedatectl'; snapshots of that time are dated ahead too",
            )
            self._remember(state, [_put_right(run, now) for run in wrong])
        return True

    def _read_only(self, now: int) -> bool:
        """Go by what the state holds, where nothing is known yet: also a daemon that starts on a full disk has a past."""
        if self._read is None and (read := read_only(self._settings.state)):
            self._read = read
            if not self._known.runs:
                self._known = replace(past_of(read), configured=self._configured)
                self._pause = pause_of(read, now)
            return True
        return False

    def _release(self) -> None:
        if self._read:
            self._read.close()
        self._read = None

    def _since(self, state: State, now: int) -> int:
        """When the state was begun; one that a clock far ahead has dated was begun now, or nothing were due until then."""
        since = state.since
        if since > now + AHEAD:
            since = now
            state.remember("since", now, since)
        return since

    def _past(self) -> Past:
        """What the state knows, and what it has not taken yet."""
        return _joined(self._known, self._in_mind.values()) if self._in_mind else self._known

    def _just_ended(self) -> list[Run]:
        """The runs that ended since the last look."""
        found = []
        with suppress(queue.Empty):
            while True:
                found.append(self._ended.get_nowait())
        return found

    def _untold(self, ended: list[Run]) -> list[Run]:
        """Those that have not told of themselves."""
        told = {run.id for known in self._known.runs.values() for run in known if _is_told(run)}
        return [run for run in ended if run.id not in told]

    def _remember(self, state: State | None, runs: Iterable[Run]) -> None:
        """Have runs in mind until the state takes them."""
        self._in_mind |= {run.id: run for run in runs}
        if state is None or not self._in_mind:
            return
        try:
            state.put(self._in_mind.values())
        except StorageError as error:
            self.say("state.unwritable", str(error), error.hint or "see its disk")
        else:
            self._known = _joined(self._known, self._in_mind.values())
            self._in_mind.clear()
            self._dirty = True


def _runs(run: Run) -> bool:
    return run.outcome == RUNNING and not run.part


def _is_told(run: Run) -> bool:
    """Whether a job has written its own end."""
    return run.outcome not in {RUNNING, INTERRUPTED}


def _noted(note: Note, now: int) -> Run:
    time = min(note.slot, now)
    return Run(
        id=f"{clock.stamp(note.slot)}-{note.job}-{note.outcome}",
        job=note.job,
        cause="daemon",
        slot=note.slot,
        started=time,
        ended=time,
        outcome=note.outcome,
    )


def _put_right(run: Run, now: int) -> Run:
    """A run that a wrong clock dated, where it answers nothing."""
    return replace(run, slot=0, started=now, ended=now, outcome=MISDATED, details={**run.details, "dated": run.started})


def _joined(past: Past, runs: Iterable[Run]) -> Past:
    joined = {job: list(known) for job, known in past.runs.items()}
    for run in runs:
        others = [known for known in joined.get(run.job, []) if known.id != run.id]
        joined[run.job] = sorted([run, *others], key=lambda each: each.started, reverse=True)
    return replace(past, runs=joined)
