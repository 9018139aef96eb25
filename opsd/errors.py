"""Every error that a user may see: what happened, to which object, and what to do next.

Promise: texts are lower case without a full stop, the remedy stands in `hint`, and the class decides the exit code.

    OpsdError                     1   failed
    ├── UsageError                2   the command line is wrong
    ├── ConfigurationError        2   the configuration is wrong (all mistakes at once)
    ├── IntegrityError            4   stored bytes are not what they should be
    │   ├── ObjectDamaged             an object does not match its name, seal or signature
    │   ├── ObjectLost                something that a snapshot needs is not there
    │   └── HistoryDisagrees          a store shows an older state of itself, a gap, a number used twice
    ├── StorageError              1   a store did not do what it was asked
    │   ├── ObjectNotFound            no object of that name
    │   ├── StoreGone                 its folder is not there, or empty
    │   ├── StoreFull                 no room
    │   ├── StoreReadOnly             not writable
    │   └── StoreUnavailable          may pass: worth another try
    ├── NotARepository            1   nothing there, or something else
    ├── NewerFormat               1   written by a newer opsd
    ├── KeyRefused                1   wrong passphrase, kit or key
    ├── KeyMissing                1   this role's key is not at hand
    ├── SnapshotUnknown           1   no snapshot of that name
    ├── ProgramFailed             1   a program can't be started, failed, or ran out of time
    ├── SourceError               1   a source failed
    │   └── StreamGone                what a stream was to hold vanished; counted as a warning
    ├── HookFailed                1   a hook exited with an error or ran out of time
    ├── RestoreError              1   a restore can't be done or went wrong
    │   └── ProgramMissing            a program of that version is not installed
    ├── PruneRefused              1   prune stopped rather than risk a loss
    └── TryLater                 75   not now: locked, or a hook said so
"""

from typing import ClassVar, Final

#: The next step where nothing better is known; a check says something else.
RUN_CHECK: Final = "run 'opsd check' to see what it affects"
#: Which store is full stands in the text.
MAKE_ROOM: Final = "make room there, or run 'opsd prune' ('opsd prune --copy NAME' for a copy)"


class OpsdError(Exception):
    """Base of all foreseeable failures; `str(error)` is the text, `error.hint` the next step or None."""

    exit_code: ClassVar[int] = 1

    def __init__(self, text: str, *, hint: str | None = None) -> None:
        super().__init__(text)
        self.hint = hint


class UsageError(OpsdError):
    """The command line asks for something that has no meaning."""

    exit_code = 2


class ConfigurationError(OpsdError):
    """The configuration has mistakes; `mistakes` are lines such as `opsd.yaml:14:3 retention.x: unknown key`."""

    exit_code = 2

    def __init__(self, mistakes: tuple[str, ...], *, hint: str | None = None) -> None:
        super().__init__("\n".join(mistakes), hint=hint)
        self.mistakes = mistakes


class IntegrityError(OpsdError):
    """Stored bytes are not what they should be."""

    exit_code = 4


class ObjectDamaged(IntegrityError):
    """An object does not match its name, its seal or its signature."""

    def __init__(self, name: str, problem: str, *, hint: str | None = None) -> None:
        super().__init__(f"{name} is damaged: {problem}", hint=hint or RUN_CHECK)
        self.name = name
        self.problem = problem


class ObjectLost(IntegrityError):
    """Something that a snapshot needs is in no listed object."""

    def __init__(self, name: str, problem: str, *, hint: str | None = None) -> None:
        super().__init__(f"{name} is missing: {problem}", hint=hint or RUN_CHECK)
        self.name = name
        self.problem = problem


class HistoryDisagrees(IntegrityError):
    """A store shows an older state of itself, a gap that no note explains, or one number used twice."""


class StorageError(OpsdError):
    """A store did not do what it was asked."""


class ObjectNotFound(StorageError):
    """There is no object of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no object {name} in the store")
        self.name = name


class StoreGone(StorageError):
    """The store's folder is not there, or empty: what an unmounted disk leaves."""


class StoreFull(StorageError):
    """The store has no room left."""


class StoreReadOnly(StorageError):
    """The store can't be written to."""


class StoreUnavailable(StorageError):
    """The store did not answer, or refused for now."""


class NotARepository(OpsdError):
    """There is no repository at that place."""


class NewerFormat(OpsdError):
    """The repository was written by a newer opsd."""


class KeyRefused(OpsdError):
    """The passphrase, kit or key opens no slot of this repository."""


class KeyMissing(OpsdError):
    """The key for this role is not at hand."""


class SnapshotUnknown(OpsdError):
    """No snapshot has that name."""


class ProgramFailed(OpsdError):
    """A program that opsd started can't be run, ended with an error, or ran out of time; `status` is its exit code."""

    def __init__(self, text: str, *, hint: str | None = None, status: int | None = None) -> None:
        super().__init__(text, hint=hint)
        self.status = status


class SourceError(OpsdError):
    """A source failed; others of the run go on."""

    def __init__(self, label: str, problem: str, *, hint: str | None = None) -> None:
        super().__init__(f"source {label}: {problem}", hint=hint)
        self.label = label


class StreamGone(SourceError):
    """What a stream was to hold vanished after it was listed: reported as a Warning, no failure of its source."""


class HookFailed(OpsdError):
    """A hook exited with an error or ran out of time."""


class RestoreError(OpsdError):
    """A restore can't be done, or went wrong; what was there before is still recoverable."""


class ProgramMissing(RestoreError):
    """A program that the restore needs is not installed, or too old; that says nothing of what is to be restored."""


class PruneRefused(OpsdError):
    """Prune stopped rather than risk a loss."""


class TryLater(OpsdError):
    """Not now: another run holds a lock, or a hook exited with 75."""

    exit_code = 75
