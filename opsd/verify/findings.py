"""What a check of the doctor comes to: one line, and the next step where something is amiss.

Promise: a check that can't be carried out, or that is itself broken, is a finding as well; none stops the others.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from enum import StrEnum

from opsd.errors import OpsdError
from opsd.values import dataclass


class State(StrEnum):
    """How a check ended: `warning` is what a person should look into, `failed` what would fail a night."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found. `subject`: which source, copy or program; `next_step`: the command or statement that helps."""

    state: State
    subject: str
    text: str
    next_step: str | None = None
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Something to be asked, about what, in which group of the answer."""

    group: str
    subject: str
    ask: Callable[[], Iterable[Finding]]


def fine(subject: str, text: str) -> Finding:
    """All is well."""
    return Finding(state=State.OK, subject=subject, text=text)


def warning(subject: str, text: str, next_step: str | None = None) -> Finding:
    """Something to look into."""
    return Finding(state=State.WARNING, subject=subject, text=text, next_step=next_step)


def failure(subject: str, text: str, next_step: str | None = None) -> Finding:
    """Something that would fail a night."""
    return Finding(state=State.FAILED, subject=subject, text=text, next_step=next_step)


def from_error(subject: str, error: OpsdError) -> Finding:
    """An error as a failed check."""
    return failure(subject, str(error), error.hint)


def carried_out(check: Check) -> list[Finding]:
    """What a check finds, in its group."""
    try:
        found = list(check.ask())
    except OpsdError as error:
        found = [from_error(check.subject, error)]
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        found = [failure(check.subject, f"{error.filename}: {reason}" if error.filename else reason)]
    except Exception as error:  # noqa: BLE001 - a check that is broken must not hide what the others find
        text = f"this check itself broke ({type(error).__name__}: {error}); it says nothing about the night"
        found = [
            warning(check.subject, text, "report it to whoever maintains opsd, with the output of 'opsd doctor --json'")
        ]
    return [replace(each, group=check.group) for each in found]


def worst(findings: Iterable[Finding]) -> int:
    """The exit code: 1 where something failed, 3 where something is to be looked into, else 0."""
    states = {each.state for each in findings}
    return 1 if State.FAILED in states else 3 if State.WARNING in states else 0
