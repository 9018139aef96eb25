"""Walk trees of files in the order of a listing.

Promise: never follows a symlink: a folder is listed only if it still is the one that was found. Each folder comes before
what is in it, by the parts of its path. What can't be read is a counted warning; a root that can't is a SourceError before anything
is read. A subtree that is left out is not entered.

What is left out, in this order:
- folders in `skip` (repository, state, cache), and with `one_file_system` mount points, are listed as empty;
- of a folder with a valid CACHEDIR.TAG only the tag is kept;
- what an `exclude` pattern names, unless an `include` pattern names it as well: then it is kept with all below it. Excluded
  folders on the way to an anchored include (`/srv/www/cache/keep/`) are passed through; for one without (`*.conf`) they are not, as in git.
A root named inside another one is never left out.
"""

import os
import stat
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from enum import Enum, auto

from opsd.errors import SourceError
from opsd.events import Reporter, Warning
from opsd.sources import patterns, roots
from opsd.sources.ahead import ReadAhead
from opsd.sources.opening import open_folder, same_file
from opsd.sources.options import FilesSource
from opsd.sources.protocol import Found, FoundFolder
from opsd.sources.roots import join, shown
from opsd.sources.sqlite import COMPANIONS
from opsd.values import dataclass

#: A larger folder comes in parts, so that memory doesn't grow with it.
PART_ENTRIES = 16_384
_TAG = b"CACHEDIR.TAG"
#: https://bford.info/cachedir/
_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"
_ENCODING = sys.getfilesystemencoding()
_NONE: Mapping[bytes, bytes] = {}


class _Mode(Enum):
    """What is taken of a folder."""

    WAY = auto()  # Names that lead to a root.
    CHOSEN = auto()  # Left out, but for what include patterns name.
    FILTERED = auto()  # All but what exclude patterns name.
    WHOLE = auto()  # All: an include pattern named it.


@dataclass(frozen=True, slots=True)
class _Visit:
    """A folder to be listed; `device` is its root's, `found` what its parent's listing says of it."""

    path: bytes
    real: bytes
    mode: _Mode
    device: int
    found: os.stat_result


class FileTree:
    """The trees of one files source. `frozen` maps paths to where a file-system snapshot shows them (opsd.sources.freeze)."""

    def __init__(
        self,
        label: str,
        options: FilesSource,
        reporter: Reporter,
        *,
        skip: frozenset[bytes] = frozenset(),
        frozen: Mapping[bytes, bytes] = _NONE,
    ) -> None:
        """Find the roots.

        Raises:
            SourceError: a root is missing, can't be read or is a folder to skip.
        """
        self.label = label
        self.warnings = 0
        self._options = options
        self._reporter = reporter
        self._skip = frozenset(os.path.realpath(path) for path in skip)
        self._frozen = dict(frozen)
        #: Brings folders and files into the cache before they are read, where the disk is slow.
        self.ahead = ReadAhead()
        self._exclude = patterns.compile(options.exclude)
        self._include = patterns.compile(options.include)
        found = roots.find(label, options.paths)
        self._ways = found.ways
        self._named = frozenset(found.paths)
        #: Where the roots are, sorted, none below another; symlinks on the way are resolved.
        self.roots = tuple(path for path in found.paths if not self._named.intersection(_above(path)))
        self._refuse_skipped_roots()
        for path in found.links:
            self._warn(
                path, "is a symlink to a folder: only the link is kept", "add a slash at the end for what it leads to"
            )

    def mounts(self) -> dict[bytes, bool]:
        """For each root whether it is a mount point now; for the shrink guard."""
        return roots.mounts(self.roots)

    def folders(self) -> Iterator[FoundFolder]:
        """All folders, with what is kept of each."""
        with closing(self.ahead):
            yield from self._walk()

    def _walk(self) -> Iterator[FoundFolder]:
        real = self._frozen.get(b"/", b"/")
        top = os.lstat(real)
        mode = _Mode.FILTERED if b"/" in self._named else _Mode.WAY
        stack = [_Visit(b"/", real, mode, top.st_dev, top)]
        while stack:
            visit = stack.pop()
            self.ahead.folders(visit.real, (each.real for each in reversed(stack) if each.mode is not _Mode.WAY))
            below: list[_Visit] = []
            try:
                yield from self._list(visit, below)
            except OSError as cause:
                self._warn(visit.path, f"the folder can't be read: {_reason(cause)}", _remedy(cause))
            stack.extend(reversed(below))

    def _list(self, visit: _Visit, below: list[_Visit]) -> Iterator[FoundFolder]:
        with open_folder(visit.real, listed=visit.mode is not _Mode.WAY) as folder:
            if not same_file(os.fstat(folder), visit.found):
                raise OSError("it was replaced since it was found")
            names = self._names(visit, folder)
            for part, cut in enumerate(_cuts(names)):
                kept, modes = self._keep(visit, self._examine(visit, folder, names[cut]))
                below += [
                    self._visit(visit, name, status, modes.get(name, visit.mode))
                    for name, status in kept
                    if stat.S_ISDIR(status.st_mode)
                ]
                complete = visit.mode in {_Mode.FILTERED, _Mode.WHOLE}
                yield FoundFolder(path=visit.path, real=visit.real, entries=kept, complete=complete, part=part)

    def _names(self, visit: _Visit, folder: int) -> Sequence[bytes]:
        """The names to look at, sorted as bytes."""
        way = self._ways.get(visit.path, ())
        if visit.mode is _Mode.WAY:
            return way
        names = sorted([name.encode(_ENCODING, "surrogateescape") for name in os.listdir(folder)])
        tagged = self._options.exclude_caches and visit.mode is _Mode.FILTERED and _TAG in names and _is_cache(folder)
        if tagged and visit.path in self._named:
            self._warn(
                visit.path, "is tagged as a cache: only the tag is kept", "set 'exclude_caches: false' to keep all"
            )
        return sorted({_TAG, *way}) if tagged else names

    def _examine(self, visit: _Visit, folder: int, names: Sequence[bytes]) -> list[Found]:
        began = time.monotonic()
        try:
            found = [(name, os.stat(name, dir_fd=folder, follow_symlinks=False)) for name in names]
        except OSError:
            found = self._examine_singly(visit, folder, names)
        self.ahead.examined(time.monotonic() - began, len(names))
        if not self._frozen:
            return found
        return [(name, self._moved(visit, name, status)) for name, status in found]

    def _moved(self, visit: _Visit, name: bytes, found: os.stat_result) -> os.stat_result:
        """The lstat from where the entry is to be read under a file-system snapshot; notes that place for the visit."""
        path = join(visit.path, name)
        # A btrfs snapshot shows subvolumes in it as empty folders of inode 2; snapshots that other runs made stay so.
        hidden = found.st_ino == 2 and visit.real != visit.path and not name.startswith(b"opsd-")
        if stat.S_ISDIR(found.st_mode) and (hidden or visit.mode is _Mode.WAY):
            self._frozen.setdefault(path, path)
        real = self._frozen.get(path)
        return os.lstat(real) if real else found

    def _examine_singly(self, visit: _Visit, folder: int, names: Sequence[bytes]) -> list[Found]:
        found: list[Found] = []
        for name in names:
            try:
                found.append((name, os.stat(name, dir_fd=folder, follow_symlinks=False)))
            except FileNotFoundError:
                self._warn(join(visit.path, name), "vanished while its folder was read")
            except OSError as cause:
                self._warn(join(visit.path, name), f"can't be examined: {_reason(cause)}", _remedy(cause))
        return found

    def _keep(self, visit: _Visit, found: list[Found]) -> tuple[list[Found], dict[bytes, _Mode]]:
        """What is kept, and how folders are visited where it differs from `visit`. Mostly no pattern is tried at all."""
        if visit.mode in {_Mode.WAY, _Mode.WHOLE}:
            return found, {}
        names = [name for name, _ in found]
        doubtful = names if visit.mode is _Mode.CHOSEN else self._exclude.candidates(names)
        if not doubtful:
            return found, {}
        judged = {
            name: self._judge(visit, name, is_folder=stat.S_ISDIR(status.st_mode))
            for name, status in found
            if name in doubtful
        }
        kept = [(name, status) for name, status in found if judged.get(name, visit.mode) is not None]
        return kept, {name: mode for name, mode in judged.items() if mode is not None}

    def _judge(self, visit: _Visit, name: bytes, *, is_folder: bool) -> _Mode | None:
        """How the entry is kept; None: not at all."""
        path = join(visit.path, name)
        if visit.mode is _Mode.FILTERED and not self._exclude.matches(path, name, is_folder):
            return _Mode.FILTERED
        if self._include.matches(path, name, is_folder):
            return _Mode.WHOLE
        leads = name in self._ways.get(visit.path, ()) or (
            is_folder and self._include.reaches(path, anchored_only=True)
        )
        return _Mode.CHOSEN if leads else None

    def _visit(self, above: _Visit, name: bytes, found: os.stat_result, mode: _Mode) -> _Visit:
        path = join(above.path, name)
        real = self._frozen.get(path) or join(above.real, name)
        if path in self._named:
            return _Visit(path, real, _Mode.FILTERED, found.st_dev, found)
        if path in self._skip:
            self._reporter.tell(f"{shown(path)} is opsd's own and is left out")
            mode = _Mode.WAY
        elif self._options.one_file_system and mode is not _Mode.WAY and found.st_dev != above.device:
            mode = _Mode.WAY
        return _Visit(path, real, mode, above.device, found)

    def _refuse_skipped_roots(self) -> None:
        for path in sorted(self._named & self._skip):
            hint = "name other paths: this is the repository, a copy, the state folder or the cache"
            raise SourceError(self.label, f"{shown(path)} is opsd's own", hint=hint)

    def _warn(self, path: bytes, problem: str, hint: str | None = None) -> None:
        self.warnings += 1
        self._reporter.warn(Warning(subject=shown(path), problem=problem, hint=hint))


def _cuts(names: Sequence[bytes]) -> Iterator[slice]:
    """The parts of a folder; a database and its journals stand in one."""
    start = 0
    while start < len(names) or not start:
        end = start + PART_ENTRIES
        while end < len(names) and _divides(names, end):
            end += 1
        yield slice(start, end)
        start = end


def _divides(names: Sequence[bytes], end: int) -> bool:
    """Whether a name before `end` has a journal from there on. Whatever stands between the two begins with the first."""
    name = names[end]
    bases = (name[:length] for length in range(1, len(name)))
    journals = (base + suffix for base in bases for suffix in COMPANIONS if base + suffix >= name and _has(names, base))
    return any(_has(names, journal) for journal in journals)


def _has(names: Sequence[bytes], name: bytes) -> bool:
    place = bisect_left(names, name)
    return place < len(names) and names[place] == name


def _above(path: bytes) -> Iterator[bytes]:
    while path != b"/":
        path = os.path.dirname(path)
        yield path


def _is_cache(folder: int) -> bool:
    try:
        tag = os.open(_TAG, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return False
    try:
        return stat.S_ISREG(os.fstat(tag).st_mode) and os.read(tag, len(_SIGNATURE)) == _SIGNATURE
    finally:
        os.close(tag)


def _reason(cause: OSError) -> str:
    return (cause.strerror or str(cause)).lower()


def _remedy(cause: OSError) -> str | None:
    return "run as root or with CAP_DAC_READ_SEARCH" if isinstance(cause, PermissionError) else None
