"""Run the jobs that are due, each outside of this process, at most one in each lane.

Promise: whatever a job does, the scheduler goes on; each start ends in a run that is told of, also where the job could tell nothing
itself. A backup never waits for a check or a drill.
"""

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import takewhile
from typing import Final, Protocol

import structlog

from opsd import clock
from opsd.clock import Clock
from opsd.control import SERVICES, Ended
from opsd.daemon.jobs import Job, run_job
from opsd.daemon.schedule import Start
from opsd.errors import OpsdError
from opsd.monitor.ledger import outcome_of
from opsd.monitor.state import Run
from opsd.values import dataclass

_LETTERS: Final = 500
#: How a command tells what went wrong, and the next step below (opsd.cli.output).
_SAID: Final = "opsd: "
_ADVICE: Final = " " * 6
_FINE: Final = frozenset({0, 3})
#: What goes on by itself.
_WAITS: Final = frozenset({"postponed", "stopped", "interrupted"})


def lane(job: str) -> str:
    """Jobs of one lane wait for each other, in the order of the schedule: those of one service, and else each is its own."""
    return SERVICES.get(job, job)


class LeftRunning(Exception):
    """The daemon was told to stop, and the job goes on without it: it tells of its end itself."""


class Way(Protocol):
    """How a job is run: as a child, or by a unit of its own."""

    def __call__(
        self, job: str, environment: Mapping[str, str], on_alive: Callable[[int], None], stop: threading.Event
    ) -> Ended:
        """Run it to its end.

        Raises:
            LeftRunning: it goes on elsewhere. OSError, OpsdError: it can't be started.
        """
        ...


@dataclass(frozen=True, slots=True)
class AsChild:
    """Runs jobs as children of the daemon."""

    configuration: str | None

    def __call__(
        self, job: str, environment: Mapping[str, str], on_alive: Callable[[int], None], stop: threading.Event
    ) -> Ended:
        """Run it."""
        child = Job(verb=("run", job), configuration=self.configuration, environment=os.environ | environment)
        return run_job(child, on_alive, stop)


class Runner:
    """The jobs at work. `done` hears, from their threads, how each ended."""

    def __init__(self, way: Way, clock_: Clock, done: Callable[[Run], None]) -> None:
        self._way = way
        self._clock = clock_
        self._done = done
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads: dict[str, threading.Thread] = {}
        self._alive: dict[str, Start] = {}

    @property
    def jobs(self) -> frozenset[str]:
        """The jobs that run."""
        with self._lock:
            return frozenset(self._alive)

    def start(self, start: Start) -> bool:
        """Start a job; False where its lane is busy."""
        with self._lock:
            if any(lane(job) == lane(start.job) for job in self._alive) or self._stop.is_set():
                return False
            self._alive[start.job] = start
        thread = threading.Thread(target=self._work, args=(start,), name=f"job-{start.job}", daemon=True)
        self._threads[start.job] = thread
        thread.start()
        return True

    def _work(self, start: Start) -> None:
        began = self._clock.now()
        run = Run(
            id=f"{clock.stamp(began)}-{start.job}",
            job=start.job,
            cause="daemon",
            slot=start.slot,
            attempt=start.attempt,
            started=began,
        )
        log = structlog.get_logger().bind(opsd_run=run.id, opsd_job=run.job)
        log.info("job started", attempt=run.attempt)
        environment = {
            "OPSD_RUN_ID": run.id,
            "OPSD_RUN_SLOT": str(run.slot),
            "OPSD_RUN_ATTEMPT": str(run.attempt),
        }
        try:
            ended = self._way(start.job, environment, lambda _: None, self._stop)
        except LeftRunning:
            with self._lock:
                del self._alive[start.job]
            return
        except OpsdError as error:  # Its service is at work on the same for somebody else, or is not there.
            ended = Ended(exit_code=error.exit_code, tail=f"opsd: {error}")
        except Exception as error:  # noqa: BLE001 - whatever it is, the scheduler goes on
            ended = Ended(exit_code=1, tail=f"{type(error).__name__}: {error}")
        run = told_by(run, ended, self._clock.now())
        _log_end(log, run, ended)
        with self._lock:
            del self._alive[start.job]
        self._done(run)

    def stop(self, seconds: float) -> bool:
        """Ask all to stop at a safe point, and wait; whether they have."""
        self._stop.set()
        for thread in list(self._threads.values()):
            thread.join(seconds)
        return not self.jobs


def _log_end(log: structlog.stdlib.BoundLogger, run: Run, ended: Ended) -> None:
    """What failed says why and what to do: the journal is all that some people read."""
    about = {"exit_code": ended.exit_code, "seconds": round(ended.seconds, 1)}
    if run.is_good or run.outcome in _WAITS:
        log.info("job ended", **about)
    else:
        log.error("job ended", **about, error=run.error, hint=run.hint or "'opsd status' tells the next step")


def told_by(run: Run, ended: Ended, now: int) -> Run:
    """The run as its end tells it, for where the job could tell nothing itself."""
    lines = [line.rstrip() for line in ended.tail.splitlines() if line.strip()]
    said = max((place for place, line in enumerate(lines) if line.startswith(_SAID)), default=len(lines) - 1)
    advice = takewhile(lambda line: line.startswith(_ADVICE), lines[said + 1 :])
    code = ended.exit_code
    is_fine = code in _FINE or not lines
    return replace(
        run,
        ended=now,
        outcome="interrupted" if code < 0 else outcome_of(code),
        exit_code=code,
        error="" if is_fine else lines[said].strip().removeprefix(_SAID)[:_LETTERS],
        hint="" if is_fine else " ".join(map(str.strip, advice))[:_LETTERS],
    )
