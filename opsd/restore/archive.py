"""A snapshot as a tar file, for whoever has no opsd.

Promise: POSIX pax format (IEEE 1003.1-2017, pax), names as bytes, times to the nanosecond, owners by name and number, extended
attributes as GNU tar writes them (SCHILY.xattr); what tar has no type for (sockets) is a counted warning. Holes become zero bytes.
"""

import tarfile
from collections.abc import Callable, Iterator

from opsd.clock import SECOND
from opsd.events import Reporter, Warning
from opsd.model import Entry, EntryType, SourceTree
from opsd.repository.reader import SnapshotReader
from opsd.restore.browsing import Item, folders_below, in_order, items_of, shown, zeros
from opsd.values import dataclass

_TYPES = {
    EntryType.FILE: tarfile.REGTYPE,
    EntryType.FOLDER: tarfile.DIRTYPE,
    EntryType.SYMLINK: tarfile.SYMTYPE,
    EntryType.FIFO: tarfile.FIFOTYPE,
    EntryType.CHARACTER_DEVICE: tarfile.CHRTYPE,
    EntryType.BLOCK_DEVICE: tarfile.BLKTYPE,
}

Write = Callable[[bytes | memoryview], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What went into an archive. Sizes in bytes of content."""

    entries: int
    files: int
    bytes: int
    warnings: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A tree of one source to be written: all below `under`, its names put below `prefix`."""

    tree: SourceTree
    under: bytes = b"/"
    prefix: bytes = b""


class Archive:
    """Writes one tar file."""

    def __init__(self, reader: SnapshotReader, write: Write, reporter: Reporter) -> None:
        self._reader = reader
        self._write = write
        self._reporter = reporter
        self._links: dict[tuple[str, bytes], bytes] = {}
        self._position = 0
        self._entries = self._files = self._bytes = self._warnings = 0

    def write(self, parts: list[Part], single: Item | None = None) -> Exported:
        """Write all parts, or the one file, and the end.

        Raises:
            IntegrityError: some content can't be had; the archive is not whole.
        """
        for part in parts:
            self._part(part)
        if single:
            self._all(iter([(single, single.entry.name)]))
        self._put(bytes(2 * tarfile.BLOCKSIZE))
        self._put(bytes(-self._position % tarfile.RECORDSIZE))
        return Exported(entries=self._entries, files=self._files, bytes=self._bytes, warnings=self._warnings)

    def _part(self, part: Part) -> None:
        inside = len(part.under.rstrip(b"/")) + 1
        self._all((item, part.prefix + item.path[inside:]) for item in self._depth_first(part))

    def _depth_first(self, part: Part) -> Iterator[Item]:
        """Each folder right before what is in it: tar sets a folder's time once it has left it."""
        waiting: dict[bytes, Item] = {}
        for folder in folders_below(self._reader, part.tree, part.under):
            if folder.path in waiting:
                yield waiting.pop(folder.path)
            for item in items_of(part.tree, folder):
                if item.entry.type is EntryType.FOLDER:
                    waiting[item.path] = item
                else:
                    yield item
        yield from waiting.values()

    def _all(self, named: Iterator[tuple[Item, bytes]]) -> None:
        keyed = ((key, key[0].entry) for key in named)
        for (item, name), pieces in self._reader.contents(keyed):
            self._item(item, name, pieces)

    def _item(self, item: Item, name: bytes, pieces: Iterator[tuple[int, memoryview]]) -> None:
        entry = item.entry
        if entry.type not in _TYPES:
            self._warnings += 1
            self._reporter.warn(
                Warning(subject=shown(item.path), problem="tar has no type for sockets", hint="it was left out")
            )
            return
        first = self._links.setdefault((item.source, entry.link), name) if entry.link is not None else name
        self._put(_header(item, name, None if first == name else first))
        self._entries += 1
        if entry.type is EntryType.FILE and first == name:
            for piece in in_order(self._reader, entry, pieces):
                self._put(piece)
            for piece in zeros(-entry.size % tarfile.BLOCKSIZE):
                self._put(piece)
            self._files += 1
            self._bytes += entry.size
            self._reporter.advance(files=1, size=entry.size)

    def _put(self, content: bytes | memoryview) -> None:
        self._write(content)
        self._position += len(content)


def _header(item: Item, name: bytes, link: bytes | None) -> bytes:
    entry = item.entry
    info = tarfile.TarInfo(_text(name))
    info.type = tarfile.LNKTYPE if link is not None else _TYPES[entry.type]
    info.linkname = _text(link if link is not None else entry.target or b"")
    info.mode = entry.mode
    info.uid, info.gid = entry.uid, entry.gid
    info.uname, info.gname = _text(item.owner or b""), _text(item.group or b"")
    info.mtime = entry.mtime // SECOND
    info.size = entry.size if info.isreg() else 0
    if entry.device is not None:
        info.devmajor, info.devminor = entry.device
    info.pax_headers = dict(_records(entry))
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _records(entry: Entry) -> Iterator[tuple[str, str]]:
    if entry.mtime % SECOND:
        sign, moment = ("-", -entry.mtime) if entry.mtime < 0 else ("", entry.mtime)
        yield "mtime", f"{sign}{moment // SECOND}.{moment % SECOND:09d}"
    for name, value in sorted(entry.xattrs.items()):
        yield f"SCHILY.xattr.{_text(name)}", _text(value)


def _text(content: bytes) -> str:
    """As tarfile wants it: it gives the same bytes back."""
    return content.decode("utf-8", "surrogateescape")
