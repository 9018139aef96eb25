"""The index: where each blob is. Sorted, of fixed width, searched in memory-mapped local copies.

Promise: memory does not grow with the repository; an entry counts only if its pack is listed and not marked; all of it can be
rebuilt from the packs' footers. docs/format.md, Index.
"""

import mmap
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from opsd.errors import ObjectDamaged
from opsd.repository.format import HEADER_BYTES, Kind, check_name, header, pack_name
from opsd.repository.frames import FrameKind, FrameRow
from opsd.repository.seal import NotAuthentic, box, open_box
from opsd.storage.durable import private_file, private_folder

_COUNTS: Final = struct.Struct("<II")
_PACK: Final = struct.Struct("<16s32sQI")
_ENTRY: Final = struct.Struct("<16sII")
ENTRY_BYTES: Final = _ENTRY.size
PREFIX_BYTES: Final = 16
#: Entries in one object: 32 MiB at 24 bytes.
ENTRIES_LIMIT: Final = 32 * 1024 * 1024 // ENTRY_BYTES - 8192
#: Below this many entries the search reads them all.
_WINDOW: Final = 64


class PackRow(NamedTuple):
    """An object that holds frames born in a pack: birth id, SHA-256, size and length of the footer box in bytes."""

    birth: bytes
    digest: bytes
    size: int
    footer_length: int

    @property
    def name(self) -> str:
        """The object's name."""
        return pack_name(self.digest)


class IndexEntry(NamedTuple):
    """A blob's place: 16 bytes of its id, the row of its pack, its number there."""

    prefix: bytes
    row: int
    number: int


def number_of(frame: int, place: int) -> int:
    """A blob's number: its frame's number and its place in the frame."""
    return frame << 16 | place


def rows_and_entries(packs: Iterable[tuple[PackRow, Sequence[FrameRow]]]) -> tuple[list[PackRow], list[IndexEntry]]:
    """What an index says of packs, from their footers; each pack's own birth id stands in its first row."""
    rows: dict[tuple[bytes, bytes], int] = {}
    table: list[PackRow] = []
    entries: list[IndexEntry] = []
    for pack, frames in packs:
        for frame in frames:
            key = (frame.birth, pack.digest)
            if key not in rows:
                rows[key] = len(table)
                table.append(pack._replace(birth=frame.birth))
            if frame.kind == FrameKind.BLOBS and frame.domain:
                entries += [
                    IndexEntry(blob.id[:PREFIX_BYTES], rows[key], number_of(frame.number, place))
                    for place, blob in enumerate(frame.blobs)
                ]
    return table, entries


def index_table(rows: Sequence[PackRow], entries: Iterable[IndexEntry]) -> bytes:
    """The plaintext of an index object."""
    ordered = sorted(entries)
    return b"".join(
        [
            _COUNTS.pack(len(rows), len(ordered)),
            *(_PACK.pack(*row) for row in rows),
            *(_ENTRY.pack(*entry) for entry in ordered),
        ]
    )


def encode_index(plain: bytes, repository: bytes, index_key: bytes) -> bytes:
    """The bytes of an index object, from its plaintext."""
    return header(Kind.INDEX) + box(index_key, b"index", repository, plain)


def decode_index(name: str, content: bytes, repository: bytes, index_key: bytes) -> bytes:
    """The checked plaintext of an index object.

    Raises:
        ObjectDamaged, NewerFormat.
    """
    check_name(name, content, Kind.INDEX)
    try:
        plain = open_box(index_key, b"index", repository, memoryview(content)[HEADER_BYTES:])
    except NotAuthentic as error:
        raise ObjectDamaged(name, "it was altered, or is of another repository") from error
    if not _lengths_fit(plain):
        raise ObjectDamaged(name, "its table does not fill it")
    return plain


def _lengths_fit(plain: bytes | mmap.mmap) -> bool:
    if len(plain) < _COUNTS.size:
        return False
    packs, entries = _COUNTS.unpack_from(plain)
    return bool(len(plain) == _COUNTS.size + packs * _PACK.size + entries * ENTRY_BYTES)


class IndexPart:
    """One index object's plaintext, searched where it stands (memory-mapped, or bytes)."""

    def __init__(self, name: str, plain: bytes | mmap.mmap) -> None:
        packs, self.length = _COUNTS.unpack_from(plain)
        self.name = name
        self._plain = plain
        self._base = _COUNTS.size + packs * _PACK.size
        self.rows = [PackRow(*each) for each in _PACK.iter_unpack(plain[_COUNTS.size : self._base])]
        self._usable = bytearray(b"\1" * packs)

    def use_only(self, digests: set[bytes]) -> None:
        """Let only entries whose object is among these count."""
        self._usable = bytearray(row.digest in digests for row in self.rows)

    def entries(self) -> Iterator[IndexEntry]:
        """All entries in order, usable or not."""
        step = ENTRY_BYTES * 4096
        end = self._base + self.length * ENTRY_BYTES
        for start in range(self._base, end, step):
            for each in _ENTRY.iter_unpack(self._plain[start : min(start + step, end)]):
                yield IndexEntry(*each)

    def find(self, prefix: bytes) -> tuple[bytes, int] | None:
        """Birth id and number of a usable entry. Ids are uniform, so the place is interpolated."""
        plain, base = self._plain, self._base
        low, high = 0, self.length
        floor, ceiling = 0, 1 << 64
        wanted = int.from_bytes(prefix[:8], "big")
        while high - low > _WINDOW:
            middle = low + (wanted - floor) * (high - low) // (ceiling - floor or 1)
            middle = min(max(middle, low + 1), high - 1)
            start = base + middle * ENTRY_BYTES
            found = plain[start : start + PREFIX_BYTES]
            if found < prefix:
                low, floor = middle, int.from_bytes(found[:8], "big")
            elif found > prefix:
                high, ceiling = middle, int.from_bytes(found[:8], "big")
            else:
                low, high = max(low, middle - _WINDOW // 2), min(high, middle + _WINDOW // 2)
        return self._scan(prefix, low, high)

    def _scan(self, prefix: bytes, low: int, high: int) -> tuple[bytes, int] | None:
        window = self._plain[self._base + low * ENTRY_BYTES : self._base + high * ENTRY_BYTES]
        place = window.find(prefix)
        while place >= 0:
            if place % ENTRY_BYTES == 0:
                _, row, number = _ENTRY.unpack_from(window, place)
                if row < len(self._usable) and self._usable[row]:
                    return self.rows[row].birth, number
                place += ENTRY_BYTES - 1
            place = window.find(prefix, place + 1)
        return None


class Index:
    """Every index part that counts, together."""

    def __init__(self, parts: Sequence[IndexPart]) -> None:
        self.parts = list(parts)

    def use_only(self, digests: set[bytes]) -> None:
        """Let only entries whose object is listed and unmarked count."""
        for part in self.parts:
            part.use_only(digests)

    def find(self, identity: bytes) -> bytes | None:
        """A blob's address (20 bytes), or None."""
        prefix = identity[:PREFIX_BYTES]
        for part in self.parts:
            found = part.find(prefix)
            if found:
                return found[0] + found[1].to_bytes(4, "little")
        return None

    def pack_rows(self) -> Iterator[PackRow]:
        """Which objects hold what was born where; a row may come from several parts."""
        for part in self.parts:
            yield from part.rows


class IndexCache:
    """Plaintext index objects as files of the cache folder: keyed ids and numbers, no names, disposable."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        private_folder(folder)

    def part(self, name: str) -> IndexPart | None:
        """The cached part, if it is there and whole."""
        try:
            with (self._folder / name.rpartition("/")[2]).open("rb") as file:
                plain = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):
            return None
        return IndexPart(name, plain) if _lengths_fit(plain) else None

    def keep(self, name: str, plain: bytes) -> None:
        """Remember a part; failing to is no error."""
        path = self._folder / name.rpartition("/")[2]
        with suppress(OSError):
            partial = path.with_suffix(f".{os.getpid()}")
            with open(private_file(partial, os.O_WRONLY | os.O_TRUNC), "wb") as file:
                file.write(plain)
            partial.rename(path)

    def forget_others(self, names: set[str]) -> None:
        """Remove what is no longer listed."""
        wanted = {name.rpartition("/")[2] for name in names}
        with suppress(OSError):
            for path in self._folder.iterdir():
                if path.name not in wanted:
                    path.unlink(missing_ok=True)
