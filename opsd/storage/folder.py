"""A store in a folder of a local or mounted disk.

Promise: a put is a temporary file, fsync, a name given without overwriting, fsync of the folder. A crash leaves at most
files in `tmp/` and `spool/`, which never show and go when they are old.
"""

import errno
import itertools
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from opsd.errors import ObjectNotFound, StorageError, StoreGone
from opsd.storage import durable
from opsd.storage.descriptors import Descriptors
from opsd.storage.names import RESERVED, checked, is_part
from opsd.storage.protocol import Capabilities, ObjectInfo

Content = bytes | memoryview | Path

FOLDERS = (
    *("tmp", "spool", "settings", "keys", "runs", "packs", "index", "snapshots", "wal", "marks", "notes"),
    *(f"packs/{number:02x}" for number in range(256)),
)

_DAY = 86_400 * 10**9
#: How long leftovers stay, in ns by the store's own time: a pack may be filled slowly, a put is over in minutes.
_LEFTOVERS = {"tmp": _DAY, "spool": 7 * _DAY}


class FolderStore:
    """The store in an existing folder; close it, or use it as a context, when done. Usable from several threads."""

    def __init__(self, root: Path | str) -> None:
        self._root = Path(os.path.abspath(root))
        self._check_root()
        self._prefix = f"{self._root}/"
        self._temporary = self._root / "tmp"
        spool = self._root / "spool"
        self._capabilities = Capabilities(spool=spool if spool.is_dir() else None)
        self._descriptors = Descriptors(lambda name: self._prefix + name)
        self._numbers = itertools.count()
        self._token = secrets.token_hex(8)
        self._swept = False

    @classmethod
    def create(cls, root: Path | str) -> "FolderStore":
        """Make and sync the root, its parents and every folder that objects go to, so that no put has to.

        May be repeated. Raises StorageError where a folder holds something else.
        """
        path = Path(os.path.abspath(root))
        try:
            cls._refuse_foreign(path)
            durable.make_folder(path)
            durable.make_folders(path, FOLDERS)
        except OSError as error:
            raise durable.failure(error, "make folders", path) from error
        return cls(path)

    @staticmethod
    def _refuse_foreign(path: Path) -> None:
        try:
            present = {entry.name for entry in os.scandir(path)} - {"lost+found"}
        except FileNotFoundError:
            return
        if present and not present & set(FOLDERS):
            raise StorageError(f"folder {path} holds something else", hint="name an empty or absent folder")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files that reads keep open."""
        self._descriptors.close()

    @property
    def capabilities(self) -> Capabilities:
        """The spool is a folder in the root, on the same disk."""
        return self._capabilities

    def _path(self, name: str) -> Path:
        return self._root / checked(name)

    def _check_root(self) -> None:
        """An unmounted disk leaves no folder, or an empty one: neither is a store without objects."""
        hint = "is the disk mounted? 'opsd init' makes a new repository"
        try:
            with os.scandir(self._root) as entries:
                empty = next(entries, None) is None
        except (FileNotFoundError, NotADirectoryError):
            raise StoreGone(f"store folder {self._root} is not there", hint=hint) from None
        except OSError as error:
            raise durable.failure(error, "look", self._root) from error
        if empty:
            raise StoreGone(f"store folder {self._root} is empty", hint=hint)

    def put(self, name: str, content: Content, *, replace: bool = False) -> None:
        """Store an object durably; a file in the spool is moved, any other is copied."""
        target = self._path(name)
        try:
            if not replace and self._is_there(target, content):
                self._settle(target, content)
                return
            self._publish(self._written(content), target, replace=replace)
        except OSError as error:
            self._check_root()
            raise durable.failure(error, f"store {name}", self._root) from error
        self._descriptors.forget(name)

    def _is_there(self, target: Path, content: Content) -> bool:
        """Whether the object is stored already; a stored one of another length is damaged."""
        try:
            present = target.stat().st_size
        except FileNotFoundError:
            return False
        size = content.stat().st_size if isinstance(content, Path) else memoryview(content).nbytes
        if present != size:
            name = target.relative_to(self._root)
            raise StorageError(
                f"{name} is damaged: it has {present} bytes, not {size}", hint="run 'opsd check --repair'"
            )
        return True

    def _settle(self, target: Path, content: Content) -> None:
        """The bytes are there; whoever put them may have been cut before the name was durable."""
        durable.sync_folder(target.parent)
        spooled = self._spooled(content)
        if spooled is not None:
            spooled.unlink(missing_ok=True)

    def _spooled(self, content: Content) -> Path | None:
        """The file to move, if these bytes are one in the spool."""
        if not isinstance(content, Path):
            return None
        path = Path(os.path.abspath(content))
        return path if path.parent == self._capabilities.spool else None

    def _written(self, content: Content) -> Path:
        """A durable file with these bytes, to be given its name."""
        spooled = self._spooled(content)
        if spooled is not None:
            durable.sync_file(spooled)
            return spooled
        try:
            return self._write(content)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            # What was to be written is still at hand: once more, to another file.
            return self._write(content)

    def _write(self, content: Content) -> Path:
        path = self._temporary / f"{self._token}-{next(self._numbers)}"
        descriptor = self._open_temporary(path)
        try:
            if isinstance(content, Path):
                durable.copy_whole(descriptor, content)
            else:
                durable.write_whole(descriptor, content)
            os.fsync(descriptor)
        except BaseException:
            with suppress(OSError):
                path.unlink()
            raise
        finally:
            os.close(descriptor)
        return path

    def _open_temporary(self, path: Path) -> int:
        try:
            descriptor = durable.new_file(path)
        except FileNotFoundError:
            # A store that was copied by other means may lack empty folders; one that is unmounted lacks all.
            self._check_root()
            durable.make_folder(self._temporary)
            descriptor = durable.new_file(path)
        if not self._swept:
            self._swept = True
            self._sweep(os.fstat(descriptor).st_mtime_ns)
        return descriptor

    def _sweep(self, now: int) -> None:
        """Remove what killed runs left behind, here or on other hosts; `now` by the store's clock, not the machine's."""
        for folder, age in _LEFTOVERS.items():
            with suppress(OSError), os.scandir(self._root / folder) as entries:
                for entry in entries:
                    with suppress(OSError):
                        if now - entry.stat(follow_symlinks=False).st_mtime_ns > age:
                            os.unlink(entry)

    def _publish(self, written: Path, target: Path, *, replace: bool) -> None:
        try:
            if replace:
                written.replace(target)
            else:
                self._link(written, target)
        except FileExistsError:
            # Another thread or process was faster with the same name.
            if not self._is_there(target, written):
                raise
            written.unlink()
        except OSError:
            if written.parent == self._temporary:
                with suppress(OSError):
                    written.unlink()
            raise
        durable.sync_folder(target.parent)

    def _link(self, written: Path, target: Path) -> None:
        try:
            durable.link(written, target)
        except FileNotFoundError:
            durable.make_folder(target.parent)
            durable.link(written, target)

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of an object."""
        try:
            file, state = self._descriptors.get(checked(name))
            rest = max(0, state.st_size - offset)
            wanted = rest if length is None else min(length, rest)
            content = os.pread(file.number, wanted, offset)
            if len(content) == wanted:
                return content
            # The kernel gives at most 2 GiB at a time.
            buffer = bytearray(wanted)
            return bytes(buffer[: durable.read_whole(file.number, memoryview(buffer), offset)])
        except OSError as error:
            raise self._read_failure(error, name) from error

    def read_into(self, name: str, offset: int, buffer: memoryview) -> int:
        """Fill the buffer."""
        try:
            file, _ = self._descriptors.get(checked(name))
            return durable.read_whole(file.number, buffer, offset)
        except OSError as error:
            raise self._read_failure(error, name) from error

    def _read_failure(self, error: OSError, name: str) -> StorageError:
        """The error to raise; an object is only lost if the store itself is there."""
        if isinstance(error, FileNotFoundError):
            self._check_root()
            return ObjectNotFound(name)
        return durable.failure(error, f"read {name}", self._root)

    def stat(self, name: str) -> ObjectInfo:
        """Size and time of an object."""
        try:
            state = self._path(name).stat(follow_symlinks=False)
        except OSError as error:
            raise self._read_failure(error, name) from error
        if not stat.S_ISREG(state.st_mode):
            raise ObjectNotFound(name)
        return ObjectInfo(name=name, size=state.st_size, modified=state.st_mtime_ns)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects under the prefix, folder by folder."""
        self._check_root()
        folder, _, start = prefix.rpartition("/")
        if folder:
            checked(folder)
        return self._walk(f"{folder}/" if folder else "", start)

    def _walk(self, folder: str, start: str) -> Iterator[ObjectInfo]:
        """What lies under `folder` (empty, or ending in a slash) and begins with `start` there."""
        try:
            with os.scandir(self._prefix + folder) as entries:
                found = [entry for entry in entries if entry.name.startswith(start) and is_part(entry.name)]
        except FileNotFoundError:
            self._check_root()
            return
        except OSError as error:
            raise durable.failure(error, f"list {folder}", self._root) from error
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                if folder or entry.name not in RESERVED:
                    yield from self._walk(f"{folder}{entry.name}/", "")
            elif entry.is_file(follow_symlinks=False):
                try:
                    state = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # Deleted meanwhile: as if listed after that.
                yield ObjectInfo(name=folder + entry.name, size=state.st_size, modified=state.st_mtime_ns)

    def delete(self, name: str) -> None:
        """Remove an object durably, also one whose removal was cut before it was durable."""
        target = self._path(name)
        try:
            with suppress(FileNotFoundError):
                target.unlink()
            self._descriptors.forget(name)
            if target.parent.is_dir():
                durable.sync_folder(target.parent)
            else:
                self._check_root()
        except OSError as error:
            raise durable.failure(error, f"delete {name}", self._root) from error
