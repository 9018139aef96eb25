"""Find where a sparse file holds bytes.

Promise: never leaves out a byte that is not zero; a file system that can't tell counts as having no holes.
"""

import errno
import os


def data_extents(descriptor: int, found: os.stat_result) -> list[tuple[int, int]] | None:
    """Offset and length of each stretch of bytes in order, all else being holes; None if there is no hole.

    Asks only where fewer blocks are in use than the size takes (compressed files, too, which then have none).
    The descriptor's position is 0 afterwards.
    """
    size = found.st_size
    if found.st_blocks * 512 >= size:
        return None
    extents: list[tuple[int, int]] = []
    end = 0
    try:
        while (start := _next_data(descriptor, end)) is not None and start < size:
            end = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
            extents.append((start, end - start))
    except OSError as cause:
        if cause.errno not in {errno.EINVAL, errno.EOPNOTSUPP, errno.ENXIO}:
            raise
        return None  # It can't tell, or the file was cut short meanwhile, which the reader notices.
    finally:
        os.lseek(descriptor, 0, os.SEEK_SET)
    return None if extents == [(0, size)] else extents


def _next_data(descriptor: int, offset: int) -> int | None:
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError as cause:
        if cause.errno == errno.ENXIO:  # Nothing but a hole up to the end.
            return None
        raise
