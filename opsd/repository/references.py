"""References to blobs, contents made of them, and the frames that a snapshot needs.

Promise: an address is for life; what a manifest refers to is counted frame by frame, because frames are what prune moves.
docs/format.md, Addresses and references; Snapshots.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from opsd.errors import ObjectDamaged
from opsd.model import Content

_REFERENCE: Final = struct.Struct("<32sI16sI")
REFERENCE_BYTES: Final = _REFERENCE.size
ADDRESS_BYTES: Final = 20
#: More references than these are written as blobs of their own.
CONTENT_LIMIT: Final = 1000
_RECORD: Final = struct.Struct("<16sH")


class Reference(NamedTuple):
    """A blob: its id, length in bytes, and address (birth id and number)."""

    id: bytes
    length: int
    birth: bytes
    number: int

    @property
    def frame(self) -> tuple[bytes, int]:
        """Birth id and number of the frame it was stored in."""
        return self.birth, self.number >> 16


def encode_reference(identity: bytes, length: int, address: bytes) -> bytes:
    """56 bytes; `address` is birth id and number, 20 bytes."""
    return identity + length.to_bytes(4, "little") + address


def decode_reference(content: bytes) -> Reference:
    """The one reference in 56 bytes."""
    return Reference(*_REFERENCE.unpack(content))


def decode_references(content: bytes) -> Iterator[Reference]:
    """The references in n × 56 bytes.

    Raises:
        ObjectDamaged: the length is no multiple.
    """
    if len(content) % REFERENCE_BYTES:
        raise ObjectDamaged("a list of references", "its length is wrong")
    return (Reference(*each) for each in _REFERENCE.iter_unpack(content))


def as_content(value: Any) -> Content | None:
    """A content as it comes from MessagePack.

    Raises:
        ObjectDamaged: it has another shape.
    """
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], int) and isinstance(value[1], bytes):
        return value[0], value[1]
    raise ObjectDamaged("a listing", "a content in it has no valid shape")


class FrameSet:
    """The frames that a snapshot refers to: a bitmap of frame numbers for each pack of birth."""

    def __init__(self) -> None:
        self._bitmaps: dict[bytes, int] = {}

    def add_references(self, content: bytes) -> None:
        """Add the frames of n × 56 bytes of references."""
        bitmaps = self._bitmaps
        for _, _, birth, number in _REFERENCE.iter_unpack(content):
            bitmaps[birth] = bitmaps.get(birth, 0) | 1 << (number >> 16)

    def add(self, birth: bytes, frame: int) -> None:
        """Add one frame."""
        self._bitmaps[birth] = self._bitmaps.get(birth, 0) | 1 << frame

    def add_records(self, records: bytes) -> None:
        """Add what `encode` wrote.

        Raises:
            ObjectDamaged: it is cut off.
        """
        place = 0
        while place < len(records):
            if place + _RECORD.size > len(records):
                raise ObjectDamaged("a list of frames", "it is cut off")
            birth, length = _RECORD.unpack_from(records, place)
            place += _RECORD.size + length
            if place > len(records):
                raise ObjectDamaged("a list of frames", "it is cut off")
            bitmap = int.from_bytes(records[place - length : place], "little")
            self._bitmaps[birth] = self._bitmaps.get(birth, 0) | bitmap

    def add_all(self, other: "FrameSet") -> None:
        """Add all frames of another set."""
        self.add_records(other.encode())

    def encode(self, births: Iterable[bytes] | None = None) -> bytes:
        """Records in order of birth id, so in order of time; for some births or all."""
        parts = []
        for birth in sorted(self._bitmaps if births is None else births):
            bitmap = self._bitmaps[birth]
            content = bitmap.to_bytes((bitmap.bit_length() + 7) // 8, "little")
            parts += [_RECORD.pack(birth, len(content)), content]
        return b"".join(parts)

    def births(self) -> list[bytes]:
        """The packs of birth, oldest first."""
        return sorted(self._bitmaps)

    def frames(self) -> Iterator[tuple[bytes, int]]:
        """Every frame: birth id and number."""
        for birth in self.births():
            bitmap = self._bitmaps[birth]
            while bitmap:
                lowest = bitmap & -bitmap
                yield birth, lowest.bit_length() - 1
                bitmap ^= lowest

    def __contains__(self, frame: tuple[bytes, int]) -> bool:
        return bool(self._bitmaps.get(frame[0], 0) >> frame[1] & 1)

    def __len__(self) -> int:
        return sum(bitmap.bit_count() for bitmap in self._bitmaps.values())
