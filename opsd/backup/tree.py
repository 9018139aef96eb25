"""Backing up a tree of files: hunks of its listing, unchanged ones reused whole, changed files read and stored.

Promise: every entry found is in the listing or a counted warning; the cache decides only what need not be read again.
"""

from collections import deque
from contextlib import ExitStack, closing

from opsd.backup.entries import EntryStore, Writers
from opsd.backup.fetching import Fetcher
from opsd.backup.grouping import Grouping, Part
from opsd.backup.images import Images, ImageTaker
from opsd.backup.lookup import (
    CONTENT,
    GID,
    SIZE,
    TYPE,
    UID,
    EncodedEntry,
    Extras,
    Lookup,
    Needs,
    Prepared,
    PreparedPart,
    StoredHunk,
    StoredPart,
)
from opsd.backup.reading import FileReader
from opsd.backup.work import Job, Result
from opsd.model import EntryType
from opsd.repository.cutters import ContentWriter, PageWriter
from opsd.repository.listing import HunkPlace, encode_hunk, encode_root, join_entries, pack_tail
from opsd.repository.references import FrameSet
from opsd.repository.writer import LISTING
from opsd.sources.files import FileTree
from opsd.sources.metadata import MetadataReader
from opsd.sources.options import FilesSource

#: Groups that are prepared beyond the one being stored, at most: what they hold in memory is bounded by their entries.
_GROUPS_AHEAD = 8
_REPORT_BYTES = 1024 * 1024


class TreeBackup:
    """Backs up one files source."""

    def __init__(self, job: Job, tree: FileTree, options: FilesSource, image: ImageTaker) -> None:
        self._job = job
        self._tree = tree
        #: Bytes of the group being stored: read and not yet told of, and not told of at all.
        self._read_bytes = self._left_bytes = 0
        self.result = Result(label=job.label, kind="files", roots=tree.roots)
        # A database stored plainly before `sqlite` was set, say, is not known any more.
        job.cache.depend_on(repr((options.sqlite, options.page_map)).encode())
        metadata = MetadataReader()
        self._fetcher = Fetcher(job.parameters.cut_min)
        self._entries = EntryStore(job, options, metadata, self._writers(image), self.result)
        self._lookup = Lookup(job, databases=options.sqlite)
        self._grouping = Grouping(tree, job.cache.hash, self.result)
        self._hunks: list[HunkPlace] = []

    def _writers(self, image: ImageTaker) -> Writers:
        job = self._job
        content = ContentWriter(job.blobs, job.domain, job.parameters, FrameSet())
        pages = PageWriter(job.blobs, job.domain, job.old_blobs(), FrameSet())
        plain = FileReader(content, self._advance, look_for_sqlite=False)
        images = Images(take=image, pages=pages, plain=plain, advance=self._advance, limit=job.parameters.page_bytes)
        return Writers(content=content, pages=pages, images=images, fetcher=self._fetcher, advance=self._advance)

    def _advance(self, size: int) -> None:
        self._read_bytes += size
        if self._read_bytes > _REPORT_BYTES:
            self._report(0, self._read_bytes)

    def _report(self, files: int, size: int) -> None:
        """Whatever was looked at counts, read or known, and counts once, even if it was read twice."""
        size = min(size, self._left_bytes)
        self._job.reporter.advance(files=files, size=size)
        self._left_bytes -= size
        self._read_bytes = 0
        self._job.run.alive()

    def back_up(self) -> Result:
        """Walk the tree and store it.

        Raises:
            SourceError: a root is missing. StorageError, IntegrityError: the run can't go on.
        """
        with ExitStack() as stack:
            stack.enter_context(closing(self._tree.ahead))
            stack.enter_context(closing(self._fetcher))
            waiting: deque[Prepared] = deque()
            for group in self._grouping.groups():
                waiting.append(self._prepare(group))
                while len(waiting) > _GROUPS_AHEAD or (len(waiting) > 1 and self._fetcher.has_enough):
                    self._add_hunk(waiting.popleft())
            while waiting:
                self._add_hunk(waiting.popleft())
        self.result.warnings += self._tree.warnings
        self._finish()
        return self.result

    def _prepare(self, group: list[Part]) -> Prepared:
        """Look up what is known, and have the rest read while earlier groups are stored."""
        prepared = self._lookup.prepare(group)
        expected = (self._entries.expect(folder, seen) for folder, seen in prepared.unread())
        self._fetcher.expect(each for each in expected if each)
        return prepared

    def _finish(self) -> None:
        job, result = self._job, self.result
        result.listing = job.blobs.add_whole(job.domain, encode_root(self._hunks))
        listing = result.listing
        result.frames.add_references(listing if isinstance(listing, bytes) else listing[1])
        result.totals = self._grouping.totals(job.run.place.ring.index(), self._tree.mounts())

    # Hunks

    def _add_hunk(self, prepared: Prepared) -> None:
        self._left_bytes = sum(part.size for part in prepared.group)
        stored = prepared.stored or self._write_hunk(prepared)
        self.result.frames.add_records(stored.frames)
        self.result.page_maps.update(stored.page_maps)
        first = prepared.group[0]
        name = first.entries[0][0] if first.entries else b""
        entries, files, size = stored.totals
        # What is listed counts: journals of databases are not, a file may have vanished, or grown since it was found.
        self.result.files += files
        self.result.bytes += size
        self._hunks.append(
            HunkPlace(
                path=first.folder.path, name=name, content=stored.content, entries=entries, files=files, size=size
            )
        )
        self._report(sum(part.files for part in prepared.group), self._left_bytes)

    def _write_hunk(self, prepared: Prepared) -> StoredHunk:
        job, needs = self._job, Needs()
        users: dict[int, bytes] = {}
        groups: dict[int, bytes] = {}
        parts = [part.stored or self._write_part(part) for part in prepared.parts]
        for part in parts:
            needs.add(part.frames, part.page_maps)
            users.update(part.users)
            groups.update(part.groups)
        folders = [
            (part.folder.path, join_entries(stored.names, stored.tails))
            for part, stored in zip(prepared.group, parts, strict=True)
        ]
        content = job.blobs.add_whole(job.domain, encode_hunk(users, groups, folders), LISTING)
        needs.frames.add_references(content if isinstance(content, bytes) else content[1])
        entries, files, sizes = zip(*(part.totals for part in parts), strict=True)
        hunk = StoredHunk(content, (sum(entries), sum(files), sum(sizes)), needs.frames.encode(), needs.page_maps)
        row = hunk.row() if all(part.lasting for part in parts) else None
        rows = {part.key: stored.row() for part, stored in zip(prepared.group, parts, strict=True)}
        job.cache.keep(prepared.digest, row, rows)
        return hunk

    def _write_part(self, prepared: PreparedPart) -> StoredPart:
        """Read what must be read of a folder, and list all of it."""
        entries: list[EncodedEntry] = []
        tails: list[bytes] = []
        identities: list[bytes] = []
        extras: dict[int, Extras] = {}
        lasting = True
        for seen in prepared.entries:
            entry, more, identity = seen.entry, seen.extras, seen.identity
            if entry is None:
                stored = self._entries.store(prepared.part.folder, seen, prepared.began)
                if stored is None:
                    lasting = False
                    continue
                entry, more = stored.entry, stored.extras
                if not stored.lasting:
                    identity, lasting = b"", False
            if more is not None:
                extras[len(entries)] = more
            entries.append(entry)
            tails.append(seen.tail or pack_tail(entry))
            identities.append(identity)
        part = self._listed(prepared.part, entries, (tails, identities, extras), lasting=lasting)
        listed = {seen.name for seen in prepared.entries}
        part.left_out = [place for place, (name, _) in enumerate(prepared.part.entries) if name not in listed]
        return part

    def _listed(
        self,
        part: Part,
        entries: list[EncodedEntry],
        kept: tuple[list[bytes], list[bytes], dict[int, Extras]],
        *,
        lasting: bool,
    ) -> StoredPart:
        tails, identities, extras = kept
        needs = Needs()
        needs.frames.add_references(b"".join(entry[CONTENT] for entry in entries if isinstance(entry[CONTENT], bytes)))
        for each in extras.values():
            needs.add(*each)
        users = {uid: name for uid in {entry[UID] for entry in entries} if (name := self._entries.user_name(uid))}
        groups = {gid: name for gid in {entry[GID] for entry in entries} if (name := self._entries.group_name(gid))}
        return StoredPart(
            digest=part.digest,
            lasting=lasting,
            left_out=[],
            tails=tails,
            names=[entry[0] for entry in entries],
            totals=(
                len(entries),
                sum(entry[TYPE] == EntryType.FILE for entry in entries),
                sum(entry[SIZE] for entry in entries),
            ),
            identities=identities,
            extras=extras,
            frames=needs.frames.encode(),
            page_maps=needs.page_maps,
            users=users,
            groups=groups,
        )
