"""The values that packages hand to each other.

Promise: plain, frozen, without behaviour that touches a disk, a clock or a key.
"""

from collections.abc import Iterable, Mapping
from dataclasses import field
from enum import IntEnum, StrEnum
from typing import Any

from opsd.values import dataclass


class Outcome(StrEnum):
    """How a source, and so a run, ended."""

    COMPLETE = "complete"
    WARNINGS = "warnings"
    FAILED = "failed"


class EntryType(IntEnum):
    """What a listing's entry is; the numbers are the format's."""

    FILE = 1
    FOLDER = 2
    SYMLINK = 3
    FIFO = 4
    SOCKET = 5
    CHARACTER_DEVICE = 6
    BLOCK_DEVICE = 7


#: References of a file's blobs in order (n × 56 bytes), or (depth, references of list blobs); docs/format.md.
Content = bytes | tuple[int, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One name in a folder, as a listing states it (docs/format.md, Listings). `mtime` in ns, `size` in bytes."""

    name: bytes
    type: EntryType
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int = 0
    content: Content | None = None
    target: bytes | None = None
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)
    link: bytes | None = None
    extents: tuple[tuple[int, int], ...] | None = None
    device: tuple[int, int] | None = None
    pages: Content | None = None
    changed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder, or a part of a very large one, with its entries in order of name; `path` is absolute bytes.

    `users` and `groups` name the owners' numbers of the hunk that it came from.
    """

    path: bytes
    entries: tuple[Entry, ...]
    users: Mapping[int, bytes] = field(default_factory=dict)
    groups: Mapping[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RootSummary:
    """Totals of a root without its name: a keyed hash of its path, files, bytes, whether it was a mount point."""

    key: bytes
    files: int
    bytes: int
    mount: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSummary:
    """What the manifest says of one source without naming anything in it. Sizes in bytes."""

    label: str
    kind: str
    outcome: Outcome
    files: int = 0
    folders: int = 0
    bytes: int = 0
    added_bytes: int = 0
    warnings: int = 0
    domain: int = 1
    roots: tuple[RootSummary, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotSummary:
    """What every list shows of a snapshot; needs the index key, not the reader's.

    Times in ns UTC; `received` is the store's time of the object. `complete`: no source failed.
    """

    id: str
    name: str
    writer: bytes
    run: bytes
    sequence: int
    started: int
    ended: int
    received: int
    zone: str
    host: str
    job: str
    tags: tuple[str, ...]
    complete: bool
    sources: tuple[SourceSummary, ...]
    files: int
    bytes: int
    added_bytes: int
    version: str
    marked: bool = False

    def is_ahead_of(self, others: Iterable["SnapshotSummary"]) -> bool:
        """Whether its writer's clock was wrong: a later one among the others is dated before it."""
        later = (each for each in others if each.writer == self.writer and each.sequence > self.sequence)
        return any(each.started < self.started for each in later)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTree:
    """What a reader knows of one source in a snapshot: its listing and what a drill compares."""

    label: str
    kind: str
    roots: tuple[bytes, ...]
    listing: Content
    facts: Mapping[str, Any]
