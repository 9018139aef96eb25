"""Who listens to a feature at work: a line that lives, with rate and time left, on a terminal; else a plain line now and then.

Promise: progress goes to stderr, at most one plain line in ten seconds; every warning is kept for the end. Methods may be called
from several threads. rich is imported only where there is a terminal.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from opsd.cli import output, pace
from opsd.cli.pace import Pace
from opsd.events import Total, Warning

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_EVERY: Final = 10.0
_PLAIN_WIDTH: Final = 120
#: The spinner and the gap after it.
_SPINNER_WIDTH: Final = 2


class Listener:
    """Counts what it hears and keeps the warnings; alone it shows nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.warnings: list[Warning] = []
        self.name = ""
        self.total = Total()
        self.files = 0
        self.size = 0
        self.began = time.monotonic()

    def stage(self, name: str, total: Total | None = None) -> None:
        """A stage begins."""
        with self._lock:
            self.name, self.total, self.files, self.size = name, total or Total(), 0, 0
            self.began = time.monotonic()
            self.show()

    def advance(self, *, files: int = 0, size: int = 0) -> None:
        """So much more is done."""
        with self._lock:
            self.files += files
            self.size += size
            self.show()

    def warn(self, warning: Warning) -> None:
        """Keep the warning."""
        with self._lock:
            self.warnings.append(warning)

    def tell(self, text: str) -> None:
        """One line for a person; shown by those who show anything."""

    def pace(self, rate: float | None = None) -> Pace:
        """How far the stage is; `rate` in bytes a second, else the average so far."""
        seconds = time.monotonic() - self.began
        return Pace(
            name=self.name,
            total=self.total,
            files=self.files,
            size=self.size,
            seconds=seconds,
            rate=self.size / seconds if rate is None and seconds else rate or 0.0,
        )

    def show(self) -> None:
        """Draw; the lock is held."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class Lines(Listener):
    """Plain lines: for logs and pipes."""

    def __init__(self) -> None:
        super().__init__()
        self._last = self.began

    def tell(self, text: str) -> None:
        """Print the line."""
        output.note(text)

    def show(self) -> None:
        """Print how far it is, if ten seconds have passed."""
        now = time.monotonic()
        if now - self._last >= _EVERY:
            self._last = now
            output.note(pace.text(self.pace(), _PLAIN_WIDTH))


class Live(Listener):
    """A line that rich draws again and again, begun with the first stage: before that a person may be asked for a passphrase."""

    def __init__(self) -> None:
        super().__init__()
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def tell(self, text: str) -> None:
        """Print the line above."""
        if self._progress:
            self._progress.console.print(output.printable(text), markup=False, highlight=False)
        else:
            output.note(text)

    def stage(self, name: str, total: Total | None = None) -> None:
        """Begin anew."""
        super().stage(name, total)
        if self._progress is None or self._task is None:
            self._progress = _live(self)
            self._task = self._progress.add_task("")
            self._progress.start()
        self._progress.reset(self._task)

    def show(self) -> None:
        """Tell rich, which measures the rate and draws at its own pace."""
        if self._progress and self._task is not None:
            self._progress.update(self._task, completed=self.size)

    def close(self) -> None:
        """Remove the line."""
        if self._progress:
            self._progress.stop()


@contextmanager
def listening(*, quiet: bool = False) -> Iterator[Listener]:
    """A listener for one command; `quiet` (JSON was asked for) shows nothing. The line is gone when the context ends."""
    listener = Listener() if quiet else Live() if sys.stderr.isatty() else _logged() or Lines()
    try:
        yield listener
    finally:
        listener.close()


def _logged() -> Listener | None:
    """Who writes the log, where systemd keeps it."""
    if not os.environ.get("JOURNAL_STREAM"):
        return None
    from opsd.cli.logged import Logged  # noqa: PLC0415 - structlog, which nobody else needs

    context = click.get_current_context(silent=True)
    return Logged(context.info_name or "" if context else "")


def _live(listener: Listener) -> "Progress":
    from rich import progress  # noqa: PLC0415 - 0.2 s that only a person at a terminal pays
    from rich.console import Console  # noqa: PLC0415 - likewise
    from rich.text import Text  # noqa: PLC0415 - likewise

    console = Console(stderr=True)

    class Line(progress.ProgressColumn):
        """All that there is to say, in the words that everything else has."""

        def render(self, task: progress.Task) -> Text:
            """As much as fits."""
            text = pace.text(listener.pace(task.speed or 0.0), console.width - _SPINNER_WIDTH)
            return Text(text, no_wrap=True, overflow="crop")

    return progress.Progress(progress.SpinnerColumn(), Line(), console=console, transient=True)
