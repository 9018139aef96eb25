"""Look at what is really there: repository, copies, pulls, drills; the same whether a daemon, a timer or nobody ever ran anything.

Promise: needs no reader's key and changes nothing but the state. A place that can't be read, or not in time, hides no other: it keeps what was
known of it before, and when that was.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import field, replace
from functools import partial
from pathlib import Path

from opsd.app.looking import REPOSITORY, Look, look_at_copy, look_at_pull, look_at_repository
from opsd.app.planning import OBSERVED, observed_of, plan_of
from opsd.app.session import Session
from opsd.app.shots import Known
from opsd.backup.places import FolderPlace
from opsd.errors import IntegrityError, NotARepository, OpsdError, StorageError, StoreGone
from opsd.events import Warning
from opsd.model import SnapshotSummary
from opsd.monitor.deadlines import Plan
from opsd.monitor.observed import DrillSeen, Observed, PlaceSeen, SourceSeen, Tier
from opsd.monitor.state import State
from opsd.retention.policy import PARTIAL_JOBS, Rules, choose, moment
from opsd.settings import Settings
from opsd.values import dataclass
from opsd.verify.drill_record import DrillRecord, DrillRecords
from opsd.verify.expectations import Verdict


@dataclass(slots=True)
class _Found:
    """What one look came to."""

    place: PlaceSeen | None = None
    known: Known = field(default_factory=Known)
    error: OpsdError | None = None


def observe(session: Session, *, before: Observed | None = None, seconds: float | None = None) -> Observed:
    """What is there now. `before`: what was found the last time; after `seconds` it stands in for places that did not answer."""
    settings, now = session.settings, session.clock.now()
    drills = _drills(session)
    session.scratch()  # Made once, not by several looks at once.
    until = None if seconds is None else time.monotonic() + seconds
    own = _look(until, {REPOSITORY: partial(_own, _looks(session, drills)[REPOSITORY])} if settings.repository else {})
    known = own[REPOSITORY].known if own else Known()
    others = {name: look for name, look in _looks(session, drills).items() if name != REPOSITORY}
    found = own | _look(until, {name: partial(_other, look, known) for name, look in others.items()})
    kinds = {name: look.kind for name, look in _looks(session, drills).items()}
    past = before.places if before else {}
    return Observed(
        time=now,
        host=settings.host,
        sources=_sources(settings, known, before),
        places={
            name: _settled(each, past.get(name) or PlaceSeen(kind=kinds[name]), now) for name, each in found.items()
        },
        tiers=tiers_of(known.summaries, settings.retention, plan_of(settings)) or (before.tiers if before else {}),
        drill=_drill(drills, settings),
        kit_used=max((each.began for each in drills if each.by_kit and each.verdict != Verdict.FAILED), default=0),
        kit_made=known.created or (before.kit_made if before else 0),
        uncovered_databases=before.uncovered_databases if before else None,
        uncovered_folders=before.uncovered_folders if before else None,
    )


def remembered(session: Session) -> Observed | None:
    """What was found the last time; None where nobody looked, or it can't be read."""
    if not session.settings.state.is_dir():
        return None
    with suppress(StorageError), State.open(session.settings.state, session.clock.now()) as state:
        return observed_of(state)
    return None


def remember(session: Session, observed: Observed) -> None:
    """Keep what was found, for the metrics and whoever looks next.

    Raises:
        StorageError: the state can't be written.
    """
    with State.open(session.settings.state, session.clock.now()) as state:
        state.remember(OBSERVED, observed.time, observed.as_json())


def _looks(session: Session, drills: Sequence[DrillRecord]) -> dict[str, Look]:
    """Every place that the configuration names."""
    settings = session.settings
    own = {REPOSITORY: ("repository", FolderPlace(folder=Path(settings.repository)))} if settings.repository else {}
    copies = {each.name: ("copy", each.place) for each in settings.copies}
    pulls = {name: ("pull", each.target) for name, each in settings.pulls.items()}
    return {
        name: Look(
            session=session,
            name=name,
            kind=kind,
            place=place,
            drills=[each for each in drills if each.copy == ("" if name == REPOSITORY else name) and _is_green(each)],
        )
        for name, (kind, place) in {**own, **copies, **pulls}.items()
    }


def _own(look: Look) -> _Found:
    place, known = look_at_repository(look)
    return _Found(place=place, known=known)


def _other(look: Look, known: Known) -> _Found:
    return _Found(place=look_at_pull(look) if look.kind == "pull" else look_at_copy(look, known))


def _look(until: float | None, looks: Mapping[str, Callable[[], _Found]]) -> dict[str, _Found]:
    """Look at several places at once; one that does not answer in time is left behind."""
    found: dict[str, _Found] = {}

    def carry_out(name: str, look: Callable[[], _Found]) -> None:
        try:
            found[name] = look()
        except OpsdError as error:
            found[name] = _Found(error=error)
        except OSError as error:
            found[name] = _Found(
                error=StorageError(f"{error.filename or name}: {(error.strerror or str(error)).lower()}")
            )

    threads = [
        threading.Thread(target=carry_out, args=each, name=f"opsd-look-{each[0]}", daemon=True)
        for each in looks.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(None if until is None else max(0.0, until - time.monotonic()))
    return {name: found.get(name, _Found()) for name in looks}


def _settled(found: _Found, last: PlaceSeen, now: int) -> PlaceSeen:
    """A place as it was seen, or as it was before with what is wrong now."""
    if found.place:
        return found.place
    if found.error is None:
        return last
    gone = isinstance(found.error, IntegrityError | NotARepository | StoreGone)
    lost = max(last.lost, last.snapshots) if gone else last.lost
    return replace(last, error=str(found.error), hint=found.error.hint or "", failed=now, lost=lost, free=None)


def _sources(settings: Settings, known: Known, before: Observed | None) -> dict[str, SourceSeen]:
    """Each source of the configuration, as the newest snapshot has it that has it whole or tried to; else as it was before."""
    past = before.sources if before else {}
    found = {source.label: past.get(source.label, SourceSeen()) for source in settings.sources}
    for summary in known.summaries:
        for each in summary.sources if summary.job not in PARTIAL_JOBS else ():
            if each.label in found:
                found[each.label] = SourceSeen(
                    outcome=str(each.outcome),
                    files=each.files,
                    bytes=each.bytes,
                    added_bytes=each.added_bytes,
                    warnings=each.warnings,
                )
    return found


def tiers_of(summaries: Sequence[SnapshotSummary], rules: Rules, plan: Plan) -> dict[str, Tier]:
    """How many snapshots each rule keeps, and how many it would if every night from the first to the newest had one."""
    times = [each.started for each in summaries if each.complete and each.job not in PARTIAL_JOBS]
    if not times or "backup" not in plan.times:
        return {}
    first, newest = min(times), max(times)
    kept = _by_rule(times, rules, plan, newest)
    required = _by_rule([first, *plan.between("backup", first, newest)], rules, plan, newest)
    return {name: Tier(kept=kept[name], required=required[name]) for name in kept | required}


def _by_rule(times: Sequence[int], rules: Rules, plan: Plan, now: int) -> Counter[str]:
    newest_first = [moment(each, plan.zone) for each in sorted(times, reverse=True)]
    return Counter(choose(newest_first, rules, now).values())


def _drills(session: Session) -> list[DrillRecord]:
    """Those that prove something: one with seeded faults proves the drill."""
    try:
        return [each for each in DrillRecords(session.settings.state).read() if not each.seeded]
    except StorageError as error:
        session.reporter.warn(Warning(subject="drills", problem=str(error), hint=error.hint))
        return []


def _is_green(drill: DrillRecord) -> bool:
    return drill.verdict == Verdict.GREEN


def _drill(drills: Sequence[DrillRecord], settings: Settings) -> DrillSeen:
    """The newest drill; how long it took, of the newest that came so far."""
    targets = settings.drill
    timed = next((each for each in reversed(drills) if each.recovery_time), None)
    return DrillSeen(
        time=drills[-1].began if drills else 0,
        verdict=drills[-1].verdict if drills else "",
        green=max((each.began for each in drills if _is_green(each)), default=0),
        recovery_time=timed.recovery_time if timed else 0.0,
        recovery_point=timed.recovery_point if timed else 0.0,
        recovery_time_target=targets.recovery_time,
        recovery_point_target=targets.recovery_point,
    )
