"""`opsd backup`: take a snapshot and say what it holds."""

import time
from typing import Any

import click

from opsd.app.backups import BackupRequest, back_up, preview
from opsd.app.recording import recorded
from opsd.app.session import Session
from opsd.backup.snapshot import Report
from opsd.cli import output
from opsd.cli.options import described, session
from opsd.cli.output import Column
from opsd.cli.progress import Listener
from opsd.cli.snapshots import as_json
from opsd.errors import OpsdError, TryLater
from opsd.model import Outcome, SnapshotSummary

_COLUMNS = (
    Column("SOURCE", elastic=True),
    Column("KIND"),
    Column("RESULT"),
    Column("FILES", right=True),
    Column("SIZE", right=True),
    Column("ADDED", right=True),
    Column("WARNINGS", right=True),
)
_PREVIEW = (Column("SOURCE", elastic=True), Column("KIND"), Column("FILES", right=True), Column("SIZE", right=True))
#: What was added for no source in particular; the help says what that is.
_OWN = "bookkeeping"
_EXIT = {Outcome.COMPLETE: 0, Outcome.WARNINGS: 3, Outcome.FAILED: 1}


@described(
    "backup",
    "Take a snapshot of every configured source, of those named by --source, or of PATHs. A source that fails does not stop the "
    "others; the run then exits with 1, with warnings only with 3. ADDED is what had to be stored anew, compressed; bookkeeping is "
    "what opsd needs beside the sources: indexes, the manifest, the list of packages, padding. Sources whose small pieces share a frame share its bytes too: they "
    "count for the first of them.",
    """{"snapshot": as in 'snapshots', "outcome": "complete"|"warnings"|"failed", "seconds": number,
    "failures": [{"source", "text", "hint"}], "warnings": [{"subject", "problem", "hint"}]};
    with --dry-run [{"name", "kind", "files", "bytes", "warnings"}], files and bytes null for what only reading tells""",
    "opsd backup",
    "opsd backup --source www --tag before-upgrade",
    "opsd backup /etc /srv --json",
)
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path())
@click.option("--source", "sources", multiple=True, metavar="NAME", help="Only this source; may be given again.")
@click.option("--tag", "tags", multiple=True, metavar="TEXT", help="File the snapshot under a tag; may be given again.")
@click.option(
    "--accept-shrink", is_flag=True, help="Once: a source may have lost over half of its files or bytes, or a mount."
)
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be taken in, and store nothing.")
def command(**given: Any) -> int:
    """Take a snapshot."""
    request = BackupRequest(
        sources=given["sources"], paths=given["paths"], tags=given["tags"], accept_shrink=given["accept_shrink"]
    )
    began = time.monotonic()
    with session(given) as (opened, listener):
        if given["dry_run"]:
            return _dry_run(opened, listener, request, as_json=given["as_json"])
        with recorded(opened, "backup", part=bool(request.paths or request.sources)) as record:
            report = back_up(opened, request)
            if record.run and report.failures:
                record.run.failed_sources(report.failures)
            code = record.ended(_exit_code(report, listener), **_counts(report))
        zone = opened.settings.zone
    seconds = time.monotonic() - began
    if given["as_json"]:
        output.emit(
            {
                "snapshot": as_json(report.snapshot, zone),
                "outcome": str(report.outcome),
                "seconds": round(seconds, 3),
                "failures": [_failure(label, error) for label, error in report.failures.items()],
                "warnings": [output.warning_json(warning) for warning in listener.warnings],
            }
        )
    else:
        _print(report, listener, seconds)
    return code


def _exit_code(report: Report, listener: Listener) -> int:
    if report.failures and all(isinstance(error.__cause__, TryLater) for error in report.failures.values()):
        return TryLater.exit_code
    # An 'after' hook may fail once the snapshot is complete: its outcome doesn't tell.
    return _EXIT[report.outcome] or (_EXIT[Outcome.WARNINGS] if listener.warnings else 0)


def _counts(report: Report) -> dict[str, Any]:
    """What the ledger keeps of it."""
    snapshot = report.snapshot
    return {
        "snapshot": snapshot.id,
        "job": snapshot.job,
        "sources": len(snapshot.sources),
        "failed_sources": len(report.failures),
        "files": snapshot.files,
        "bytes": snapshot.bytes,
        "added_bytes": snapshot.added_bytes,
    }


def _failure(label: str, error: OpsdError) -> dict[str, Any]:
    return {"source": label, "text": str(error), "hint": error.hint}


def _print(report: Report, listener: Listener, seconds: float) -> None:
    failed = {f"source {label}" for label in report.failures}
    output.warnings([warning for warning in listener.warnings if warning.subject not in failed])
    for error in report.failures.values():
        output.error(error)
    output.table(_COLUMNS, _rows(report.snapshot))
    ended = "" if report.snapshot.complete else ", incomplete"
    added = output.size(report.snapshot.added_bytes)
    output.line(f"snapshot {report.snapshot.id[:8]}{ended}, {added} added, in {output.duration(seconds)}")


def _rows(snapshot: SnapshotSummary) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        (
            source.label,
            source.kind,
            output.outcome(source.outcome),
            f"{source.files:,}",
            output.size(source.bytes),
            output.size(source.added_bytes),
            str(source.warnings or ""),
        )
        for source in snapshot.sources
    ]
    own = snapshot.added_bytes - sum(source.added_bytes for source in snapshot.sources)
    return [*rows, (_OWN, "", "", "", "", output.size(own), "")] if own else rows


def _dry_run(opened: Session, listener: Listener, request: BackupRequest, *, as_json: bool) -> int:
    found = list(preview(opened, request))
    if as_json:
        keys = ("name", "kind", "files", "bytes", "warnings")
        output.emit([{key: getattr(each, key) for key in keys} for each in found])
    else:
        output.warnings(listener.warnings)
        unknown = "read to know"
        output.table(
            _PREVIEW,
            [
                (
                    each.name,
                    each.kind,
                    unknown if each.files is None else f"{each.files:,}",
                    unknown if each.bytes is None else output.size(each.bytes),
                )
                for each in found
            ],
        )
    return 3 if any(each.warnings for each in found) else 0
