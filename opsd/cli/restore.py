"""`opsd restore`: give files and databases back."""

import importlib
import os
from collections.abc import Mapping
from typing import Any

import click

from opsd.app import restores
from opsd.app.recording import recorded
from opsd.app.restores import Prepared, Restored, RestoreOptions
from opsd.app.session import Session
from opsd.cli import output
from opsd.cli.options import confirm, described, moment, reading_options, reason_option, session
from opsd.errors import UsageError
from opsd.restore.browsing import Place
from opsd.restore.plan import Plan

_LISTED = 20


@described(
    "restore",
    "Give back a snapshot, or a part of it, into a fresh folder: DIR/SOURCE/PATH, or with SNAPSHOT:PATH the content of that folder. What "
    "is written is verified; a restore that was cut off goes on when the same command is given again. In place, only what differs is "
    "written, after a safety snapshot. With --database, PostgreSQL databases go back to the server of their source (else to the one of "
    "libpq's environment) and their rows are compared with the snapshot's.",
    """{"snapshot": id, "target", "written": {kind: number}, "adjusted", "unchanged", "skipped", "deleted", "bytes", "seconds",
    "resumed": bool, "warnings": [{"subject", "problem", "hint"}], "warning_count", "damaged": [{"path", "problem"}],
    "closed": [{"source", "problem", "hint"}], sources whose key domains no key at hand opens, "safety_snapshot": id or null}; with --plan {"snapshot", "target", "created": {kind: number}, "overwritten", "metadata", "unchanged", "bytes",
    "seconds", "examples": [path], "blocked": [path], "deletions": [path]}; kinds are files, folders, symlinks, fifos, devices,
    hard links, and setuid, which counts again. With --database {"snapshot": id, "databases": [{"source", "database", "target",
    "tables": [name], "bytes", "seconds", "error": {"text", "hint"} or null}], "warnings"}; with --plan without seconds and error""",
    "opsd restore latest --to /tmp/back",
    "opsd restore latest:/srv/www --to /tmp/www",
    "opsd restore latest --in-place --source www --path '*.php' --plan",
    "opsd restore latest --database shop --as shop_yesterday",
    "opsd restore latest --database shop --as drill --table public.orders",
    "opsd restore latest --repository /mnt/copy --kit --to /mnt/new",
)
@click.argument("snapshot", metavar="SNAPSHOT[:PATH]", default="latest")
@click.option("--to", "target", metavar="DIR", type=click.Path(), help="The folder to restore to: absent or empty.")
@click.option("--in-place", is_flag=True, help="Restore to where it was, below / or the folder of --to.")
@click.option("--source", "sources", multiple=True, metavar="NAME", help="Only this source; may be given again.")
@click.option(
    "--path",
    "patterns",
    multiple=True,
    metavar="PATTERN",
    help="Only what matches, as in gitignore; may be given again.",
)
@click.option(
    "--database",
    "databases",
    multiple=True,
    metavar="NAME",
    help="A PostgreSQL database, or a pattern; may be given again.",
)
@click.option("--as", "name", metavar="NAME", help="Restore the database under this name.")
@click.option("--table", "tables", multiple=True, metavar="SCHEMA.TABLE", help="Only this table; may be given again.")
@click.option("--roles", is_flag=True, help="With --database: first create the roles and tablespaces that are missing.")
@click.option("--at", metavar="TIME", help="The newest complete snapshot not after this, such as '2026-11-24 04:00'.")
@click.option(
    "--plan", "only_plan", is_flag=True, help="Say what would be written and how long it takes; change nothing."
)
@click.option("--delete", is_flag=True, help="In place: also remove what the snapshot lacks.")
@click.option(
    "--overwrite",
    type=click.Choice(["different", "quick", "never"]),
    default="different",
    show_default=True,
    help="In place: replace what differs in content, in size or time, or nothing.",
)
@click.option("--numeric-owner", is_flag=True, help="Owners by number, not by name.")
@click.option(
    "--no-safety-snapshot",
    is_flag=True,
    help="In place: do not keep what stands there now; drop a database that was replaced.",
)
@click.option("--yes", is_flag=True, help="In place: do not ask.")
@reason_option
@reading_options
def command(**given: Any) -> int:
    """Restore."""
    _refuse_nonsense(given)
    if given["databases"]:
        code: int = importlib.import_module("opsd.cli.restore_databases").run(given)
        return code
    with session(given) as (opened, listener):
        options = _options(opened, given)
        if given["only_plan"]:
            prepared = restores.prepare(opened, options)
            _show_plan(prepared, restores.plan(prepared), as_json=given["as_json"])
            output.warnings(listener.warnings)
            return 1 if prepared.closed else 0
        prepared, done, code = _restore(opened, options, given)
    output.warnings(listener.warnings)
    if given["as_json"]:
        output.emit(_as_json(prepared, done))
    else:
        _print(prepared, done)
    return code


def _restore(opened: Session, options: RestoreOptions, given: Mapping[str, Any]) -> tuple[Prepared, Restored, int]:
    """Restore, with an entry in the ledger before and after."""
    place = {"copy": given["copy"], "in_place": given["in_place"]}
    with recorded(opened, "restore", reason=given["reason"], begins=True, **place) as record:
        prepared = restores.prepare(opened, options)
        record.note(snapshot=prepared.snapshot.id)
        done = restores.give_back(
            opened,
            options,
            prepared,
            lambda plan: confirm(opened, lambda: _show_plan(prepared, plan, as_json=False), unasked=given["yes"]),
        )
        result = done.result
        code = record.ended(
            result.exit_code if result.damaged or not prepared.closed else 1,
            files=result.written.get("files", 0),
            bytes=result.size,
            deleted=result.deleted,
            damaged=len(result.damaged),
            closed_sources=len(prepared.closed),
            safety_snapshot=done.safety,
        )
    return prepared, done, code


def _refuse_nonsense(given: Mapping[str, Any]) -> None:
    alone = [name for name in ("name", "tables", "roles") if given[name]]
    if alone and not given["databases"]:
        raise UsageError(
            "--as, --table and --roles are for databases",
            hint="for example: opsd restore latest --database shop --as drill",
        )
    if given["databases"] and (given["target"] or given["patterns"] or ":" in given["snapshot"]):
        raise UsageError(
            "--database restores to a server, not to a folder", hint="to get its dump as a file, leave --database out"
        )
    if not given["target"] and not given["in_place"] and not given["databases"]:
        raise UsageError(
            "say where to: --to DIR, or --in-place", hint="for example: opsd restore latest --to /tmp/back"
        )
    if given["delete"] and not given["in_place"]:
        raise UsageError("--delete is for restores in place", hint="a fresh folder holds nothing else")
    if given["at"] and not given["snapshot"].startswith("latest"):
        raise UsageError(
            "--at chooses the snapshot itself", hint="for example: opsd restore latest --at yesterday --to /tmp/back"
        )


def _options(opened: Session, given: Mapping[str, Any]) -> RestoreOptions:
    return RestoreOptions(
        place=Place.parse(given["snapshot"]),
        before=moment(opened, given["at"]),
        sources=given["sources"],
        patterns=given["patterns"],
        target=None if given["in_place"] else given["target"],
        root=given["target"] or "/",
        delete=given["delete"],
        numeric_owner=given["numeric_owner"],
        safety=not given["no_safety_snapshot"],
        overwrite=given["overwrite"],
    )


def _counts(counts: Mapping[str, int]) -> str:
    return (
        ", ".join(output.count(number, kind.removesuffix("s"), kind) for kind, number in counts.items() if number)
        or "nothing"
    )


def _show_plan(prepared: Prepared, plan: Plan, *, as_json: bool) -> None:
    if as_json:
        numbers = ("created", "overwritten", "metadata", "unchanged")
        paths = ("examples", "blocked", "deletions")
        output.emit(
            {
                "snapshot": prepared.snapshot.id,
                "target": prepared.where,
                **{name: dict(getattr(plan, name)) for name in numbers},
                "bytes": plan.size,
                "seconds": round(plan.seconds, 3),
                **{name: [os.fsdecode(path) for path in getattr(plan, name)] for name in paths},
            }
        )
        return
    output.line(
        f"snapshot {prepared.snapshot.id[:8]} to {prepared.where}: {output.size(plan.size)} to write, about {output.duration(plan.seconds)}"
    )
    for head, counts in (
        ("new", plan.created),
        ("replaced", plan.overwritten),
        ("metadata", plan.metadata),
        ("unchanged", plan.unchanged),
    ):
        if counts:
            output.line(f"  {head:10} {_counts(counts)}")
    _list_paths("for example", plan.examples)
    _list_paths("in the way of, a folder with content", plan.blocked)
    _list_paths("deleted", plan.deletions, limit=None)


def _list_paths(head: str, paths: tuple[bytes, ...], limit: int | None = _LISTED) -> None:
    if paths:
        output.line(f"  {head}:")
    for path in paths[:limit]:
        output.line(f"    {output.quoted(path)}")
    if limit is not None and len(paths) > limit:
        output.line(f"    and {len(paths) - limit:,} more")


def _as_json(prepared: Prepared, done: Restored) -> dict[str, Any]:
    result = done.result
    names = ("adjusted", "unchanged", "skipped", "deleted")
    return {
        "snapshot": prepared.snapshot.id,
        "target": prepared.where,
        "written": dict(result.written),
        **{name: getattr(result, name) for name in names},
        "bytes": result.size,
        "seconds": round(result.seconds, 3),
        "resumed": result.resumed,
        "warnings": [output.warning_json(warning) for warning in result.warnings],
        "warning_count": result.warning_count,
        "damaged": [{"path": each.path, "problem": each.problem} for each in result.damaged],
        "closed": [
            {"source": label, "problem": each.problem, "hint": each.hint} for label, each in prepared.closed.items()
        ],
        "safety_snapshot": done.safety,
    }


def _print(prepared: Prepared, done: Restored) -> None:
    result = done.result
    for each in result.damaged[:_LISTED]:
        output.note(f"opsd: {each.path} could not be restored: {each.problem}")
    if len(result.damaged) > _LISTED:
        output.note(f"… and {len(result.damaged) - _LISTED:,} more; --json lists them all")
    output.line(
        f"restored snapshot {prepared.snapshot.id[:8]} to {prepared.where}{' (resumed)' if result.resumed else ''}"
    )
    output.line(f"  {_counts(result.written)}: {output.size(result.size)} in {output.duration(result.seconds)}")
    if prepared.closed:
        output.line(f"  NOT restored, as no key at hand opens them: {', '.join(prepared.closed)}")
    beside = {
        "unchanged": result.unchanged,
        "only metadata set": result.adjusted,
        "deleted": result.deleted,
        "left out (sockets)": result.skipped,
    }
    if any(beside.values()):
        output.line("  " + ", ".join(f"{number:,} {name}" for name, number in beside.items() if number))
    if done.safety:
        output.line(f"  what stood there is in snapshot {done.safety[:8]} (job safety)")
