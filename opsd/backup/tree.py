"""Backing up a tree of files: hunks of its listing, unchanged ones reused whole, changed files read and stored.

Promise: every entry found is in the listing or a counted warning; the cache decides only what need not be read again.
"""

import os
import stat
import struct
from collections import deque
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

from opsd.backup.entries import EntryStore, Needs, Writers
from opsd.backup.fetching import Fetcher
from opsd.backup.grouping import Grouping, Part
from opsd.backup.images import Images, ImageTaker
from opsd.backup.lookup import Lookup, Prepared, PreparedPart, Seen, StoredHunk, Value
from opsd.backup.reading import FileReader
from opsd.backup.status import racy
from opsd.backup.work import Job, Result
from opsd.model import Content, EntryType
from opsd.repository.cutters import ContentWriter, PageWriter
from opsd.repository.listing import HunkPlace, encode_hunk, encode_root
from opsd.repository.references import FrameSet
from opsd.repository.writer import LISTING
from opsd.sources.files import FileTree
from opsd.sources.metadata import MetadataReader
from opsd.sources.options import FilesSource

#: Groups that are prepared beyond the one being stored, at most: what they hold in memory is bounded by their entries.
_GROUPS_AHEAD = 32
_REPORT_BYTES = 1024 * 1024


@dataclass(slots=True)
class _Hunk:
    """A hunk being encoded. Not `lasting`: something in it must be looked at again in the next run."""

    needs: Needs = field(default_factory=Needs)
    users: dict[int, bytes] = field(default_factory=dict)
    groups: dict[int, bytes] = field(default_factory=dict)
    parts: dict[bytes, dict[bytes, Value]] = field(default_factory=dict)
    lasting: bool = True


class TreeBackup:
    """Backs up one files source."""

    def __init__(self, job: Job, tree: FileTree, options: FilesSource, image: ImageTaker) -> None:
        self._job = job
        self._tree = tree
        self._read_bytes = 0
        self.result = Result(label=job.label, kind="files", roots=tree.roots)
        metadata = MetadataReader()
        self._fetcher = Fetcher(metadata, job.domain.blob_key, job.parameters.cut_min)
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
        if size > _REPORT_BYTES:
            self._report(0)

    def _report(self, files: int) -> None:
        self._job.reporter.advance(files=files, size=self._read_bytes)
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
        _add_content(result.frames, result.listing)
        result.totals = self._grouping.totals(job.run.place.ring.index(), self._tree.mounts())

    # Hunks

    def _add_hunk(self, prepared: Prepared) -> None:
        if prepared.stored:
            self._reuse(prepared.group, prepared.stored)
        else:
            self._write_hunk(prepared)
        self._report(sum(part.files for part in prepared.group))

    def _reuse(self, group: list[Part], stored: StoredHunk) -> None:
        self.result.frames.add_records(stored.frames)
        self.result.page_maps.update(stored.page_maps)
        self._place_hunk(group, stored.content, (stored.entries, stored.files, stored.size))

    def _place_hunk(self, group: list[Part], content: Content, totals: tuple[int, int, int]) -> None:
        first = group[0]
        name = first.entries[0][0] if first.entries else b""
        entries, files, size = totals
        self._hunks.append(
            HunkPlace(path=first.folder.path, name=name, content=content, entries=entries, files=files, size=size)
        )

    def _write_hunk(self, prepared: Prepared) -> None:
        hunk = _Hunk()
        folders: list[tuple[bytes, list[Any]]] = []
        entries = files = size = 0
        for part in prepared.parts:
            encoded = self._encode_part(hunk, part)
            folders.append((part.folder.path, encoded))
            entries += len(encoded)
            for entry in encoded:
                if entry[1] == EntryType.FILE:
                    files += 1
                    size += entry[6]
        job, needs = self._job, hunk.needs
        content = job.blobs.add_whole(job.domain, encode_hunk(hunk.users, hunk.groups, folders), LISTING)
        _add_content(needs.frames, content)
        self.result.frames.add_all(needs.frames)
        self.result.page_maps.update(needs.page_maps)
        self._place_hunk(prepared.group, content, (entries, files, size))
        if hunk.lasting:
            row = [content, entries, files, size, needs.frames.encode(), needs.page_maps]
            job.cache.keep(prepared.digest, row, hunk.parts)

    def _encode_part(self, hunk: _Hunk, part: PreparedPart) -> list[list[Any]]:
        kept: dict[bytes, Value] = {}
        encoded = []
        for seen in part.entries:
            value, lasting = seen.value, True
            if value is not None:
                hunk.needs.add_value(value)
            elif stored := self._entries.store(hunk.needs, part.folder, seen):
                value, lasting = stored
            else:
                hunk.lasting = False
                continue
            if lasting and not racy(seen.found, part.began):
                kept[seen.identity] = value
            else:
                hunk.lasting = False
            encoded.append(self._encode(hunk, seen, value))
        hunk.parts[part.key] = kept
        return encoded

    def _encode(self, hunk: _Hunk, seen: Seen, value: Value) -> list[Any]:
        kind, mtime, size, content, more = value[:5]
        found = seen.found
        self._name_owners(hunk, found)
        if kind == EntryType.FILE and found.st_nlink > 1:
            key = self._job.cache.hash(struct.pack("<QQ", found.st_dev, found.st_ino))
            more = {**(more or {}), "link": key}
        mode = stat.S_IMODE(found.st_mode)
        return [seen.name, kind, mode, found.st_uid, found.st_gid, mtime, size, content, more or None]

    def _name_owners(self, hunk: _Hunk, found: os.stat_result) -> None:
        if found.st_uid not in hunk.users and (user := self._entries.user_name(found.st_uid)):
            hunk.users[found.st_uid] = user
        if found.st_gid not in hunk.groups and (group := self._entries.group_name(found.st_gid)):
            hunk.groups[found.st_gid] = group


def _add_content(frames: FrameSet, content: Content) -> None:
    frames.add_references(content if isinstance(content, bytes) else content[1])
