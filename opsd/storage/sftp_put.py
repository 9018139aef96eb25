"""Bring bytes to an SFTP server so that they are whole and durable under their name, or not there at all.

Promise: an object is a temporary file, fsync, a rename that does not overwrite, and fsync of the same file again: SFTP can't
sync a folder, but a journal that keeps the file keeps the names given before (docs/decisions/0020-sftp.md). What is cut off
leaves at most a file in `tmp/`, which goes when it is old. Whether an answer that was lost meant success is settled by
looking: each put begins with a look.
"""

import itertools
import posixpath
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from paramiko import sftp as protocol

from opsd.errors import StorageError, StoreUnavailable
from opsd.storage import sftp_requests as requests
from opsd.storage.folder import Content
from opsd.storage.sftp_place import Place
from opsd.storage.sftp_session import Refused, Session

#: How long the leftovers of others stay, in seconds by the server's clock; a put is over in minutes.
_LEFTOVERS = 86_400


class Putter:
    """Puts of one store; usable from several threads, each with a session of its own."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._numbers = itertools.count()
        self._token = secrets.token_hex(8)
        self._cut_off: list[str] = []
        self._swept = False

    def put(self, session: Session, name: str, content: Content, *, replace: bool) -> None:
        """Store an object, as the protocol of stores says."""
        self._remove_cut_off(session)
        if not replace and self._is_there(session, name, content):
            self._settle(session, name)
        else:
            self._write(session, name, content, replace=replace)

    def _is_there(self, session: Session, name: str, content: Content) -> bool:
        """Whether the object is stored already; a stored one of another length is damaged."""
        try:
            present = requests.look(session, self._place.path(name)).size
        except Refused as refused:
            if refused.code != protocol.SFTP_NO_SUCH_FILE:
                raise
            return False
        size = _size(content)
        if present != size:
            raise StorageError(
                f"{name} is damaged: it has {present} bytes, not {size}", hint="run 'opsd check --repair'"
            )
        return True

    def _settle(self, session: Session, name: str) -> None:
        """The bytes are there; whoever put them may have been cut before the name was durable."""
        handle, _ = requests.open_file(session, self._place.path(name))
        requests.sync(session, handle)
        requests.close(session, handle)

    def _write(self, session: Session, name: str, content: Content, *, replace: bool) -> None:
        temporary, handle = self._new_temporary(session)
        try:
            requests.write_whole(session, handle, _blocks(content, session.write_block))
            requests.sync(session, handle)
            if replace:
                requests.replace(session, temporary, self._place.path(name))
            else:
                self._publish(session, temporary, name, content)
            requests.sync(session, handle)
            requests.close(session, handle)
        except Refused as refused:
            session.drain()
            # Asked before the file goes: it may be what fills the disk.
            failure = self._place.failure(session, refused, f"store {name}", _size(content))
            self._abandon(session, temporary, handle)
            raise failure from refused
        except BaseException:
            if session.is_lost:
                self._cut_off.append(temporary)
            else:
                session.drain()
                self._abandon(session, temporary, handle)
            raise

    def _publish(self, session: Session, temporary: str, name: str, content: Content) -> None:
        target = self._place.path(name)
        try:
            requests.rename(session, temporary, target)
        except Refused as refused:
            if refused.code == protocol.SFTP_NO_SUCH_FILE:
                self._place.check_root(session)
                self._place.make(session, posixpath.dirname(name))
                requests.rename(session, temporary, target)
            elif self._is_there(session, name, content):
                # Another thread or process was faster with the same name.
                requests.remove(session, temporary)
                self._settle(session, name)
            else:
                raise

    @staticmethod
    def _abandon(session: Session, temporary: str, handle: bytes) -> None:
        with suppress(Refused):
            requests.close(session, handle)
        with suppress(Refused):
            requests.remove(session, temporary)

    def _new_temporary(self, session: Session) -> tuple[str, bytes]:
        """The path and the handle of a new file in `tmp/`."""
        path = self._place.path(f"tmp/{self._token}-{next(self._numbers)}")
        try:
            handle = requests.new_file(session, path)
        except StoreUnavailable:
            self._cut_off.append(path)
            raise
        except Refused as refused:
            if refused.code != protocol.SFTP_NO_SUCH_FILE:
                raise
            # A store that was copied by other means may lack empty folders; one that is unmounted lacks all.
            self._place.check_root(session)
            self._place.make(session, "tmp")
            handle = requests.new_file(session, path)
        if not self._swept:
            self._swept = True
            self._sweep(session, requests.modified(session, handle))
        return path, handle

    def _sweep(self, session: Session, now: int) -> None:
        """Remove what killed runs left behind, here or on other hosts; `now` by the server's clock, not the machine's."""
        for entry in self._place.entries(session, "tmp") or ():
            if entry.is_file and now - entry.modified > _LEFTOVERS:
                with suppress(Refused):
                    requests.remove(session, self._place.path(f"tmp/{entry.name}"))

    def _remove_cut_off(self, session: Session) -> None:
        """Remove what this store itself left behind when a connection broke."""
        while self._cut_off:
            with suppress(Refused, IndexError):
                requests.remove(session, self._cut_off.pop())

    def settle_names(self, session: Session) -> None:
        """Make durable which names were given and taken so far: a file renamed after them and synced takes them along."""
        temporary, handle = self._new_temporary(session)
        try:
            requests.rename(session, temporary, f"{temporary}-settled")
            requests.sync(session, handle)
        finally:
            if not session.is_lost:
                self._abandon(session, f"{temporary}-settled", handle)


def _size(content: Content) -> int:
    return content.stat().st_size if isinstance(content, Path) else memoryview(content).nbytes


def _blocks(content: Content, size: int) -> Iterator[bytes]:
    """The content in blocks that go into one request each."""
    if isinstance(content, Path):
        with content.open("rb", buffering=0) as file:
            while block := file.read(size):
                yield block
        return
    rest = memoryview(content).cast("B")
    for start in range(0, len(rest), size):
        yield bytes(rest[start : start + size])
