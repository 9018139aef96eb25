"""One entry of a tree: read, stored, and what is to be listed of it.

Promise: an entry that can't be had is a counted warning, never silence; what is stored was read from the very entry that was found.
"""

import os
import stat
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from opsd.backup.fetching import Fetched, Fetcher
from opsd.backup.images import ImageRefused, Images
from opsd.backup.lookup import MORE, EncodedEntry, Extras, Seen, link_key, may_be_linked
from opsd.backup.reading import SQLITE_HEADER, SQLITE_LEAST, Database, FileReader, PageMapped, Replaced
from opsd.backup.status import racy
from opsd.backup.work import Job, Result, shown, warn
from opsd.events import Warning
from opsd.model import Content, EntryType
from opsd.repository.cutters import ContentWriter, PageWriter
from opsd.repository.manifest import page_map_key
from opsd.repository.references import FrameSet
from opsd.sources import patterns
from opsd.sources.metadata import Extra, MetadataReader
from opsd.sources.options import FilesSource
from opsd.sources.protocol import FoundFolder
from opsd.sources.roots import join
from opsd.values import dataclass

_TYPES: Final = {
    stat.S_IFREG: EntryType.FILE,
    stat.S_IFDIR: EntryType.FOLDER,
    stat.S_IFLNK: EntryType.SYMLINK,
    stat.S_IFIFO: EntryType.FIFO,
    stat.S_IFSOCK: EntryType.SOCKET,
    stat.S_IFCHR: EntryType.CHARACTER_DEVICE,
    stat.S_IFBLK: EntryType.BLOCK_DEVICE,
}


class StoredEntry(NamedTuple):
    """An entry as it is listed, what it needs besides its content, and whether that holds until the file changes."""

    entry: EncodedEntry
    extras: Extras | None = None
    lasting: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Writers:
    """Where content goes: cut into blobs, by page map, databases as images; and what is read ahead."""

    content: ContentWriter
    pages: PageWriter
    images: Images
    fetcher: Fetcher
    advance: Callable[[int], None]


class EntryStore:
    """Stores the entries of one source. One thread."""

    def __init__(
        self, job: Job, options: FilesSource, metadata: MetadataReader, writers: Writers, result: Result
    ) -> None:
        self._job = job
        self._writers = writers
        self._result = result
        self._sqlite = options.sqlite
        self._page_map = patterns.compile(options.page_map) if options.page_map else None
        self._metadata = metadata
        self.user_name = metadata.owner_name
        self.group_name = metadata.group_name
        self._reader = FileReader(writers.content, writers.advance, look_for_sqlite=options.sqlite)
        self._links: dict[bytes, StoredEntry] = {}

    def expect(self, folder: FoundFolder, seen: Seen) -> tuple[bytes, os.stat_result] | None:
        """What to read ahead for a file that must be read; None where that is no use."""
        found = seen.found
        if found.st_blocks * 512 < found.st_size or self._is_mapped(folder, seen.name):
            return None
        if found.st_nlink > 1 and link_key(self._job.cache.hash, found) in self._links:
            return None
        return join(folder.real, seen.name), found

    def store(self, folder: FoundFolder, seen: Seen, began: int) -> StoredEntry | None:
        """Read and store an entry; None where it can't be had (told). `began`: ns UTC, before it was read."""
        found = seen.found
        kind = _TYPES.get(stat.S_IFMT(found.st_mode))
        if kind is None:
            self._skip(join(folder.path, seen.name), "it is of a type that no file system here knows")
            return None
        if not may_be_linked(found):
            return self._judged(self._store(folder, seen, kind), seen, began)
        link = link_key(self._job.cache.hash, found)
        first = self._links.get(link)
        if first:
            return StoredEntry([seen.name, *first.entry[1:]], first.extras, first.lasting)
        stored = self._judged(self._store(folder, seen, kind), seen, began)
        if stored:
            stored.entry[MORE] = {**(stored.entry[MORE] or {}), "link": link}
            self._links[link] = stored
        return stored

    def _judged(self, stored: StoredEntry | None, seen: Seen, began: int) -> StoredEntry | None:
        """It lasts only if nothing that it was made of may change again without showing it."""
        if stored and stored.lasting and any(racy(each, began) for each in (seen.found, *seen.beside)):
            return stored._replace(lasting=False)
        return stored

    def _store(self, folder: FoundFolder, seen: Seen, kind: EntryType) -> StoredEntry | None:
        if kind is EntryType.FILE:
            fetched = self._writers.fetcher.take(join(folder.real, seen.name))
            if fetched is not None and not self._is_database(fetched):
                return self._fetched(folder, seen, fetched)
        return self._told(folder, seen, kind)

    def _is_mapped(self, folder: FoundFolder, name: bytes) -> bool:
        return self._page_map is not None and self._page_map.matches(join(folder.path, name), name, False)

    def _is_database(self, fetched: Fetched) -> bool:
        content = fetched.content
        return self._sqlite and len(content) >= SQLITE_LEAST and content[: len(SQLITE_HEADER)] == SQLITE_HEADER

    def _fetched(self, folder: FoundFolder, seen: Seen, fetched: Fetched) -> StoredEntry:
        """A small file that was read ahead."""
        size = seen.found.st_size
        content = b""
        if size:
            content = self._job.blobs.add(self._job.domain, fetched.content)
            self._writers.advance(size)
        more = self._more(join(folder.path, seen.name), fetched.extra) if fetched.extra else None
        return StoredEntry([*_head(seen.name, EntryType.FILE, seen.found), size, content, more])

    def _told(self, folder: FoundFolder, seen: Seen, kind: EntryType) -> StoredEntry | None:
        """As `store`, for what was not read ahead: what goes wrong is told."""
        path, real = join(folder.path, seen.name), join(folder.real, seen.name)
        try:
            extra = self._metadata.read(real, seen.found)
            more = self._more(path, extra)
            if kind is EntryType.FILE:
                stored = self._file(seen, path, real, more)
            else:
                stored = StoredEntry([*_head(seen.name, kind, seen.found), 0, None, more or None])
            # What could not be read is told each time, and may be readable to the next run.
            return stored._replace(lasting=False) if extra and extra.unread else stored
        except FileNotFoundError:
            self._skip(path, "it vanished before it could be read")
        except Replaced:
            self._skip(path, "it was replaced by another file while the folder was read")
        except OSError as error:
            hint = error.hint if isinstance(error, ImageRefused) else None
            self._skip(path, f"it can't be read: {(error.strerror or str(error)).lower()}", hint)
        return None

    def _file(self, seen: Seen, path: bytes, real: bytes, more: dict[str, Any]) -> StoredEntry:
        own = FrameSet()
        self._writers.content.frames = self._writers.pages.frames = own
        mapped = self._page_map is not None and self._page_map.matches(path, seen.name, False)
        try:
            pages = None
            if mapped:
                pages = PageMapped(self._writers.pages, self._job.parameters.page_bytes, self._last_map(path))
            read = self._reader.read(real, seen.found, pages)
        except Database:
            read = self._writers.images.read(real, seen.found, self._last_map(path))
        if read.changed:
            hint = "it is stored as it was read; freeze it with a snapshot or a hook"
            self._warn(path, "it changed while it was read, twice", hint)
            more["changed"] = True
        if read.extents is not None:
            more["extents"] = [list(extent) for extent in read.extents]
        if read.pages is not None:
            more["pages"] = read.pages
        entry = [*_head(seen.name, EntryType.FILE, read.status), read.size, read.content, more or None]
        extras = None
        if read.pages is not None or not isinstance(read.content, bytes):
            extras = (own.encode(), {self._map_key(path): read.pages} if read.pages is not None else {})
        return StoredEntry(entry, extras, not read.changed)

    def _map_key(self, path: bytes) -> bytes:
        return page_map_key(self._job.run.place.ring.index(), self._job.label, path)

    def _last_map(self, path: bytes) -> Content | None:
        return self._job.previous.page_maps.get(self._map_key(path)) if self._job.previous else None

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
        warn(self._result, self._job.reporter, Warning(subject=shown(path), problem=problem, hint=hint))


def _head(name: bytes, kind: EntryType, status: os.stat_result) -> list[Any]:
    return [name, int(kind), stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns]
