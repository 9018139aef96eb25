"""`opsd key domain` and `opsd key destroy`: key domains come, and can be made unreadable in every copy at once."""

from pathlib import Path
from typing import Any

import click

from opsd.app.key_domains import AddedDomain, Doomed, add_domain, destroy, find_doomed
from opsd.app.recording import recorded
from opsd.cli import output
from opsd.cli.options import a_reason, access_options, answer, asker, described, reason_option, session
from opsd.errors import UsageError


def keep_safe(name: str, folder: Path) -> None:
    """Say in plain words what hangs on a folder of slots."""
    output.lines(
        f"The keys of key domain {name} stand in {folder} and nowhere else. Without this folder all that is stored in the domain is "
        "lost: no passphrase, no kit and no copy brings it back. Keep it in at least two places, and none of them in the repository, a copy "
        "of it, or a backup."
    )


@described(
    "domain",
    "Add the key domain NAME of the configuration to the repository; what opens it as its owner, passphrase or kit, is needed this once. Its keys "
    "stand in the repository, or only in the folder that the configuration names: key_domains: {NAME: {slots: FOLDER}}. Such a domain can be destroyed.",
    """{"name", "number", "new": bool, "where": "repository"|"folder"|"unknown", "folder": path or null}""",
    "opsd key domain staff",
)
@click.argument("name")
@reason_option
@access_options
def domain(**given: Any) -> int:
    """Add a domain."""
    name = given["name"]
    with session(given) as (opened, listener), recorded(opened, "key-domain", reason=given["reason"]) as record:
        added = add_domain(opened, name)
        code = record.ended(domain=added.number, new=added.is_new)
    output.warnings(listener.warnings)
    if given["as_json"]:
        where = "repository" if added.inside else "folder" if added.folder else "unknown"
        folder = str(added.folder) if added.folder else None
        output.emit({"name": name, "number": added.number, "new": added.is_new, "where": where, "folder": folder})
    else:
        _print(name, added)
    return code


def _print(name: str, added: AddedDomain) -> None:
    output.line(f"added key domain {name}" if added.is_new else f"key domain {name} is there already")
    if added.inside:
        output.lines(
            "Its keys stand in the repository and in every copy: whoever reads one reads it too, and it can't be destroyed."
        )
    elif added.folder:
        keep_safe(name, added.folder)
    else:
        output.lines(
            "Its keys stand neither in the repository nor in a folder that the configuration names and that is there now. "
            "Without them nobody reads what is stored in it: find the folder of its slots."
        )


@described(
    "destroy",
    "Make all that was stored in key domain NAME unreadable for good, in the repository and in every copy at once: remove its slots, take its "
    "keys out of the settings. That is possible only where its slots stood outside of the repository from the first day. Every other place where "
    "that folder is kept must be destroyed by hand. Its sources are not backed up until 'opsd key domain NAME' makes new keys.",
    """{"name", "number", "folder": path, "slots_removed", "sources": [label], "snapshots": number that hold some of it}""",
    "opsd key destroy staff --reason 'the customer left, request 4711'",
)
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--reason", metavar="TEXT", required=True, callback=a_reason, help="Why; it is kept in the ledger, readable."
)
@access_options
def destroy_(**given: Any) -> int:
    """Destroy a domain."""
    name = given["name"]
    with (
        session(given) as (opened, listener),
        recorded(opened, "key-destroy", reason=given["reason"], begins=True) as record,
    ):
        doomed = find_doomed(opened, name)
        record.note(domain=doomed.number)
        _confirm(name, doomed, unasked=given["yes"])
        destroy(opened, doomed)
        code = record.ended(slots=doomed.slots, snapshots=doomed.snapshots)
    output.warnings(listener.warnings)
    if given["as_json"]:
        told = {"name": name, "number": doomed.number, "folder": str(doomed.folder), "slots_removed": doomed.slots}
        output.emit({**told, "sources": list(doomed.sources), "snapshots": doomed.snapshots})
    else:
        _print_destroyed(name, doomed)
    return code


def _confirm(name: str, doomed: Doomed, *, unasked: bool) -> None:
    """Have the person type the domain's name.

    Raises:
        UsageError: nobody is there to type it, or it is another.
    """
    if unasked:
        return
    if asker() is None:
        raise UsageError("this can't be undone, and nobody is here to confirm it", hint="give --yes once you are sure")
    what = ", ".join(doomed.sources) or "nothing yet"
    output.note(
        f"key domain {name} holds {what}, in {output.count(doomed.snapshots, 'snapshot')}; it can never be read again"
    )
    if answer(f"To destroy it, type its name ({name})") != name:
        raise UsageError("that is another name: nothing was changed", hint="give --yes to go on without being asked")


def _print_destroyed(name: str, doomed: Doomed) -> None:
    again = "was destroyed before" if doomed.was_destroyed else "destroyed"
    output.line(f"key domain {name} {again}: {output.count(doomed.slots, 'slot')} removed from {doomed.folder}")
    output.lines(
        "What was stored in it can't be read any more, here or in a copy. If this folder was kept anywhere else, destroy that too, now: "
        "with it and the passphrase or kit, whoever is no friend of yours could still read a copy. Removing a file does not wipe a disk."
    )
    if doomed.sources:
        output.lines(f"Not backed up any more: {', '.join(doomed.sources)}. 'opsd key domain {name}' makes new keys.")
