"""`opsd status`: whether the promise is kept."""

from collections.abc import Sequence
from datetime import tzinfo
from typing import Any

import click

from opsd import clock
from opsd.app.fleet import Watched, fleet
from opsd.cli import output
from opsd.cli.options import described, session
from opsd.cli.output import Column
from opsd.errors import UsageError
from opsd.verify.fleet import Standing

_COLUMNS = (
    Column("HOST"),
    Column("PLACE", elastic=True),
    Column("NEWEST COMPLETE"),
    Column("NEXT DUE"),
    Column("STATE"),
)
#: The worst is what the whole ends with.
_WORST = (4, 5, 1, 2, 75, 0)


@described(
    "status",
    "Tell of every host in the repository, in each copy and in each pull whether its next complete snapshot came when its last one "
    "promised it: a host that died says nothing, so whoever holds its snapshots has to. Needs no key. Ends with 5 where one is late, "
    "has no complete snapshot, or dates them in the future, and where a copy was never filled.",
    """{"hosts": [{"place", "kind": "repository"|"copy"|"pull", "host", "newest", "next_due", "late_seconds",
    "state": "in time"|"late"|"no complete snapshot"|"dated in the future"|"states no schedule"|"never filled", "error": {"text", "hint", "exit_code"}
    or null}], "warnings"}; of a place that can't be read all but the error is null""",
    "opsd status --fleet",
    "opsd status --fleet --json",
)
@click.option("--fleet", "whole", is_flag=True, help="Every host in every place that the configuration names.")
def command(**given: Any) -> int:
    """Tell."""
    if not given["whole"]:
        raise UsageError("there is no other status yet than that of the fleet", hint="give --fleet")
    with session(given) as (opened, listener):
        found = fleet(opened)
        zone = opened.settings.zone
    output.warnings(listener.warnings)
    if given["as_json"]:
        warnings = [output.warning_json(warning) for warning in listener.warnings]
        output.emit({"hosts": [_as_json(each, zone) for each in found], "warnings": warnings})
    else:
        _print(found, zone)
    return min((each.exit_code for each in found), key=_WORST.index)


def _as_json(watched: Watched, zone: tzinfo) -> dict[str, Any]:
    host, error = watched.host, watched.error
    return {
        "place": watched.place,
        "kind": watched.kind,
        "host": host.label if host else None,
        "newest": clock.iso(host.newest, zone) if host and host.newest is not None else None,
        "next_due": clock.iso(host.due, zone) if host and host.due is not None else None,
        "late_seconds": watched.late // clock.SECOND if host else None,
        "state": watched.standing,
        "error": {"text": str(error), "hint": error.hint, "exit_code": error.exit_code} if error else None,
    }


def _print(found: Sequence[Watched], zone: tzinfo) -> None:
    for each in found:
        if each.error:
            output.error(each.error, of=each.place)
        if each.standing is Standing.UNFILLED:
            output.problem(f"{each.place} was never filled", "run 'opsd copy'")
    output.table(_COLUMNS, [_row(each, zone) for each in found])


def _row(watched: Watched, zone: tzinfo) -> tuple[str, ...]:
    host = watched.host
    state = str(watched.standing or "unreadable")
    if watched.standing is Standing.LATE:
        state += f" by {output.duration(watched.late / clock.SECOND)}"
    return (
        host.label if host else "",
        watched.place,
        output.moment(host.newest, zone) if host and host.newest is not None else "",
        output.moment(host.due, zone) if host and host.due is not None else "",
        output.paint(state, "red" if watched.exit_code else "green"),
    )
