"""What a restore of files did.

Promise: says what is not whole: `damaged` could not be given back, `warnings` were given back with something missing.
"""

from collections.abc import Mapping

from opsd.events import Warning
from opsd.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """What could not be given back because of what the repository holds; its place in the target is left as it was."""

    path: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Entries by kind (as in opsd.restore.plan; setuid counts again), `size` in bytes written, seconds taken.

    `skipped` counts what is never restored (sockets). `warning_count` counts all, `warnings` has one for each kind.
    """

    written: Mapping[str, int]
    adjusted: int
    unchanged: int
    skipped: int
    deleted: int
    size: int
    seconds: float
    resumed: bool
    warnings: tuple[Warning, ...]
    warning_count: int
    damaged: tuple[Damage, ...]

    @property
    def exit_code(self) -> int:
        """As opsd's commands end: 4 where something is damaged, 3 with warnings, else 0."""
        return 4 if self.damaged else 3 if self.warnings else 0
