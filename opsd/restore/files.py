"""Make and remove what stands in open folders: links, nodes, copies of files.

Promise: what is made is new and never reached through a symlink.
"""

import os
import stat
from typing import Final

from opsd.model import Entry, EntryType

NEW_FILE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_COPY_BYTES: Final = 8 * 1024 * 1024

TYPE_BITS: Final = {
    EntryType.FILE: stat.S_IFREG,
    EntryType.FOLDER: stat.S_IFDIR,
    EntryType.SYMLINK: stat.S_IFLNK,
    EntryType.FIFO: stat.S_IFIFO,
    EntryType.SOCKET: stat.S_IFSOCK,
    EntryType.CHARACTER_DEVICE: stat.S_IFCHR,
    EntryType.BLOCK_DEVICE: stat.S_IFBLK,
}


def held_bytes(entry: Entry) -> int:
    """How many bytes of a file its content holds; the rest of its size are holes."""
    return entry.size if entry.extents is None else sum(length for _, length in entry.extents)


def make_node(folder: int, name: bytes, entry: Entry) -> None:
    """Make a symlink, a fifo or a device in an open folder, as yet without its metadata."""
    if entry.type is EntryType.SYMLINK:
        os.symlink(entry.target or b"", name, dir_fd=folder)
    elif entry.type is EntryType.FIFO:
        os.mkfifo(name, 0o600, dir_fd=folder)
    else:
        os.mknod(name, TYPE_BITS[entry.type] | 0o600, os.makedev(*(entry.device or (0, 0))), dir_fd=folder)


def copy(source: int, target: int) -> None:
    """Copy an open file's bytes to another one, where a hard link is not to be had; holes may be filled."""
    offset = 0
    while chunk := os.pread(source, _COPY_BYTES, offset):
        offset += os.pwrite(target, chunk, offset)


def remove(folder: int, name: bytes) -> None:
    """Remove what stands at a name, a folder with all in it; mounted file systems are not entered.

    Raises:
        OSError: not all of it could be removed.
    """
    try:
        os.unlink(name, dir_fd=folder)
    except IsADirectoryError:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        inner = os.open(name, flags, dir_fd=folder)
        try:
            if os.fstat(inner).st_dev == os.fstat(folder).st_dev:
                for each in os.listdir(inner):
                    remove(inner, os.fsencode(each))
        finally:
            os.close(inner)
        os.rmdir(name, dir_fd=folder)
