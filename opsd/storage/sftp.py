"""A store in a folder of an SFTP server.

Promise: as that of a folder, as far as SFTP allows (sftp_put.py). Nothing is asked of the server before the first operation;
connections that broke are opened again.
"""

import posixpath
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar

from opsd.errors import ObjectNotFound, StorageError
from opsd.storage import sftp_requests as requests
from opsd.storage.folder import FOLDERS, Content
from opsd.storage.names import RESERVED, checked, is_part
from opsd.storage.protocol import Capabilities, ObjectInfo
from opsd.storage.sftp_place import Place
from opsd.storage.sftp_pool import SessionPool
from opsd.storage.sftp_put import Putter
from opsd.storage.sftp_requests import Entry
from opsd.storage.sftp_session import Refused, Session, SftpOptions, connect

Result = TypeVar("Result")
Level = list[tuple[str, list[Entry]]]


class SftpStore:
    """The store in an existing folder; close it, or use it as a context, when done. Usable from several threads."""

    def __init__(self, options: SftpOptions) -> None:
        self._place = Place(options)
        self.connections = options.connections
        self._pool = SessionPool(lambda: connect(options), options.connections)
        self._putter = Putter(self._place)

    @classmethod
    def create(cls, options: SftpOptions) -> "SftpStore":
        """Make the root, its parents and every folder that objects go to, so that no put has to.

        May be repeated. Raises StorageError where a folder holds something else.
        """
        store = cls(options)
        try:
            store._run("make folders", store._create)
        except BaseException:
            store.close()
            raise
        return store

    def _create(self, session: Session) -> None:
        present = {entry.name for entry in self._place.entries(session) or ()} - {"lost+found"}
        if present and not present & set(FOLDERS):
            raise StorageError(f"{self._place} holds something else", hint="name an empty or absent folder")
        self._place.make(session)
        refused = requests.make_folders(session, [self._place.path(name) for name in FOLDERS])
        # One that is there already is refused too, each server with a status of its own: so look.
        if refused is not None and not self._present_folders(session) >= set(FOLDERS):
            raise refused
        self._putter.settle_names(session)

    def _present_folders(self, session: Session) -> set[str]:
        return {
            posixpath.join(parent, entry.name)
            for parent in ("", "packs")
            for entry in self._place.entries(session, parent) or ()
            if entry.is_folder
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    @property
    def capabilities(self) -> Capabilities:
        """What the server offers; it has to be asked."""
        return Capabilities(durable=self._run("look", requests.can_sync))

    def _run(self, action: str, operation: Callable[[Session], Result]) -> Result:
        """Do it on a session; what the server refuses becomes the StorageError that it is."""

        def tried(session: Session) -> Result:
            try:
                return operation(session)
            except Refused as refused:
                session.drain()
                raise self._place.failure(session, refused, action) from refused

        return self._pool.run(tried)

    def put(self, name: str, content: Content, *, replace: bool = False) -> None:
        """Store an object durably; a Path is copied."""
        checked(name)
        try:
            self._run(f"store {name}", lambda session: self._putter.put(session, name, content, replace=replace))
        except OSError as error:
            raise StorageError(f"can't read what is to be stored as {name}: {str(error).lower()}") from error

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of an object."""

        def buffer_for(size: int) -> memoryview:
            rest = max(0, size - offset)
            return memoryview(bytearray(rest if length is None else min(length, rest)))

        buffer, count = self._read(name, offset, buffer_for)
        return bytes(buffer[:count])

    def read_into(self, name: str, offset: int, buffer: memoryview) -> int:
        """Fill the buffer."""
        return self._read(name, offset, lambda size: buffer[: max(0, size - offset)])[1]

    def _read(self, name: str, offset: int, buffer_for: Callable[[int], memoryview]) -> tuple[memoryview, int]:
        """Fill the buffer that is chosen by the object's size; it, and how many bytes."""
        path = self._place.path(checked(name))

        def got(session: Session) -> tuple[memoryview, int]:
            try:
                handle, entry = requests.open_file(session, path)
            except Refused as refused:
                session.drain()
                raise self._place.missing(session, refused, name) from refused
            buffer = buffer_for(entry.size)
            count = requests.read_whole(session, handle, buffer, offset) if entry.is_file else 0
            requests.close(session, handle)
            if not entry.is_file:
                raise ObjectNotFound(name)
            return buffer, count

        return self._run(f"read {name}", got)

    def stat(self, name: str) -> ObjectInfo:
        """Size and time of an object."""
        path = self._place.path(checked(name))

        def seen(session: Session) -> Entry:
            try:
                return requests.look(session, path)
            except Refused as refused:
                raise self._place.missing(session, refused, name) from refused

        entry = self._run(f"look at {name}", seen)
        if not entry.is_file:
            raise ObjectNotFound(name)
        return _info(name, entry)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects under the prefix: level by level, many folders at once."""
        folder, _, start = prefix.rpartition("/")
        if folder:
            checked(folder)
        top = self._listed([folder])
        return self._walk(
            [(folder, [entry for entry in entries if entry.name.startswith(start)]) for _, entries in top]
        )

    def _walk(self, found: Level) -> Iterator[ObjectInfo]:
        """What lies in these folders and below."""
        while found:
            below = []
            for folder, entries in found:
                for entry in entries:
                    name = posixpath.join(folder, entry.name)
                    if is_part(entry.name) and entry.is_folder and name not in RESERVED:
                        below.append(name)
                    elif is_part(entry.name) and entry.is_file:
                        yield _info(name, entry)
            found = self._listed(below)

    def _listed(self, folders: Sequence[str]) -> Level:
        """What these folders hold; one that vanished holds nothing, if the store itself is there."""
        if not folders:
            return []

        def listed(session: Session) -> Level:
            found = [*requests.list_folders(session, [self._place.path(folder) for folder in folders])]
            if any(entries is None or (path == self._place.root and not entries) for path, entries in found):
                self._place.check_root(session)
            return [(folder, entries or []) for folder, (_, entries) in zip(folders, found, strict=True)]

        return self._run("list", listed)

    def delete(self, name: str) -> None:
        """Remove an object durably, also one whose removal was cut before it was durable."""
        path = self._place.path(checked(name))

        def deleted(session: Session) -> None:
            requests.remove(session, path)
            self._putter.settle_names(session)

        self._run(f"delete {name}", deleted)


def _info(name: str, entry: Entry) -> ObjectInfo:
    return ObjectInfo(name=name, size=entry.size, modified=entry.modified * 10**9)
