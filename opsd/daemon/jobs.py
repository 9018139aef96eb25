"""Run one of opsd's own commands as a child process, with limits of its own.

Promise: whatever the child does (hang, crash, leak, flood its output, leave children behind) whoever runs it goes on, holds at most
16 KiB of what it said, and learns how it ended. Nothing runs between fork and exec: that is unsafe beside threads.
"""

import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import field
from typing import IO, Final

from opsd.control import HEARTBEAT_SECONDS, TAIL_BYTES, Ended
from opsd.values import dataclass

#: How soon a wish to stop is seen, in seconds.
_LOOK: Final = 0.25
_STEP: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a job may take: its nice value, its best-effort io priority (7 is the last), its memory and its time; None: no limit.

    `memory` is in bytes for each of its processes; files that it maps don't count (RLIMIT_DATA, getrlimit(2)). `grace` are the seconds
    between the polite signal and the last one.
    """

    nice: int | None = 10
    io_priority: int | None = 7
    memory: int | None = 4 * 1024**3
    seconds: float | None = None
    grace: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A command of opsd, such as `("backup", "--source", "www")`, of this configuration (None: the usual one).

    `environment` is all that the child gets of it.
    """

    verb: tuple[str, ...]
    configuration: str | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    limits: Limits = field(default_factory=Limits)

    def arguments(self) -> list[str]:
        """The command line: this interpreter, this opsd; -P, for the current folder is no place to import from."""
        # -t: the unit of the daemon forbids it, and the job runs all the same.
        level = self.limits.io_priority
        priority = ["ionice", "-t", "-c", "2", "-n", str(level)] if level is not None and shutil.which("ionice") else []
        configuration = ["--config", self.configuration] if self.configuration else []
        return [*priority, sys.executable, "-P", "-m", "opsd", *configuration, *self.verb]


def run_job(job: Job, on_alive: Callable[[int], None], stop: threading.Event) -> Ended:
    """Run it to its end; `on_alive` hears its process id at once and then every ten seconds.

    Once `stop` is set, or its time is over, it gets SIGTERM, at which a command of opsd ends at a safe point; after its grace time its
    whole process group is killed. So it is when `on_alive` raises.

    Raises:
        OSError: it can't be started.
    """
    child = subprocess.Popen(
        job.arguments(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
        env=dict(job.environment),
        cwd="/",
        start_new_session=True,
    )
    running = _Running(child, job.limits)
    try:
        running.limit()
        running.wait(on_alive, stop)
    finally:
        running.end()
    return Ended(exit_code=child.returncode, tail=running.tail(), seconds=running.seconds())


class _Running:
    """A child that runs, and the end of what it said."""

    def __init__(self, child: subprocess.Popen[bytes], limits: Limits) -> None:
        assert child.stdout
        self._child = child
        self._limits = limits
        self._pipe: IO[bytes] = child.stdout
        self._ended = os.pidfd_open(child.pid)
        self._began = time.monotonic()
        self._text = b""
        self._deadline: float | None = None
        os.set_blocking(self._pipe.fileno(), False)

    def seconds(self) -> float:
        """How long it has run."""
        return time.monotonic() - self._began

    def tail(self) -> str:
        """The end of what it said."""
        return self._text.decode(errors="replace")

    def limit(self) -> None:
        """Set its limits from outside: it has no threads yet, and whatever it starts inherits them."""
        limits, child = self._limits, self._child.pid
        # A unit may deny the first (SystemCallFilter=~@resources).
        with suppress(ProcessLookupError, PermissionError):
            if limits.nice is not None:
                os.setpriority(os.PRIO_PROCESS, child, max(limits.nice, os.getpriority(os.PRIO_PROCESS, 0)))
        with suppress(ProcessLookupError, PermissionError):
            if limits.memory is not None:
                _, hard = resource.prlimit(child, resource.RLIMIT_DATA)
                bound = limits.memory if hard == resource.RLIM_INFINITY else min(hard, limits.memory)
                resource.prlimit(child, resource.RLIMIT_DATA, (bound, bound))

    def wait(self, on_alive: Callable[[int], None], stop: threading.Event) -> None:
        """Until it has ended."""
        poll = select.poll()
        poll.register(self._ended, select.POLLIN)
        poll.register(self._pipe, select.POLLIN)
        beat = 0.0
        while True:
            if self.seconds() >= beat:
                on_alive(self._child.pid)
                beat = self.seconds() + HEARTBEAT_SECONDS
            ready = {descriptor for descriptor, _ in poll.poll(_LOOK * 1000)}
            if self._pipe.fileno() in ready and self._read() == b"":
                poll.unregister(self._pipe)
            if self._ended in ready:
                return
            self._end_if_due(stop)

    def _read(self) -> bytes | None:
        """Take what one pipe holds of its output; empty at the end, None where there is nothing now."""
        piece: bytes | None = self._pipe.read(_STEP)
        self._keep(piece or b"")
        return piece

    def _keep(self, text: bytes) -> None:
        self._text = (self._text + text)[-TAIL_BYTES:]

    def _end_if_due(self, stop: threading.Event) -> None:
        now = self.seconds()
        if self._deadline is not None:
            if now > self._deadline:
                self._kill_group()
            return
        over = self._limits.seconds is not None and now > self._limits.seconds
        if over:
            self._keep(f"it ran longer than its limit of {self._limits.seconds:g} s and is stopped\n".encode())
        if over or stop.is_set():
            self._deadline = now + self._limits.grace
            os.kill(self._child.pid, signal.SIGTERM)

    def _kill_group(self) -> None:
        """As long as nobody waited for the child, its number is no other's."""
        with suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill what is left of its group, and hold nothing."""
        self._kill_group()
        self._child.wait()
        self._read()
        self._pipe.close()
        os.close(self._ended)
