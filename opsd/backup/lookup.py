"""What of a group of folders is known from the last run, and what must be read.

Promise: pure but for the cache: nothing is read or stored. A value that is given is of the very entry, unchanged, and its blobs are
still stored. docs/decisions/0010-the-file-cache.md
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from opsd.backup.grouping import Part
from opsd.backup.images import companions_of, left_out
from opsd.backup.work import Job
from opsd.model import Content
from opsd.repository.references import REFERENCE_BYTES, as_content
from opsd.sources.protocol import FoundFolder

#: The places in an entry's value; `_FRAMES` and `_PAGE_MAPS` only where content alone does not tell what the entry refers to.
TYPE, MTIME, SIZE, CONTENT, MORE, FRAMES, PAGE_MAPS = range(7)

#: `[type, mtime, size, content, more, frames?, page maps?]`: what is stored of an entry besides its lstat.
Value = list[Any]


@dataclass(slots=True)
class Seen:
    """An entry that was found: by which hash the cache knows it, and what it was stored as if that still holds."""

    name: bytes
    found: os.stat_result
    identity: bytes
    value: Value | None


@dataclass(slots=True)
class PreparedPart:
    """A folder, or a part of one, before its entries are read; `began` in ns UTC, before any of them was."""

    folder: FoundFolder
    key: bytes
    began: int
    entries: list[Seen] = field(default_factory=list)


@dataclass(slots=True)
class StoredHunk:
    """A hunk as the last run stored it."""

    content: Content
    entries: int
    files: int
    size: int
    frames: bytes
    page_maps: dict[bytes, Content]


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
                if seen.value is None and stat.S_ISREG(seen.found.st_mode):
                    yield part.folder, seen


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
        prepared.stored = _stored_hunk(row) if row is not None else None
        if prepared.stored is None:
            prepared.parts = [self._part(part) for part in group]
        return prepared

    def _part(self, part: Part) -> PreparedPart:
        known = self._job.cache.part(part.key) if self._job.usable_cache else {}
        prepared = PreparedPart(part.folder, part.key, self._job.clock.now())
        companions = companions_of(part.entries)
        beside_databases = left_out(part.folder.real, part.entries) if self._databases else frozenset[bytes]()
        for (name, found), status in zip(part.entries, part.statuses, strict=True):
            if name in beside_databases:
                continue
            identity = self._hash(status + name + companions.get(name, b""))
            value = known.get(identity) if known else None
            if value is not None and not self._still_stored(value):
                value = None
            prepared.entries.append(Seen(name, found, identity, value))
        return prepared

    def _still_stored(self, value: Value) -> bool:
        """Whether a cached entry's blobs are there: known of all, or looked up one by one."""
        if self._job.trusted:
            return True
        content = value[CONTENT]
        if content is None or content == b"":
            return "pages" not in (value[MORE] or {})
        if not isinstance(content, bytes):
            return False
        known = self._job.blobs.known
        return all(
            known(content[at : at + 32]) == content[at + 36 : at + REFERENCE_BYTES]
            for at in range(0, len(content), REFERENCE_BYTES)
        )


def _stored_hunk(row: Any) -> StoredHunk | None:
    content, entries, files, size, frames, page_maps = row
    found = as_content(content)
    if found is None:
        return None
    maps = {key: as_content(each) or b"" for key, each in page_maps.items()}
    return StoredHunk(found, entries, files, size, frames, maps)
