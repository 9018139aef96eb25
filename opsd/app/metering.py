"""The figures of this host for Prometheus, out of its state.

Promise: it opens no repository; all it takes is the configuration and `state.sqlite`.
"""

from contextlib import suppress

from opsd.app.planning import past_of, plan_of
from opsd.monitor.metrics import Service, View
from opsd.monitor.observed import Observed
from opsd.monitor.state import State
from opsd.settings import Settings


def view_of(settings: Settings, state: State, now: int, service: Service) -> View:
    """What is to be told of this moment.

    Raises:
        StorageError: the state can't be read.
    """
    return View(
        now=now,
        service=service,
        plan=plan_of(settings),
        past=past_of(state),
        counts=state.counts(),
        observed=observed_of(state),
    )


def observed_of(state: State) -> Observed | None:
    """What was found at the last look; None where nobody looked, or another version did that we can't read."""
    found = state.fact("observed")
    with suppress(TypeError, ValueError, KeyError, AttributeError):
        return Observed.from_json(found[1]) if found else None
    return None
