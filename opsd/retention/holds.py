"""Holds: a snapshot that every prune must leave, until a date or for good.

Promise: a hold binds every prune that has not announced its sweep; one that comes too late fails and says so.
"""

from collections.abc import Iterable

from opsd.errors import ObjectNotFound, PruneRefused
from opsd.model import SnapshotSummary
from opsd.repository.format import Kind, name_for
from opsd.repository.repository import Repository
from opsd.repository.runs import Mark, Note


def swept_snapshots(marks: Iterable[Mark]) -> frozenset[str]:
    """Names of snapshots whose sweep was announced: nothing saves them any more."""
    marks = tuple(marks)
    announced = {mark.mark for mark in marks if mark.event == "sweep"}
    return frozenset(
        name for mark in marks if mark.event == "mark" and mark.mark in announced for name in mark.snapshots
    )


def hold(repository: Repository, snapshot: SnapshotSummary, until: int | None, reason: str) -> None:
    """Keep a snapshot until a time (ns UTC) or for good; a marked one comes back.

    Raises:
        PruneRefused: its sweep was announced already, or is over.
    """
    _say(repository, "hold", snapshot, until, reason)
    # Marks first: where no announcement is listed and the manifest still is, the hold was there before any sweep looks at holds.
    announced = snapshot.name in swept_snapshots(repository.place.marks())
    try:
        repository.place.store.stat(snapshot.name)
    except ObjectNotFound:
        announced = True
    if announced:
        raise PruneRefused(
            f"snapshot {snapshot.id[:8]} is being removed: its sweep was announced",
            hint="restore what you need from it at once, or take it from a copy",
        )


def release(repository: Repository, snapshot: SnapshotSummary) -> None:
    """End a hold."""
    _say(repository, "release", snapshot, None, "released")


def _say(repository: Repository, event: str, snapshot: SnapshotSummary, until: int | None, reason: str) -> None:
    """Put a note that is the last word, even if an older one came from a clock that ran ahead."""
    digest = bytes.fromhex(snapshot.id)
    before = [note.time for note in repository.place.notes() if note.snapshot == digest]
    time = max(repository.around.clock.now(), max(before, default=0) + 1)
    note = Note(event=event, time=time, snapshot=digest, until=until, reason=reason)
    content = repository.place.signed.encode_note(note)
    repository.place.store.put(name_for(Kind.NOTE, content, time=time), content)
