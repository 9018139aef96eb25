"""Plain small files are made by a process of its own (`opsd.restore.maker`): most of a restore's files, and most of its time.

Promise: nothing depends on it. What it could not make is made here, where the failure is met again and told; a maker that dies or is silent
for too long costs time. A folder's `waiting` counts what is not known to stand in it yet. docs/decisions/0015-makers.md
"""

import mmap
import os
import stat
from collections import deque
from contextlib import suppress
from dataclasses import field
from typing import Any, Final, NamedTuple

from opsd.errors import IntegrityError
from opsd.model import Entry
from opsd.restore import maker, marker
from opsd.restore.entries import Entries
from opsd.restore.folders import Frame
from opsd.restore.maker import InFolder
from opsd.restore.metadata import Metadata
from opsd.restore.placement import Placed
from opsd.restore.protocol import Pieces
from opsd.restore.standing import Standing
from opsd.sources.scouts import Scout
from opsd.values import dataclass

#: Larger files are written here, their large pieces by threads.
_LARGEST: Final = 256 * 1024
#: A restore of fewer files is over before a process has started.
_WORTH: Final = 256
#: One question is about this many bytes and files at most.
_BATCH_BYTES: Final = 1024 * 1024
_BATCH_FILES: Final = 128
#: Pieces of shared memory, so also questions that are out at once.
_AREAS: Final = 4
#: So many files that had to be made again, and it is not worth asking.
_MOST_FAILED: Final = 64
_SPECIAL_BITS: Final = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX


class _Asked(NamedTuple):
    """A file that was handed over, and where its bytes are in the shared memory."""

    frame: Frame
    placed: Placed
    entry: Entry
    start: int


@dataclass(slots=True, eq=False)
class _Batch:
    """Files that are handed over together. `end`: up to where their bytes fill the shared memory."""

    end: int
    limit: int
    files: list[_Asked] = field(default_factory=list)
    question: list[InFolder] = field(default_factory=list)


class Makers:
    """The maker of one restore. Used by one thread; `close` when done."""

    def __init__(self, root: int, metadata: Metadata, entries: Entries) -> None:
        self._root = root
        self._metadata = metadata
        self._entries = entries
        self._seen = 0 if len(os.sched_getaffinity(0)) > 1 else -1 << 62
        self._failed = 0
        self._process: Scout | None = None
        self._memory: mmap.mmap | None = None
        self._view = memoryview(b"")
        self._free = [area * _BATCH_BYTES for area in range(_AREAS)]
        self._filling: _Batch | None = None
        self._out: deque[_Batch] = deque()

    def take(self, frame: Frame, placed: Placed, entry: Entry, pieces: Pieces) -> bool:
        """Take over a file that nothing stands in the way of; False where it is not for a maker.

        Raises:
            IntegrityError: its content can't be had; nothing of it is made.
            RestoreError: the target is full or read-only, as an earlier file showed.
        """
        if not frame.fresh or frame.inherits or frame.given is None or not _is_plain(entry) or not self._is_ready():
            return False
        open_mode = entry.mode & 0o777
        given = (*frame.given, open_mode & self._entries.unmasked)
        owner, mode = self._metadata.differing(entry, placed, given)
        if owner is not None and not self._metadata.may_give_away:
            return False
        batch = self._batch(entry.size)
        start = batch.end
        end = start + _gather(self._view[start : start + entry.size], entry, pieces)
        if not batch.files or batch.files[-1].frame is not frame:
            batch.question.append((frame.path, *frame.inode, []))
        batch.question[-1][3].append((entry.name, open_mode, owner, mode, entry.mtime, start, end))
        batch.files.append(_Asked(frame, placed, entry, start))
        batch.end = end
        frame.waiting += 1
        if len(batch.files) >= _BATCH_FILES:
            self._send()
        return True

    def drain(self) -> None:
        """Wait until all that was taken stands, or was complained of.

        Raises:
            RestoreError: the target is full or read-only.
        """
        self._send()
        while self._out:
            self._settle_oldest()

    def close(self) -> None:
        """End the maker, once it has done what was taken; what it could not make is given up."""
        self._send()
        process, self._process = self._process, None
        if process:
            for _ in self._out:
                process.answer()
            process.close()
        self._view.release()
        if self._memory:
            # What failed last may still be held, by the traceback of what went wrong: it goes with that.
            with suppress(BufferError):
                self._memory.close()

    def _is_ready(self) -> bool:
        """Whether there is a maker; started once there is enough to do."""
        if self._process:
            return self._process.lives and self._failed <= _MOST_FAILED
        self._seen += 1
        if self._seen < _WORTH:
            return False
        self._seen = -1 << 62  # It is tried once.
        with suppress(OSError):
            descriptor = os.memfd_create("opsd-made", os.MFD_CLOEXEC)
            try:
                os.ftruncate(descriptor, _AREAS * _BATCH_BYTES)
                self._memory = mmap.mmap(descriptor, 0)
                self._view = memoryview(self._memory)
                self._process = Scout(descriptor, self._root, script=maker.__file__)
            finally:
                os.close(descriptor)
        return self._process is not None and self._process.lives

    def _batch(self, size: int) -> _Batch:
        """One that has room for so many bytes more."""
        if self._filling and self._filling.end + size > self._filling.limit:
            self._send()
        if self._filling is None:
            while not self._free:
                self._settle_oldest()
            start = self._free.pop()
            self._filling = _Batch(start, start + _BATCH_BYTES)
        return self._filling

    def _send(self) -> None:
        batch, self._filling = self._filling, None
        if batch and self._process:
            self._process.ask(batch.question)
            self._out.append(batch)

    def _settle_oldest(self) -> None:
        """Hear what became of the oldest batch, and make what it did not."""
        batch = self._out.popleft()
        failed: Any = self._process.answer() if self._process else None
        if failed is None:
            _unmake(batch)
            failed = range(len(batch.files))
        missing = frozenset(failed)
        for number, (frame, placed, entry, start) in enumerate(batch.files):
            if number in missing:
                self._failed += 1
                content = self._view[start : start + entry.size]
                self._entries.file(frame, placed, entry, Standing.ABSENT, iter([(0, content)] if content else ()))
            else:
                self._entries.count(entry)
            frame.waiting -= 1
        self._free.append(batch.limit - _BATCH_BYTES)


def _is_plain(entry: Entry) -> bool:
    """Whether a file has nothing but content, owner, mode and time."""
    if entry.size > _LARGEST or entry.mode & _SPECIAL_BITS or entry.name in (marker.NAME, marker.PART):
        return False
    return not entry.xattrs and entry.link is None and entry.extents is None and entry.pages is None


def _gather(room: memoryview, entry: Entry, pieces: Pieces) -> int:
    """Put a file's pieces together; returns how many bytes they are."""
    gathered = 0
    for offset, piece in pieces:
        length = len(piece)
        if offset < 0 or offset + length > entry.size:
            raise IntegrityError("its content reaches past its end", hint="run 'opsd check --read-data'")
        room[offset : offset + length] = piece
        gathered += length
    if gathered != entry.size:
        raise IntegrityError("a part of its content is missing", hint="run 'opsd check --read-data'")
    return gathered


def _unmake(batch: _Batch) -> None:
    """Remove what a maker that is no more left of a batch: new files of these very names."""
    for frame in {id(each.frame): each.frame for each in batch.files}.values():
        with suppress(OSError):
            present = set(map(os.fsencode, os.listdir(frame.descriptor)))
            for each in batch.files:
                if each.frame is frame and each.entry.name in present:
                    os.unlink(each.entry.name, dir_fd=frame.descriptor)
