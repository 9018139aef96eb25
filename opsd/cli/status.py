"""`opsd status`: whether the promise is kept."""

import importlib
import sys
import time
from typing import Any, Final

import click

from opsd.app.session import Session
from opsd.app.status import status
from opsd.cli import output
from opsd.cli.options import described, session
from opsd.cli.status_json import as_json
from opsd.cli.status_screen import screen
from opsd.errors import UsageError

#: How long a place may take to answer; after that what was seen of it before is shown.
_PATIENCE: Final = 5.0
_REFRESH: Final = 2.0
_AFRESH: Final = 60.0


@described(
    "status",
    "Tell whether the promise is kept: to what moment each source can be restored, from which places, and how that was proved; what runs, what is next, "
    "what is wrong and what to do. It looks at what is really there, whether a daemon ever ran or not; a place that does not answer in 5 s is shown as it "
    "was before. Ends with 5 when anything is overdue, else with 4 when integrity is in question (snapshots are gone, a drill was red), else with 3 when "
    "anything is wrong. With --fleet: tell of every host in the repository, in each copy and in each pull whether its next complete snapshot came when its "
    "last one promised it, for which no key is needed; that ends with 5 where one is late, has no complete snapshot or dates them in the future, and where a "
    "copy was never filled.",
    """{"kept": bool, "overdue": bool, "exit_code", "host", "time", "pause": {"until", "reason"} or null,
    "problems": [{"key", "severity": "critical"|"warning", "title", "next_step", "since"}], the worst first,
    "sources": [{"name", "host": bool (of a pull, the host that wrote it), "outcome": "complete"|"warnings"|"failed"|null, "files", "bytes", "warnings",
    "restorable_to", "proof": "restored"|"verified"|null, "proved_to", "places": [{"place", "stored", "verified", "restored"}]}],
    "places": [{"name", "kind": "repository"|"copy"|"pull", "looked", "error", "hint", "snapshots", "newest", "missing", "lost", "damaged", "bytes", "free",
    "read_share", "vouched_share"}], "jobs": [{"job", "last_attempt", "last_outcome", "last_success", "next", "after", "deadline", "overdue": bool,
    "running": {"since", "stage", "files", "bytes"} or null}], "tiers": {rule: {"kept", "required"}}, "drill": {"time", "verdict", "green"},
    "kit_used", "uncovered": {"databases", "folders"}, "warnings"}; times ISO 8601 or null for never; with --fleet {"hosts": [{"place", "kind":
    "repository"|"copy"|"pull", "host", "newest", "next_due", "late_seconds", "state": "in time"|"late"|"no complete snapshot"|"dated in the
    future"|"states no schedule"|"never filled", "error": {"text", "hint", "exit_code"} or null}], "warnings"}; of a place that can't be read all but the
    error is null""",
    "opsd status",
    "opsd status --json",
    "opsd status --fleet",
    "opsd status --fleet --json",
)
@click.option("--watch", is_flag=True, help="Show it again every 2 seconds, until Ctrl-C.")
@click.option("--fleet", "whole", is_flag=True, help="Every host in every place that the configuration names.")
def command(**given: Any) -> int:
    """Tell."""
    if given["watch"] and (given["as_json"] or given["whole"] or not sys.stdout.isatty()):
        raise UsageError("--watch goes with nothing else, and needs a terminal")
    if given["whole"]:
        code: int = importlib.import_module("opsd.cli.fleet").show(given)
        return code
    with session(given) as (opened, listener):
        if given["watch"]:
            return _watch(opened)
        found = status(opened, seconds=_PATIENCE)
        zone = opened.settings.zone
    output.warnings(listener.warnings)
    if given["as_json"]:
        warnings = [output.warning_json(warning) for warning in listener.warnings]
        output.emit(as_json(found, zone) | {"warnings": warnings})
    else:
        for each in screen(found, zone, output.height()):
            output.line(each)
    return found.health.exit_code


def _watch(opened: Session) -> int:
    """Show it until the person has seen enough."""
    from rich.console import Console  # noqa: PLC0415 - 0.2 s that only a person at a terminal pays
    from rich.live import Live  # noqa: PLC0415 - likewise
    from rich.text import Text  # noqa: PLC0415 - likewise

    zone = opened.settings.zone
    found, looked = status(opened, seconds=_PATIENCE), time.monotonic()
    with Live(console=Console(), screen=True, auto_refresh=False) as live:
        while True:
            lines = screen(found, zone, output.height())
            live.update(Text.from_ansi("\n".join(map(output.printable, lines))), refresh=True)
            time.sleep(_REFRESH)
            is_time = time.monotonic() - looked >= _AFRESH
            found = status(opened, seconds=_PATIENCE, observed=None if is_time else found.observed)
            looked = time.monotonic() if is_time else looked
