"""Prove a copy, and heal the repository or a copy from whoever still has the right bytes.

Promise: thin; what is proved and healed is `verify`'s. A donor that can't be reached is told and passed over.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from opsd.app.emptied import filled, repository_of
from opsd.app.session import Session
from opsd.app.stores import spool_stem
from opsd.app.upkeep import check
from opsd.backup.copy_state import CopyState, older_state, older_unopened, refuse_foreign
from opsd.backup.limits import Throttle
from opsd.backup.places import FolderPlace, StorePlace
from opsd.backup.transfers import Spool, Transfers
from opsd.errors import (
    IntegrityError,
    NotARepository,
    ObjectDamaged,
    StorageError,
    StoreGone,
)
from opsd.events import Warning
from opsd.repository.format import digest_of
from opsd.repository.local import HostState
from opsd.repository.opening import repository_id
from opsd.repository.repository import Repository
from opsd.storage.protocol import Store
from opsd.verify.advice import advice_for_copy
from opsd.verify.check import Check, CheckOptions, CheckReport, Problem, missing_slots
from opsd.verify.healing import Donor, Healing, healed_report
from opsd.verify.proof import NO_KEY, UNOPENED, prove_objects


def check_copy(session: Session) -> CheckReport:
    """Prove the copy that this session reads, every byte; with this host's keys also that nothing a snapshot needs is missing.

    Raises:
        HistoryDisagrees: it was filled before, and is empty. StorageError: it can't be read.
    """
    require_filled(session)
    name = session.access.copy or ""
    try:
        repository = _opened(session)
    except IntegrityError as error:
        report = replace(prove_objects(session.store, session.reporter), notices=(UNOPENED,))
        problem = Problem(object=f"copy {name}", problem=f"it can't be opened: {error}", hint=error.hint)
        named = any(each.object.startswith("settings/") for each in report.problems)
        return report if named else replace(report, problems=(*report.problems, problem))
    if repository is None:
        report = prove_objects(session.store, session.reporter)
        return replace(report, problems=(*report.problems, *_unopened(session)))
    return _check_opened(session, repository, 1.0)


def healable(report: CheckReport, copy: str) -> CheckReport:
    """The same of a copy that nobody has tried to heal yet."""
    problems = tuple(replace(each, hint=advice_for_copy(each.hint, copy)) for each in report.problems)
    return replace(report, problems=problems)


def require_filled(session: Session) -> None:
    """The copy that this session reads holds something.

    Raises:
        HistoryDisagrees: it was filled before, and is empty. NotARepository: it never was. StorageError: it can't be read.
    """
    name = session.access.copy or ""
    with filled(session.settings, name):
        if not any(True for prefix in ("settings/", "snapshots/") for _ in session.store.list(prefix)):
            raise NotARepository("it is empty")


def _check_opened(session: Session, repository: Repository, share: float) -> CheckReport:
    report = Check(repository, CheckOptions(share=share)).run()
    older = older_state(repository, CopyState(session.settings.state, session.access.copy or ""))
    if older is None:
        return report
    problem = Problem(object=older.subject, problem=older.problem, hint=older.hint)
    return replace(report, problems=(*report.problems, problem))


def _unopened(session: Session) -> tuple[Problem, ...]:
    """What can be told without a key of objects that are gone."""
    return (*missing_slots(session.store), *gone_from_copy(session))


def gone_from_copy(session: Session) -> tuple[Problem, ...]:
    """That the copy shows an older state of itself, as far as that can be told without a key."""
    older = older_unopened(session.store, CopyState(session.settings.state, session.access.copy or ""))
    return (Problem(object=older.subject, problem=older.problem, hint=older.hint),) if older else ()


def _opened(session: Session) -> Repository | None:
    """The repository, if this host has keys or something opens it unasked."""
    identity = repository_id(session.store)
    if session.access.copy:
        refuse_foreign(identity, repository_of(session.settings, session.access.copy), session.access.copy)
    held = HostState(session.settings.state).read_keys(identity) if session.has_state() else None
    if not held and not session.can_unlock():
        return None
    opened = session.open()
    session.is_doubtful = False  # What is older in it is a problem of the check, and may be healed.
    return opened


def heal_unopened(session: Session) -> dict[str, str]:
    """Heal a repository that can't even be opened, by the names of its objects alone; each name, and from whom it came.

    Raises:
        NotARepository, StorageError: there is nothing to heal.
    """
    try:
        session.open(reader=session.can_unlock())
    except IntegrityError as error:
        if isinstance(error.__cause__, (StoreGone, NotARepository)):
            raise  # Nothing is there to be healed.
        report = prove_objects(session.store, session.reporter)
        with _healing(session) as healing:
            healing.restore_roots()
            healing.replace(_names(report))
            return healing.healed
    return {}


def heal(session: Session, report: CheckReport) -> tuple[CheckReport, dict[str, str]]:
    """Heal what a check found: what is left, and from whom each healed object came."""
    with _healing(session) as healing:
        names = _names(report)
        healing.restore_roots()
        healing.replace(names)
        repository = _opened(session)
        if repository is None:
            left = (each for each in report.problems if _is_object(each.object) and each.object not in healing.healed)
            return replace(report, problems=(*left, *_unopened(session))), healing.healed
        healing.drop_runs(repository, names)
        unopened = bool(session.access.copy) and not {NO_KEY, UNOPENED}.isdisjoint(report.notices)
        # What a manifest needs is known once it is whole.
        lost = _again(session, repository).lost if unopened or healing.healed else report.lost
        healing.restore(repository, lost)
        if not healing.healed:
            return report, {}
        return healed_report(report, _again(session, repository), healing.healed), healing.healed


def _again(session: Session, repository: Repository) -> CheckReport:
    """Check once more, without reading packs."""
    return _check_opened(session, repository, 0.0) if session.access.copy else check(session, CheckOptions())


def _names(report: CheckReport) -> list[str]:
    """The problems that are of one object, by its name."""
    return [each.object for each in report.problems if _is_object(each.object)]


def _is_object(name: str) -> bool:
    try:
        digest_of(name)
    except ObjectDamaged:
        return False
    return True


@contextmanager
def _healing(session: Session) -> Iterator[Healing]:
    """The session's store and whoever may have what it lacks; waits for another of this host that heals the same."""
    healed = session.access.copy or "repository"
    with ExitStack() as stack:
        if session.has_state():
            stack.enter_context(HostState(session.settings.state).locked(f"heal-{healed}"))
        places = _places(session)
        spool = session.store.capabilities.spool or session.settings.cache / "healing"
        own = Spool(folder=spool, stem=spool_stem(session.settings, "heal", healed))
        if places:
            own.clear()
        throttle = Throttle((), session.settings.zone, session.clock)
        donors = []
        for name, place in places.items():
            try:
                store: Store = stack.enter_context(session.opener.opened(place))
            except StorageError as error:
                hint = None if isinstance(error, StoreGone) else error.hint  # 'opsd init' is for a first repository.
                session.reporter.warn(Warning(subject=f"healing from {name}", problem=str(error), hint=hint))
                continue
            transfers = Transfers(source=store, target=session.store, spool=own, throttle=throttle)
            donors.append(Donor(name=name, transfers=transfers))
        yield Healing.of(session.store, donors, session.reporter)


def _places(session: Session) -> dict[str, StorePlace]:
    """Where the same repository stands elsewhere."""
    settings, copy = session.settings, session.access.copy
    if copy and copy in settings.pulls:
        return {f"the source of {copy}": settings.pulls[copy].source}
    places: dict[str, StorePlace] = {each.name: each.place for each in settings.copies if each.name != copy}
    if copy and settings.repository:
        return {"the repository": FolderPlace(folder=Path(settings.repository)), **places}
    return places
