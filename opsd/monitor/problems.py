"""What is wrong, as status, metrics and alerts all say it.

Promise: a problem has one key for as long as it lasts, so that it is one incident, told once and ended once.
"""

from collections.abc import Collection, Iterable
from enum import StrEnum

from opsd.values import dataclass


class Severity(StrEnum):
    """How soon a person must look: `critical` now, a promise is broken; `warning` in office hours, it will be."""

    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that a person must know. `key` names it for as long as it lasts (`backup.overdue`, `copy.paris.failed`).

    `title` is one line: what happened to which object; `next_step` what to do; `since` when it began, in ns UTC. `covers`: keys of others that
    it tells of more exactly, so that they are not told, and have not ended either.
    """

    key: str
    severity: Severity
    title: str
    next_step: str
    since: int
    covers: tuple[str, ...] = ()


def told_instead(key: str, told: Collection[str]) -> str:
    """The key of another problem that says the same more exactly, empty for none: one incident is one message."""
    subject, _, what = key.rpartition(".")
    others: Iterable[str] = ()
    if what == "stale":
        others = ("backup.overdue",)
    elif key == "backup.failed":
        others = (each for each in told if each.startswith("source.") and each.endswith(".failed"))
    elif key == "drill.failed":
        others = ("drill.red", "drill.undone")
    elif subject == "copy":
        others = (each for each in told if each.startswith("copy.") and each.count(".") > 1)
    return next((each for each in others if each in told), "")
