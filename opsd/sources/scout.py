"""What a scout does: a process of its own that reads small files, and looks at folders, before these are asked for.

Promise: what it answers was read from the very file that was found, unchanged since; to all else the answer is None, and whoever asked
looks for himself. It writes nothing but answers, and ends when nobody asks any more.

It is started as a script (`opsd.sources.scouts`), so it imports nothing but the standard library, and little of that.
"""

import errno
import marshal
import mmap
import os
import signal
import sys

#: Path, size in bytes, device, inode, times of change of content and inode in ns: what an lstat found.
Wanted = tuple[bytes, int, int, int, int, int]
#: Extended attributes: names and values.
Attributes = tuple[tuple[bytes, bytes], ...]

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_UNSUPPORTED = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
#: Of a file that is not read here, so much is asked of the disk.
WARM_BYTES = 16 * 1024 * 1024
#: Longer attributes are left to whoever asked, so that answers stay short.
_ATTRIBUTE_BYTES = 4096


def read_files(buffer: memoryview, small: int, files: list[Wanted]) -> list[Attributes | None]:
    """Read files up to `small` bytes one after the other into the buffer; bring the beginning of larger ones into the page cache.

    All are asked of the disk before the first is waited for.
    """
    descriptors = [_ask(path, size) for path, size, *_ in files]
    answers: list[Attributes | None] = []
    filled = 0
    for descriptor, wanted in zip(descriptors, files, strict=True):
        size = wanted[1]
        if descriptor is None or size > small:
            answers.append(None)
        else:
            answers.append(_read(descriptor, buffer[filled : filled + size], wanted))
        filled += size if size <= small else 0
        if descriptor is not None:
            os.close(descriptor)
    return answers


def _ask(path: bytes, size: int) -> int | None:
    try:
        try:
            descriptor = os.open(path, _OPEN | os.O_NOATIME)
        except PermissionError:  # Only the owner and root may leave the access time alone.
            descriptor = os.open(path, _OPEN)
    except OSError:
        return None
    try:
        os.posix_fadvise(descriptor, 0, min(size, WARM_BYTES), os.POSIX_FADV_WILLNEED)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _read(descriptor: int, buffer: memoryview, wanted: Wanted) -> Attributes | None:
    try:
        # A file that claims to be empty need not be: some file systems don't know how long it is before it is read.
        count = os.readv(descriptor, [buffer]) if buffer else len(os.read(descriptor, 1))
        attributes = _attributes(descriptor)
        found = os.fstat(descriptor)
    except OSError:
        return None
    _, size, device, inode, modified, changed = wanted
    whole = count == size == found.st_size and (found.st_dev, found.st_ino) == (device, inode)
    return attributes if whole and (found.st_mtime_ns, found.st_ctime_ns) == (modified, changed) else None


def _attributes(descriptor: int) -> Attributes | None:
    try:
        names = os.listxattr(descriptor)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return ()
        raise
    if not names:
        return ()
    attributes = tuple((os.fsencode(name), os.getxattr(descriptor, name)) for name in sorted(names))
    return attributes if sum(len(name) + len(value) for name, value in attributes) <= _ATTRIBUTE_BYTES else None


def look(folder: bytes) -> None:
    """Bring a folder and the status of all in it into the kernel's caches."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return  # Whoever lists it for real meets the error again.
    try:
        with os.scandir(descriptor) as entries:
            for entry in entries:
                entry.stat(follow_symlinks=False)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def read_exactly(descriptor: int, length: int) -> bytes:
    """So many bytes, or none where the pipe has ended."""
    parts = []
    while length:
        part = os.read(descriptor, length)
        if not part:
            return b""
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def receive(descriptor: int) -> object:
    """One message, or None where the pipe has ended."""
    head = read_exactly(descriptor, 4)
    body = read_exactly(descriptor, int.from_bytes(head, "little")) if head else b""
    return marshal.loads(body) if body else None  # noqa: S302 - from a process that we started, or that started us


def first_message(received: bytearray) -> object:
    """Take the first message out of what was received; None if it is not whole yet."""
    end = 4 + int.from_bytes(received[:4], "little")
    if len(received) < max(end, 5):
        return None
    value: object = marshal.loads(received[4:end])  # noqa: S302 - from a process that we started
    del received[:end]
    return value


def message(value: object) -> bytes:
    """A message's bytes."""
    body = marshal.dumps(value)  # type: ignore[arg-type]  # `Any` would cost each scout the import of typing
    return len(body).to_bytes(4, "little") + body


def serve(area: mmap.mmap | None) -> None:
    """Answer until nobody asks; `area` is the memory that files are read into."""
    view = memoryview(area or b"")
    while (asked := receive(0)) is not None:
        match asked:
            case bytes(folder):
                look(folder)
            case (int(start), int(end), int(small), list(files)):
                answer = message(read_files(view[start:end], small, files))
                while answer:
                    answer = answer[os.write(1, answer) :]


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(mmap.mmap(int(sys.argv[1]), 0) if len(sys.argv) > 1 else None)
