"""A pause: the daemon starts nothing until it ends.

Promise: it ends by itself, is in the ledger, is shown wherever the promise is, and moves no deadline.
"""

from typing import Final

from opsd.monitor.health import Pause
from opsd.monitor.state import State

_TOPIC: Final = "pause"


def pause_of(state: State, now: int) -> Pause | None:
    """The pause that holds now."""
    found = state.fact(_TOPIC)
    if not found or not found[1] or found[1]["until"] <= now:
        return None
    return Pause(until=found[1]["until"], reason=found[1]["reason"])


def pause(state: State, pause: Pause | None, now: int) -> None:
    """Begin one, or end the one that holds."""
    state.remember(_TOPIC, now, {"until": pause.until, "reason": pause.reason} if pause else None)
