"""Reading ahead on slow disks: folders that will be listed next are brought into the kernel's caches by threads.

Promise: only those caches are touched, so nothing depends on it; nothing is done until examining turned out to be slow, so a tree
that is cached costs nothing more. Errors here are nobody's: whoever lists for real meets them again.
"""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

_THREADS: Final = 8
#: An entry examined in more seconds than this came from a disk. A cached one takes a tenth.
_SLOW_ENTRY: Final = 0.000_1
#: So many slow folders, and it is no accident.
_ENOUGH: Final = 3
#: What may be on its way at once.
_FOLDERS_AHEAD: Final = 16

#: Inodes that a file system reads together: 64 make a chunk in XFS, ext4 reads 512 at a time.
_NEIGHBOURS: Final = 64

Path = bytes


class ReadAhead:
    """Looks ahead for one source. Used by one thread; `close` when done."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._slow = 0
        self._warmed: set[Path] = set()

    def close(self) -> None:
        """End the threads."""
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def examined(self, seconds: float, entries: int) -> None:
        """So long it took to examine a folder's entries."""
        self._slow += seconds > _SLOW_ENTRY * max(entries, 10)

    def folders(self, paths: Iterable[Path]) -> None:
        """These folders will be listed soon, in this order."""
        if self._slow < _ENOUGH:
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="opsd-ahead")
        for path, _ in zip(paths, range(_FOLDERS_AHEAD), strict=False):
            if path not in self._warmed:
                self._warmed.add(path)
                self._pool.submit(_warm, path)


def _warm(path: Path) -> None:
    """Read the folder, and of the inodes in it one of each neighbourhood: file systems read the others with it."""
    with suppress(OSError), os.scandir(path) as entries:
        for entry in {entry.inode() // _NEIGHBOURS: entry for entry in entries}.values():
            with suppress(OSError):
                entry.stat(follow_symlinks=False)
