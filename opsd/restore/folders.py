"""The folders that a restore is writing in, from the target down to the innermost one.

Promise: each is open, was reached without following a symlink, and gets its metadata when everything in it is done. A folder made
here is closed to others until then. However deep the tree, only so many stay open.
"""

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import field
from typing import Final

from opsd.errors import IntegrityError
from opsd.model import Entry
from opsd.restore import beneath
from opsd.restore.complaints import Complaints
from opsd.restore.metadata import Handle, Metadata
from opsd.restore.placement import Placed
from opsd.restore.standing import Standing
from opsd.values import dataclass

_MOST_OPEN: Final = 96
_MOST_LEFT: Final = 64
_NO_FOLDER: Final = frozenset({errno.ENOTDIR, errno.ELOOP})
_ACLS: Final = (b"system.posix_acl_default", b"system.posix_acl_access")


class NotEntered(Exception):
    """A folder could not be made or opened."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """A folder that was opened. `passed`: good for passing through only; `old_mode`: what it had before it was opened up."""

    descriptor: int
    made: bool = False
    passed: bool = False
    old_mode: int | None = None


@dataclass(slots=True)
class Frame:
    """A folder being written in. `fresh`: made by this run, so nothing else stands in it. `own` is what it gets at the end.

    `given`: user and group of what is made in it, where that is known; `inherits`: it hands an ACL down to them. `waiting`: so many of
    its files are still being made (opsd.restore.makers).
    """

    path: bytes
    descriptor: int
    inode: tuple[int, int]
    fresh: bool
    own: tuple[Entry, Placed] | None = None
    given: tuple[int, int] | None = None
    inherits: bool = False
    passed: bool = False
    old_mode: int | None = None
    waiting: int = 0
    pending: dict[bytes, tuple[Entry, Placed]] = field(default_factory=dict)
    links: list[tuple[Entry, Placed, Standing]] = field(default_factory=list)

    @property
    def handle(self) -> Handle:
        """For calls that set metadata."""
        return b"/proc/self/fd/%d" % self.descriptor if self.passed else self.descriptor


class Folders:
    """The stack of frames; `finish` is called for each that is left, and its own metadata are set when none of its files is waiting."""

    def __init__(self, root: int, metadata: Metadata, complaints: Complaints, finish: Callable[[Frame], None]) -> None:
        self._root = root
        self._metadata = metadata
        self._complaints = complaints
        self._finish = finish
        self._stack: list[Frame] = []
        #: Folders that were left and not settled yet, in this order: what is in a folder comes before it.
        self._left: deque[Frame] = deque()
        #: Waits for all files that are being made.
        self.drain: Callable[[], None] = lambda: None
        self._who = (os.geteuid(), os.getegid())
        #: Whether what stands where a folder belongs may be replaced, and folders that are there may be changed.
        self.replace = True
        self.made = 0

    @contextmanager
    def begun(self, *, fresh: bool) -> Iterator[None]:
        """The target is open; at the end everything is finished, but not after a failure."""
        self._stack.append(self._frame(b"", _Opened(os.dup(self._root), made=fresh)))
        try:
            yield
            while self._stack:
                self._leave()
            self.settle()
        finally:
            for frame in (*self._stack, *self._left):
                if frame.descriptor >= 0:
                    os.close(frame.descriptor)
            self._stack.clear()
            self._left.clear()

    def settle(self) -> None:
        """Have all that is in folders that were left stand there, and give these their metadata."""
        self.drain()
        self._settle_left()

    def enter(self, placed: Placed) -> Frame:
        """The frame of a folder; those that are done are left.

        Raises:
            NotEntered: it can't be had, which was counted.
            IntegrityError: the way to it leads through something that the listing itself says is no folder.
        """
        path = placed.path
        while (top := self._stack[-1]).path and path != top.path and not path.startswith(top.path + b"/"):
            self._leave()
        while top.path != path:
            name = path[len(top.path) + 1 if top.path else 0 :].partition(b"/")[0]
            last = len(top.path) + len(name) + bool(top.path) == len(path)
            top = self._push(name, way=placed.way or not last)
        if placed.itself is not None and not path:
            top.own = (placed.itself, placed)
        return self._awake(top)

    def _push(self, name: bytes, *, way: bool) -> Frame:
        above = self._awake(self._stack[-1])
        path = above.path + b"/" + name if above.path else name
        known = above.pending.pop(name, None)
        try:
            opened = self._open(above, name, path, known)
        except OSError as error:
            self._complaints.not_created(path, error)
            raise NotEntered from error
        frame = self._frame(path, opened)
        if opened.made and above.inherits:
            self._disinherit(frame)
        if opened.made or (self.replace and not way):
            frame.own = known
        self._stack.append(frame)
        if len(self._stack) > _MOST_OPEN:
            far = self._stack[-_MOST_OPEN]
            if far.descriptor >= 0:
                if far.waiting:
                    self.drain()
                os.close(far.descriptor)
                far.descriptor = -1
        return frame

    def _open(self, above: Frame, name: bytes, path: bytes, known: tuple[Entry, Placed] | None) -> _Opened:
        made = above.fresh and self._make(above, name, known)
        if not made:
            try:
                return self._open_present(above, name)
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno not in _NO_FOLDER:
                    raise
                self._clear(above, name, path, known)
            self._make(above, name, known)
        return _Opened(os.open(name, beneath.LISTED, dir_fd=above.descriptor), made=True)

    def _make(self, above: Frame, name: bytes, known: tuple[Entry, Placed] | None) -> bool:
        try:
            # What the listing has no entry for (the folder of a source) is everybody's to read, as mkdir(1) makes it.
            os.mkdir(name, 0o777 if known is None else 0o700, dir_fd=above.descriptor)
        except FileExistsError:
            return False
        self.made += 1
        return True

    def _clear(self, above: Frame, name: bytes, path: bytes, known: tuple[Entry, Placed] | None) -> None:
        if known is None or above.fresh:
            hint = "nothing was written through it; run 'opsd check'"
            raise IntegrityError("the snapshot puts something into it, but it is no folder", hint=hint)
        if not self.replace:
            self._complaints.add(path, "not restored: something else stands there, and nothing is overwritten")
            raise NotEntered
        os.unlink(name, dir_fd=above.descriptor)

    def _open_present(self, above: Frame, name: bytes) -> _Opened:
        try:
            return _Opened(os.open(name, beneath.LISTED, dir_fd=above.descriptor))
        except PermissionError:
            descriptor = os.open(name, beneath.PASSED, dir_fd=above.descriptor)
        with suppress(OSError):  # One's own folder can be opened up; it gets its mode back at the end.
            mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
            os.chmod(b"/proc/self/fd/%d" % descriptor, mode | 0o700)
            opened = _Opened(os.open(name, beneath.LISTED, dir_fd=above.descriptor), old_mode=mode)
            os.close(descriptor)
            return opened
        return _Opened(descriptor, passed=True)

    def _frame(self, path: bytes, opened: _Opened) -> Frame:
        descriptor = opened.descriptor
        found = os.fstat(descriptor)
        inode = (found.st_dev, found.st_ino)
        frame = Frame(path, descriptor, inode, opened.made, passed=opened.passed, old_mode=opened.old_mode)
        if found.st_gid == self._who[1] and not found.st_mode & stat.S_ISGID:
            frame.given = self._who
        if not opened.made or not path:
            with suppress(OSError):
                frame.inherits = bool(os.getxattr(frame.handle, _ACLS[0]))
            if found.st_uid == self._who[0] != 0 and found.st_mode & 0o700 != 0o700:
                frame.old_mode = stat.S_IMODE(found.st_mode)
                os.chmod(frame.handle, frame.old_mode | 0o700)
        return frame

    def _awake(self, frame: Frame) -> Frame:
        if frame.descriptor < 0:
            self._reopen(frame)
        return frame

    def _disinherit(self, frame: Frame) -> None:
        for name in _ACLS:
            with suppress(OSError):
                os.removexattr(frame.descriptor, name)

    def _leave(self) -> None:
        frame = self._awake(self._stack[-1])
        self._finish(frame)
        for name in list(frame.pending):
            try:
                self._push(name, way=False)
            except NotEntered:
                continue
            except IntegrityError:
                self._complaints.add(frame.path + b"/" + name, "not restored: two sources hold something there")
                continue
            self._leave()
        self._left.append(self._awake(frame))
        self._stack.pop()
        if len(self._left) > _MOST_LEFT:
            self.drain()
        self._settle_left()

    def _settle_left(self) -> None:
        while self._left and not self._left[0].waiting:
            self._settle(self._left[0])
            os.close(self._left.popleft().descriptor)

    def _settle(self, frame: Frame) -> None:
        if frame.own is None:
            if frame.old_mode is not None:
                os.chmod(frame.handle, frame.old_mode)
            return
        entry, placed = frame.own
        found = os.fstat(frame.descriptor)
        if not frame.fresh or frame.inherits:
            self._metadata.clean(frame.handle, entry, frame.path)
        given = (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode))
        self._metadata.settle(frame.handle, entry, placed, given, frame.path)

    def _reopen(self, frame: Frame) -> None:
        descriptor = beneath.open_folder(self._root, frame.path, beneath.LISTED)
        found = os.fstat(descriptor)
        if (found.st_dev, found.st_ino) != frame.inode:
            os.close(descriptor)
            raise IntegrityError(
                f"{os.fsdecode(frame.path)} was replaced while it was written", hint="see who else writes there"
            )
        frame.descriptor = descriptor
