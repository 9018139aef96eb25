"""`opsd pause`: keep the daemon from starting anything for a while, and say why."""

from typing import Any

import click

from opsd import clock
from opsd.app.pausing import end_of, pause, pause_of
from opsd.app.recording import recorded
from opsd.app.session import Session
from opsd.cli import output
from opsd.cli.options import a_reason, described, session
from opsd.errors import UsageError
from opsd.monitor.health import Pause
from opsd.monitor.state import State


@described(
    "pause",
    "Keep 'opsd daemon' from starting jobs until a time; what runs goes on, and what a person starts does as well. It ends by itself, and what was due meanwhile is caught "
    "up with once. 'opsd status' shows it, the ledger keeps it, and what is overdue stays overdue. Without options: show the pause that holds.",
    """{"until": time or null, "reason": text or null}""",
    "opsd pause --until '2026-11-27 08:00' --reason 'moving the database'",
    "opsd pause --until 08:00 --reason 'moving the database'",
    "opsd pause --end",
    "opsd pause --json",
)
@click.option(
    "--until", metavar="TIME", help="When it ends, such as '2026-11-27 08:00' or 08:00; a day ends at midnight."
)
@click.option("--end", is_flag=True, help="End it now.")
@click.option("--reason", metavar="TEXT", callback=a_reason, help="Why; required to begin one, kept in the ledger.")
def command(**given: Any) -> int:
    """Begin, end or show a pause."""
    _refuse_nonsense(given)
    with session(given) as (opened, listener), State.open(opened.settings.state, opened.clock.now()) as state:
        now = opened.clock.now()
        code = _change(opened, state, given, now) if given["until"] is not None or given["end"] else 0
        held, zone = pause_of(state, now), opened.settings.zone
    output.warnings(listener.warnings)
    if given["as_json"]:
        until = clock.iso(held.until, zone) if held else None
        output.emit({"until": until, "reason": held.reason if held else None})
    elif held:
        output.line(f"paused until {output.moment(held.until, zone)}: {held.reason}")
    else:
        output.line("not paused")
    return code


def _refuse_nonsense(given: dict[str, Any]) -> None:
    if given["until"] is not None and given["end"]:
        raise UsageError("give one of --until and --end")
    if given["reason"] and given["until"] is None and not given["end"]:
        raise UsageError("a reason alone is no pause", hint="say until when: --until '2026-11-27 08:00'")
    if given["until"] is not None and not given["reason"]:
        raise UsageError("a pause needs a reason", hint="for example: --reason 'moving the database'")


def _change(opened: Session, state: State, given: dict[str, Any], now: int) -> int:
    until = None if given["end"] else end_of(given["until"], opened.settings.zone, now)
    with recorded(opened, "pause" if until else "pause-end", reason=given["reason"]) as record:
        pause(state, Pause(until=until, reason=given["reason"]) if until else None, now)
        return record.ended(until=clock.iso(until) if until else None)
