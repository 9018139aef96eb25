"""The service opsd-hooks: what a run without root's rights needs root for, hooks and file-system snapshots.

Promise: a request names a source and a phase, never a program: what runs is what the configuration says, and nothing runs where anybody
but root may write that. A snapshot lasts as long as the connection, so none outlives whoever reads it.
"""

import os
import stat
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from opsd.app.session import find_settings
from opsd.app.workers import run_tool
from opsd.backup.hooks import Course, Occasion, perform
from opsd.control import socket_of
from opsd.daemon.control import Talk, beating
from opsd.errors import OpsdError
from opsd.events import Recorder
from opsd.settings import Settings
from opsd.sources.freeze import frozen
from opsd.sources.options import FilesSource, Hook, Hooks

_PHASES: Final = ("before", "error", "after")
_OTHERS_MAY_WRITE: Final = 0o022


class HooksService:
    """Answers `hooks` and `freeze`."""

    def __init__(self, configuration: str | None, stop: threading.Event) -> None:
        self._configuration = configuration
        self._stop = stop

    def __call__(self, talk: Talk) -> None:
        """Do what was asked."""
        settings = find_settings(self._configuration)
        require_trusted(settings)
        job = talk.request.get("job")
        if job == "hooks":
            self._run(talk, settings)
        elif job == "freeze":
            self._freeze(talk, settings)
        else:
            raise OpsdError(f"opsd-hooks has no job {job!r}", hint="it does hooks and freeze")

    def _run(self, talk: Talk, settings: Settings) -> None:
        when = talk.request.get("when")
        if when not in _PHASES:
            raise OpsdError(f"when: {when!r} is none of {', '.join(_PHASES)}")
        occasion, course = _told(talk.request.get("occasion"))
        failures = []
        with beating(talk):
            for error in perform(when, chosen(settings, occasion, when), occasion, course):
                failures.append({"code": error.exit_code, "text": str(error), "hint": error.hint})
                if when == "before":
                    break
        talk.say(answer=failures)

    def _freeze(self, talk: Talk, settings: Settings) -> None:
        label = talk.request.get("source")
        options = next((each.options for each in settings.sources if each.label == label), None)
        if not isinstance(options, FilesSource) or options.snapshot is None:
            raise OpsdError(f"source {label!r} asks for no snapshot of its file system")
        heard = Recorder()
        with ExitStack() as late, ExitStack() as stack:
            with beating(talk):
                context = frozen(str(label), options, heard, run_tool, scratch=scratch())
                real = stack.enter_context(context)
            talk.say(answer={os.fsdecode(path): os.fsdecode(at) for path, at in real.items()})
            # Nobody reads meanwhile, so nothing is said until the snapshots are removed.
            talk.wait_for_release(self._stop)
            late.enter_context(beating(talk))
            if self._stop.is_set():
                raise OpsdError("the service was told to stop, and the snapshots go", hint="run the backup again")
        talk.say(answer={"lines": heard.lines, "warnings": [asdict(each) for each in heard.warnings]})


def scratch() -> Path:
    """Where LVM snapshots are mounted: what lies there, only this service put there."""
    return socket_of("hooks").parent / "frozen"


def chosen(settings: Settings, occasion: Occasion, when: str) -> tuple[Hook, ...]:
    """The hooks of a phase, of a source or of the whole run.

    Raises:
        OpsdError: there is no such source.
    """
    hooks: Hooks | None = settings.restore_hooks if occasion.job == "restore" else settings.hooks
    if occasion.source:
        hooks = next((each.hooks for each in settings.sources if each.label == occasion.source), None)
    if hooks is None:
        raise OpsdError(f"there is no source {occasion.source!r} in the configuration")
    phases: Mapping[str, tuple[Hook, ...]] = {
        "before": hooks.before,
        "error": hooks.on_error,
        "after": hooks.after,
    }
    return phases[when]


def _told(content: Any) -> tuple[Occasion, Course]:
    keys = ("run", "job", "source", "outcome", "error")
    if not isinstance(content, Mapping) or any(not isinstance(content.get(key), str) for key in keys):
        raise OpsdError(f"occasion: expected texts for {', '.join(keys)}")
    if any("\0" in content[key] for key in keys):
        raise OpsdError("occasion: a text holds a zero byte")
    occasion = Occasion(run=content["run"], job=content["job"], source=content["source"])
    return occasion, Course(outcome=content["outcome"], error=content["error"])


def require_trusted(settings: Settings) -> None:
    """See that nobody but this user, and root, may write the files of a configuration.

    Raises:
        OpsdError: somebody may.
    """
    files = {Path(origin.rpartition(":")[0]) for origin in settings.origin.values()}
    for path in sorted({*files, *(file.parent for file in files)}):
        status = path.stat()
        sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
        if status.st_uid not in {0, os.geteuid()} or (status.st_mode & _OTHERS_MAY_WRITE and not sticky):
            hint = f"chown root {path}; chmod go-w {path}"
            raise OpsdError(f"others may write {path}, so nothing that it names is run as root", hint=hint)
