"""`opsd diff`: what changed between two snapshots."""

from collections.abc import Sequence
from typing import Any

import click

from opsd.cli import output
from opsd.cli.options import described, reading_options, session
from opsd.errors import SnapshotUnknown, UsageError
from opsd.repository.domains import Closed
from opsd.repository.reader import SnapshotReader
from opsd.restore.browsing import clean_path, locate
from opsd.restore.difference import Change, difference

_SIGNS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow"), "metadata": ("m", None)}


@described(
    "diff",
    "Tell what changed from snapshot OLD to snapshot NEW, below PATH or everywhere: + added, - removed, ~ changed, m only metadata.",
    """{"old": id, "new": id, "changes": [{"change": "added"|"removed"|"changed"|"metadata", "source", "path", "type",
    "bytes_before", "bytes_after"}], "counts": {"added", "removed", "changed", "metadata"}}; bytes null where it was not""",
    "opsd diff 3f2a9c latest",
    "opsd diff 3f2a9c latest /etc --json",
)
@click.argument("old")
@click.argument("new")
@click.argument("path", required=False)
@click.option("--source", "sources", multiple=True, metavar="NAME", help="Only this source; may be given again.")
@reading_options
def command(**given: Any) -> int:
    """Tell what changed between two snapshots."""
    under = clean_path(given["path"]) if given["path"] else b"/"
    counts = dict.fromkeys(_SIGNS, 0)
    changes: list[dict[str, Any]] = []
    with session(given) as (opened, listener):
        repository = opened.open(reader=True)
        catalog = repository.catalog()
        old, new = (repository.reader(repository.find(given[name]), catalog) for name in ("old", "new"))
        closed: dict[str, Closed] = {}
        if under != b"/" or given["sources"]:
            _refuse_unknown((old, new), under, given["sources"])
        else:
            closed = {**old.closed(), **new.closed()}
        for label, each in closed.items():
            opened.reporter.warn(each.warning(f"source {label}"))
        for change in difference(old, new, under, given["sources"]):
            if change.source in closed:
                continue  # Open in one of the two, it would seem to be all new, or gone.
            counts[change.kind] += 1
            if given["as_json"]:
                changes.append(_as_json(change))
            else:
                _print(change)
    output.warnings(listener.warnings)
    if given["as_json"]:
        output.emit({"old": old.summary.id, "new": new.summary.id, "changes": changes, "counts": counts})
    else:
        output.line(", ".join(f"{number:,} {kind}" for kind, number in counts.items()))
    return 3 if closed else 0


def _refuse_unknown(readers: Sequence[SnapshotReader], under: bytes, sources: tuple[str, ...]) -> None:
    """A slip of the pen must not look as if nothing had changed.

    Raises:
        SnapshotUnknown: no snapshot has that path, or that source.
    """
    unknown = []
    for reader in readers:
        try:
            locate(reader, under, sources)
        except UsageError:
            return  # Several sources have it.
        except SnapshotUnknown as error:
            unknown.append(error)
    if len(unknown) == len(readers):
        raise unknown[-1]


def _as_json(change: Change) -> dict[str, Any]:
    entry = change.after or change.before
    return {
        "change": change.kind,
        "source": change.source,
        "path": output.path_text(change.path),
        "type": output.type_name(entry) if entry else None,
        "bytes_before": change.before.size if change.before else None,
        "bytes_after": change.after.size if change.after else None,
    }


def _print(change: Change) -> None:
    sign, colour = _SIGNS[change.kind]
    grown = ""
    if change.kind == "changed" and change.before and change.after and change.before.size != change.after.size:
        grown = f"  ({output.size(change.before.size)} to {output.size(change.after.size)})"
    output.line(f"{output.paint(sign, colour)} {change.source}:{output.quoted(change.path)}{grown}")
