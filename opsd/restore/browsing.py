"""Look into a snapshot: its sources' roots, a folder, names that match a pattern, a file's bytes.

Promise: reads only the hunks on the way; content comes in order, holes as zero bytes, verified before it is handed out.
"""

import os
from collections.abc import Collection, Iterator
from typing import Final

from opsd.errors import SnapshotUnknown, UsageError
from opsd.events import Reporter
from opsd.model import Entry, EntryType, Folder, SourceTree
from opsd.repository.pagemap import HUNK_PAGES, decode_page_hunk
from opsd.repository.reader import SnapshotReader
from opsd.sources import patterns
from opsd.values import dataclass

_ZEROS: Final = bytes(1024 * 1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A snapshot as it is written on the command line, `latest` or `3f2a9c:/srv/www`; `path` is absolute, None for all."""

    snapshot: str
    path: bytes | None = None

    @classmethod
    def parse(cls, text: str) -> "Place":
        """Take `SNAPSHOT` or `SNAPSHOT:PATH` apart.

        Raises:
            UsageError: the path has no meaning.
        """
        snapshot, colon, path = text.partition(":")
        if not snapshot or (colon and not path):
            raise UsageError(f"{text!r} is no snapshot", hint="for example: latest, 3f2a9c or latest:/srv/www")
        return cls(snapshot=snapshot, path=clean_path(path) if colon else None)


def clean_path(text: str) -> bytes:
    """An absolute path as bytes, without empty parts and final slash.

    Raises:
        UsageError: it holds `.` or `..`, which listings do not know.
    """
    parts = [part for part in os.fsencode(text).split(b"/") if part]
    if b".." in parts or b"." in parts:
        raise UsageError(f"{text!r} holds . or ..", hint="give the path as it was backed up, from /")
    return b"/" + b"/".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """An entry with its source, full path and its owners' names (None where unknown)."""

    source: str
    path: bytes
    entry: Entry
    owner: bytes | None = None
    group: bytes | None = None


def join(folder: bytes, name: bytes) -> bytes:
    """The full path of a name."""
    return folder.rstrip(b"/") + b"/" + name


def chosen_trees(reader: SnapshotReader, sources: Collection[str]) -> tuple[SourceTree, ...]:
    """The sources of those labels, in the given order; all if none is named.

    Raises:
        SnapshotUnknown: one is not in this snapshot. KeyMissing: the key domain of one is closed.
    """
    return tuple(reader.tree(label) for label in sources) if sources else reader.trees()


def left_out(reader: SnapshotReader, sources: Collection[str], reporter: Reporter) -> tuple[str, ...]:
    """Of the sources of those labels (all if none is named) those whose key domains are closed; each is told as a warning."""
    found = {label: each for label, each in reader.closed().items() if not sources or label in sources}
    for label, closed in found.items():
        reporter.warn(closed.warning(f"source {label}"))
    return tuple(found)


def unknown(reader: SnapshotReader, what: str, hint: str) -> SnapshotUnknown:
    """That a snapshot has no such thing, as far as that can be told where a key domain is closed."""
    text = f"snapshot {reader.summary.id[:8]} has no {what}"
    closed = reader.closed()
    if not closed:
        return SnapshotUnknown(text, hint=hint)
    label, first = next(iter(closed.items()))
    return SnapshotUnknown(
        f"{text} in what can be read; source {label} can't be looked into: {first.problem}", hint=first.hint
    )


def items_of(tree: SourceTree, folder: Folder) -> Iterator[Item]:
    """A folder's entries with their paths."""
    for entry in folder.entries:
        yield Item(
            source=tree.label,
            path=join(folder.path, entry.name),
            entry=entry,
            owner=folder.users.get(entry.uid),
            group=folder.groups.get(entry.gid),
        )


def roots(reader: SnapshotReader, sources: Collection[str]) -> Iterator[Item]:
    """What each source names: its roots, or the files that it made."""
    for tree in chosen_trees(reader, sources):
        if tree.roots:
            found = (look_up(reader, tree, root) for root in tree.roots)
            yield from (item for item in found if item is not None)
        else:
            yield from (item for item in walk(reader, tree) if item.entry.type is not EntryType.FOLDER)


def walk(reader: SnapshotReader, tree: SourceTree, under: bytes = b"/") -> Iterator[Item]:
    """Everything below a folder, in order of path parts."""
    for folder in folders_below(reader, tree, under):
        yield from items_of(tree, folder)


def folders_below(reader: SnapshotReader, tree: SourceTree, under: bytes) -> Iterator[Folder]:
    """A folder and those below it, each before what is in it."""
    inside = under.rstrip(b"/") + b"/"
    for folder in reader.folders(tree, under):
        if join(folder.path, b"").startswith(inside):
            yield folder


def look_up(reader: SnapshotReader, tree: SourceTree, path: bytes) -> Item | None:
    """The entry at a path of one source; None if there is none. The top folder is none: nothing recorded its mode."""
    above, _, name = path.rpartition(b"/")
    for folder in reader.folders(tree, path):
        if folder.path == (above or b"/"):
            for item in items_of(tree, folder):
                if item.entry.name == name:
                    return item
    return None


def locate(reader: SnapshotReader, path: bytes, sources: Collection[str] = ()) -> tuple[SourceTree, Item | None]:
    """The one source that has a path, and its entry (None for `/`).

    Raises:
        SnapshotUnknown: none has it.
        UsageError: several have it.
    """
    trees = chosen_trees(reader, sources)
    if path == b"/":
        found: list[tuple[SourceTree, Item | None]] = [(tree, None) for tree in trees]
    else:
        looked = ((tree, look_up(reader, tree, path)) for tree in trees)
        found = [(tree, item) for tree, item in looked if item is not None]
    if not found:
        raise unknown(reader, shown(path), "'opsd find NAME' and 'opsd ls' tell what it has")
    if len(found) > 1:
        labels = ", ".join(tree.label for tree, _ in found)
        raise UsageError(f"several sources have {shown(path)}: {labels}", hint="choose one with --source")
    return found[0]


def listing(reader: SnapshotReader, path: bytes, sources: Collection[str], *, recursive: bool) -> Iterator[Item]:
    """A folder's entries, or with `recursive` all below it; a file gives itself."""
    tree, item = locate(reader, path, sources)
    if item is not None and item.entry.type is not EntryType.FOLDER:
        yield item
        return
    for folder in reader.folders(tree, path):
        if folder.path == path or (recursive and folder.path.startswith(path.rstrip(b"/") + b"/")):
            yield from items_of(tree, folder)


def search(reader: SnapshotReader, pattern: str, sources: Collection[str]) -> Iterator[Item]:
    """Every entry that a pattern names (as in gitignore).

    Raises:
        ConfigurationError: the pattern can't be read.
    """
    matcher = patterns.compile((pattern,))
    for tree in chosen_trees(reader, sources):
        for item in walk(reader, tree):
            if matcher.matches(item.path, item.entry.name, item.entry.type is EntryType.FOLDER):
                yield item


def content(reader: SnapshotReader, item: Item) -> Iterator[memoryview]:
    """A file's bytes in order, whole.

    Raises:
        IntegrityError: some can't be had.
    """
    for _, pieces in reader.contents([(0, item.entry)]):
        yield from in_order(reader, item.entry, pieces)


def in_order(reader: SnapshotReader, entry: Entry, pieces: Iterator[tuple[int, memoryview]]) -> Iterator[memoryview]:
    """An entry's pieces as one run of bytes: holes filled, pages of one hunk put in order."""
    place = 0
    for offset, piece in _ordered_pages(reader, entry, pieces) if entry.pages is not None else pieces:
        yield from zeros(offset - place)
        yield piece
        place = offset + len(piece)
    yield from zeros(entry.size - place)


def _ordered_pages(
    reader: SnapshotReader, entry: Entry, pieces: Iterator[tuple[int, memoryview]]
) -> Iterator[tuple[int, memoryview]]:
    """Pages come sorted by frame within each hunk of the map: a hunk is gathered, then given in order."""
    first = next(reader.blobs.references(entry.pages or b""), None)
    if first is None:
        return
    span = HUNK_PAGES * decode_page_hunk(bytes(reader.blobs.blob(first))).page_bytes
    gathered: list[tuple[int, memoryview]] = []
    for offset, piece in pieces:
        if gathered and gathered[0][0] // span != offset // span:
            yield from sorted(gathered, key=lambda each: each[0])
            gathered = []
        gathered.append((offset, piece))
    yield from sorted(gathered, key=lambda each: each[0])


def zeros(count: int) -> Iterator[memoryview]:
    """So many zero bytes."""
    while count > 0:
        step = min(count, len(_ZEROS))
        yield memoryview(_ZEROS)[:step]
        count -= step


def about(reader: SnapshotReader, name: str) -> bytes:
    """What the snapshot holds besides its sources: `configuration`, `rescue` or `packages`.

    Raises:
        SnapshotUnknown: it holds no such thing.
    """
    value = reader.part().about.get(name)
    if not value:
        raise SnapshotUnknown(f"snapshot {reader.summary.id[:8]} holds no {name}", hint="it was taken without")
    return reader.blobs.whole(value if isinstance(value, bytes) else (value[0], value[1]))


def shown(path: bytes) -> str:
    """A path as text; bytes that are no UTF-8 as escapes."""
    return path.decode("utf-8", "backslashreplace")
