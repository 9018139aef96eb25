"""How a start ends in a run that is told of, whatever its way does."""

import queue
import threading
from collections.abc import Callable, Mapping

import pytest
from structlog.testing import capture_logs

from opsd.clock import FixedClock
from opsd.control import Ended
from opsd.daemon.runner import Runner, told_by
from opsd.daemon.schedule import Start
from opsd.errors import OpsdError, TryLater
from opsd.monitor.state import Run

SECONDS = 20.0


class Raising:
    """A way that can't run anything."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __call__(
        self, job: str, environment: Mapping[str, str], on_alive: Callable[[int], None], stop: threading.Event
    ) -> Ended:
        del job, environment, on_alive, stop
        raise self._error


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (TryLater("opsd-upkeep is at work on copy"), "postponed"),
        (OpsdError("there is no service"), "failed"),
        (RuntimeError("a bug"), "failed"),
    ],
)
def test_what_can_not_be_started_ends_as_its_error_says(error: Exception, outcome: str) -> None:
    told: queue.SimpleQueue[Run] = queue.SimpleQueue()
    runner = Runner(Raising(error), FixedClock(9), told.put)
    assert runner.start(Start(job="copy", slot=5, attempt=2))
    run = told.get(timeout=SECONDS)
    assert (run.job, run.slot, run.attempt, run.outcome) == ("copy", 5, 2, outcome)
    assert str(error) in run.error
    assert runner.stop(SECONDS)


def test_what_failed_says_in_the_log_why_and_what_to_do() -> None:
    told: queue.SimpleQueue[Run] = queue.SimpleQueue()
    with capture_logs() as logs:
        runner = Runner(Raising(OpsdError("there is no service")), FixedClock(9), told.put)
        runner.start(Start(job="copy", slot=5, attempt=1))
        told.get(timeout=SECONDS)
    (end,) = (each for each in logs if each["event"] == "job ended")
    assert (end["log_level"], end["error"]) == ("error", "there is no service")
    assert "opsd status" in end["hint"]


def test_what_a_job_said_at_its_end_is_the_error_and_the_next_step_of_its_run() -> None:
    tail = "noise\nopsd: the state can't be written\n      see the room on its disk,\n      and its owner\nlooked at 2 places\n"
    begun = Run(id="r", job="copy", cause="daemon", started=1)
    run = told_by(begun, Ended(exit_code=1, tail=tail), 5)
    assert (run.error, run.hint) == ("the state can't be written", "see the room on its disk, and its owner")
    assert told_by(begun, Ended(exit_code=1, tail="killed\n"), 5).error == "killed"
    assert told_by(begun, Ended(exit_code=-9, tail=""), 5).error == ""
    assert told_by(begun, Ended(exit_code=3, tail=tail), 5).error == ""
