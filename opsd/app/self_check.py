"""The self-check, each hour and after each job: look at what is really there, and whether opsd's own memory is whole.

Promise: what it found stands in the state for status, metrics and alerts; it changes nothing else.
"""

from dataclasses import replace
from typing import Any, Final

from opsd import clock
from opsd.app.ledgers import verify_own
from opsd.app.observing import observe, remember, remembered
from opsd.app.rebuilding import rebuild
from opsd.app.session import Session
from opsd.monitor.observed import Observed
from opsd.monitor.state import State
from opsd.sources.discovery import Discovery
from opsd.values import dataclass

_TOPIC: Final = "uncovered"
#: What nothing protects is looked for once a day: that walks through folders.
_UNCOVERED_EVERY: Final = clock.DAY


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfCheck:
    """What was found to be there, and what is wrong with the ledger."""

    observed: Observed
    problems: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """4 where snapshots are gone or the ledger was altered, 3 where a place could not be read."""
        places = self.observed.places.values()
        if self.problems or any(place.lost for place in places):
            return 4
        return 3 if any(place.error for place in places) else 0


def self_check(session: Session, *, discovery: Discovery | None = None) -> SelfCheck:
    """Look, and remember what was found; `discovery` is what lives here, looked for unless it is given.

    Raises:
        StorageError: the state can't be read or written.
    """
    with State.open(session.settings.state, session.clock.now(), verify=True) as state:
        rebuild(session, state)
        counts = _uncovered(session, state, discovery) if session.settings.sources else {}
    observed = replace(observe(session, before=remembered(session)), **counts)
    remember(session, observed)
    return SelfCheck(observed=observed, problems=verify_own(session, elsewhere=False).problems)


def _uncovered(session: Session, state: State, discovery: Discovery | None) -> dict[str, Any]:
    """How many databases and folders nothing protects, as found within a day."""
    from opsd.app.doctor import count_uncovered_here  # noqa: PLC0415 - once a day, and it needs every kind of source

    now = session.clock.now()
    found = state.fact(_TOPIC)
    counts: dict[str, Any] = found[1] if found else {}
    if not found or discovery or not 0 <= now - found[0] < _UNCOVERED_EVERY:
        counts = count_uncovered_here(session, discovery)
        state.remember(_TOPIC, now, counts)
    return {f"uncovered_{name}": count for name, count in counts.items()}
