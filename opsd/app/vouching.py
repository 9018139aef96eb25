"""What the newest snapshots say of this host's ledger, in the repository and in every copy that can be reached.

Promise: needs no key but what the host holds; only manifests that a writer of this host signed count. A place that can't be read is told.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from opsd.backup.copy_state import CopyState
from opsd.backup.places import FolderPlace, StorePlace
from opsd.errors import ObjectDamaged, ObjectNotFound, OpsdError
from opsd.events import Warning
from opsd.monitor.ledger import Head
from opsd.repository.local import HostState
from opsd.repository.witness import Witness
from opsd.storage.protocol import Store
from opsd.values import dataclass

if TYPE_CHECKING:
    from opsd.app.session import Session

#: Each newer head vouches for all before it; a few more tell where a ledger and its past part.
_NEWEST: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Vouched:
    """That a snapshot at a place (a copy's name, or `repository`) names this entry of the ledger."""

    place: str
    snapshot: str
    head: Head


def vouched(session: "Session") -> list[Vouched]:
    """All that the newest snapshots say; empty where this host has no repository."""
    settings = session.settings
    if not settings.repository:
        return []
    places: dict[str, StorePlace] = {"repository": FolderPlace(folder=Path(settings.repository))}
    found = []
    for name, place in {**places, **{f"copy {each.name}": each.place for each in settings.copies}}.items():
        try:
            with ExitStack() as stack:
                store = stack.enter_context(session.opener.opened(place))
                found += [Vouched(place=name, snapshot=text, head=head) for text, head in _heads(session, store)]
        except OpsdError as error:
            if name != "repository" and not CopyState(settings.state, name.removeprefix("copy ")).read().repository:
                continue  # Never filled: nothing is there that could say anything.
            session.reporter.warn(Warning(subject=f"ledger, in {name}", problem=str(error), hint=error.hint))
    return found


def _heads(session: "Session", store: Store) -> Iterator[tuple[str, Head]]:
    """The heads that this host's newest manifests hold: snapshot's id and head."""
    state = HostState(session.settings.state)
    witness = Witness.of(store)
    ring = state.read_keys(witness.repository)
    if ring:
        witness = Witness.of(store, ring.owner_public.id)
    own = {each.key.id for each in witness.settings.writers if each.label == session.settings.host}
    own |= {ring.writer.public().id} if ring and ring.writer else set()
    for info in sorted(store.list("snapshots/"), key=lambda each: each.name)[-_NEWEST:]:
        try:
            said = witness.ledger(info.name, store.read(info.name))
        except (ObjectDamaged, ObjectNotFound):
            continue  # 'opsd check' names it.
        if said and said[0] in own:
            number, digest = said[1]
            yield info.name.rpartition("-")[2], Head(number=number, hash=digest.hex())
