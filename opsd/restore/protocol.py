"""What a restore needs of a snapshot; the engine's reader gives it.

Promise: the least that suffices, so a restore can be tested on a reader that lives in memory.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from opsd.model import Entry, Folder, SourceTree

Key = TypeVar("Key")

#: Offset in the file, and verified bytes that stay as they are for as long as they are held.
Pieces = Iterator[tuple[int, memoryview]]


class SnapshotReader(Protocol):
    """A snapshot's sources, listings and contents."""

    def trees(self) -> tuple[SourceTree, ...]:
        """The sources in it."""
        ...

    def folders(self, tree: SourceTree, under: bytes = b"/") -> Iterator[Folder]:
        """The listing in order of path parts; `under` narrows: what is neither on the way to it nor below may be left out."""
        ...

    def contents(self, entries: Iterable[tuple[Key, Entry]]) -> Iterator[tuple[Key, Pieces]]:
        """Each entry's content, in the given order, decoded ahead; holes and pages of zero bytes are not yielded.

        An inner iterator must be consumed or given up before the next entry is asked for. It raises IntegrityError, naming the
        blob, where bytes can't be had; the entries after it are not concerned.
        """
        ...

    def same(self, tree: SourceTree, entry: Entry, descriptor: int) -> bool:
        """Whether an open file of the right size holds exactly this content."""
        ...
