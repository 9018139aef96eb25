"""Open folders by path without ever leaving the folder that one begins in.

Promise: no symlink is followed and no `..` taken, whatever the path says and whoever changes the tree meanwhile. One system call
where the kernel has openat2(2), else one for each part of the path.
"""

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

#: openat2's number is the same on every architecture.
_OPENAT2: Final = 437
_RESOLVE: Final = 0x08 | 0x04 | 0x02  # RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_MAGICLINKS (openat2(2)).
#: Below the kernel's PATH_MAX; a longer path is opened in steps.
_LONGEST: Final = 4000
_NOT_HERE: Final = frozenset({errno.ENOSYS, errno.EPERM, errno.EAGAIN, errno.EINVAL})

LISTED: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Search permission is enough; good as a beginning for other calls only.
PASSED: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)


def open_folder(root: int, path: bytes, flags: int = PASSED) -> int:
    """A new descriptor of the folder at `path` (relative; empty for the root itself).

    Raises:
        OSError: it is not there, or a part of the path is no folder (a symlink is none).
    """
    steps = list(_steps(path or b"."))
    held = -1
    try:
        for number, step in enumerate(steps):
            here, last = (root if held < 0 else held), number == len(steps) - 1
            found = _open(here, step, flags if last else PASSED)
            if held >= 0:
                os.close(held)
            held = found
    except OSError:
        if held >= 0:
            os.close(held)
        raise
    return held


@contextmanager
def folder(root: int, path: bytes, flags: int = PASSED) -> Iterator[int]:
    """As `open_folder`, closed at the end."""
    descriptor = open_folder(root, path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def sync(descriptor: int) -> None:
    """Make all that was written to this file system durable, and learn of earlier failures (syncfs(2))."""
    if _libc.syncfs(ctypes.c_int(descriptor)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _steps(path: bytes) -> Iterator[bytes]:
    while len(path) > _LONGEST:
        cut = path.rindex(b"/", 1, _LONGEST)
        yield path[:cut]
        path = path[cut + 1 :]
    yield path


def _open(root: int, path: bytes, flags: int) -> int:
    how = _How(flags, 0, _RESOLVE)
    found = int(_libc.syscall(_OPENAT2, root, path, ctypes.byref(how), ctypes.sizeof(how)))
    if found >= 0:
        return found
    code = ctypes.get_errno()
    if code in _NOT_HERE:
        return _open_by_parts(root, path, flags)
    raise OSError(code, os.strerror(code), os.fsdecode(path))


def _open_by_parts(root: int, path: bytes, flags: int) -> int:
    """For kernels before 5.6 and filters that do not know openat2."""
    held = os.open(b".", flags if path == b"." else PASSED, dir_fd=root)
    parts = [] if path == b"." else path.split(b"/")
    for number, part in enumerate(parts):
        try:
            if part in {b"", b".", b".."}:
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), os.fsdecode(path))
            found = os.open(part, flags if number == len(parts) - 1 else PASSED, dir_fd=held)
        finally:
            os.close(held)
        held = found
    return held
