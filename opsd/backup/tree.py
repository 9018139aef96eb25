"""Backing up a tree of files: hunks of its listing, unchanged ones reused whole, changed files read and stored.

Promise: every entry found is in the listing or a counted warning; the cache decides only what need not be read again.
"""

import os
import stat
import struct
import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final

from opsd.backup.grouping import Grouping, Part
from opsd.backup.images import ImageRefused, Images, ImageTaker, companions_of, left_out
from opsd.backup.reading import Database, FileReader, PageMapped, Replaced
from opsd.backup.status import racy, status_bytes
from opsd.backup.work import Job, Result, shown, warn
from opsd.events import Warning
from opsd.model import Content, EntryType
from opsd.repository.cutters import ContentWriter, PageWriter
from opsd.repository.listing import HunkPlace, encode_hunk, encode_root
from opsd.repository.manifest import page_map_key
from opsd.repository.references import REFERENCE_BYTES, FrameSet, as_content
from opsd.repository.writer import LISTING
from opsd.sources import patterns
from opsd.sources.files import FileTree
from opsd.sources.metadata import Extra, MetadataReader
from opsd.sources.options import FilesSource
from opsd.sources.protocol import FoundFolder
from opsd.sources.roots import join

_TYPES: Final = {
    stat.S_IFREG: EntryType.FILE,
    stat.S_IFDIR: EntryType.FOLDER,
    stat.S_IFLNK: EntryType.SYMLINK,
    stat.S_IFIFO: EntryType.FIFO,
    stat.S_IFSOCK: EntryType.SOCKET,
    stat.S_IFCHR: EntryType.CHARACTER_DEVICE,
    stat.S_IFBLK: EntryType.BLOCK_DEVICE,
}


@dataclass(slots=True)
class _Hunk:
    """A hunk being encoded."""

    frames: FrameSet = field(default_factory=FrameSet)
    users: dict[int, bytes] = field(default_factory=dict)
    groups: dict[int, bytes] = field(default_factory=dict)
    page_maps: dict[bytes, Content] = field(default_factory=dict)
    parts: dict[bytes, dict[bytes, Any]] = field(default_factory=dict)
    lasting: bool = True


class TreeBackup:
    """Backs up one files source."""

    def __init__(self, job: Job, tree: FileTree, options: FilesSource, image: ImageTaker) -> None:
        self._job = job
        self._tree = tree
        self._metadata = MetadataReader()
        self._page_map = patterns.compile(options.page_map) if options.page_map else None
        self.result = Result(label=job.label, kind="files", roots=tree.roots)
        self._frames = FrameSet()
        self._read_bytes = 0
        self._writer = ContentWriter(job.blobs, job.domain, job.parameters, self._frames)
        self._pages = PageWriter(job.blobs, job.domain, job.old_blobs(), self._frames)
        self._reader = FileReader(self._writer, self._advance, look_for_sqlite=options.sqlite)
        plain = FileReader(self._writer, self._advance, look_for_sqlite=False)
        self._images = Images(
            take=image, pages=self._pages, plain=plain, advance=self._advance, limit=job.parameters.page_bytes
        )
        self._looks_for_sqlite = options.sqlite
        self._links: dict[tuple[int, int], list[Any]] = {}
        self._grouping = Grouping(tree, job.hash, self.result)
        self._hunks: list[HunkPlace] = []

    def _advance(self, size: int) -> None:
        self._read_bytes += size
        if size > 1024 * 1024:
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
        with closing(self._tree.ahead):
            before: list[Part] = []
            for group in self._grouping.groups():
                self._look_ahead(group)
                if before:
                    self._add_hunk(before)
                before = group
            if before:
                self._add_hunk(before)
        self.result.warnings += self._tree.warnings
        self._finish()
        return self.result

    def _look_ahead(self, group: list[Part]) -> None:
        """On a slow disk, have the files of this group fetched that must be read, while the group before is stored."""
        if not self._tree.ahead.looks_at_files:
            return
        since = self._job.previous.summary.started if self._job.previous and self._job.usable_cache else -(1 << 63)
        self._tree.ahead.expect(
            (join(part.folder.real, name), found.st_size)
            for part in group
            for name, found in part.entries
            if stat.S_ISREG(found.st_mode) and found.st_ctime_ns > since
        )

    def _finish(self) -> None:
        job, result = self._job, self.result
        result.listing = job.blobs.add_whole(job.domain, encode_root(self._hunks))
        _add_content(result.frames, result.listing)
        result.totals = self._grouping.totals(job.run.place.ring.index(), self._tree.mounts())

    # Hunks

    def _add_hunk(self, group: list[Part]) -> None:
        digest = self._job.hash(b"".join(part.digest for part in group))
        row = self._job.cache.hunk(digest) if self._job.trusted else None
        files = sum(stat.S_ISREG(found.st_mode) for part in group for _, found in part.entries)
        if row is None or not self._reuse(group, row):
            self._write_hunk(group, digest)
        self._report(files)

    def _reuse(self, group: list[Part], row: Any) -> bool:
        content, entries, files, size, frames, page_maps = row
        found = as_content(content)
        if found is None:
            return False
        self.result.frames.add_records(frames)
        self.result.page_maps.update({key: as_content(each) or b"" for key, each in page_maps.items()})
        self._place_hunk(group, found, (entries, files, size))
        return True

    def _place_hunk(self, group: list[Part], content: Content, totals: tuple[int, int, int]) -> None:
        first = group[0]
        name = first.entries[0][0] if first.entries else b""
        entries, files, size = totals
        self._hunks.append(
            HunkPlace(path=first.folder.path, name=name, content=content, entries=entries, files=files, size=size)
        )

    def _write_hunk(self, group: list[Part], digest: bytes) -> None:
        hunk = _Hunk()
        self._writer_frames(hunk.frames)
        folders: list[tuple[bytes, list[Any]]] = []
        entries = files = size = 0
        for part in group:
            encoded = self._entries(hunk, part)
            folders.append((part.folder.path, encoded))
            entries += len(encoded)
            for entry in encoded:
                if entry[1] == EntryType.FILE:
                    files += 1
                    size += entry[6]
        job = self._job
        content = job.blobs.add_whole(job.domain, encode_hunk(hunk.users, hunk.groups, folders), LISTING)
        _add_content(hunk.frames, content)
        self.result.frames.add_all(hunk.frames)
        self.result.page_maps.update(hunk.page_maps)
        self._place_hunk(group, content, (entries, files, size))
        if hunk.lasting:
            row = [content, entries, files, size, hunk.frames.encode(), hunk.page_maps]
            job.cache.keep(digest, row, hunk.parts)

    def _writer_frames(self, frames: FrameSet) -> None:
        """Let what is stored from now on be counted for this hunk."""
        self._frames = frames
        self._writer.frames = frames
        self._pages.frames = frames

    # Entries

    def _entries(self, hunk: _Hunk, part: Part) -> list[list[Any]]:
        known = self._job.cache.part(part.key) if self._job.usable_cache else {}
        kept: dict[bytes, Any] = {}
        encoded = []
        began = self._job.clock.now()
        companions = companions_of(part.entries)
        beside_databases = left_out(part.folder.real, part.entries) if self._looks_for_sqlite else frozenset[bytes]()
        for name, found in part.entries:
            if name in beside_databases:
                continue
            identity = self._job.hash(status_bytes(found) + name + companions.get(name, b""))
            value = known.get(identity)
            if value is None or not self._still_stored(value):
                value = self._read_entry(hunk, part.folder, name, found)
                if value is None:
                    hunk.lasting = False
                    continue
                lasting = value.pop()
            else:
                self._count_frames(hunk, value)
                lasting = True
            if lasting and not racy(found, began):
                kept[identity] = value
            else:
                hunk.lasting = False
            encoded.append(self._encode(hunk, name, found, value))
        hunk.parts[part.key] = kept
        return encoded

    def _still_stored(self, value: list[Any]) -> bool:
        """Whether a cached entry's blobs are there: known of all, or looked up one by one."""
        if self._job.trusted:
            return True
        content = value[3]
        if content is None or content == b"":
            return "pages" not in (value[4] or {})
        if not isinstance(content, bytes):
            return False
        known = self._job.blobs.known
        return all(
            known(content[at : at + 32]) == content[at + 36 : at + REFERENCE_BYTES]
            for at in range(0, len(content), REFERENCE_BYTES)
        )

    def _count_frames(self, hunk: _Hunk, value: list[Any]) -> None:
        if isinstance(value[3], bytes):
            hunk.frames.add_references(value[3])
        elif value[3] is not None or (value[4] and "pages" in value[4]):
            hunk.frames.add_records(value[5])
            for key, content in value[6].items():
                hunk.page_maps[key] = as_content(content) or b""

    def _encode(self, hunk: _Hunk, name: bytes, found: os.stat_result, value: list[Any]) -> list[Any]:
        kind, mtime, size, content, more = value[:5]
        for number, names, look_up in (
            (found.st_uid, hunk.users, self._metadata.owner_name),
            (found.st_gid, hunk.groups, self._metadata.group_name),
        ):
            if number not in names and (owner := look_up(number)):
                names[number] = owner
        if kind == EntryType.FILE and found.st_nlink > 1:
            key = self._job.hash(struct.pack("<QQ", found.st_dev, found.st_ino))
            more = {**(more or {}), "link": key}
        return [name, kind, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, mtime, size, content, more or None]

    def _read_entry(self, hunk: _Hunk, folder: FoundFolder, name: bytes, found: os.stat_result) -> list[Any] | None:
        """`[type, mtime, size, content, more, frames?, page maps?, lasting]`, or None where it can't be had (told)."""
        kind = _TYPES.get(stat.S_IFMT(found.st_mode))
        path, real = join(folder.path, name), join(folder.real, name)
        if kind is None:
            self._skip(path, "it is of a type that no file system here knows")
            return None
        link = (found.st_dev, found.st_ino)
        if kind is EntryType.FILE and found.st_nlink > 1 and link in self._links:
            value = list(self._links[link])
            self._count_frames(hunk, value)
            return value
        try:
            more = self._more(path, self._metadata.read(real, found))
            if kind is not EntryType.FILE:
                return [int(kind), found.st_mtime_ns, 0, None, more, True]
            began = time.monotonic()
            value = self._file(hunk, path, real, found, more)
            self._tree.ahead.read(real, time.monotonic() - began, small=found.st_size <= self._job.parameters.cut_min)
        except FileNotFoundError:
            self._skip(path, "it vanished before it could be read")
            return None
        except Replaced:
            self._skip(path, "it was replaced by another file while the folder was read")
            return None
        except OSError as error:
            hint = error.hint if isinstance(error, ImageRefused) else None
            self._skip(path, f"it can't be read: {(error.strerror or str(error)).lower()}", hint)
            return None
        if found.st_nlink > 1:
            self._links[link] = list(value)
        return value

    def _file(self, hunk: _Hunk, path: bytes, real: bytes, found: os.stat_result, more: dict[str, Any]) -> list[Any]:
        map_key = page_map_key(self._job.run.place.ring.index(), self._job.label, path)
        previous = self._job.previous.page_maps.get(map_key) if self._job.previous else None
        mapped = self._page_map is not None and self._page_map.matches(path, path.rpartition(b"/")[2], False)
        whole = hunk.frames
        own = FrameSet()
        self._writer_frames(own)
        try:
            pages = PageMapped(self._pages, self._job.parameters.page_bytes, previous) if mapped else None
            read = self._reader.read(real, found, pages)
        except Database:
            read = self._images.read(real, found, previous)
        finally:
            self._writer_frames(whole)
        whole.add_all(own)
        if read.changed:
            self._warn(
                path,
                "it changed while it was read, twice",
                "it is stored as it was read; freeze it with a snapshot or a hook",
            )
            more["changed"] = True
        if read.extents is not None:
            more["extents"] = [list(extent) for extent in read.extents]
        value: list[Any] = [int(EntryType.FILE), read.status.st_mtime_ns, read.size, read.content, more or None]
        if read.pages is not None:
            more["pages"] = read.pages
            value[4] = more
            hunk.page_maps[map_key] = read.pages
        if read.pages is not None or not isinstance(read.content, bytes):
            value += [own.encode(), {map_key: read.pages} if read.pages is not None else {}]
        return [*value, not read.changed]

    def _more(self, path: bytes, extra: Extra | None) -> dict[str, Any]:
        if extra is None:
            return {}
        if extra.unread:
            names = ", ".join(shown(name) for name in extra.unread)
            self._warn(path, f"attributes can't be read: {names}", "run as root")
        more: dict[str, Any] = {}
        if extra.xattrs:
            more["xattrs"] = dict(extra.xattrs)
        if extra.target is not None:
            more["target"] = extra.target
        if extra.device is not None:
            more["device"] = list(extra.device)
        return more

    def _skip(self, path: bytes, problem: str, hint: str | None = None) -> None:
        self._warn(path, problem, hint or "it is not in this snapshot")

    def _warn(self, path: bytes, problem: str, hint: str) -> None:
        warn(self.result, self._job.reporter, Warning(subject=shown(path), problem=problem, hint=hint))


def _add_content(frames: FrameSet, content: Content) -> None:
    frames.add_references(content if isinstance(content, bytes) else content[1])
