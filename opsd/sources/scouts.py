"""Starting scouts and talking with them: processes that read ahead of a backup (`opsd.sources.scout`).

Threads of this process would do, but each of the six system calls that a small file takes would hand the interpreter over to
another thread and wait to get it back. docs/decisions/0011-reading-ahead.md has the measurement.

Promise: a scout that can't be started, or dies, answers nothing any more; nothing depends on it. `close` leaves no process behind.
"""

import os
import subprocess
import sys
from contextlib import suppress
from typing import Any

from opsd.sources import scout


class Scout:
    """One process. Used by one thread; answers come in the order of the questions."""

    def __init__(self, area: int | None = None) -> None:
        """Start it; `area` is a descriptor of the memory that files are read into, None for one that looks at folders only."""
        self._process: subprocess.Popen[bytes] | None = None
        given = [] if area is None else [area]
        with suppress(OSError):
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", scout.__file__, *map(str, given)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=given,
                bufsize=0,
            )
            if area is None and self._process.stdin:
                os.set_blocking(self._process.stdin.fileno(), False)

    def ask(self, question: object) -> None:
        """Send a question: files, which will be answered, or a folder of at most 2 KiB, which is dropped rather than waited for."""
        if self._process and self._process.stdin:
            with suppress(OSError):
                rest = memoryview(scout.message(question))
                while rest:
                    rest = rest[os.write(self._process.stdin.fileno(), rest) :]

    def answer(self) -> Any:
        """Wait for the next answer; None if there will be none."""
        if self._process and self._process.stdout:
            with suppress(OSError, ValueError, EOFError, TypeError):
                return scout.receive(self._process.stdout.fileno())
        return None

    def close(self) -> None:
        """End it: it only reads, so it may be stopped anywhere."""
        if self._process:
            self._process.kill()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe:
                    pipe.close()
            self._process.wait()
