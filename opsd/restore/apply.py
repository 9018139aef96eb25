"""Carry out a restore of files: folders as they come, contents as they are decoded, metadata last.

Promise: nothing is written outside the target. A file stands there under its name only when it is whole, or with a time of
change that says it is not; what is replaced stays until its successor is whole. What is damaged is left out and named, the rest
goes on. A restore that was cut off goes on where it stopped; one that has returned is on the disk.
"""

import os
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Final

from opsd.errors import IntegrityError, RestoreError
from opsd.events import Reporter
from opsd.model import Entry, EntryType, SourceTree
from opsd.restore import beneath, files, marker
from opsd.restore.complaints import Complaints
from opsd.restore.entries import Entries
from opsd.restore.folders import Folders, Frame, NotEntered
from opsd.restore.links import HardLinks
from opsd.restore.makers import Makers
from opsd.restore.metadata import Metadata
from opsd.restore.owners import Owners
from opsd.restore.placement import Placed, chosen, placed
from opsd.restore.plan import Plan, plan
from opsd.restore.protocol import Pieces, SnapshotReader
from opsd.restore.request import Overwrite, RestoreRequest
from opsd.restore.result import Damage, Result
from opsd.restore.standing import Standing, Standings
from opsd.restore.writers import Writers
from opsd.sources.roots import shown
from opsd.values import dataclass

#: Listed entries that are looked at ahead of the content being written.
_BATCH: Final = 16_384
_NOTHING: Final[Mapping[bytes, Standing]] = {}


def plan_restore(reader: SnapshotReader, request: RestoreRequest) -> Plan:
    """What `apply` would do now; changes nothing.

    Raises:
        RestoreError: no such source or path, or the target can't be read.
        IntegrityError: a listing can't be read.
    """
    trees = chosen(reader, request)
    listing = (each for tree in trees for each in placed(reader, tree, request))
    if not request.in_place:
        return plan(listing, request)
    try:
        root = os.open(request.target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise RestoreError(f"{shown(request.target)} can't be read: {(error.strerror or '').lower()}") from error
    try:
        metadata = Metadata(Owners(numeric=request.numeric_owner), Complaints())
        return plan(listing, request, Standings(reader, request, root, metadata), reader.trees())
    finally:
        os.close(root)


def apply(
    reader: SnapshotReader, request: RestoreRequest, reporter: Reporter, deletions: Sequence[bytes] = ()
) -> Result:
    """Restore; of what the snapshot lacks, only `deletions` (of a plan) go, and only after everything was written.

    Raises:
        RestoreError: the target is not as it must be, full or read-only; nothing else is lost, and the same call goes on.
        TryLater: another restore writes to the target.
    """
    trees = chosen(reader, request)
    with marker.opened(request) as (root, resumed), Writers.begun() as writers:
        if resumed and request.overwrite is Overwrite.NEVER:
            request = replace(request, overwrite=Overwrite.DIFFERENT)
        run = _Run(reader, request, root, writers, resumed=resumed)
        result = run.carry_out(trees, reporter, deletions if request.delete else ())
        if not request.in_place:
            marker.release(root)
    for warning in result.warnings:
        reporter.warn(warning)
    return result


@dataclass(slots=True, eq=False)
class _Work:
    """A folder, how its entries stand, and its frame once it was entered."""

    placed: Placed
    standings: Mapping[bytes, Standing]
    frame: Frame | None = None


class _Run:
    """One restore under way."""

    def __init__(
        self, reader: SnapshotReader, request: RestoreRequest, root: int, writers: Writers, *, resumed: bool
    ) -> None:
        self._reader = reader
        self._request = request
        self._root = root
        self._resumed = resumed
        self._complaints = Complaints()
        self._metadata = Metadata(Owners(numeric=request.numeric_owner), self._complaints)
        looks = resumed or request.in_place
        self._standings = Standings(reader, request, root, self._metadata) if looks else None
        self._links = HardLinks(root, self._metadata, self._complaints)
        self._folders = Folders(root, self._metadata, self._complaints, self._finish)
        self._folders.replace = request.overwrite is not Overwrite.NEVER
        self._entries = Entries(request, self._metadata, self._complaints, self._links, writers)
        self._makers = Makers(root, self._metadata, self._entries)
        self._folders.drain = self._makers.drain
        self._told = (0, 0)
        self._waiting: deque[_Work] = deque()
        self._damaged: list[Damage] = []
        #: Folders where something else belongs: they go when it comes, or not at all.
        self._evicted: set[bytes] = set()

    def carry_out(self, trees: Sequence[SourceTree], reporter: Reporter, deletions: Sequence[bytes]) -> Result:
        """All of it, durable at the end."""
        began = time.monotonic()
        reporter.stage("restore files")
        self._entries.allow(deletions)
        fresh = not (self._resumed or self._request.in_place)
        with closing(self._makers), self._folders.begun(fresh=fresh):
            for tree in trees:
                for batch in self._batches(tree):
                    self._write(batch, reporter)
                self._folders.settle()
        self._tell(reporter)
        deleted = self._delete(deletions)
        self._sync()
        entries = self._entries
        written = dict(entries.written + self._links.written)
        if self._folders.made:
            written["folders"] = self._folders.made
        return Result(
            written=written,
            adjusted=entries.adjusted,
            unchanged=entries.unchanged + self._links.unchanged,
            skipped=entries.skipped,
            deleted=deleted,
            size=entries.bytes,
            seconds=time.monotonic() - began,
            resumed=self._resumed,
            warnings=self._complaints.warnings(),
            warning_count=self._complaints.count(),
            damaged=(*self._damaged, *self._links.damaged),
        )

    def _batches(self, tree: SourceTree) -> Iterator[list[Placed]]:
        batch: list[Placed] = []
        entries = 0
        try:
            for each in placed(self._reader, tree, self._request):
                batch.append(each)
                entries += 1 + len(each.entries)
                if entries >= _BATCH:
                    yield batch
                    batch, entries = [], 0
        except IntegrityError as error:
            self._damage(f"source {tree.label}", error)
        if batch:
            yield batch

    def _write(self, batch: list[Placed], reporter: Reporter) -> None:
        with closing(self._contents(batch)) as contents:
            for (work, entry), pieces in contents:
                if work.frame is None:
                    self._catch_up(work)
                self._file(work, entry, pieces)
                if self._entries.files - self._told[0] >= 256 or self._entries.bytes - self._told[1] >= 4 << 20:
                    self._tell(reporter)
        self._catch_up(None)

    def _tell(self, reporter: Reporter) -> None:
        """Report what was done since the last time."""
        now = (self._entries.files, self._entries.bytes)
        reporter.advance(files=now[0] - self._told[0], size=now[1] - self._told[1])
        self._told = now

    def _contents(self, batch: list[Placed]) -> Generator[tuple[tuple[_Work, Entry], Pieces], None, None]:
        yield from self._reader.contents(self._asked(batch))

    def _asked(self, batch: list[Placed]) -> Iterator[tuple[tuple[_Work, Entry], Entry]]:
        """Look at each folder ahead of its writing, and ask for what has to be written."""
        for each in batch:
            work = _Work(each, self._standings.look(each) if self._standings is not None else _NOTHING)
            asked = [
                entry
                for entry in each.entries
                if (entry.content or entry.pages is not None) and self._is_asked(work, entry)
            ]
            self._waiting.append(work)
            self._evicted.update(each.at(name) for name, found in work.standings.items() if found is Standing.EVICTED)
            for entry in asked:
                yield (work, entry), entry

    def _is_asked(self, work: _Work, entry: Entry) -> bool:
        standing = work.standings.get(entry.name, Standing.ABSENT) if work.standings else Standing.ABSENT
        if standing >= Standing.KEPT or (entry.link is not None and not self._links.is_first(work.placed, entry)):
            return False
        return standing not in {Standing.SAME, Standing.METADATA}

    def _catch_up(self, until: _Work | None) -> None:
        """Enter the folders that were looked at, up to the one whose content has come."""
        while self._waiting:
            work = self._waiting.popleft()
            self._enter(work)
            if work is until:
                return

    def _enter(self, work: _Work) -> None:
        try:
            frame = work.frame = self._folders.enter(work.placed)
        except NotEntered:
            for entry in work.placed.entries:
                self._complaints.add(work.placed.at(entry.name), "not restored: its folder could not be made or opened")
            return
        except IntegrityError as error:
            self._damage(shown(work.placed.path), error)
            return
        for entry in work.placed.entries:
            if entry.type is EntryType.FOLDER:
                frame.pending[entry.name] = (entry, work.placed)
            elif work.standings or not entry.content or entry.link is not None:
                self._entry(work, frame, entry)

    def _entry(self, work: _Work, frame: Frame, entry: Entry) -> None:
        """All but what its content comes for."""
        standing = work.standings.get(entry.name, Standing.ABSENT)
        if standing in {Standing.SAME, Standing.METADATA, Standing.KEPT, Standing.BLOCKED}:
            self._entries.left(frame, work.placed, entry, standing)
        elif entry.type is not EntryType.FILE:
            self._entries.node(frame, work.placed, entry, standing)
        elif entry.link is not None and not self._links.is_first(work.placed, entry):
            frame.links.append((entry, work.placed, standing))
        elif not entry.content and entry.pages is None:
            self._file(work, entry, iter(()))

    def _file(self, work: _Work, entry: Entry, pieces: Pieces) -> None:
        frame = work.frame
        if frame is None:
            return
        standing = work.standings.get(entry.name, Standing.ABSENT) if work.standings else Standing.ABSENT
        try:
            if standing is Standing.ABSENT and self._makers.take(frame, work.placed, entry, pieces):
                return
            self._entries.file(frame, work.placed, entry, standing, pieces)
        except IntegrityError as error:
            self._damage(shown(work.placed.at(entry.name)), error)

    def _damage(self, path: str, error: IntegrityError) -> None:
        self._damaged.append(Damage(path=path, problem=str(error)))

    def _finish(self, frame: Frame) -> None:
        for entry, where, standing in frame.links:
            self._links.make(frame, where, entry, standing)
        frame.links.clear()

    def _delete(self, deletions: Sequence[bytes]) -> int:
        if deletions and (self._damaged or self._links.damaged):
            hint = "restore another snapshot, or look at what is damaged first"
            self._complaints.add(deletions[0], "nothing was deleted, because something could not be restored", hint)
            return self._entries.evicted
        deleted = 0
        for path in deletions:
            if path in self._evicted:
                continue
            folder, _, name = path.rpartition(b"/")
            try:
                with beneath.folder(self._root, folder) as above:
                    before = os.fstat(above).st_mtime_ns
                    files.remove(above, name)
                    os.utime(b"/proc/self/fd/%d" % above, ns=(before, before))
                deleted += 1
            except FileNotFoundError:
                continue
            except OSError as error:
                self._complaints.failed(path, "could not be deleted", error)
        return deleted + self._entries.evicted

    def _sync(self) -> None:
        try:
            if self._request.in_place:
                os.sync()  # What was written may stand on several file systems.
            else:
                beneath.sync(self._root)
        except OSError as error:
            self._complaints.failed(self._request.target, "could not be made durable", error)
            raise RestoreError(f"{shown(self._request.target)} could not be made durable: {error.strerror}") from error
