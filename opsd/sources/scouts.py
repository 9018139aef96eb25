"""Starting scouts and talking with them: processes that read ahead of a backup (`opsd.sources.scout`).

Threads of this process would do, but each of the six system calls that a small file takes would hand the interpreter over to
another thread and wait to get it back. docs/decisions/0011-reading-ahead.md has the measurement.

Promise: nothing depends on a scout. One that can't be started, dies, says what can't be understood, or is silent for too long is ended
and answers nothing any more; once it has ended it touches no memory. `close` leaves no process behind.
"""

import os
import select
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from opsd.sources import scout

#: A scout that neither reads nor answers for so long is stuck, or was stopped: what it was asked for is read without it.
_PATIENCE_SECONDS: Final = 60.0
_STEP: Final = 65_536


class Scout:
    """One process. Used by one thread; answers come in the order of the questions."""

    def __init__(self, *given: int, script: str = scout.__file__, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        """Start it; `given` is a descriptor of the memory that files are read into, none for one that looks at folders only.

        Another `script` that speaks as a scout does gets the descriptors that it is given as its arguments.
        """
        self._patience = patience_seconds
        self._received = bytearray()
        self._answers: deque[object] = deque()
        self._process = _start(script, given)

    @property
    def lives(self) -> bool:
        """Whether it was started and not ended; one that died by itself is noticed when it is next asked."""
        return self._process is not None

    def mention(self, folder: bytes) -> None:
        """Have a folder looked at; the path, of at most 2 KiB, is dropped rather than waited for."""
        if self._process and self._process.stdin:
            with suppress(OSError):
                os.write(self._process.stdin.fileno(), scout.message(folder))

    def ask(self, question: object) -> None:
        """Send a question about files. Answers that come meanwhile are kept, so neither side waits for the other for ever."""
        left = memoryview(scout.message(question))
        while left and self._process:
            left = left[self._exchange(self._process, left) :]

    def answer(self) -> Any:
        """Wait for the next answer; None if there will be none."""
        while not self._answers and self._process:
            self._exchange(self._process, memoryview(b""))
        return self._answers.popleft() if self._answers else None

    def close(self) -> None:
        """End it: it only reads, so it may be stopped anywhere."""
        if self._process:
            self._process.kill()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe:
                    pipe.close()
            self._process.wait()
            self._process = None

    def _exchange(self, process: "subprocess.Popen[bytes]", left: memoryview) -> int:
        """Take what it says and give it some of `left`, whichever is possible; returns how many bytes it was given."""
        assert process.stdin
        assert process.stdout
        given, said = process.stdin.fileno(), process.stdout.fileno()
        poll = select.poll()
        poll.register(said, select.POLLIN)
        if left:
            poll.register(given, select.POLLOUT)
        ready = dict(poll.poll(self._patience * 1000))
        try:
            if not ready or (said in ready and not self._hear(os.read(said, _STEP))):
                self.close()
            elif given in ready:
                return os.write(given, left)
        except BlockingIOError:
            return 0
        except (OSError, ValueError, EOFError, TypeError):
            self.close()
        return 0

    def _hear(self, part: bytes) -> bool:
        """Take the answers that are whole now; whether there was anything."""
        self._received += part
        while (message := scout.first_message(self._received)) is not None:
            self._answers.append(message)
        return bool(part)


def _start(script: str, given: Sequence[int]) -> "subprocess.Popen[bytes] | None":
    if not sys.executable:
        return None
    with suppress(OSError):
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", script, *map(str, given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=given,
            bufsize=0,
        )
        assert process.stdin
        os.set_blocking(process.stdin.fileno(), False)
        return process
    return None
