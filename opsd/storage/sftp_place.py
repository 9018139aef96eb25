"""Where a store's objects lie on an SFTP server, and what it means when the server refuses something there.

Promise: a folder that is not there, or empty, is never a store without objects; no refusal stays without a next step.
"""

import posixpath

from paramiko import sftp as protocol

from opsd.errors import MAKE_ROOM, ObjectNotFound, StorageError, StoreFull, StoreGone, StoreReadOnly, StoreUnavailable
from opsd.storage import sftp_requests as requests
from opsd.storage.sftp_requests import Entry, SyncRefused
from opsd.storage.sftp_session import Refused, Session, SftpOptions


class Place:
    """The folder; `str` of it is what people call it."""

    def __init__(self, options: SftpOptions) -> None:
        self._name = str(options)
        self.root = posixpath.normpath(options.path)

    def __str__(self) -> str:
        return self._name

    def path(self, name: str) -> str:
        """Where an object or a folder of the store lies."""
        return posixpath.join(self.root, name) if name else self.root

    def entries(self, session: Session, name: str = "") -> list[Entry] | None:
        """What a folder of the store holds, or the root; None if it is not there."""
        [(_, entries)] = requests.list_folders(session, [self.path(name)])
        return entries

    def check_root(self, session: Session) -> None:
        """Raise StorageError for what an unmounted disk leaves: no folder, or an empty one."""
        entries = self.entries(session)
        if not entries:
            state = "not there" if entries is None else "empty"
            hint = "is the disk mounted there? 'opsd init' makes a new repository, 'opsd copy' a new copy"
            raise StoreGone(f"store folder {self} is {state}", hint=hint)

    def make(self, session: Session, name: str = "") -> None:
        """Make a folder with its parents; one that can't be made shows when it is used."""
        paths = [self.path(name)]
        while (parent := posixpath.dirname(paths[0])) not in {"", "/", paths[0]}:
            paths.insert(0, parent)
        requests.make_folders(session, paths)

    def missing(self, session: Session, refused: Refused, name: str) -> ObjectNotFound:
        """The error for an object that is not there, if that is what was refused and the store itself is there."""
        if refused.code != protocol.SFTP_NO_SUCH_FILE:
            raise refused
        self.check_root(session)
        return ObjectNotFound(name)

    def failure(self, session: Session, refused: Refused, action: str, needed: int = 1) -> StorageError:
        """Which StorageError a refusal is; `needed` bytes were to be written."""
        text = f"can't {action} in {self}: {str(refused).lower()}"
        if refused.code == protocol.SFTP_PERMISSION_DENIED:
            return StoreReadOnly(text, hint="see owner and mode there, and whether this login may only read")
        if refused.code in {protocol.SFTP_NO_CONNECTION, protocol.SFTP_CONNECTION_LOST}:
            return StoreUnavailable(text, hint="see whether the server is up")
        # SFTP has one word for a full disk, a read-only one and a broken one.
        space = requests.space(session, self.root) if refused.code == protocol.SFTP_FAILURE else None
        if space is not None and space.read_only:
            return StoreReadOnly(f"{text} (mounted read-only)", hint="see its mount options there")
        if space is not None and (space.free < needed or space.files == 0):
            left = f"{space.free} bytes are free" if space.free < needed else "no room for another file"
            return StoreFull(f"{text} ({left})", hint=MAKE_ROOM)
        if isinstance(refused, SyncRefused):
            # Final for that file; the next try writes the bytes to another.
            return StoreUnavailable(
                f"{text} (fsync)", hint="the disk there may be failing: see 'dmesg' and 'smartctl -a'"
            )
        return StorageError(text, hint="SFTP does not say why: see the server's log, its disk and this user's quota")
