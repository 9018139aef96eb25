"""Reading blobs: from an address to verified bytes, frames decoded ahead by threads.

Promise: nothing is handed out whose id was not computed again; a frame that can't be read in one object is tried in every other
that holds it, then by the blob's id, before it counts as lost.
"""

from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock, local
from typing import Final

from opsd.errors import IntegrityError, KeyMissing, ObjectDamaged, ObjectLost, ObjectNotFound
from opsd.model import Content
from opsd.repository.catalog import Catalog, Place
from opsd.repository.frames import FrameDamaged, FrameKeys, FrameRow, open_frame
from opsd.repository.index import PackRow
from opsd.repository.keys import INDEX_DOMAIN
from opsd.repository.packs import FooterPlace, SealedSession, read_footer, read_head
from opsd.repository.references import Reference, decode_references
from opsd.repository.seal import NotAuthentic

#: Decoded frames kept, and footers kept.
_FRAMES_KEPT: Final = 16
_FOOTERS_KEPT: Final = 4096
#: What a thread takes at once to read stored frames into; most fit.
_LEAST_ROOM: Final = 2 * 1024 * 1024


class Frame:
    """A decoded frame: its row and plain bytes."""

    __slots__ = ("_plain", "row")

    def __init__(self, row: FrameRow, plain: bytes) -> None:
        self.row = row
        self._plain = memoryview(plain)

    def blob(self, reference: Reference) -> memoryview:
        """The bytes of the blob that a reference means.

        Raises:
            ObjectLost: its address leads to another blob.
        """
        place = reference.number & 0xFFFF
        if place < len(self.row.blobs):
            identity, offset, length = self.row.blobs[place]
            if length == reference.length and identity.startswith(reference.id):
                return self._plain[offset : offset + length]
        raise ObjectLost(f"blob {reference.id.hex()[:16]}", "its address leads to another blob")


class PackReader:
    """Footers and session keys of packs, read once."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._footers: OrderedDict[bytes, dict[tuple[bytes, int], FrameRow]] = OrderedDict()
        self._sessions: dict[bytes, tuple[SealedSession, ...]] = {}
        self._opened: dict[bytes, bytes | None] = {}
        self._keys: dict[tuple[int, bytes], FrameKeys] = {}
        self._lock = Lock()
        self._own = local()

    def rows(self, pack: PackRow) -> dict[tuple[bytes, int], FrameRow]:
        """A pack's frames by birth id and number.

        Raises:
            ObjectDamaged, ObjectNotFound, StorageError.
        """
        with self._lock:
            held = self._footers.get(pack.digest)
        if held is not None:
            return held
        where = FooterPlace(size=pack.size, length=pack.footer_length)
        ring = self._place.ring
        frames = read_footer(self._place.store, pack.name, where, ring.repository, ring.index())
        held = {(row.birth, row.number): row for row in frames}
        with self._lock:
            self._footers[pack.digest] = held
            while len(self._footers) > _FOOTERS_KEPT:
                self._footers.popitem(last=False)
        return held

    def keys(self, pack: PackRow, row: FrameRow) -> FrameKeys:
        """What opens a frame of a pack.

        Raises:
            KeyMissing: this ring has no key for it.
            ObjectDamaged: the session key was altered.
        """
        base = self._place.ring.index() if row.domain == INDEX_DOMAIN else self._session(pack, row)
        with self._lock:
            found = self._keys.get((row.domain, base))
            if found is None:
                found = self._keys[row.domain, base] = FrameKeys.of(self._place.ring, row.domain, base)
        return found

    def _session(self, pack: PackRow, row: FrameRow) -> bytes:
        with self._lock:
            if pack.digest not in self._sessions:
                self._sessions[pack.digest] = read_head(self._place.store, pack.name).sessions
            sessions = self._sessions[pack.digest]
            if row.session is None or row.session >= len(sessions):
                raise ObjectDamaged(pack.name, "a frame in it names a key that is not there")
            session = sessions[row.session]
            if session.sealed not in self._opened:
                self._opened[session.sealed] = self._open(pack, session)
            key = self._opened[session.sealed]
        if key is None:
            if row.domain in self._place.closed:
                raise self._place.closed[row.domain].error("what is stored")
            raise KeyMissing(
                "what is stored can't be read with the keys on this machine",
                hint="give the passphrase (passphrase: in the configuration, OPSD_PASSPHRASE_FILE) or the recovery kit (--kit)",
            )
        return key

    def _open(self, pack: PackRow, session: SealedSession) -> bytes | None:
        try:
            return self._place.ring.open_session(session.domain, session.pair, session.sealed)
        except NotAuthentic as error:
            raise ObjectDamaged(pack.name, "a session key in it was altered") from error

    def frame(self, pack: PackRow, row: FrameRow) -> Frame:
        """A frame, decoded and verified.

        Raises:
            ObjectDamaged, ObjectNotFound, KeyMissing, StorageError.
        """
        keys = self.keys(pack, row)
        stored = self._room(row.stored_length)
        count = self._place.store.read_into(pack.name, row.offset, stored)
        try:
            return Frame(row, open_frame(keys, row, stored[:count]))
        except FrameDamaged as error:
            raise ObjectDamaged(pack.name, f"the frame at byte {row.offset}: {error}") from error

    def _room(self, length: int) -> memoryview:
        """So many bytes of this thread's own buffer, good until its next call."""
        held: bytearray | None = getattr(self._own, "stored", None)
        if held is None or len(held) < length:
            held = self._own.stored = bytearray(max(length, _LEAST_ROOM))
        return memoryview(held)[:length]


class BlobReader:
    """Blobs by reference, over a catalog. Safe to use from several threads."""

    def __init__(self, place: Place, catalog: Catalog) -> None:
        self.packs = PackReader(place)
        self._catalog = catalog
        self._frames: OrderedDict[tuple[bytes, int], Future[Frame]] = OrderedDict()
        self._lock = Lock()

    def find(self, birth: bytes, frame: int) -> Frame:
        """A frame by its birth, from whichever object still has it.

        Raises:
            ObjectLost: none has it. ObjectDamaged: those that have it are damaged.
        """
        failure: IntegrityError | None = None
        for pack in self._catalog.objects.get(birth, ()):
            try:
                row = self.packs.rows(pack).get((birth, frame))
                if row:
                    return self.packs.frame(pack, row)
            except ObjectDamaged as error:
                failure = error
            except ObjectNotFound:
                failure = failure or ObjectLost(pack.name, "it was listed but is gone")
        raise failure or ObjectLost(f"pack born {birth.hex()}", f"no object in the store holds its frame {frame}")

    def schedule(self, pool: ThreadPoolExecutor, birth: bytes, frame: int) -> Future[Frame]:
        """A frame, decoded by a thread of the pool, or already."""
        key = (birth, frame)
        with self._lock:
            future = self._frames.get(key)
            if future is None:
                future = self._frames[key] = pool.submit(self.find, birth, frame)
            else:
                self._frames.move_to_end(key)
            while len(self._frames) > _FRAMES_KEPT:
                self._frames.popitem(last=False)
        return future

    def pick(self, reference: Reference, frame: Frame | Future[Frame]) -> memoryview:
        """The blob of a reference from its frame, scheduled or there, or by its id from elsewhere.

        Raises:
            IntegrityError: it can't be had.
        """
        try:
            return (frame if isinstance(frame, Frame) else frame.result()).blob(reference)
        except IntegrityError:
            address = self._catalog.index.find(reference.id)
            if address is None or address == reference.birth + reference.number.to_bytes(4, "little"):
                raise
            number = int.from_bytes(address[16:], "little")
            return self.find(address[:16], number >> 16).blob(reference._replace(birth=address[:16], number=number))

    def blob(self, reference: Reference) -> memoryview:
        """One blob, at once."""
        future: Future[Frame] = Future()
        with self._lock:
            held = self._frames.get(reference.frame)
        if held is not None:
            return self.pick(reference, held)
        try:
            future.set_result(self.find(*reference.frame))
        except IntegrityError as error:
            future.set_exception(error)
        with self._lock:
            self._frames[reference.frame] = future
        return self.pick(reference, future)

    def references(self, content: Content) -> Iterator[Reference]:
        """All references of a content, list blobs resolved."""
        if isinstance(content, bytes):
            yield from decode_references(content)
            return
        depth, above = content
        for reference in decode_references(above):
            part = bytes(self.blob(reference))
            yield from self.references(part if depth == 1 else (depth - 1, part))

    def list_references(self, content: Content) -> Iterator[Reference]:
        """The references of the list blobs themselves, if the content has any."""
        if isinstance(content, bytes):
            return
        depth, above = content
        for reference in decode_references(above):
            yield reference
            if depth > 1:
                yield from self.list_references((depth - 1, bytes(self.blob(reference))))

    def whole(self, content: Content) -> bytes:
        """A content as one piece; for what is known to be small."""
        return b"".join(self.blob(reference) for reference in self.references(content))
