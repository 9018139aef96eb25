"""Reading ahead on slow disks: what will be asked for next is brought into the page cache by threads.

Promise: only the kernel's caches are touched, so nothing depends on it; nothing is done until reading turned out to be slow, so a tree
that is cached costs nothing more. Errors here are nobody's: whoever reads for real meets them again.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from opsd.sources.opening import open_file

_THREADS: Final = 8
#: An entry examined, and a small file read, in more seconds than this came from a disk. Cached ones take a tenth.
_SLOW_ENTRY: Final = 0.000_1
_SLOW_FILE: Final = 0.001
#: So many slow ones, and it is no accident.
_ENOUGH: Final = 3
#: What may be on its way at once.
_FILES_AHEAD: Final = 256
_BYTES_AHEAD: Final = 64 * 1024 * 1024
_FOLDERS_AHEAD: Final = 16

Path = bytes


class ReadAhead:
    """Looks ahead for one source. Used by one thread; `close` when done."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._slow_folders = 0
        self._slow_files = 0
        self._warmed: set[Path] = set()
        self._expected: deque[tuple[Path, int]] = deque()
        self._ahead: deque[tuple[Path, int]] = deque()
        self._awaited: set[Path] = set()
        self._bytes = 0

    def close(self) -> None:
        """End the threads."""
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, work: Callable[[Path, int], None], path: Path, size: int = 0) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="opsd-ahead")
        self._pool.submit(work, path, size)

    # Folders

    def examined(self, seconds: float, entries: int) -> None:
        """So long it took to examine a folder's entries."""
        self._slow_folders += seconds > _SLOW_ENTRY * max(entries, 10)

    def folders(self, paths: Iterable[Path]) -> None:
        """These folders will be listed soon, in this order."""
        if self._slow_folders < _ENOUGH:
            return
        for path, _ in zip(paths, range(_FOLDERS_AHEAD), strict=False):
            if path not in self._warmed:
                self._warmed.add(path)
                self._submit(_warm_folder, path)

    # Files

    @property
    def looks_at_files(self) -> bool:
        """Whether it is worth to say which files will be read."""
        return self._slow_files >= _ENOUGH

    def read(self, path: Path, seconds: float, *, small: bool) -> None:
        """A file was read, in so long."""
        self._slow_files += small and seconds > _SLOW_FILE
        if path in self._awaited:
            passed = b""
            while passed != path:
                passed, size = self._ahead.popleft()
                self._awaited.discard(passed)
                self._bytes -= size
            self._pump()

    def expect(self, files: Iterable[tuple[Path, int]]) -> None:
        """These files, with their sizes in bytes, will be read soon, in this order."""
        self._expected.extend(files)
        self._pump()

    def _pump(self) -> None:
        while self._expected and len(self._ahead) < _FILES_AHEAD and (self._bytes < _BYTES_AHEAD or not self._ahead):
            path, size = self._expected.popleft()
            size = min(size, _BYTES_AHEAD)
            self._ahead.append((path, size))
            self._awaited.add(path)
            self._bytes += size
            self._submit(_warm_file, path, size)


def _warm_folder(path: Path, _size: int) -> None:
    with suppress(OSError), os.scandir(path) as entries:
        for entry in entries:
            with suppress(OSError):
                entry.stat(follow_symlinks=False)


def _warm_file(path: Path, size: int) -> None:
    with suppress(OSError):
        descriptor = open_file(path)
        try:
            os.posix_fadvise(descriptor, 0, size, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(descriptor)
