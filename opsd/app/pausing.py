"""A pause: the daemon starts nothing until it ends.

Promise: it ends by itself, is in the ledger, is shown wherever the promise is, and moves no deadline.
"""

import re
from datetime import tzinfo
from typing import Final

from opsd.app.times import parse_since, parse_time
from opsd.errors import UsageError
from opsd.monitor.health import Pause
from opsd.monitor.state import State
from opsd.schedule import next_time

_TOPIC: Final = "pause"
_CLOCK: Final = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")
_DAY_LETTERS: Final = len("2026-11-24")


def pause_of(state: State, now: int) -> Pause | None:
    """The pause that holds now."""
    found = state.fact(_TOPIC)
    if not found or not found[1] or found[1]["until"] <= now:
        return None
    return Pause(until=found[1]["until"], reason=found[1]["reason"])


def end_of(text: str, zone: tzinfo, now: int) -> int:
    """When a pause ends that was asked for until `text`, in ns UTC: `08:00` is the next time that the wall shows it, a day is over when it is over.

    Raises:
        UsageError: it is no time, or has passed.
    """
    try:
        if _CLOCK.fullmatch(text):
            return next_time(text, zone, now)
        until = (parse_time if len(text) == _DAY_LETTERS else parse_since)(text, zone, now)
    except UsageError as error:
        raise UsageError(str(error), hint="for example: 08:00, '2026-11-24 08:00' or 2026-11-24") from error
    if until <= now:
        raise UsageError("that time has passed", hint="name one that is to come")
    return until


def pause(state: State, pause: Pause | None, now: int) -> None:
    """Begin one, or end the one that holds."""
    state.remember(_TOPIC, now, {"until": pause.until, "reason": pause.reason} if pause else None)
