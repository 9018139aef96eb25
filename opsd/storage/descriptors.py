"""A few files kept open, since a restore reads many ranges of one pack.

Promise: at most `limit` files stay open beyond the reads under way; none is closed beneath a reader.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable


class Descriptor:
    """An open file that closes when the last one who holds it lets go: a reader's reference is the lock."""

    __slots__ = ("number",)

    def __init__(self, path: str) -> None:
        self.number = -1
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


class Descriptors:
    """The files read last, by name; the longest unused goes first. Usable from several threads."""

    def __init__(self, locate: Callable[[str], str], limit: int = 64) -> None:
        self._locate = locate
        self._limit = limit
        self._open: OrderedDict[str, Descriptor] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str) -> tuple[Descriptor, os.stat_result]:
        """The file of that name as it is now, and its state; raises what opening it raises."""
        with self._lock:
            kept = self._open.get(name)
            if kept is not None:
                self._open.move_to_end(name)
        if kept is not None:
            state = os.fstat(kept.number)
            # No link left: deleted, or replaced by a repair, perhaps by another process.
            if state.st_nlink:
                return kept, state
            self.forget(name)
        return self._add(name)

    def _add(self, name: str) -> tuple[Descriptor, os.stat_result]:
        fresh = Descriptor(self._locate(name))
        state = os.fstat(fresh.number)
        with self._lock:
            self._open[name] = fresh
            while len(self._open) > self._limit:
                self._open.popitem(last=False)
        return fresh, state

    def forget(self, name: str) -> None:
        """Keep this one open no longer."""
        with self._lock:
            self._open.pop(name, None)

    def close(self) -> None:
        """Keep none open."""
        with self._lock:
            self._open.clear()
