"""`opsd setup`: from a bare host to a proven first restore."""

import io
import os
import re
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import click
import segno

from opsd.app.doctor import count_uncovered
from opsd.app.proposal import Answers, sftp_of
from opsd.app.setup import Plan, Sample, Setup, refuse_configured, refuse_full
from opsd.cli import output
from opsd.cli.init import kit_text
from opsd.cli.options import configuration_path, described
from opsd.cli.progress import listening
from opsd.errors import ConfigurationError, OpsdError, UsageError
from opsd.monitor.alert_options import URL
from opsd.settings import DEFAULT_FILE
from opsd.settings.model import DEFAULT_STATE, system_zone
from opsd.settings.values import TIME, ZONE
from opsd.sources.coverage import Uncovered
from opsd.sources.discovery import Discovery, Kind, discover, lies_in

_REPOSITORY: Final = "/var/backups/opsd"
_TIME: Final = "04:00"
_TRIES: Final = 3
#: Of each kind, so many are listed.
_SHOWN: Final = 12
_NO_KIT: Final = "nobody has shown to hold the kit: print it, then show that it opens the repository: opsd drill --kit"
_SAME_MACHINE: Final = (
    "The repository is on this machine only: no backup against fire or theft.",
    "Name a place elsewhere under copies: (docs/copies.md), or let another machine",
    "fetch it. Until then a broken-in root can delete all of it, too.",
)


@described(
    "setup",
    "Find what lives here, propose a configuration, ask at most six questions (none with --yes), write it, make the role in PostgreSQL, the passphrase "
    "and the repository, print the recovery kit, take a first sample of every source, restore it and compare it. Ends with what is not covered. "
    "Never writes over a configuration that has sources. As root, all of it belongs to the user opsd where there is one. "
    "OPSD_REPOSITORY and OPSD_STATE name other places.",
    """{"configuration": path, "repository": path, "kit": text, "kit_confirmed": bool, "found": {kind: number}, "roles_made": [label],
    "to_do": [text], "sample": {"exit_code", "verdict", "files", "bytes", "seconds", "databases", "problems": [text]},
    "not_covered": [text], "uncovered": {"databases": number, "folders": number}, "copies": bool, "seconds": number}""",
    "opsd setup",
    "opsd -c /etc/opsd/opsd.yaml setup --yes --json",
)
@click.option("-y", "--yes", is_flag=True, help="Ask nothing, and take what is proposed.")
def command(**given: Any) -> int:
    """Set up."""
    if given["as_json"] and not given["yes"]:
        raise UsageError("--json asks no questions", hint="give --yes as well")
    began = time.monotonic()
    file = Path(os.path.abspath(configuration_path() or os.environ.get("OPSD_CONFIG") or DEFAULT_FILE))
    refuse_configured(file)
    with listening(quiet=given["as_json"]) as listener:
        answers = _defaults(file)
        listener.stage("look what lives here")
        discovery = discover((answers.repository, str(answers.state), str(file.parent / "scratch")))
    if not given["as_json"]:
        _show_found(discovery)
    if not given["yes"]:
        answers = asked(answers)
    refuse_full(answers.repository)
    return _carried_out(answers, discovery, given, began)


def _defaults(file: Path) -> Answers:
    return Answers(
        file=file,
        repository=os.path.abspath(os.environ.get("OPSD_REPOSITORY") or _REPOSITORY),
        state=Path(os.path.abspath(os.environ.get("OPSD_STATE") or DEFAULT_STATE)),
        zone=system_zone(os.environ),
        time=_TIME,
    )


def asked(default: Answers) -> Answers:
    """At most six questions, the last of which is whether to go on.

    Raises:
        UsageError: nobody is there to answer. click.Abort: they want no more of it.
    """
    try:
        answers = _questions(default)
        goes_on = click.confirm(
            "Write the configuration, make the repository, and restore a sample", default=True, err=True
        )
    except click.Abort:
        output.note("")
        if not sys.stdin.isatty():
            hint = "run it in a terminal, or take what is proposed: opsd setup --yes"
            raise UsageError("the questions were not answered, so nothing was changed", hint=hint) from None
        goes_on = False
    if not goes_on:
        output.note("nothing was changed")
        raise click.Abort
    return answers


def _questions(default: Answers) -> Answers:
    repository = _question("Where to keep the repository", default.repository, _empty)
    copy = _question(
        "A copy elsewhere: a folder, or user@host:path (empty: none yet)", "", lambda text: _place(text, repository)
    )
    contact = _question("Whom to tell: an e-mail address, or a URL of apprise (empty: nobody yet)", "", _address)
    zone = _question("Time zone", default.zone, lambda text: ZONE.convert(text) and text)
    at = _question("Time of the nightly backup", default.time, lambda text: TIME.convert(text) and text)
    return replace(default, repository=repository, zone=zone, time=at, copy=copy, contact=contact)


def _question(text: str, default: str, check: Any) -> str:
    """Asked until the answer will do."""

    def checked(answer: str) -> str:
        try:
            return str(check(answer.strip()))
        except (ValueError, ConfigurationError) as error:
            raise click.BadParameter(str(error)) from error

    answer: str = click.prompt(text, default=default, value_proc=checked, err=True, show_default=bool(default))
    return answer


def _empty(text: str) -> str:
    """An absolute path at which nothing stands yet."""
    if not text.startswith("/"):
        raise ValueError("an absolute path, such as /var/backups/opsd")
    folder = os.path.normpath(text)
    refuse_full(folder)
    return folder


def _place(text: str, repository: str) -> str:
    if not text or sftp_of(text):
        return text
    if not text.startswith("/"):
        raise ValueError("the absolute path of a folder, or user@host:path")
    folder = _empty(text)
    if lies_in(folder, repository) or lies_in(repository, folder):
        raise ValueError(f"not in the repository ({repository}), nor around it")
    return folder


def _address(text: str) -> str:
    if text and not re.fullmatch(rf"{URL}|[^@\s&?:]+@[^@\s&?:]+", text):
        raise ValueError("an address such as anna@example.org, or a URL such as ntfy://topic")
    return text


def _carried_out(answers: Answers, discovery: Discovery, given: Mapping[str, Any], began: float) -> int:
    """Write, initialise, show the kit at once, prove; the kit is never lost because a later step failed."""
    quiet, unasked = given["as_json"], given["yes"]
    with listening(quiet=quiet) as listener:
        setup = Setup(answers, discovery, listener)
        plan = setup.plan()
        setup.write(plan)
        created = setup.initialise()
    if not quiet:
        _show_written(answers, plan)
        _show_kit(created)
    confirmed = not unasked and _is_confirmed(created["kit"])
    sample = _proved(setup, plan, confirmed=confirmed, quiet=quiet)
    todo = (setup.start_nights(), None if confirmed or unasked else _NO_KIT)
    plan = replace(plan, todo=(*plan.todo, *filter(None, todo)))
    seconds = time.monotonic() - began
    missed = setup.left_out()
    code = sample.exit_code or (3 if plan.todo else 0)
    if quiet:
        told = {"kit": created["kit"], "kit_confirmed": confirmed, "seconds": round(seconds, 1)}
        output.emit(_as_json(answers, plan, sample, missed) | told | {"found": _counts(discovery)})
    else:
        _show_end(answers, plan, sample, missed)
        output.line(f"setup took {output.duration(seconds)}")
    return code


def _proved(setup: Setup, plan: Plan, *, confirmed: bool, quiet: bool) -> Sample:
    """How the sample came back; whatever goes wrong, the kit is shown and the nights are started."""
    try:
        with listening(quiet=quiet) as listener:
            setup.reporter = listener
            setup.remember(kit_confirmed=confirmed)
            return setup.prove(plan)
    except OpsdError as error:
        said = f"{error} ({error.hint})" if error.hint else str(error)
        return Sample(exit_code=1, verdict="failed", problems=(said,))
    except KeyboardInterrupt as stopped:
        return Sample(exit_code=getattr(stopped, "exit_code", 130), verdict="stopped")


def _is_confirmed(kit: str) -> bool:
    """Whether the person types a group of the kit from the paper."""
    groups = kit.split("-")
    number = secrets.randbelow(len(groups))
    for _ in range(_TRIES):
        try:
            typed = click.prompt(f"Type group {number + 1} of the kit, from the paper (4 characters)", err=True)
        except click.Abort:
            break
        if typed.strip().upper() == groups[number]:
            return True
        output.note("that is another; groups are counted from the left, line by line")
    output.problem("the kit was not confirmed")
    return False


def _counts(discovery: Discovery) -> dict[str, int]:
    return {str(kind): sum(each.kind is kind for each in discovery.found) for kind in Kind}


def _as_json(answers: Answers, plan: Plan, sample: Sample, missed: Sequence[Uncovered]) -> dict[str, Any]:
    return {
        "configuration": str(answers.file),
        "repository": answers.repository,
        "roles_made": list(plan.roles),
        "to_do": list(plan.todo),
        "sample": asdict(sample),
        "not_covered": [str(each.found) for each in missed],
        "uncovered": count_uncovered(missed),
        "copies": bool(answers.copy),
    }


def _show_found(discovery: Discovery) -> None:
    output.line(output.paint("found here", None, bold=True))
    for kind in Kind:
        places = [str(each) for each in discovery.found if each.kind is kind]
        if kind is Kind.FOLDER and places:
            places = [", ".join(places)]
        for each in places[:_SHOWN]:
            output.lines(each, indent=2)
        if len(places) > _SHOWN:
            output.line(f"  and {len(places) - _SHOWN} more of {kind}")
    if not discovery.complete:
        output.line("  (not every folder was searched for SQLite files)")
    output.line()


def _show_written(answers: Answers, plan: Plan) -> None:
    output.line(output.paint(str(answers.file), None, bold=True))
    for each in plan.text.splitlines():
        output.line(f"  {each}")
    output.line()
    for label in plan.roles:
        output.line(f"made role opsd in the server of {label}")


def _show_kit(created: Mapping[str, Any]) -> None:
    for each in kit_text(str(created["repository"]), str(created["kit"])).splitlines():
        output.line(each)
    picture = io.StringIO()
    segno.make(created["kit"], error="m").terminal(picture, compact=True)
    click.echo(picture.getvalue())


def _show_end(answers: Answers, plan: Plan, sample: Sample, missed: Sequence[Uncovered]) -> None:
    what = f"{output.count(sample.files, 'file')}, {output.count(sample.databases, 'database')}, {output.size(sample.bytes)}"
    colour = {0: "green", 3: "yellow"}.get(sample.exit_code, "red")
    output.line(output.paint(f"first restore of a sample ({what}): {sample.verdict}", colour, bold=True))
    for each in sample.problems:
        output.lines(each, indent=2)
    if missed:
        output.line()
        output.line(output.paint("not covered", None, bold=True))
        for missing in missed:
            output.lines(str(missing.found), indent=2)
        output.lines(
            "Name it under sources:, or under exclude: of a source if it may be lost. 'opsd doctor' tells how."
        )
    if not answers.copy:
        output.line()
        output.line(output.paint(_SAME_MACHINE[0], "yellow", bold=True))
        for each in _SAME_MACHINE[1:]:
            output.line(each)
    output.line()
    for each in plan.todo:
        output.lines(f"to do: {each}")
    if sample.exit_code in {0, 3}:
        output.line("next: opsd doctor, and opsd backup for all of it")
    else:
        output.line("nothing is proven yet. next: opsd doctor, opsd backup, opsd drill")
