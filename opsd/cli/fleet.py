"""`opsd status --fleet`: every host in every place, seen by whoever holds its snapshots; no key is needed."""

from collections.abc import Sequence
from datetime import tzinfo
from typing import Any

from opsd import clock
from opsd.app.fleet import Watched, fleet
from opsd.cli import output
from opsd.cli.options import session
from opsd.cli.output import Column
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


def show(given: dict[str, Any]) -> int:
    """Tell of every host."""
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
        if each.standing is Standing.AHEAD and each.host:
            hint = "set its clock right; while that snapshot is there, nobody can tell whether the host is late"
            output.problem(f"{each.place}: a snapshot of {each.host.label} is dated in the future", hint)
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
