"""SQLite databases as sources, and those that are met in a tree of files.

Promise: a live database is never copied plainly: what is stored is an image of one moment, from SQLite's backup API. Whoever may
reads it as its owner, in a process of its own: so a WAL-mode database opens at all, root leaves no files that lock the owner out, and
a hostile database meets no more rights than its owner has.

A `-wal`, `-shm` or `-journal` file beside a database belongs to the image and is not stored (`companion_of`).
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from stat import S_IFMT, S_ISLNK
from typing import Any, Final, Protocol

from opsd.control import asked, socket_of
from opsd.errors import OpsdError, ProgramFailed, SourceError
from opsd.process import Output, stream
from opsd.sources import sqlite_image
from opsd.sources.options import SqliteSource
from opsd.sources.protocol import Stream
from opsd.sources.sqlite_image import HEADER, Care, Reason, Refused

#: With pages of 4 KiB and 1 % of them changed at random, blocks of 16 KiB store 3.9 % again, of 8 KiB 2.0 %; each costs
#: 22 bytes in the map and some microseconds.
PAGE_BYTES: Final = 8192
COMPANIONS: Final = (b"-wal", b"-shm", b"-journal")
_LINE_BYTES: Final = 16 * 1024 * 1024
#: CAP_SETGID and CAP_SETUID, capabilities(7).
_MAY_BECOME_OTHERS: Final = 1 << 6 | 1 << 7

HINTS: Final[Mapping[Reason, str]] = {
    Reason.MISSING: "correct the path in the configuration, or remove the source",
    Reason.NO_DATABASE: "it may be encrypted (then dump it by a command source), or something else: look at it with 'file'",
    Reason.DAMAGED: "save what is left with 'sqlite3 FILE .recover', or restore it from an older snapshot",
    Reason.LOCKED: "a program holds it for itself; stop that program by a hook, or dump the database by a command source",
    Reason.FORBIDDEN: "run opsd as root or as the file's owner, or give it CAP_SETUID and CAP_SETGID to read it as the owner",
    Reason.NO_ROOM: "the image needs as much room as the database; free some, or set TMPDIR to a folder that has it",
    Reason.FAILED: "try 'sqlite3 FILE .dump' as the file's owner and see what it says",
}


class Image(Protocol):
    """An image while it is read: Readable, with its `size` in bytes and the `facts` that a drill compares."""

    @property
    def size(self) -> int:
        """Bytes that it has."""
        ...

    @property
    def facts(self) -> dict[str, Any]:
        """Rows by table, page size and count, user version, digest of the schema; less for a very large one."""
        ...

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill some of the buffer; 0 at the end."""
        ...


def is_database(first_bytes: bytes) -> bool:
    """Whether a file that begins with these 16 bytes is an SQLite database, or says so."""
    return first_bytes[:16] == HEADER


def companion_of(name: bytes) -> bytes | None:
    """The database that a file of that name belongs to, if such a database exists: `a.db` for `a.db-wal`."""
    return next((name.removesuffix(end) for end in COMPANIONS if name.endswith(end) and name != end), None)


@contextmanager
def image(
    path: bytes, *, found: os.stat_result | None = None, scratch: Path | None = None, care: Care | None = None
) -> Iterator[Image]:
    """A consistent image of a database, in `scratch` (default: where large temporary files go) while it is read.

    `found` is the lstat by which the caller met the file: another file that took its name meanwhile is not read.

    Raises:
        Refused: there is no image; `plain` says whether the file may be stored like any other.
    """
    care = care or Care()
    status = found or _status(path)
    with _chosen(path, status, scratch, care) as taken:
        if found and not _same(os.lstat(path), found):
            raise Refused(Reason.MISSING, "another file took its place meanwhile")
        yield taken


def _chosen(path: bytes, status: os.stat_result, scratch: Path | None, care: Care) -> AbstractContextManager[Image]:
    """Its own user reads it; else whoever may become that one, here or in the service opsd-owner; else this user."""
    if status.st_uid != os.geteuid():
        if may_become_others():
            return _by_helper(path, status, scratch, care)
        if socket_of("image").exists():
            return _by_service(path, status, care)
    return _directly(path, scratch, care)


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether both are of one file; a number may be used again at once, so a symlink is not taken for it."""
    return (one.st_dev, one.st_ino, S_IFMT(one.st_mode)) == (other.st_dev, other.st_ino, S_IFMT(other.st_mode))


def may_become_others() -> bool:
    """Whether this process may run a program as another user, and group."""
    line = next(
        line
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        if line.startswith("CapEff:")
    )
    return int(line.split()[1], 16) & _MAY_BECOME_OTHERS == _MAY_BECOME_OTHERS


def _status(path: bytes) -> os.stat_result:
    """What stands there; whoever may write in its folder can put a symlink there that leads to another's file."""
    try:
        found = os.lstat(path)
    except FileNotFoundError as error:
        raise Refused(Reason.MISSING, "no such file") from error
    except OSError as error:
        raise Refused(Reason.FORBIDDEN, (error.strerror or str(error)).lower()) from error
    if S_ISLNK(found.st_mode):
        raise Refused(Reason.FORBIDDEN, "a symlink took its place")
    return found


@contextmanager
def _directly(path: bytes, scratch: Path | None, care: Care) -> Iterator[Image]:
    with sqlite_image.taken(path, None if scratch is None else str(scratch), care) as taken:
        yield taken


class _Sends(Protocol):
    """Whoever sends an image."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill some of the buffer; 0 at the end."""
        ...


class _Sent:
    """An image that somebody sends."""

    def __init__(self, output: _Sends, size: int, facts: dict[str, Any]) -> None:
        self._output = output
        self.left = size
        self.size = size
        self.facts = facts

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill some of the buffer; 0 at the end."""
        count = self._output.readinto(buffer[: self.left])
        self.left -= count
        return count


@contextmanager
def _by_helper(path: bytes, owner: os.stat_result, scratch: Path | None, care: Care) -> Iterator[Image]:
    """Read it as its owner. The helper takes the image before it sends anything."""
    # Nothing of the environment, of the folder or of what else is installed decides what runs: -I and -S.
    arguments = [sys.executable, "-I", "-S", sqlite_image.__file__, f"--as={owner.st_uid}:{owner.st_gid}"]
    arguments += [
        f"--busy-seconds={care.busy_seconds}",
        f"--check-bytes={care.check_bytes}",
        f"--count-bytes={care.count_bytes}",
    ]
    arguments += ["--frozen"] * care.frozen
    arguments += [f"--scratch={scratch}"] * (scratch is not None)
    environment = {name: os.environ[name] for name in ("TMPDIR", "LD_LIBRARY_PATH") if name in os.environ}
    sent: _Sent | None = None
    try:
        with stream([*arguments, "--", os.fsdecode(path)], environment=environment) as output:
            said = json.loads(_first_line(output) or "{}")
            if "refused" in said:
                raise Refused(Reason(said["refused"]), str(said["text"]))
            if said:
                sent = _Sent(output, int(said["size"]), said["facts"])
                yield sent
    except ProgramFailed as error:
        raise Refused(Reason.FAILED, str(error)) from error
    if sent is None or sent.left:
        raise Refused(Reason.FAILED, "the program that reads it ended early")


@contextmanager
def _by_service(path: bytes, status: os.stat_result, care: Care) -> Iterator[Image]:
    """Have the service read it as its owner; where that refuses to, there is no image. It is told which file is meant."""
    told = {name: getattr(care, name) for name in ("busy_seconds", "check_bytes", "count_bytes", "frozen")}
    request = {"job": "image", "path": os.fsdecode(path), "care": told, "file": [status.st_dev, status.st_ino]}
    with ExitStack() as stack:
        with _failing():
            service = stack.enter_context(asked(socket_of("image"), request))
            said = service.answer()
        if "refused" in said:
            raise Refused(Reason(said["refused"]), str(said["text"]))
        sent = _Sent(service, int(said["size"]), said["facts"])
        yield sent
        with _failing():
            if sent.left or service.answer() != "whole":
                raise Refused(Reason.FAILED, "opsd-owner, which reads it, ended early")


@contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except OpsdError as error:
        raise Refused(Reason.FAILED, f"{error}{f' ({error.hint})' if error.hint else ''}") from error


def _first_line(output: Output) -> bytes:
    line = bytearray()
    byte = memoryview(bytearray(1))
    while output.readinto(byte) and byte[0] != ord("\n") and len(line) < _LINE_BYTES:
        line += byte
    return bytes(line)


class SqliteDatabase:
    """One configured database as a source of one stream, whose path is the database's own."""

    kind = "sqlite"
    parallel = 1
    warnings = 0

    def __init__(
        self, label: str, options: SqliteSource, *, scratch: Path | None = None, care: Care | None = None
    ) -> None:
        self.label = label
        self._path = os.fsencode(os.path.realpath(options.path))
        self._page_bytes = options.page_bytes or PAGE_BYTES
        self._scratch = scratch
        self._care = care
        self._facts: dict[str, Any] = {}

    @contextmanager
    def streams(self) -> Iterator[Iterator[Stream]]:
        """The database's image.

        Raises:
            SourceError: it isn't there.
        """
        try:
            status = _status(self._path)
        except Refused as error:
            raise self._failure(error) from error
        only = Stream(
            path=self._path,
            open=self._open,
            mode=status.st_mode & 0o7777,
            uid=status.st_uid,
            gid=status.st_gid,
            mtime=status.st_mtime_ns,
            pages=self._page_bytes,
        )
        yield iter((only,))

    @contextmanager
    def _open(self) -> Iterator[Image]:
        try:
            with image(self._path, scratch=self._scratch, care=self._care) as taken:
                yield taken
                if taken.readinto(memoryview(bytearray(1))):
                    raise SourceError(self.label, "its image was not read to the end")
                self._facts = taken.facts
        except Refused as error:
            raise self._failure(error) from error

    def _failure(self, error: Refused) -> SourceError:
        name = self._path.decode("utf-8", "backslashreplace")
        return SourceError(self.label, f"{name}: {error.text}", hint=HINTS[error.reason])

    def facts(self) -> Mapping[str, Any]:
        """What a drill compares, once the image was read."""
        return self._facts
