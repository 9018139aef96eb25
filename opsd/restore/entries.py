"""Make single files, symlinks, fifos and devices in a folder that is open.

Promise: in a folder that was there before, a file is written aside, given its metadata and moved over its name; what can't be written
whole leaves nothing behind and what stood there as it was.
"""

import os
import stat
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from opsd.model import Entry, EntryType
from opsd.restore import files, marker
from opsd.restore.complaints import Complaints
from opsd.restore.folders import Frame
from opsd.restore.links import HardLinks
from opsd.restore.metadata import Metadata
from opsd.restore.placement import Placed
from opsd.restore.plan import HARD_LINKS, KINDS, SETUID
from opsd.restore.protocol import Pieces
from opsd.restore.request import RestoreRequest
from opsd.restore.standing import Standing
from opsd.restore.writers import Writers

_SETUID: Final = stat.S_ISUID | stat.S_ISGID
_SQLITE: Final = b"SQLite format 3\0"  # https://sqlite.org/fileformat.html
_JOURNALS: Final = (b"-wal", b"-shm", b"-journal")
_BEFORE: Final = b".before-restore"


class Entries:
    """Makes entries for one restore, and counts them."""

    def __init__(
        self,
        request: RestoreRequest,
        metadata: Metadata,
        complaints: Complaints,
        links: HardLinks,
        writers: Writers,
    ) -> None:
        self._request = request
        self._metadata = metadata
        self._complaints = complaints
        self._links = links
        self._writers = writers
        #: The bits of a mode that a new file gets when it is opened with them.
        self.unmasked = ~_umask()
        self._who = (os.geteuid(), os.getegid())
        self._allowed: frozenset[bytes] = frozenset()
        self.written: Counter[str] = Counter()
        self.files = 0
        self.bytes = 0
        self.adjusted = 0
        self.unchanged = 0
        self.skipped = 0
        self.evicted = 0

    def allow(self, deletions: Sequence[bytes]) -> None:
        """Folders that may be deleted to make room for something else."""
        self._allowed = frozenset(deletions)

    def file(
        self, frame: Frame, placed: Placed, entry: Entry, standing: Standing, pieces: Pieces
    ) -> None:  # budget: the inner loop's one call
        """Write a file.

        Raises:
            IntegrityError: its content can't be had; nothing of it is left.
            RestoreError: the target is full or read-only.
        """
        path = placed.at(entry.name)
        if self._is_reserved(path, entry.name):
            return
        aside = not frame.fresh and (self._request.in_place or standing is not Standing.ABSENT)
        mode = entry.mode & 0o777
        name = marker.PART if aside else entry.name
        try:
            try:
                descriptor = os.open(name, files.NEW_FILE, mode, dir_fd=frame.descriptor)
            except FileExistsError:
                if frame.fresh:
                    raise
                aside, name = True, marker.PART
                descriptor = self._open_aside(frame, mode)
        except OSError as error:
            self._complaints.not_created(path, error)
            return
        try:
            self.bytes += self._writers.fill(descriptor, entry, pieces)
            self._settle(frame, descriptor, entry, placed, mode, path)
            if aside:
                self._move(frame, placed, entry, standing, descriptor)
        except BaseException as error:
            with suppress(OSError):
                os.unlink(name, dir_fd=frame.descriptor)
            if not isinstance(error, OSError):
                raise
            self._complaints.failed(path, "not restored", error)
        else:
            self.files += 1
            self.written["files"] += 1
            if mode != entry.mode and entry.mode & _SETUID:
                self.written[SETUID] += 1
            if entry.link is not None:
                self._links.made(placed, entry, os.fstat(descriptor))
        finally:
            os.close(descriptor)

    def count(self, entry: Entry) -> None:
        """A plain file was made elsewhere."""
        self.files += 1
        self.bytes += entry.size
        self.written["files"] += 1

    def node(self, frame: Frame, placed: Placed, entry: Entry, standing: Standing) -> None:
        """Make a symlink, a fifo or a device, or give one that was made another name."""
        path = placed.at(entry.name)
        if entry.type is EntryType.SOCKET:
            self.skipped += 1
            return
        if self._is_reserved(path, entry.name):
            return
        aside = not frame.fresh
        name = marker.PART if aside else entry.name
        try:
            if aside:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=frame.descriptor)
            kind = self._make_or_join(frame, name, entry, placed, path)
            self._name_node(frame, entry, placed, standing)
        except (OSError, OverflowError, ValueError) as error:
            if aside:
                with suppress(OSError):
                    os.unlink(name, dir_fd=frame.descriptor)
            if isinstance(error, OSError):
                self._complaints.not_created(path, error)
            else:
                self._complaints.add(path, f"not restored: {error}")
        else:
            self.written[kind] += 1

    def left(self, frame: Frame, placed: Placed, entry: Entry, standing: Standing) -> None:
        """Leave what stands there, but for its metadata."""
        path = placed.at(entry.name)
        if standing is Standing.BLOCKED:
            hint = "give --delete, or move the folder away"
            self._complaints.add(path, "not restored: a folder that is not empty stands there", hint)
            return
        if entry.link is not None and standing is not Standing.KEPT:
            with suppress(OSError):
                found = os.stat(entry.name, dir_fd=frame.descriptor, follow_symlinks=False)
                self._links.found(placed, entry, found, frame)
        if standing is Standing.METADATA:
            self._adjust(frame, placed, entry, path)
        else:
            self.unchanged += 1

    def _adjust(self, frame: Frame, placed: Placed, entry: Entry, path: bytes) -> None:
        try:
            descriptor = os.open(entry.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=frame.descriptor)
        except OSError as error:
            self._complaints.failed(path, "its metadata could not be set", error)
            return
        try:
            found = os.fstat(descriptor)
            if stat.S_IFMT(found.st_mode) == files.TYPE_BITS[entry.type] and found.st_nlink == 1:
                handle = b"/proc/self/fd/%d" % descriptor
                self._metadata.clean(handle, entry, path)
                given = (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode))
                self._metadata.settle(handle, entry, placed, given, path)
                self.adjusted += 1
            else:
                self._complaints.add(path, "not restored: it was replaced meanwhile", "restore again")
        finally:
            os.close(descriptor)

    def _settle(
        self, frame: Frame, descriptor: int, entry: Entry, placed: Placed, mode: int, path: bytes
    ) -> None:  # budget: as `file`
        if frame.given is None:
            found = os.fstat(descriptor)
            frame.given = (found.st_uid, found.st_gid)
        given = (*frame.given, mode & self.unmasked)
        if frame.inherits:
            self._metadata.clean(descriptor, entry, path)
            given = (*frame.given, -1)
        self._metadata.settle(descriptor, entry, placed, given, path)

    def _make_or_join(self, frame: Frame, name: bytes, entry: Entry, placed: Placed, path: bytes) -> str:
        """Returns what it counts as."""
        if entry.link is not None and self._links.join(frame, name, placed, entry):
            return HARD_LINKS
        files.make_node(frame.descriptor, name, entry)
        self._settle_node(frame, name, entry, placed, path)
        return KINDS[entry.type]

    def _name_node(self, frame: Frame, entry: Entry, placed: Placed, standing: Standing) -> None:
        if not frame.fresh:
            self._move(frame, placed, entry, standing, None)
        if entry.link is not None:
            found = os.stat(entry.name, dir_fd=frame.descriptor, follow_symlinks=False)
            self._links.made(placed, entry, found)

    def _settle_node(self, frame: Frame, name: bytes, entry: Entry, placed: Placed, path: bytes) -> None:
        if entry.type is EntryType.SYMLINK:
            self._metadata.settle_link(frame.descriptor, entry, placed, name, path)
            return
        descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=frame.descriptor)
        try:
            found = os.fstat(descriptor)
            handle = b"/proc/self/fd/%d" % descriptor
            if frame.inherits:
                self._metadata.clean(handle, entry, path)
            given = (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode))
            self._metadata.settle(handle, entry, placed, given, path)
        finally:
            os.close(descriptor)

    def _open_aside(self, frame: Frame, mode: int) -> int:
        with suppress(FileNotFoundError):  # Left behind by a restore that was cut off.
            os.unlink(marker.PART, dir_fd=frame.descriptor)
        return os.open(marker.PART, files.NEW_FILE, mode, dir_fd=frame.descriptor)

    def _move(self, frame: Frame, placed: Placed, entry: Entry, standing: Standing, descriptor: int | None) -> None:
        """Put what was written aside in its place; what it replaces goes only now, when its successor is on the disk."""
        folder = frame.descriptor
        if descriptor is not None and standing is not Standing.ABSENT and self._request.in_place:
            os.fdatasync(descriptor)
            if os.pread(descriptor, len(_SQLITE), 0) == _SQLITE:
                self._put_journals_aside(frame, placed, entry)
        try:
            os.rename(marker.PART, entry.name, src_dir_fd=folder, dst_dir_fd=folder)
        except IsADirectoryError:
            if placed.at(entry.name) in self._allowed:
                files.remove(folder, entry.name)
                self.evicted += 1
            else:
                os.rmdir(entry.name, dir_fd=folder)
            os.rename(marker.PART, entry.name, src_dir_fd=folder, dst_dir_fd=folder)

    def _put_journals_aside(self, frame: Frame, placed: Placed, entry: Entry) -> None:
        """A journal of the database that is replaced would spoil its successor (https://sqlite.org/howtocorrupt.html)."""
        listed = {each.name for each in placed.entries}
        for suffix in _JOURNALS:
            name = entry.name + suffix
            if name in listed:
                continue
            with suppress(FileNotFoundError):
                os.rename(name, name + _BEFORE, src_dir_fd=frame.descriptor, dst_dir_fd=frame.descriptor)
                problem = f"it belonged to the database that was replaced and is now called *{_BEFORE.decode()}"
                self._complaints.add(placed.at(name), problem, "delete it once the restored database is good")

    def _is_reserved(self, path: bytes, name: bytes) -> bool:
        if path != marker.NAME and name != marker.PART:
            return False
        self._complaints.add(path, "not restored: it was left behind by a restore that was cut off")
        return True


def _umask() -> int:
    """The mask of this process, which can only be read by setting it, or from /proc/self/status (proc(5))."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o777
