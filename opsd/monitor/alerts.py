"""Incidents: what of all problems is told when, and when it is told again.

Pure. Promise: a problem is told when it opens, again after each `repeat` until somebody acknowledges it, and once more when it has ended; whatever is
told at one time is one message, and one that is told again carries everything that is still open. docs/decisions/0030-alerts.md.
"""

from collections.abc import Iterable
from dataclasses import replace
from enum import StrEnum
from typing import Final

from opsd.clock import SECOND
from opsd.monitor.problems import Problem, Severity
from opsd.values import dataclass

#: So long a problem must stay away to have ended, unless `repeat` is shorter; one that comes back earlier never left (ns).
SETTLING: Final = 300 * SECOND
#: Later than any clock.
NEVER: Final = 2**63 - 1


class Event(StrEnum):
    """Why an incident is told."""

    OPENED = "opened"
    REPEATED = "repeated"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """A problem that people are told of. Times in ns UTC.

    `told`: when it was last put into the spool; `gone`: since when the problem has been away; `ended`: when that became the end of it.
    `stays`: nobody sees its end (a unit failed), so acknowledging it is the end.
    """

    problem: Problem
    opened: int
    told: int
    acknowledged: int | None = None
    gone: int | None = None
    ended: int | None = None
    stays: bool = False

    @property
    def key(self) -> str:
        """The problem's."""
        return self.problem.key


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """All incidents as they are now, those that just ended among them, and which of them are to be told, in one message."""

    incidents: tuple[Incident, ...]
    events: tuple[tuple[str, Event], ...]


def decide(incidents: Iterable[Incident], problems: Iterable[Problem], now: int, repeat: int) -> Decision:
    """What the open incidents become, now that these problems are there; `repeat` in ns."""
    present: dict[str, Problem] = {}
    covered: set[str] = set()
    for problem in problems:
        present.setdefault(problem.key, replace(problem, covers=()))
        covered |= set(problem.covers)
    known = {each.key: each for each in incidents}
    # What is told of as another problem from now on goes without a word: an all-clear would be a lie.
    merged = {each.key: replace(each, ended=now) for each in known.values() if each.key in covered - present.keys()}
    known = {key: each for key, each in known.items() if key not in merged}
    after = [_seen(each, present.get(each.key), now, min(SETTLING, repeat)) for each in known.values()]
    after += [Incident(problem=each, opened=now, told=now) for key, each in sorted(present.items()) if key not in known]
    events = {each.key: event for each in after if (event := _event(each, known.get(each.key), now, repeat))}
    if events:  # Whoever is told anything is told all that is open: the newest message alone gives the whole picture.
        events |= {each.key: Event.REPEATED for each in after if each.key not in events and _is_loud(each)}
    told = [replace(each, told=now) if each.key in events else each for each in after]
    return Decision(incidents=(*merged.values(), *told), events=tuple(events.items()))


def next_time(incidents: Iterable[Incident], repeat: int) -> int:
    """When something is to be told next although all stays as it is; the end of time where nothing is."""
    open_ = [each for each in incidents if each.ended is None]
    loud = (each.told + repeat for each in open_ if _is_loud(each))
    gone = (each.gone + min(SETTLING, repeat) for each in open_ if each.gone is not None)
    return min((*loud, *gone), default=NEVER)


def reported(incidents: Iterable[Incident], problem: Problem, now: int, repeat: int) -> Decision:
    """The same where somebody tells of one problem whose end nobody will see; all others stay as they are."""
    known = tuple(incidents)
    present = [problem, *(each.problem for each in known if each.gone is None)]
    decision = decide(known, present, now, repeat)
    stays = (replace(each, stays=each.stays or each.key == problem.key) for each in decision.incidents)
    return replace(decision, incidents=tuple(stays))


def _seen(incident: Incident, problem: Problem | None, now: int, settling: int) -> Incident:
    """The incident with what is known of its problem now."""
    if problem is not None:
        known = None if _is_worse(problem, incident.problem) else incident.acknowledged
        # Of some problems, whoever finds them knows only that they are there now.
        began = min(problem.since, incident.problem.since)
        return replace(incident, problem=replace(problem, since=began), gone=None, acknowledged=known)
    if incident.stays:
        return incident
    gone = now if incident.gone is None or incident.gone > now else incident.gone
    return replace(incident, gone=gone, ended=now if now - gone >= settling else None)


def _event(incident: Incident, before: Incident | None, now: int, repeat: int) -> Event | None:
    """Why it must be told now, if it must."""
    if incident.ended is not None:
        return Event.ENDED
    if before is None or _is_worse(incident.problem, before.problem):
        return Event.OPENED
    # A clock that was set back must not silence what is open.
    is_due = not incident.told <= now < incident.told + repeat
    return Event.REPEATED if is_due and _is_loud(incident) else None


def _is_worse(problem: Problem, before: Problem) -> bool:
    """Whether somebody who knows of the one must be told of the other."""
    return (problem.severity, before.severity) == (Severity.CRITICAL, Severity.WARNING)


def _is_loud(incident: Incident) -> bool:
    """Whether it is told again and again."""
    return incident.acknowledged is None and incident.gone is None and incident.ended is None


def acknowledged(incident: Incident, now: int) -> Incident:
    """The same, known to somebody: it is told no more but for its end."""
    return replace(incident, acknowledged=now, ended=now if incident.stays else None)
