"""The page about drills that an auditor reads.

Promise: one file of HTML 5 that needs nothing else, no script, no address of another server; whatever others have named is escaped.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import tzinfo
from html import escape
from typing import Any, Final

from opsd import clock
from opsd.cli import output
from opsd.verify.drill_record import DrillRecord

_STYLE: Final = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:62rem;padding:0 1rem;color:#222}
table{border-collapse:collapse;width:100%;margin:.6rem 0}th,td{border:1px solid #bbb;padding:.3rem .5rem;text-align:left;
vertical-align:top}th{background:#eee}.green{color:#166b2b}.red{color:#b00020}.deviating,.failed{color:#8a5a00}
h2{margin-top:2rem}section{page-break-inside:avoid}
"""


def page(records: Sequence[DrillRecord], host: str, zone: tzinfo, now: int) -> str:
    """All drills, newest first; `now` is when the page was made, in ns UTC."""
    parts = [
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>Restore drills of {escape(host)}</title>",
        f"<style>{_STYLE}</style><h1>Restore drills of {escape(host)}</h1>",
        *_overview(records, zone, now),
        *(part for record in reversed(records) for part in _drill(record, zone)),
    ]
    return "\n".join(parts) + "\n</html>"


def _overview(records: Sequence[DrillRecord], zone: tzinfo, now: int) -> Iterator[str]:
    made = clock.iso(now, zone)
    yield f"<p>Made {escape(made)}. A drill restores a whole snapshot with nothing but one copy and one key, and compares every file "
    yield "and every table with what was recorded when the snapshot was taken.</p>"
    kit = [record for record in records if record.by_kit and record.snapshot]
    used = f"{clock.iso(kit[-1].began, zone)} by {kit[-1].who}" if kit else "never in a drill"
    yield f"<p>A person last used the recovery kit: <b>{escape(used)}</b>.</p>"
    heads = ("Date", "Copy", "Key", "Who", "Snapshot", "Recovery time", "Recovery point", "Verdict")
    yield _table(heads, (_overview_row(record, zone) for record in reversed(records)))


def _overview_row(record: DrillRecord, zone: tzinfo) -> Iterator[str]:
    yield f"<a href='#{escape(record.id)}'>{escape(output.moment(record.began, zone))}</a>"
    yield escape(record.copy or "repository itself")
    yield escape(record.key)
    yield escape(record.who)
    yield escape(f"{record.snapshot[:8]} of {output.moment(record.snapshot_time, zone)}" if record.snapshot else "none")
    yield _measure(record, "recovery time", record.recovery_time)
    yield _measure(record, "recovery point", record.recovery_point)
    seeded = " (damaged on purpose)" if record.seeded else ""
    yield f"<span class='{escape(record.verdict)}'>{escape(record.verdict + seeded)}</span>"


def _measure(record: DrillRecord, name: str, seconds: float) -> str:
    if not record.snapshot:
        return ""
    target = record.targets.get(name)
    return escape(output.duration(seconds) + (f" (target {output.duration(target)})" if target else ""))


def _drill(record: DrillRecord, zone: tzinfo) -> Iterator[str]:
    yield f"<section id='{escape(record.id)}'><h2>{escape(clock.iso(record.began, zone))}: "
    yield f"<span class='{escape(record.verdict)}'>{escape(record.verdict)}</span></h2>"
    place = f"{record.copy}, {record.place}" if record.copy else f"the repository itself, {record.place}"
    yield f"<p>From {escape(place)}; by {escape(record.who)} on {escape(record.host)} with opsd {escape(record.version)}; "
    yield f"opened by {escape(record.key)}; ended {escape(clock.iso(record.ended, zone))}. Drill {escape(record.id)}.</p>"
    if record.snapshot:
        yield f"<p>Snapshot {escape(record.snapshot)}, taken {escape(clock.iso(record.snapshot_time, zone))}.</p>"
    if record.error:
        yield f"<p class='red'>Ended early: {escape(str(record.error['text']))}</p>"
    yield from _deviations(record)
    yield from _details(record)
    yield "</section>"


def _details(record: DrillRecord) -> Iterator[str]:
    names = ("label", "kind", "files", "size", "databases", "rows")
    back = ([escape(_shown(each[name])) for name in names] for each in record.sources)
    yield from _named("Came back", ("Source", "Kind", "Files", "Bytes", "Databases", "Rows"), back)
    checks = (
        (each["name"], "passed" if each["passed"] else str(each["problem"]), output.duration(each["seconds"]))
        for each in record.checks
    )
    yield from _named("Checks of the site", ("Check", "Outcome", "Time"), (map(escape, each) for each in checks))
    faults = (
        (each["kind"], f"{each['source']}: {each['subject']}", "yes" if each["found"] else "NO")
        for each in record.faults
    )
    yield from _named("Damaged on purpose", ("What", "Where", "Found"), (map(escape, each) for each in faults))
    stages = ([escape(name), escape(output.duration(seconds))] for name, seconds in record.stages)
    yield from _named("Stages", ("Stage", "Time"), stages)
    yield from _named("Notices", ("Notice",), ([escape(text)] for text in record.notices))


def _deviations(record: DrillRecord) -> Iterator[str]:
    if not record.deviation_count:
        yield "" if record.error else "<p>No deviations: all came back as it was recorded.</p>"
        return
    title = f"Deviations ({record.deviation_count:,})"
    rows = (
        [
            escape(each["severity"]),
            escape(each["source"]),
            escape(output.plain(each["subject"])),
            escape(each["problem"]),
        ]
        for each in record.deviations
    )
    yield from _named(title, ("Severity", "Source", "What", "Problem"), rows)
    left = record.deviation_count - len(record.deviations)
    if left:
        yield f"<p>… and {left:,} more.</p>"


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _named(title: str, heads: Sequence[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """A table with a title; nothing where it has no rows."""
    found = [list(row) for row in rows]
    if found:
        yield f"<h3>{escape(title)}</h3>"
        yield _table(heads, found)


def _table(heads: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """Cells of rows are HTML already."""
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
