"""What to say of a place that holds no repository, where this host may remember that it did.

Promise: an unmounted disk, a folder that is gone and a bucket that lists nothing never pass for a place that was never filled, and nobody is
told to make a new repository there.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from opsd.backup.copy_state import CopyState, refuse_foreign
from opsd.backup.places import StorePlace
from opsd.clock import local
from opsd.errors import HistoryDisagrees, NotARepository, OpsdError, StoreGone
from opsd.events import Warning
from opsd.repository.local import HostState
from opsd.repository.opening import repository_id
from opsd.settings import Settings
from opsd.storage.folder import FolderStore
from opsd.storage.protocol import Store

if TYPE_CHECKING:
    from opsd.app.session import Session


@contextmanager
def filled(settings: Settings, copy: str | None) -> Iterator[None]:
    """What is opened within is the copy of that name, or the repository.

    Raises:
        HistoryDisagrees: it holds nothing, and was filled before. NotARepository: a copy that was never filled. StoreGone: no repository was here.
    """
    try:
        yield
    except (StoreGone, NotARepository) as error:
        if copy is None:
            raise (_emptied(settings, error) or error) from error
        if CopyState(settings.state, copy).read().repository:
            hint = "is the right disk mounted there, the right account used? nothing was written"
            raise HistoryDisagrees(f"copy {copy} was filled before, and now {error}", hint=hint) from error
        raise NotARepository(f"copy {copy} was never filled: {error}", hint="fill it: run 'opsd copy'") from error


def opened_copy(session: "Session", name: str, place: StorePlace, stack: ExitStack) -> Store | None:
    """The store of a copy or pull; None as long as it was never filled.

    Raises:
        HistoryDisagrees: it was, and holds nothing. NotARepository: it holds another repository. StorageError: it can't be read.
    """
    before = CopyState(session.settings.state, name).read().repository
    try:
        with filled(session.settings, name):
            store = stack.enter_context(session.opener.opened(place))
            held = repository_id(store)
        refuse_foreign(held, before, name)
    except NotARepository:
        if before:
            raise
        return None
    return store


def repository_of(settings: Settings, copy: str) -> str:
    """The repository that a copy should hold, in hex: what it was filled from, else this host's own; empty if unknown."""
    source = CopyState(settings.state, copy).read().repository
    if source or copy in settings.pulls or not settings.repository:
        return source
    try:
        with FolderStore(Path(settings.repository)) as store:
            return repository_id(store).hex()
    except OpsdError:
        return ""


def foreign(settings: Settings, copy: str, held: bytes) -> Warning | None:
    """What is to be said of a copy of another repository than this host's that was never filled from here; after a disaster it may be the right one."""
    own = repository_of(settings, copy)
    problem = f"it holds another repository, {held.hex()[:16]}, than this host's own, {own[:16]}"
    hint = "see this copy's path in the configuration; it is no copy of what this host backs up now"
    return Warning(subject=f"copy {copy}", problem=problem, hint=hint) if own not in ("", held.hex()) else None


def _emptied(settings: Settings, error: Exception) -> HistoryDisagrees | None:
    put = HostState(settings.state).newest()
    if put is None:
        return None
    memory, when = put
    hint = "is the disk mounted, the path right? nothing was written"
    if settings.copies:
        copy = settings.copies[0].name
        hint += f"; lost for good: 'opsd restore --from {copy}' reads a copy, and docs/runbook.md makes one the repository again"
    return HistoryDisagrees(
        f"{error}, and this host put {memory.sequence} snapshot{'s' if memory.sequence > 1 else ''} into its repository, the newest {memory.head[:8]} on "
        f"{local(when, settings.zone):%Y-%m-%d at %H:%M}",
        hint=hint,
    )
