"""What a host remembers of each copy that it fills, and whose turn it is to fill it.

Promise: replaced whole and synced; two passes of this host never fill one copy at once. Losing it loses no data, only the memory of
what was seen, and with it lost, only a copy that is empty looks as if it was never filled.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path

from opsd.backup.history import History, Visit, lost_numbers
from opsd.errors import IntegrityError, NotARepository, StorageError, StoreReadOnly, TryLater
from opsd.events import Warning
from opsd.repository.local import replace_file
from opsd.repository.repository import Repository
from opsd.storage.durable import private_file, private_folder
from opsd.storage.protocol import Store
from opsd.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyMemory:
    """The repository and its owner's key id, both in hex and empty before the first visit; the last visit, and when one was whole (ns)."""

    repository: str = ""
    owner: str = ""
    visit: Visit = field(default_factory=Visit)
    completed: int = 0


class CopyState:
    """The memory of one copy in a host's state folder; its name is a label, and so a safe file name."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._folder = folder / "copies"

    @property
    def _file(self) -> Path:
        return self._folder / f"{self.name}.json"

    def read(self) -> CopyMemory:
        """What is remembered.

        Raises:
            StorageError: it can't be read.
        """
        try:
            value = json.loads(self._file.read_text())
            return CopyMemory(
                repository=str(value["repository"]),
                owner=str(value["owner"]),
                visit=Visit(
                    source=History.from_json(value["source"]),
                    target=History.from_json(value["target"]),
                ),
                completed=int(value["completed"]),
            )
        except (FileNotFoundError, NotADirectoryError):
            return CopyMemory()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageError(
                f"what is remembered of copy {self.name} can't be read: {self._file}",
                hint="if the file is broken, move it away; then compare 'opsd snapshots' with '--from' yourself, once",
            ) from error

    def write(self, memory: CopyMemory) -> None:
        """Remember."""
        self._prepare()
        value = {
            "repository": memory.repository,
            "owner": memory.owner,
            "source": memory.visit.source.as_json(),
            "target": memory.visit.target.as_json(),
            "completed": memory.completed,
        }
        try:
            replace_file(self._file, json.dumps(value).encode())
        except OSError as error:
            raise StorageError(
                f"what is remembered of copy {self.name} can't be written into {self._folder}: {(error.strerror or str(error)).lower()}",
                hint="make room there; what was copied stands",
            ) from error

    def _prepare(self) -> None:
        try:
            private_folder(self._folder)
        except OSError as error:
            raise StoreReadOnly(
                f"the state folder {self._folder.parent} can't be written to: {error.strerror}",
                hint="run as the user that owns it, or set state: in the configuration (OPSD_STATE)",
            ) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold this copy for a pass.

        Raises:
            TryLater: another pass of this host fills it.
        """
        self._prepare()
        with open(private_file(self._folder / f"{self.name}.lock", os.O_WRONLY), "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise TryLater(
                    f"copy {self.name} is being filled already", hint="wait for the other 'opsd copy'"
                ) from error
            yield


def refuse_foreign(held: bytes, wanted: str, name: str) -> None:
    """Refuse a copy that holds another repository than it was filled from; `wanted` in hex, empty where nothing is known.

    Raises:
        NotARepository: it does.
    """
    if wanted not in ("", held.hex()):
        raise NotARepository(
            f"copy {name} holds another repository, {held.hex()[:16]}, not {wanted[:16]}",
            hint="each repository needs a place of its own: see this copy's path in the configuration",
        )


def older_state(repository: Repository, state: CopyState) -> Warning | None:
    """What is to be said of an open copy that no longer shows what it showed before; a restore from it goes on all the same."""
    try:
        listed = [info.name for info in repository.place.store.list("snapshots/")]
        dropped = [number for note in repository.place.notes() for number in note.sequences]
        lost = lost_numbers(listed, dropped, state.read().visit.target)
    except (IntegrityError, StorageError) as error:
        return Warning(subject=f"copy {state.name}", problem=str(error), hint=error.hint)
    return _older(state, lost)


def older_unopened(store: Store, state: CopyState) -> Warning | None:
    """The same of a copy that no key opens; after a prune since the last visit nothing can be said."""
    before = state.read().visit.target
    lost = lost_numbers([info.name for info in store.list("snapshots/")], before.dropped, before)
    # Listed last: a prune that is at work puts its note before it takes a manifest.
    return None if any(info.name not in before.notes for info in store.list("notes/")) else _older(state, lost)


def _older(state: CopyState, lost: str) -> Warning | None:
    problem = f"it shows an older state of itself: snapshots {lost}, which it held before, are gone"
    hint = "find out why; 'opsd copy' fills it again"
    return Warning(subject=f"copy {state.name}", problem=problem, hint=hint) if lost else None
