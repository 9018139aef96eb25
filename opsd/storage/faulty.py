"""A store that fails on demand: the proof that a crash at any operation loses nothing.

Promise: once the world has stopped nothing reaches the store any more, neither from a `finally` nor from another thread.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from opsd.errors import StorageError
from opsd.storage.protocol import Capabilities, ObjectInfo, Store
from opsd.values import dataclass


class PowerCut(BaseException):
    """The world has stopped; not an Exception, so that nothing swallows it."""


class Fault(StrEnum):
    """What happens at the chosen operation.

    BEFORE and AFTER: the world stops without, or with, its effect. TORN: it stops with the first `torn_at` bytes stored
    under the name, as a store without atomic writes would leave them. LOST: a put or delete is reported as done and never
    happened (an unsynced write); the world stops at the next operation. ERROR: `error` is raised and the world goes on.
    """

    BEFORE = "before"
    AFTER = "after"
    TORN = "torn"
    LOST = "lost"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """When and how to fail: at the `at`-th operation (from 0) of these kinds, and the `times - 1` after it for ERROR.

    Kinds are put, delete, list and read (stat is a read). TORN and LOST act as BEFORE on operations that write nothing.
    """

    at: int
    how: Fault = Fault.BEFORE
    torn_at: int = 0
    error: StorageError | None = None
    times: int = 1
    kinds: frozenset[str] = frozenset({"put", "delete", "list", "read"})


class FaultyStore:
    """Another store that obeys a Stop; `operations` holds (kind, name) of all that was asked while the world lived."""

    def __init__(self, store: Store, stop: Stop | None = None) -> None:
        self._store = store
        self._stop = stop
        self._lock = threading.Lock()
        self._dead = False
        self._lost = False
        self.operations: list[tuple[str, str]] = []
        self._matching = 0

    @property
    def counts(self) -> Counter[str]:
        """How many operations of each kind."""
        return Counter(kind for kind, _ in self.operations)

    @property
    def has_lost(self) -> bool:
        """Whether a write was lost; if nothing was asked after it, nobody has noticed."""
        return self._lost

    @property
    def capabilities(self) -> Capabilities:
        """Those of the store itself."""
        return self._store.capabilities

    def _begin(self, kind: str, name: str) -> Fault | None:
        """Count an operation and say which fault, that the caller has to carry out, befalls it."""
        with self._lock:
            if self._dead or self._lost:
                self._dead = True
                raise PowerCut(f"the world has stopped before {kind} {name}")
            self.operations.append((kind, name))
            fault = self._fault(kind)
            if fault is Fault.ERROR:
                raise (self._stop and self._stop.error) or StorageError(f"{kind} {name} failed as a test asked")
            if fault is Fault.BEFORE:
                self._die(kind, name)
            self._lost = fault is Fault.LOST
            return fault

    def _fault(self, kind: str) -> Fault | None:
        stop = self._stop
        if stop is None or kind not in stop.kinds:
            return None
        place = self._matching - stop.at
        self._matching += 1
        if not 0 <= place < (stop.times if stop.how is Fault.ERROR else 1):
            return None
        writes = kind == "put" or (kind == "delete" and stop.how is Fault.LOST)
        return Fault.BEFORE if stop.how in {Fault.TORN, Fault.LOST} and not writes else stop.how

    def _die(self, kind: str, name: str) -> None:
        self._dead = True
        raise PowerCut(f"the world stopped at {kind} {name}")

    def _end(self, fault: Fault | None, kind: str, name: str) -> None:
        if fault in {Fault.AFTER, Fault.TORN}:
            with self._lock:
                self._die(kind, name)

    def put(self, name: str, content: bytes | memoryview | Path, *, replace: bool = False) -> None:
        """Store an object, or not."""
        fault = self._begin("put", name)
        if fault is Fault.TORN and self._stop:
            whole = content.read_bytes() if isinstance(content, Path) else bytes(content)
            content = whole[: self._stop.torn_at]
        if fault is not Fault.LOST:
            self._store.put(name, content, replace=replace)
        self._end(fault, "put", name)

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of an object."""
        fault = self._begin("read", name)
        content = self._store.read(name, offset, length)
        self._end(fault, "read", name)
        return content

    def read_into(self, name: str, offset: int, buffer: memoryview) -> int:
        """Fill the buffer."""
        fault = self._begin("read", name)
        length = self._store.read_into(name, offset, buffer)
        self._end(fault, "read", name)
        return length

    def stat(self, name: str) -> ObjectInfo:
        """Size and time of an object."""
        fault = self._begin("read", name)
        info = self._store.stat(name)
        self._end(fault, "read", name)
        return info

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects."""
        fault = self._begin("list", prefix)
        found = self._store.list(prefix)
        self._end(fault, "list", prefix)
        return found

    def delete(self, name: str) -> None:
        """Remove an object, or not."""
        fault = self._begin("delete", name)
        if fault is not Fault.LOST:
            self._store.delete(name)
        self._end(fault, "delete", name)
