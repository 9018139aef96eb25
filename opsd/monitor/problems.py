"""What is wrong, as status, metrics and alerts all say it.

Promise: a problem has one key for as long as it lasts, so that it is one incident, told once and ended once.
"""

from enum import StrEnum

from opsd.values import dataclass


class Severity(StrEnum):
    """How soon a person must look: `critical` now, a promise is broken; `warning` in office hours, it will be."""

    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that a person must know. `key` names it for as long as it lasts (`backup.overdue`, `copy.paris.failed`).

    `title` is one line: what happened to which object; `next_step` what to do; `since` when it began, in ns UTC.
    """

    key: str
    severity: Severity
    title: str
    next_step: str
    since: int
