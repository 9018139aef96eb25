"""Say what a restore would do, before it does it.

Promise: pure: what stands in the target comes through `Existing`. Counts and a few examples, whatever the snapshot's size; what would
be deleted is listed in full, because only that list is ever deleted.
"""

import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Protocol

from opsd.model import Entry, EntryType, SourceTree
from opsd.restore.files import held_bytes
from opsd.restore.placement import Placed, below_roots, is_below
from opsd.restore.request import RestoreRequest
from opsd.restore.standing import Standing
from opsd.sources import patterns
from opsd.sources.roots import join
from opsd.values import dataclass

_EXAMPLES: Final = 20
#: What a restore reached on a small machine; bytes and entries a second.
_BYTES_A_SECOND: Final = 300e6
_ENTRIES_A_SECOND: Final = 12e3

KINDS: Final = {
    EntryType.FILE: "files",
    EntryType.FOLDER: "folders",
    EntryType.SYMLINK: "symlinks",
    EntryType.FIFO: "fifos",
    EntryType.SOCKET: "sockets",
    EntryType.CHARACTER_DEVICE: "devices",
    EntryType.BLOCK_DEVICE: "devices",
}
HARD_LINKS: Final = "hard links"
SETUID: Final = "setuid"


class Existing(Protocol):
    """What stands in the target now."""

    def look(self, placed: Placed) -> Mapping[bytes, Standing]:
        """How a folder's entries stand; those left out are absent."""
        ...

    def names(self, path: bytes, *, mounted: bool) -> Iterator[bytes]:
        """What stands in a folder of the target; not `mounted`: nothing if another file system is mounted on it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a restore would do: entries by kind (KINDS, hard links; setuid counts again), `size` in bytes to write, estimated seconds.

    Paths are relative to the target. `blocked` can't be restored while a folder with content stands there. Sockets are never made.
    """

    created: Mapping[str, int]
    overwritten: Mapping[str, int]
    metadata: Mapping[str, int]
    unchanged: Mapping[str, int]
    size: int
    seconds: float
    examples: tuple[bytes, ...]
    blocked: tuple[bytes, ...]
    deletions: tuple[bytes, ...]


def plan(
    listing: Iterable[Placed],
    request: RestoreRequest,
    existing: Existing | None = None,
    trees: Iterable[SourceTree] = (),
) -> Plan:
    """The plan of a restore; without `existing` the target is empty. What `trees` hold, each source deletes only of its own.

    Raises:
        IntegrityError: the listing can't be read.
    """
    tally = _Tally()
    surplus = _Surplus(request, existing, trees) if existing is not None and request.delete else None
    for placed in listing:
        standings = existing.look(placed) if existing is not None else {}
        for entry in placed.entries:
            tally.add(placed, entry, standings.get(entry.name, Standing.ABSENT))
        if surplus is not None:
            surplus.add(placed)
    return tally.plan(surplus.end() if surplus is not None else ())


def kinds(entry: Entry, *, first: bool) -> Iterator[str]:
    """What an entry counts as; `first`: no other name of its hard-linked file came before it."""
    yield KINDS[entry.type] if first else HARD_LINKS
    if first and entry.type is EntryType.FILE and entry.mode & (stat.S_ISUID | stat.S_ISGID):
        yield SETUID


class _Tally:
    """Counts of a plan while it is made."""

    def __init__(self) -> None:
        self._counts: dict[Standing, Counter[str]] = {standing: Counter() for standing in Standing}
        self._links: set[tuple[str, bytes]] = set()
        self._bytes = 0
        self._examples: list[bytes] = []
        self._blocked: list[bytes] = []
        self._evicted: list[bytes] = []

    def add(self, placed: Placed, entry: Entry, standing: Standing) -> None:
        first = True
        if entry.link is not None and standing < Standing.KEPT:
            key = (placed.tree.label, entry.link)
            first = key not in self._links
            self._links.add(key)
        self._counts[standing].update(kinds(entry, first=first))
        if standing is Standing.BLOCKED:
            self._blocked.append(placed.at(entry.name))
        if standing is Standing.EVICTED:
            self._evicted.append(placed.at(entry.name))
        if standing in {Standing.DIFFERENT, Standing.EVICTED} or (
            standing is Standing.ABSENT and entry.type is not EntryType.FOLDER
        ):
            self._bytes += held_bytes(entry) if first and entry.type is EntryType.FILE else 0
            if len(self._examples) < _EXAMPLES:
                self._examples.append(placed.at(entry.name))

    def plan(self, deletions: tuple[bytes, ...]) -> Plan:
        counts = self._counts
        overwritten = counts[Standing.DIFFERENT] + counts[Standing.EVICTED]
        written = counts[Standing.ABSENT] + overwritten + counts[Standing.METADATA]
        return Plan(
            created=dict(counts[Standing.ABSENT]),
            overwritten=dict(overwritten),
            metadata=dict(counts[Standing.METADATA]),
            unchanged=dict(counts[Standing.SAME] + counts[Standing.KEPT]),
            size=self._bytes,
            seconds=self._bytes / _BYTES_A_SECOND + written.total() / _ENTRIES_A_SECOND,
            examples=tuple(self._examples),
            blocked=tuple(self._blocked),
            deletions=tuple(self._evicted) + deletions,
        )


class _Surplus:
    """Finds what stands in the target and not in the snapshot, a folder at a time, in whichever parts it comes."""

    def __init__(self, request: RestoreRequest, existing: Existing, trees: Iterable[SourceTree]) -> None:
        self._request = request
        self._existing = existing
        self._matcher = patterns.compile(request.patterns) if request.patterns else None
        self._roots = [(tree.label, root) for tree in trees for root in tree.roots]
        self._placed: Placed | None = None
        self._names: set[bytes] = set()
        self._found: list[bytes] = []

    def add(self, placed: Placed) -> None:
        if self._placed is not None and self._placed.path != placed.path:
            self._close()
        self._placed = placed
        self._names.update(entry.name for entry in placed.entries)

    def end(self) -> tuple[bytes, ...]:
        self._close()
        return tuple(self._found)

    def _close(self) -> None:
        placed, names = self._placed, self._names
        self._placed, self._names = None, set()
        if placed is None or not self._is_whole(placed, names):
            return
        # A folder recorded as empty may have been left out because it is a mount point.
        for name in self._existing.names(placed.path, mounted=bool(names)):
            if name not in names and self._may_go(placed, join(placed.source, name)):
                self._found.append(placed.at(name))

    def _is_whole(self, placed: Placed, names: set[bytes]) -> bool:
        """Whether the snapshot would hold all that stood in the folder; of a cache it holds only the tag."""
        inside = below_roots(placed.tree, placed.source) and is_below(placed.source, self._request.under())
        return inside and not placed.way and names != {b"CACHEDIR.TAG"}

    def _may_go(self, placed: Placed, path: bytes) -> bool:
        if self._matcher is not None and not self._matcher.selects(path):
            return False
        others = [root for label, root in self._roots if label != placed.tree.label]
        return not any(is_below(path, other) or is_below(other, path) for other in (*others, *self._request.keep))
