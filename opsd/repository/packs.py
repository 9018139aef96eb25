"""Packs: session keys, frames, padding and a footer that lists them; spooled encrypted, never held in memory whole.

Promise: lengths of blobs stand only in the sealed footer, the object's own length is padded (Padmé), and a frame that was moved
keeps its birth id and number. docs/format.md, Packs.
"""

import hashlib
import os
import struct
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Final, overload

from opsd.errors import NewerFormat, ObjectDamaged
from opsd.repository.format import HEADER_BYTES, Kind, check_header, header, pack_name
from opsd.repository.frames import FRAME_LIMIT, BlobPlace, FrameRow
from opsd.repository.seal import BOX_OVERHEAD, NotAuthentic, box, open_box
from opsd.storage.durable import new_file
from opsd.storage.protocol import Store
from opsd.values import dataclass

BIRTH_BYTES: Final = 16
_HEAD: Final = struct.Struct("<16sH")
_SESSION: Final = struct.Struct("<I8sH")
_ROW: Final = struct.Struct("<16sHBBIHQIII")
_BLOB: Final = struct.Struct("<32sI")
_NO_SESSION: Final = 0xFFFF
TRAILER_BYTES: Final = 4
#: A footer that claims more is not believed.
_FOOTER_LIMIT: Final = 256 * 1024 * 1024
_COPY_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class SealedSession:
    """A session key as a pack carries it: for which domain, to which key pair."""

    domain: int
    pair: bytes
    sealed: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PackHead:
    """The beginning of a pack."""

    birth: bytes
    sessions: tuple[SealedSession, ...]
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPack:
    """A pack that is finished: its hash, its size and the length of its footer box, in bytes, and what its footer says.

    `blobs` is how many it holds.
    """

    birth: bytes
    digest: bytes
    size: int
    footer_length: int
    footer: bytes
    blobs: int

    @property
    def name(self) -> str:
        """The object's name."""
        return pack_name(self.digest)

    @property
    def rows(self) -> tuple[FrameRow, ...]:
        """Its frames; unpacked anew each time, since a run keeps many packs and has little memory."""
        return decode_footer(self.name, self.footer)


def new_birth(now: int) -> bytes:
    """A birth id: the time, then random."""
    return struct.pack(">q", now) + os.urandom(8)


def padded(length: int) -> int:
    """The length that Padmé allows (Nikitin et al., PURBs, 2019): leaks O(log log length)."""
    if length < 4:
        return length
    exponent = length.bit_length() - 1
    mask = (1 << (exponent - exponent.bit_length())) - 1
    return (length + mask) & ~mask


def encode_head(birth: bytes, sessions: Sequence[SealedSession]) -> bytes:
    """The beginning of a pack."""
    parts = [header(Kind.PACK), _HEAD.pack(birth, len(sessions))]
    for session in sessions:
        parts += [_SESSION.pack(session.domain, session.pair, len(session.sealed)), session.sealed]
    return b"".join(parts)


def decode_head(name: str, content: bytes) -> PackHead | None:
    """The beginning of a pack, or None if more bytes are needed.

    Raises:
        ObjectDamaged, NewerFormat.
    """
    check_header(name, content, Kind.PACK)
    if len(content) < HEADER_BYTES + _HEAD.size:
        return None
    birth, count = _HEAD.unpack_from(content, HEADER_BYTES)
    place = HEADER_BYTES + _HEAD.size
    sessions = []
    for _ in range(count):
        if len(content) < place + _SESSION.size:
            return None
        domain, pair, length = _SESSION.unpack_from(content, place)
        place += _SESSION.size + length
        if len(content) < place:
            return None
        sessions.append(SealedSession(domain, pair, content[place - length : place]))
    return PackHead(birth=birth, sessions=tuple(sessions), length=place)


def read_head(store: Store, name: str) -> PackHead:
    """The head of a stored pack. One that an index names and that claims another format was altered: it was read before.

    Raises:
        ObjectDamaged, StorageError.
    """
    length = 4096
    while True:
        content = store.read(name, 0, length)
        try:
            head = decode_head(name, content)
        except NewerFormat as error:
            raise ObjectDamaged(name, "its header was altered") from error
        if head:
            return head
        if len(content) < length:
            raise ObjectDamaged(name, "it ends in its head")
        length *= 8


def encode_row(row: FrameRow) -> bytes:
    """A frame as the footer's plaintext has it; before the first stands their number, four bytes."""
    session = _NO_SESSION if row.session is None else row.session
    sizes = (row.offset, row.stored_length, row.plain_length, len(row.blobs))
    head = _ROW.pack(row.birth, row.number, row.kind, row.method, row.domain, session, *sizes)
    return b"".join([head, *(_BLOB.pack(blob.id, blob.length) for blob in row.blobs)])


def decode_footer(name: str, plain: bytes) -> tuple[FrameRow, ...]:
    """The frames of a pack.

    Raises:
        ObjectDamaged: it is no footer.
    """
    rows = []
    try:
        (count,) = struct.unpack_from("<I", plain)
        place = 4
        for _ in range(count):
            birth, number, kind, method, domain, session, offset, stored, length, blobs = _ROW.unpack_from(plain, place)
            place += _ROW.size
            end = place + blobs * _BLOB.size
            if end > len(plain) or length > FRAME_LIMIT:
                raise ObjectDamaged(name, "its footer can't be parsed")
            seat = None if session == _NO_SESSION else session
            packed = PackedPlaces(plain[place:end])
            place = end
            rows.append(FrameRow(birth, number, kind, method, domain, seat, offset, stored, length, packed))
    except struct.error as error:
        raise ObjectDamaged(name, "its footer can't be parsed") from error
    return tuple(rows)


class PackedPlaces(Sequence[BlobPlace]):
    """The blobs of a frame, unpacked once one is asked for: of a pack's many frames, most readers want a few."""

    __slots__ = ("_packed", "_places")

    def __init__(self, packed: bytes) -> None:
        self._packed = packed
        self._places: tuple[BlobPlace, ...] | None = None

    def _unpacked(self) -> tuple[BlobPlace, ...]:
        if self._places is None:
            offset = 0
            places = []
            for identity, length in _BLOB.iter_unpack(self._packed):
                places.append(BlobPlace(identity, offset, length))
                offset += length
            self._places = tuple(places)
        return self._places

    def __len__(self) -> int:
        return len(self._packed) // _BLOB.size

    @overload
    def __getitem__(self, place: int) -> BlobPlace: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[BlobPlace]: ...

    def __getitem__(self, place: int | slice) -> BlobPlace | Sequence[BlobPlace]:
        return self._unpacked()[place]

    def __iter__(self) -> Iterator[BlobPlace]:
        return iter(self._unpacked())

    def __eq__(self, other: object) -> bool:
        return self._unpacked() == (other._unpacked() if isinstance(other, PackedPlaces) else other)

    def __hash__(self) -> int:
        return hash(self._unpacked())


@dataclass(frozen=True, slots=True, kw_only=True)
class FooterPlace:
    """Where a pack's footer box stands: the object's size and the box's length, in bytes."""

    size: int
    length: int


def find_footer(store: Store, name: str, size: int) -> FooterPlace:
    """Where the footer stands, by the pack's last four bytes.

    Raises:
        ObjectDamaged: it can't be there.
    """
    length = int.from_bytes(store.read(name, max(0, size - TRAILER_BYTES), TRAILER_BYTES), "little")
    if not BOX_OVERHEAD < length <= min(_FOOTER_LIMIT, size - TRAILER_BYTES - HEADER_BYTES):
        raise ObjectDamaged(name, "its footer is not where it should be")
    return FooterPlace(size=size, length=length)


def read_footer(
    store: Store, name: str, place: FooterPlace, repository: bytes, index_key: bytes
) -> tuple[FrameRow, ...]:
    """The frames of a stored pack.

    Raises:
        ObjectDamaged: the footer does not hold.
    """
    content = store.read(name, place.size - TRAILER_BYTES - place.length, place.length)
    try:
        return decode_footer(name, open_box(index_key, b"footer", repository, content))
    except NotAuthentic as error:
        raise ObjectDamaged(name, "its footer was altered") from error


def open_footer(name: str, content: bytes, repository: bytes, index_key: bytes) -> tuple[FrameRow, ...]:
    """The frames of a whole pack, from its bytes.

    Raises:
        ObjectDamaged: the footer does not hold.
    """
    end = len(content) - TRAILER_BYTES
    length = int.from_bytes(content[end:], "little")
    try:
        return decode_footer(name, open_box(index_key, b"footer", repository, content[max(0, end - length) : end]))
    except NotAuthentic as error:
        raise ObjectDamaged(name, "its footer was altered") from error


class PackSpool:
    """A pack being written to a private file; frames are appended as they come.

    Not thread-safe: the caller holds a lock. `size` in bytes.
    """

    def __init__(self, path: Path, birth: bytes, sessions: Sequence[SealedSession]) -> None:
        self.path = path
        self.birth = birth
        self._file = FileIO(new_file(path), "wb")
        self._hash = hashlib.sha256()
        self.size = 0
        self._rows: list[bytes] = []
        self._footer_bytes = 0
        self._blobs = 0
        self._write(encode_head(birth, sessions))

    def _write(self, content: bytes | memoryview) -> None:
        view = memoryview(content)
        while view:
            view = view[self._file.write(view) :]
        self._hash.update(content)
        self.size += len(content)

    def append(self, row: FrameRow, stored: memoryview) -> None:
        """Add a frame; `row.offset` and `row.stored_length` are set here."""
        encoded = encode_row(row._replace(offset=self.size, stored_length=len(stored)))
        self._rows.append(encoded)
        self._footer_bytes += len(encoded)
        self._blobs += len(row.blobs)
        self._write(stored)

    @property
    def padding(self) -> int:
        """How many bytes of padding it would get now."""
        length = self.size + 4 + self._footer_bytes + BOX_OVERHEAD + TRAILER_BYTES
        return padded(length) - length

    def finish(self, repository: bytes, index_key: bytes) -> StoredPack:
        """Pad, add the footer, and close; the file is then the whole object."""
        plain = b"".join([struct.pack("<I", len(self._rows)), *self._rows])
        footer = box(index_key, b"footer", repository, plain)
        length = self.size + len(footer) + TRAILER_BYTES
        self._pad(padded(length) - length)
        self._write(footer)
        self._write(struct.pack("<I", len(footer)))
        self._file.close()
        return StoredPack(
            birth=self.birth,
            digest=self._hash.digest(),
            size=self.size,
            footer_length=len(footer),
            footer=plain,
            blobs=self._blobs,
        )

    def _pad(self, length: int) -> None:
        while length:
            step = min(length, _COPY_BYTES)
            self._write(bytes(step))
            length -= step

    def discard(self) -> None:
        """Close and remove the file."""
        self._file.close()
        self.path.unlink(missing_ok=True)
