"""Alerts: what the daemon sees goes into the spool, and a child process sends it.

Promise: nothing here waits for a mail server, imports what sends, or raises because nobody could be told: that is said, and tried again.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Final

from opsd.clock import SECOND
from opsd.errors import OpsdError, StorageError
from opsd.events import Reporter, Warning
from opsd.monitor import spool
from opsd.monitor.alert_options import Address, AlertSettings, address_text
from opsd.monitor.alerts import decide
from opsd.monitor.problems import Problem, Severity
from opsd.monitor.spool import Place
from opsd.settings import Settings

#: After this the child is killed: it has a shorter limit of its own (seconds).
_CHILD_SECONDS: Final = 180.0
#: After a child that broke (seconds).
_PAUSE_SECONDS: Final = 60.0
#: How a child ends that reached somebody, or had nothing to do: with 3 some could not be reached.
_WORKED: Final = frozenset({0, 3})
#: So often an address fails before that is a problem of its own.
_FAILURES: Final = 3


def places(alerts: AlertSettings) -> dict[Place, Address]:
    """Every address of every contact."""
    return {
        (contact.name, number): address
        for contact in alerts.contacts
        for number, address in enumerate(contact.urls, start=1)
    }


class Alerting:
    """What a daemon needs; `configuration` is what `-c` named. Make a new one when the configuration changed, and close the old one."""

    def __init__(self, settings: Settings, reporter: Reporter, configuration: str | None = None) -> None:
        self._settings = settings
        self._reporter = reporter
        self._repeat = int(settings.alerts.repeat * SECOND)
        self._places = places(settings.alerts)
        given = ("-c", configuration) if configuration else ()
        self._command = (sys.executable, "-m", "opsd", *given, "alerts", "deliver")
        self._child: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._paused_until = 0.0
        self._said = ""

    def observe(self, problems: Sequence[Problem], now: int) -> None:
        """All problems there are now (ns UTC): what follows stands in the spool when this returns. Call it every half a minute or so."""
        try:
            with spool.opened(self._settings.state, self._reporter.tell) as opened:
                opened.change(lambda known: decide(known, problems, now, self._repeat), self._places, now)
            self._said = ""
        except StorageError as error:
            self._say(error)

    def deliver(self, now: int) -> None:
        """Have a child send what waits; returns at once. Call it after `observe`."""
        if self._is_busy() or time.monotonic() < self._paused_until or not self._waits(now):
            return
        try:
            self._child = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            self._started = time.monotonic()
        except OSError as error:
            self._pause(f"can't be started: {(error.strerror or str(error)).lower()}")

    def problems(self, now: int) -> list[Problem]:
        """Addresses that can't be reached: for `observe`, so that others hear of it, and for everybody who asks."""
        try:
            with spool.opened(self._settings.state, self._reporter.tell) as opened:
                troubles = opened.troubles()
        except StorageError as error:
            self._say(error)
            step = error.hint or "run 'opsd alerts list'"
            return [
                Problem(
                    key="alerts.spool",
                    severity=Severity.CRITICAL,
                    title="alerts can't be kept",
                    next_step=step,
                    since=now,
                )
            ]
        return [
            Problem(
                key=f"alerts.{each.place[0]}.{each.place[1]}.unreachable",
                severity=Severity.WARNING,
                title=f"no alert reaches {each.place[0]} at {address_text(self._places[each.place])}",
                next_step=f"run 'opsd alerts test --contact {each.place[0]}'",
                since=each.since,
            )
            for each in troubles
            if each.failures >= _FAILURES and each.place in self._places
        ]

    def close(self) -> None:
        """Stop the child; what it did not send waits for the next."""
        if self._child and self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(2)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()

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
        warning = Warning(
            subject="alerts", problem=f"'opsd alerts deliver' {what}", hint="run it by hand, as this user"
        )
        self._reporter.warn(warning)

    def _waits(self, now: int) -> bool:
        try:
            with spool.opened(self._settings.state, self._reporter.tell) as opened:
                return bool(opened.letters(self._places, now))
        except StorageError as error:
            self._say(error)
            return False

    def _say(self, error: OpsdError) -> None:
        """Say once what may go on for hours."""
        if self._said != str(error):
            self._said = str(error)
            self._reporter.warn(Warning(subject="alerts", problem=str(error), hint=error.hint))
