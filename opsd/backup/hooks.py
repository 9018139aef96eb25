"""Run what a site wants done before, after and on an error of a run or a source.

Promise: whoever was prepared is cleaned up after: `after` runs whatever happened, also after a kill, then at the next start
(`run_pending`), at least once. Hooks are argument lists with a time limit, never a shell's line.

A hook learns from its environment what happened: OPSD_HOOK (before, after, error), OPSD_RUN, OPSD_JOB, OPSD_SOURCE (empty for a
run), OPSD_OUTCOME (complete, warnings, failed, interrupted, later; empty before) and OPSD_ERROR. Exit code 75 of a `before` hook
means: not now, try later.

The journal: before `before` runs, a file in `<state>/hooks/` that says which `after` hooks are due, locked by this process as
long as it lives, so a run beside it leaves it alone. It goes when they have run.

Whoever is not root and finds the service opsd-hooks leaves the running to it: that knows hooks by source and phase only, and takes the
argument lists from the configuration that root wrote.
"""

import fcntl
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final

from opsd.control import asked, socket_of
from opsd.errors import HookFailed, OpsdError, ProgramFailed, SourceError, TryLater
from opsd.events import Reporter, Warning
from opsd.model import Outcome
from opsd.process import ending, run, said
from opsd.sources.options import Hook, Hooks
from opsd.storage.durable import private_folder
from opsd.values import dataclass

INTERRUPTED: Final = "interrupted"
LATER: Final = "later"
_TRY_LATER: Final = TryLater.exit_code
_FOLDER: Final = "hooks"
#: The kernel takes 128 KiB for one variable (MAX_ARG_STRLEN, execve(2)).
_ERROR_CHARACTERS: Final = 16 * 1024
#: A request has room for so much of it, whatever JSON makes of the characters.
_ASKED_CHARACTERS: Final = 250
_OTHERS_MAY_WRITE: Final = 0o022


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """What hooks run around: a run of a job, or one source in it."""

    run: str
    job: str
    source: str = ""

    @property
    def subject(self) -> str:
        """What a warning is about."""
        return f"source {self.source}" if self.source else f"job {self.job}"


@dataclass(slots=True)
class Course:
    """How it went: whoever works within the hooks says so where no exception does."""

    outcome: str = Outcome.COMPLETE
    error: str = ""


@contextmanager
def around(hooks: Hooks, occasion: Occasion, state: Path, reporter: Reporter) -> Iterator[Course]:
    """Run `before`, the body, `on_error` if it failed, `after` always; a failing `after` or `on_error` is a warning.

    Raises:
        HookFailed: a `before` hook failed, the body was not entered. TryLater: it exited with 75. Where the occasion is a
        source, both come as the cause of a SourceError, so that the run goes on with other sources.
    """
    course = Course()
    with _journal(hooks.after, occasion, state) as path:
        try:
            _before(hooks.before, occasion)
            yield course
        except BaseException as error:
            course.outcome, course.error = _went(error), str(error)
            raise
        finally:
            if course.outcome in {Outcome.FAILED, INTERRUPTED}:
                _run_all("error", hooks.on_error, occasion, course, reporter)
            _run_all("after", hooks.after, occasion, course, reporter)
            if path:
                path.unlink()


def run_pending(state: Path, reporter: Reporter) -> int:
    """Run the `after` hooks that killed processes of this state folder left; how many occasions were cleaned up."""
    done = 0
    for path in sorted((state / _FOLDER).glob("*.json")):
        with suppress(FileNotFoundError, PermissionError), _taken(path) as descriptor:
            if descriptor is None:
                continue
            try:
                occasion, hooks = _read(descriptor)
            except (ValueError, TypeError, KeyError) as error:
                hint = f"run what it would have cleaned up by hand, then remove {path}"
                reporter.warn(
                    Warning(subject=str(path), problem=f"can't be used as a journal of hooks: {error}", hint=hint)
                )
                continue
            reporter.tell(f"{occasion.subject}: running the hooks that a killed run left")
            killed = Course(outcome=INTERRUPTED, error=f"run {occasion.run} was killed")
            _run_all("after", hooks, occasion, killed, reporter)
            path.unlink()
            done += 1
    return done


def _before(hooks: Sequence[Hook], occasion: Occasion) -> None:
    for error in _performed("before", hooks, occasion, Course(outcome="")):
        if occasion.source:
            raise SourceError(occasion.source, str(error), hint=error.hint) from error
        raise error


def _went(error: BaseException) -> str:
    if isinstance(error, TryLater) or isinstance(error.__cause__, TryLater):
        return LATER
    return Outcome.FAILED if isinstance(error, Exception) else INTERRUPTED


def _run_all(when: str, hooks: Sequence[Hook], occasion: Occasion, course: Course, reporter: Reporter) -> None:
    """Run all of them, whatever becomes of the one before."""
    for error in _performed(when, hooks, occasion, course):
        reporter.warn(Warning(subject=occasion.subject, problem=str(error), hint=error.hint))


def _performed(when: str, hooks: Sequence[Hook], occasion: Occasion, course: Course) -> Iterator[HookFailed | TryLater]:
    """Have them run, by the service where that is there for us; what failed."""
    if hooks and os.geteuid() != 0 and socket_of("hooks").exists():
        return _asked(when, occasion, course)
    return perform(when, hooks, occasion, course)


def perform(when: str, hooks: Iterable[Hook], occasion: Occasion, course: Course) -> Iterator[HookFailed | TryLater]:
    """Run hooks in their order; yields how one failed, and goes on where that is asked for."""
    for hook in hooks:
        try:
            _run(when, hook, occasion, course)
        except (HookFailed, TryLater) as error:
            yield error


def _asked(when: str, occasion: Occasion, course: Course) -> Iterator[HookFailed | TryLater]:
    told = asdict(occasion) | {"outcome": str(course.outcome), "error": course.error[:_ASKED_CHARACTERS]}
    try:
        with asked(socket_of("hooks"), {"job": "hooks", "when": when, "occasion": told}) as service:
            failures = service.answer()
    except OpsdError as error:
        failures = [{"code": 1, "text": f"{when} hooks were not run: {error}", "hint": error.hint}]
    for failure in failures:
        kind = TryLater if failure["code"] == _TRY_LATER else HookFailed
        yield kind(failure["text"], hint=failure["hint"])


def _run(when: str, hook: Hook, occasion: Occasion, course: Course) -> None:
    name = "on_error" if when == "error" else when
    told = {"HOOK": when, "RUN": occasion.run, "JOB": occasion.job, "SOURCE": occasion.source}
    told |= {"OUTCOME": str(course.outcome), "ERROR": course.error.replace("\0", "")[:_ERROR_CHARACTERS]}
    environment = {**os.environ, **{f"OPSD_{key}": value for key, value in told.items()}}
    try:
        done = run(hook.run, timeout=hook.timeout, environment=environment)
    except ProgramFailed as error:
        raise HookFailed(f"{name} hook: {error}", hint=error.hint) from error
    if done.status == _TRY_LATER and when == "before":
        raise TryLater(f"{name} hook {hook.run[0]} asks to try later{said(done.error_text or done.output)}")
    if done.status:
        text = f"{name} hook {hook.run[0]} {ending(done.status)}{said(done.error_text or done.output)}"
        raise HookFailed(text, hint="run it by hand, as the user that opsd runs as")


@contextmanager
def _journal(hooks: tuple[Hook, ...], occasion: Occasion, state: Path) -> Iterator[Path | None]:
    """The file that says what is due, on disk and locked; None where nothing is."""
    if not hooks:
        yield None
        return
    folder = state / _FOLDER
    path = folder / f"{secrets.token_hex(8)}.json"
    try:
        descriptor = _create(path, {"occasion": asdict(occasion), "after": [asdict(hook) for hook in hooks]})
    except OSError as error:
        hint = "a hook that cleans up must be on disk before anything is done that it cleans up"
        raise OpsdError(f"the journal of hooks in {folder} can't be written: {error.strerror}", hint=hint) from error
    try:
        yield path
    finally:
        os.close(descriptor)


def _create(path: Path, content: object) -> int:
    """Write it durably; the descriptor holds the lock. Whoever sees the name sees the whole, locked."""
    private_folder(path.parent)
    hidden = path.with_suffix(".new")
    descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(json.dumps(content).encode())
        os.fsync(descriptor)
        hidden.rename(path)
        _sync(path.parent)
    except BaseException:
        os.close(descriptor)
        hidden.unlink(missing_ok=True)
        raise
    return descriptor


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _taken(path: Path) -> Iterator[int | None]:
    """The journal, locked; None while its writer lives, when another has just dealt with it, or where it is for another user to do so."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        is_ours = os.fstat(descriptor).st_uid == os.geteuid()
        yield descriptor if is_ours and _locked(descriptor) and path.exists() else None
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(descriptor: int) -> tuple[Occasion, tuple[Hook, ...]]:
    """What is due; a journal names programs to run, so one that others could have written is refused."""
    if os.fstat(descriptor).st_mode & _OTHERS_MAY_WRITE:
        raise ValueError("others may have written it")
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        content = json.load(file)
    hooks = tuple(Hook(run=tuple(hook["run"]), timeout=float(hook["timeout"])) for hook in content["after"])
    return Occasion(**content["occasion"]), hooks
