"""Holds: a snapshot that every prune must leave, until a date or for good.

Promise: a hold binds every prune that has not announced its sweep; one that comes too late fails and says so.
"""

from collections.abc import Iterable

from opsd.errors import PruneRefused
from opsd.model import SnapshotSummary
from opsd.repository.format import Kind, name_for
from opsd.repository.repository import Repository
from opsd.repository.runs import Mark, Note


def holds_in_force(notes: Iterable[Note], now: int) -> dict[bytes, Note]:
    """The hold of each snapshot (by SHA-256) that is held at `now` (ns UTC): the last word counts."""
    last: dict[bytes, Note] = {}
    for note in sorted(notes, key=lambda each: (each.time, each.name)):
        if note.event in ("hold", "release"):
            last[note.snapshot] = note
    return {key: note for key, note in last.items() if note.event == "hold" and (note.until is None or note.until > now)}


def swept_snapshots(marks: Iterable[Mark]) -> frozenset[str]:
    """Names of snapshots whose sweep was announced: nothing saves them any more."""
    marks = tuple(marks)
    announced = {mark.mark for mark in marks if mark.event == "sweep"}
    return frozenset(name for mark in marks if mark.event == "mark" and mark.mark in announced for name in mark.snapshots)


def hold(repository: Repository, snapshot: SnapshotSummary, until: int | None, reason: str) -> None:
    """Keep a snapshot; a marked one comes back.

    Raises:
        PruneRefused: its sweep was announced already.
    """
    _note(repository, Note(event="hold", time=repository.around.clock.now(), snapshot=bytes.fromhex(snapshot.id), until=until, reason=reason))
    if snapshot.name in swept_snapshots(repository.marks()):
        raise PruneRefused(
            f"snapshot {snapshot.id[:8]} is being removed: its sweep was announced",
            hint="restore what you need from it at once, or take it from a copy",
        )


def release(repository: Repository, snapshot: SnapshotSummary) -> None:
    """End a hold."""
    _note(repository, Note(event="release", time=repository.around.clock.now(), snapshot=bytes.fromhex(snapshot.id), reason="released"))


def _note(repository: Repository, note: Note) -> None:
    content = repository.place.signed.encode_note(note)
    repository.place.store.put(name_for(Kind.NOTE, content, time=note.time), content)
