"""What a store is: whole objects under names, read in ranges, listed by prefix, deleted, never changed.

Promise: every store passes `tests/contracts/test_store.py`. When `put` returns, the object is durable and whole under
its name; when it raises, the name holds either nothing new or the whole object.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from opsd.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """An object as the store lists it. `size` in bytes, `modified` in ns UTC by the store's clock."""

    name: str
    size: int
    modified: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a store really does; for what it lacks, opsd makes up or says so.

    `spool`: a folder where a file given to `put` is moved rather than copied, or None. `conditional_put`: it never stores over
    what is there. `durable`: what it has taken survives a power cut. `checked_put`: it refuses bytes that were altered on
    their way. `lists_at_once`: a listing shows what was put just before.
    """

    spool: Path | None = None
    conditional_put: bool = True
    durable: bool = True
    checked_put: bool = True
    lists_at_once: bool = True

    @property
    def lacks(self) -> tuple[str, ...]:
        """What it lacks, and what that means, a sentence each."""
        told = {
            "it can't sync files: after a power cut there, the newest objects may be missing": self.durable,
            "it stores over what is there: opsd looks before each put": self.conditional_put,
            "it checks no checksum: opsd reads back what it put": self.checked_put,
            "a listing does not show at once what was put: opsd prunes nothing there": self.lists_at_once,
        }
        return tuple(text for text, has in told.items() if not has)


class Store(Protocol):
    """Six methods. Names are relative with `/`, of letters, digits, `.`, `-`, `_`; never empty parts, `.` or `..`.

    All raise StorageError and its kinds; a name that breaks the rule is a ValueError (a bug of the caller).
    """

    @property
    def capabilities(self) -> Capabilities:
        """What this store really does."""
        ...

    def put(self, name: str, content: bytes | memoryview | Path, *, replace: bool = False) -> None:
        """Store an object durably; a Path is a file whose whole content is meant, and which may be consumed.

        If the name exists: equal length is taken as equal content (names carry the hash) and nothing is written;
        another length raises StorageError. With `replace` (repair only) the bytes are always written anew.
        """
        ...

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """The bytes from `offset`, `length` of them or all the rest; shorter only where the object ends.

        Raises:
            ObjectNotFound: no such object.
        """
        ...

    def read_into(self, name: str, offset: int, buffer: memoryview) -> int:
        """Fill the buffer from `offset`; returns how many bytes, fewer only where the object ends."""
        ...

    def stat(self, name: str) -> ObjectInfo:
        """Size and time.

        Raises:
            ObjectNotFound: no such object.
        """
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose name starts with the prefix (`packs/` or ``), in any order; temporary files never show.

        A store whose root has vanished raises StorageError: an empty listing is never "nothing there".
        """
        ...

    def delete(self, name: str) -> None:
        """Remove durably; a name that is not there is no error."""
        ...


@runtime_checkable
class Bucket(Protocol):
    """What a store in a bucket does beside: it vouches for its bytes by sums of its own, and locks objects."""

    def checksum(self, name: str) -> bytes | None:
        """The SHA-256 that the store has of an object, without reading it; None if it has none.

        Raises:
            ObjectNotFound: no such object.
        """
        ...

    def locked_until(self, name: str) -> int | None:
        """When an object's lock ends, in ns UTC; None if it has none. ObjectNotFound: no such object."""
        ...

    def retain(self, name: str, until: int) -> None:
        """Lock an object until then, in ns UTC, or for longer if it was to be already."""
        ...
