"""Look at every place that holds snapshots, and say which host of it is late.

Promise: needs no key; a place that can't be read is an answer of its own and hides no other.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Final

from opsd import clock
from opsd.app.emptied import opened_copy
from opsd.app.session import Session
from opsd.backup.copy_state import CopyState
from opsd.backup.places import StorePlace
from opsd.errors import ConfigurationError, OpsdError
from opsd.repository.local import HostState
from opsd.repository.opening import repository_id
from opsd.values import dataclass
from opsd.verify.fleet import Host, Standing, hosts

#: What bringing a snapshot to a copy may take after it was due in its repository, in ns.
_COPY_PATIENCE: Final = 2 * 3600 * clock.SECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A host in a place (the name of a copy or pull, or `repository`), or why the place can't be read. Times in ns UTC."""

    place: str
    kind: str
    host: Host | None = None
    standing: Standing | None = None
    late: int = 0
    error: OpsdError | None = None

    @property
    def exit_code(self) -> int:
        """5 where the host is not as it promised, else the error's."""
        if self.error is not None:
            return self.error.exit_code
        return 0 if self.standing and self.standing.is_good else 5


def fleet(session: Session) -> tuple[Watched, ...]:
    """Every host in the repository, in each copy and in each pull; a copy that was never filled is one without a host.

    Raises:
        ConfigurationError: the configuration names no place.
    """
    found = tuple(each for kind, name, look in _places(session) for each in _watched(session, kind, name, look))
    if not found:
        raise ConfigurationError(
            ("the configuration names nothing that holds snapshots",), hint="name a repository, copies: or pulls:"
        )
    return found


def _places(session: Session) -> Iterator[tuple[str, str, Callable[[], tuple[Host, ...]]]]:
    """What kind each is, its name, and how to read it."""
    settings = session.settings
    if settings.repository:
        yield "repository", "repository", partial(_own_hosts, session)
    for each in settings.copies:
        yield "copy", each.name, partial(_hosts_of, session, each.name, each.place)
    for name, pull in settings.pulls.items():
        yield "pull", name, partial(_hosts_of, session, name, pull.target)


def _own_hosts(session: Session) -> tuple[Host, ...]:
    ring = HostState(session.settings.state).read_keys(repository_id(session.store))
    return hosts(session.store, ring.owner_public.id if ring else b"")


def _hosts_of(session: Session, name: str, place: StorePlace) -> tuple[Host, ...]:
    with ExitStack() as stack:
        store = opened_copy(session, name, place, stack)
        owner = CopyState(session.settings.state, name).read().owner
        return hosts(store, bytes.fromhex(owner)) if store else ()


def _watched(session: Session, kind: str, name: str, look: Callable[[], tuple[Host, ...]]) -> Iterator[Watched]:
    now = session.clock.now()
    patience = 0 if kind == "repository" else _COPY_PATIENCE
    try:
        found = look()
        if not found:
            yield Watched(place=name, kind=kind, standing=Standing.UNFILLED)
        for host in found:
            late = max(0, now - host.due) if host.due is not None else 0
            yield Watched(place=name, kind=kind, host=host, standing=host.standing(now, patience), late=late)
    except OpsdError as error:
        yield Watched(place=name, kind=kind, error=error)
