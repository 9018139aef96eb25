"""Write into the ledger what was done: the one place that the commands and the drill call.

Promise: whoever enters `recorded` leaves an entry, also by an exception; nothing fails because the ledger can't be written: that is a
warning, and turns exit code 0 into 3. No text of an error goes in, since texts hold paths.
"""

import hashlib
import json
import os
import pwd
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

from opsd import settings as model
from opsd.app.running import RunRecord, exit_code_of, tracked
from opsd.app.version import version
from opsd.clock import local
from opsd.errors import OpsdError, PruneRefused, UsageError
from opsd.events import Warning
from opsd.monitor.ledger import BEGUN, Entry, Head, Who, outcome_of
from opsd.monitor.ledger_file import LedgerFile

if TYPE_CHECKING:
    from opsd.app.session import Session

#: The actions that are jobs; a repair is a check, and `copy` is tracked as a whole, however many copies there are.
JOBS: Final = frozenset({"backup", "prune", "drill", "restore"})
_HINT: Final = "see 'opsd ledger verify', and docs/runbook.md"


class Record:
    """What is going into the ledger about one action."""

    def __init__(self, session: "Session", action: str, reason: str | None, details: dict[str, Any]) -> None:
        self.run: RunRecord | None = None
        self._session = session
        self._action = action
        self._reason = reason
        self._details = details
        self._begun: int | None = None
        self._trouble = False
        self.is_ended = False

    def note(self, **details: Any) -> None:
        """Add details: counts, ids, words of opsd's own; never a path or a name that is a customer's."""
        self._details |= details

    def begin(self) -> None:
        """Write that it begins, so that a killed one leaves a trace."""
        entry = self._append(BEGUN, None)
        self._begun = entry.number if entry else None

    def ended(self, exit_code: int = 0, **details: Any) -> int:
        """Write how it ended; returns the exit code, 3 instead of 0 where the ledger, or the copy that was read, is not as it should be."""
        self.note(**details)
        exit_code = exit_code or (3 if self._session.is_doubtful else 0)
        self._end(exit_code, outcome_of(exit_code))
        exit_code = exit_code or (3 if self._trouble else 0)
        if self.run:
            self.run.ended(exit_code, **self._details)
        return exit_code

    def failed(self, error: BaseException) -> None:
        """Write that it ended with an error."""
        self.note(error=type(error).__name__)
        refused = isinstance(error, (PruneRefused, UsageError))
        exit_code = exit_code_of(error)
        self._end(exit_code, "refused" if refused else outcome_of(exit_code))

    def _end(self, exit_code: int, outcome: str) -> None:
        self.is_ended = True
        self._append(outcome, exit_code)

    def _append(self, outcome: str, exit_code: int | None) -> Entry | None:
        session = self._session
        if not os.path.exists(session.settings.state):
            return None  # A new machine: whoever only restores needs no state, and there is no ledger to write to.
        entry = replace(
            draft(session, self._action, reason=self._reason),
            outcome=outcome,
            exit_code=exit_code,
            details=dict(self._details),
            begun=self._begun,
        )
        ledger = LedgerFile(session.settings.state)
        try:
            done = ledger.append(entry, self._known)
        except (OSError, OpsdError) as error:
            reason = (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
            self._warn(f"{self._action} could not be written into {ledger.path}: {reason}")
            return None
        for note in filter(None, done.notes):
            self._warn(note)
        return done.entry

    def _known(self) -> list[Head]:
        """What repository and copies vouch for; asked only where the file is gone or broken. Of a new repository, nobody knows anything."""
        from opsd.app.vouching import vouched  # noqa: PLC0415 - opens every copy; hardly ever needed

        return [] if self._action == "init" else [each.head for each in vouched(self._session)]

    def _warn(self, problem: str) -> None:
        self._trouble = True
        self._session.reporter.warn(Warning(subject="ledger", problem=problem, hint=_HINT))


@contextmanager
def recorded(
    session: "Session", action: str, *, reason: str | None = None, begins: bool = False, **details: Any
) -> Iterator[Record]:
    """Leave an entry about an action, however it ends; `begins`: and one before it, for what must leave a trace when killed.

    An action that is a job leaves its run in the state as well; `part=True` among the details: only a part of that job.

    What ends without an exception calls `ended` with its exit code; without that call it is done.
    """
    record = Record(session, action, reason, details)
    part = bool(details.get("part"))
    with tracked(session, action, part=part) if action in JOBS else nullcontext() as record.run:
        if begins:
            record.begin()
        try:
            yield record
            if not record.is_ended:
                record.ended()
        except BaseException as error:
            if not record.is_ended:
                record.failed(error)
            raise


def draft(session: "Session", action: str, *, reason: str | None = None) -> Entry:
    """An entry of now, without its outcome."""
    return Entry(
        time=local(session.clock.now(), UTC).isoformat(timespec="microseconds"),
        who=who(),
        host=session.settings.host,
        action=action,
        outcome="done",
        reason=reason,
        version=version(),
        configuration=_configuration(session),
    )


def who() -> Who:
    """The person behind this process: whom sudo names, else the owner of the process."""
    login = os.environ.get("SUDO_USER", "") if os.geteuid() == 0 else ""
    if not login:
        with suppress(KeyError):
            login = pwd.getpwuid(os.getuid()).pw_name
    return Who(login=login or str(os.getuid()), uid=os.getuid(), terminal=bool(sys.stdin and sys.stdin.isatty()))


def _configuration(session: "Session") -> str | None:
    """The hash of the settings in force; None where a command line or the environment made them up."""
    if session.access.repository or not session.settings.text:
        return None
    text = json.dumps(model.shown(session.settings), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
