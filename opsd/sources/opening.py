"""Open what was found on disk without following a symlink, without waiting for a fifo, without touching access times.

Promise: what is opened can be compared with what was found (`same_file`), so an entry that was swapped meanwhile is
noticed. Paths longer than the kernel takes work as well.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

#: The kernel's PATH_MAX counts the closing zero byte.
_LONGEST = 4095
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_WAY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def reachable(path: bytes) -> Iterator[bytes]:
    """A path to the same place that is short enough for every call; valid within the context."""
    if len(path) <= _LONGEST:
        yield path
        return
    held = -1
    try:
        while len(path) > _LONGEST - 64:  # Room for /proc/self/fd/N/ in front.
            cut = path.rindex(b"/", 1, _LONGEST - 64)
            held, before = os.open(path[:cut], _WAY, dir_fd=None if held < 0 else held), held
            path = path[cut + 1 :]
            if before >= 0:
                os.close(before)
        yield b"/proc/self/fd/%d/%s" % (held, path)
    finally:
        if held >= 0:
            os.close(held)


def open_file(path: bytes) -> int:
    """A descriptor for reading; the caller compares its fstat with the lstat before (`same_file`) and closes it."""
    if len(path) <= _LONGEST:
        return _open_file(path)
    with reachable(path) as short:
        return _open_file(short)


def _open_file(path: bytes) -> int:
    try:
        return os.open(path, _FILE | os.O_NOATIME)
    except PermissionError:  # Only the owner and root may leave the access time alone.
        return os.open(path, _FILE)


@contextmanager
def open_folder(path: bytes, *, listed: bool = True) -> Iterator[int]:
    """A descriptor of the folder itself, never of one a symlink leads to; not `listed`: search permission is enough."""
    with reachable(path) as short:
        descriptor = os.open(short, _FOLDER if listed else _WAY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def same_file(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether both are of one and the same file or folder."""
    return one.st_ino == other.st_ino and one.st_dev == other.st_dev


def unchanged(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether the content can't have changed in between: same file, size, and times of change to the nanosecond."""
    return (
        before.st_ino == after.st_ino
        and before.st_size == after.st_size
        and before.st_mtime_ns == after.st_mtime_ns
        and before.st_ctime_ns == after.st_ctime_ns
    )
