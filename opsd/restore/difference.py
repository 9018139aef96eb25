"""What changed between two snapshots.

Promise: hunks that both share are not read; two versions are equal where type, content and metadata are, wherever their blobs stand.
"""

from collections.abc import Collection, Iterator
from dataclasses import replace
from itertools import groupby

from opsd.model import Content, Entry, Folder, SourceTree
from opsd.repository.listing import HunkPlace, decode_hunk, decode_root, hunks_for, path_parts
from opsd.repository.pagemap import decode_page_hunk
from opsd.repository.reader import SnapshotReader
from opsd.restore.browsing import join
from opsd.values import dataclass

Entries = dict[bytes, Entry]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One path: `kind` is added, removed, changed (type or content) or metadata. The versions are None where it was not."""

    kind: str
    source: str
    path: bytes
    before: Entry | None
    after: Entry | None


def difference(
    old: SnapshotReader, new: SnapshotReader, under: bytes = b"/", sources: Collection[str] = ()
) -> Iterator[Change]:
    """Changes by source, then in order of path parts."""
    before = {tree.label: tree for tree in old.trees()}
    after = {tree.label: tree for tree in new.trees()}
    for label in [*after, *(label for label in before if label not in after)]:
        if sources and label not in sources:
            continue
        for path, entries, others in _pairs(_Side(old, before.get(label), under), _Side(new, after.get(label), under)):
            for name in sorted({*entries, *others}):
                kind = _kind(old, new, entries.get(name), others.get(name))
                full = join(path, name)
                if kind and (full == under or full.startswith(under.rstrip(b"/") + b"/")):
                    yield Change(kind=kind, source=label, path=full, before=entries.get(name), after=others.get(name))


class _Side:
    """One snapshot's hunks of a source."""

    def __init__(self, reader: SnapshotReader, tree: SourceTree | None, under: bytes) -> None:
        self._reader = reader
        root = decode_root(reader.blobs.whole(tree.listing)) if tree else []
        self.hunks: list[HunkPlace] = list(hunks_for(root, under))
        self.contents = {hunk.content for hunk in self.hunks}

    def folders(self, shared: set[Content]) -> Iterator[tuple[bytes, Entries]]:
        """Folders with their entries, the parts of a large one joined; without the hunks that are shared."""
        for path, parts in groupby(self._parts(shared), key=lambda folder: folder.path):
            yield path, {entry.name: entry for part in parts for entry in part.entries}

    def _parts(self, shared: set[Content]) -> Iterator[Folder]:
        for hunk in self.hunks:
            if hunk.content not in shared:
                yield from decode_hunk(self._reader.blobs.whole(hunk.content))


def _pairs(old: _Side, new: _Side) -> Iterator[tuple[bytes, Entries, Entries]]:
    """Each folder that stands on either side, in order."""
    shared = old.contents & new.contents
    left, right = old.folders(shared), new.folders(shared)
    first, second = next(left, None), next(right, None)
    while first or second:
        if second is None or (first and path_parts(first[0]) < path_parts(second[0])):
            assert first
            yield first[0], first[1], {}
            first = next(left, None)
        elif first is None or first[0] != second[0]:
            yield second[0], {}, second[1]
            second = next(right, None)
        else:
            yield first[0], first[1], second[1]
            first, second = next(left, None), next(right, None)


def _kind(old: SnapshotReader, new: SnapshotReader, before: Entry | None, after: Entry | None) -> str:
    """What happened to an entry; empty if nothing did."""
    if before is None:
        return "added"
    if after is None:
        return "removed"
    if before == after:
        return ""
    if (before.type, before.size, before.target, before.device) != (after.type, after.size, after.target, after.device):
        return "changed"
    if not _same_content(old, new, before, after):
        return "changed"
    return "" if _bare(before) == _bare(after) else "metadata"


def _bare(entry: Entry) -> Entry:
    """The entry without where its bytes stand."""
    return replace(entry, content=None, pages=None, extents=None, link=None)


def _same_content(old: SnapshotReader, new: SnapshotReader, before: Entry, after: Entry) -> bool:
    if (before.content, before.pages) == (after.content, after.pages):
        return True
    if (before.pages is None) != (after.pages is None):
        return False
    first, second = _identities(old, before), _identities(new, after)
    return all(one == other for one, other in _side_by_side(first, second))


def _side_by_side(first: Iterator[bytes], second: Iterator[bytes]) -> Iterator[tuple[bytes | None, bytes | None]]:
    while True:
        one, other = next(first, None), next(second, None)
        if one is None and other is None:
            return
        yield one, other


def _identities(reader: SnapshotReader, entry: Entry) -> Iterator[bytes]:
    """What names an entry's bytes: its blobs' ids, or its pages'."""
    if entry.pages is not None:
        for reference in reader.blobs.references(entry.pages):
            for page in decode_page_hunk(bytes(reader.blobs.blob(reference))).pages():
                yield page.prefix
        return
    for reference in reader.blobs.references(entry.content or b""):
        yield reference.id
