"""How this host stands: what is really there, what ran, and what that comes to.

Promise: it works where no daemon ever ran, and where the state is lost; a far copy that does not answer holds nobody up.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace

from opsd.app.observing import observe, remember, remembered
from opsd.app.planning import besides_of, past_of, plan_of
from opsd.app.rebuilding import found_runs, rebuild
from opsd.app.session import Session
from opsd.errors import StorageError
from opsd.events import Warning
from opsd.monitor.deadlines import Past
from opsd.monitor.health import Besides, Health, judge
from opsd.monitor.observed import Observed, Point, SourceSeen
from opsd.monitor.problems import Problem, Severity
from opsd.monitor.state import State, read_only
from opsd.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A source of this host, or a host whose repository it pulls: to when it can be restored from which places.

    `proof`: `restored` by a green drill, else `verified` by reading every byte, else empty; `proved`: the moment that was. Times in ns UTC.
    """

    name: str
    points: Mapping[str, Point]
    is_host: bool = False
    seen: SourceSeen = field(default_factory=SourceSeen)

    @property
    def restorable(self) -> int:
        """The newest moment of all places; 0 for none."""
        return max((point.stored for point in self.points.values()), default=0)

    @property
    def newest_in(self) -> tuple[str, ...]:
        """The places that hold that moment."""
        return tuple(name for name, point in self.points.items() if point.stored == self.restorable > 0)

    @property
    def proof(self) -> str:
        """How it was proved best."""
        points = self.points.values()
        return "restored" if any(each.restored for each in points) else "verified" if self.proved else ""

    @property
    def proved(self) -> int:
        """The newest moment that was."""
        points = self.points.values()
        return max((each.restored for each in points), default=0) or max((each.verified for each in points), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The judgement, and what it is of."""

    health: Health
    observed: Observed

    @property
    def rows(self) -> tuple[Row, ...]:
        """Every source of this host, and every host that it pulls from."""
        readable = {name: place for name, place in self.observed.places.items() if not place.error}
        own = {name: place for name, place in readable.items() if place.kind != "pull"}
        rows = [
            Row(
                name=label,
                seen=seen,
                points={name: each.points[label] for name, each in own.items() if label in each.points},
            )
            for label, seen in self.observed.sources.items()
        ]
        pulls = [(name, place) for name, place in readable.items() if place.kind == "pull"]
        rows += [
            Row(name=host, is_host=True, points={name: point})
            for name, place in pulls
            for host, point in place.points.items()
        ]
        return tuple(rows)


def status(session: Session, *, seconds: float, observed: Observed | None = None) -> Status:
    """Look afresh, for places that answer within so many seconds; or go by what was just `observed`."""
    if observed is None:
        observed = observe(session, before=remembered(session), seconds=seconds)
        _remember(session, observed)
    now = session.clock.now()
    past, besides = _known(session)
    problems = (*besides.problems, *_of_state(session, now, observed), *_of_alerts(session))
    health = judge(plan_of(session.settings), past, observed, now, replace(besides, problems=problems))
    return Status(health=health, observed=observed)


def _remember(session: Session, observed: Observed) -> None:
    if session.has_state():
        try:
            remember(session, observed)
        except StorageError as error:
            session.reporter.warn(Warning(subject="state", problem=str(error), hint=error.hint))


def _known(session: Session) -> tuple[Past, Besides]:
    """What ran; where there is no state, what repository and ledger tell of it."""
    now = session.clock.now()
    problems: tuple[Problem, ...] = ()
    if session.has_state():
        try:
            with State.open(session.settings.state, now) as state:
                rebuild(session, state)
                return past_of(state), besides_of(state, now)
        except StorageError as error:
            problems = (_unwritable(error, now),)
        if read := read_only(session.settings.state):
            with read:
                return past_of(read), replace(besides_of(read, now), problems=problems)
    runs = sorted(found_runs(session), key=lambda run: run.started, reverse=True)
    jobs = {run.job for run in runs}
    return Past(runs={job: [run for run in runs if run.job == job] for job in jobs}, since=now), Besides(
        problems=problems
    )


def _unwritable(error: StorageError, now: int) -> Problem:
    """As the daemon tells it."""
    return Problem(
        key="state.unwritable", severity=Severity.CRITICAL, title=str(error), next_step=error.hint or "", since=now
    )


def _of_state(session: Session, now: int, observed: Observed) -> Iterator[Problem]:
    """Whether what this host remembers is there, where there is anything to remember."""
    folder = session.settings.state
    if observed.kit_made and not session.has_state():
        what = (
            "can't be used by this user"
            if folder.is_dir()
            else "is not there: what this host remembered is lost, its keys too"
        )
        yield Problem(
            key="state.missing",
            severity=Severity.WARNING,
            title=f"the state folder {folder} {what}",
            next_step="run as its owner"
            if folder.is_dir()
            else "opsd backup, with the passphrase at hand, makes new keys",
            since=now,
        )


def _of_alerts(session: Session) -> Sequence[Problem]:
    """Addresses that can't be reached."""
    if not session.settings.alerts.contacts or not session.has_state():
        return ()
    from opsd.app.alerting import Alerting  # noqa: PLC0415 - only where there is anybody to alert

    return Alerting(session.settings, session.reporter).problems()
