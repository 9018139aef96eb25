"""`opsd snapshots`: what there is to restore from."""

from collections.abc import Sequence
from datetime import tzinfo
from itertools import groupby
from typing import Any

import click

from opsd import clock
from opsd.cli import output
from opsd.cli.options import described, reading_options, session
from opsd.cli.output import Column
from opsd.model import Outcome, SnapshotSummary

_COLUMNS = (
    Column("SNAPSHOT"),
    Column("TAKEN"),
    Column("JOB"),
    Column("RESULT"),
    Column("SIZE", right=True),
    Column("ADDED", right=True),
    Column("SOURCES", elastic=True),
)


def as_json(summary: SnapshotSummary, zone: tzinfo) -> dict[str, Any]:
    """A snapshot in JSON."""
    return {
        "id": summary.id,
        "time": clock.iso(summary.started, zone),
        "ended": clock.iso(summary.ended, zone),
        "host": summary.host,
        "job": summary.job,
        "tags": list(summary.tags),
        "complete": summary.complete,
        "marked": summary.marked,
        "sources": [
            {
                "name": source.label,
                "kind": source.kind,
                "outcome": str(source.outcome),
                "files": source.files,
                "bytes": source.bytes,
                "added_bytes": source.added_bytes,
                "warnings": source.warnings,
            }
            for source in summary.sources
        ],
        "files": summary.files,
        "bytes": summary.bytes,
        "added_bytes": summary.added_bytes,
        "version": summary.version,
    }


def outcome_of(summary: SnapshotSummary) -> Outcome:
    """The worst of a snapshot's sources; failed if the run was."""
    if not summary.complete:
        return Outcome.FAILED
    return max((source.outcome for source in summary.sources), key=list(Outcome).index, default=Outcome.COMPLETE)


@described(
    "snapshots",
    "List the snapshots, oldest first. RESULT is complete, warnings or failed (a source of it failed; it stands after the name).",
    """[{"id", "time", "ended", "host", "job", "tags": [text], "complete": bool, "marked": bool,
    "sources": [{"name", "kind", "outcome": "complete"|"warnings"|"failed", "files", "bytes", "added_bytes", "warnings"}],
    "files", "bytes", "added_bytes", "version"}], oldest first; times ISO 8601 with offset""",
    "opsd snapshots",
    "opsd snapshots --all --json",
    "opsd snapshots --repository /mnt/copy --kit",
)
@click.option("--all", "marked", is_flag=True, help="Also those that prune has marked and will remove.")
@click.option("--host", metavar="NAME", help="Only those of one host.")
@click.option("--job", metavar="NAME", help="Only those of one job: all, part or safety.")
@reading_options
def command(**given: Any) -> None:
    """List the snapshots."""
    with session(given) as (opened, listener):
        zone = opened.settings.zone
        found = [
            each
            for each in opened.open().snapshots(marked=given["marked"])
            if given["host"] in {None, each.host} and given["job"] in {None, each.job}
        ]
    output.warnings(listener.warnings)
    if given["as_json"]:
        output.emit([as_json(each, zone) for each in found])
    elif found:
        _print(found, zone)
    else:
        output.line(_none(given))


def _none(given: dict[str, Any]) -> str:
    asked = " and ".join(f"{name} {given[name]}" for name in ("host", "job") if given[name])
    if asked:
        return f"no snapshot of {asked}"
    return "no snapshots yet: " + ("'opsd copy' brings them" if given["copy"] else "'opsd backup' takes one")


def _print(found: Sequence[SnapshotSummary], zone: tzinfo) -> None:
    hosts = sorted({each.host for each in found})
    for host, each in groupby(sorted(found, key=lambda one: one.host), key=lambda one: one.host):
        if len(hosts) > 1:
            output.line(output.paint(f"{host}:", None, bold=True))
        output.table(_COLUMNS, [_row(summary, zone) for summary in each])


def _row(summary: SnapshotSummary, zone: tzinfo) -> tuple[str, ...]:
    ended = outcome_of(summary)
    failed = {source.label for source in summary.sources if source.outcome is Outcome.FAILED}
    first = sorted(summary.sources, key=lambda each: each.label not in failed)
    names = ", ".join(each.label + (" failed" if each.label in failed else "") for each in first)
    return (
        summary.id[:8],
        output.moment(summary.started, zone),
        summary.job,
        "marked" if summary.marked else output.outcome(ended),
        output.size(summary.bytes),
        output.size(summary.added_bytes),
        names,
    )
