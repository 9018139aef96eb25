"""Fill the copies of this host's repository, and those that it pulls from others.

Promise: a copy that fails does not stop the others; each answer says what became of which.
"""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from opsd.app.session import Session
from opsd.app.slices import coverage_of_copy, verifying
from opsd.app.stores import spool_stem
from opsd.backup.copies import Copy, CopyOptions, CopyReport
from opsd.backup.copy_needs import needs_of
from opsd.backup.copy_run import CopyKeys
from opsd.backup.copy_state import CopyState
from opsd.backup.limits import Limits, Throttle
from opsd.backup.listings import expected
from opsd.backup.places import FolderPlace, S3Place, StorePlace
from opsd.backup.renewal import Renewal
from opsd.backup.transfers import Spool
from opsd.errors import ConfigurationError, OpsdError, UsageError
from opsd.repository.local import HostState
from opsd.repository.opening import Unlock, repository_id
from opsd.repository.repository import Repository
from opsd.storage.protocol import Store
from opsd.storage.retry import bucket_of
from opsd.values import dataclass
from opsd.verify.slices import Coverage


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """From where a copy comes and where it goes; `source` is None for this host's own repository."""

    name: str
    source: StorePlace | None
    target: StorePlace
    limits: Limits

    @property
    def kind(self) -> str:
        """Copy or pull."""
        return "pull" if self.source else "copy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """How one copy ended: its report, or the error that stopped it.

    `lacks`: what its store does not do, and how that is made up for; None where nothing was put, and so nothing asked, which costs
    requests. `covered`: how far it was read lately.
    """

    route: Route
    seconds: float
    report: CopyReport | None = None
    error: OpsdError | None = None
    lacks: tuple[str, ...] | None = None
    covered: Coverage | None = None
    locks_extended: int = 0
    verify: str = "read"

    @property
    def exit_code(self) -> int:
        """4 where something is damaged or can't be true, else the error's."""
        if self.error is not None:
            return self.error.exit_code
        return 4 if self.report and not self.report.is_sound else 0


def routes(session: Session, to: tuple[str, ...], pulled: tuple[str, ...]) -> tuple[Route, ...]:
    """The copies and pulls of these names, or all.

    Raises:
        ConfigurationError: there are none. UsageError: there is none of a name.
    """
    settings = session.settings
    copies = {
        each.name: Route(name=each.name, source=None, target=each.place, limits=each.limits) for each in settings.copies
    }
    pulls = {
        name: Route(name=name, source=each.source, target=each.target, limits=each.limits)
        for name, each in settings.pulls.items()
    }
    if not copies and not pulls:
        raise ConfigurationError(
            ("no copies are configured",), hint="name some under copies: or pulls:, as 'opsd config generate' shows"
        )
    for known, asked, section in ((copies, to, "copies"), (pulls, pulled, "pulls")):
        if unknown := [name for name in asked if name not in known]:
            raise UsageError(
                f"no {section} named {', '.join(unknown)}", hint=f"configured are {', '.join(known) or 'none'}"
            )
    if not to and not pulled:
        return (*copies.values(), *pulls.values())
    return (*(copies[name] for name in dict.fromkeys(to)), *(pulls[name] for name in dict.fromkeys(pulled)))


def route_of(session: Session, name: str) -> Route:
    """The copy or pull of that name.

    Raises:
        ConfigurationError, UsageError: there is none.
    """
    pulled = name in session.settings.pulls
    return routes(session, () if pulled else (name,), (name,) if pulled else ())[0]


def alarms_of(session: Session, route: Route, source: Store, target: Store) -> tuple[str, ...]:
    """What source and copy show now that can't be true; nothing is written.

    Raises:
        HistoryDisagrees, NotARepository, IntegrityError, StorageError.
    """
    return Copy(source, target, _options(session, route, source, target)).alarms()


def fill(session: Session, route: Route) -> Filled:
    """Bring one copy up to date."""
    began = time.monotonic()
    report = error = covered = None
    lacks: tuple[str, ...] | None = None
    extended = 0
    try:
        with opened_source(session, route) as source, _target(session, route) as target:
            report = Copy(source, target, _options(session, route, source, target)).bring_up_to_date()
            lacks = target.capabilities.lacks if report.objects else None
            covered = coverage_of_copy(session, route.name, list(report.listed))
            names = report.in_source & {info.name for info in report.listed}
            extended = extend_locks(session, route, target, lambda: names)
    except OpsdError as failure:
        error = failure
    return Filled(
        route=route,
        seconds=time.monotonic() - began,
        report=report,
        error=error,
        lacks=lacks,
        covered=covered,
        locks_extended=extended,
        verify=verifying(session.settings, route.name).verify,
    )


def extend_locks(
    session: Session, route: Route, target: Store, names: Callable[[], Collection[str]], of: str = "source"
) -> int:
    """Lengthen the locks of these objects of a copy, if it has any and their time has come; how many were lengthened.

    `of` says whose need it is: the source's, or the rules'.

    Raises:
        StorageError: the store refuses.
    """
    place, bucket, now = route.target, bucket_of(target), session.clock.now()
    if not isinstance(place, S3Place) or place.object_lock_days is None or bucket is None:
        return 0
    file = session.settings.state / "copies" / f"{route.name}.locks-of-{of}"
    renewal = Renewal(bucket=bucket, days=place.object_lock_days, file=file)
    return renewal.renew(names(), now) if renewal.is_due(now) else 0


def _state(session: Session, route: Route) -> CopyState:
    return CopyState(session.settings.state, route.name)


@contextmanager
def opened_source(session: Session, route: Route) -> Iterator[Store]:
    """Where a copy comes from.

    Raises:
        HistoryDisagrees: it was there before, and is gone. StorageError: it does not answer.
    """
    with ExitStack() as stack:
        with expected(f"the source of copy {route.name}", filled=_was_filled(session, route)):
            source = stack.enter_context(session.opener.opened(route.source)) if route.source else session.home().store
        yield source


@contextmanager
def _target(session: Session, route: Route) -> Iterator[Store]:
    """The copy; it is made only as long as it was never filled."""
    filled = _was_filled(session, route)
    with ExitStack() as stack:
        with expected(f"copy {route.name}", filled=filled):
            target = stack.enter_context(session.opener.opened(route.target, create=not filled))
        yield target


def _was_filled(session: Session, route: Route) -> bool:
    return bool(_state(session, route).read().repository)


def _options(session: Session, route: Route, source: Store, target: Store) -> CopyOptions:
    settings = session.settings
    keys = HostState(settings.state)
    return CopyOptions(
        state=_state(session, route),
        spool=Spool(folder=_spool(session, route, target), stem=spool_stem(session.settings, "copy", route.name)),
        clock=session.clock,
        reporter=session.reporter,
        throttle=Throttle(route.limits, settings.zone, session.clock),
        keys=lambda: _keys(session, source, keys),
    )


def _spool(session: Session, route: Route, target: Store) -> Path:
    """The folder's own, so that a put is a move; else one in the cache."""
    if isinstance(route.target, FolderPlace) and target.capabilities.spool:
        return target.capabilities.spool
    return session.settings.cache / "copies" / route.name / "spool"


def _keys(session: Session, source: Store, state: HostState) -> CopyKeys | None:
    """What this host's keys allow, where it has any to this repository and its settings know them."""
    if state.read_keys(repository_id(source)) is None:
        return None
    repository = Repository.open(source, session.surroundings(writer=True), Unlock())
    signed = repository.place.signed
    ring = signed.ring
    if not (ring.maintainer or ring.writer) or signed.settings.signer(signed.signer().public().id) is None:
        return None
    return CopyKeys(signed=signed, state=state, needs=needs_of(repository))
