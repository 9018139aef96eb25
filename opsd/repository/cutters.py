"""Cutting content into blobs, and storing it: by FastCDC, as one small blob, or by page map.

Promise: the same content gives the same references whatever the sizes of the reads; buffers are reused. docs/format.md.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress

import pyfastcdc
from pyfastcdc.cy import FastCDC

from opsd.errors import IntegrityError
from opsd.model import Content
from opsd.repository.blobs import BlobReader
from opsd.repository.keys import INDEX_DOMAIN
from opsd.repository.pagemap import HUNK_PAGES, PageHunk, PagePlace, decode_page_hunk, encode_page_hunk
from opsd.repository.references import FrameSet
from opsd.repository.seal import keyed_hash
from opsd.repository.settings import Parameters
from opsd.repository.writer import BlobWriter, DomainWriter
from opsd.values import dataclass

if pyfastcdc.FastCDC is not FastCDC:
    raise ImportError("pyfastcdc came without its compiled part; it would be a hundred times slower")

ReadInto = Callable[[memoryview], int]
#: The buffer, in times of the largest blob: what is left of it after cutting is moved to its front.
_BUFFER_CUTS = 2


class BeginsWith(Exception):
    """The content begins with the bytes that the caller refused."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Content that was stored, and its length in bytes."""

    content: Content
    size: int


class ContentWriter:
    """Stores content of one key domain from one thread; keeps the frames it refers to in `frames`."""

    def __init__(self, blobs: BlobWriter, domain: DomainWriter, parameters: Parameters, frames: FrameSet) -> None:
        self._blobs = blobs
        self._domain = domain
        self._limit = parameters.cut_max
        self._buffer = memoryview(bytearray(_BUFFER_CUTS * parameters.cut_max))
        self._cutter = FastCDC(
            parameters.cut_average, min_size=parameters.cut_min, max_size=parameters.cut_max, seed=parameters.cut_seed
        )
        self._small = parameters.cut_min
        self.frames = frames

    def file(self, read: ReadInto, size: int, advance: Callable[[int], None], refused: bytes = b"") -> Stored:
        """Store a file of `size` bytes; a small one is not read past that (the caller notices growth by its stat).

        Raises:
            BeginsWith: its first bytes are the refused ones.
        """
        small = 0 < size <= self._small
        filled = _fill(read, self._buffer[: size if small else len(self._buffer)], 0)
        if refused and self._buffer[: len(refused)] == refused and filled >= len(refused):
            raise BeginsWith
        if filled <= self._small:
            advance(filled)
            return Stored(self._blob(self._buffer[:filled]) if filled else b"", filled)
        return self._cut(read, filled, advance)

    def whole(self, read: ReadInto, advance: Callable[[int], None]) -> Stored:
        """Store all that `read` gives, up to its end."""
        return self.file(read, 0, advance)

    def _blob(self, content: memoryview) -> bytes:
        reference = self._blobs.add(self._domain, content)
        self.frames.add_references(reference)
        return reference

    def _cut(self, read: ReadInto, filled: int, advance: Callable[[int], None]) -> Stored:
        """Cut the buffer again and again; its first `filled` bytes are read already."""
        buffer, references, total = self._buffer, [], 0
        advance(filled)
        while True:
            ended = filled < len(buffer)
            used = 0
            for chunk in self._cutter.cut_buf(buffer[:filled]) if filled else ():
                if not ended and filled - chunk.offset < self._limit:
                    break
                references.append(self._blob(chunk.data))
                used = chunk.offset + chunk.length
            total += used
            if ended:
                break
            rest = filled - used
            buffer[:rest] = bytes(buffer[used:filled])
            filled = _fill(read, buffer, rest)
            advance(filled - rest)
        content = self._blobs.content(self._domain, b"".join(references), self.frames)
        return Stored(content, total)


def _fill(read: ReadInto, buffer: memoryview, filled: int) -> int:
    """Read until the buffer is full or the content ends."""
    while filled < len(buffer):
        count = read(buffer[filled:])
        if not count:
            break
        filled += count
    return filled


class PageWriter:
    """Stores files by page map, each compared by position with its last map. One thread."""

    def __init__(self, blobs: BlobWriter, domain: DomainWriter, reader: BlobReader, frames: FrameSet) -> None:
        self._blobs = blobs
        self._domain = domain
        self._index = blobs.domains[INDEX_DOMAIN]
        self._reader = reader
        self.frames = frames

    def _old_hunks(self, previous: Content | None) -> Iterator[PageHunk]:
        """The last map's hunks; a map that can't be had costs storing the pages again, nothing else."""
        if previous is None:
            return
        with suppress(IntegrityError):
            for reference in self._reader.references(previous):
                yield decode_page_hunk(bytes(self._reader.blob(reference)))

    def whole(
        self, read: ReadInto, page_bytes: int, previous: Content | None, advance: Callable[[int], None]
    ) -> Stored:
        """Store all that `read` gives; the content is that of the page map."""
        buffer = memoryview(bytearray(HUNK_PAGES * page_bytes))
        old = self._old_hunks(previous)
        references, size = b"", 0
        while True:
            filled = _fill(read, buffer, 0)
            if filled:
                pages = self._pages(buffer[:filled], page_bytes, next(old, None))
                references += self._blobs.add(self._index, memoryview(encode_page_hunk(page_bytes, pages)))
                size += filled
                advance(filled)
            if filled < len(buffer):
                break
        content = self._blobs.content(self._index, references, self.frames)
        self.frames.add_references(references)
        return Stored(content, size)

    def _pages(self, content: memoryview, page_bytes: int, old: PageHunk | None) -> list[PagePlace]:
        known = old.pages() if old and old.page_bytes == page_bytes else []
        zeros = bytes(page_bytes)
        pages = []
        for place, start in enumerate(range(0, len(content), page_bytes)):
            page = content[start : start + page_bytes]
            if not page[0] and not page[-1] and bytes(page) == zeros[: len(page)]:
                pages.append(PagePlace(bytes(16), None, 0))
                continue
            identity = keyed_hash(self._domain.blob_key, page)
            found = known[place] if place < len(known) else None
            if found is None or found.birth is None or found.prefix != identity[:16]:
                address = self._blobs.add_page(self._domain, identity, page)
                found = PagePlace(identity[:16], address[:16], int.from_bytes(address[16:], "little"))
            self.frames.add(found.birth or b"", found.number >> 16)
            pages.append(found)
        return pages
