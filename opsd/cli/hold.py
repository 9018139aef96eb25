"""`opsd hold`: keep a snapshot whatever the rules say."""

from typing import Any

import click

from opsd import clock
from opsd.app.recording import recorded
from opsd.app.upkeep import hold_snapshot, release_snapshot
from opsd.cli import output
from opsd.cli.options import a_reason, described, moment, session, snapshot_argument
from opsd.errors import UsageError


@described(
    "hold",
    "Keep a snapshot until the end of a date, or for good, whatever the rules say; --release ends a hold. It binds every prune.",
    """{"snapshot": id, "held": bool, "until": time or null, "reason": text or null}""",
    "opsd hold 3f2a9c --until 2027-06-30 --reason 'audit 2026'",
    "opsd hold 3f2a9c --release",
)
@snapshot_argument
@click.option("--until", metavar="DATE", help="The last day of the hold; without it, it never ends by itself.")
@click.option(
    "--reason", metavar="TEXT", callback=a_reason, help="Why; it is stored sealed and in the ledger, and required."
)
@click.option("--release", is_flag=True, help="End the hold.")
def command(**given: Any) -> int:
    """Hold a snapshot."""
    if given["release"] == bool(given["reason"]):
        raise UsageError(
            "give either --reason or --release", hint="for example: opsd hold 3f2a9c --reason 'audit 2026'"
        )
    until = None
    with session(given) as (opened, listener):
        zone = opened.settings.zone
        with recorded(opened, "release" if given["release"] else "hold", reason=given["reason"]) as record:
            if given["release"]:
                summary = release_snapshot(opened, given["snapshot"])
            else:
                until = moment(opened, given["until"])
                summary = hold_snapshot(opened, given["snapshot"], until, given["reason"])
            ends = None if until is None else clock.iso(until, zone)
            code = record.ended(snapshot=summary.id, until=ends)
    output.warnings(listener.warnings)
    if given["as_json"]:
        held = not given["release"]
        output.emit({"snapshot": summary.id, "held": held, "until": ends, "reason": given["reason"]})
    elif given["release"]:
        output.line(f"snapshot {summary.id[:8]} is no longer held")
    else:
        output.line(
            f"snapshot {summary.id[:8]} is held {'for good' if until is None else f'until {output.moment(until, zone)}'}"
        )
    return code
