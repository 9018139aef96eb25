"""Writing blobs: deduplicate, gather into frames, seal in threads, fill packs at random, put them, index them.

Promise: a reference that `add` gave is good once `finish` returned: its pack and index are durable. Memory is bounded by the
frames in flight. A failure of any thread is raised by the next call.
"""

import os
import random
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import Final, Self

from opsd.clock import Clock
from opsd.errors import OpsdError, StorageError, StoreFull
from opsd.model import Content
from opsd.repository.allocation import share_one_heap
from opsd.repository.catalog import Catalog, Place
from opsd.repository.frames import BlobPlace, FrameKeys, FrameKind, FrameRow, sealed_frame
from opsd.repository.index import IndexEntry, IndexPart, PackRow, index_table, number_of, rows_and_entries
from opsd.repository.keys import INDEX_DOMAIN, session_info
from opsd.repository.packs import PackSpool, SealedSession, StoredPack, new_birth
from opsd.repository.references import CONTENT_LIMIT, REFERENCE_BYTES, FrameSet, encode_reference
from opsd.repository.seal import keyed_hash
from opsd.storage.protocol import ObjectInfo

_OPEN_PACKS: Final = 2
_SEALERS: Final = max(2, min(8, os.cpu_count() or 2))
_IN_FLIGHT: Final = _SEALERS + 2
#: New entries beyond which an index object is put during the run, so that memory does not grow with it.
_INDEX_EVERY: Final = 100_000
#: A frame holds at most this many blobs, so that a number fits 16 bits.
_BLOBS_LIMIT: Final = 8192

#: Pages are read many at a time, so their frames may be larger by this factor: zstd finds more to save.
_PAGE_FRAMES: Final = 3

#: What is gathered apart, so that a listing is read without the data, and pages by themselves.
DATA: Final = 0
LISTING: Final = 1
PAGES: Final = 2


class _OpenPack:
    """A pack that frames are assigned to; `pending` frames were assigned and not yet appended."""

    def __init__(self, spool: PackSpool) -> None:
        self.spool = spool
        self.lock = Lock()
        self.frames = 0
        self.pending = 0
        self.retired = False


class _Draft:
    """A frame being gathered in a reused buffer, its place already fixed."""

    def __init__(self, keys: FrameKeys, kind: FrameKind, seat: int | None, buffer: bytearray) -> None:
        self.keys = keys
        self.kind = kind
        self.seat = seat
        self.buffer = buffer
        self.owner = ""
        self.length = 0
        self.places: list[BlobPlace] = []
        self.pack: _OpenPack
        self.number = 0

    def append(self, identity: bytes, content: memoryview) -> bytes:
        """Add a blob; returns its address."""
        end = self.length + len(content)
        self.buffer[self.length : end] = content
        self.places.append(BlobPlace(identity, self.length, len(content)))
        self.length = end
        number = number_of(self.number, len(self.places) - 1)
        return self.pack.spool.birth + number.to_bytes(4, "little")


class DomainWriter:
    """What `BlobWriter.add` needs to know of a key domain in this run."""

    def __init__(self, keys: FrameKeys, seat: int | None, session: SealedSession | None) -> None:
        self.keys = keys
        self.seat = seat
        self.session = session
        self.blob_key = keys.blob_key


class BlobWriter:
    """Stores blobs for one run. `add` may be called from several threads. Use as a context manager.

    `stem` is where packs are spooled, as the beginning of their names. `added_bytes` is the size of new packs, in bytes.
    """

    def __init__(self, place: Place, catalog: Catalog, stem: Path, clock: Clock) -> None:
        share_one_heap()
        self._place = place
        self._catalog = catalog
        self._stem = stem
        self._clock = clock
        self._parameters = place.settings.parameters
        self._lock = Lock()
        self._counting = Lock()
        self._packs: list[_OpenPack] = []
        self._unstored: set[_OpenPack] = set()
        self._drafts: dict[tuple[int, int], _Draft] = {}
        self._new: dict[bytes, bytes] = {}
        self._stored: list[StoredPack] = []
        self._unindexed = 0
        self._buffers: list[bytearray] = []
        self._in_flight = BoundedSemaphore(_IN_FLIGHT)
        self._sealers = ThreadPoolExecutor(_SEALERS, thread_name_prefix="opsd-seal")
        self._putter = ThreadPoolExecutor(1, thread_name_prefix="opsd-put")
        self._puts: list[Future[None]] = []
        self._error: BaseException | None = None
        self.added_bytes = 0
        #: Whose blobs are being added, and the stored bytes of each owner so far.
        self.owner = ""
        self.added_by: Counter[str] = Counter()
        self._sessions: list[SealedSession] = []
        self.domains = self._draw_sessions()

    def _draw_sessions(self) -> dict[int, DomainWriter]:
        ring = self._place.ring
        domains = {INDEX_DOMAIN: DomainWriter(FrameKeys.of(ring, INDEX_DOMAIN, ring.index()), None, None)}
        for domain in self._place.settings.domains:
            if not domain.keys:
                continue  # It was destroyed: nothing is stored in it any more.
            secret = os.urandom(32)
            key = domain.keys[-1]
            session = SealedSession(
                domain.number, key.id, key.seal(secret, session_info(ring.repository, domain.number))
            )
            domains[domain.number] = DomainWriter(
                FrameKeys.of(ring, domain.number, secret), len(self._sessions), session
            )
            self._sessions.append(session)
        return domains

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sealers.shutdown(wait=True, cancel_futures=True)
        self._putter.shutdown(wait=True, cancel_futures=True)
        for pack in self._unstored:
            pack.spool.discard()
        remove_spooled(self._stem)

    # Adding

    def known(self, identity: bytes) -> bytes | None:
        """The address of a blob that is stored, or was added in this run."""
        return self._new.get(identity) or self._catalog.index.find(identity)

    def add(self, domain: DomainWriter, content: memoryview, group: int = DATA) -> bytes:
        """Store a blob unless it is there; returns its reference (56 bytes). The content is copied before this returns."""
        identity = keyed_hash(domain.blob_key, content)
        with self._lock:
            address = self.known(identity)
            if address is None:
                address = self._new[identity] = self._place_blob(domain, group, identity, content)
        if self._error:
            self._raise()
        return encode_reference(identity, len(content), address)

    def add_page(self, domain: DomainWriter, identity: bytes, content: memoryview) -> bytes:
        """Store a page of a page map, never deduplicated; returns its address (20 bytes)."""
        with self._lock:
            address = self._place_blob(domain, PAGES, identity, content)
        if self._error:
            self._raise()
        return address

    def add_whole(self, domain: DomainWriter, content: bytes, group: int = LISTING) -> Content:
        """Store a piece of any length that is read as one, such as a listing's hunk; returns its content."""
        view = memoryview(content)
        step = self._parameters.cut_max
        return self.content(
            domain, b"".join(self.add(domain, view[at : at + step], group) for at in range(0, len(view), step))
        )

    def content(self, domain: DomainWriter, references: bytes, frames: FrameSet | None = None) -> Content:
        """A content of these references, through list blobs where there are over 1,000, whose frames go into `frames`."""
        depth = 0
        step = CONTENT_LIMIT * REFERENCE_BYTES
        while len(references) > step:
            view = memoryview(references)
            references = b"".join(self.add(domain, view[at : at + step], LISTING) for at in range(0, len(view), step))
            if frames is not None:
                frames.add_references(references)
            depth += 1
        return (depth, references) if depth else references

    def _place_blob(self, domain: DomainWriter, group: int, identity: bytes, content: memoryview) -> bytes:
        """Put a blob into a frame; the lock is held."""
        limit = self._parameters.frame_bytes * (_PAGE_FRAMES if group == PAGES else 1)
        if len(content) * 2 >= limit:
            draft = self._draft(domain, group, len(content))
            address = draft.append(identity, content)
            self._submit(draft)
            return address
        key = (domain.keys.domain, group)
        found = self._drafts.get(key)
        if found and (found.length + len(content) > limit or len(found.places) == _BLOBS_LIMIT):
            self._submit(self._drafts.pop(key))
            found = None
        draft = found or self._drafts.setdefault(key, self._draft(domain, group, limit))
        return draft.append(identity, content)

    def _draft(self, domain: DomainWriter, group: int, capacity: int) -> _Draft:
        """A new frame, assigned at random to one of the open packs."""
        kind = FrameKind.PAGES if group == PAGES else FrameKind.BLOBS
        draft = _Draft(domain.keys, kind, domain.seat, self._buffer(capacity))
        draft.owner = self.owner
        draft.pack = self._open_pack()
        draft.number = draft.pack.frames
        draft.pack.frames += 1
        draft.pack.pending += 1
        return draft

    def _buffer(self, capacity: int) -> bytearray:
        """A buffer that was used before; one that is too small makes room for a larger one."""
        place = next((at for at, each in enumerate(self._buffers) if len(each) >= capacity), None)
        if place is not None:
            return self._buffers.pop(place)
        if self._buffers:
            self._buffers.pop()
        return bytearray(max(capacity, self._parameters.frame_bytes))

    def _open_pack(self) -> _OpenPack:
        """One of two open packs at random. One that may be full waits aside until its last frames have been written."""
        for pack in [pack for pack in self._packs if self._is_full(pack)]:
            self._packs.remove(pack)
            self._retire(pack)
        taking = [pack for pack in self._packs if not (pack.pending and self._may_be_full(pack))]
        while len(taking) < _OPEN_PACKS and len(self._packs) < 2 * _OPEN_PACKS:
            birth = new_birth(self._clock.now())
            path = self._stem.with_name(f"{self._stem.name}-{birth.hex()}")
            opened = _OpenPack(PackSpool(path, birth, self._sessions))
            self._unstored.add(opened)
            self._packs.append(opened)
            taking.append(opened)
        return random.choice(taking or self._packs)  # noqa: S311 - hides sizes from a watcher of the store; no key depends on it

    def _may_be_full(self, pack: _OpenPack) -> bool:
        """Whether a pack is large enough to be closed, with what is on its way into it."""
        size = pack.spool.size + pack.pending * self._parameters.frame_bytes
        return size >= self._parameters.pack_bytes * 3 // 4

    def _is_full(self, pack: _OpenPack) -> bool:
        """Whether a pack takes no more: once large enough where little would be padding, the larger the more; else at its size."""
        limit, size = self._parameters.pack_bytes, pack.spool.size
        if size >= limit or pack.frames >= 0xFFFF:
            return True
        return not pack.pending and pack.spool.padding <= (size - limit * 3 // 4) // 32

    # Sealing and putting

    def _submit(self, draft: _Draft) -> None:
        self._in_flight.acquire()
        self._sealers.submit(self._seal, draft)

    def _seal(self, draft: _Draft) -> None:
        try:
            ids = b"".join(place.id for place in draft.places)
            method, stored = sealed_frame(draft.keys, draft.kind, ids, memoryview(draft.buffer)[: draft.length])
            pack = draft.pack
            row = FrameRow(
                pack.spool.birth,
                draft.number,
                draft.kind,
                method,
                draft.keys.domain,
                draft.seat,
                0,
                0,
                draft.length,
                tuple(draft.places),
            )
            with pack.lock:
                pack.spool.append(row, stored)
                pack.pending -= 1
                whole = pack.retired and not pack.pending
            with self._counting:
                self.added_by[draft.owner] += len(stored)
            if whole:
                self._put(pack)
            self._buffers.append(draft.buffer)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that adds
            self._error = self._error or error
        finally:
            self._in_flight.release()

    def _retire(self, pack: _OpenPack) -> None:
        with pack.lock:
            pack.retired = True
            whole = not pack.pending
        if whole:
            self._put(pack)

    def _put(self, pack: _OpenPack) -> None:
        self._puts.append(self._putter.submit(self._put_now, pack))

    def _put_now(self, pack: _OpenPack) -> None:
        try:
            if not pack.frames:
                pack.spool.discard()
                self._unstored.discard(pack)
                return
            stored = pack.spool.finish(self._place.ring.repository, self._place.ring.index())
            self._place.store.put(stored.name, pack.spool.path)
            pack.spool.path.unlink(missing_ok=True)
            self._unstored.discard(pack)
            self._remember(stored)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that adds
            self._error = self._error or error

    def _remember(self, stored: StoredPack) -> None:
        row = PackRow(stored.birth, stored.digest, stored.size, stored.footer_length)
        with self._lock:
            self._stored.append(stored)
            self.added_bytes += stored.size
            self._unindexed += stored.blobs
            self._catalog.add_pack(row, ObjectInfo(name=stored.name, size=stored.size, modified=self._clock.now()))
            if self._unindexed >= _INDEX_EVERY:
                self._put_index()

    def _put_index(self) -> None:
        """Put an index object for the packs stored since the last; the lock is held."""
        packs = ((PackRow(each.birth, each.digest, each.size, each.footer_length), each.rows) for each in self._stored)
        rows, entries = rows_and_entries(chain(packs, self._catalog.orphans))
        self._write_index(rows, entries)
        for stored in self._stored:
            for frame in stored.rows:
                for blob in frame.blobs:
                    self._new.pop(blob.id, None)
        self._stored.clear()
        self._catalog.orphans.clear()
        self._unindexed = 0

    def _write_index(self, rows: Sequence[PackRow], entries: Sequence[IndexEntry]) -> None:
        plain = index_table(rows, entries)
        name = self._place.put_index(plain)
        self._catalog.index.parts.insert(0, self._place.index_cache.part(name) or IndexPart(name, plain))

    def finish(self) -> None:
        """Seal, put and index all that was added; then it is durable."""
        with self._lock:
            drafts = list(self._drafts.values())
            self._drafts.clear()
        for draft in drafts:
            self._submit(draft)
        self._sealers.shutdown(wait=True)
        packs, self._packs = self._packs, []
        for pack in packs:
            self._retire(pack)
        self._putter.shutdown(wait=True)
        self._raise()
        with self._lock:
            if self._stored or self._catalog.orphans:
                self._put_index()

    def _raise(self) -> None:
        error = self._error
        if error is None:
            return
        if isinstance(error, OSError):
            if error.errno in (28, 122):
                raise StoreFull(
                    f"no room left in {self._stem.parent} while packs were written",
                    hint="free space there; nothing that was stored before is touched, and the next run goes on",
                ) from error
            raise StorageError(f"packs can't be written in {self._stem.parent}: {error.strerror}") from error
        if isinstance(error, OpsdError):
            raise error
        raise error


def remove_spooled(stem: Path) -> None:
    """Remove what a run that is over left in the spool."""
    for path in stem.parent.glob(f"{stem.name}-*"):
        path.unlink(missing_ok=True)
