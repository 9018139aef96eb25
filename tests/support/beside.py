"""A store beside which something else happens at a chosen moment: what interleaves two programs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from opsd.storage.protocol import Capabilities, ObjectInfo, Store


@dataclass(slots=True)
class Beside:
    """A store beside which something happens once, before its `at`-th operation."""

    store: Store
    at: int
    act: Callable[[], object]
    happened: bool = False

    def _step(self) -> None:
        self.at -= 1
        if self.at < 0 and not self.happened:
            self.happened = True
            self.act()

    @property
    def capabilities(self) -> Capabilities:
        return self.store.capabilities

    def put(self, name: str, content: bytes | memoryview | Path, *, replace: bool = False) -> None:
        self._step()
        self.store.put(name, content, replace=replace)

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self._step()
        return self.store.read(name, offset, length)

    def read_into(self, name: str, offset: int, buffer: memoryview) -> int:
        self._step()
        return self.store.read_into(name, offset, buffer)

    def stat(self, name: str) -> ObjectInfo:
        self._step()
        return self.store.stat(name)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self._step()
        return self.store.list(prefix)

    def delete(self, name: str) -> None:
        self._step()
        self.store.delete(name)
