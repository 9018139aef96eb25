"""`opsd key`: who can open the repository."""

from typing import Any

import click

from opsd import clock
from opsd.app import creating
from opsd.app.ledgers import signing_key
from opsd.app.recording import recorded
from opsd.app.session import Session
from opsd.cli import output
from opsd.cli.key_domain import destroy_, domain
from opsd.cli.main import HELP
from opsd.cli.options import access_options, described, reason_option, session
from opsd.cli.output import Column
from opsd.errors import UsageError
from opsd.repository.signing import public_key_text

_COLUMNS = (Column("SLOT"), Column("KIND"), Column("CREATED"), Column("LABEL", elastic=True))


@click.group(
    "key",
    context_settings=HELP,
    help="Who can open the repository: passphrases, recovery kits and recipients, each in a slot of its own.\n\n"
    "\b\nExamples:\n  opsd key list\n  opsd key add --recipient drill.pub",
)
def command() -> None:
    """Who can open the repository."""


@described(
    "list",
    "List everything that opens the repository; needs no key.",
    """[{"id", "kind": "passphrase"|"kit"|"recipient"|"domain", "label", "created"}], oldest first; domain: the keys of that key
    domain alone, for whoever opens the repository by another""",
    "opsd key list",
)
@access_options
def list_(**given: Any) -> None:
    """List the slots."""
    with session(given) as (opened, listener):
        found = creating.key_slots(opened)
        zone = opened.settings.zone
    output.warnings(listener.warnings)
    if given["as_json"]:
        output.emit(
            [
                {"id": slot.id, "kind": slot.kind, "label": slot.label, "created": clock.iso(slot.created, zone)}
                for slot in found
            ]
        )
    else:
        rows = [
            (slot.id[:12], slot.kind, output.moment(slot.created, zone), output.plain(slot.label)) for slot in found
        ]
        output.table(_COLUMNS, rows)


@described(
    "add",
    "Let one more open the repository: another passphrase (asked for, or the first line of a file), the holder of a recipient's key, "
    "or a new recovery kit, which is printed. What opens it now must be at hand.",
    """{"id", "kind": "passphrase"|"kit"|"recipient", "kit": text or null}""",
    "opsd key add",
    "opsd key add --recipient drill.pub --label 'drill host'",
    "opsd key add --new-kit",
)
@click.option("--passphrase-from", "passphrase_file", metavar="FILE", type=click.Path(), help="The new passphrase.")
@click.option("--recipient", metavar="FILE", type=click.Path(), help="A recipient's public key file.")
@click.option("--new-kit", is_flag=True, help="Make another recovery kit and print it.")
@click.option("--label", metavar="TEXT", help="What to call it.")
@reason_option
@access_options
def add(**given: Any) -> int:
    """Add a slot."""
    wanted = [name for name in ("passphrase_file", "recipient", "new_kit") if given[name]]
    if len(wanted) > 1:
        raise UsageError("one key at a time", hint="give one of --passphrase-from, --recipient and --new-kit")
    with session(given) as (opened, listener), recorded(opened, "key-add", reason=given["reason"]) as record:
        kind, added = _add(opened, given)
        code = record.ended(slot=added.id, kind=kind)
    output.warnings(listener.warnings)
    if given["as_json"]:
        output.emit({"id": added.id, "kind": kind, "kit": added.kit})
        return code
    output.line(f"added {kind} {added.id[:12]}")
    if added.kit:
        output.line(f"recovery kit, shown only now: {added.kit}")
    return code


def _add(opened: Session, given: dict[str, Any]) -> tuple[str, creating.AddedKey]:
    """The kind of the slot that was added, and the slot."""
    if given["recipient"]:
        label = given["label"] or "recipient"
        return "recipient", creating.add_recipient_slot(opened, given["recipient"], label)
    if given["new_kit"]:
        return "kit", creating.add_kit_slot(opened)
    label = given["label"] or "passphrase"
    return "passphrase", creating.add_passphrase_slot(opened, given["passphrase_file"], label)


@described(
    "remove",
    "Remove a slot by its id or the beginning of it; never the last. Who has read the keys before keeps what could be read then.",
    """{"id", "kind", "label"}""",
    "opsd key remove 91f3c2a4",
)
@click.argument("slot")
@reason_option
@access_options
def remove(**given: Any) -> int:
    """Remove a slot."""
    with session(given) as (opened, listener), recorded(opened, "key-remove", reason=given["reason"]) as record:
        gone = creating.remove_slot(opened, given["slot"])
        code = record.ended(slot=gone.id, kind=gone.kind)
    output.warnings(listener.warnings)
    if given["as_json"]:
        output.emit({"id": gone.id, "kind": gone.kind, "label": gone.label})
    else:
        output.line(f"removed {gone.kind} {gone.id[:12]}")
    return code


@described(
    "generate",
    "Make a recipient's key pair: FILE is secret and stays with the reader, FILE.pub is for 'opsd key add --recipient'.",
    """{"id", "secret": path, "public": path}""",
    "opsd key generate /root/drill",
)
@click.argument("file", type=click.Path())
def generate(**given: Any) -> None:
    """Make a key pair."""
    file = given["file"]
    identity = creating.generate_recipient(file)
    if given["as_json"]:
        output.emit({"id": identity, "secret": file, "public": f"{file}.pub"})
    else:
        output.line(f"made {file} (secret, keep it) and {file}.pub (for 'opsd key add --recipient')")


@described(
    "enrol",
    "Let this host write to a repository that exists already; the passphrase or kit is needed this once.",
    """{"writer": id}""",
    "opsd key enrol",
)
@access_options
def enrol(**given: Any) -> int:
    """Enrol this host."""
    with session(given) as (opened, listener):
        identity = creating.enrol_host(opened)
    output.warnings(listener.warnings)
    if given["as_json"]:
        output.emit({"writer": identity})
    else:
        output.line(f"this host writes as {identity[:12]}")
    return 3 if listener.warnings else 0


@described(
    "public",
    "Print the public half of the key with which this host signs its snapshots and its ledger: all that somebody needs to verify "
    "an exported ledger.",
    """{"id", "ed25519": hex, "mldsa65": hex}""",
    "opsd key public > web1.pub",
)
def public(**given: Any) -> None:
    """Print the public key."""
    with session(given) as (opened, listener):
        key = signing_key(opened).public()
    output.warnings(listener.warnings)
    if given["as_json"]:
        output.emit({"id": key.id.hex(), "ed25519": key.ed25519.hex(), "mldsa65": key.mldsa65.hex()})
    else:
        click.echo(public_key_text(key), nl=False)


for each in (list_, add, remove, generate, enrol, public, domain, destroy_):
    command.add_command(each)
