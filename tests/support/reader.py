"""A snapshot in memory, made by hand or from a folder on disk, and a look at a folder that two can be compared by.

Promise: keeps the contract of opsd.restore.protocol.SnapshotReader; what it is told to damage, it refuses.
"""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from opsd.errors import ObjectDamaged
from opsd.model import Entry, EntryType, Folder, SourceTree
from opsd.restore.protocol import Key, Pieces

TYPES = {
    stat.S_IFREG: EntryType.FILE,
    stat.S_IFDIR: EntryType.FOLDER,
    stat.S_IFLNK: EntryType.SYMLINK,
    stat.S_IFIFO: EntryType.FIFO,
    stat.S_IFSOCK: EntryType.SOCKET,
    stat.S_IFCHR: EntryType.CHARACTER_DEVICE,
    stat.S_IFBLK: EntryType.BLOCK_DEVICE,
}
PIECE_BYTES = 65_536
MTIME = 1_600_000_000_123_456_789


def parts(path: bytes) -> list[bytes]:
    return [part for part in path.split(b"/") if part]


@dataclass
class MemoryReader:
    """Sources by label, each a list of folders; `damaged` holds contents that can't be had. Counts what was read."""

    sources: dict[str, list[Folder]] = field(default_factory=dict)
    roots: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    store: dict[bytes, bytes] = field(default_factory=dict)
    damaged: set[bytes] = field(default_factory=set)
    asked: list[bytes] = field(default_factory=list)
    compared: int = 0

    def trees(self) -> tuple[SourceTree, ...]:
        return tuple(
            SourceTree(label=label, kind="files", roots=self.roots.get(label, ()), listing=b"", facts={})
            for label in self.sources
        )

    def folders(self, tree: SourceTree, under: bytes = b"/") -> Iterator[Folder]:
        wanted = parts(under)
        for folder in self.sources[tree.label]:
            here = parts(folder.path)
            if here[: len(wanted)] == wanted or wanted[: len(here)] == here:
                yield folder

    def contents(self, entries: Iterable[tuple[Key, Entry]]) -> Iterator[tuple[Key, Pieces]]:
        ahead: list[tuple[Key, Entry]] = []
        for pair in entries:  # As the engine does, ask for some entries ahead of the one that is being written.
            ahead.append(pair)
            if len(ahead) > 3:
                yield self._next(ahead)
        while ahead:
            yield self._next(ahead)

    def _next(self, ahead: list[tuple[Key, Entry]]) -> tuple[Key, Pieces]:
        key, entry = ahead.pop(0)
        self.asked.append(entry.name)
        return key, self._pieces(entry)

    def _pieces(self, entry: Entry) -> Pieces:
        assert isinstance(entry.content, bytes)
        held = memoryview(self.store[entry.content])
        place = 0
        for offset, length in entry.extents if entry.extents is not None else ((0, len(held)),):
            for start in range(0, length, PIECE_BYTES):
                step = min(PIECE_BYTES, length - start)
                if entry.content in self.damaged and place + step == len(held):
                    raise ObjectDamaged("packs/00/00ff", "flipped on purpose")
                yield offset + start, held[place : place + step]
                place += step

    def same(self, tree: SourceTree, entry: Entry, descriptor: int) -> bool:
        del tree
        self.compared += 1
        whole = bytearray(entry.size)
        held = self.store[entry.content] if isinstance(entry.content, bytes) and entry.content else b""
        place = 0
        for offset, length in entry.extents if entry.extents is not None else ((0, entry.size),):
            whole[offset : offset + length] = held[place : place + length]
            place += length
        return os.pread(descriptor, entry.size + 1, 0) == bytes(whole)

    def keep(self, content: bytes) -> bytes:
        """Store a content; returns what entries call it."""
        if not content:
            return b""
        name = hashlib.sha256(content).digest() + bytes(24)
        self.store[name] = content
        return name

    def file(self, name: bytes, content: bytes = b"", **more: Any) -> Entry:
        """An entry of a file with that content."""
        fields = {"mode": 0o644, "uid": os.geteuid(), "gid": os.getegid(), "mtime": MTIME, "size": len(content)} | more
        return Entry(name=name, type=EntryType.FILE, content=self.keep(content), **fields)

    def add(self, label: str, folders: Mapping[bytes, Sequence[Entry]], roots: Sequence[bytes] = (b"/",)) -> None:
        """A source by hand: its folders exactly as given."""
        self.sources[label] = [Folder(path=path, entries=tuple(entries)) for path, entries in folders.items()]
        self.roots[label] = tuple(roots)


def entry(name: bytes, kind: EntryType = EntryType.FOLDER, **more: Any) -> Entry:
    """An entry that has no content: by default a folder."""
    fields = {"mode": 0o755, "uid": os.geteuid(), "gid": os.getegid(), "mtime": MTIME} | more
    return Entry(name=name, type=kind, **fields)


def scan(root: Path, at: bytes = b"/srv/www", label: str = "www", reader: MemoryReader | None = None) -> MemoryReader:
    """A snapshot of a folder on disk as if it stood at `at`."""
    reader = reader or MemoryReader()
    folders: list[Folder] = []
    way = parts(at)
    for number, part in enumerate(way):
        last = number == len(way) - 1
        own = _entry(reader, os.fsencode(root), part) if last else entry(part)
        folders.append(Folder(path=b"/" + b"/".join(way[:number]), entries=(own,)))
    _scan(reader, os.fsencode(root), at, folders)
    folders.sort(key=lambda folder: parts(folder.path))
    reader.sources[label] = folders
    reader.roots[label] = (at,)
    return reader


def _scan(reader: MemoryReader, real: bytes, path: bytes, folders: list[Folder]) -> None:
    entries = []
    for name in sorted(os.listdir(real)):
        entries.append(_entry(reader, real + b"/" + name, name))
        if entries[-1].type is EntryType.FOLDER:
            _scan(reader, real + b"/" + name, path.rstrip(b"/") + b"/" + name, folders)
    folders.append(Folder(path=path, entries=tuple(entries)))


def _entry(reader: MemoryReader, real: bytes, name: bytes) -> Entry:
    found = os.lstat(real)
    kind = TYPES[stat.S_IFMT(found.st_mode)]
    made = Entry(
        name=name,
        type=kind,
        mode=stat.S_IMODE(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
        mtime=found.st_mtime_ns,
        size=found.st_size if kind is EntryType.FILE else 0,
        xattrs=xattrs_of(real),
    )
    if found.st_nlink > 1 and kind not in {EntryType.FOLDER, EntryType.SOCKET}:
        made = replace(made, link=b"%d.%d" % (found.st_dev, found.st_ino))
    if kind is EntryType.SYMLINK:
        return replace(made, target=os.readlink(real))
    if kind in {EntryType.CHARACTER_DEVICE, EntryType.BLOCK_DEVICE}:
        return replace(made, device=(os.major(found.st_rdev), os.minor(found.st_rdev)))
    if kind is not EntryType.FILE:
        return made
    content = Path(os.fsdecode(real)).read_bytes()
    if found.st_blocks * 512 < found.st_size and not content.strip(b"\0"):
        return replace(made, content=b"", extents=())
    start = len(content) - len(content.lstrip(b"\0")) & ~4095
    if found.st_blocks * 512 < found.st_size and start:
        return replace(made, content=reader.keep(content[start:]), extents=((start, len(content) - start),))
    return replace(made, content=reader.keep(content))


def xattrs_of(path: bytes) -> dict[bytes, bytes]:
    """All extended attributes, of a symlink its own."""
    names = os.listxattr(path, follow_symlinks=False)
    return {os.fsencode(name): os.getxattr(path, name, follow_symlinks=False) for name in names}


def observe(root: Path) -> dict[bytes, tuple[object, ...]]:
    """All that a restore has to give back, by relative path; hard links as the first name of each group."""
    found: dict[bytes, tuple[object, ...]] = {}
    first: dict[tuple[int, int], bytes] = {}
    top = os.fsencode(root)
    stack = [b""]
    while stack:
        path = stack.pop()
        real = top + (b"/" + path if path else b"")
        status = os.lstat(real)
        content: object = None
        if stat.S_ISDIR(status.st_mode):
            stack.extend(path + b"/" + name if path else name for name in sorted(os.listdir(real), reverse=True))
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(real)
        elif stat.S_ISREG(status.st_mode):
            content = hashlib.sha256(Path(os.fsdecode(real)).read_bytes()).hexdigest()
        else:
            content = status.st_rdev
        shared = not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1
        group = first.setdefault((status.st_dev, status.st_ino), path) if shared else None
        owner = (status.st_uid, status.st_gid)
        found[path] = (oct(status.st_mode), owner, status.st_mtime_ns, content, xattrs_of(real), group)
    return found
