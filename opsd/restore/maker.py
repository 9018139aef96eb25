"""What a maker does: a process of its own that makes the plain files of a restore, while the next ones are decoded.

Promise: it makes new files only, in the very folders that it is told of, and reaches them without following a symlink. What can't be
made whole leaves nothing behind and is named in the answer. It holds no key and ends when nobody asks any more.

It is started as a script (`opsd.restore.makers`), so it imports nothing but the standard library and what scouts speak.
"""

import mmap
import os
import signal
import sys

#: Name, mode to open it with, owner and mode to give it (None: as it is), time of change in ns, where its bytes are in the area.
Plain = tuple[bytes, int, tuple[int, int] | None, int | None, int, int, int]
#: Path below the target, device, inode, and what to make in it.
InFolder = tuple[bytes, int, int, list[Plain]]

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_WAY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def make(root: int, area: memoryview, folders: list[InFolder], asker: int) -> list[int]:
    """Make the files; returns the numbers of those that are not there, counted over all folders. It ends with its `asker`."""
    failed: list[int] = []
    number = 0
    for path, device, inode, files in folders:
        folder = _open(root, path, device, inode)
        for file in files:
            if os.getppid() != asker:
                sys.exit()
            if folder < 0 or not _make_one(folder, area, file):
                failed.append(number)
            number += 1
        if folder >= 0:
            os.close(folder)
    return failed


def _open(root: int, path: bytes, device: int, inode: int) -> int:
    """The folder, part by part; -1 if it is not the one that is meant."""
    held = -1
    try:
        held = os.open(b".", _WAY, dir_fd=root)
        for part in path.split(b"/") if path else ():
            above, held = held, -1
            try:
                held = os.open(part, _WAY, dir_fd=above)
            finally:
                os.close(above)
        found = os.fstat(held)
        if (found.st_dev, found.st_ino) == (device, inode):
            return held
    except OSError:
        pass
    if held >= 0:
        os.close(held)
    return -1


def _make_one(folder: int, area: memoryview, file: Plain) -> bool:
    """In the order of `opsd.restore.metadata`: the time of change comes last, and says that the file is whole."""
    name, open_mode, owner, mode, changed, start, end = file
    try:
        descriptor = os.open(name, _NEW, open_mode, dir_fd=folder)
    except OSError:
        return False
    try:
        while start < end:
            start += os.write(descriptor, area[start:end])
        if owner is not None:
            os.chown(descriptor, *owner)
        if mode is not None:
            os.chmod(descriptor, mode)
        os.utime(descriptor, ns=(changed, changed))
    except (OSError, OverflowError):
        os.unlink(name, dir_fd=folder)
        return False
    finally:
        os.close(descriptor)
    return True


def serve(root: int, area: memoryview, asker: int) -> None:
    """Answer until nobody asks."""
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    from opsd.sources.scout import message, receive  # noqa: PLC0415 - a script finds the package only now

    while (asked := receive(0)) is not None:
        assert isinstance(asked, list)
        answer = message(make(root, area, asked, asker))
        while answer:
            answer = answer[os.write(1, answer) :]


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asker = os.getppid()
    memory, target = map(int, sys.argv[1:])
    serve(target, memoryview(mmap.mmap(memory, 0)), asker)
