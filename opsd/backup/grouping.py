"""A tree in groups of folders, each of which becomes a hunk of the listing; counted on the way.

Promise: groups depend only on paths and numbers of entries, so an unchanged part of the tree gives the same groups again; the digest of
a part covers every name and stat in it.
"""

import os
import stat
from collections.abc import Callable, Iterator, Mapping

from opsd.backup.images import companions_of
from opsd.backup.status import status_bytes
from opsd.backup.work import Result
from opsd.model import RootSummary
from opsd.repository.listing import ends_hunk, folder_parts
from opsd.repository.manifest import page_map_key
from opsd.sources.files import FileTree
from opsd.sources.protocol import Found, FoundFolder
from opsd.values import dataclass


@dataclass(slots=True)
class Part:
    """A folder, or a part of one, on its way into a hunk: `digest` covers all in it, `key` names its row in the cache."""

    folder: FoundFolder
    entries: list[Found]
    #: What must be equal for each entry to count as unchanged.
    statuses: list[bytes]
    #: Journals by the name of their database; either may stand in another part.
    companions: Mapping[bytes, tuple[os.stat_result, ...]]
    #: Regular files, and their bytes.
    files: int
    size: int
    digest: bytes
    key: bytes


class Grouping:
    """Walks a tree once; counts folders, and what it found below each root."""

    def __init__(self, tree: FileTree, hashed: Callable[[bytes], bytes], result: Result) -> None:
        self._tree = tree
        self._hash = hashed
        self._result = result
        self._totals = {root: [0, 0] for root in tree.roots}

    def groups(self) -> Iterator[list[Part]]:
        """The groups in order."""
        group: list[Part] = []
        count = 0
        for folder in self._tree.folders():
            self._result.folders += folder.part == 0
            companions = companions_of(folder.entries)
            for cut in folder_parts([name for name, _ in folder.entries]):
                part = self._part(folder, cut, companions)
                group.append(part)
                count += len(part.entries)
                if ends_hunk(folder.path, count):
                    yield group
                    group, count = [], 0
        if group:
            yield group

    def totals(self, index_key: bytes, mounts: Mapping[bytes, bool]) -> tuple[RootSummary, ...]:
        """Files and bytes of each root, without its name; `mounts` says which are mount points."""
        return tuple(
            RootSummary(
                key=page_map_key(index_key, self._result.label, root), files=files, bytes=size, mount=mounts[root]
            )
            for root, (files, size) in sorted(self._totals.items())
        )

    def _part(self, folder: FoundFolder, cut: slice, companions: Mapping[bytes, tuple[os.stat_result, ...]]) -> Part:
        entries = folder.entries[cut]
        covered = [folder.path, b"\0", b"\1" if folder.complete else b"\0"]
        statuses = []
        files = size = 0
        for name, found in entries:
            status = status_bytes(found)
            statuses.append(status)
            covered += (name, b"/", status)
            if found.st_nlink > 1:
                covered.append(found.st_dev.to_bytes(8, "little"))
            if companions and name in companions:
                covered += map(status_bytes, companions[name])
            if stat.S_ISREG(found.st_mode):
                files += 1
                size += found.st_size
        for root, totals in self._totals.items():
            if folder.path == root or folder.path.startswith(root.rstrip(b"/") + b"/"):
                totals[0] += files
                totals[1] += size
            elif root.rpartition(b"/")[0] == folder.path.rstrip(b"/"):
                _count_file(totals, root.rpartition(b"/")[2], entries)
        first = entries[0][0] if entries and (folder.part or cut.start) else b""
        digest, key = self._hash(b"".join(covered)), self._hash(folder.path + b"\0" + first)
        return Part(folder, entries, statuses, companions, files, size, digest, key)


def _count_file(totals: list[int], name: bytes, entries: list[Found]) -> None:
    """A root that is itself a file."""
    for each, found in entries:
        if each == name and stat.S_ISREG(found.st_mode):
            totals[0] += 1
            totals[1] += found.st_size
