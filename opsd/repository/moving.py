"""Moving frames between packs and merging index objects: what a maintainer does without reading anything.

Promise: frames are copied byte for byte out of packs whose bytes were just proved against their names, so damage is never given a
fresh name; an index object goes only when every entry of it whose pack is listed stands in another. docs/format.md, Packs, Index.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from opsd.clock import Clock
from opsd.errors import ObjectDamaged
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
from opsd.repository.packs import PackSpool, SealedSession, StoredPack, new_birth, read_head


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving:
    """A pack and those of its frames that are to be moved."""

    pack: PackRow
    rows: tuple[FrameRow, ...]


class FrameMover:
    """Gathers frames of several packs into new ones."""

    def __init__(self, place: Place, spool: Path, clock: Clock) -> None:
        self._place = place
        self._spool = spool
        self._clock = clock
        self._limit = place.settings.parameters.pack_bytes

    def move(self, chosen: Sequence[Moving]) -> list[StoredPack]:
        """Put new packs with these frames, then an index for them; what they came from is not touched.

        Raises:
            ObjectDamaged: a pack's bytes do not match its name; nothing of it was moved.
        """
        stored = [self._group(group) for group in self._groups(chosen)]
        if stored:
            packs = [(PackRow(each.birth, each.digest, each.size, each.footer_length), each.rows) for each in stored]
            put_index(self._place, *rows_and_entries(packs))
        return stored

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

    def _group(self, group: Sequence[Moving]) -> StoredPack:
        """One new pack. All its session keys must be known before its first frame, so heads are read first."""
        sessions: dict[SealedSession, int] = {}
        seats: dict[bytes, tuple[SealedSession, ...]] = {}
        for each in group:
            head = read_head(self._place.store, each.pack.name)
            seats[each.pack.digest] = head.sessions
            for row in each.rows:
                if row.session is not None:
                    sessions.setdefault(head.sessions[row.session], len(sessions))
        birth = new_birth(self._clock.now())
        spool = PackSpool(self._spool / f"{birth.hex()}.pack", birth, list(sessions))
        try:
            for each in group:
                content = self._proved(each.pack)
                for row in each.rows:
                    seat = None if row.session is None else sessions[seats[each.pack.digest][row.session]]
                    stored = memoryview(content)[row.offset : row.offset + row.stored_length]
                    spool.append(row._replace(session=seat), stored)
            finished = spool.finish(self._place.ring.repository, self._place.ring.index())
            self._place.store.put(finished.name, spool.path)
        finally:
            spool.discard()
        return finished

    def _proved(self, pack: PackRow) -> bytes:
        content = self._place.store.read(pack.name)
        if hashlib.sha256(content).digest() != pack.digest:
            raise ObjectDamaged(pack.name, "its bytes do not match its name")
        return content


def put_index(place: Place, rows: Sequence[PackRow], entries: Iterable[IndexEntry]) -> set[str]:
    """Put index objects for these rows; several where one would be too large. Returns their names."""
    ordered = sorted(entries)
    starts = range(0, max(len(ordered), 1), ENTRIES_LIMIT)
    return {place.put_index(index_table(rows, ordered[start : start + ENTRIES_LIMIT])) for start in starts}


def merge_index(place: Place, *, most: int = 10, without: Collection[bytes] = ()) -> int:
    """Merge index objects if there are more than `most`, or one is damaged or names a pack that is gone; returns how many went.

    `without`: SHA-256s of packs that are about to go, which the new objects no longer name. What a damaged object said is
    taken from the packs' footers.

    Raises:
        ObjectDamaged: a pack that only the damaged object named has no valid footer.
    """
    names = [info.name for info in place.store.list("index/")]
    parts = [part for name in names if (part := _readable(place, name))]
    packs = {digest_of(info.name): info for info in place.store.list("packs/")}
    listed = set(packs) - set(without)
    stale = len(parts) < len(names) or any(row.digest not in listed for part in parts for row in part.rows)
    if len(names) <= most and not stale:
        return 0
    rows, entries = _union(parts, listed)
    if len(parts) < len(names):
        unnamed = listed - {row.digest for row in rows}
        more, found = rows_and_entries(footer_of(place, packs[digest]) for digest in sorted(unnamed))
        entries |= {entry._replace(row=entry.row + len(rows)) for entry in found}
        rows += more
    kept = put_index(place, rows, entries) if rows else set()
    gone = [name for name in names if name not in kept]
    for name in gone:
        place.store.delete(name)
    return len(gone)


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
