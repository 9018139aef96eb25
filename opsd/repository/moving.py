"""Moving frames between packs and merging index objects: what a maintainer does without reading anything.

Promise: frames are copied byte for byte out of packs whose bytes were just proved against their names, so damage is never given a
fresh name; an index object goes only when every entry of it whose pack is listed stands in another. docs/format.md, Packs, Index.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from opsd.clock import Clock
from opsd.errors import ObjectDamaged
from opsd.events import Warning
from opsd.repository.catalog import Place, footer_of
from opsd.repository.format import digest_of
from opsd.repository.frames import FrameRow
from opsd.repository.index import (
    ENTRIES_LIMIT,
    IndexEntry,
    IndexPart,
    PackRow,
    decode_index,
    index_table,
    rows_and_entries,
)
from opsd.repository.packs import (
    PackHead,
    PackSpool,
    SealedSession,
    StoredPack,
    decode_head,
    new_birth,
    open_footer,
    read_head,
)
from opsd.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving:
    """A pack and those of its frames that are to be moved."""

    pack: PackRow
    rows: tuple[FrameRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """New packs, and the SHA-256s of the packs whose frames all stand in them now. Damaged packs were left alone."""

    stored: tuple[StoredPack, ...]
    sources: tuple[bytes, ...]


class FrameMover:
    """Gathers frames of several packs into new ones. `stem` is the beginning of spooled packs' names.

    `step` is called before each pack is read, and may raise to stop.
    """

    def __init__(self, place: Place, stem: Path, clock: Clock, step: Callable[[], None]) -> None:
        self._place = place
        self._stem = stem
        self._clock = clock
        self._step = step
        self._limit = place.settings.parameters.pack_bytes
        self._done: set[tuple[bytes, int]] = set()
        self._sources: list[bytes] = []

    def move(self, chosen: Sequence[Moving]) -> Moved:
        """Put new packs with these frames, then an index for them; what they came from is not touched.

        A pack whose bytes do not match its name is told and left alone: damage never gets a fresh name.
        """
        stored = [each for group in self._groups(chosen) if (each := self._group(group))]
        if stored:
            packs = [(PackRow(each.birth, each.digest, each.size, each.footer_length), each.rows) for each in stored]
            put_index(self._place, *rows_and_entries(packs))
        return Moved(stored=tuple(stored), sources=tuple(self._sources))

    def _groups(self, chosen: Sequence[Moving]) -> Iterator[list[Moving]]:
        group: list[Moving] = []
        size = 0
        for each in chosen:
            length = sum(row.stored_length for row in each.rows)
            if group and size + length > self._limit:
                yield group
                group, size = [], 0
            group.append(each)
            size += length
        if group:
            yield group

    def _group(self, group: Sequence[Moving]) -> StoredPack | None:
        """One new pack. All its session keys must be known before its first frame, so heads are read first."""
        heads = {each.pack.digest: head for each in group if (head := self._head(each.pack))}
        sessions: dict[SealedSession, int] = {}
        for each in group:
            if head := heads.get(each.pack.digest):
                for seat in sorted({row.session for row in each.rows if row.session is not None}):
                    sessions.setdefault(head.sessions[seat], len(sessions))
        birth = new_birth(self._clock.now())
        spool = PackSpool(self._stem.with_name(f"{self._stem.name}-{birth.hex()}"), birth, list(sessions))
        try:
            sources = [
                each.pack.digest for each in group if self._append(spool, each, heads.get(each.pack.digest), sessions)
            ]
            finished = spool.finish(self._place.ring.repository, self._place.ring.index())
            if finished.rows:
                self._place.store.put(finished.name, spool.path)
        finally:
            spool.discard()
        self._sources += sources
        return finished if finished.rows else None

    def _head(self, pack: PackRow) -> PackHead | None:
        try:
            return read_head(self._place.store, pack.name)
        except ObjectDamaged as error:
            self._leave_alone(error)
            return None

    def _append(
        self, spool: PackSpool, moving: Moving, head: PackHead | None, sessions: Mapping[SealedSession, int]
    ) -> bool:
        """Copy the frames of one pack, once each; whether they all stand in new packs now."""
        self._step()
        if head is None:
            return False
        try:
            content = self._proved(moving, head)
        except ObjectDamaged as error:
            self._leave_alone(error)
            return False
        for row in moving.rows:
            if (row.birth, row.number) not in self._done:
                self._done.add((row.birth, row.number))
                seat = None if row.session is None else sessions[head.sessions[row.session]]
                spool.append(
                    row._replace(session=seat), memoryview(content)[row.offset : row.offset + row.stored_length]
                )
        return True

    def _leave_alone(self, error: ObjectDamaged) -> None:
        hint = "prune leaves it alone; run 'opsd check', and heal it from a copy"
        self._place.reporter.warn(Warning(subject=error.name, problem=error.problem, hint=hint))

    def _proved(self, moving: Moving, head: PackHead) -> bytes:
        """A pack's bytes, proved to be what its name promises and what its head and footer said when they were read before."""
        pack = moving.pack
        content = self._place.store.read(pack.name)
        if hashlib.sha256(content).digest() != pack.digest:
            raise ObjectDamaged(pack.name, "its bytes do not match its name")
        rows = open_footer(pack.name, content, self._place.ring.repository, self._place.ring.index())
        if decode_head(pack.name, content) != head or not set(moving.rows) <= set(rows):
            raise ObjectDamaged(pack.name, "the store gave other bytes of it a moment ago")
        return content


def put_index(
    place: Place, rows: Sequence[PackRow], entries: Iterable[IndexEntry], damaged: Collection[str] = ()
) -> set[str]:
    """Put index objects for these rows; several where one would be too large. Returns their names."""
    ordered = sorted(entries)
    starts = range(0, max(len(ordered), 1), ENTRIES_LIMIT)
    return {place.put_index(index_table(rows, ordered[start : start + ENTRIES_LIMIT]), damaged) for start in starts}


def merge_index(
    place: Place, *, most: int = 10, without: Collection[bytes] = (), staying: Callable[[], Collection[str]] = frozenset
) -> int:
    """Merge index objects if there are more than `most`, or one is damaged or names a pack that is gone; returns how many went.

    `without`: SHA-256s of packs that are about to go, which the new objects no longer name. `staying` lists objects that are
    left as they are. What a damaged object said is taken from the packs' footers.

    Raises:
        ObjectDamaged: a pack that only the damaged object named has no valid footer.
    """
    listed = [info.name for info in place.store.list("index/")]
    left = frozenset(staying())
    names = [name for name in listed if name not in left]
    parts = [part for name in names if (part := _readable(place, name))]
    packs = {digest_of(info.name): info for info in place.store.list("packs/")}
    present = set(packs) - set(without)
    damaged = set(names) - {part.name for part in parts}
    stale = bool(damaged) or any(row.digest not in present for part in parts for row in part.rows)
    if len(names) <= most and not stale:
        return 0
    rows, entries = _union(parts, present)
    if damaged:
        unnamed = present - {row.digest for row in rows}
        more, found = rows_and_entries(footer_of(place, packs[digest]) for digest in sorted(unnamed))
        entries |= {entry._replace(row=entry.row + len(rows)) for entry in found}
        rows += more
    kept = put_index(place, rows, entries, damaged) if rows else set()
    gone = [name for name in names if name not in kept]
    for name in gone:
        place.store.delete(name)
    return len(gone) + len(damaged & kept)


def _readable(place: Place, name: str) -> IndexPart | None:
    try:
        return IndexPart(name, decode_index(name, place.store.read(name), place.ring.repository, place.ring.index()))
    except ObjectDamaged:
        return None


def _union(parts: Iterable[IndexPart], listed: Collection[bytes]) -> tuple[list[PackRow], set[IndexEntry]]:
    """All rows and entries of packs that are listed, numbered anew."""
    rows: dict[PackRow, int] = {}
    entries: set[IndexEntry] = set()
    for part in parts:
        for row in part.rows:
            if row.digest in listed:
                rows.setdefault(row, len(rows))
        for entry in part.entries():
            row = part.rows[entry.row]
            if row in rows:
                entries.add(entry._replace(row=rows[row]))
    return list(rows), entries
