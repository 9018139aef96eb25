"""Run programs: a short one whole, a long one as a stream of its output.

Promise: arguments are a list, never a shell's line. A program whose reader fails, leaves early, is interrupted or runs out of
time is stopped with all that it started in its session; none can stand still because nobody reads its errors. Once a program has
been left, no thread and no descriptor of ours is bound to it, even where a child in the background still holds its pipes.

What outlives a killed opsd: nothing is done between fork and exec to tie children to it, for that code is unsafe beside threads,
and the kernel's parent-death signal follows the thread that started the child, not the process. A streamed program loses the
reader of its output and ends at its next write; the rest is the service manager's, which ends the whole control group.
"""

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import IO, Final

from opsd.errors import ProgramFailed
from opsd.values import dataclass

#: What a failed program said last is kept, in bytes, and shown, in lines.
ERROR_BYTES: Final = 16 * 1024
ERROR_LINES: Final = 8
#: More output than this, in bytes, is a stream's affair.
OUTPUT_BYTES: Final = 64 * 1024 * 1024
#: Between SIGTERM and SIGKILL, and for what a background child still holds open, in seconds.
GRACE: Final = 5.0
#: Also what a pipe holds at most, unless somebody enlarges it (pipe(7)).
_STEP: Final = 64 * 1024
#: Programs that threads of this process are talking to.
_running: set[subprocess.Popen[bytes]] = set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A program that ended: its exit code (negative: the signal), its output, the end of what it said on standard error."""

    status: int
    output: bytes
    error_text: bytes


def run(
    arguments: Sequence[str],
    *,
    timeout: float,
    environment: Mapping[str, str] | None = None,
    given: bytes = b"",
    kept: bool = True,
) -> Completed:
    """Run a program to its end; `timeout` in seconds, 0 for none.

    `environment` replaces ours; `given` is what the program reads on standard input; what it writes is dropped, however much, unless `kept`.

    Raises:
        ProgramFailed: it can't be started, ran out of time, or wrote more than 64 MiB. An exit code is a result, not an error.
    """
    with _started(arguments, environment, timeout, given) as program:
        output = program.read_whole(kept=kept)
        return Completed(status=program.wait(), output=output, error_text=program.errors.text())


@contextmanager
def stream(
    arguments: Sequence[str], *, timeout: float = 0.0, environment: Mapping[str, str] | None = None, given: bytes = b""
) -> Iterator["Output"]:
    """A reader of a program's output while it runs; arguments as for `run`.

    Raises:
        ProgramFailed: on leaving, unless the program ended with 0 and its output was read to the end.
    """
    with _started(arguments, environment, timeout, given) as program:
        yield program.output
        if not program.output.at_end():
            raise ProgramFailed(f"the output of {program.name} was not read to its end")
        status = program.wait()
        if status:
            raise ProgramFailed(f"{program.name} {ending(status)}{said(program.errors.text())}", status=status)


def feed(
    arguments: Sequence[str], pieces: Iterable[bytes | memoryview], *, environment: Mapping[str, str] | None = None
) -> Completed:
    """Give a program its input piece by piece while its output is read. Whether it read all of its input is its own business.

    Raises:
        ProgramFailed: as for `run`. What `pieces` raises stops the program.
    """
    with _started(arguments, environment, 0.0, None) as program:
        output = program.converse(pieces)
        return Completed(status=program.wait(), output=output, error_text=program.errors.text())


def ending(status: int) -> str:
    """An exit code in words: `exited with 3`, `was ended by SIGKILL`."""
    if status >= 0:
        return f"exited with {status}"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-status).name}"
    return f"was ended by signal {-status}"


def said(error_text: bytes) -> str:
    """The last lines that a program wrote, to follow a text: `: one; two`, or nothing."""
    lines = [line.strip() for line in error_text.decode(errors="replace").splitlines() if line.strip()]
    return ": " + "; ".join(lines[-ERROR_LINES:]) if lines else ""


class Output:
    """The standard output of a program as something to read from."""

    def __init__(self, pipe: IO[bytes], errors: "_Errors") -> None:
        assert isinstance(pipe, FileIO)
        self._pipe = pipe
        self._errors = errors
        self._ended = False

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill some of the buffer; 0 at the end."""
        count = self._pipe.readinto(buffer) or 0
        self._ended = self._ended or (not count and len(buffer) > 0)
        return count

    def at_end(self) -> bool:
        """Whether all was read; waits for the program to close its output or to write more."""
        return self._ended or not self._pipe.read(1)

    def fileno(self) -> int:
        """The descriptor, for poll(2)."""
        return self._pipe.fileno()

    def close(self) -> None:
        """Read no more."""
        self._pipe.close()

    def error_text(self) -> bytes:
        """The end of what the program said on standard error, which it should have closed: after the end of its output."""
        return self._errors.text()


class _Beside:
    """The threads beside a program, which feed it and read its errors; `end` waits for them, and nobody else is waited for."""

    def __init__(self) -> None:
        self._left = os.eventfd(0)
        self._threads: list[threading.Thread] = []

    def start(self, name: str, work: Callable[[], None]) -> threading.Thread:
        """Work in a thread that returns as soon as `wait_for` is true."""
        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)
        return thread

    def wait_for(self, pipe: IO[bytes], event: int) -> bool:
        """Wait for an event of poll(2) at a pipe; true once the program has been left."""
        poll = select.poll()
        poll.register(pipe, event)
        poll.register(self._left, select.POLLIN)
        return any(descriptor == self._left for descriptor, _ in poll.poll())

    def end(self) -> None:
        """The program has been left."""
        os.eventfd_write(self._left, 1)
        for thread in self._threads:
            thread.join()
        os.close(self._left)


class _Errors:
    """Reads standard error in a thread of its own and keeps the end of it."""

    def __init__(self, pipe: IO[bytes], beside: _Beside) -> None:
        self._pipe = pipe
        self._beside = beside
        self._text = b""
        os.set_blocking(pipe.fileno(), False)
        self._thread = beside.start("opsd-errors", self._drain)

    def _drain(self) -> None:
        """Read to the end; once the program has been left, only what the pipe still holds."""
        with self._pipe:
            while True:
                left = self._beside.wait_for(self._pipe, select.POLLIN)
                piece = self._pipe.read(_STEP)
                if piece:
                    self._text = (self._text + piece)[-ERROR_BYTES:]
                if left or piece == b"":
                    return

    def text(self) -> bytes:
        """What was said last. A child left in the background may hold the pipe open: it is not waited for."""
        self._thread.join(GRACE)
        return self._text


class _Program:
    """A running program with its pipes and its time limit."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], timeout: float) -> None:
        assert process.stdout
        assert process.stderr
        self.name = name
        self._beside = _Beside()
        self.errors = _Errors(process.stderr, self._beside)
        self.output = Output(process.stdout, self.errors)
        self._process = process
        self._timeout = timeout
        #: Readable once the program has ended; when its output is not waited for any longer.
        self._ended = os.pidfd_open(process.pid)
        self._end: float | None = None
        self._expired = False
        self._timer = threading.Timer(timeout, self._expire)
        self._timer.daemon = True
        if timeout:
            self._timer.start()

    def read_whole(self, *, kept: bool = True) -> bytes:
        """All of a short output; of any output nothing, unless it is `kept`."""
        whole = bytearray()
        buffer = memoryview(bytearray(_STEP))
        while self._has_more() and (count := self.output.readinto(buffer)):
            if kept:
                whole += buffer[:count]
            if len(whole) > OUTPUT_BYTES:
                raise ProgramFailed(f"{self.name} wrote more than {OUTPUT_BYTES // 1024 // 1024} MiB")
        return bytes(whole)

    def _has_more(self) -> bool:
        """Wait for output, or its end; once the program has ended, not for long: a child in the background may hold the pipe open."""
        poll = select.poll()
        poll.register(self.output, select.POLLIN)
        if self._end is None:
            poll.register(self._ended, select.POLLIN)
            if any(descriptor != self._ended for descriptor, _ in poll.poll()):
                return True
            poll.unregister(self._ended)
            self._end = time.monotonic() + GRACE
        return bool(poll.poll(max(0.0, self._end - time.monotonic()) * 1000))

    def give(self, given: bytes) -> None:
        """Write its input while it is read from; one that does not read all of it is its own business."""
        pipe = self._process.stdin
        assert pipe
        os.set_blocking(pipe.fileno(), False)

        def write() -> None:
            rest = memoryview(given)
            with suppress(BrokenPipeError), pipe:
                while rest and not self._beside.wait_for(pipe, select.POLLOUT):
                    rest = rest[pipe.write(rest) or 0 :]

        self._beside.start("opsd-input", write)

    def feed(self, pieces: Iterable[bytes | memoryview]) -> None:
        """Write its input and close it; where it reads no more, so does this."""
        assert self._process.stdin
        with suppress(BrokenPipeError), self._process.stdin as pipe:
            for piece in pieces:
                _write(pipe, piece)

    def converse(self, pieces: Iterable[bytes | memoryview]) -> bytes:
        """Feed it; returns its output."""
        with ThreadPoolExecutor(1, "opsd-output") as reader:
            output = reader.submit(self._read_or_close)
            try:
                self.feed(pieces)
            except BaseException:
                _stop(self._process)
                raise
            return output.result()

    def _read_or_close(self) -> bytes:
        """A program that is not read from can't stand still."""
        try:
            return self.read_whole()
        finally:
            self.output.close()

    def wait(self) -> int:
        """The exit code, once it ended."""
        status = self._process.wait()
        if self._expired:
            text = f"{self.name} ran longer than its limit of {self._timeout:g} s and was stopped"
            raise ProgramFailed(text + said(self.errors.text()), hint="raise its timeout if it needs the time")
        return status

    def leave(self) -> None:
        """Stop it if it still runs, and hold nothing of it."""
        self._timer.cancel()
        self.output.close()
        _stop(self._process)
        self._beside.end()
        os.close(self._ended)
        if self._timer.is_alive():
            self._timer.join()

    def _expire(self) -> None:
        if self._process.poll() is None:
            self._expired = True
            _stop(self._process)


@contextmanager
def _started(
    arguments: Sequence[str], environment: Mapping[str, str] | None, timeout: float, given: bytes | None
) -> Iterator[_Program]:
    """`given` is its whole input; None: it will be fed."""
    process = _start(arguments, environment, fed=given != b"")
    _running.add(process)
    try:
        program = _Program(Path(arguments[0]).name, process, timeout)
        try:
            if given:
                program.give(given)
            yield program
        finally:
            program.leave()
    finally:
        _running.discard(process)
        _stop(process)


def stop_all() -> None:
    """Stop every program that another thread reads from, so that it meets an end: this process was told to stop."""
    for process in tuple(_running):
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the whole session to end, then end it; the exit of the program itself is not that of its children.

    One that became another user may be out of reach (EPERM); it ends where its output is not read any more.
    """
    if process.poll() is not None:
        return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _start(arguments: Sequence[str], environment: Mapping[str, str] | None, *, fed: bool) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            list(arguments),
            stdin=subprocess.PIPE if fed else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=None if environment is None else dict(environment),
            start_new_session=True,
        )
    except FileNotFoundError as error:
        hint = "install it, or give its full path"
        raise ProgramFailed(f"there is no program {arguments[0]}", hint=hint) from error
    except PermissionError as error:
        hint = f"check that it is executable: ls -l {arguments[0]}"
        raise ProgramFailed(f"{arguments[0]} may not be run", hint=hint) from error
    except (OSError, ValueError) as error:
        raise ProgramFailed(f"{arguments[0]} can't be started: {error}") from error


def _write(pipe: IO[bytes], piece: bytes | memoryview) -> None:
    left = memoryview(piece)
    while left:
        left = left[pipe.write(left) :]
