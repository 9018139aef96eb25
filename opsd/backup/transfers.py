"""Bring objects from one store to another, several at once.

Promise: an object is put only after its bytes were proved by its name; what does not match is named and left out. Memory is a window for
each transfer, whatever an object's size. Nothing is left in the spool but by a kill, and the next transfers of the same name clear that.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import field
from functools import partial
from itertools import count
from pathlib import Path
from threading import local
from typing import Final

from opsd.backup.limits import Throttle
from opsd.errors import ObjectDamaged, ObjectNotFound
from opsd.repository.format import digest_of
from opsd.storage import durable
from opsd.storage.protocol import ObjectInfo, Store
from opsd.values import dataclass

_THREADS: Final = 4
#: Larger objects are spooled in a file, and so never held whole.
_SMALL: Final = 1 << 20
_WINDOW: Final = 8 << 20
#: Where a limit holds, pieces are this small, so that what passes is even.
_WINDOW_LIMITED: Final = 256 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Transferred:
    """An object that was dealt with; `problem` says what is wrong with it in the source, and then it was not put."""

    name: str
    size: int
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spool:
    """A folder for objects on their way, and what their files' names begin with."""

    folder: Path
    stem: str

    def clear(self) -> None:
        """Remove what a pass that was killed left."""
        durable.private_folder(self.folder)
        for path in self.folder.glob(f"{self.stem}-*"):
            path.unlink(missing_ok=True)


@dataclass(slots=True)
class Transfers:
    """From one store to another through a spool, as fast as the throttle lets them."""

    source: Store
    target: Store
    spool: Spool
    throttle: Throttle
    _numbers: Iterator[int] = field(default_factory=count)
    _local: local = field(default_factory=local)

    def bring(self, infos: Iterable[ObjectInfo], is_there: Callable[[str], bool]) -> Iterator[Transferred]:
        """Bring all of these; what `is_there` already has another size than in the source, and is replaced once proved.

        Raises:
            ObjectNotFound: one vanished in the source; all others were brought. StorageError: a store failed.
        """
        pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="opsd-copy")
        vanished: ObjectNotFound | None = None
        try:
            for each in pool.map(lambda info: self._one(info, replace=is_there(info.name)), infos):
                if isinstance(each, ObjectNotFound):
                    vanished = each
                else:
                    yield each
        finally:
            pool.shutdown(cancel_futures=True)
        if vanished:
            raise vanished

    def _one(self, info: ObjectInfo, *, replace: bool) -> Transferred | ObjectNotFound:
        try:
            digest = digest_of(info.name)
            size = self._small(info, digest, replace) if info.size <= _SMALL else self._large(info, digest, replace)
        except ObjectDamaged as error:
            return Transferred(name=info.name, size=info.size, problem=error.problem)
        except ObjectNotFound as error:
            return error
        return Transferred(name=info.name, size=size)

    def _small(self, info: ObjectInfo, digest: bytes, replace: bool) -> int:  # noqa: FBT001 - passed on
        self.throttle.take(info.size)
        content = self.source.read(info.name)
        _prove(info.name, digest, hashlib.sha256(content).digest())
        self.target.put(info.name, content, replace=replace)
        return len(content)

    def _large(self, info: ObjectInfo, digest: bytes, replace: bool) -> int:  # noqa: FBT001 - passed on
        path = self.spool.folder / f"{self.spool.stem}-{next(self._numbers)}"
        try:
            found, size = self._fetch(info, path)
            _prove(info.name, digest, found)
            self.target.put(info.name, path, replace=replace)
        finally:
            with suppress(OSError):  # Where nothing can be written, this fails too, and is not what went wrong.
                path.unlink()
        return size

    def _fetch(self, info: ObjectInfo, path: Path) -> tuple[bytes, int]:
        """Read an object into a file; the SHA-256 of its bytes, and their number."""
        buffer, found, place = self._buffer(), hashlib.sha256(), 0
        with self._opened(path) as write:
            while place < info.size:
                window = buffer[: min(len(buffer), info.size - place)]
                self.throttle.take(len(window))
                got = self.source.read_into(info.name, place, window)
                found.update(window[:got])
                write(window[:got])
                place += got
                if got < len(window):
                    break
        return found.digest(), place

    @contextmanager
    def _opened(self, path: Path) -> Iterator[Callable[[memoryview], None]]:
        """How to write into a new file of the spool."""
        try:
            descriptor = durable.new_file(path)
            try:
                yield partial(durable.write_whole, descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise durable.failure(error, "spool", self.spool.folder) from error

    def _buffer(self) -> memoryview:
        held: memoryview | None = getattr(self._local, "buffer", None)
        if held is None:
            held = self._local.buffer = memoryview(bytearray(_WINDOW_LIMITED if self.throttle else _WINDOW))
        return held


def _prove(name: str, promised: bytes, found: bytes) -> None:
    if promised != found:
        raise ObjectDamaged(name, "its bytes do not match its name")
