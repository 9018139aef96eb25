"""A store in memory, on which most tests run.

Promise: behaves as the contract says; times come from the clock that it is given.
"""

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from opsd.clock import Clock
from opsd.errors import ObjectNotFound, StorageError
from opsd.storage.names import checked
from opsd.storage.protocol import Capabilities, ObjectInfo


class MemoryStore:
    """Objects in a dict; `clone` gives a second world to break."""

    def __init__(self, clock: Clock, objects: Mapping[str, tuple[bytes, int]] | None = None) -> None:
        self._clock = clock
        self._objects = dict(objects or {})
        self._lock = threading.Lock()

    @property
    def capabilities(self) -> Capabilities:
        """As good as a disk, for what tests ask."""
        return Capabilities()

    def clone(self) -> "MemoryStore":
        """A store of its own with the same objects and clock."""
        with self._lock:
            return MemoryStore(self._clock, self._objects)

    def put(self, name: str, content: bytes | memoryview | Path, *, replace: bool = False) -> None:
        """Store an object."""
        whole = content.read_bytes() if isinstance(content, Path) else bytes(content)
        with self._lock:
            present = self._objects.get(checked(name))
            if present is None or replace:
                self._objects[name] = (whole, self._clock.now())
            elif len(present[0]) != len(whole):
                raise StorageError(
                    f"{name} is damaged: it has {len(present[0])} bytes, not {len(whole)}",
                    hint="run 'opsd check --repair'",
                )

    def _find(self, name: str) -> tuple[bytes, int]:
        try:
            return self._objects[checked(name)]
        except KeyError:
            raise ObjectNotFound(name) from None

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of an object."""
        content = self._find(name)[0]
        return content[offset:] if length is None else content[offset : offset + length]

    def read_into(self, name: str, offset: int, buffer: memoryview) -> int:
        """Fill the buffer."""
        part = self.read(name, offset, len(buffer))
        buffer[: len(part)] = part
        return len(part)

    def stat(self, name: str) -> ObjectInfo:
        """Size and time of an object."""
        content, modified = self._find(name)
        return ObjectInfo(name=name, size=len(content), modified=modified)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """The objects as they are now."""
        with self._lock:
            found = [(name, value) for name, value in self._objects.items() if name.startswith(prefix)]
        return (ObjectInfo(name=name, size=len(content), modified=modified) for name, (content, modified) in found)

    def delete(self, name: str) -> None:
        """Remove an object."""
        with self._lock:
            self._objects.pop(checked(name), None)
