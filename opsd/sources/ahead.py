"""Reading ahead on slow disks: folders that will be listed next are looked at by scouts.

Promise: only the kernel's caches are touched, so nothing depends on it; nothing is done until examining turned out to be slow, so a tree
that is cached costs nothing more.
"""

from collections.abc import Iterable, Iterator
from itertools import cycle
from typing import Final

from opsd.sources.scouts import Scout

_SCOUTS: Final = 2
#: An entry examined in more seconds than this came from a disk. A cached one takes a tenth.
_SLOW_ENTRY: Final = 0.000_01
#: So many slow folders, and it is no accident.
_ENOUGH: Final = 3
#: What may be on its way at once.
_FOLDERS_AHEAD: Final = 16
_LONGEST: Final = 2048

Path = bytes


class ReadAhead:
    """Looks ahead for one source. Used by one thread; `close` when done."""

    def __init__(self) -> None:
        self._scouts: list[Scout] = []
        self._turns: Iterator[Scout] = iter(())
        self._slow = 0
        #: What was asked for and not listed since: no more than there are folders that wait.
        self._asked: set[Path] = set()

    def close(self) -> None:
        """End the scouts."""
        while self._scouts:
            self._scouts.pop().close()

    def examined(self, seconds: float, entries: int) -> None:
        """So long it took to examine a folder's entries."""
        self._slow += seconds > _SLOW_ENTRY * max(entries, 10)

    def folders(self, listed: Path, following: Iterable[Path]) -> None:
        """One folder is listed now; the others will be soon, in this order."""
        self._asked.discard(listed)
        if self._slow < _ENOUGH:
            return
        if not self._scouts:
            self._scouts = [Scout() for _ in range(_SCOUTS)]
            self._turns = cycle(self._scouts)
        for path, _ in zip(following, range(_FOLDERS_AHEAD), strict=False):
            if path not in self._asked and len(path) <= _LONGEST:
                self._asked.add(path)
                next(self._turns).mention(path)
