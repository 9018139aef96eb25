"""`opsd export`: a snapshot, or a part of it, as a tar file."""

import sys
from typing import IO, Any

import click

from opsd.app.recording import recorded
from opsd.cli import output
from opsd.cli.cat import destination, output_option
from opsd.cli.options import described, reading_options, session, snapshot_argument
from opsd.errors import UsageError
from opsd.events import Reporter, Total
from opsd.model import EntryType
from opsd.repository.reader import SnapshotReader
from opsd.restore.archive import Archive, Exported, Part
from opsd.restore.browsing import Place, chosen_trees, left_out, locate


@described(
    "export",
    "Write a snapshot as an uncompressed tar file (POSIX pax: names as bytes, owners, modes, times to the nanosecond, extended "
    "attributes) to stdout: SOURCE/PATH for each entry, or with SNAPSHOT:PATH the content of that folder.",
    """{"snapshot": id, "entries", "files", "bytes", "warnings": [{"subject", "problem", "hint"}]}, with -o only""",
    "opsd export latest > latest.tar",
    "opsd export latest:/srv/www | tar -C /tmp/www -xpf -",
    "opsd export latest --source www -o www.tar --json",
)
@snapshot_argument
@click.option("--source", "sources", multiple=True, metavar="NAME", help="Only this source; may be given again.")
@output_option
@reading_options
def command(**given: Any) -> int:
    """Write a tar file."""
    place = Place.parse(given["snapshot"])
    if given["file"] is None and not given["as_json"] and sys.stdout.isatty():
        raise UsageError(
            "a tar file would garble the terminal",
            hint="send it on: opsd export latest | tar -t, or name a file with -o",
        )
    with (
        session(given) as (opened, listener),
        destination(given["file"], as_json=given["as_json"]) as target,
        recorded(opened, "export", copy=given["copy"]) as record,
    ):
        reader = opened.snapshot(place.snapshot)
        record.note(snapshot=reader.summary.id)
        closed = left_out(reader, given["sources"], listener) if place.path is None else ()
        done = _write(reader, place, given["sources"], target, listener)
        code = 1 if closed else 3 if done.warnings else 0
        counts = {"entries": done.entries, "files": done.files, "bytes": done.bytes, "closed_sources": len(closed)}
        code = record.ended(code, **counts)
    output.warnings(listener.warnings)
    if given["as_json"]:
        output.emit(
            {
                "snapshot": reader.summary.id,
                "entries": done.entries,
                "files": done.files,
                "bytes": done.bytes,
                "warnings": [output.warning_json(warning) for warning in listener.warnings],
            }
        )
    return code


def _write(
    reader: SnapshotReader, place: Place, sources: tuple[str, ...], target: IO[bytes], reporter: Reporter
) -> Exported:
    archive = Archive(reader, target.write, reporter)
    if place.path is None:
        trees = chosen_trees(reader, sources)
        labels = {tree.label for tree in trees}
        reporter.stage("export", Total.of(each for each in reader.summary.sources if each.label in labels))
        return archive.write([Part(tree=tree, prefix=tree.label.encode() + b"/") for tree in trees])
    reporter.stage("export")
    tree, item = locate(reader, place.path, sources)
    if item is not None and item.entry.type is not EntryType.FOLDER:
        return archive.write([], single=item)
    return archive.write([Part(tree=tree, under=place.path)])
