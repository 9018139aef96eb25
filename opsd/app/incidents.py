"""The incidents as people see them: what is open, who was told, what waits; and acknowledging.

Promise: a spool that is not there is an empty one, and asking makes none.
"""

import os
import re
from collections.abc import Collection
from dataclasses import field, replace
from pathlib import Path
from typing import Final, Protocol

from opsd.app.alerting import places
from opsd.app.session import find_settings, host_name
from opsd.clock import SECOND, Clock, SystemClock
from opsd.errors import ConfigurationError, OpsdError, UsageError
from opsd.events import Reporter
from opsd.monitor import spool
from opsd.monitor.alerts import Decision, Incident, acknowledged, reported
from opsd.monitor.problems import Problem, Severity
from opsd.monitor.spool import Note, Place, Trouble
from opsd.settings import Settings, salvaged
from opsd.values import dataclass

_UNIT: Final = re.compile(r"[A-Za-z0-9:_.\\@-]{1,255}")
_LIST: Final = "'opsd alerts list' shows what is open"


class Teller(Protocol):
    """What it takes to tell people: a session has it."""

    @property
    def settings(self) -> Settings:
        """Whom, and how."""
        ...

    @property
    def reporter(self) -> Reporter:
        """Who listens."""
        ...

    @property
    def clock(self) -> Clock:
        """The time."""
        ...


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What could be read of a configuration with mistakes: `settings`; and `mistakes`, None where there were none."""

    settings: Settings
    reporter: Reporter
    clock: Clock = field(default_factory=SystemClock)
    mistakes: ConfigurationError | None = None


def teller(configuration: str | None, reporter: Reporter) -> Salvaged:
    """For whoever must tell people though the configuration may be what is wrong."""
    try:
        return Salvaged(find_settings(configuration), reporter)
    except ConfigurationError as error:
        file = configuration or os.environ.get("OPSD_CONFIG")
        return Salvaged(salvaged(file, host_name()), reporter, mistakes=error)


def aside(of: Teller, folder: Path) -> Salvaged:
    """The same with its spool in another folder."""
    return Salvaged(replace(of.settings, state=folder), of.reporter, of.clock)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """An open incident, and where a message of it arrived or waits."""

    incident: Incident
    notes: tuple[tuple[Place, Note], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """All that is open, and the addresses that can't be reached."""

    incidents: tuple[Listed, ...] = ()
    troubles: tuple[Trouble, ...] = ()


def listing(session: Teller) -> Listing:
    """What stands in the spool."""
    settings = session.settings
    if not (settings.state / spool.FILE).exists():
        return Listing()
    with spool.opened(settings.state, session.reporter.tell) as opened:
        notes = [(place, note) for place in places(settings.alerts) for note in opened.notes(place)]
        return Listing(
            incidents=tuple(
                Listed(incident=each, notes=tuple(pair for pair in notes if _is_of(pair[1], each)))
                for each in opened.incidents()
            ),
            troubles=tuple(each for each in opened.troubles() if each.place in places(settings.alerts)),
        )


def _is_of(note: Note, incident: Incident) -> bool:
    return note.incident.ended is None and note.incident.key == incident.key


def acknowledge(session: Teller, keys: Collection[str] | None) -> list[Incident]:
    """Acknowledge open incidents by their keys, all with None; those that were acknowledged before among them.

    Raises:
        OpsdError: no incident of that key is open.
    """
    settings, now = session.settings, session.clock.now()
    found: list[Incident] = []

    def decided(known: list[Incident]) -> Decision:
        missing = sorted(set(keys or ()) - {each.key for each in known})
        if missing:
            raise OpsdError(f"no open incident is called {', '.join(missing)}", hint=_LIST)
        found.extend(each for each in known if keys is None or each.key in keys)
        wanted = {each.key for each in found if each.acknowledged is None}
        return Decision(
            incidents=tuple(acknowledged(each, now) if each.key in wanted else each for each in known), events=()
        )

    if not (settings.state / spool.FILE).exists():
        decided([])
        return []
    with spool.opened(settings.state, session.reporter.tell) as opened:
        opened.change(decided, (), now)
    return found


def report_failed_unit(session: Teller, unit: str) -> str:
    """Put into the spool that a unit of systemd failed; returns the key. Nobody will see it end, so it is told until it is acknowledged.

    Raises:
        UsageError: no unit has such a name (systemd.unit(5)).
    """
    if not _UNIT.fullmatch(unit):
        raise UsageError("this is no unit's name", hint="for example: opsd alerts failed-unit opsd-daemon.service")
    settings, now = session.settings, session.clock.now()
    problem = Problem(
        key=f"unit.{unit}.failed",
        severity=Severity.CRITICAL,
        title=f"unit {unit} failed",
        next_step=f"journalctl -u {unit} -n 50",
        since=now,
    )
    repeat = int(settings.alerts.repeat * SECOND)
    with spool.opened(settings.state, session.reporter.tell) as opened:
        opened.change(lambda known: reported(known, problem, now, repeat), places(settings.alerts), now)
    return problem.key
