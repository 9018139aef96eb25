"""SQLite databases met in a tree: stored as images by page map, without the files that belong to a running database.

Promise: a live database is never copied plainly; what is stored can be opened without the journal that stood beside it.
"""

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Final

from opsd.backup.reading import FileReader, ReadFile
from opsd.model import Content
from opsd.repository.cutters import PageWriter
from opsd.sources.opening import open_file
from opsd.sources.protocol import Found, FoundFolder, Readable
from opsd.sources.roots import join
from opsd.sources.sqlite import COMPANIONS, PAGE_BYTES, companion_of, is_database
from opsd.values import dataclass

#: Takes a database's image by its path on disk and lstat; None where it is no database in use and may be read plainly.
ImageTaker = Callable[[bytes, os.stat_result], AbstractContextManager[Readable | None]]

_HEADER_BYTES: Final = 16
_JOURNALS: Final = (b"-wal", b"-journal")


class ImageRefused(OSError):
    """There is no image of a database; `strerror` says why, `hint` what to do."""

    def __init__(self, problem: str, hint: str) -> None:
        super().__init__(0, problem)
        self.hint = hint


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Stores images for one source from one thread. `limit`: the repository's largest block in bytes."""

    take: ImageTaker
    pages: PageWriter
    plain: FileReader
    advance: Callable[[int], None]
    limit: int

    def read(self, real: bytes, found: os.stat_result, previous: Content | None) -> ReadFile:
        """Store a database that was met.

        Raises:
            OSError: it can't be read; ImageRefused: as what it is.
        """
        with self.take(real, found) as image:
            if image is None:
                return self.plain.read(real, found, None)
            stored = self.pages.whole(image.readinto, min(PAGE_BYTES, self.limit), previous, self.advance)
        return ReadFile(status=found, size=stored.size, pages=stored.content)


def left_out(folder: FoundFolder, entries: Iterable[Found]) -> frozenset[bytes]:
    """Names that are the journal or shared memory of a database in the folder: the image holds what they mean."""
    beside = {name: base for name, _ in entries if name.endswith(COMPANIONS) and (base := companion_of(name))}
    names = {name for name, _ in folder.entries} if beside else set()
    return frozenset(name for name, base in beside.items() if base in names and _is_database(join(folder.real, base)))


def companions_of(found: Iterable[Found]) -> dict[bytes, tuple[os.stat_result, ...]]:
    """For a file with journals beside it, their lstats: the database changes where its own does not."""
    beside: dict[bytes, tuple[os.stat_result, ...]] = {}
    for name, status in found:
        if name.endswith(_JOURNALS) and (base := companion_of(name)):
            beside[base] = (*beside.get(base, ()), status)
    return beside


def _is_database(path: bytes) -> bool:
    try:
        descriptor = open_file(path)
    except OSError:
        return False
    try:
        return is_database(os.pread(descriptor, _HEADER_BYTES, 0))
    finally:
        os.close(descriptor)
