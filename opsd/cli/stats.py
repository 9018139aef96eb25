"""`opsd stats`: how much is stored."""

from typing import Any

from opsd import clock
from opsd.app.upkeep import stats
from opsd.cli import output
from opsd.cli.options import access_options, described, session
from opsd.cli.output import Column

_COLUMNS = (Column("OBJECTS"), Column("NUMBER", right=True), Column("SIZE", right=True))


@described(
    "stats",
    "Tell how much is stored, by kind of object, and what it would take without deduplication and compression.",
    """{"repository": id, "created", "hosts": [text], "snapshots": number, "marked": number, "stored_bytes", "latest_bytes",
    "all_bytes", "objects": {kind: {"count", "bytes"}}}; latest_bytes: what restoring the latest snapshot writes,
    all_bytes: the sum of that over all snapshots""",
    "opsd stats",
    "opsd stats --json",
)
@access_options
def command(**given: Any) -> None:
    """Tell how much is stored."""
    with session(given) as (opened, listener):
        found = stats(opened)
        zone = opened.settings.zone
    output.warnings(listener.warnings)
    if given["as_json"]:
        output.emit(
            {
                "repository": found.repository,
                "created": clock.iso(found.created, zone),
                "hosts": list(found.hosts),
                "snapshots": found.snapshots,
                "marked": found.marked,
                "stored_bytes": found.stored_bytes,
                "latest_bytes": found.latest_bytes,
                "all_bytes": found.all_bytes,
                "objects": {kind: {"count": count, "bytes": size} for kind, count, size in found.objects},
            }
        )
        return
    output.line(f"repository {found.repository[:16]}, created {output.moment(found.created, zone)}")
    marked = f", {found.marked} of them marked by prune" if found.marked else ""
    whose = f" of {', '.join(found.hosts)}{marked}" if found.hosts else ""
    output.line(f"{output.count(found.snapshots, 'snapshot')}{whose}")
    output.table(_COLUMNS, [(kind, f"{count:,}", output.size(size)) for kind, count, size in found.objects])
    latest = f"; the latest snapshot restores to {output.size(found.latest_bytes)}" if found.latest_bytes else ""
    output.line(f"stored {output.size(found.stored_bytes)}{latest}")
    if found.all_bytes and found.stored_bytes:
        output.line(
            f"all snapshots together hold {output.size(found.all_bytes)}, {found.all_bytes / found.stored_bytes:.1f} times what is stored"
        )
