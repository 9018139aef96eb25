"""Count what could not be given back, and know which failures end a restore.

Promise: fifty thousand failures of one kind are one Warning with a count; a full or read-only target is a RestoreError.
"""

import errno
import os
from dataclasses import field
from typing import Final

from opsd.errors import RestoreError
from opsd.events import Warning
from opsd.sources.roots import shown
from opsd.values import dataclass

_AGAIN: Final = "what is written stays; the same command given again goes on where this one stopped"
_FATAL: Final = {
    errno.ENOSPC: ("there is no room left", f"make room; {_AGAIN}"),
    errno.EDQUOT: ("the quota is used up", f"raise it or make room; {_AGAIN}"),
    errno.EROFS: ("the file system is read-only", "mount it for writing, or name another folder"),
    errno.EIO: ("the disk failed", f"see the kernel's log (dmesg), and name a folder on another disk; {_AGAIN}"),
    errno.ESTALE: ("the file system went away", f"mount it again; {_AGAIN}"),
    errno.ENODEV: ("the file system went away", f"mount it again; {_AGAIN}"),
    errno.EMFILE: ("too many files are open", f"raise the limit (ulimit -n); {_AGAIN}"),
    errno.ENFILE: ("the machine has too many files open", _AGAIN),
}
_REFUSED_NAMES: Final = frozenset({errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ})
_EXAMPLES: Final = 3


@dataclass(slots=True)
class _Kind:
    hint: str | None
    count: int = 0
    subjects: list[str] = field(default_factory=list)


class Complaints:
    """What went wrong in one restore, by kind."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}

    def add(self, path: bytes, problem: str, hint: str | None = None) -> None:
        """One more of this kind."""
        kind = self._kinds.setdefault(problem, _Kind(hint))
        kind.count += 1
        if len(kind.subjects) < _EXAMPLES:
            kind.subjects.append(shown(path))

    def failed(self, path: bytes, what: str, error: OSError) -> None:
        """Count a call that failed.

        Raises:
            RestoreError: the failure is not this entry's alone.
        """
        if error.errno in _FATAL:
            problem, hint = _FATAL[error.errno]
            raise RestoreError(f"{shown(path)} could not be written: {problem}", hint=hint) from error
        reason = (error.strerror or str(error)).lower()
        self.add(path, f"{what}: {reason}", _hint(error))

    def not_created(self, path: bytes, error: OSError) -> None:
        """Count an entry that is not there because the target's file system did not take it."""
        if error.errno in _REFUSED_NAMES:
            self.add(path, "not restored: this file system refuses the name", "restore to another file system")
        else:
            self.failed(path, "not restored", error)

    def count(self) -> int:
        """How many, of all kinds."""
        return sum(kind.count for kind in self._kinds.values())

    def warnings(self) -> tuple[Warning, ...]:
        """One a kind."""
        return tuple(
            Warning(subject=_subjects(kind), problem=problem, hint=kind.hint) for problem, kind in self._kinds.items()
        )


def _subjects(kind: _Kind) -> str:
    if kind.count <= _EXAMPLES:
        return ", ".join(kind.subjects)
    return f"{', '.join(kind.subjects)} and {kind.count - len(kind.subjects):,} more"


def _hint(error: OSError) -> str | None:
    if error.errno in {errno.EPERM, errno.EACCES} and os.geteuid() != 0:
        return "run the restore as root"
    if error.errno in {errno.EOPNOTSUPP, errno.ENOTSUP}:
        return "restore to a file system that supports it"
    return None
