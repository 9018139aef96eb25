"""What a drill asks, and what it says in the end.

Promise: deviations are counted without end and kept up to a bound; stages are in the order in which they ran.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import field

from opsd.model import SnapshotSummary
from opsd.values import dataclass
from opsd.verify.checks import CheckResult, Live, Places
from opsd.verify.expectations import Deviation, Verdict, worse
from opsd.verify.options import DrillCheck
from opsd.verify.restored_files import MOST_KEPT, Compared
from opsd.verify.seeding import Fault


def _nothing(places: Places) -> None:
    """Between restore and comparison."""
    del places


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillOptions:
    """What a drill asks. `seed`: damage one thing of each kind first. `between`: called after each restore, before the comparison."""

    checks: tuple[DrillCheck, ...]
    live: Live
    seed: bool = False
    between: Callable[[Places], None] = _nothing


@dataclass(slots=True, kw_only=True)
class SourceReport:
    """What came back of a source. `size`: bytes of files, and of dumps; `rows` as recorded."""

    label: str
    kind: str
    files: int = 0
    size: int = 0
    databases: int = 0
    rows: int = 0


@dataclass(slots=True, kw_only=True)
class DrillReport:
    """How a drill went. `stages`: name and seconds in order; `count`: of all deviations, of which the first are kept."""

    snapshot: SnapshotSummary
    newest: SnapshotSummary
    recovery_point: float
    piece_count: int = 1
    stages: list[tuple[str, float]] = field(default_factory=list)
    recovery_time: float = 0.0
    sources: dict[str, SourceReport] = field(default_factory=dict)
    deviations: list[Deviation] = field(default_factory=list)
    count: int = 0
    verdict: Verdict = Verdict.GREEN
    checks: list[CheckResult] = field(default_factory=list)
    faults: list[tuple[Fault, bool]] = field(default_factory=list)

    def deviates(self, *found: Deviation) -> None:
        """Keep some, count all."""
        for each in found:
            self.verdict = worse(self.verdict, each.severity)
        self.count += len(found)
        self.deviations += found[: max(0, MOST_KEPT - len(self.deviations))]

    def compared(self, found: Compared) -> None:
        """Keep what a comparison of files found."""
        self.deviates(*found.deviations)
        self.count += found.count - len(found.deviations)
        self.verdict = worse(self.verdict, found.worst)

    def checked(self, result: CheckResult) -> None:
        """Keep a check's outcome."""
        self.checks.append(result)
        if result.deviation:
            self.deviates(result.deviation)

    @contextmanager
    def stage(self, name: str, *, recovery: bool = False) -> Iterator[None]:
        """Measure a stage; `recovery`: a real restore would need it too."""
        began = time.monotonic()
        try:
            yield
        finally:
            seconds = time.monotonic() - began
            self.stages.append((name, seconds))
            if recovery:
                self.recovery_time += seconds
