"""Small files are read ahead by scouts, in the order in which they will be asked for; of large ones the beginning is.

Promise: what `take` gives was read from the very file that was found, whole and unchanged since. Whatever is not like that is
not given: the caller reads it for himself, and meets the error, if there is one. Memory is bounded: buffers are used again.
"""

import mmap
import os
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import field
from typing import Any, Final, NamedTuple

from opsd.sources.metadata import Extra
from opsd.sources.scout import WARM_BYTES, Attributes, Wanted
from opsd.sources.scouts import Scout
from opsd.values import dataclass

#: So many processes; the second and later ones only where files are waiting.
_SCOUTS: Final = 3
#: A backup of fewer files is over before a process has started.
_WORTH: Final = 64
#: What one question is about: this many bytes, files, or bytes of paths, so that it fits into a pipe.
_BATCH_BYTES: Final = 1024 * 1024
_BATCH_FILES: Final = 64
_BATCH_PATHS: Final = 12_000
#: Buffers, so also questions that are out at once.
_AREAS: Final = 8

Path = bytes


class Fetched(NamedTuple):
    """A small file's content, valid until a later file is taken, and what an lstat doesn't tell."""

    content: memoryview
    extra: Extra | None


@dataclass(slots=True, eq=False)
class _Batch:
    """Files that one scout reads, one after the other, into one area."""

    files: list[Wanted] = field(default_factory=list)
    bytes: int = 0
    paths: int = 0
    warmed: int = 0
    area: int = -1
    scout: Scout | None = None
    answers: list[Attributes | None] | None = None

    @property
    def is_full(self) -> bool:
        return len(self.files) >= _BATCH_FILES or self.warmed >= WARM_BYTES or self.paths >= _BATCH_PATHS


class _Place(NamedTuple):
    """Where a file is: the batch, its number in it, and where its bytes begin in the area; -1 for one that was only warmed."""

    batch: _Batch
    number: int
    offset: int


class Fetcher:
    """Reads ahead for one source. Used by one thread; `close` when done. `small`: no longer files are fetched, in bytes."""

    def __init__(self, small: int) -> None:
        self._small = min(small, _BATCH_BYTES)
        self._scouts: list[Scout] = []
        self._memory: mmap.mmap | None = None
        self._view = memoryview(b"")
        self._descriptor = -1
        self._free = list(range(_AREAS))
        self._refused = False
        self._expected = 0
        self._waiting: deque[_Batch] = deque()
        self._out: deque[_Batch] = deque()
        self._places: dict[Path, _Place] = {}

    @property
    def has_enough(self) -> bool:
        """Whether more expected files would only wait."""
        return len(self._waiting) >= _AREAS

    def close(self) -> None:
        """End the scouts, and give back the memory."""
        while self._scouts:
            self._scouts.pop().close()
        self._view.release()
        if self._memory:
            os.close(self._descriptor)
            # What was taken last may still be held, by the traceback of what went wrong: it goes with that.
            with suppress(BufferError):
                self._memory.close()
            self._memory = None

    def expect(self, files: Iterable[tuple[Path, os.stat_result]]) -> None:
        """These regular files will be read soon, in this order."""
        if self._refused:
            return
        for path, found in files:
            size = found.st_size
            small = size <= self._small
            batch = self._open_batch(size if small else 0)
            self._places[path] = _Place(batch, len(batch.files), batch.bytes if small else -1)
            if small:
                batch.bytes += size
            else:
                batch.warmed += min(size, WARM_BYTES)
            batch.files.append((path, size, found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns))
            batch.paths += len(path)
            self._expected += 1
        self._pump()

    def take(self, path: Path) -> Fetched | None:
        """The file, if it was expected and could be fetched as it was found."""
        place = self._places.pop(path, None)
        if place is None or not self._scouts:
            return None
        batch = place.batch
        while batch.scout is None or self._out[0] is not batch:
            self._retire()
        attributes = self._answers(batch)[place.number] if place.offset >= 0 else None
        if attributes is None:
            return None
        start = batch.area * _BATCH_BYTES + place.offset
        content = self._view[start : start + batch.files[place.number][1]]
        return Fetched(content, Extra(xattrs=dict(attributes)) if attributes else None)

    def _open_batch(self, size: int) -> _Batch:
        last = self._waiting[-1] if self._waiting else None
        if last is None or last.is_full or last.bytes + size > _BATCH_BYTES:
            last = _Batch()
            self._waiting.append(last)
        return last

    def _pump(self) -> None:
        """Send out what waits, as long as there are areas to read it into."""
        if self._expected < _WORTH or not self._waiting or self._refused:
            return
        if len(self._scouts) < _SCOUTS and (not self._scouts or len(self._waiting) > 1):
            self._start_scout()
        while self._scouts and self._waiting and self._free:
            batch = self._waiting.popleft()
            batch.area = self._free.pop()
            batch.scout = self._scouts[batch.area % len(self._scouts)]
            start = batch.area * _BATCH_BYTES
            batch.scout.ask((start, start + batch.bytes, self._small, batch.files))
            self._out.append(batch)

    def _start_scout(self) -> None:
        if self._memory is None:
            try:
                self._share_memory()
            except OSError:
                self._give_up()
                return
        self._scouts.append(Scout(self._descriptor))

    def _share_memory(self) -> None:
        descriptor = os.memfd_create("opsd-fetched", os.MFD_CLOEXEC)
        try:
            os.ftruncate(descriptor, _AREAS * _BATCH_BYTES)
            self._memory = mmap.mmap(descriptor, 0)
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self._view = memoryview(self._memory)

    def _give_up(self) -> None:
        """There is no memory to share: nothing is read ahead."""
        self._refused = True
        self._waiting.clear()
        self._places.clear()

    def _answers(self, batch: _Batch) -> list[Attributes | None]:
        """The answers of the oldest batch that is out: those of its scout before it were taken when it became that."""
        if batch.answers is None:
            answers: Any = batch.scout.answer() if batch.scout else None
            batch.answers = answers or [None] * len(batch.files)
        return batch.answers

    def _retire(self) -> None:
        """All of the oldest batch was taken, or never will be."""
        batch = self._out[0]
        self._answers(batch)  # From now on its scout reads nothing into the area.
        self._out.popleft()
        self._free.append(batch.area)
        for path, *_ in batch.files:
            self._places.pop(path, None)
        self._pump()
