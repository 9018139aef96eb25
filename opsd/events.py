"""What features say while they work; `app` decides who listens.

Promise: a feature never prints and never logs on its own. What was skipped is a `Warning` value that is counted
and returned as well, so a run that lost something ends with warnings.
"""

import threading
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Warning:  # noqa: A001 - the field's word; the built-in is not used here
    """Something was skipped or is not as it should be: which object, what, and what to do next."""

    subject: str
    problem: str
    hint: str | None = None


class Reporter(Protocol):
    """Listens to a feature at work. Methods may be called from several threads."""

    def stage(self, name: str, total_bytes: int | None = None) -> None:
        """A stage begins; its total is known or not."""
        ...

    def advance(self, *, files: int = 0, size: int = 0) -> None:
        """So many more files and bytes of this stage are done."""
        ...

    def warn(self, warning: Warning) -> None:
        """Something was skipped."""
        ...

    def tell(self, text: str) -> None:
        """One line that a person would want to read."""
        ...


class Recorder:
    """A reporter that keeps what it hears: for tests, and for features that count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.stages: list[str] = []
        self.warnings: list[Warning] = []
        self.lines: list[str] = []
        self.files = 0
        self.size = 0

    def stage(self, name: str, total_bytes: int | None = None) -> None:
        """Remember the stage."""
        del total_bytes
        self.stages.append(name)

    def advance(self, *, files: int = 0, size: int = 0) -> None:
        """Count."""
        with self._lock:
            self.files += files
            self.size += size

    def warn(self, warning: Warning) -> None:
        """Remember the warning."""
        self.warnings.append(warning)

    def tell(self, text: str) -> None:
        """Remember the line."""
        self.lines.append(text)
