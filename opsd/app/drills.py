"""Carry out a drill with nothing but one copy and one key, and remember how it went.

Promise: neither this host's state nor its cache is used to restore, so the verdict is the same without them. However a drill ends, but
for one that must wait, there is a record of it.
"""

import os
import pwd
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

from opsd.app.databases import server_of
from opsd.app.emptied import filled, repository_of
from opsd.app.session import Session, slot_folders, told_by_home
from opsd.app.stores import place_of
from opsd.app.version import version
from opsd.backup.copy_state import CopyState, older_state, refuse_foreign
from opsd.clock import stamp
from opsd.credentials import described, resolve
from opsd.errors import RUN_CHECK, OpsdError, StorageError, TryLater
from opsd.events import Reporter, Total, Warning
from opsd.repository.local import HostState
from opsd.repository.opening import Unlock
from opsd.repository.recipients import read_key
from opsd.repository.repository import Repository, Surroundings
from opsd.sources.options import FilesSource, PostgresqlSource, SqliteSource
from opsd.storage.durable import private_folder
from opsd.storage.protocol import Store
from opsd.verify import scratch
from opsd.verify.checks import Live, Places
from opsd.verify.drill import Drill
from opsd.verify.drill_record import DrillRecord, DrillRecords, of_error, of_report
from opsd.verify.drill_report import DrillOptions, DrillReport
from opsd.verify.expectations import copy_of_week, target_deviations
from opsd.verify.scratch import Scratch

_POSTGRESQL_DATA = "/var/lib/postgresql"


def drill(
    session: Session,
    *,
    seed: bool,
    shown: Callable[[float], str],
    between: Callable[[Places], None] | None = None,
) -> DrillRecord:
    """Drill the copy that the session reads, else the one whose week it is, else the repository itself.

    `shown` writes a span of seconds; `between` is called between each restore and its comparison.

    Raises:
        TryLater: another drill is at work.
    """
    name = _copy(session)
    noting = _Noting(session.reporter)
    told = _circumstances(session, name) | {"seeded": seed}
    if name is None:
        noting.note("no copy is configured: this drill restores from the repository itself")
    try:
        report = _carried_out(session, name, noting, (seed, between))
        seconds = {"recovery time": report.recovery_time, "recovery point": report.recovery_point}
        report.deviates(*target_deviations(seconds, told["targets"], shown))
        told |= of_report(report)
    except TryLater:
        raise
    except OpsdError as error:
        if error.hint == RUN_CHECK:
            error.hint = f"run 'opsd check {f'--copy {name} ' if name else ''}--repair', then drill again"
        told |= of_error(error)
    except OSError as error:
        told |= of_error(OpsdError(f"{error.filename or 'scratch'}: {(error.strerror or str(error)).lower()}"))
    record = DrillRecord(**told, ended=session.clock.now(), notices=noting.notices)
    _remember(session, record)
    return record


def _copy(session: Session) -> str | None:
    """The copy that was named, or whose week it is; None is the repository itself."""
    settings = session.settings
    names = [each.name for each in settings.copies] or ([] if settings.repository else list(settings.pulls))
    return session.access.copy or copy_of_week(names, session.clock.now())


def _circumstances(session: Session, name: str | None) -> dict[str, Any]:
    """The fields of a record that are known before a drill begins."""
    settings, began = session.settings, session.clock.now()
    return {
        "id": f"{stamp(began)}-{secrets.token_hex(4)}",
        "began": began,
        "who": _who(),
        "host": settings.host,
        "version": version(),
        "copy": name or "",
        "place": str(place_of(settings, name)) if name else settings.repository,
        "key": _key_kind(session),
        "targets": {"recovery time": settings.drill.recovery_time, "recovery point": settings.drill.recovery_point},
    }


def _remember(session: Session, record: DrillRecord) -> None:
    """Keep the record; a drill whose state folder can't be written to was still a drill."""
    try:
        DrillRecords(session.settings.state).write(record)
    except StorageError as error:
        session.reporter.warn(Warning(subject="record", problem=str(error), hint=error.hint))


def _carried_out(
    session: Session, name: str | None, noting: "_Noting", how: tuple[bool, Callable[[Places], None] | None]
) -> DrillReport:
    settings = session.settings
    place = settings.drill.scratch or settings.state / "scratch"
    if settings.drill.scratch is None:
        private_folder(settings.state)
    with scratch.opened(place, tuple(_neighbours(session)), noting) as found, ExitStack() as stack:
        if found.neighbours:
            noting.note(f"{place} shares its disk with these, so a twentieth of it stays free:")
            for neighbour in found.neighbours:
                noting.note(f"  {neighbour}")
        live = Live(
            options={source.label: source.options for source in settings.sources},
            server=partial(server_of, session),
            scratch=found.folder,
        )
        seed, between = how
        options = DrillOptions(checks=settings.drill.checks, live=live, seed=seed)
        if between is not None:
            options = DrillOptions(checks=options.checks, live=live, seed=seed, between=between)
        return Drill(found, options, noting, session.clock).run(lambda: _opened(session, name, (found, stack), noting))


def _opened(session: Session, name: str | None, within: tuple[Scratch, ExitStack], reporter: Reporter) -> Repository:
    """The copy, with a state and a cache that begin empty."""
    found, stack = within
    around = Surroundings(
        state=HostState(found.folder / "state"),
        cache=found.folder / "cache",
        clock=session.clock,
        reporter=reporter,
        host=session.settings.host,
    )
    with filled(session.settings, name):
        store: Store = (
            stack.enter_context(session.opener.opened(place_of(session.settings, name)))
            if name
            else session.home().store
        )
        repository = Repository.open(store, around, _unlock(session), reader=True)
    if name:
        refuse_foreign(repository.place.ring.repository, repository_of(session.settings, name), name)
        repository = told_by_home(session, repository)
    if name and session.has_state():
        warning = older_state(repository, CopyState(session.settings.state, name))
        if warning:
            reporter.warn(warning)
        elif lag := _lag(session, repository):
            reporter.tell(f"copy {name} {lag}")
    return repository


def _lag(session: Session, repository: Repository) -> str:
    """Why the newest snapshot of a copy is not the newest of this host; empty where it is."""
    head = HostState(session.settings.state).memory(repository.place.ring.repository).head
    if not head or any(info.name.endswith(head) for info in repository.place.store.list("snapshots/")):
        return ""
    return f"does not hold the newest snapshot of this host yet, {head[:8]}: 'opsd copy' brings it"


def _key_kind(session: Session) -> str:
    access = session.access
    if access.key_file:
        return "key file"
    if access.kit_file:
        return "kit file"
    if access.kit:
        return "kit file" if os.environ.get("OPSD_KIT_FILE") else "kit"
    return "drill key" if session.settings.drill.key else "passphrase"


def _unlock(session: Session) -> Unlock:
    """The drill's own key where nothing else was asked for.

    Raises:
        KeyRefused: it is no key. ConfigurationError: its reference leads nowhere.
    """
    reference = session.settings.drill.key
    if reference is None or _key_kind(session) != "drill key":
        return session.unlock()
    key = read_key(resolve(reference, session.reporter), described(reference))
    return Unlock(recipient=key, slots=slot_folders(session.settings))


def _neighbours(session: Session) -> Iterator[str]:
    """Folders of others that a full disk would stop."""
    if session.settings.repository:
        yield session.settings.repository
    for source in session.settings.sources:
        if isinstance(source.options, FilesSource):
            yield from source.options.paths
        elif isinstance(source.options, SqliteSource):
            yield source.options.path
        elif isinstance(source.options, PostgresqlSource):
            yield _POSTGRESQL_DATA


def _who() -> str:
    """The person, as far as the system knows: root became root from somebody."""
    number = os.getuid()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:
        name = str(number)
    before = os.environ.get("SUDO_USER")
    return f"{before} (as {name})" if before and before != name else name


class _Noting:
    """A reporter that keeps in the record what a person should know."""

    def __init__(self, inner: Reporter) -> None:
        self._inner = inner
        self.notices: list[str] = []
        self.advance = inner.advance

    def stage(self, name: str, total: Total | None = None) -> None:
        """Pass it on."""
        self._inner.stage(name, total)

    def warn(self, warning: Warning) -> None:
        """Keep it, once: each server that is started for a piece says the same of its programs."""
        text = f"{warning.subject}: {warning.problem}"
        if text not in self.notices:
            self.notices.append(text)
            self._inner.warn(warning)

    def tell(self, text: str) -> None:
        """Keep it."""
        self.note(text)

    def note(self, text: str) -> None:
        """Keep a line, and show it."""
        self.notices.append(text)
        self._inner.tell(text)
