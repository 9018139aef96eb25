"""The figures of this host for Prometheus, out of its state.

Promise: it opens no repository; all it takes is the configuration and `state.sqlite`.
"""

from collections.abc import Sequence
from contextlib import suppress

from opsd.app.pausing import pause_of
from opsd.monitor.deadlines import Past, Plan
from opsd.monitor.metrics import Service, View
from opsd.monitor.observed import Observed
from opsd.monitor.problems import Problem
from opsd.monitor.state import State


def view_of(  # budget: what a view is made of
    plan: Plan, past: Past, state: State, now: int, service: Service, problems: Sequence[Problem] = ()
) -> View:
    """What is to be told of this moment.

    Raises:
        StorageError: the state can't be read.
    """
    pause = pause_of(state, now)
    return View(
        now=now,
        service=service,
        plan=plan,
        past=past,
        counts=state.counts(),
        observed=observed_of(state),
        paused_until=pause.until if pause else 0,
        problems=problems,
    )


def observed_of(state: State) -> Observed | None:
    """What was found at the last look; None where nobody looked, or another version did that we can't read."""
    found = state.fact("observed")
    with suppress(TypeError, ValueError, KeyError, AttributeError):
        return Observed.from_json(found[1]) if found else None
    return None
