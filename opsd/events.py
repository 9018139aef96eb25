"""What features say while they work; `app` decides who listens.

Promise: a feature never prints and never logs on its own. What was skipped is a `Warning` value that is counted
and returned as well, so a run that lost something ends with warnings.
"""

import threading
from collections.abc import Iterable
from typing import Protocol, Self

from opsd.model import SourceSummary
from opsd.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Warning:  # noqa: A001 - the field's word; the built-in is not used here
    """Something was skipped or is not as it should be: which object, what, and what to do next."""

    subject: str
    problem: str
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """How much a stage comes to; 0 where one of them is not known. `estimated`: as far as the past tells. `size` in bytes."""

    files: int = 0
    size: int = 0
    estimated: bool = False

    @classmethod
    def of(cls, sources: Iterable[SourceSummary]) -> Self:
        """What these sources held in a snapshot: about what they hold now, and what restoring them writes."""
        known = tuple(sources)
        return cls(files=sum(each.files for each in known), size=sum(each.bytes for each in known), estimated=True)


class Reporter(Protocol):
    """Listens to a feature at work. Methods may be called from several threads."""

    def stage(self, name: str, total: Total | None = None) -> None:
        """A stage begins; what it comes to is known or not."""
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


class Foretelling:
    """Another reporter, told of each stage how much it comes to where the stage itself does not know."""

    def __init__(self, inner: Reporter, total: Total | None) -> None:
        self._inner = inner
        self._total = total
        self.advance = inner.advance
        self.warn = inner.warn
        self.tell = inner.tell

    def stage(self, name: str, total: Total | None = None) -> None:
        """With the total that is known here."""
        self._inner.stage(name, total or self._total)


class Recorder:
    """A reporter that keeps what it hears: for tests, and for features that count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.stages: list[str] = []
        self.totals: list[Total | None] = []
        self.warnings: list[Warning] = []
        self.lines: list[str] = []
        self.files = 0
        self.size = 0

    def stage(self, name: str, total: Total | None = None) -> None:
        """Remember the stage."""
        self.stages.append(name)
        self.totals.append(total)

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
