"""`opsd self-check`: the daemon's own hourly look at what is really there; `opsd status` is for people."""

from typing import Any

import click

from opsd.app.running import tracked
from opsd.app.self_check import SelfCheck, self_check
from opsd.cli import output
from opsd.cli.main import HELP
from opsd.cli.options import json_option, session


@click.command("self-check", hidden=True, context_settings=HELP)
@json_option
def command(**given: Any) -> int:
    """Look at the repository and every copy, at the state and the ledger, and remember what was found.

    Exits with 4 where snapshots are gone that no prune dropped, or the ledger was altered, with 3 where a place could not be read.
    JSON: {"places": [{"name", "error" or null, "lost": number}], "problems": [text], "warnings"}.
    """
    with session(given) as (opened, listener), tracked(opened, "self-check") as run:
        found = self_check(opened)
        code = run.ended(found.exit_code, places=len(found.observed.places), problems=len(found.problems))
    output.warnings(listener.warnings)
    if given["as_json"]:
        output.emit(_as_json(found) | {"warnings": [output.warning_json(warning) for warning in listener.warnings]})
    else:
        _print(found)
    return code


def _as_json(found: SelfCheck) -> dict[str, Any]:
    places = [
        {"name": name, "error": place.error or None, "lost": place.lost}
        for name, place in found.observed.places.items()
    ]
    return {"places": places, "problems": list(found.problems)}


def _print(found: SelfCheck) -> None:
    for name, place in found.observed.places.items():
        if place.lost:
            gone = output.count(place.lost, "snapshot")
            output.problem(f"{name}: {gone} gone, and no prune dropped them", "see 'opsd status'")
        if place.error:
            output.problem(f"{name}: {place.error}", place.hint)
    for each in found.problems:
        output.problem(f"ledger: {each}", "see 'opsd ledger verify'")
    output.line(f"looked at {output.count(len(found.observed.places), 'place')}")
