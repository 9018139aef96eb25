"""From a file on disk to stored content: regular, sparse, by page map; read again if it changed meanwhile.

Promise: what is stored is what was read from the very file that was found; a file that changes during two readings is recorded
as changed. Nothing is followed.
"""

import os
import stat
from collections.abc import Callable

from opsd.model import Content
from opsd.repository.cutters import BeginsWith, ContentWriter, PageWriter, Stored
from opsd.sources.opening import open_file, same_file, unchanged
from opsd.sources.sparse import data_extents
from opsd.values import dataclass

SQLITE_HEADER = b"SQLite format 3\0"
#: The smallest database is one page of 512 bytes.
SQLITE_LEAST = 512


class Replaced(OSError):
    """The name leads to another file than the one that was found."""


class Database(Exception):
    """The file is an SQLite database: a plain copy would not be whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadFile:
    """A file's content as stored, and what it was when it was read."""

    status: os.stat_result
    size: int
    content: Content | None = None
    pages: Content | None = None
    extents: tuple[tuple[int, int], ...] | None = None
    changed: bool = False


@dataclass(frozen=True, slots=True)
class PageMapped:
    """How a file is stored by page map: block in bytes, and the last map."""

    writer: PageWriter
    page_bytes: int
    previous: Content | None


class FileReader:
    """Reads files of one source from one thread."""

    def __init__(self, writer: ContentWriter, advance: Callable[[int], None], *, look_for_sqlite: bool) -> None:
        self._writer = writer
        self._advance = advance
        self._sqlite = look_for_sqlite

    def read(self, path: bytes, found: os.stat_result, pages: PageMapped | None) -> ReadFile:
        """Store a file's content.

        Raises:
            Replaced: it is another file now. Database: it must be taken as an image. OSError: it can't be read.
        """
        descriptor = open_file(path)
        try:
            status = os.fstat(descriptor)
            # The number of an inode may have passed to a pipe that took the file's place.
            if not same_file(status, found) or not stat.S_ISREG(status.st_mode):
                raise Replaced(f"{path!r} was replaced")
            read = self._once(descriptor, status, pages)
            if unchanged(status, os.fstat(descriptor)):
                return read
            os.lseek(descriptor, 0, os.SEEK_SET)
            status = os.fstat(descriptor)
            read = self._once(descriptor, status, pages)
            still = unchanged(status, os.fstat(descriptor))
        finally:
            os.close(descriptor)
        return read if still else _as_changed(read)

    def _once(self, descriptor: int, status: os.stat_result, pages: PageMapped | None) -> ReadFile:
        if pages:
            stored = pages.writer.whole(
                lambda view: os.readv(descriptor, [view]), pages.page_bytes, pages.previous, self._advance
            )
            return ReadFile(status=status, size=stored.size, pages=stored.content)
        extents = data_extents(descriptor, status)
        if extents is None:
            stored = self._plain(descriptor, status)
            return ReadFile(status=status, size=stored.size, content=stored.content)
        if self._sqlite and os.pread(descriptor, len(SQLITE_HEADER), 0) == SQLITE_HEADER:
            raise Database
        stored = self._writer.whole(_extent_reader(descriptor, extents), self._advance)
        return ReadFile(status=status, size=status.st_size, content=stored.content, extents=tuple(extents))

    def _plain(self, descriptor: int, status: os.stat_result) -> Stored:
        refused = SQLITE_HEADER if self._sqlite and status.st_size >= SQLITE_LEAST else b""
        try:
            return self._writer.file(lambda view: os.readv(descriptor, [view]), status.st_size, self._advance, refused)
        except BeginsWith as error:
            raise Database from error


def _as_changed(read: ReadFile) -> ReadFile:
    return ReadFile(
        status=read.status, size=read.size, content=read.content, pages=read.pages, extents=read.extents, changed=True
    )


def _extent_reader(descriptor: int, extents: list[tuple[int, int]]) -> Callable[[memoryview], int]:
    """Reads what the extents hold, one after the other; bytes that a truncation took are read as zeros."""
    left = list(reversed(extents))

    def read(view: memoryview) -> int:
        if not left:
            return 0
        offset, length = left.pop()
        step = min(length, len(view))
        count = os.preadv(descriptor, [view[:step]], offset)
        if not count:
            view[:step] = bytes(step)
            count = step
        if count < length:
            left.append((offset + count, length - count))
        return count

    return read
