"""Try again what may pass, never what can't.

Promise: only StoreUnavailable is tried again, at most so many times, with waits that double; the last error is raised
as it came. What an answer that never came did is settled by the next try, since an object can only replace itself.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from opsd.errors import StoreUnavailable
from opsd.storage.protocol import Bucket, Capabilities, ObjectInfo, Store
from opsd.values import dataclass

Result = TypeVar("Result")

LONGEST_WAIT = 60.0


class RetryingStore:
    """Another store, tried up to `attempts` times; `first_wait` in seconds."""

    def __init__(
        self, store: Store, attempts: int = 5, *, first_wait: float = 1.0, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        if attempts < 1:
            raise ValueError("at least one attempt is needed")
        self._store = store
        self._attempts = attempts
        self._first_wait = first_wait
        self._sleep = sleep

    def _try(self, operation: Callable[[], Result]) -> Result:
        for attempt in range(self._attempts - 1):
            try:
                return operation()
            except StoreUnavailable:
                self._sleep(min(self._first_wait * 2**attempt, LONGEST_WAIT))
        return operation()

    @property
    def connections(self) -> int:
        """Those of the store itself; one where it is on this machine."""
        return getattr(self._store, "connections", 1)

    @property
    def capabilities(self) -> Capabilities:
        """Those of the store itself."""
        return self._store.capabilities

    def put(self, name: str, content: bytes | memoryview | Path, *, replace: bool = False) -> None:
        """Store an object."""
        self._try(lambda: self._store.put(name, content, replace=replace))

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of an object."""
        return self._try(lambda: self._store.read(name, offset, length))

    def read_into(self, name: str, offset: int, buffer: memoryview) -> int:
        """Fill the buffer."""
        return self._try(lambda: self._store.read_into(name, offset, buffer))

    def stat(self, name: str) -> ObjectInfo:
        """Size and time of an object."""
        return self._try(lambda: self._store.stat(name))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects; collected first, so that a listing cut half-way shows nothing twice."""
        return iter(self._try(lambda: [*self._store.list(prefix)]))

    def delete(self, name: str) -> None:
        """Remove an object."""
        self._try(lambda: self._store.delete(name))

    @property
    def bucket(self) -> Bucket | None:
        """What the store does beside, tried as often; None if it is no bucket."""
        return _RetryingBucket(self._store, self._try) if isinstance(self._store, Bucket) else None


@dataclass(frozen=True, slots=True)
class _RetryingBucket:
    bucket: Bucket
    attempt: Callable[[Callable[[], Any]], Any]

    def checksum(self, name: str) -> bytes | None:
        """The SHA-256 that the store has of an object."""
        found: bytes | None = self.attempt(lambda: self.bucket.checksum(name))
        return found

    def locked_until(self, name: str) -> int | None:
        """When an object's lock ends."""
        found: int | None = self.attempt(lambda: self.bucket.locked_until(name))
        return found

    def retain(self, name: str, until: int) -> None:
        """Lock an object."""
        self.attempt(lambda: self.bucket.retain(name, until))


def bucket_of(store: Store) -> Bucket | None:
    """What a store does beside, if it is a bucket."""
    return store.bucket if isinstance(store, RetryingStore) else store if isinstance(store, Bucket) else None
