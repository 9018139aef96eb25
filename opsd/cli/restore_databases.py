"""`opsd restore --database`: databases go back to a server.

Promise: imported only when databases are restored, so that nobody else waits for the server's library.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from opsd.app.databases import Chosen, DatabaseOptions, DatabaseRestored, choose, restore_databases
from opsd.app.recording import recorded
from opsd.app.session import Session
from opsd.cli import output
from opsd.cli.options import confirm, moment, session
from opsd.cli.output import Column
from opsd.cli.progress import Listener
from opsd.errors import OpsdError
from opsd.repository.reader import SnapshotReader
from opsd.restore.browsing import Place

_PLAN = (
    Column("SOURCE"),
    Column("DATABASE", elastic=True),
    Column("RESTORED AS", elastic=True),
    Column("DUMP", right=True),
)


def run(given: Mapping[str, Any]) -> int:
    """Restore databases as the command line says; the exit code."""
    options = DatabaseOptions(
        names=given["databases"],
        sources=given["sources"],
        target=given["name"],
        tables=given["tables"],
        roles=given["roles"],
        in_place=given["in_place"],
        drop_old=given["no_safety_snapshot"],
    )
    with session(given) as (opened, listener):
        if given["only_plan"]:
            reader, chosen = _chosen(opened, given, options)
            identity = reader.summary.id
            if given["as_json"]:
                output.emit({"snapshot": identity, "databases": [_as_json(each, options) for each in chosen]})
            else:
                _show(chosen)
            return 0
        place = {"copy": given["copy"], "in_place": options.in_place}
        with recorded(opened, "restore", reason=given["reason"], begins=True, **place) as record:
            reader, chosen = _chosen(opened, given, options)
            record.note(snapshot=reader.summary.id, databases=len(chosen), tables=len(options.tables))
            if options.in_place:
                confirm(opened, lambda: _show(chosen), unasked=given["yes"])
            done = list(restore_databases(opened, reader, chosen, options))
            errors = [each.error for each in done if each.error]
            code = max((error.exit_code for error in errors), default=3 if listener.warnings else 0)
            code = record.ended(code, failed_databases=len(errors))
    _end(reader.summary.id, done, options, listener, as_json=given["as_json"])
    return code


def _chosen(
    opened: Session, given: Mapping[str, Any], options: DatabaseOptions
) -> tuple[SnapshotReader, Sequence[Chosen]]:
    reader = opened.snapshot(Place.parse(given["snapshot"]).snapshot, moment(opened, given["at"]))
    return reader, choose(reader, options)


def _end(
    identity: str, done: Sequence[DatabaseRestored], options: DatabaseOptions, listener: Listener, *, as_json: bool
) -> None:
    output.warnings(listener.warnings)
    if as_json:
        found = [
            _as_json(each.chosen, options) | {"seconds": round(each.seconds, 3), "error": _error(each.error)}
            for each in done
        ]
        warnings = [output.warning_json(warning) for warning in listener.warnings]
        output.emit({"snapshot": identity, "databases": found, "warnings": warnings})
    else:
        for each in done:
            _print(each, options)


def _as_json(chosen: Chosen, options: DatabaseOptions) -> dict[str, Any]:
    return {
        "source": chosen.tree.label,
        "database": chosen.name,
        "target": chosen.target,
        "tables": list(options.tables),
        "bytes": chosen.bytes,
    }


def _error(error: OpsdError | None) -> dict[str, Any] | None:
    return None if error is None else {"text": str(error), "hint": error.hint}


def _show(chosen: Sequence[Chosen]) -> None:
    output.table(_PLAN, [(each.tree.label, each.name, each.target, output.size(each.bytes)) for each in chosen])


def _print(done: DatabaseRestored, options: DatabaseOptions) -> None:
    chosen = done.chosen
    if done.error:
        output.error(done.error)
        return
    what = output.count(len(options.tables), "table") + " of " if options.tables else ""
    name = chosen.name if chosen.target == chosen.name else f"{chosen.name} as {chosen.target}"
    output.line(
        f"restored {what}{name} from {output.size(chosen.bytes)} in {output.duration(done.seconds)}; its rows were compared"
    )
