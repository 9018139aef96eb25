"""`opsd drill`: a full restore from a copy that proves it, and what earlier ones showed."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import tzinfo
from pathlib import Path
from typing import Any

import click

from opsd import clock
from opsd.app.as_owner import owner_of, run_as
from opsd.app.drills import drill
from opsd.app.recording import recorded
from opsd.app.session import Session
from opsd.cli import output
from opsd.cli.drill_page import page
from opsd.cli.main import HELP
from opsd.cli.options import access_of, described, from_option, json_option, session
from opsd.cli.output import Column
from opsd.cli.progress import Listener, listening
from opsd.credentials import references
from opsd.errors import OpsdError, UsageError
from opsd.verify.drill_record import DrillRecord, DrillRecords
from opsd.verify.expectations import Verdict

_COLUMNS = (
    Column("DRILL"),
    Column("BEGAN"),
    Column("COPY", elastic=True),
    Column("SNAPSHOT"),
    Column("KEY"),
    Column("RECOVERY", right=True),
    Column("VERDICT"),
)
_COLOURS = {"green": "green", "deviating": "yellow", "failed": "yellow", "red": "red"}
_LISTED = 20
#: Whether it can be read is seen by reading: access(2) knows nothing of capabilities.
_FILE = click.Path(readable=False)

_TEXT = """Restore the newest snapshot of a copy in full, with nothing but that copy and one key, into a scratch place: files, SQLite databases,
PostgreSQL databases in a throwaway server. Compare all of it with what the manifest recorded, ask the site's own checks,
measure recovery time and recovery point, and take everything down again. Without --from another copy each week.

Exits with 0 (green), 3 (all came back, but a target was missed or a check could not be asked), 4 (red: something did not
come back as it was), 1 (the drill could not be carried out), 75 (another one is at work). With --seed-failure the drill's own
copy is damaged on purpose, so it must end with 4.

\b
Examples:
  opsd drill
  opsd drill --from paris --json
  opsd drill --from paris --kit
  opsd drill --seed-failure
  opsd drill list
  opsd drill report --output drills.html

\b
JSON:
  {"id", "began", "ended", "verdict": "green"|"deviating"|"failed"|"red", "exit_code", "who", "host", "version", "copy", "place",
  "key": "kit"|"kit file"|"key file"|"drill key"|"passphrase", "seeded": bool, "snapshot", "snapshot_time", "newest", "newest_time",
  "pieces", "seconds", "recovery_time", "recovery_point", "targets": {name: seconds or null}, "stages": [[name, seconds]],
  "sources": [{"label", "kind", "files", "size", "databases", "rows"}], "deviation_count",
  "deviations": [{"source", "subject", "problem", "severity", "hint"}], "checks": [{"name", "passed", "seconds", "problem"}],
  "faults": [{"kind", "source", "subject", "word", "found": bool}], "notices": [text], "error": {"kind", "text", "hint", "exit_code"} or null};
  copy is empty for the repository itself; faults: what --seed-failure damaged; spans in seconds, times ISO 8601 with offset
"""


@click.group("drill", context_settings=HELP, invoke_without_command=True, help=_TEXT)
@click.option(
    "--seed-failure", "seed", is_flag=True, help="Damage one thing of each kind first: the drill must go red."
)
@click.option("--kit", is_flag=True, help="Open with the recovery kit: asked for, or in OPSD_KIT_FILE.")
@click.option("--kit-file", metavar="FILE", type=_FILE, help="Open with the recovery kit in a file.")
@click.option("--key-file", metavar="FILE", type=_FILE, help="Open with a recipient's key file.")
@from_option
@json_option
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> int | None:
    """Carry out a drill, unless a subcommand is asked for."""
    if ctx.invoked_subcommand:
        asked = [name for name in ("seed", "kit", "kit_file", "key_file", "copy") if given[name]]
        if asked:
            raise UsageError(f"'opsd drill {ctx.invoked_subcommand}' takes none of the options of a drill")
        return None
    with session(given) as (opened, listener):
        # The scratch folder is private to whoever runs the nights, and only as that user a drill proves that theirs will pass.
        account = owner_of(opened.settings.state)
        code = run_as(account, sys.argv[1:], references(opened.settings)) if account else None
        return _carried_out(opened, listener, given) if code is None else code


def _carried_out(opened: Session, listener: Listener, given: Mapping[str, Any]) -> int:
    """The drill, and what it showed."""
    with recorded(opened, "drill", begins=True, part=given["seed"]) as entry:
        record = drill(opened, seed=given["seed"], shown=output.duration)
        zone = opened.settings.zone
        # What is amiss with the ledger is a warning here: the verdict is the copy's, whatever this host remembers.
        entry.ended(record.exit_code, **_details(record))
    output.warnings(listener.warnings)
    if given["as_json"]:
        if record.error:
            output.error(_error(record.error))
        output.emit(as_json(record, zone))
    else:
        _print(record, zone)
    return record.exit_code


def _details(record: DrillRecord) -> dict[str, Any]:
    """What the ledger keeps: no name of anything that was restored."""
    names = ("id", "copy", "key", "seeded", "snapshot", "verdict", "deviation_count", "recovery_time", "recovery_point")
    return {f"drill_{name}" if name in {"id", "key"} else name: getattr(record, name) for name in names}


@described(
    "list",
    "List the drills that this host remembers, oldest first.",
    """[a drill as 'opsd drill --json' gives it, without stages, sources and deviations]""",
    "opsd drill list",
    "opsd drill list --json",
)
def list_(**given: Any) -> None:
    """List them."""
    records, zone = _remembered()
    if given["as_json"]:
        long = ("stages", "sources", "deviations", "checks", "faults", "notices")
        output.emit(
            [{name: each for name, each in as_json(record, zone).items() if name not in long} for record in records]
        )
    elif records:
        output.table(_COLUMNS, [_row(record, zone) for record in records])
        output.line(_kit_line(records, zone))
    else:
        output.line("no drills yet: 'opsd drill' carries one out")


@described(
    "show",
    "Show one drill: DRILL is its id, the beginning or the last part of one, or 'latest'.",
    """as 'opsd drill --json' gives it""",
    "opsd drill show latest",
)
@click.argument("drill", metavar="DRILL", default="latest")
def show(**given: Any) -> None:
    """Show one."""
    opened = _session()
    record = DrillRecords(opened.settings.state).find(given["drill"])
    if given["as_json"]:
        output.emit(as_json(record, opened.settings.zone))
    else:
        _print(record, opened.settings.zone)


@described(
    "report",
    "Write one page of HTML about all drills, for whoever audits: dates, copies, who, targets, deviations, and when a person last used the kit.",
    """{"html": text, "drills": number}""",
    "opsd drill report --output drills.html",
    "opsd drill report > drills.html",
)
@click.option("--output", "target", metavar="FILE", type=click.Path(), help="Write it there instead of to stdout.")
def report(**given: Any) -> None:
    """Write the page."""
    opened = _session()
    records = DrillRecords(opened.settings.state).read()
    text = page(records, opened.settings.host, opened.settings.zone, opened.clock.now())
    if given["target"]:
        Path(given["target"]).write_text(text, encoding="utf-8")
    if given["as_json"]:
        output.emit({"html": text, "drills": len(records)})
    elif given["target"]:
        output.line(f"{given['target']}: {output.count(len(records), 'drill')}")
    else:
        click.echo(text)


for subcommand in (list_, show, report):
    command.add_command(subcommand)


def _session() -> Session:
    with listening(quiet=True) as listener:
        return Session(access_of({}), listener)


def _remembered() -> tuple[list[DrillRecord], tzinfo]:
    opened = _session()
    return DrillRecords(opened.settings.state).read(), opened.settings.zone


def as_json(record: DrillRecord, zone: tzinfo) -> dict[str, Any]:
    """A drill in JSON."""
    value = asdict(record) | {"seconds": round(record.seconds, 3)}
    for name in ("began", "ended", "snapshot_time", "newest_time"):
        value[name] = clock.iso(value[name], zone) if value[name] else None
    return value


def _row(record: DrillRecord, zone: tzinfo) -> tuple[str, ...]:
    return (
        record.id.rpartition("-")[2],
        output.moment(record.began, zone),
        record.copy or "repository",
        record.snapshot[:8],
        record.key,
        output.duration(record.recovery_time) if record.snapshot else "",
        output.paint(record.verdict + (" (seeded)" if record.seeded else ""), _COLOURS[record.verdict]),
    )


def _kit_line(records: Sequence[DrillRecord], zone: tzinfo) -> str:
    used = [record for record in records if record.by_kit and record.snapshot]
    if not used:
        return "no person has typed the recovery kit in a drill yet: 'opsd drill --kit'"
    return f"the recovery kit was last used {output.moment(used[-1].began, zone)} by {used[-1].who}"


def _print(record: DrillRecord, zone: tzinfo) -> None:
    if record.error:
        output.error(_error(record.error))
    if record.snapshot:
        output.line(
            f"drill of snapshot {record.snapshot[:8]} ({output.moment(record.snapshot_time, zone)}) from {_where(record)}, by {record.key}"
        )
        for source in record.sources:
            output.line(f"  {source['label']:14} {_came_back(source)}")
        _print_measures(record)
    for check in record.checks:
        if check["passed"]:  # The others stand among the deviations.
            output.line(f"  check {check['name']}: passed")
    _print_deviations(record)
    output.line(_last_line(record))


def _where(record: DrillRecord) -> str:
    return f"copy {record.copy}" if record.copy else "the repository itself"


def _error(told: Mapping[str, Any]) -> OpsdError:
    return OpsdError(str(told["text"]), hint=told["hint"])


def _came_back(source: Mapping[str, Any]) -> str:
    parts = [output.count(source["files"], "file")] if source["files"] else []
    if source["databases"]:
        parts.append(output.count(source["databases"], "database"))
    if source["rows"]:  # Of databases among files none are counted.
        parts.append(output.count(source["rows"], "row"))
    return f"{', '.join(parts)}: {output.size(source['size'])}" if parts else "nothing"


def _print_measures(record: DrillRecord) -> None:
    targets = record.targets
    measured = {"recovery time": record.recovery_time, "recovery point": record.recovery_point}
    for name, seconds in measured.items():
        target = targets.get(name)
        output.line(
            f"  {name:14} {output.duration(seconds)}" + (f" (target {output.duration(target)})" if target else "")
        )
    kinds: dict[str, float] = {}
    for name, seconds in record.stages:
        kind = name if name == "take down" else name.partition(" ")[0]
        kinds[kind] = kinds.get(kind, 0.0) + seconds
    output.line("  " + ", ".join(f"{kind} {output.duration(seconds)}" for kind, seconds in kinds.items()))


def _print_deviations(record: DrillRecord) -> None:
    for each in record.deviations[:_LISTED]:
        where = f"{each['source']}: {each['subject']}" if each["source"] else each["subject"]
        output.line(output.paint(f"{each['severity']}: {where}: {each['problem']}", _COLOURS[each["severity"]]))
        if each["hint"]:
            output.line(f"  {each['hint']}")
    left = record.deviation_count - min(_LISTED, len(record.deviations))
    if left:
        output.line(f"… and {output.count(left, 'more deviation')}; 'opsd drill show --json' lists them")


def _last_line(record: DrillRecord) -> str:
    text = f"{record.verdict} in {output.duration(record.seconds)}"
    if record.error:
        text += f", from {_where(record)}"
    elif record.verdict == Verdict.RED and not record.seeded:
        text += "; docs/runbook.md says what to do"
    if record.seeded and not record.error:
        found = [each for each in record.faults if each["found"]]
        text += f"; {len(found)} of {output.count(len(record.faults), 'seeded fault')} found"
        if record.missed:
            text += f"; NOT FOUND: {', '.join(record.missed)}"
    return output.paint(text, _COLOURS[record.verdict], bold=True)
