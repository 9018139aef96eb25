"""Give files, symlinks, fifos and devices their further names.

Promise: a hard link leads only to an inode that this restore wrote or found to be the same; it is checked after it was made.
"""

import errno
import os
from collections import Counter
from contextlib import suppress
from typing import Final

from opsd.model import Entry
from opsd.restore import beneath, files, marker
from opsd.restore.complaints import Complaints
from opsd.restore.folders import Frame
from opsd.restore.metadata import Metadata
from opsd.restore.placement import Placed
from opsd.restore.plan import HARD_LINKS
from opsd.restore.result import Damage
from opsd.restore.standing import Standing
from opsd.sources.roots import shown
from opsd.values import dataclass

#: The target can't have this link: another file system, no links at all, or as many as it allows.
_NO_LINK: Final = frozenset({errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK})
_COPIED: Final = "restored as a copy: no hard link can be had there"


@dataclass(slots=True)
class _First:
    """The first name of a group, and its inode (device, number) once it stands there."""

    folder: bytes
    name: bytes
    inode: tuple[int, int] | None = None


class HardLinks:
    """The groups of hard links of one restore."""

    def __init__(self, root: int, metadata: Metadata, complaints: Complaints) -> None:
        self._root = root
        self._metadata = metadata
        self._complaints = complaints
        self._firsts: dict[tuple[str, bytes], _First] = {}
        self.written: Counter[str] = Counter()
        self.unchanged = 0
        self.damaged: list[Damage] = []

    def is_first(self, placed: Placed, entry: Entry) -> bool:
        """Whether this is the name that holds the content; the first that is asked about is."""
        first = self._first(placed, entry)
        return first.name == entry.name and first.folder == placed.path

    def made(self, placed: Placed, entry: Entry, found: os.stat_result) -> None:
        """A name is whole, and those to come are linked to it."""
        first = self._first(placed, entry)
        first.folder, first.name, first.inode = placed.path, entry.name, (found.st_dev, found.st_ino)

    def found(self, placed: Placed, entry: Entry, found: os.stat_result, frame: Frame) -> None:
        """A name stood there and held the same: a first one serves the others, another one has to be its equal."""
        first = self._first(placed, entry)
        if self.is_first(placed, entry):
            first.inode = (found.st_dev, found.st_ino)
        elif first.inode != (found.st_dev, found.st_ino):
            frame.links.append((entry, placed, Standing.DIFFERENT))

    def join(self, frame: Frame, name: bytes, placed: Placed, entry: Entry) -> bool:
        """Link what is no file to the first of its group; False where it has to be made: it is the first, or no link can be had."""
        first = self._first(placed, entry)
        if first.inode is None:
            return False
        with beneath.folder(self._root, first.folder) as source:
            if self._is_linked(frame, name, source, first):
                return True
        self._complaints.add(placed.at(entry.name), _COPIED)
        return False

    def make(self, frame: Frame, placed: Placed, entry: Entry, standing: Standing) -> None:
        """Give a file that is whole another name."""
        first = self._first(placed, entry)
        path = placed.at(entry.name)
        if first.inode is None:
            problem = f"{shown(first.folder + b'/' + first.name)}, which is the same file, could not be restored"
            self.damaged.append(Damage(path=shown(path), problem=problem))
            return
        aside = standing is not Standing.ABSENT or not frame.fresh
        name = marker.PART if aside else entry.name
        try:
            if aside and self._stands(frame, entry, first):
                self.unchanged += 1
                return
            self._link_or_copy(frame, name, first, (placed, entry))
            if aside:
                os.rename(name, entry.name, src_dir_fd=frame.descriptor, dst_dir_fd=frame.descriptor)
        except OSError as error:
            with suppress(OSError):
                if aside:
                    os.unlink(name, dir_fd=frame.descriptor)
            self._complaints.not_created(path, error)
        else:
            self.written[HARD_LINKS] += 1

    def _first(self, placed: Placed, entry: Entry) -> _First:
        key = (placed.tree.label, entry.link or b"")
        found = self._firsts.get(key)
        if found is None:
            found = self._firsts[key] = _First(placed.path, entry.name)
        return found

    def _stands(self, frame: Frame, entry: Entry, first: _First) -> bool:
        with suppress(FileNotFoundError):
            os.unlink(marker.PART, dir_fd=frame.descriptor)
        with suppress(FileNotFoundError):
            found = os.stat(entry.name, dir_fd=frame.descriptor, follow_symlinks=False)
            return (found.st_dev, found.st_ino) == first.inode
        return False

    def _link_or_copy(self, frame: Frame, name: bytes, first: _First, what: tuple[Placed, Entry]) -> None:
        with beneath.folder(self._root, first.folder) as source:
            if not self._is_linked(frame, name, source, first):
                self._copy(frame, name, source, first, what)

    def _is_linked(self, frame: Frame, name: bytes, source: int, first: _First) -> bool:
        """Make the link; False where the target can't have it."""
        try:
            os.link(first.name, name, src_dir_fd=source, dst_dir_fd=frame.descriptor, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            return False
        found = os.stat(name, dir_fd=frame.descriptor, follow_symlinks=False)
        if (found.st_dev, found.st_ino) != first.inode:
            os.unlink(name, dir_fd=frame.descriptor)
            raise OSError(errno.ESTALE, "the file it belongs to was replaced meanwhile")
        return True

    def _copy(self, frame: Frame, name: bytes, source: int, first: _First, what: tuple[Placed, Entry]) -> None:
        placed, entry = what
        path = placed.at(entry.name)
        held = os.open(first.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
        try:
            found = os.fstat(held)
            if (found.st_dev, found.st_ino) != first.inode:
                raise OSError(errno.ESTALE, "the file it belongs to was replaced meanwhile")
            target = os.open(name, files.NEW_FILE, 0o600, dir_fd=frame.descriptor)
            try:
                files.copy(held, target)
                made = os.fstat(target)
                self._metadata.settle(target, entry, placed, (made.st_uid, made.st_gid, 0o600), path)
            finally:
                os.close(target)
        finally:
            os.close(held)
        self._complaints.add(path, _COPIED)
