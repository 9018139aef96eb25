"""`opsd alerts`: who is told when something is wrong, and what is open."""

from collections.abc import Iterator, Sequence
from datetime import tzinfo
from pathlib import Path
from typing import Any

import click

from opsd import clock
from opsd.app import incidents
from opsd.app.alerting import folder_in_memory, places
from opsd.app.incidents import Listed, Listing, Teller
from opsd.cli import output
from opsd.cli.main import HELP
from opsd.cli.options import configuration_path, described, session
from opsd.cli.output import Column
from opsd.cli.progress import listening
from opsd.errors import StorageError
from opsd.monitor.alert_options import address_text
from opsd.monitor.problems import Severity
from opsd.monitor.spool import Place, Trouble

_RESULTS = (
    Column("CONTACT"),
    Column("URL", right=True),
    Column("ADDRESS", elastic=True),
    Column("TIME", right=True),
    Column("RESULT"),
)


@click.group(
    "alerts",
    context_settings=HELP,
    help="Who is told when something is wrong, and what is open.\n\n"
    "\b\nExamples:\n  opsd alerts test\n  opsd alerts list\n  opsd ack --all",
)
def command() -> None:
    """Who is told, and of what."""


@described(
    "test",
    "Send a test message to every URL of every contact, and tell which arrived where it was sent to; exits with 1 if one did not.",
    """{"results": [{"contact", "url": number from 1, "address": text, "sent": bool, "error": text or null, "seconds"}]}""",
    "opsd alerts test",
    "opsd alerts test --contact anna --json",
)
@click.option("--contact", metavar="NAME", help="Only this one.")
def test(**given: Any) -> int:
    """Send a test."""
    from opsd.app.delivery import Result, send_test  # noqa: PLC0415 - apprise: 0.3 s that only those who send pay

    with session(given) as (opened, listener):
        found = send_test(opened, given["contact"])
    output.warnings(listener.warnings)

    def as_json(each: Result) -> dict[str, Any]:
        contact, number = each.place
        told = {"contact": contact, "url": number, "address": each.address}
        return told | {"sent": not each.error, "error": each.error or None, "seconds": round(each.seconds, 3)}

    if given["as_json"]:
        output.emit({"results": [as_json(each) for each in found]})
    else:
        _complain(found)
        output.table(
            _RESULTS,
            [
                (
                    each.place[0],
                    str(each.place[1]),
                    each.address,
                    output.duration(each.seconds),
                    output.paint("failed", "red") if each.error else output.paint("sent", "green"),
                )
                for each in found
            ],
        )
    return 1 if any(each.error for each in found) else 0


def _complain(results: Sequence[Any]) -> None:
    for each in results:
        if each.error:
            contact, number = each.place
            output.problem(f"{contact}, URL {number} ({each.address}): {each.error}")


@described(
    "list",
    "List the open incidents: who was told of each, and for whom a message still waits.",
    """{"incidents": [{"key", "severity": "warning"|"critical", "title", "next_step", "since", "opened", "acknowledged": time or null, "away": time or null,
    "told": [{"contact", "url", "time"}], "waiting": [{"contact", "url"}]}],
    "unreachable": [{"contact", "url", "address", "since", "failures", "next_try", "error"}]}""",
    "opsd alerts list",
    "opsd alerts list --json",
)
def list_(**given: Any) -> None:
    """List what is open."""
    with session(given) as (opened, listener):
        found = incidents.listing(opened)
        zone = opened.settings.zone
        addresses = {place: address_text(each) for place, each in places(opened.settings.alerts).items()}
    output.warnings(listener.warnings)
    if given["as_json"]:
        output.emit(
            {
                "incidents": [_incident_json(each, zone) for each in found.incidents],
                "unreachable": [_trouble_json(each, addresses[each.place], zone) for each in found.troubles],
            }
        )
    else:
        _print(found, addresses, zone)


def _incident_json(listed: Listed, zone: tzinfo) -> dict[str, Any]:
    incident, problem = listed.incident, listed.incident.problem
    known = incident.acknowledged
    told = [(place, note.sent) for place, note in listed.notes if note.sent is not None]
    return {
        "key": incident.key,
        "severity": str(problem.severity),
        "title": problem.title,
        "next_step": problem.next_step,
        "since": clock.iso(problem.since, zone),
        "opened": clock.iso(incident.opened, zone),
        "acknowledged": None if known is None else clock.iso(known, zone),
        "away": None if incident.gone is None else clock.iso(incident.gone, zone),
        "told": [{"contact": name, "url": number, "time": clock.iso(sent, zone)} for (name, number), sent in told],
        "waiting": [
            {"contact": name, "url": number} for (name, number), _ in (pair for pair in listed.notes if pair[1].waits)
        ],
    }


def _trouble_json(trouble: Trouble, address: str, zone: tzinfo) -> dict[str, Any]:
    contact, number = trouble.place
    return {
        "contact": contact,
        "url": number,
        "address": address,
        "since": clock.iso(trouble.since, zone),
        "failures": trouble.failures,
        "next_try": clock.iso(trouble.next_try, zone),
        "error": trouble.error,
    }


def _print(found: Listing, addresses: dict[Place, str], zone: tzinfo) -> None:
    for each in found.troubles:
        contact, number = each.place
        since, again = output.moment(each.since, zone), output.moment(each.next_try, zone)
        output.problem(
            f"{contact}, URL {number} ({addresses[each.place]}) can't be reached since {since}: {each.error}",
            f"tried again at {again}; or run 'opsd alerts test --contact {contact}'",
        )
    for listed in found.incidents:
        for line in _lines(listed, zone):
            output.line(line)
    if not found.incidents:
        output.line("nothing is open")


def _lines(listed: Listed, zone: tzinfo) -> Iterator[str]:
    incident, problem = listed.incident, listed.incident.problem
    state = "open" if incident.acknowledged is None else "acknowledged"
    colour = "red" if problem.severity is Severity.CRITICAL else "yellow"
    yield output.paint(f"{problem.severity}: {problem.title}", colour)
    yield f"  {state}, since {output.moment(problem.since, zone)}"
    if incident.gone is not None:
        away = output.moment(incident.gone, zone)
        yield f"  away since {away}; the all-clear comes once it stayed away for 5 minutes"
    yield f"  next: {problem.next_step}"
    told = sorted({place[0] for place, note in listed.notes if note.sent is not None})
    waits = sorted({place[0] for place, note in listed.notes if note.waits})
    yield f"  told: {', '.join(told) or 'nobody'}" + (f"; waits for: {', '.join(waits)}" if waits else "")
    yield f"  key: {incident.key}"


@described(
    "deliver",
    "Send what waits; the daemon calls this. Exits with 3 if somebody could not be reached, which is tried again later.",
    """{"sent": number, "failed": number}""",
    "opsd alerts deliver",
)
@click.option(
    "--spool", metavar="FOLDER", type=click.Path(path_type=Path), help="Where it stands, if not in the state folder."
)
def deliver(**given: Any) -> int:
    """Send what waits."""
    with session(given) as (opened, listener):
        sent, failed = _deliver(incidents.aside(opened, given["spool"]) if given["spool"] else opened)
    output.warnings(listener.warnings)
    if given["as_json"]:
        output.emit({"sent": sent, "failed": failed})
    return 3 if failed else 0


def _deliver(opened: Teller) -> tuple[int, int]:
    """How many messages arrived, and how many did not, which is said."""
    from opsd.app.delivery import deliver as deliver_all  # noqa: PLC0415 - as above

    found = deliver_all(opened)
    _complain(found)
    failed = sum(bool(each.error) for each in found)
    return len(found) - failed, failed


@described(
    "failed-unit",
    "Tell at once that a unit of systemd failed, also where the daemon is dead: for a unit that OnFailure= names. It is told again until "
    "'opsd ack'. Exits with 1 if nobody could be told.",
    """{"sent": number, "failed": number}""",
    "opsd alerts failed-unit opsd-daemon.service",
)
@click.argument("unit", metavar="UNIT")
def failed_unit(**given: Any) -> int:
    """Tell of a unit."""
    with listening(quiet=given["as_json"]) as listener:
        found = incidents.teller(configuration_path(), listener)
        if found.mistakes:
            output.error(found.mistakes)
        try:
            sent, failed, was_told = _tell_of(found, given["unit"])
        except StorageError as error:
            output.error(error)
            with folder_in_memory() as folder:
                sent, failed, was_told = _tell_of(incidents.aside(found, Path(folder)), given["unit"])
    output.warnings(listener.warnings)
    if given["as_json"]:
        output.emit({"sent": sent, "failed": failed})
    if was_told:
        return 0
    output.problem("nobody could be told", "see 'opsd alerts list', and alerts.contacts in the configuration")
    return 1


def _tell_of(found: Teller, unit: str) -> tuple[int, int, bool]:
    """How many messages arrived and how many did not; and whether anybody was told of this unit, now or before."""
    key = incidents.report_failed_unit(found, unit)
    sent, failed = _deliver(found)
    notes = [note for each in incidents.listing(found).incidents if each.incident.key == key for _, note in each.notes]
    return sent, failed, any(note.sent is not None for note in notes)


deliver.hidden = True
for each in (test, list_, deliver, failed_unit):
    command.add_command(each)
