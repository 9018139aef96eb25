"""`opsd ls`: what a snapshot holds."""

import os
from collections.abc import Iterator
from datetime import tzinfo
from itertools import chain, groupby
from typing import Any

import click

from opsd import clock
from opsd.cli import output
from opsd.cli.options import described, reading_options, session, snapshot_argument
from opsd.cli.output import Column
from opsd.model import EntryType
from opsd.restore.browsing import Item, Place, chosen_trees, left_out, listing, roots, walk

_COLUMNS = (
    Column("MODE"),
    Column("OWNER", elastic=True),
    Column("SIZE", right=True),
    Column("CHANGED"),
    Column("NAME"),
)


def as_json(item: Item, zone: tzinfo) -> dict[str, Any]:
    """An entry in JSON."""
    entry = item.entry
    return {
        "source": item.source,
        "path": output.path_text(item.path),
        "type": output.type_name(entry),
        "mode": f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "owner": None if item.owner is None else os.fsdecode(item.owner),
        "group": None if item.group is None else os.fsdecode(item.group),
        "mtime": clock.iso(entry.mtime, zone),
        "bytes": entry.size,
        "target": None if entry.target is None else output.path_text(entry.target),
        "changed": entry.changed,
    }


@described(
    "ls",
    "List a folder of a snapshot, or, without a path, what each source of it begins with. SNAPSHOT is an id, the beginning of one, "
    "or 'latest'; SNAPSHOT:PATH names a folder or file in it.",
    """[{"source", "path", "type": "file"|"folder"|"symlink"|"fifo"|"socket"|"character_device"|"block_device", "mode": "0644",
    "uid", "gid", "owner", "group", "mtime", "bytes", "target", "changed": bool}]; bytes of a path that are no UTF-8
    stand as \\udc80 to \\udcff (Python's surrogateescape)""",
    "opsd ls latest",
    "opsd ls latest:/srv/www",
    "opsd ls 3f2a9c:/etc --recursive --json",
)
@snapshot_argument
@click.option("-R", "--recursive", is_flag=True, help="Also what is below.")
@click.option("--source", "sources", multiple=True, metavar="NAME", help="Only this source; may be given again.")
@reading_options
def command(**given: Any) -> int:
    """List what a snapshot holds."""
    place = Place.parse(given["snapshot"])
    with session(given) as (opened, listener):
        zone = opened.settings.zone
        reader = opened.snapshot(place.snapshot)
        closed = left_out(reader, given["sources"], listener) if place.path is None else ()
        if place.path is None and given["recursive"]:
            found: Iterator[Item] = chain.from_iterable(
                walk(reader, tree) for tree in chosen_trees(reader, given["sources"])
            )
        elif place.path is None:
            found = roots(reader, given["sources"])
        else:
            found = listing(reader, place.path, given["sources"], recursive=given["recursive"])
        if given["as_json"]:
            output.emit([as_json(item, zone) for item in found])
        else:
            whole = place.path is None or given["recursive"]
            for source, items in groupby(found, key=lambda item: item.source):
                if place.path is None:
                    output.line(output.paint(f"{source}:", None, bold=True))
                output.table(_COLUMNS, [_row(item, zone, whole=whole) for item in items])
    output.warnings(listener.warnings)
    return 3 if closed else 0


def _row(item: Item, zone: tzinfo, *, whole: bool) -> tuple[str, ...]:
    entry = item.entry
    name = output.quoted(item.path if whole else entry.name)
    if entry.target is not None:
        name += f" -> {output.quoted(entry.target)}"
    owner = output.quoted(item.owner) if item.owner else str(entry.uid)
    group = output.quoted(item.group) if item.group else str(entry.gid)
    size = output.size(entry.size) if entry.type is EntryType.FILE else ""
    return output.mode(entry), f"{owner}:{group}", size, output.moment(entry.mtime, zone), name
