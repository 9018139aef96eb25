"""Alerts: what the daemon sees goes into the spool, and a child process sends it.

Promise: nothing here waits for a mail server, imports what sends, or raises because nobody could be told: that is said, and tried again.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from opsd.clock import SECOND
from opsd.errors import StorageError
from opsd.events import Reporter, Warning
from opsd.monitor import spool
from opsd.monitor.alert_options import Address, AlertSettings, address_text
from opsd.monitor.alerts import decide, next_time
from opsd.monitor.problems import Problem, Severity
from opsd.monitor.spool import Place, Trouble
from opsd.settings import Settings

#: After this the child is killed: it has a shorter limit of its own (seconds).
_CHILD_SECONDS: Final = 180.0
#: After a child that broke (seconds).
_PAUSE_SECONDS: Final = 60.0
#: How a child ends that reached somebody, or had nothing to do: with 3 some could not be reached.
_WORKED: Final = frozenset({0, 3})
#: So often an address fails before that is a problem of its own.
_FAILURES: Final = 3
_MEMORY: Final = "/dev/shm"  # noqa: S108 - a private folder is made in it


def places(alerts: AlertSettings) -> dict[Place, Address]:
    """Every address of every contact."""
    return {
        (contact.name, number): address
        for contact in alerts.contacts
        for number, address in enumerate(contact.urls, start=1)
    }


def folder_in_memory() -> "tempfile.TemporaryDirectory[str]":
    """Where a spool can be kept whose own disk is full: it lasts as long as the process, which is better than silence."""
    return tempfile.TemporaryDirectory(prefix="opsd-alerts-", dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None)


class Alerting:
    """What a daemon needs; `configuration` is what `-c` named. Make a new one when the configuration changed, and close the old one."""

    def __init__(self, settings: Settings, reporter: Reporter, configuration: str | None = None) -> None:
        self._settings = settings
        self._reporter = reporter
        self._repeat = int(settings.alerts.repeat * SECOND)
        self._places = places(settings.alerts)
        given = ("-c", configuration) if configuration else ()
        self._command = (sys.executable, "-P", "-m", "opsd", *given, "alerts", "deliver")
        self._child: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._paused_until = 0.0
        self._aside: tempfile.TemporaryDirectory[str] | None = None
        self._broken_since = 0
        self._due = 0

    @property
    def _folder(self) -> Path:
        return Path(self._aside.name) if self._aside else self._settings.state

    def is_due(self, now: int) -> bool:
        """Whether something is to be told or sent, although nothing has changed since `observe` and `deliver`."""
        return self._child is not None or now >= self._due

    def observe(self, problems: Sequence[Problem], now: int) -> None:
        """All problems there are now (ns UTC): what follows stands in the spool when this returns.

        Call it when they change, when `is_due`, and every minute or so: other processes write into the spool too.
        """
        try:
            self._change(self._settings.state, problems, now)
        except StorageError as error:
            if not self._broken_since:  # What goes on for hours is said once.
                self._broken_since = now
                self._warn(str(error), error.hint)
            with suppress(StorageError, OSError):
                self._aside = self._aside or folder_in_memory()
                self._change(self._folder, problems, now)
        else:
            self._return()

    def _change(self, folder: Path, problems: Sequence[Problem], now: int) -> None:
        with spool.opened(folder, self._reporter.tell) as opened:
            decision = opened.change(lambda known: decide(known, problems, now, self._repeat), self._places, now)
        self._due = next_time(decision.incidents, self._repeat)

    def _return(self) -> None:
        """The state folder is to be had again."""
        self._broken_since = 0
        if self._aside:
            self._aside.cleanup()
            self._aside = None

    def deliver(self, now: int) -> None:
        """Have a child send what waits; returns at once. Call it after `observe`."""
        if self._is_busy() or time.monotonic() < self._paused_until or not self._waits(now):
            return
        aside = ("--spool", self._aside.name) if self._aside else ()
        try:
            self._child = subprocess.Popen(
                (*self._command, *aside), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
            self._started = time.monotonic()
        except OSError as error:
            self._pause(f"can't be started: {(error.strerror or str(error)).lower()}")

    def problems(self) -> list[Problem]:
        """What is wrong with alerts themselves: for `observe`, so that others hear of it, and for everybody who asks."""
        found = []
        if self._broken_since:
            found.append(
                Problem(
                    key="alerts.spool",
                    severity=Severity.CRITICAL,
                    title="alerts can't be kept in the state folder",
                    next_step="see that its disk has room, and that the daemon may write there",
                    since=self._broken_since,
                )
            )
        with suppress(StorageError), spool.opened(self._folder, self._reporter.tell) as opened:
            found += [self._unreachable(each) for each in opened.troubles() if self._is_lasting(each)]
        return found

    def _is_lasting(self, trouble: Trouble) -> bool:
        return trouble.failures >= _FAILURES and trouble.place in self._places

    def _unreachable(self, trouble: Trouble) -> Problem:
        name, number = trouble.place
        return Problem(
            key=f"alerts.{name}.{number}.unreachable",
            severity=Severity.WARNING,
            title=f"no alert reaches {name} at URL {number}, {address_text(self._places[trouble.place])}",
            next_step=f"opsd alerts test --contact {name}",
            since=trouble.since,
        )

    def close(self) -> None:
        """Stop the child; what it did not send waits for the next."""
        if self._child and self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(2)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        self._return()

    def _is_busy(self) -> bool:
        """Whether the child is at work; one that hangs is ended."""
        if self._child is None:
            return False
        if self._child.poll() is None:
            if time.monotonic() - self._started < _CHILD_SECONDS:
                return True
            self._child.kill()
            self._child.wait()
        if self._child.returncode not in _WORKED:
            self._pause(f"ended with {self._child.returncode}")
        self._child = None
        return False

    def _pause(self, what: str) -> None:
        self._paused_until = time.monotonic() + _PAUSE_SECONDS
        self._warn(f"'opsd alerts deliver' {what}", "run it by hand, as this user")

    def _waits(self, now: int) -> bool:
        with suppress(StorageError), spool.opened(self._folder, self._reporter.tell) as opened:
            self._due = min((self._due, *(each.next_try for each in opened.troubles() if each.next_try > now)))
            return bool(opened.letters(self._places, now))
        return False

    def _warn(self, problem: str, hint: str | None) -> None:
        self._reporter.warn(Warning(subject="alerts", problem=problem, hint=hint))
