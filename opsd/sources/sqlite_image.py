"""Take a consistent image of an SQLite database while others write to it.

Promise: the image is what SQLite's backup API gives of one moment, held by a read transaction, so no writer starts it over; it
lies in a file without a name, so nothing is left behind by a kill; it passed `quick_check` unless it is very large.

Run as a program by its path (`python -I -S …/sqlite_image.py DATABASE`), it becomes the file's owner for good before it opens
anything and writes one line of JSON (Image's `size` and `facts`, or why it was refused), then the image, to standard output. So it
stands alone and imports nothing of opsd: the owner need not be able to read a single file of this installation.
"""

import argparse
import ctypes
import errno
import json
import os
import shutil
import sqlite3
import stat
import struct
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from io import FileIO
from typing import Any, Final
from urllib.parse import quote

HEADER: Final = b"SQLite format 3\0"
#: Pages copied between two looks at signals.
_STEP_PAGES: Final = 4096
_COPY_BYTES: Final = 1024 * 1024
#: More than this program ever has open.
_DESCRIPTORS: Final = 64
#: Bytes 18 and 19 of the header, where 1 is a rollback journal and 2 a write-ahead log (SQLite, Database File Format, 1.3.3).
_VERSIONS_AT: Final = 18
_ROLLBACK: Final = b"\1\1"
#: capabilities(7); linux/capability.h; prctl(2).
_CAPABILITIES_VERSION: Final = 0x20080522
_READ_SEARCH: Final = 1 << 2
_KEEP_CAPABILITIES: Final = 8


class Reason(StrEnum):
    """Why there is no image."""

    MISSING = "missing"
    NO_DATABASE = "no database"
    DAMAGED = "damaged"
    LOCKED = "locked"
    FORBIDDEN = "forbidden"
    NO_ROOM = "no room"
    FAILED = "failed"


class Refused(Exception):
    """There is no image; `text` says why, in words."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text

    @property
    def plain(self) -> bool:
        """Whether no SQLite can be using the file as a database, so that it may be stored like any other."""
        return self.reason in {Reason.NO_DATABASE, Reason.DAMAGED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Care:
    """How long to wait for a lock, in seconds, and up to which size, in bytes, to check the image and to count rows.

    `frozen`: the database lies in a snapshot of its file system, where nobody writes and nothing can be created. `owner`: the
    user whose file it must be, None for any.
    """

    busy_seconds: float = 30.0
    check_bytes: int = 8 * 1024**3
    count_bytes: int = 1024**3
    frozen: bool = False
    owner: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image in a file without a name, read from its beginning; `size` in bytes, `facts` as a drill compares them."""

    file: FileIO
    size: int
    facts: dict[str, Any]

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill some of the buffer; 0 at the end."""
        return self.file.readinto(buffer) or 0


@contextmanager
def taken(path: bytes, scratch: str | None, care: Care) -> Iterator[Image]:
    """An image of the database, in `scratch` if that can be written to, else where large temporary files go.

    Raises:
        Refused: there is none.
    """
    image = _image(path, scratch, care)
    with image.file:
        yield image


def _image(path: bytes, scratch: str | None, care: Care) -> Image:
    _look(path)
    try:
        with _scratch_folder(scratch) as folder:
            origin = _thawed(path, folder) if care.frozen else path
            with closing(_open(origin, care.busy_seconds)) as source:
                if care.owner is not None:
                    _refuse_files_of_others(care.owner)
                return _copied(source, folder, care)
    except sqlite3.Error as error:
        raise _refusal(error) from error
    except OSError as error:
        reason = Reason.NO_ROOM if error.errno in {errno.ENOSPC, errno.EDQUOT} else Reason.FAILED
        raise Refused(reason, (error.strerror or str(error)).lower()) from error


def _refuse_files_of_others(owner: int) -> None:
    """Look at what SQLite has really opened: whoever writes in the folder can swap a name for a symlink at any moment."""
    for descriptor in range(3, _DESCRIPTORS):
        with suppress(OSError):
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and status.st_uid != owner:
                raise Refused(Reason.FORBIDDEN, "the name leads to a file of another user")


def _copied(source: sqlite3.Connection, folder: str, care: Care) -> Image:
    with ExitStack() as stack:
        name = os.path.join(folder, "image")
        target = stack.enter_context(closing(sqlite3.connect(name, isolation_level=None)))
        target.execute("PRAGMA journal_mode = OFF")
        target.execute("PRAGMA synchronous = OFF")
        check = stack.enter_context(
            closing(sqlite3.connect(f"file:{quote(name)}?mode=ro", uri=True, isolation_level=None))
        )
        file = FileIO(name, "r+")
        on_failure = stack.enter_context(ExitStack())
        on_failure.callback(file.close)
        shutil.rmtree(folder)
        source.backup(target, pages=_STEP_PAGES, progress=_heed_signals, sleep=0)
        # Whoever writes with a rollback journal waits for this: no longer than needed.
        source.close()
        target.close()
        size = os.fstat(file.fileno()).st_size
        facts = _examined(check, file, size, care)
        on_failure.pop_all()
    return Image(file=file, size=size, facts=facts)


def _look(path: bytes) -> None:
    """Find what SQLite would call `unable to open database file`."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as error:
        raise Refused(Reason.MISSING, "no such file") from error
    except OSError as error:
        raise Refused(Reason.FORBIDDEN, (error.strerror or str(error)).lower()) from error
    if not stat.S_ISREG(mode):
        raise Refused(Reason.NO_DATABASE, "not a regular file")


@contextmanager
def _scratch_folder(scratch: str | None) -> Iterator[str]:
    """A folder that exists until somebody removes it, at the latest on leaving."""
    folder = ""
    for place in (scratch, "/var/tmp", tempfile.gettempdir()):  # noqa: S108 - mkdtemp makes it safe
        with suppress(OSError):
            if place:
                folder = tempfile.mkdtemp(prefix="opsd-image-", dir=place)
                break
    if not folder:
        raise Refused(Reason.NO_ROOM, "no folder for temporary files can be written to")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _thawed(path: bytes, folder: str) -> bytes:
    """A copy with its journals: recovery writes, which a frozen file system does not allow."""
    copy = os.fsencode(os.path.join(folder, "frozen"))
    for suffix in (b"", b"-wal", b"-journal"):
        if not suffix or os.path.exists(path + suffix):
            shutil.copyfile(path + suffix, copy + suffix)
    return copy


def _open(path: bytes, busy_seconds: float) -> sqlite3.Connection:
    """A connection within a read transaction.

    `rw`, for a read-only one leaves -wal and -shm files behind and cannot undo what a crashed writer left half done.
    """
    source = sqlite3.connect(f"file:{quote(path)}?mode=rw", uri=True, timeout=busy_seconds, isolation_level=None)
    try:
        source.execute("PRAGMA query_only = ON")
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        source.close()
        raise
    return source


def _heed_signals(status: int, remaining: int, total: int) -> None:
    """Being Python, lets a pending interrupt through."""
    del status, remaining, total


def _examined(check: sqlite3.Connection, file: FileIO, size: int, care: Care) -> dict[str, Any]:
    """Check the image and tell what it holds."""
    if size > care.check_bytes or not size:
        return {"checked": False}
    # A file without a name has no -wal beside it, and SQLite insists on one where the header says so.
    versions = os.pread(file.fileno(), len(_ROLLBACK), _VERSIONS_AT)
    os.pwrite(file.fileno(), _ROLLBACK, _VERSIONS_AT)
    check.text_factory = lambda text: text.decode(errors="replace")
    for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "ignore_check_constraints = ON"):
        check.execute(f"PRAGMA {pragma}")
    facts = {"checked": _check(check), **counted(check, rows=size <= care.count_bytes)}
    check.close()
    os.pwrite(file.fileno(), versions, _VERSIONS_AT)
    return facts


def _check(check: sqlite3.Connection) -> bool:
    """Whether it could be checked.

    Raises:
        Refused: it is damaged.
    """
    try:
        lines = [str(line) for (line,) in check.execute("PRAGMA quick_check(20)")]
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_ERROR:
            raise
        return False  # The schema asks for a function, a collation or a module of the application.
    # A NULL where none may be is the application's affair; nothing is damaged.
    problems = [line for line in lines if line != "ok" and not line.startswith("NULL value in ")]
    if problems:
        raise Refused(Reason.DAMAGED, f"quick_check says: {problems[0]}")
    return True


def counted(check: sqlite3.Connection, *, rows: bool) -> dict[str, Any]:
    """Page size and count, user version, digest of the schema and, where asked for, rows by table."""
    schema = check.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name, tbl_name"
    ).fetchall()
    facts: dict[str, Any] = {
        name: check.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "page_count", "user_version")
    }
    facts["schema"] = sha256(json.dumps(schema).encode()).hexdigest()
    if rows:
        tables = (
            name
            for kind, name, _, sql in schema
            if kind == "table" and not str(sql).upper().startswith("CREATE VIRTUAL")
        )
        facts["tables"] = {name: count for name in tables if (count := _rows(check, name)) is not None}
    return facts


def _rows(check: sqlite3.Connection, table: str) -> int | None:
    """Rows of a table; None if its name is no UTF-8."""
    quoted = table.replace('"', '""')
    try:
        return int(check.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()[0])  # noqa: S608 - quoted as SQL says
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_ERROR:
            raise
        return None


_REASONS: Final = {
    sqlite3.SQLITE_BUSY: Reason.LOCKED,
    sqlite3.SQLITE_LOCKED: Reason.LOCKED,
    sqlite3.SQLITE_NOTADB: Reason.NO_DATABASE,
    sqlite3.SQLITE_CORRUPT: Reason.DAMAGED,
    sqlite3.SQLITE_FULL: Reason.NO_ROOM,
    sqlite3.SQLITE_CANTOPEN: Reason.FORBIDDEN,
    sqlite3.SQLITE_READONLY: Reason.FORBIDDEN,
    sqlite3.SQLITE_PERM: Reason.FORBIDDEN,
    sqlite3.SQLITE_AUTH: Reason.FORBIDDEN,
}


def _refusal(error: sqlite3.Error) -> Refused:
    code = getattr(error, "sqlite_errorcode", None) or 0
    return Refused(_REASONS.get(code & 0xFF, Reason.FAILED), str(error))


def become(uid: int, gid: int, path: bytes) -> None:
    """Be that user for good, with no right but, where the way to the file is closed to its owner, that to pass and read.

    Such ways are common: a container's volume belongs to a user who can't enter the folder that holds all volumes.
    """
    system = ctypes.CDLL(None, use_errno=True)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    system.prctl(_KEEP_CAPABILITIES, 1, 0, 0, 0)
    os.setresuid(uid, uid, uid)
    # access(2) judges without capabilities.
    kept = 0 if os.access(path, os.R_OK) else _READ_SEARCH
    for mask in (kept, 0):
        words = struct.pack("=6I", mask, mask, 0, 0, 0, 0)
        if system.capset(struct.pack("=Ii", _CAPABILITIES_VERSION, 0), words) == 0:
            return
    raise Refused(Reason.FORBIDDEN, "the rights of the administrator can't be given up")


def _send(path: bytes, scratch: str | None, care: Care) -> None:
    output = sys.stdout.buffer
    buffer = memoryview(bytearray(_COPY_BYTES))
    with taken(path, scratch, care) as image:
        output.write(json.dumps({"size": image.size, "facts": image.facts}).encode() + b"\n")
        while count := image.readinto(buffer):
            output.write(buffer[:count])
        output.flush()


def main(arguments: Sequence[str]) -> int:
    """Send an image of a database, or the reason why there is none."""
    parser = argparse.ArgumentParser(description="Write a consistent image of an SQLite database to standard output.")
    parser.add_argument("database")
    parser.add_argument("--as", dest="owner", help="UID:GID to become first")
    parser.add_argument("--scratch", help="folder for the image while it is made")
    parser.add_argument("--busy-seconds", type=float, default=Care().busy_seconds)
    parser.add_argument("--check-bytes", type=int, default=Care().check_bytes)
    parser.add_argument("--count-bytes", type=int, default=Care().count_bytes)
    parser.add_argument("--frozen", action="store_true")
    asked = vars(parser.parse_args(arguments))
    path, owner, scratch = os.fsencode(asked.pop("database")), asked.pop("owner"), asked.pop("scratch")
    try:
        if owner:
            uid, _, gid = owner.partition(":")
            become(int(uid), int(gid), path)
        _send(path, scratch, Care(**asked, owner=os.getuid() if owner else None))
    except PermissionError as error:
        sys.stdout.buffer.write(
            json.dumps({"refused": Reason.FORBIDDEN, "text": str(error.strerror).lower()}).encode() + b"\n"
        )
    except Refused as error:
        sys.stdout.buffer.write(json.dumps({"refused": error.reason, "text": error.text}).encode() + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
