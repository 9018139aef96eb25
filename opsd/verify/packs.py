"""Read a whole pack once: its bytes against its name, and each frame that a key at hand opens.

Promise: every byte is read and hashed once, and decoded from the same reading; memory is a window, whatever the pack's size.
"""

import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import field
from typing import Final

from opsd.errors import IntegrityError, KeyMissing, NewerFormat, ObjectDamaged
from opsd.repository.blobs import PackReader
from opsd.repository.catalog import Place
from opsd.repository.format import HEADER_BYTES, Kind, check_header, digest_of
from opsd.repository.frames import FRAME_LIMIT, FRAME_OVERHEAD, FrameDamaged, FrameRow, open_frame
from opsd.repository.index import PackRow
from opsd.storage.protocol import ObjectInfo
from opsd.values import dataclass

_WINDOW_BYTES: Final = 8 * 1024 * 1024
_FRAME_MOST: Final = FRAME_LIMIT + FRAME_OVERHEAD

Footer = tuple[PackRow, tuple[FrameRow, ...]]


@dataclass(slots=True)
class PackRead:
    """What a reading found: bytes read, what is wrong with the object, frames that do not hold, frames no key opens."""

    size: int = 0
    problem: str | None = None
    bad: dict[FrameRow, str] = field(default_factory=dict)
    unread: set[FrameRow] = field(default_factory=set)


class PackProof:
    """Reads packs, from several threads. Not `decodes`: only against their names. `window` in bytes."""

    def __init__(self, place: Place, *, decodes: bool, window: int = _WINDOW_BYTES) -> None:
        self._place = place
        self._window = window
        self._reader = PackReader(place) if decodes else None
        self._local = threading.local()

    def read(self, info: ObjectInfo, footer: Footer | None) -> PackRead:
        """Read a pack whose footer is known, or not.

        Raises:
            ObjectNotFound: it is gone. StorageError: it can't be read.
        """
        found = PackRead()
        rows = self._possible(info, footer[1], found) if footer else []
        digest, start = hashlib.sha256(), b""
        for place, window in self._windows(info, rows):
            digest.update(window[found.size - place :])
            found.size = max(found.size, place + len(window))
            start = start or bytes(window[:HEADER_BYTES])
            while footer and rows and rows[0].offset + rows[0].stored_length <= place + len(window):
                row = rows.pop(0)
                self._prove(footer[0], row, window[max(0, row.offset - place) :][: row.stored_length], found)
        for row in rows:
            found.bad[row] = f"the frame at byte {row.offset}: the pack ends before it does"
        found.problem = _problem(info.name, digest.digest(), start)
        return found

    @staticmethod
    def _possible(info: ObjectInfo, rows: Sequence[FrameRow], found: PackRead) -> list[FrameRow]:
        """The frames in order, but for those that a true footer can't list."""
        for row in rows:
            if row.offset + row.stored_length > info.size or row.stored_length > _FRAME_MOST:
                found.bad[row] = f"the frame at byte {row.offset}: its length is wrong"
        return sorted((row for row in rows if row not in found.bad), key=lambda row: row.offset)

    def _windows(self, info: ObjectInfo, rows: Sequence[FrameRow]) -> Iterator[tuple[int, memoryview]]:
        """Stretches of the object in order; one begins anew where a frame did not end in the one before."""
        place = 0
        while place < info.size:
            length = self._window
            if rows and rows[0].offset <= place:
                length = max(length, rows[0].stored_length)
            window = self._buffer(min(length, info.size - place))
            count = self._place.store.read_into(info.name, place, window)
            yield place, window[:count]
            if count < len(window):
                return
            end = place + count
            place = rows[0].offset if rows and place < rows[0].offset < end else end

    def _buffer(self, length: int) -> memoryview:
        held: bytearray = getattr(self._local, "buffer", bytearray())
        if len(held) < length:
            held = self._local.buffer = bytearray(length)
        return memoryview(held)[:length]

    def _prove(self, pack: PackRow, row: FrameRow, stored: memoryview, found: PackRead) -> None:
        if self._reader is None:
            found.unread.add(row)
            return
        try:
            open_frame(self._reader.keys(pack, row), row, stored)
        except FrameDamaged as error:
            found.bad[row] = f"the frame at byte {row.offset}: {error}"
        except KeyMissing:
            found.unread.add(row)
        except ObjectDamaged as error:
            found.bad[row] = error.problem


def _problem(name: str, digest: bytes, start: bytes) -> str | None:
    if digest != digest_of(name):
        return "its bytes do not match its name"
    try:
        check_header(name, start, Kind.PACK)
    except (IntegrityError, NewerFormat) as error:
        return str(getattr(error, "problem", error))
    return None
