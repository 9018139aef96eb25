"""The daemon: wakes, has the schedule kept, tells how it stands; for years.

Promise: nothing that a job, a disk, a mistaken configuration or a jump of the clock does ends it. It opens no repository and holds no
key. Two never work on one state folder.
"""

import fcntl
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final

import structlog
from apscheduler.job import Job as ScheduledJob
from apscheduler.schedulers.background import BackgroundScheduler

from opsd.clock import Clock
from opsd.daemon.keeper import Keeper, Look
from opsd.daemon.notify import notify
from opsd.daemon.runner import Runner, Way
from opsd.errors import ConfigurationError, OpsdError, StorageError, TryLater
from opsd.monitor.state import Run
from opsd.settings import Settings
from opsd.storage.durable import private_file, private_folder

#: How often it looks, in seconds.
_TICK: Final = 10
#: Without a wake for this long the scheduler is not alive, or waits for a time of a clock that was set back; the watchdog waits twice as long.
_LATE: Final = 3 * _TICK
#: How long jobs have to reach a safe point when the daemon stops.
_STOP_SECONDS: Final = 80.0

log = structlog.get_logger()


class Listener:
    """Hears of each tick: metrics, alerts. What it raises is logged, and harms nobody else."""

    def start(self, settings: Settings) -> None:
        """The daemon starts, or has a new configuration."""

    def tick(self, look: Look) -> None:
        """So it stands."""

    def is_alive(self) -> bool:
        """Whether it still works."""
        return True

    def stop(self) -> None:
        """The daemon ends."""


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the state folder for one daemon.

    Raises:
        TryLater: another one holds it. StorageError: it can't be written to.
    """
    try:
        private_folder(folder)
        file = os.fdopen(private_file(folder / "daemon.lock", os.O_RDWR | os.O_APPEND), "a+")
    except OSError as error:
        raise StorageError(
            f"the state folder {folder} can't be used: {(error.strerror or str(error)).lower()}",
            hint="run as the user that owns it, or set state: in the configuration",
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise TryLater(
                f"another opsd daemon (process {file.read().strip() or 'unknown'}) works on {folder}",
                hint="stop that one, or give this one a state: of its own",
            ) from None
        with suppress(OSError):  # The disk may be full, and whoever comes second is sent away all the same.
            os.truncate(file.fileno(), 0)
            os.write(file.fileno(), str(os.getpid()).encode())
        yield


class Service:
    """The daemon's process. `read` gives the settings that hold now; `way` is how jobs run."""

    def __init__(
        self, read: Callable[[], Settings], way: Way, clock: Clock, listeners: Sequence[Listener] = ()
    ) -> None:
        """Read the configuration.

        Raises:
            ConfigurationError: it has mistakes.
        """
        self._read = read
        self._settings = read()
        self._keeper = Keeper(self._settings, clock)
        self._runner = Runner(way, clock, self._ended)
        self._listeners = listeners
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._reloading = threading.Event()

    def run(self) -> int:
        """Work until SIGTERM or SIGINT; the exit code.

        Raises:
            TryLater: another daemon works on this state folder. StorageError: the folder can't be used.
        """
        with only_one(self._settings.state):
            self._catch_signals()
            for listener in self._listeners:
                listener.start(self._settings)
            logging.getLogger("apscheduler").setLevel(
                logging.ERROR
            )  # That a wake came on top of another tells nobody anything.
            scheduler = BackgroundScheduler(timezone="UTC")
            waker = scheduler.add_job(
                self._wake.set, "interval", seconds=_TICK, coalesce=True, misfire_grace_time=None, max_instances=1
            )
            scheduler.start()
            log.info("daemon started", jobs=", ".join(self._keeper.plan.jobs))
            notify("READY=1")
            try:
                self._loop(waker)
            finally:
                scheduler.shutdown(wait=False)
                self._end()
        return 0

    def _end(self) -> None:
        notify("STOPPING=1")
        stopped = self._runner.stop(_STOP_SECONDS)
        self._keeper.close()
        for listener in self._listeners:
            listener.stop()
        log.info("daemon stopped", jobs_stopped=stopped)

    def _catch_signals(self) -> None:
        def on(number: int, flag: threading.Event) -> None:
            def handle(_number: int, _frame: FrameType | None) -> None:
                flag.set()
                self._wake.set()

            signal.signal(number, handle)

        on(signal.SIGTERM, self._stopping)
        on(signal.SIGINT, self._stopping)
        on(signal.SIGHUP, self._reloading)

    def _loop(self, waker: ScheduledJob) -> None:
        self._wake.set()
        while not self._stopping.is_set():
            woken = self._wake.wait(_LATE)
            if not woken:
                waker.reschedule("interval", seconds=_TICK)
            self._wake.clear()
            if self._stopping.is_set():
                return
            if self._reloading.is_set():
                self._reloading.clear()
                self._reload()
            self._tick()
            if woken and all(each.is_alive() for each in self._listeners):
                running = ", ".join(sorted(self._runner.jobs))
                notify("WATCHDOG=1", f"STATUS=running: {running}" if running else "STATUS=waiting")

    def _tick(self) -> None:
        try:
            look = self._keeper.tick(self._runner)
        except Exception:
            log.exception("a tick failed")
            return
        if look is None:
            return
        for listener in self._listeners:
            try:
                listener.tick(look)
            except Exception:
                log.exception("a listener failed", listener=type(listener).__name__)

    def _reload(self) -> None:
        """Take a new configuration; one with mistakes is told, and the old one stays."""
        notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            self._take(self._read())
        except OpsdError as error:
            self._keeper.trouble.pop("configuration.invalid", None)
            self._keeper.say(
                "configuration.invalid",
                f"the changed configuration has mistakes, the one before stays in force: {str(error).splitlines()[0]}",
                "run 'opsd config validate', mend it, then reload the daemon",
            )
        notify("READY=1")

    def _take(self, settings: Settings) -> None:
        if settings.state != self._settings.state:
            raise ConfigurationError(("state: can't change while the daemon runs",), hint="restart the daemon")
        self._settings = settings
        self._keeper.take(settings)
        self._keeper.trouble.pop("configuration.invalid", None)
        for listener in self._listeners:
            listener.start(settings)
        log.info("configuration taken", jobs=", ".join(self._keeper.plan.jobs))

    def _ended(self, run: Run) -> None:
        self._keeper.ended(run)
        self._wake.set()
