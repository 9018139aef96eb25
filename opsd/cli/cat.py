"""`opsd cat`: a file of a snapshot, or what the snapshot says about its host."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import click

from opsd.cli import output
from opsd.cli.options import described, reading_options, session, snapshot_argument
from opsd.errors import UsageError
from opsd.model import EntryType
from opsd.repository.reader import SnapshotReader
from opsd.restore.browsing import Item, Place, about, content, locate, shown

output_option = click.option(
    "-o", "--output", "file", metavar="FILE", type=click.Path(), help="Write to a new FILE, not to stdout."
)


@contextmanager
def destination(file: str | None, *, as_json: bool) -> Iterator[IO[bytes]]:
    """Where content goes: stdout, or a file that was not there (private; removed again if it can't be completed).

    Raises:
        UsageError: stdout is asked for both content and JSON, or is a terminal that it would garble.
    """
    if file is None:
        if as_json:
            raise UsageError("with --json, stdout is for the answer", hint="name a file for the content: -o FILE")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            yield opened
    except BaseException:
        os.unlink(file)
        raise


@described(
    "cat",
    "Print a file of a snapshot (SNAPSHOT:PATH), or with --about what every snapshot holds besides its sources: the configuration "
    "(references, no secrets), the rescue script, the list of installed packages.",
    """{"snapshot": id, "source", "path", "bytes"}, with -o only; source and path are null with --about""",
    "opsd cat latest:/etc/fstab",
    "opsd cat latest --about configuration",
    "opsd cat 3f2a9c:/crm.db -o /tmp/crm.db --json",
)
@snapshot_argument
@click.option("--source", "sources", multiple=True, metavar="NAME", help="The source to look in.")
@click.option("--about", "part", type=click.Choice(["configuration", "rescue", "packages"]), help="Print this instead.")
@output_option
@reading_options
def command(**given: Any) -> None:
    """Print a file."""
    place = Place.parse(given["snapshot"])
    if (place.path is None) == (given["part"] is None):
        raise UsageError("name a file or --about", hint="for example: opsd cat latest:/etc/fstab")
    with session(given) as (opened, listener), destination(given["file"], as_json=given["as_json"]) as target:
        reader = opened.snapshot(place.snapshot)
        source, size = _write(reader, place, given, target)
    output.warnings(listener.warnings)
    if given["as_json"]:
        path = None if place.path is None else output.path_text(place.path)
        output.emit({"snapshot": reader.summary.id, "source": source, "path": path, "bytes": size})


def _what(item: Item | None) -> str:
    if item is None:
        return "a folder"
    leads = f" to {shown(item.entry.target)}" if item.entry.target is not None else ""
    return f"a {output.type_name(item.entry).replace('_', ' ')}{leads}"


def _write(reader: SnapshotReader, place: Place, given: dict[str, Any], target: IO[bytes]) -> tuple[str | None, int]:
    if place.path is None:
        return None, target.write(about(reader, given["part"]))
    _, item = locate(reader, place.path, given["sources"])
    if item is None or item.entry.type is not EntryType.FILE:
        raise UsageError(
            f"{shown(place.path)} is {_what(item)}, no file",
            hint="'opsd export' writes folders as tar, 'opsd restore' gives all back",
        )
    return item.source, sum(target.write(piece) for piece in content(reader, item))
