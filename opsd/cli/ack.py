"""`opsd ack`: an incident is known to somebody, and told no more until it has ended."""

from typing import Any

import click

from opsd.app.incidents import acknowledge
from opsd.app.recording import recorded
from opsd.cli import output
from opsd.cli.options import described, reason_option, session
from opsd.errors import UsageError


@described(
    "ack",
    "Acknowledge open incidents: they are told no more, but for the all-clear at their end, and at once again if one becomes critical. What nobody "
    "sees the end of, such as a unit that failed, ends with this. 'opsd alerts list' shows the keys.",
    """{"acknowledged": [key]}""",
    "opsd ack backup.overdue --reason 'disk replaced, runs again'",
    "opsd ack --all",
)
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("--all", "whole", is_flag=True, help="All that are open.")
@reason_option
def command(**given: Any) -> int:
    """Acknowledge."""
    if given["whole"] == bool(given["keys"]):
        raise UsageError("give either KEYs or --all", hint="'opsd alerts list' shows what is open")
    with session(given) as (opened, listener), recorded(opened, "ack", reason=given["reason"]) as record:
        found = acknowledge(opened, None if given["whole"] else given["keys"])
        code = record.ended(incidents=len(found))
    output.warnings(listener.warnings)
    if given["as_json"]:
        output.emit({"acknowledged": [each.key for each in found]})
    elif found:
        for each in found:
            output.line(f"acknowledged: {output.plain(each.key)}, {output.plain(each.problem.title)}")
    else:
        output.line("nothing is open")
    return code
