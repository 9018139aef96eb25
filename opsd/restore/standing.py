"""Compare what stands in the target with what the snapshot holds.

Promise: reads only. Whatever can't be examined counts as different, never as the same.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Final

from opsd.model import Entry, EntryType
from opsd.restore import beneath
from opsd.restore.files import TYPE_BITS
from opsd.restore.metadata import Metadata
from opsd.restore.placement import Placed
from opsd.restore.protocol import SnapshotReader
from opsd.restore.request import Overwrite, RestoreRequest

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Standing(IntEnum):
    """What stands where an entry goes."""

    ABSENT = 0
    DIFFERENT = 1  # It has to be replaced.
    METADATA = 2  # Only its metadata differ.
    SAME = 3
    EVICTED = 4  # A folder that is not empty stands where something else belongs, and may be deleted.
    KEPT = 5  # It may not be replaced: overwriting was ruled out.
    BLOCKED = 6  # As EVICTED, but nothing may be deleted.


class Standings:
    """Judges the entries of a restore's folders against an open target."""

    def __init__(self, reader: SnapshotReader, request: RestoreRequest, root: int, metadata: Metadata) -> None:
        self._reader = reader
        self._request = request
        self._root = root
        self._metadata = metadata
        #: For each group of hard links: where its first name stands, and how.
        self._links: dict[tuple[str, bytes], tuple[tuple[int, int] | None, Standing]] = {}

    def look(self, placed: Placed) -> Mapping[bytes, Standing]:
        """How each of a folder's entries stands; those that are absent may be left out."""
        try:
            folder = beneath.open_folder(self._root, placed.path)
        except OSError:
            folder = -1
        try:
            found = {entry.name: self._judge(folder, placed, entry) for entry in placed.entries}
        finally:
            if folder >= 0:
                os.close(folder)
        return {name: standing for name, standing in found.items() if standing is not Standing.ABSENT}

    def names(self, path: bytes, *, mounted: bool) -> Iterator[bytes]:
        """What stands in a folder of the target, file systems mounted in it left out; not `mounted`: nor if it is one itself."""
        try:
            with beneath.folder(self._root, path, beneath.LISTED) as folder:
                device = os.fstat(folder).st_dev
                if not mounted and os.stat(b"..", dir_fd=folder).st_dev != device:
                    return
                for name in sorted(map(os.fsencode, os.listdir(folder))):
                    if os.stat(name, dir_fd=folder, follow_symlinks=False).st_dev == device:
                        yield name
        except OSError:
            return

    def _judge(self, folder: int, placed: Placed, entry: Entry) -> Standing:
        found = None
        if folder >= 0:
            try:
                found = os.stat(entry.name, dir_fd=folder, follow_symlinks=False)
            except OSError:
                found = None
        if entry.link is None:
            return Standing.ABSENT if found is None else self._compare(folder, placed, entry, found)
        inode = None if found is None else (found.st_dev, found.st_ino)
        known = self._links.get((placed.tree.label, entry.link))
        if known is not None and self._request.overwrite is not Overwrite.NEVER:
            if found is None:
                return Standing.ABSENT
            return known[1] if known[0] == inode else self._replaceable(folder, entry, found)
        standing = Standing.ABSENT if found is None else self._compare(folder, placed, entry, found)
        if standing < Standing.KEPT:
            self._links[placed.tree.label, entry.link] = (inode, standing)
        return standing

    def _replaceable(self, folder: int, entry: Entry, found: os.stat_result) -> Standing:
        if not stat.S_ISDIR(found.st_mode) or _is_empty(folder, entry.name):
            return Standing.DIFFERENT
        return Standing.EVICTED if self._request.delete else Standing.BLOCKED

    def _compare(self, folder: int, placed: Placed, entry: Entry, found: os.stat_result) -> Standing:
        if entry.type is EntryType.FOLDER and stat.S_ISDIR(found.st_mode):
            same = True
        elif self._request.overwrite is Overwrite.NEVER:
            return Standing.KEPT
        elif stat.S_IFMT(found.st_mode) != TYPE_BITS[entry.type]:
            return self._replaceable(folder, entry, found)
        else:
            same = self._same_content(folder, placed, entry, found)
        if not same:
            return Standing.DIFFERENT
        where = b"/proc/self/fd/%d/%s" % (folder, entry.name)
        if not self._metadata.differs(where, found, entry, placed):
            return Standing.SAME
        # An inode with other names may be someone else's file: it is replaced rather than changed.
        shared = found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode)
        return Standing.DIFFERENT if shared or entry.type is EntryType.SYMLINK else Standing.METADATA

    def _same_content(self, folder: int, placed: Placed, entry: Entry, found: os.stat_result) -> bool:
        if entry.type is EntryType.SYMLINK:
            return os.readlink(entry.name, dir_fd=folder) == entry.target
        if entry.type in {EntryType.CHARACTER_DEVICE, EntryType.BLOCK_DEVICE}:
            return (os.major(found.st_rdev), os.minor(found.st_rdev)) == entry.device
        if entry.type is not EntryType.FILE:
            return True
        if found.st_size != entry.size:
            return False
        if self._request.overwrite is Overwrite.QUICK:
            return found.st_mtime_ns == entry.mtime
        try:
            descriptor = os.open(entry.name, _READ, dir_fd=folder)
        except OSError:
            return False
        try:
            return stat.S_ISREG(os.fstat(descriptor).st_mode) and self._reader.same(placed.tree, entry, descriptor)
        finally:
            os.close(descriptor)


def _is_empty(folder: int, name: bytes) -> bool:
    try:
        with beneath.folder(folder, name, beneath.LISTED) as inner:
            return not os.listdir(inner)
    except OSError:
        return False
