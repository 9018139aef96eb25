"""`opsd find`: in which snapshots a name stands."""

from collections.abc import Collection
from datetime import tzinfo
from typing import Any

import click

from opsd import clock
from opsd.app.session import Session
from opsd.cli import output
from opsd.cli.ls import as_json
from opsd.cli.options import described, reading_options, session
from opsd.model import EntryType, SnapshotSummary
from opsd.repository.domains import Closed
from opsd.restore.browsing import Item, search


@described(
    "find",
    "Find what a PATTERN names (as in gitignore: *.conf, /etc/**/hosts) in the latest snapshot, in those named by --snapshot, or in all.",
    """[{"snapshot": id, "time", and what 'ls' has for an entry}], oldest snapshot first""",
    "opsd find '*.conf'",
    "opsd find /srv/www/index.html --all",
    "opsd find invoices --snapshot 3f2a9c --json",
)
@click.argument("pattern")
@click.option(
    "--snapshot", "snapshots", multiple=True, metavar="SNAPSHOT", help="Look in this one; may be given again."
)
@click.option("--all", "everywhere", is_flag=True, help="Look in all snapshots.")
@click.option("--source", "sources", multiple=True, metavar="NAME", help="Only this source; may be given again.")
@reading_options
def command(**given: Any) -> int:
    """Find names in snapshots."""
    found: list[dict[str, Any]] = []
    count = 0
    with session(given) as (opened, listener):
        zone = opened.settings.zone
        matches, closed = _matches(opened, given)
        for summary, item in matches:
            count += 1
            if given["as_json"]:
                found.append({"snapshot": summary.id, "time": clock.iso(summary.started, zone), **as_json(item, zone)})
            else:
                _print(summary, item, zone)
    output.warnings(listener.warnings)
    if given["as_json"]:
        output.emit(found)
    elif not count:
        output.note(f"nothing is named {given['pattern']}")
    return 3 if closed else 0


def _matches(opened: Session, given: dict[str, Any]) -> tuple[list[tuple[SnapshotSummary, Item]], Collection[str]]:
    """What fits, and the sources that could not be looked into: each is told once."""
    repository = opened.open(reader=True)
    if given["everywhere"]:
        names = [summary.id for summary in repository.snapshots()]
    else:
        names = list(given["snapshots"] or ("latest",))
    catalog = repository.catalog()
    found, closed = [], dict[str, Closed]()
    for name in names:
        reader = repository.reader(repository.find(name), catalog)
        closed |= {label: each for label, each in reader.closed().items() if label in (given["sources"] or [label])}
        labels = {tree.label for tree in reader.trees()}
        wanted = [label for label in given["sources"] if label in labels or not given["everywhere"]]
        if wanted or not given["sources"]:
            found += [(reader.summary, item) for item in search(reader, given["pattern"], wanted)]
    for label, each in closed.items():
        opened.reporter.warn(each.warning(f"source {label}"))
    return found, closed


def _print(summary: SnapshotSummary, item: Item, zone: tzinfo) -> None:
    when = output.moment(summary.started, zone)
    size = output.size(item.entry.size) if item.entry.type is EntryType.FILE else ""
    output.line(f"{summary.id[:8]}  {when}  {size:>10}  {item.source}:{output.quoted(item.path)}")
