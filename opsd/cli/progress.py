"""Who listens to a feature at work: a bar with rate and time left on a terminal, else a plain line now and then.

Promise: progress goes to stderr, at most one plain line in ten seconds; every warning is kept for the end. Methods may be called
from several threads. rich is imported only where a bar is drawn.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from opsd.cli import output
from opsd.events import Warning

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_EVERY: Final = 10.0


class Listener:
    """Counts what it hears and keeps the warnings; alone it shows nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.warnings: list[Warning] = []
        self.name = ""
        self.total: int | None = None
        self.files = 0
        self.size = 0

    def stage(self, name: str, total_bytes: int | None = None) -> None:
        """A stage begins."""
        with self._lock:
            self.name, self.total, self.files, self.size = name, total_bytes, 0, 0
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

    def show(self) -> None:
        """Draw; the lock is held."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class Lines(Listener):
    """Plain lines: for logs and pipes."""

    def __init__(self) -> None:
        super().__init__()
        self._began = self._last = time.monotonic()

    def tell(self, text: str) -> None:
        """Print the line."""
        output.note(text)

    def show(self) -> None:
        """Print how far it is, if ten seconds have passed."""
        now = time.monotonic()
        if now - self._last >= _EVERY:
            self._last = now
            done = f"{output.count(self.files, 'file')}, {output.size(self.size)}"
            share = f" of {output.size(self.total)}" if self.total else ""
            output.note(f"{self.name}: {done}{share} after {output.duration(now - self._began)}")


class Bar(Listener):
    """A bar of rich's, begun with the first stage: before that a person may be asked for a passphrase."""

    def __init__(self) -> None:
        super().__init__()
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def tell(self, text: str) -> None:
        """Print the line above the bar."""
        if self._progress:
            self._progress.console.print(output.printable(text), markup=False, highlight=False)
        else:
            output.note(text)

    def stage(self, name: str, total_bytes: int | None = None) -> None:
        """Begin the bar anew."""
        if self._progress is None or self._task is None:
            self._progress = _bar()
            self._task = self._progress.add_task("", total=None, files="")
            self._progress.start()
        self._progress.reset(self._task, total=total_bytes, description=name)
        super().stage(name, total_bytes)

    def show(self) -> None:
        """Move the bar; rich draws at its own pace."""
        if self._progress and self._task is not None:
            files = output.count(self.files, "file") if self.files else ""
            self._progress.update(self._task, completed=self.size, files=files)

    def close(self) -> None:
        """Remove the bar."""
        if self._progress:
            self._progress.stop()


@contextmanager
def listening(*, quiet: bool = False) -> Iterator[Listener]:
    """A listener for one command; `quiet` (JSON was asked for) shows nothing. The bar is gone when the context ends."""
    listener = Listener() if quiet else Bar() if sys.stderr.isatty() else Lines()
    try:
        yield listener
    finally:
        listener.close()


def _bar() -> "Progress":
    from rich import progress  # noqa: PLC0415 - 0.2 s that only a person at a terminal pays
    from rich.console import Console  # noqa: PLC0415 - likewise
    from rich.text import Text  # noqa: PLC0415 - likewise

    class Rate(progress.ProgressColumn):
        """Bytes a second, in the units that everything else has."""

        def render(self, task: progress.Task) -> Text:
            """The rate, once there is one."""
            speed = task.finished_speed or task.speed
            return Text(f"{output.size(int(speed))}/s" if speed else "")

    return progress.Progress(
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=20),
        progress.TextColumn("{task.fields[files]}"),
        progress.DownloadColumn(binary_units=True),
        Rate(),
        progress.TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
        transient=True,
    )
