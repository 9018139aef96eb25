"""Files and folders that survive a power cut.

Promise: what returns is on the disk; a failed fsync is final for that file, and is never tried again on it, since the
kernel may have dropped what it could not write (PostgreSQL wiki, "Fsync Errors").
"""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from opsd.errors import MAKE_ROOM, StorageError, StoreFull, StoreReadOnly, StoreUnavailable

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_REFUSED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_REFUSED_HINT = "see its mount options, owner and mode, and as whom opsd runs; in a unit of systemd: opsd config units"
# What a network file system says while its server is away.
_AWAY = frozenset({errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EAGAIN, errno.ENOTCONN})

_BLOCK = 1 << 20


def failure(error: OSError, action: str, root: Path) -> StorageError:
    """The kind of StorageError that this error of the operating system is."""
    text = f"can't {action} in store folder {root}: {(error.strerror or str(error)).lower()}"
    if error.errno in _FULL:
        return StoreFull(text, hint=MAKE_ROOM)
    if error.errno in _REFUSED:
        return StoreReadOnly(text, hint=_REFUSED_HINT)
    if error.errno in _AWAY:
        return StoreUnavailable(text, hint="see whether the server that it is mounted from answers")
    hint = "the disk may be failing: see 'dmesg' and 'smartctl -a'" if error.errno == errno.EIO else None
    return StorageError(text, hint=hint)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder 0700 with its parents, durably; one that is there is synced too, as its maker may have been cut."""
    if not folder.parent.is_dir():
        make_folder(folder.parent)
    _make(folder)
    sync_folder(folder)
    sync_folder(folder.parent)


def make_folders(root: Path, names: Sequence[str]) -> None:
    """Make many folders below `root`, parents before children; all are durable when it returns."""
    for name in names:
        _make(root / name)
    for name in reversed(names):
        sync_folder(root / name)
    sync_folder(root)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if not folder.is_dir():
            raise
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, 0o700)  # Whatever the umask is.
        _give(descriptor, folder.parent)
    finally:
        os.close(descriptor)


def new_file(path: Path) -> int:
    """A descriptor of a new file, 0600 whatever the umask is."""
    descriptor = private_file(path, os.O_WRONLY | os.O_EXCL)
    os.fchmod(descriptor, 0o600)
    return descriptor


def private_file(path: Path, flags: int) -> int:
    """A descriptor of a file, made 0600 where there is none; never of what a symlink leads to."""
    descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    _give(descriptor, path.parent)
    return descriptor


def private_folder(folder: Path) -> None:
    """Make a folder 0700 with its parents, where it is missing."""
    if folder.is_dir():
        return
    private_folder(folder.parent)
    _make(folder)


def _give(descriptor: int, folder: Path) -> None:
    """What root makes in a folder of another's is that other's: a run by hand must not lock the service out."""
    if os.geteuid() == 0 and os.fstat(descriptor).st_uid == 0 and (owner := os.stat(folder)).st_uid != 0:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def write_whole(descriptor: int, content: bytes | memoryview) -> None:
    """Write all of it, however little the kernel takes at a time."""
    rest = memoryview(content).cast("B")
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def sync_file(path: Path) -> None:
    """Make a file that others wrote durable, 0600 and dated now."""
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, 0o600)
        _give(descriptor, path.parent)
        os.utime(descriptor)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_whole(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Fill the buffer from there on; how many bytes, fewer only where the file ends."""
    done = 0
    while done < len(buffer):
        got = os.preadv(descriptor, [buffer[done:]], offset + done)
        if not got:
            break
        done += got
    return done


def copy_whole(descriptor: int, source: Path) -> None:
    """Write a whole file."""
    with source.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            write_whole(descriptor, block)


def link(source: Path, target: Path) -> None:
    """Give a durable file its name, never over another; FileExistsError if there is one."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}:
            raise
        # FAT and some network file systems know no hard links. Between the look and the rename only the same bytes
        # can come, since a name carries their hash.
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        source.rename(target)
        return
    source.unlink()
