"""What of a group of folders is known from the last run, and what must be read.

Promise: nothing is read or stored. What is given as known is of the very entry, unchanged, and its blobs are still stored. Unchanged
hunks and folders are known whole, so that only folders in which something changed are looked at entry by entry.
docs/decisions/0010-the-file-cache.md
"""

import os
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import field
from typing import Any

from opsd.backup.grouping import Part
from opsd.backup.images import left_out
from opsd.backup.status import status_bytes
from opsd.backup.work import Job
from opsd.model import Content, EntryType
from opsd.repository.listing import unpack_entries
from opsd.repository.references import REFERENCE_BYTES, FrameSet, as_content
from opsd.sources.protocol import FoundFolder
from opsd.values import dataclass

#: The places in a listing's entry.
TYPE, UID, GID, SIZE, CONTENT, MORE = 1, 3, 4, 6, 7, 8

#: An entry as a listing has it.
EncodedEntry = list[Any]
#: What an entry refers to where its content alone does not tell: records of frames, and its page map by key.
Extras = tuple[bytes, dict[bytes, Content]]


#: What the cache knows of an entry: packed, without its name, and what else it needs.
Known = tuple[bytes, Extras | None]


@dataclass(slots=True)
class Needs:
    """What must be stored for a part of a listing to be whole."""

    frames: FrameSet = field(default_factory=FrameSet)
    page_maps: dict[bytes, Content] = field(default_factory=dict)

    def add(self, frames: bytes, page_maps: dict[bytes, Content]) -> None:
        """Add records of frames, and page maps."""
        self.frames.add_records(frames)
        self.page_maps.update(page_maps)


@dataclass(slots=True)
class Seen:
    """An entry that was found: by which hash the cache knows it, and what it was stored as if that still holds.

    `beside` are the lstats of a database's journals. `tail` is the entry packed, as the cache had it.
    """

    name: bytes
    found: os.stat_result
    identity: bytes
    beside: tuple[os.stat_result, ...] = ()
    entry: EncodedEntry | None = None
    tail: bytes | None = None
    extras: Extras | None = None


@dataclass(slots=True)
class StoredHunk:
    """A hunk as the last run stored it; counts of entries, files, and bytes of files."""

    content: Content
    totals: tuple[int, int, int]
    frames: bytes
    page_maps: dict[bytes, Content]

    def row(self) -> list[Any]:
        """As the cache keeps it."""
        return [self.content, *self.totals, self.frames, self.page_maps]

    @classmethod
    def of(cls, row: list[Any]) -> "StoredHunk":
        """From the cache's row."""
        content, entries, files, size, frames, page_maps = row
        return cls(as_content(content) or b"", (entries, files, size), frames, _page_maps(page_maps))


@dataclass(slots=True)
class StoredPart:
    """A folder, or a part of one, as it stands in a listing: its entries packed, without their names, and what they need.

    `identities` are the hashes of its entries, empty for one that must be read again; `extras` stand by place. It is
    `lasting` if none must be, nor looked for: then all of it holds as long as nothing in the folder changes. `names`
    are not kept: `left_out` are the places of those in the folder that are not listed.
    """

    digest: bytes
    lasting: bool
    left_out: list[int]
    tails: list[bytes]
    totals: tuple[int, int, int]
    identities: list[bytes]
    extras: dict[int, Extras]
    frames: bytes
    page_maps: dict[bytes, Content]
    users: dict[int, bytes]
    groups: dict[int, bytes]
    names: list[bytes] = field(default_factory=list)

    def row(self) -> list[Any]:
        """As the cache keeps it."""
        needs = [self.frames, self.page_maps, self.users, self.groups]
        head = [self.digest, self.lasting, self.left_out, self.tails]
        return [*head, *self.totals, self.identities, self.extras, *needs]

    @classmethod
    def of(cls, row: list[Any]) -> "StoredPart":
        """From the cache's row."""
        digest, lasting, left_out, tails, *totals, identities, extras, frames, page_maps, users, groups = row
        count, files, size = totals
        places = {place: (each[0], _page_maps(each[1])) for place, each in extras.items()}
        needs = (frames, _page_maps(page_maps), users, groups)
        return cls(digest, lasting, left_out, tails, (count, files, size), identities, places, *needs)

    def known(self) -> dict[bytes, Known]:
        """The entries by their hash."""
        places = enumerate(zip(self.identities, self.tails, strict=True))
        return {identity: (tail, self.extras.get(place)) for place, (identity, tail) in places if identity}

    def name(self, part: Part) -> None:
        """Give the entries their names again, from the folder that is the same."""
        absent = set(self.left_out)
        self.names = [name for place, (name, _) in enumerate(part.entries) if place not in absent]


@dataclass(slots=True)
class PreparedPart:
    """A folder, or a part of one: as it is stored already, or its entries; `began` in ns UTC, before any was read."""

    part: Part
    began: int
    stored: StoredPart | None = None
    entries: list[Seen] = field(default_factory=list)


@dataclass(slots=True)
class Prepared:
    """A group: the unchanged hunk it is, or its parts."""

    group: list[Part]
    digest: bytes
    stored: StoredHunk | None = None
    parts: list[PreparedPart] = field(default_factory=list)

    def unread(self) -> Iterator[tuple[FoundFolder, Seen]]:
        """The regular files that must be read, in order."""
        for part in self.parts:
            for seen in part.entries:
                if seen.entry is None and stat.S_ISREG(seen.found.st_mode):
                    yield part.part.folder, seen


class Lookup:
    """Looks up one source's groups. `databases`: files that belong to a database beside them are left out."""

    def __init__(self, job: Job, *, databases: bool) -> None:
        self._job = job
        self._hash = job.cache.hash
        self._databases = databases

    def prepare(self, group: list[Part]) -> Prepared:
        """What is known of a group."""
        prepared = Prepared(group, self._hash(b"".join(part.digest for part in group)))
        row = self._job.cache.hunk(prepared.digest) if self._job.trusted else None
        if row:
            prepared.stored = StoredHunk.of(row)
        else:
            prepared.parts = [self._part(part) for part in group]
        return prepared

    def _part(self, part: Part) -> PreparedPart:
        prepared = PreparedPart(part, self._job.clock.now())
        row = self._job.cache.part(part.key) if self._job.usable_cache else None
        stored = StoredPart.of(row) if row else None
        if stored and self._job.trusted and stored.digest == part.digest and stored.lasting:
            prepared.stored = stored
            stored.name(part)
        else:
            prepared.entries = self._entries(part, stored.known() if stored else {})
        return prepared

    def _entries(self, part: Part, known: dict[bytes, Known]) -> list[Seen]:
        beside_databases = left_out(part.folder, part.entries) if self._databases else frozenset[bytes]()
        entries = []
        for (name, found), status in zip(part.entries, part.statuses, strict=True):
            if name in beside_databases:
                continue
            beside = part.companions.get(name, ())
            identity = self._hash(b"".join((status, name, *map(status_bytes, beside))))
            entries.append(Seen(name, found, identity, beside))
        self._know([(seen, *known[seen.identity]) for seen in entries if seen.identity in known])
        return entries

    def _know(self, unchanged: list[tuple[Seen, bytes, Extras | None]]) -> None:
        entries = unpack_entries([seen.name for seen, _, _ in unchanged], [tail for _, tail, _ in unchanged])
        for (seen, tail, extras), entry in zip(unchanged, entries, strict=True):
            if not self._still_stored(entry, extras):
                continue
            if may_be_linked(seen.found):
                entry[MORE] = {**(entry[MORE] or {}), "link": link_key(self._hash, seen.found)}
            else:
                seen.tail = tail
            seen.entry, seen.extras = entry, extras

    def _still_stored(self, entry: EncodedEntry, extras: Extras | None) -> bool:
        """Whether a cached entry's blobs are there: known of all, or looked up one by one."""
        if self._job.trusted:
            return True
        content = entry[CONTENT]
        if extras is not None or not isinstance(content, bytes):
            return extras is None and content is None and entry[TYPE] != EntryType.FILE
        known = self._job.blobs.known
        return all(
            known(content[at : at + 32]) == content[at + 36 : at + REFERENCE_BYTES]
            for at in range(0, len(content), REFERENCE_BYTES)
        )


def may_be_linked(found: os.stat_result) -> bool:
    """Whether it may have a further name that a restore gives back: a folder never has, and sockets are not made again."""
    return found.st_nlink > 1 and not (stat.S_ISDIR(found.st_mode) or stat.S_ISSOCK(found.st_mode))


def link_key(hashed: Callable[[bytes], bytes], found: os.stat_result) -> bytes:
    """What the links of one file have in common in a listing.

    All of the stat, for the number of an inode alone may have passed to another file while the tree is walked: links of a file that
    changes meanwhile are listed as files of their own. The device's number may be another after a reboot.
    """
    return hashed(struct.pack("<Q", found.st_dev) + status_bytes(found))


def _page_maps(value: dict[bytes, Any]) -> dict[bytes, Content]:
    return {key: as_content(each) or b"" for key, each in value.items()}
