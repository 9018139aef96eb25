"""The figures of this host for Prometheus, out of its state.

Promise: it opens no repository; all it takes is the configuration and `state.sqlite`.
"""

from collections.abc import Sequence

from opsd.app.pausing import pause_of
from opsd.app.planning import observed_of
from opsd.monitor.deadlines import Past, Plan
from opsd.monitor.metrics import Service, View
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
