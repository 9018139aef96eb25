"""Prune a copy by rules of its own.

Promise: what the source of the copy still lists stays, whatever the rules say, so no copy brings again what a prune removed; where the
source can't be listed, or source and copy show what can't be true, nothing goes. docs/decisions/0025.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from opsd.app.copying import Route, alarms_of, extend_locks, opened_source, route_of
from opsd.app.emptied import filled
from opsd.app.session import Session
from opsd.app.stores import place_of
from opsd.backup.copy_state import CopyState, refuse_foreign
from opsd.backup.listings import list_source
from opsd.backup.places import FolderPlace
from opsd.clock import stamp
from opsd.errors import ConfigurationError, KeyMissing, PruneRefused, StoreReadOnly
from opsd.repository.catalog import marked_snapshots
from opsd.repository.format import pack_name
from opsd.repository.local import HostState
from opsd.repository.opening import repository_id
from opsd.repository.repository import Repository
from opsd.retention.policy import Rules
from opsd.retention.prune import Prune, PruneOptions, PrunePlan, PruneResult
from opsd.settings import Settings
from opsd.storage.protocol import Store

_WHO = (
    "prune where the maintainer's key is, or bring that one file here (it reads no content): docs/copies.md, Retention"
)


def rules_of(settings: Settings, copy: str | None) -> Rules:
    """The rules of a copy, or of the repository.

    Raises:
        ConfigurationError: a pulled copy has none: those of the other host's repository are not known here.
    """
    if copy and copy in settings.pulls:
        stated = settings.pulls[copy].retention
        if stated is None:
            raise ConfigurationError(
                (f"pulls.{copy} states no retention, and the rules of the host that it comes from are not known here",),
                hint="for example: retention: {keep_daily: 90, keep_monthly: 24}",
            )
        return stated
    own = {each.name: each.retention for each in settings.copies}
    return (own.get(copy) if copy else None) or settings.retention


def plan_prune_of_copy(session: Session) -> PrunePlan:
    """What a prune of the copy that this session reads would do now; changes nothing.

    Raises:
        KeyMissing, PruneRefused, HistoryDisagrees, StorageError.
    """
    with _prepared(session, confirmed=False) as prune:
        return prune.plan()


def prune_copy(session: Session, *, confirmed: bool) -> PruneResult:
    """Sweep what waited long enough in the copy that this session reads, then mark what its rules drop.

    Raises:
        PruneRefused: nothing can be deleted there, something is amiss, or a person must confirm.
        KeyMissing, HistoryDisagrees, StorageError.
    """
    with _prepared(session, confirmed=confirmed) as prune:
        _refuse_append_only(session)
        done = prune.carry_out()
        # What no mark names now is what the rules keep, and the source does not list all of it.
        route = route_of(session, session.access.copy or "")
        extend_locks(session, route, session.store, lambda: _unmarked(session), "rules")
        return done


@contextmanager
def _prepared(session: Session, *, confirmed: bool) -> Iterator[Prune]:
    settings, route = session.settings, route_of(session, session.access.copy or "")
    rules = rules_of(settings, route.name)
    repository = _opened(session, route)
    with _advised(route.name), opened_source(session, route) as source:
        alarms = alarms_of(session, route, source, session.store)
        if alarms and not confirmed:
            raise PruneRefused(
                f"prune stops: {alarms[0]}",
                hint="find out why: docs/runbook.md; once you know that it is meant, run 'opsd prune --yes'",
            )
        yield Prune(
            repository,
            PruneOptions(
                rules=rules, zone=settings.zone, confirmed=confirmed, elsewhere=lambda: _listed(source, route)
            ),
        )


@contextmanager
def _advised(name: str) -> Iterator[None]:
    """What prune advises, said of the copy: nobody is sent to prune or check the repository instead."""
    try:
        yield
    except PruneRefused as error:
        hint = error.hint and error.hint.replace("opsd prune", f"opsd prune --copy {name}")
        raise PruneRefused(str(error), hint=hint and hint.replace("opsd check", f"opsd check --copy {name}")) from error


def _opened(session: Session, route: Route) -> Repository:
    """The copy, with the maintainer's key of this host.

    Raises:
        KeyMissing: there is none, or the copy does not know it yet.
    """
    with filled(session.settings, route.name):
        held = repository_id(session.store)
    refuse_foreign(held, CopyState(session.settings.state, route.name).read().repository, route.name)
    ring = HostState(session.settings.state).read_keys(held) if session.has_state() else None
    if ring is None or ring.maintainer is None:
        raise KeyMissing(
            f"the maintainer's key of copy {route.name} is not on this machine: nobody can tell here what its snapshots are",
            hint=_WHO,
        )
    repository = session.open()
    if repository.place.settings.signer(ring.maintainer.public().id) is None:
        raise KeyMissing(
            f"copy {route.name} does not know this host's maintainer yet",
            hint="run 'opsd copy' first: it brings the settings",
        )
    return repository


def _listed(source: Store, route: Route) -> frozenset[str]:
    """The names that the source lists now.

    Raises:
        PruneRefused: it lists no settings, so it is no repository any more.
    """
    names = frozenset(list_source(source))
    if not any(name.startswith("settings/") for name in names):
        raise PruneRefused(
            f"the source of copy {route.name} is empty, so its copy is left alone", hint="is the right disk mounted?"
        )
    return names


def _unmarked(session: Session) -> frozenset[str]:
    marks = session.open().marks()
    going = marked_snapshots(marks) | {pack_name(pack) for mark in marks if mark.event == "mark" for pack in mark.packs}
    passing = ("runs/", "marks/")
    return frozenset(info.name for info in session.store.list("") if not info.name.startswith(passing)) - going


def _refuse_append_only(session: Session) -> None:
    """Ask for a removal before anything is marked that could never go.

    Raises:
        PruneRefused: the account may not remove anything. StoreReadOnly: nobody may in that folder.
    """
    absent = f"runs/{stamp(session.clock.now())}-{'0' * 64}"
    try:
        session.store.delete(absent)
    except StoreReadOnly as error:
        if isinstance(place_of(session.settings, session.access.copy or ""), FolderPlace):
            raise
        raise PruneRefused(
            f"copy {session.access.copy} can't be pruned from here: its account may not remove anything",
            hint="that is its point: prune on the server itself, as docs/copies.md, Retention, says",
        ) from error
