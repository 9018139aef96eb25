"""Small files are read ahead by threads, in the order in which they will be asked for; large ones are brought into the page cache.

Promise: what `take` gives was read from the very file that was found, whole and unchanged since. Whatever is not like that is
not given: the caller reads it for himself, and meets the error, if there is one. Memory is bounded by buffers that are reused.
"""

import os
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from opsd.repository.seal import keyed_hash
from opsd.sources.metadata import Extra, MetadataReader
from opsd.sources.opening import open_file, unchanged

#: More threads make waiting for a disk shorter; beyond these nothing was gained.
_THREADS: Final = 4
#: What one thread reads at a time: this many bytes or files. Few hand-overs between threads cost less than many.
_BATCH_BYTES: Final = 1024 * 1024
_BATCH_FILES: Final = 64
_BATCHES_AHEAD: Final = 8
#: Of a large file, so much is asked of the disk ahead.
_WARM_BYTES: Final = 16 * 1024 * 1024

Path = bytes


class Fetched(NamedTuple):
    """A small file: its blob's id, its content (valid until a later file is taken), and what an lstat doesn't tell."""

    identity: bytes
    content: memoryview
    extra: Extra | None


@dataclass(slots=True, eq=False)
class _Batch:
    """Files that one thread reads, one after the other, into one buffer."""

    files: list[tuple[Path, os.stat_result]] = field(default_factory=list)
    bytes: int = 0
    warmed: int = 0
    buffer: bytearray | None = None
    result: Future[dict[Path, Fetched]] | None = None

    @property
    def is_full(self) -> bool:
        return len(self.files) >= _BATCH_FILES or self.warmed >= _WARM_BYTES


class Fetcher:
    """Reads ahead for one source. Used by one thread; `close` when done. `small`: no longer files are fetched, in bytes."""

    def __init__(self, metadata: MetadataReader, blob_key: bytes, small: int) -> None:
        self._metadata = metadata
        self._blob_key = blob_key
        self._small = min(small, _BATCH_BYTES)
        self._pool: ThreadPoolExecutor | None = None
        self._buffers = [bytearray(0) for _ in range(_BATCHES_AHEAD)]
        self._waiting: deque[_Batch] = deque()
        self._ahead: deque[_Batch] = deque()
        self._batches: dict[Path, _Batch] = {}

    @property
    def has_enough(self) -> bool:
        """Whether more expected files would only wait."""
        return len(self._waiting) > _BATCHES_AHEAD

    def close(self) -> None:
        """End the threads."""
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def expect(self, files: Iterable[tuple[Path, os.stat_result]]) -> None:
        """These regular files will be read soon, in this order."""
        for path, found in files:
            small = found.st_size <= self._small
            batch = self._open_batch(found.st_size if small else 0)
            batch.files.append((path, found))
            if small:
                batch.bytes += found.st_size
                self._batches[path] = batch
            else:
                batch.warmed += min(found.st_size, _WARM_BYTES)
        self._pump()

    def take(self, path: Path) -> Fetched | None:
        """The file, if it was expected and could be fetched as it was found."""
        batch = self._batches.pop(path, None)
        if batch is None:
            return None
        while batch.result is None or self._ahead[0] is not batch:
            self._retire()
        return batch.result.result().get(path)

    def _open_batch(self, size: int) -> _Batch:
        last = self._waiting[-1] if self._waiting else None
        if last is None or last.is_full or last.bytes + size > _BATCH_BYTES:
            last = _Batch()
            self._waiting.append(last)
        return last

    def _retire(self) -> None:
        """All of the oldest batch was taken, or never will be."""
        batch = self._ahead.popleft()
        assert batch.buffer is not None
        assert batch.result is not None
        batch.result.exception()  # Nobody reads into the buffer any more.
        self._buffers.append(batch.buffer)
        for path, _ in batch.files:
            self._batches.pop(path, None)
        self._pump()

    def _pump(self) -> None:
        while self._waiting and self._buffers:
            batch = self._waiting.popleft()
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="opsd-fetch")
            batch.buffer = self._buffers.pop() or bytearray(_BATCH_BYTES)
            self._ahead.append(batch)
            batch.result = self._pool.submit(self._fetch, batch.files, memoryview(batch.buffer))

    def _fetch(self, files: list[tuple[Path, os.stat_result]], buffer: memoryview) -> dict[Path, Fetched]:
        fetched: dict[Path, Fetched] = {}
        filled = 0
        for path, found in files:
            with suppress(OSError):
                if found.st_size > self._small:
                    _warm(path, found.st_size)
                    continue
                content = buffer[filled : filled + found.st_size]
                extra = self._read(path, found, content)
                filled += len(content)
                fetched[path] = Fetched(keyed_hash(self._blob_key, content), content, extra)
        return fetched

    def _read(self, path: Path, found: os.stat_result, content: memoryview) -> Extra | None:
        descriptor = open_file(path)
        try:
            count = os.readv(descriptor, [content])
            extra = self._metadata.read(descriptor, found)
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if count != len(content) or after.st_dev != found.st_dev or not unchanged(found, after):
            raise OSError("it is not as it was found")
        return extra


def _warm(path: Path, size: int) -> None:
    descriptor = open_file(path)
    try:
        os.posix_fadvise(descriptor, 0, min(size, _WARM_BYTES), os.POSIX_FADV_WILLNEED)
    finally:
        os.close(descriptor)
