"""Frames: blobs gathered, compressed and encrypted as one.

Promise: what `open_frame` gives was authenticated and every blob's id was computed again; buffers are reused, so Python touches
frames, never bytes. docs/format.md, Packs.
"""

import struct
import threading
from collections.abc import Sequence
from enum import IntEnum
from typing import Final, NamedTuple

import zstandard

from opsd.repository.format import SUITE
from opsd.repository.keys import Keyring
from opsd.repository.seal import SEAL_OVERHEAD, NotAuthentic, keyed_hash, seal_into, subkey, unseal, unseal_into
from opsd.values import dataclass

ID_BYTES: Final = 32
#: What a stored frame has beside its body.
FRAME_OVERHEAD: Final = ID_BYTES + SEAL_OVERHEAD
COMPRESSION_LEVEL: Final = 3
#: Compression must save at least 1/32, or the frame is stored raw and read faster.
_WORTH: Final = 32
#: No frame is longer (the largest blob, and some); a footer that says so is not believed.
FRAME_LIMIT: Final = 64 * 1024 * 1024


class FrameKind(IntEnum):
    """Blobs stand in the global index, pages do not."""

    BLOBS = 1
    PAGES = 2


class Method(IntEnum):
    """How a body is stored."""

    RAW = 0
    ZSTD = 1


class BlobPlace(NamedTuple):
    """A blob in a frame: its id, where it begins in the plain body, its length in bytes."""

    id: bytes
    offset: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameKeys:
    """What frames of one domain need: the repository, the domain's number, keys for ids, and the base key of their encryption."""

    repository: bytes
    domain: int
    blob_key: bytes
    frame_id_key: bytes
    base: bytes

    @classmethod
    def of(cls, ring: Keyring, domain: int, base: bytes) -> "FrameKeys":
        """For a domain of a ring, with its session key (or the index key for domain 0)."""
        return cls(
            repository=ring.repository,
            domain=domain,
            blob_key=ring.blob_key(domain),
            frame_id_key=ring.frame_id_key(domain),
            base=base,
        )

    def frame_id(self, ids: bytes) -> bytes:
        """The id of a frame of blobs with those ids, joined."""
        return keyed_hash(self.frame_id_key, ids)

    def encryption_key(self, frame_id: bytes) -> bytes:
        """What this frame is encrypted with, in whichever pack it stands."""
        return subkey(self.base, b"opsd frame 1" + frame_id)

    def context(self, kind: int, method: int, length: int) -> bytes:
        """A frame's associated data."""
        tail = struct.pack("<IBBBI", self.domain, SUITE, kind, method, length)
        return b"opsd frame 1\0" + self.repository + tail


_local = threading.local()


def _compressor() -> zstandard.ZstdCompressor:
    try:
        return _local.compressor  # type: ignore[no-any-return]
    except AttributeError:
        _local.compressor = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL)
        return _local.compressor  # type: ignore[no-any-return]


def _decompressor() -> zstandard.ZstdDecompressor:
    try:
        return _local.decompressor  # type: ignore[no-any-return]
    except AttributeError:
        _local.decompressor = zstandard.ZstdDecompressor()
        return _local.decompressor  # type: ignore[no-any-return]


def sealed_frame(keys: FrameKeys, kind: FrameKind, ids: bytes, plain: memoryview) -> tuple[Method, memoryview]:
    """The stored bytes of a frame, in a buffer of this thread that is valid until its next call."""
    frame_id = keys.frame_id(ids)
    packed = _compressed(plain)
    method, body = (Method.RAW, plain) if packed is None else (Method.ZSTD, packed)
    stored = _buffer("stored", len(body) + FRAME_OVERHEAD)
    stored[:ID_BYTES] = frame_id
    seal_into(keys.encryption_key(frame_id), keys.context(kind, method, len(plain)), body, stored[ID_BYTES:])
    return method, stored


def _compressed(plain: memoryview) -> memoryview | None:
    """In a buffer of this thread; None where it is not worth it."""
    most = len(plain) - len(plain) // _WORTH
    packed = _buffer("packed", most)
    filled = 0
    with _compressor().stream_reader(plain, size=len(plain), closefd=False) as reader:
        while filled < most and (count := reader.readinto(packed[filled:])):
            filled += count
    return packed[:filled] if filled < most else None


def _buffer(purpose: str, length: int) -> memoryview:
    held: bytearray | None = getattr(_local, purpose, None)
    if held is None or len(held) < length:
        held = bytearray(max(length, 2 * 1024 * 1024))
        setattr(_local, purpose, held)
    return memoryview(held)[:length]


class FrameDamaged(Exception):
    """A frame's bytes are not what its footer says; the pack's name is known to the caller."""


def open_frame(keys: FrameKeys, row: "FrameRow", stored: memoryview) -> bytes:
    """The plain body, every blob's id computed again.

    Raises:
        FrameDamaged: anything does not hold.
    """
    if row.plain_length > FRAME_LIMIT or len(stored) != row.stored_length or len(stored) < FRAME_OVERHEAD:
        raise FrameDamaged("its length is wrong")
    frame_id = bytes(stored[:ID_BYTES])
    if frame_id != keys.frame_id(b"".join([blob.id for blob in row.blobs])):
        raise FrameDamaged("its id does not match its blobs")
    plain = _opened(keys, row, frame_id, stored[ID_BYTES:])
    _check_blobs(keys, row, plain)
    return plain


def _opened(keys: FrameKeys, row: "FrameRow", frame_id: bytes, sealed: memoryview) -> bytes:
    """Of the authenticated length; what is compressed is decrypted into this thread's buffer first."""
    key, context = keys.encryption_key(frame_id), keys.context(row.kind, row.method, row.plain_length)
    try:
        if row.method == Method.ZSTD:
            body = _buffer("body", len(sealed) - SEAL_OVERHEAD)
            unseal_into(key, context, sealed, body)
            return _decompress(body, row.plain_length)
        plain = unseal(key, context, sealed)
    except NotAuthentic as error:
        raise FrameDamaged("it was altered") from error
    if len(plain) != row.plain_length:
        raise FrameDamaged("its length is wrong")
    return plain


def _decompress(body: memoryview, length: int) -> bytes:
    """One zstd frame; exactly that many bytes must come, and more are not even made room for."""
    try:
        if zstandard.frame_content_size(body) not in {-1, length}:
            raise FrameDamaged("its length is wrong")
        plain: bytes = _decompressor().decompress(body, max_output_size=length or 1, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise FrameDamaged("it can't be decompressed to the length that its footer says") from error
    if len(plain) != length:
        raise FrameDamaged("it is shorter than its footer says")
    return plain


def _check_blobs(keys: FrameKeys, row: "FrameRow", plain: bytes) -> None:
    view, key = memoryview(plain), keys.blob_key
    for identity, offset, length in row.blobs:
        if keyed_hash(key, view[offset : offset + length]) != identity:
            raise FrameDamaged("a blob in it does not match its id")


class FrameRow(NamedTuple):
    """A frame as a pack's footer lists it. `session` is the place of its session key in the pack, None for domain 0."""

    birth: bytes
    number: int
    kind: int
    method: int
    domain: int
    session: int | None
    offset: int
    stored_length: int
    plain_length: int
    blobs: Sequence[BlobPlace]
