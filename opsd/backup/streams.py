"""Backing up streams: dumps, images, programs' output; several at a time where the source allows it.

Promise: a stream that fails fails its source and is not in the listing; the others go on. Nothing is staged on disk.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, Final

from opsd.backup.work import Job, Result
from opsd.errors import OpsdError, SourceError, StreamGone
from opsd.model import Content, EntryType
from opsd.process import stop_all
from opsd.repository.cutters import ContentWriter, PageWriter
from opsd.repository.format import pack_map
from opsd.repository.listing import HunkPlace, encode_hunk, encode_root, ends_hunk, path_parts
from opsd.repository.manifest import page_map_key
from opsd.repository.references import FrameSet
from opsd.repository.writer import LISTING
from opsd.sources.protocol import Stream, StreamSource
from opsd.values import dataclass

_THREADS: Final = "opsd-stream"
#: How long a signal may go unseen, in seconds.
_WAKING: Final = 0.5
#: How often a thread that was told to stop is helped by stopping its program (seconds).
_STOPPING: Final = 0.2


@dataclass(frozen=True, slots=True)
class _Taken:
    """A stream as stored."""

    stream: Stream
    size: int
    content: Content | None
    pages: Content | None


class StreamBackup:
    """Backs up one source of streams."""

    def __init__(self, job: Job, source: StreamSource, kind: str) -> None:
        self._job = job
        self._source = source
        self.result = Result(label=job.label, kind=kind)
        self._lock = threading.Lock()
        self._taken: list[_Taken] = []
        self._failures: list[SourceError] = []
        self._stop: BaseException | None = None

    def back_up(self) -> Result:
        """Read and store all streams.

        Raises:
            SourceError: nothing of it could be read. StorageError, IntegrityError: the run can't go on.
        """
        with self._source.streams() as streams:
            threads = max(1, self._source.parallel)
            pool = ThreadPoolExecutor(threads, thread_name_prefix=_THREADS)
            try:
                pending = {pool.submit(self._work, streams) for _ in range(threads)}
                while pending:
                    # With a limit: a signal that comes just before a wait without one is seen only after it.
                    pending = wait(pending, timeout=_WAKING).not_done
            except BaseException as error:
                self._stop = error
                raise
            finally:
                pool.shutdown(wait=False)
                self._join()
            if self._stop:
                raise self._stop
        self.result.facts = dict(self._source.facts())
        self.result.warnings += self._source.warnings
        self._list()
        if self._failures:
            self.result.failure = _joined(self._failures)
        return self.result

    def _join(self) -> None:
        """Wait for the threads; one that was told to stop meets the end of what it reads when its program is stopped."""
        for thread in threading.enumerate():
            while thread.name.startswith(_THREADS) and thread.is_alive():
                if self._stop:
                    stop_all()
                thread.join(_STOPPING)

    def _next(self, streams: Iterator[Stream]) -> Stream | None:
        with self._lock:
            return None if self._stop else next(streams, None)

    def _work(self, streams: Iterator[Stream]) -> None:
        """One thread: take the next stream until there is none."""
        frames = FrameSet()
        job = self._job
        writer = ContentWriter(job.blobs, job.domain, job.parameters, frames)
        pages = PageWriter(job.blobs, job.domain, job.old_blobs(), frames)
        try:
            while stream := self._next(streams):
                try:
                    self._taken.append(self._take(stream, writer, pages))
                except StreamGone:
                    pass  # The source reported it, and counted the warning.
                except SourceError as error:
                    self._failures.append(error)
                job.reporter.advance(files=1)
        except BaseException as error:  # noqa: BLE001 - raised again by back_up, once all threads have stopped
            self._stop = self._stop or error
        with self._lock:
            self.result.frames.add_all(frames)

    def _take(self, stream: Stream, writer: ContentWriter, pages: PageWriter) -> _Taken:
        with stream.open() as reader:
            if not stream.pages:
                stored = writer.whole(reader.readinto, self._advance)
                return _Taken(stream, stored.size, stored.content, None)
            key = page_map_key(self._job.run.place.ring.index(), self._job.label, stream.path)
            previous = self._job.previous.page_maps.get(key) if self._job.previous else None
            stored = pages.whole(reader.readinto, stream.pages, previous, self._advance)
        self.result.page_maps[key] = stored.content
        return _Taken(stream, stored.size, None, stored.content)

    def _advance(self, size: int) -> None:
        self._job.reporter.advance(size=size)
        self._job.run.alive()

    def _list(self) -> None:
        job, result = self._job, self.result
        folders = _folders(self._taken, job.clock.now())
        hunks: list[HunkPlace] = []
        group: list[tuple[bytes, list[Any]]] = []
        for path in sorted(folders, key=path_parts):
            group.append((path, folders[path]))
            if ends_hunk(path, sum(len(entries) for _, entries in group)):
                hunks.append(self._hunk(group))
                group = []
        if group:
            hunks.append(self._hunk(group))
        result.listing = job.blobs.add_whole(job.domain, encode_root(hunks), LISTING)
        self._count(result.listing)
        result.files = len(self._taken)
        result.folders = len(folders)
        result.bytes = sum(taken.size for taken in self._taken)

    def _hunk(self, group: list[tuple[bytes, list[Any]]]) -> HunkPlace:
        job = self._job
        content = job.blobs.add_whole(
            job.domain, encode_hunk({}, {}, [(path, pack_map(entries)) for path, entries in group]), LISTING
        )
        self._count(content)
        entries = [entry for _, each in group for entry in each]
        files = [entry for entry in entries if entry[1] == EntryType.FILE]
        return HunkPlace(
            path=group[0][0],
            name=group[0][1][0][0] if group[0][1] else b"",
            content=content,
            entries=len(entries),
            files=len(files),
            size=sum(entry[6] for entry in files),
        )

    def _count(self, content: Content) -> None:
        self.result.frames.add_references(content if isinstance(content, bytes) else content[1])


def _folders(taken: list[_Taken], now: int) -> dict[bytes, list[Any]]:
    """Entries by folder, the folders on the way made up; what has no time of its own is dated now."""
    folders: dict[bytes, dict[bytes, Any]] = {b"/": {}}
    for each in taken:
        stream = each.stream
        above, _, name = stream.path.rpartition(b"/")
        path = b""
        for part in path_parts(above):
            folders.setdefault(path or b"/", {}).setdefault(
                part, [part, int(EntryType.FOLDER), 0o755, 0, 0, 0, 0, None, None]
            )
            path += b"/" + part
        more = None if each.pages is None else {"pages": each.pages}
        head = [name, int(EntryType.FILE), stream.mode, stream.uid, stream.gid, stream.mtime or now]
        folders.setdefault(path or b"/", {})[name] = [*head, each.size, each.content, more]
    return {path: [entries[name] for name in sorted(entries)] for path, entries in folders.items()}


def _joined(failures: list[SourceError]) -> OpsdError:
    """All failures of a source as one."""
    if len(failures) == 1:
        return failures[0]
    first = failures[0]
    text = "; ".join(str(each).removeprefix(f"source {first.label}: ") for each in failures[:20])
    return SourceError(first.label, f"{len(failures)} of its parts failed: {text}", hint=first.hint)
