"""Reading a snapshot: its trees, their folders, and the content of entries in order, decoded ahead.

Promise: what is yielded was verified; memory is bounded by the frames in flight, not by the size of a file or a listing.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple, TypeVar

from opsd.errors import IntegrityError, KeyMissing, SnapshotUnknown
from opsd.model import Content, Entry, Folder, SnapshotSummary, SourceTree
from opsd.repository.allocation import keep_freed_memory, share_one_heap
from opsd.repository.blobs import BlobReader, Frame
from opsd.repository.catalog import Catalog, Place
from opsd.repository.domains import Closed
from opsd.repository.keys import DEFAULT_DOMAIN
from opsd.repository.listing import decode_hunk, decode_root, hunks_for
from opsd.repository.manifest import Manifest, ReaderPart, open_section
from opsd.repository.pagemap import decode_page_hunk
from opsd.repository.references import REFERENCE_BYTES, Reference, decode_reference
from opsd.repository.seal import keyed_hash

#: Frames that may be scheduled ahead of the one being written, and stretches queued.
_FRAMES_AHEAD: Final = 8
_STRETCHES_AHEAD: Final = 4096
_ZEROS: Final = bytes(1024 * 1024)
_THREADS: Final = max(2, min(8, os.cpu_count() or 2))

Key = TypeVar("Key")


class Extent(NamedTuple):
    """Where a blob's bytes belong in a file: from `start` of the blob, `length` bytes, at `offset` of the file."""

    offset: int
    start: int
    length: int


Piece = tuple[Reference, tuple[Extent, ...]]


class Stretch(NamedTuple):
    """The next part of an entry's content, as far as it stands in one frame; `begins`: the entry's first. No frame, no pieces.

    `error`: what comes after these pieces can't be had.
    """

    begins: bool
    frame: "Future[Frame] | None"
    pieces: list[Piece]
    error: IntegrityError | None = None


class SnapshotReader:
    """A snapshot as its readers see it. Contents may be read while folders are iterated."""

    def __init__(self, place: Place, catalog: Catalog, manifest: Manifest) -> None:
        self._place = place
        self.blobs = BlobReader(place, catalog)
        self.manifest = manifest
        self._part: ReaderPart | None = None
        self._unopened: frozenset[int] = frozenset()

    @property
    def summary(self) -> SnapshotSummary:
        """What every list shows of it."""
        return self.manifest.summary

    def part(self) -> ReaderPart:
        """All sections that this ring can open, together.

        Raises:
            KeyMissing: it can open none.
        """
        if self._part is None:
            name, sections = self.summary.name, self.manifest.sections
            parts = [open_section(self._place.ring, name, section) for section in sections]
            opened = [part for part in parts if part is not None]
            pairs = zip(sections, parts, strict=True)
            self._unopened = frozenset(section.session.domain for section, part in pairs if part is None)
            if not opened and parts:
                raise KeyMissing(
                    f"the content of snapshot {self.summary.id[:8]} can't be read with the keys on this machine",
                    hint="give the passphrase (passphrase: in the configuration, OPSD_PASSPHRASE_FILE) or the recovery kit (--kit)",
                )
            about = {key: value for part in opened for key, value in part.about.items()}
            self._part = ReaderPart(trees=tuple(tree for part in opened for tree in part.trees), about=about)
        return self._part

    def trees(self) -> tuple[SourceTree, ...]:
        """The sources in it, in the order of the configuration."""
        return self.part().trees

    def closed(self) -> dict[str, Closed]:
        """The sources in it, by label, whose key domains the keys at hand do not open; `trees` lacks them."""
        self.part()
        domains = self._place.closed.keys() & self._unopened
        return {each.label: self._place.closed[each.domain] for each in self.summary.sources if each.domain in domains}

    def tree(self, label: str) -> SourceTree:
        """One source.

        Raises:
            SnapshotUnknown: it is not in this snapshot. KeyMissing: its key domain is closed.
        """
        for tree in self.trees():
            if tree.label == label:
                return tree
        if closed := self.closed().get(label):
            raise closed.error(f"source {label}")
        raise SnapshotUnknown(
            f"snapshot {self.summary.id[:8]} has no source {label}",
            hint="it has " + (", ".join(tree.label for tree in self.trees()) or "none"),
        )

    def _domain(self, label: str) -> int:
        return next((each.domain for each in self.summary.sources if each.label == label), DEFAULT_DOMAIN)

    def domain(self, label: str) -> str:
        """The label of a source's key domain."""
        number = self._domain(label)
        return next(each.label for each in self._place.settings.domains if each.number == number)

    def folders(self, tree: SourceTree, under: bytes = b"/") -> Iterator[Folder]:
        """The folders of a source in order of their paths' parts; with `under`, those on the way to it, it, and those below.

        Raises:
            IntegrityError: a part of the listing can't be had.
        """
        for hunk in hunks_for(decode_root(self.blobs.whole(tree.listing)), under):
            yield from decode_hunk(self.blobs.whole(hunk.content))

    def _blob_key(self, tree: SourceTree) -> bytes:
        return self._place.ring.blob_key(self._domain(tree.label))

    def _zero_pages_match(self, entry: Entry, descriptor: int) -> bool:
        offset = 0
        for reference in self.blobs.references(entry.pages or b""):
            hunk = decode_page_hunk(bytes(self.blobs.blob(reference)))
            for page in hunk.pages():
                length = min(hunk.page_bytes, entry.size - offset)
                if page.birth is None and not _is_zero(descriptor, offset, length):
                    return False
                offset += hunk.page_bytes
        return True

    def contents(self, entries: Iterable[tuple[Key, Entry]]) -> Iterator[tuple[Key, Iterator[tuple[int, memoryview]]]]:
        """Each entry's content as (offset in the file, verified bytes), in the given order.

        Holes and pages of zero bytes are not yielded. An inner iterator must be consumed, or given up, before the next
        entry is asked for; it raises IntegrityError where a blob can't be had.
        """
        keys: deque[Key] = deque()

        def numbered() -> Iterator[Entry]:
            for key, entry in entries:
                keys.append(key)
                yield entry

        share_one_heap()
        keep_freed_memory()
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="opsd-read") as pool:
            window = _Window(self.blobs, pool, numbered())
            while window.next_entry():
                yield keys.popleft(), window.pieces()

    def same(self, tree: SourceTree, entry: Entry, descriptor: int) -> bool:
        """Whether an open file holds exactly the content of an entry; its size was compared before."""
        if entry.pages is not None and not self._zero_pages_match(entry, descriptor):
            return False
        key = self._blob_key(tree)
        for reference, extents in _pieces(self.blobs, entry):
            content = b"".join(os.pread(descriptor, extent.length, extent.offset) for extent in extents)
            if keyed_hash(key, content)[: len(reference.id)] != reference.id:
                return False
        return _holes_are_zero(entry, descriptor)


def _holes_are_zero(entry: Entry, descriptor: int) -> bool:
    """Whether what the extents leave out reads as zero bytes."""
    if entry.extents is None:
        return True
    place = 0
    for offset, length in (*entry.extents, (entry.size, 0)):
        if not _is_zero(descriptor, place, offset - place):
            return False
        place = offset + length
    return True


def _is_zero(descriptor: int, offset: int, length: int) -> bool:
    while length > 0:
        content = os.pread(descriptor, min(length, len(_ZEROS)), offset)
        if not content or content != _ZEROS[: len(content)]:
            return False
        offset += len(content)
        length -= len(content)
    return True


def _pieces(blobs: BlobReader, entry: Entry) -> Iterator[Piece]:
    """An entry's references, and where each one's bytes belong."""
    if entry.pages is not None:
        yield from _page_pieces(blobs, entry.pages, entry.size)
        return
    if entry.content is None:
        return
    if len(entry.content) == REFERENCE_BYTES and isinstance(entry.content, bytes) and entry.extents is None:
        reference = decode_reference(entry.content)
        if reference.length == entry.size:  # As most files are: one blob.
            yield reference, (Extent(0, 0, entry.size),)
            return
    extents = entry.extents if entry.extents is not None else ((0, entry.size),)
    remaining = deque(extents)
    for reference in blobs.references(entry.content):
        yield reference, _spread(reference.length, remaining)


def _spread(length: int, remaining: deque[tuple[int, int]]) -> tuple[Extent, ...]:
    """Take `length` bytes off the remaining extents."""
    found = []
    start = 0
    while start < length and remaining:
        offset, room = remaining.popleft()
        step = min(room, length - start)
        found.append(Extent(offset, start, step))
        start += step
        if step < room:
            remaining.appendleft((offset + step, room - step))
    if start < length:
        raise IntegrityError("an entry's content is longer than the entry", hint="run 'opsd check --read-data'")
    return tuple(found)


def _page_pieces(blobs: BlobReader, pages: Content, size: int) -> Iterator[Piece]:
    offset = 0
    for hunk_reference in blobs.references(pages):
        hunk = decode_page_hunk(bytes(blobs.blob(hunk_reference)))
        found = []
        for page in hunk.pages():
            length = min(hunk.page_bytes, size - offset)
            if page.birth is not None:
                reference = Reference(page.prefix, length, page.birth, page.number)
                found.append((reference, (Extent(offset, 0, length),)))
            offset += hunk.page_bytes
        # In the order of their frames: the pages of one day stand together, those of one hunk come from many days.
        yield from sorted(found, key=lambda each: (each[0].birth, each[0].number))


class _Window:
    """Stretches scheduled ahead of the one that is being consumed."""

    def __init__(self, blobs: BlobReader, pool: ThreadPoolExecutor, entries: Iterator[Entry]) -> None:
        self._blobs = blobs
        self._pool = pool
        self._queue: deque[Stretch] = deque()
        self._frames: deque[Future[Frame]] = deque()
        self._source = self._stretches(entries)
        self._ended = False
        self._current = Stretch(True, None, [])
        self._last: Future[Frame] | None = None
        self._held: Frame | Future[Frame]

    def _stretches(self, entries: Iterator[Entry]) -> Iterator[Stretch]:
        address: tuple[bytes, int] | None = None
        last: Future[Frame] | None = None
        for entry in entries:
            begins, error = True, None
            pieces: list[Piece] = []
            try:
                for piece in _pieces(self._blobs, entry):
                    if piece[0].frame != address:
                        if pieces:
                            yield Stretch(begins, last, pieces)
                            begins, pieces = False, []
                        address = piece[0].frame
                        last = self._blobs.schedule(self._pool, *address)
                    pieces.append(piece)
            except IntegrityError as failure:
                error = failure
            yield Stretch(begins, last if pieces else None, pieces, error)

    def _fill(self) -> None:
        queue, frames = self._queue, self._frames
        while not self._ended and len(frames) < _FRAMES_AHEAD and len(queue) < _STRETCHES_AHEAD:
            stretch = next(self._source, None)
            if stretch is None:
                self._ended = True
                return
            queue.append(stretch)
            if stretch.frame is not None and (not frames or frames[-1] is not stretch.frame):
                frames.append(stretch.frame)

    def _take(self) -> Stretch | None:
        if not self._queue:
            self._fill()
        if not self._queue:
            return None
        stretch = self._queue.popleft()
        if stretch.frame is not None:
            while self._frames and self._frames[0] is not stretch.frame:
                self._frames.popleft()
        self._fill()
        return stretch

    def next_entry(self) -> bool:
        """Move to the next entry, passing over what is left of this one."""
        while stretch := self._take():
            if stretch.begins:
                self._current = stretch
                return True
        return False

    def pieces(self) -> Iterator[tuple[int, memoryview]]:
        """Bytes of the entry that is being read."""
        stretch: Stretch | None = self._current
        while stretch is not None:
            if stretch.frame is not None:
                frame = self._awaited(stretch.frame)
                for reference, extents in stretch.pieces:
                    content = self._blobs.pick(reference, frame)
                    for offset, start, length in extents:
                        yield offset, content if length == len(content) else content[start : start + length]
            if stretch.error is not None:
                raise stretch.error
            stretch = self._continuation()

    def _awaited(self, coming: Future[Frame]) -> Frame | Future[Frame]:
        """The frame, waited for once; one that can't be had stays what it was, and says why when it is asked."""
        if coming is not self._last:
            self._last = coming
            self._held = coming if coming.exception() else coming.result()
        return self._held

    def _continuation(self) -> Stretch | None:
        """The next stretch, if it is of the same entry."""
        if not self._queue:
            self._fill()
        return self._take() if self._queue and not self._queue[0].begins else None
