"""The two shapes that sources come in: trees of files, and streams.

Promise: a source yields, it stores nothing, and whatever it could not give is a Warning it reports or a SourceError.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from opsd.values import dataclass

#: A name in a folder and its lstat.
Found = tuple[bytes, os.stat_result]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFolder:
    """A folder on disk with what was found in it, entries in order of name.

    Folders come in the order of their paths' parts. `path` is the path as recorded; `real` where to read it now
    (they differ under a file-system snapshot). `complete` is False where it lists only the way to something: the parents of a
    root, an excluded folder with something included in it, a mount point or opsd's own folder that is not entered. A very large folder
    comes in several of the same path, one after the other, with `part` counting from 0, before what is in it.
    """

    path: bytes
    real: bytes
    entries: list[Found]
    complete: bool = True
    part: int = 0


class Readable(Protocol):
    """What content is read from."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill some of the buffer; 0 at the end."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A file that a source makes while it is read: a dump, an image, a program's output.

    `path` is absolute bytes (`/crm.dump`); `size` in bytes where known beforehand. Leaving the context of `open()`
    raises SourceError when what was read is not whole, StreamGone when it vanished after it was listed. `pages`: store by
    page map in blocks of that many bytes (0: no).
    Streams of one source may be read at the same time by as many threads as the source's `parallel` says.
    """

    path: bytes
    open: Callable[[], AbstractContextManager[Readable]]
    size: int | None = None
    mode: int = 0o600
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    pages: int = 0


class StreamSource(Protocol):
    """A source of streams: a database server, a program."""

    label: str
    kind: str
    parallel: int

    def streams(self) -> AbstractContextManager[Iterator[Stream]]:
        """Everything that this source holds, open for the time of the context.

        Raises:
            SourceError: nothing, or not all, can be had.
        """
        ...

    def facts(self) -> Mapping[str, Any]:
        """What a drill compares, after the streams were read; only msgpack values. May be empty."""
        ...

    @property
    def warnings(self) -> int:
        """How many Warnings were reported so far."""
        ...
