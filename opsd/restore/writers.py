"""Write files' content: small pieces at once, large ones in threads, while the next are awaited.

Promise: bytes go where the listing says, or the file is not whole and its writer hears an IntegrityError. When `fill` returns or
raises, none of its writes is under way: the descriptor may be closed, and what was written may be dated.
"""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Final

from opsd.errors import IntegrityError
from opsd.model import Entry
from opsd.restore.files import held_bytes
from opsd.restore.protocol import Pieces

#: From this many bytes on, a piece takes longer to write than to hand over.
_LARGE: Final = 256 * 1024
_THREADS: Final = 2
#: So many pieces of a file may be under way: they are what its writing adds to the memory in use.
_MOST_UNDER_WAY: Final = 4


class Writers:
    """The threads of one restore; `begun` makes them."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool

    @classmethod
    @contextmanager
    def begun(cls) -> Iterator["Writers"]:
        """Threads start when the first large piece comes; at the end there are none."""
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="opsd-write") as pool:
            yield cls(pool)

    def fill(self, descriptor: int, entry: Entry, pieces: Pieces) -> int:
        """Write a new file's content, holes kept; returns how many bytes that was.

        Raises:
            IntegrityError: there is more or less of it than the listing says.
            OSError: it could not be written.
        """
        under_way: deque[Future[None]] = deque()
        try:
            end, written = self._write_all(descriptor, entry.size, pieces, under_way)
        finally:
            if under_way:
                wait(under_way)
        for each in under_way:
            each.result()
        if entry.pages is None and written != held_bytes(entry):
            raise IntegrityError("a part of its content is missing", hint="run 'opsd check --read-data'")
        if end < entry.size:
            os.ftruncate(descriptor, entry.size)
        return written

    def _write_all(self, descriptor: int, size: int, pieces: Pieces, under_way: deque[Future[None]]) -> tuple[int, int]:
        """Write or hand over every piece; returns where the last one ends, and how many bytes all are."""
        end = written = 0
        for offset, piece in pieces:
            length = len(piece)
            if offset < 0 or offset + length > size:
                raise IntegrityError("its content reaches past its end", hint="run 'opsd check --read-data'")
            if length < _LARGE:
                _write(descriptor, piece, offset)
            else:
                if len(under_way) >= _MOST_UNDER_WAY:
                    under_way.popleft().result()
                under_way.append(self._pool.submit(_write, descriptor, piece, offset))
            written += length
            end = max(end, offset + length)
        return end, written


def _write(descriptor: int, piece: memoryview, offset: int) -> None:
    """All of it, however little the kernel takes at a time."""
    done, length = os.pwrite(descriptor, piece, offset), len(piece)
    while done < length:
        done += os.pwrite(descriptor, piece[done:], offset + done)
