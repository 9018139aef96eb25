"""`opsd copy`: bring the copies on other servers up to date, and fetch those of other hosts."""

from collections.abc import Sequence
from typing import Any

import click

from opsd.app.copying import Filled, Route, fill, routes
from opsd.app.recording import recorded
from opsd.app.running import tracked
from opsd.app.session import Session
from opsd.cli import output
from opsd.cli.coverage import coverage_json, coverage_text, percent
from opsd.cli.options import described, session
from opsd.cli.output import Column

_COLUMNS = (
    Column("COPY"),
    Column("PLACE", elastic=True),
    Column("SNAPS", right=True),
    Column("NEW", right=True),
    Column("SENT", right=True),
    Column("TIME", right=True),
    Column("CHECKED", right=True),
    Column("RESULT"),
)
#: The worst is what a run of several ends with.
_WORST = (4, 1, 2, 75, 3, 0)


@described(
    "copy",
    "Bring every copy that the configuration names up to date, and fetch every pull; without any key where there is none. Each object is proved "
    "by its name, nothing is removed, and a pass that was cut off goes on. What a copy shows is compared with what it showed before: "
    "an older state, a gap or a number used twice ends with 4.",
    """{"copies": [{"name", "kind": "copy"|"pull", "place", "snapshots", "new_snapshots", "objects", "bytes", "seconds",
    "damaged": [{"object", "problem"}], "held": [name], "alarms": [text], "error": {"text", "hint", "exit_code"} or null}], "warnings"};
    each also with "lacks": [text], what its store does not do and how that is made up for (null where nothing was put), "locks_extended", a number
    of objects, and "coverage" as 'opsd check' shows it;
    damaged: in the source; held: snapshots left out because they may need that""",
    "opsd copy",
    "opsd copy --to paris --json",
    "opsd copy --from web1",
)
@click.option("--to", "to", multiple=True, metavar="NAME", help="Only this one of 'copies:'; may be given again.")
@click.option("--from", "pulled", multiple=True, metavar="NAME", help="Only this one of 'pulls:'; may be given again.")
def command(**given: Any) -> int:
    """Copy."""
    with (
        session(given) as (opened, listener),
        tracked(opened, "copy", part=bool(given["to"] or given["pulled"])) as run,
    ):
        ended = [_fill(opened, route) for route in routes(opened, given["to"], given["pulled"])]
        outcomes = {filled.route.name: code for filled, code in ended}
        code = run.ended(min(outcomes.values(), key=_WORST.index), copies=outcomes)
    found = [filled for filled, _ in ended]
    output.warnings(listener.warnings)
    if given["as_json"]:
        warnings = [output.warning_json(warning) for warning in listener.warnings]
        output.emit({"copies": [_as_json(each) for each in found], "warnings": warnings})
    else:
        _print(found)
    return code


def _fill(opened: Session, route: Route) -> tuple[Filled, int]:
    """Bring one copy up to date, and leave an entry in the ledger; the exit code."""
    with recorded(opened, route.kind, copy=route.name) as record:
        filled = fill(opened, route)
        report = filled.report
        if report:
            record.note(
                snapshots=report.snapshots,
                new_snapshots=report.new_snapshots,
                objects=report.objects,
                bytes=report.size,
                damaged=len(report.damaged),
                alarms=len(report.alarms),
            )
        return filled, record.ended(filled.exit_code, error=type(filled.error).__name__ if filled.error else None)


def _as_json(filled: Filled) -> dict[str, Any]:
    report, error = filled.report, filled.error
    return {
        "name": filled.route.name,
        "kind": filled.route.kind,
        "place": str(filled.route.target),
        "snapshots": report.snapshots if report else None,
        "new_snapshots": report.new_snapshots if report else None,
        "objects": report.objects if report else None,
        "bytes": report.size if report else None,
        "seconds": round(filled.seconds, 3),
        "damaged": [{"object": name, "problem": text} for name, text in report.damaged.items()] if report else [],
        "held": list(report.held) if report else [],
        "alarms": list(report.alarms) if report else [],
        "locks_extended": filled.locks_extended,
        "lacks": None if filled.lacks is None else list(filled.lacks),
        "coverage": coverage_json(filled.covered, filled.verify) if filled.covered else None,
        "error": {"text": str(error), "hint": error.hint, "exit_code": error.exit_code} if error else None,
    }


def _print(found: Sequence[Filled]) -> None:
    for each in found:
        _print_problems(each)
    output.table(_COLUMNS, [_row(each) for each in found])
    for each in found:
        for lack in each.lacks or ():
            output.line(f"{each.route.name}: {lack}")
        if each.covered and each.verify == "checksum":
            output.line(f"{each.route.name}: {coverage_text(each.covered, each.verify)}")


def _print_problems(filled: Filled) -> None:
    name = filled.route.name
    if filled.error:
        output.error(filled.error, of=name)
    if filled.report is None:
        return
    for text in filled.report.alarms:
        output.problem(f"{name}: {text}", "find out why before you prune or repair anything: docs/runbook.md")
    for damaged, problem in filled.report.damaged.items():
        output.problem(f"{name}: {damaged} is damaged in the source: {problem}", "run 'opsd check --repair'")
    if filled.report.held:
        count = output.count(len(filled.report.held), "snapshot")
        output.problem(f"{name}: {count} left out, which may need what is damaged")


def _read(filled: Filled) -> str:
    """The share that was read in the last 30 days."""
    if filled.verify == "off":
        return "off"
    return percent(filled.covered.read, filled.covered.total) if filled.covered else ""


def _row(filled: Filled) -> tuple[str, ...]:
    report = filled.report
    result = "failed" if filled.error else "complete" if report and report.is_sound else "alarm"
    colour = {"complete": "green", "alarm": "red", "failed": "red"}[result]
    return (
        filled.route.name,
        str(filled.route.target),
        f"{report.snapshots:,}" if report else "",
        f"{report.new_snapshots:,}" if report else "",
        output.size(report.size) if report else "",
        output.duration(filled.seconds),
        _read(filled),
        output.paint(result, colour),
    )
