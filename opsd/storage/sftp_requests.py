"""What a store asks of an SFTP server, in as few round trips as the protocol allows.

Promise: nothing here decides. A function returns what the server did, or raises Refused as the server said it; then answers
may still be under way, and `Session.drain` waits for them.

The protocol is draft-ietf-secsh-filexfer-02 (version 3); the extensions are those of OpenSSH's PROTOCOL, section 4.
"""

import stat
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import paramiko
from paramiko import sftp

from opsd.storage.sftp_session import Refused, Session, text
from opsd.values import dataclass

#: Requests under way in one transfer: with the largest blocks they fill OpenSSH's window of 2 MiB several times.
_DEPTH = 32
#: Folders read at once; each holds a handle open on the server.
_FOLDERS = 64
#: Requests under way for the names of one folder.
_MOST_AHEAD = 16

_SYNC = "fsync@openssh.com"
_REPLACE = "posix-rename@openssh.com"
_SPACE = "statvfs@openssh.com"

_NEW = sftp.SFTP_FLAG_WRITE | sftp.SFTP_FLAG_CREATE | sftp.SFTP_FLAG_EXCL
_PERMISSIONS = 4
_NO_ATTRIBUTES = bytes(4)


class SyncRefused(Refused):
    """A file could not be made durable."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a folder holds, or a path leads to; `modified` in seconds, by the server's clock."""

    name: str
    size: int
    modified: int
    is_file: bool
    is_folder: bool


@dataclass(frozen=True, slots=True)
class Space:
    """What is left for this user, in bytes and in files, where the server can tell."""

    free: int
    files: int
    read_only: bool


def _mode(mode: int) -> bytes:
    """Attributes (section 5): nothing but the permissions."""
    return _number(_PERMISSIONS) + _number(mode)


def _number(value: int) -> bytes:
    return value.to_bytes(4)


def _entry(name: str, attributes: paramiko.SFTPAttributes) -> Entry:
    mode = attributes.st_mode or 0
    return Entry(
        name,
        attributes.st_size or 0,
        attributes.st_mtime or 0,
        is_file=stat.S_ISREG(mode),
        is_folder=stat.S_ISDIR(mode),
    )


def _parsed(name: str, message: paramiko.Message) -> Entry:
    return _entry(name, paramiko.SFTPAttributes._from_msg(message))  # type: ignore[attr-defined]  # noqa: SLF001 - the only parser


def look(session: Session, path: str) -> Entry:
    """What stands at a path; a link is not followed."""
    return _looked(session, session.ask(sftp.CMD_LSTAT, text(path)), path)


def _looked(session: Session, number: int, path: str) -> Entry:
    _, message = session.answer(number)
    return _parsed(path, message)


def new_file(session: Session, path: str) -> bytes:
    """The handle of a new file, 0600 less the server's umask; Refused if there is one."""
    _, message = session.call(sftp.CMD_OPEN, text(path), _number(_NEW), _mode(0o600))
    return message.get_string()


def open_file(session: Session, path: str) -> tuple[bytes, Entry]:
    """The handle of a file to read, and what it is, in one round trip."""
    numbers = (
        session.ask(sftp.CMD_LSTAT, text(path)),
        session.ask(sftp.CMD_OPEN, text(path), _number(sftp.SFTP_FLAG_READ), _NO_ATTRIBUTES),
    )
    entry = _looked(session, numbers[0], path)
    _, message = session.answer(numbers[1])
    return message.get_string(), entry


def close(session: Session, handle: bytes) -> None:
    """Close a file."""
    session.call(sftp.CMD_CLOSE, text(handle))


def modified(session: Session, handle: bytes) -> int:
    """When an open file was written to, in seconds, by the server's clock."""
    _, message = session.call(sftp.CMD_FSTAT, text(handle))
    return _parsed("", message).modified


def write_whole(session: Session, handle: bytes, blocks: Iterable[bytes]) -> None:
    """Write a new file from its beginning; it is whole on the server when this returns, though not yet durable."""
    waiting: deque[int] = deque()
    offset = 0
    for block in blocks:
        if len(waiting) == _DEPTH:
            session.answer(waiting.popleft())
        waiting.append(session.ask(sftp.CMD_WRITE, text(handle), offset.to_bytes(8), _number(len(block)), block))
        offset += len(block)
    while waiting:
        session.answer(waiting.popleft())


def sync(session: Session, handle: bytes) -> None:
    """Make a file durable, with the names that it has by now, where the server can; SyncRefused if that failed."""
    if can_sync(session):
        try:
            session.call(sftp.CMD_EXTENDED, text(_SYNC), text(handle))
        except Refused as refused:
            raise SyncRefused(refused.code, str(refused)) from refused


def can_sync(session: Session) -> bool:
    """Whether the server can make a file durable."""
    return session.offers(_SYNC)


def read_whole(session: Session, handle: bytes, buffer: memoryview, offset: int) -> int:
    """Fill the buffer from there on; how many bytes, fewer only where the file ends."""
    waiting: deque[tuple[int, int, int]] = deque()

    def ask(start: int, length: int) -> tuple[int, int, int]:
        return session.ask(sftp.CMD_READ, text(handle), (offset + start).to_bytes(8), _number(length)), start, length

    begun = 0
    while begun < len(buffer) or waiting:
        while begun < len(buffer) and len(waiting) < _DEPTH:
            length = min(session.read_block, len(buffer) - begun)
            waiting.append(ask(begun, length))
            begun += length
        number, start, length = waiting.popleft()
        block = _block(session, number)
        buffer[start : start + len(block)] = block
        if not block:
            session.drain()
            return start
        if len(block) < length:
            waiting.appendleft(ask(start + len(block), length - len(block)))
    return len(buffer)


def _block(session: Session, number: int) -> bytes:
    """What was read; empty at the end of the file."""
    try:
        _, message = session.answer(number)
    except Refused as refused:
        if refused.code == sftp.SFTP_EOF:
            return b""
        raise
    return message.get_string()


def rename(session: Session, source: str, target: str) -> None:
    """Give a file another name, never over another file (OpenSSH links, then unlinks)."""
    session.call(sftp.CMD_RENAME, text(source), text(target))


def replace(session: Session, source: str, target: str) -> None:
    """Give a file the name of another at once."""
    if not session.offers(_REPLACE):
        raise Refused(sftp.SFTP_OP_UNSUPPORTED, f"the server lacks {_REPLACE}")
    session.call(sftp.CMD_EXTENDED, text(_REPLACE), text(source), text(target))


def remove(session: Session, path: str) -> None:
    """Remove a file; one that is not there is no error."""
    try:
        session.call(sftp.CMD_REMOVE, text(path))
    except Refused as refused:
        if refused.code != sftp.SFTP_NO_SUCH_FILE:
            raise


def make_folders(session: Session, paths: Sequence[str]) -> Refused | None:
    """Make folders 0700, parents before children; the first refusal, also for one that is there already."""
    first = None
    for number in [session.ask(sftp.CMD_MKDIR, text(path), _mode(0o700)) for path in paths]:
        try:
            session.answer(number)
        except Refused as refused:
            first = first or refused
    return first


def space(session: Session, path: str) -> Space | None:
    """What is left there, if the server can tell."""
    if not session.offers(_SPACE):
        return None
    try:
        _, message = session.call(sftp.CMD_EXTENDED, text(_SPACE), text(path))
    except Refused:
        return None
    values = [message.get_int64() for _ in range(11)]
    _, unit, _, _, available, _, _, files, _, flags, _ = values
    return Space(free=unit * available, files=files, read_only=bool(flags & 1))


def list_folders(session: Session, paths: Sequence[str]) -> Iterator[tuple[str, list[Entry] | None]]:
    """What each folder holds, many folders at once; None for one that is not there."""
    for first in range(0, len(paths), _FOLDERS):
        yield from _list_some(session, paths[first : first + _FOLDERS])


def _list_some(session: Session, paths: Sequence[str]) -> list[tuple[str, list[Entry] | None]]:
    numbers = [session.ask(sftp.CMD_OPENDIR, text(path)) for path in paths]
    found: dict[str, list[Entry] | None] = {}
    reading: dict[str, bytes] = {}
    for path, number in zip(paths, numbers, strict=True):
        handle = _opened(session, number)
        found[path] = None if handle is None else []
        if handle is not None:
            reading[path] = handle
    ahead = 2  # Most folders have one answer, and the end.
    while reading:
        asked = [
            (path, session.ask(sftp.CMD_READDIR, text(handle)))
            for path, handle in reading.items()
            for _ in range(ahead)
        ]
        ended = {path for path, number in asked if not _read_names(session, number, found[path])}
        closing = [session.ask(sftp.CMD_CLOSE, text(reading.pop(path))) for path in ended]
        for number in closing:
            session.answer(number)
        ahead = min(2 * ahead, _MOST_AHEAD)
    return list(found.items())


def _opened(session: Session, number: int) -> bytes | None:
    try:
        _, message = session.answer(number)
    except Refused as refused:
        if refused.code == sftp.SFTP_NO_SUCH_FILE:
            return None
        raise
    return message.get_string()


def _read_names(session: Session, number: int, found: list[Entry] | None) -> bool:
    """Add what one answer names; False at the end of the folder."""
    try:
        _, message = session.answer(number)
    except Refused as refused:
        if refused.code == sftp.SFTP_EOF:
            return False
        raise
    for _ in range(message.get_int()):
        name = message.get_string().decode(errors="replace")
        message.get_string()  # The line that `ls -l` would print.
        entry = _parsed(name, message)
        if found is not None and name not in {".", ".."}:
            found.append(entry)
    return True
