"""Compare restored files with the listing: read again from the disk, by threads.

Promise: each name of the listing is looked at, and each name that stands there and is in no listing is told. What the restore has
verified is verified again, from what it wrote.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import field
from itertools import groupby
from pathlib import Path
from typing import Final

from opsd.events import Reporter
from opsd.model import Entry, EntryType, SourceTree
from opsd.repository.reader import SnapshotReader
from opsd.restore import beneath
from opsd.restore.complaints import Complaints
from opsd.restore.metadata import Metadata
from opsd.restore.owners import Owners
from opsd.restore.placement import Placed, placed
from opsd.restore.request import RestoreRequest
from opsd.sources.roots import shown
from opsd.sources.sqlite import is_database
from opsd.values import dataclass
from opsd.verify.expectations import Deviation, Verdict, entry_problems, worse

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_THREADS: Final = max(2, min(8, os.cpu_count() or 2))
#: What a thread takes at once: so many entries, or so many bytes.
_ENTRIES: Final = 512
_BYTES: Final = 64 << 20
_WAITING: Final = 4 * _THREADS
#: More is counted, but not kept.
MOST_KEPT: Final = 1000


@dataclass(slots=True)
class Compared:
    """What was found: deviations (at most MOST_KEPT of `count`), files read and their bytes, SQLite databases among them.

    `listed`: files and bytes of the listing.
    """

    deviations: list[Deviation] = field(default_factory=list)
    count: int = 0
    listed: tuple[int, int] = (0, 0)
    files: int = 0
    size: int = 0
    databases: list[bytes] = field(default_factory=list)
    worst: Verdict = Verdict.GREEN

    def add(self, other: "Compared") -> None:
        """Join another's."""
        self.deviations += other.deviations[: MOST_KEPT - len(self.deviations)]
        for name in ("count", "files", "size"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.databases += other.databases
        self.worst = worse(self.worst, other.worst)

    def deviates(self, deviation: Deviation) -> None:
        """One more."""
        self.count += 1
        self.worst = worse(self.worst, deviation.severity)
        if len(self.deviations) < MOST_KEPT:
            self.deviations.append(deviation)


@dataclass(frozen=True, slots=True)
class _Task:
    """A part of a folder. `names`: all that belongs into the folder, with the first part only."""

    placed: Placed
    entries: Sequence[Entry]
    names: frozenset[bytes] | None


class FileComparison:
    """Compares one source. `forgiving`: the restore could not set some metadata and has said so, so those only deviate."""

    def __init__(self, reader: SnapshotReader, target: Path, reporter: Reporter, *, forgiving: bool) -> None:
        self._reader = reader
        self._target = target
        self._reporter = reporter
        self._severity = Verdict.DEVIATING if forgiving else Verdict.RED
        self._owners = Owners(numeric=False)
        self._metadata = Metadata(self._owners, Complaints())
        self._root = os.geteuid() == 0
        self._links: dict[bytes, tuple[int, int]] = {}

    def compare(self, tree: SourceTree) -> Compared:
        """All of a source.

        Raises:
            IntegrityError: its listing can't be read.
        """
        self._links = {}
        request = RestoreRequest(
            snapshot=self._reader.summary.id, target=os.fsencode(self._target), sources=(tree.label,)
        )
        found = Compared()
        root = os.open(self._target, beneath.PASSED & ~os.O_NOFOLLOW)
        try:
            with ThreadPoolExecutor(_THREADS, thread_name_prefix="opsd-compare") as pool:
                waiting: list[Future[Compared]] = []
                for task in _tasks(placed(self._reader, tree, request)):
                    files = [entry.size for entry in task.entries if entry.type is EntryType.FILE]
                    found.listed = (found.listed[0] + len(files), found.listed[1] + sum(files))
                    waiting.append(pool.submit(self._look, root, task))
                    if len(waiting) >= _WAITING:
                        self._take(found, waiting.pop(0))
                for each in waiting:
                    self._take(found, each)
        finally:
            os.close(root)
        return found

    def _take(self, found: Compared, coming: Future[Compared]) -> None:
        part = coming.result()
        self._reporter.advance(files=part.files, size=part.size)
        found.add(part)

    def _look(self, root: int, task: _Task) -> Compared:
        """Compare a part of a folder."""
        found = Compared()
        label = task.placed.tree.label
        try:
            folder = beneath.open_folder(root, task.placed.path, beneath.LISTED)
        except OSError:
            # Its own entry in the folder above is told; here each name that is lost with it.
            for entry in task.entries:
                if entry.type is not EntryType.SOCKET:
                    found.deviates(_deviation(task, entry, "is missing", Verdict.RED))
            return found
        try:
            if task.names is not None:
                for name in sorted(set(map(os.fsencode, os.listdir(folder))) - task.names):
                    subject = shown(task.placed.source.rstrip(b"/") + b"/" + name)
                    found.deviates(Deviation(source=label, subject=subject, problem="is there and not in the snapshot"))
            for entry in task.entries:
                if entry.type is not EntryType.SOCKET:  # No restore makes one.
                    self._entry(found, folder, task, entry)
        finally:
            os.close(folder)
        return found

    def _entry(self, found: Compared, folder: int, task: _Task, entry: Entry) -> None:
        try:
            status = os.stat(entry.name, dir_fd=folder, follow_symlinks=False)
            target = os.readlink(entry.name, dir_fd=folder) if entry.type is EntryType.SYMLINK else None
        except OSError:
            # Only root makes devices, and the restore has said so.
            severity = Verdict.RED if entry.device is None or self._root else self._severity
            found.deviates(_deviation(task, entry, "is missing", severity))
            return
        problems = self._metadata_problems(folder, task.placed, entry, status, target)
        wrong = self._content_problem(found, folder, task, entry, status)
        if wrong:
            found.deviates(_deviation(task, entry, "; ".join([wrong, *problems]), Verdict.RED))
        elif problems:
            found.deviates(_deviation(task, entry, "; ".join(problems), self._severity))

    def _metadata_problems(
        self, folder: int, names: Placed, entry: Entry, status: os.stat_result, target: bytes | None
    ) -> list[str]:
        owner = None
        if self._root:
            owner = (self._owners.user(entry.uid, names.users), self._owners.group(entry.gid, names.groups))
        problems = list(entry_problems(entry, status, owner, target))
        if not problems and self._metadata.differs(b"/proc/self/fd/%d/%s" % (folder, entry.name), status, entry, names):
            problems.append("has other attributes")
        if entry.link is not None:
            inode = (status.st_dev, status.st_ino)
            if self._links.setdefault(entry.link, inode) != inode:
                problems.append("is no hard link any more")
        return problems

    def _content_problem(
        self, found: Compared, folder: int, task: _Task, entry: Entry, status: os.stat_result
    ) -> str | None:
        """Read a file again."""
        if entry.type is not EntryType.FILE or not stat.S_ISREG(status.st_mode):
            return None
        found.files += 1
        try:
            descriptor = opened(entry.name, folder, status)
        except OSError as error:
            return f"can't be read: {(error.strerror or str(error)).lower()}"
        try:
            if entry.pages is not None and is_database(os.pread(descriptor, 16, 0)):
                found.databases.append(task.placed.at(entry.name))
            if status.st_size != entry.size:
                return "has other content"
            found.size += entry.size
            return None if self._reader.same(task.placed.tree, entry, descriptor) else "has other content"
        except OSError as error:
            return f"can't be read: {(error.strerror or str(error)).lower()}"
        finally:
            os.close(descriptor)


def opened(name: bytes, folder: int, status: os.stat_result) -> int:
    """A descriptor of a restored file, also where its mode lets not even its owner read it, as whom a drill without root's rights restored it.

    Raises:
        OSError: it can't be read.
    """
    try:
        return os.open(name, _READ, dir_fd=folder)
    except PermissionError:
        if status.st_uid != os.geteuid():
            raise
    os.chmod(name, stat.S_IMODE(status.st_mode) | stat.S_IRUSR, dir_fd=folder)
    try:
        return os.open(name, _READ, dir_fd=folder)
    finally:
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=folder)  # Another name of it may yet be compared.


def _deviation(task: _Task, entry: Entry, problem: str, severity: Verdict) -> Deviation:
    subject = shown(task.placed.source.rstrip(b"/") + b"/" + entry.name)
    return Deviation(source=task.placed.tree.label, subject=subject, problem=problem, severity=severity)


def _tasks(folders: Iterator[Placed]) -> Iterator[_Task]:
    """Folders in portions; the parts of a large one are joined to know its names."""
    for _, parts in groupby(folders, key=lambda each: each.path):
        found = list(parts)
        names: frozenset[bytes] | None = frozenset(entry.name for part in found for entry in part.entries)
        for part in found:
            for entries in _portions(part.entries):
                yield _Task(part, entries, names)
                names = None
        if names is not None:  # An empty folder.
            yield _Task(found[0], (), names)


def _portions(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    begin = size = 0
    for place, entry in enumerate(entries):
        size += entry.size
        if size >= _BYTES or place - begin >= _ENTRIES:
            yield entries[begin : place + 1]
            begin, size = place + 1, 0
    if begin < len(entries):
        yield entries[begin:]


def sparse_size(reader: SnapshotReader, tree: SourceTree) -> int:
    """Bytes that a source needs in scratch, holes left out; reads its listing."""
    size = 0
    counted: set[bytes] = set()
    for folder in reader.folders(tree):
        for entry in folder.entries:
            size += 4096
            if entry.link is not None:
                if entry.link in counted:
                    continue
                counted.add(entry.link)
            size += sum(length for _, length in entry.extents) if entry.extents is not None else entry.size
    return size
