"""Leave each job's run in the state, whoever started it: what `opsd status`, the metrics and the daemon go by.

Promise: a job never fails, and is never slower, because its run can't be written; that is one warning. What a job does within
another (`opsd run check` checks the copies too) is told by the outer one.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from opsd.app.pinging import pings_of
from opsd.clock import local
from opsd.errors import OpsdError, PruneRefused, StorageError, TryLater, UsageError
from opsd.events import Reporter, Total, Warning
from opsd.monitor.ledger import outcome_of
from opsd.monitor.state import RUNNING, Run, State, begun, living

if TYPE_CHECKING:
    from opsd.app.session import Session

#: How often a run at work says how far it is, in seconds.
_INTERVAL: Final = 5.0
#: Set where a command works within another run, which tells of it.
WITHIN: Final = "OPSD_WITHIN"
#: Set where whoever has the job done sends its pings: the job may have no network.
PINGED: Final = "OPSD_PINGED"
#: Of an error's text, so much is kept.
_LETTERS: Final = 500
#: The reasons of so many sources are.
_FAILURES: Final = 20
#: Of a job, so many of its newest runs may still be at work.
_NEWEST: Final = 5


class RunRecord:
    """The run of a job at work."""

    def __init__(self, session: "Session", run: Run | None) -> None:
        self._session = session
        self._run = run
        self._pings = None
        if run and not run.part and not os.environ.get(PINGED):
            self._pings = pings_of(session.settings, session.reporter, run.job, run.id)
        self._details: dict[str, Any] = {}
        self._exit = ExitStack()
        self.timer = StageTimer(session.reporter, self._show)
        self.is_ended = False

    @property
    def id(self) -> str:
        """What names the run; empty within another."""
        return self._run.id if self._run else ""

    def begin(self) -> None:
        """Say that it runs."""
        state = self._session.settings.state
        if self._run and state.is_dir():
            with suppress(OSError):
                self._exit.enter_context(living(state, self._run.id))
            self._put(self._run)
        if self._pings:
            self._pings.begin()

    def failed_sources(self, failures: Mapping[str, OpsdError]) -> None:
        """Why sources failed, by label: kept with the run, and in no ledger, since texts hold paths."""
        told = list(failures.items())[:_FAILURES]
        self._details = {
            "failures": {label: [str(each)[:_LETTERS], (each.hint or "")[:_LETTERS]] for label, each in told}
        }

    def ended(self, exit_code: int, error: BaseException | None = None, **details: Any) -> int:
        """Say how it ended; returns the exit code."""
        self.is_ended = True
        stages = self.timer.stages()
        if self._run:
            refused = isinstance(error, PruneRefused | UsageError)
            self._put(
                replace(
                    self._now(self._run),
                    ended=self._session.clock.now(),
                    outcome="refused" if refused else outcome_of(exit_code),
                    exit_code=exit_code,
                    error=str(error or "")[:_LETTERS],
                    hint=(getattr(error, "hint", None) or "")[:_LETTERS],
                    details=self._details | details,
                    stages=stages,
                    stage="",
                )
            )
        self._exit.close()
        if self._pings:
            self._pings.ended(exit_code)
        return exit_code

    def _now(self, run: Run) -> Run:
        timer = self.timer
        return replace(run, stage=timer.stage_name, files=timer.files, bytes=timer.size)

    def _show(self) -> None:
        if self._run and not self.is_ended:
            self._put(self._now(self._run))

    def _put(self, run: Run) -> None:
        session = self._session
        if not os.path.isdir(session.settings.state):
            return  # A new machine: whoever only restores needs no state.
        try:
            with State.open(session.settings.state, session.clock.now()) as state:
                state.put([run])
        except StorageError as error:
            if self._run:
                session.reporter.warn(Warning(subject="state", problem=str(error), hint=error.hint))
            self._run = None


class StageTimer:
    """A reporter that passes on what it hears, and keeps how long each stage took and how far it is."""

    def __init__(self, inner: Reporter, show: Any) -> None:
        self._inner = inner
        self._show = show
        self._stages: list[tuple[str, float]] = []
        self._next = 0.0
        self.stage_name = ""
        self.files = self.size = 0
        self.warn = inner.warn
        self.tell = inner.tell

    def stage(self, name: str, total: Total | None = None) -> None:
        """A stage begins."""
        self._stages.append((name, time.monotonic()))
        self.stage_name = name
        self._inner.stage(name, total)
        self._show_sometimes()

    def advance(self, *, files: int = 0, size: int = 0) -> None:
        """So many more are done."""
        self.files += files
        self.size += size
        self._inner.advance(files=files, size=size)
        self._show_sometimes()

    def _show_sometimes(self) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _INTERVAL
            self._show()

    def stages(self) -> list[tuple[str, float]]:
        """Each stage in the order of its first beginning, and its seconds in all."""
        spent: dict[str, float] = {}
        for (name, began), (_, end) in pairwise([*self._stages, ("", time.monotonic())]):
            spent[name] = spent.get(name, 0.0) + end - began
        return [(name, round(seconds, 3)) for name, seconds in spent.items()]


@contextmanager
def tracked(session: "Session", job: str, *, part: bool = False) -> Iterator[RunRecord]:
    """Leave the run of a job, or of a part of it, however it ends.

    What ends without an exception calls `ended` with its exit code; else it is done.
    """
    inner = os.environ.get(WITHIN)
    record = RunRecord(session, None if inner else begun(job, session.clock.now(), os.environ, part=part))
    before, session.reporter = session.reporter, record.timer
    record.begin()
    try:
        yield record
        if not record.is_ended:
            record.ended(0)
    except BaseException as error:
        if not record.is_ended:
            record.ended(exit_code_of(error), error)
        raise
    finally:
        session.reporter = before


def require_idle(session: "Session", job: str) -> None:
    """A whole job is done once at a time, whoever starts it.

    Raises:
        TryLater: it is at work.
    """
    if not session.has_state():
        return
    with suppress(StorageError), State.open(session.settings.state, session.clock.now()) as state:
        running = next((run for run in state.runs(job, most=_NEWEST) if run.outcome == RUNNING and not run.part), None)
        if running:
            since = f"{local(running.started, session.settings.zone):%H:%M}"
            by = "the daemon" if running.cause == "daemon" else "a person"
            raise TryLater(f"{job} is at work since {since}, started by {by}", hint="'opsd status' shows how far it is")


def exit_code_of(error: BaseException) -> int:
    """What the command will end with."""
    if isinstance(error, KeyboardInterrupt):
        return int(getattr(error, "exit_code", 130))
    return error.exit_code if isinstance(error, OpsdError) else 1
