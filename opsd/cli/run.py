"""`opsd run`: do a job of the schedule now, all of it, as the daemon would."""

import os
import subprocess
import sys
from typing import Any, NoReturn

import click

from opsd.app.jobs import commands, worst
from opsd.app.running import WITHIN, require_idle, tracked
from opsd.app.session import Session
from opsd.backup.copy_state import CopyState
from opsd.cli import output
from opsd.cli.options import configuration_path, described, session
from opsd.errors import UsageError
from opsd.monitor.deadlines import JOBS


@described(
    "run",
    "Do a job of the schedule now, as 'opsd daemon' does when it is due, and count it as done. Jobs are backup, copy (and pulls), prune (the repository, and "
    "each copy that states a retention), check (what is due of the repository and of each copy), drill, self-check. Exits with the worst of its commands, and with 75 while the job is at work already.",
    """{"job", "commands": [{"command": [text], "exit_code"}], "exit_code"}; of a job that is one command, what that command answers""",
    "opsd run check",
    "opsd run prune --json",
)
@click.argument("job", metavar="JOB", type=click.Choice(JOBS))
def command(**given: Any) -> int:
    """Do a job."""
    with session(given) as (opened, _):
        chosen = commands(opened.settings, given["job"], _filled(opened))
        if not chosen:
            raise UsageError(
                f"this host has nothing to {given['job']}", hint="'opsd config show' shows its configuration"
            )
        require_idle(opened, given["job"])
        if len(chosen) > 1:
            return _several(opened, given["job"], chosen, as_json=given["as_json"])
    return _become(_line(chosen[0], as_json=given["as_json"]))


def _filled(opened: Session) -> set[str]:
    names = [*(each.name for each in opened.settings.copies), *opened.settings.pulls]
    return {name for name in names if CopyState(opened.settings.state, name).read().repository}


def _become(arguments: list[str]) -> NoReturn:
    """Be that command from here on: it tells of its own run."""
    sys.stdout.flush()
    os.execv(arguments[0], arguments)  # noqa: S606 - no shell is wanted


def _several(opened: Session, job: str, chosen: tuple[tuple[str, ...], ...], *, as_json: bool) -> int:
    """Each as a process of its own: one that fails does not stop the others."""
    with tracked(opened, job) as run:
        environment = os.environ | {WITHIN: run.id}
        codes = [_run(_line(each, as_json=False), environment, quiet=as_json) for each in chosen]
        code = run.ended(worst(codes), commands=len(chosen), failed=sum(1 for code in codes if code not in {0, 3}))
    if as_json:
        answers = [{"command": list(each), "exit_code": code} for each, code in zip(chosen, codes, strict=True)]
        output.emit({"job": job, "commands": answers, "exit_code": code})
    return code


def _run(arguments: list[str], environment: dict[str, str], *, quiet: bool) -> int:
    child = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL if quiet else None)
    try:
        return child.wait()
    except BaseException:
        child.terminate()
        child.wait()
        raise


def _line(chosen: tuple[str, ...], *, as_json: bool) -> list[str]:
    configuration = configuration_path()
    return [
        sys.executable,
        "-P",
        "-m",
        "opsd",
        *(("--config", configuration) if configuration else ()),
        *chosen,
        *(("--json",) if as_json else ()),
    ]
