"""Choose what of a snapshot is restored, and where below the target each folder goes.

Promise: pure and streaming: folders come before what is in them, one at a time. A listing that is out of order, names something
twice or holds a name that is no name (`..`, with a slash) is an IntegrityError.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Final

from opsd.errors import IntegrityError, RestoreError
from opsd.model import Entry, EntryType, Folder, SourceTree
from opsd.restore.protocol import SnapshotReader
from opsd.restore.request import RestoreRequest
from opsd.sources import patterns
from opsd.sources.patterns import Matcher
from opsd.sources.roots import join, shown
from opsd.values import dataclass

_NO_NAMES: Final = frozenset({b"", b".", b".."})


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A folder, or a part of one, and the entries of it that are restored.

    `path` is relative to the target, empty for the target itself. `way`: the folder only leads to what is restored, so in place
    it is made where missing and else left alone. `itself` is the folder's own entry where no folder above it is restored.
    """

    tree: SourceTree
    source: bytes
    path: bytes
    entries: Sequence[Entry]
    users: Mapping[int, bytes] = field(default_factory=dict)
    groups: Mapping[int, bytes] = field(default_factory=dict)
    way: bool = False
    itself: Entry | None = None

    def at(self, name: bytes) -> bytes:
        """Where an entry of it goes, relative to the target."""
        return self.path + b"/" + name if self.path else name


@dataclass(frozen=True, slots=True)
class _Pick:
    """What is taken of a folder of the listing."""

    folder: Folder
    entries: Sequence[Entry]
    way: bool
    itself: Entry | None = None


def chosen(reader: SnapshotReader, request: RestoreRequest) -> tuple[SourceTree, ...]:
    """The sources that a request is about.

    Raises:
        RestoreError: the snapshot has no such source, or none of them holds the path asked for.
    """
    trees = {tree.label: tree for tree in reader.trees()}
    unknown = [label for label in request.sources if label not in trees]
    if unknown:
        text = f"the snapshot has no source {', '.join(unknown)}"
        raise RestoreError(text, hint="it has " + (", ".join(trees) or "none"))
    found = tuple(trees[label] for label in request.sources) if request.sources else tuple(trees.values())
    if request.under() == b"/":
        return found
    holding = tuple(tree for tree in found if any(True for _ in placed(reader, tree, request)))
    if not holding:
        raise RestoreError(
            f"the snapshot holds no {shown(request.under())}", hint="'opsd ls SNAPSHOT' lists what it holds"
        )
    return holding


def placed(reader: SnapshotReader, tree: SourceTree, request: RestoreRequest) -> Iterator[Placed]:
    """What of one source is restored, in order of path parts.

    Raises:
        IntegrityError: the listing can't be read, or is not one.
    """
    subtree = request.under()
    picks: Iterator[_Pick] = (
        _Pick(folder, folder.entries, False) for folder in _checked(tree, reader.folders(tree, subtree))
    )
    if subtree != b"/":
        picks = _below(picks, subtree, ways=request.in_place)
    if request.patterns:
        picks = _matching(picks, patterns.compile(request.patterns))
    for pick in picks:
        path = _destination(pick.folder.path, subtree, tree, request)
        yield Placed(
            tree=tree,
            source=pick.folder.path,
            path=path,
            entries=pick.entries,
            users=pick.folder.users,
            groups=pick.folder.groups,
            way=pick.way or (request.in_place and not below_roots(tree, pick.folder.path)),
            itself=pick.itself,
        )


def below_roots(tree: SourceTree, path: bytes) -> bool:
    """Whether a path is one of the source's roots or stands in one."""
    return any(is_below(path, root) for root in tree.roots)


def is_below(path: bytes, folder: bytes) -> bool:
    """Whether a path is the folder or stands in it."""
    return folder in {b"/", path} or path.startswith(folder + b"/")


def _destination(path: bytes, subtree: bytes, tree: SourceTree, request: RestoreRequest) -> bytes:
    if request.in_place:
        return path[1:]
    if request.subtree is not None:
        return path[len(subtree) :].lstrip(b"/") if is_below(path, subtree) else b""
    label = os.fsencode(tree.label)
    if not _is_name(label):
        raise IntegrityError(
            f"a source is called {tree.label!r}, which is no name for a folder", hint="name the path to restore"
        )
    return label if path == b"/" else label + path


def _checked(tree: SourceTree, folders: Iterable[Folder]) -> Iterator[Folder]:
    """The same folders, once their order and their names are known to be sound."""
    before: list[bytes] | None = None
    last = b""
    for folder in folders:
        parts = _parts(tree, folder.path)
        if before is not None and parts < before:
            raise _unsound(tree, folder.path, "it is out of order")
        if parts != before:
            last = b""
        for entry in folder.entries:
            if not _is_name(entry.name) or entry.name <= last:
                raise _unsound(tree, join(folder.path, entry.name), "it is no name, out of order or there twice")
            last = entry.name
        before = parts
        yield folder


def _parts(tree: SourceTree, path: bytes) -> list[bytes]:
    if path == b"/":
        return []
    parts = path.split(b"/")
    if not path or parts[0] or not all(_is_name(part) for part in parts[1:]):
        raise _unsound(tree, path, "it is no absolute path")
    return parts[1:]


def _is_name(name: bytes) -> bool:
    return name not in _NO_NAMES and b"/" not in name and b"\0" not in name


def _unsound(tree: SourceTree, path: bytes, problem: str) -> IntegrityError:
    text = f"the listing of source {tree.label} can't be trusted at {shown(path)}: {problem}"
    return IntegrityError(text, hint="nothing of it was written; restore another snapshot, and run 'opsd check'")


def _below(picks: Iterable[_Pick], subtree: bytes, *, ways: bool) -> Iterator[_Pick]:
    """Narrow to a path. Into a fresh place, the way there is left out and the path's own entry stands for the target."""
    above, _, name = subtree.rpartition(b"/")
    for pick in picks:
        path = pick.folder.path
        if is_below(path, subtree):
            yield pick
            continue
        last = path == (above or b"/")
        if not is_below(subtree, path) or not (ways or last):
            continue
        step = name if last else subtree[len(path.rstrip(b"/")) + 1 :].partition(b"/")[0]
        entries = tuple(entry for entry in pick.entries if entry.name == step)
        if not entries:
            continue
        if ways or entries[0].type is not EntryType.FOLDER:
            yield _Pick(pick.folder, entries, True)
        else:
            yield _Pick(pick.folder, (), False, entries[0])


@dataclass(slots=True)
class _Level:
    """A folder on the way to the one being looked at: its subfolders, and which were yielded."""

    path: bytes
    folders: dict[bytes, tuple[_Pick, Entry]]
    yielded: set[bytes]


def _matching(picks: Iterable[_Pick], matcher: Matcher) -> Iterator[_Pick]:
    """Narrow to what patterns select; folders on the way come when something in them does."""
    levels: list[_Level] = []
    for pick in picks:
        path = pick.folder.path
        while levels and not is_below(path, levels[-1].path):
            levels.pop()
        entries = tuple(
            entry
            for entry in pick.entries
            if matcher.selects(join(path, entry.name), is_folder=entry.type is EntryType.FOLDER)
        )
        own = matcher.selects(path, is_folder=True)
        if entries or own:
            yield from _ways(levels, path)
            yield _Pick(pick.folder, entries, pick.way or not own, pick.itself)
        if not levels or levels[-1].path != path:
            levels.append(_Level(path, {}, set()))
        folders = {entry.name: (pick, entry) for entry in pick.entries if entry.type is EntryType.FOLDER}
        levels[-1].folders.update(folders)
        levels[-1].yielded.update(entry.name for entry in entries)


def _ways(levels: list[_Level], path: bytes) -> Iterator[_Pick]:
    for level in levels:
        if level.path == path:
            return
        name = path[len(level.path.rstrip(b"/")) + 1 :].partition(b"/")[0]
        found = level.folders.get(name)
        if found is not None and name not in level.yielded:
            level.yielded.add(name)
            yield _Pick(found[0].folder, (found[1],), True)
