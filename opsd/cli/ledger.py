"""`opsd ledger`: what was done, and the proof that nothing of it was altered."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

import click

from opsd import clock
from opsd.app import ledgers
from opsd.app.ledgers import Verdict
from opsd.app.times import parse_since
from opsd.cli import output
from opsd.cli.cat import destination, output_option
from opsd.cli.main import HELP
from opsd.cli.options import a_reason, described, session
from opsd.cli.output import Column
from opsd.errors import ConfigurationError, UsageError
from opsd.monitor.ledger import Entry
from opsd.repository.signing import read_public_key

_COLUMNS = (
    Column("NO", right=True),
    Column("TIME"),
    Column("WHO"),
    Column("ACTION"),
    Column("OUTCOME"),
    Column("ABOUT", elastic=True),
)
_COLOURS = {"done": "green", "warnings": "yellow", "begun": None}


@click.group(
    "ledger",
    context_settings=HELP,
    help="What was done on this host: who, what, when, why, outcome; each entry chained to the one before it, and every snapshot vouches "
    "for all that were written before it.\n\n"
    "\b\nExamples:\n  opsd ledger show --last 20\n  opsd ledger verify\n  opsd ledger export -o web1.jsonl",
)
def command() -> None:
    """What was done."""


@described(
    "show",
    "List the entries, oldest first. What was begun and has no entry of its end was killed, or is still at work.",
    """[{"number", "time", "who": {"login", "uid", "terminal": bool}, "host", "action", "outcome": "begun"|"done"|"warnings"|"failed"|
    "refused"|"postponed"|"stopped", "exit_code", "reason", "details": {name: value}, "version", "configuration": SHA-256, "begun":
    number of the entry that said it begins, "previous": hash, "hash"}], oldest first""",
    "opsd ledger show --last 20",
    "opsd ledger show --since 2026-11-01 --action restore --json",
)
@click.option("--last", type=click.IntRange(1), metavar="N", help="Only the newest N.")
@click.option("--since", metavar="TIME", help="Only from this time on, such as 2026-11-24 or yesterday.")
@click.option("--action", metavar="NAME", help="Only one kind: backup, restore, prune, hold, …")
def show(**given: Any) -> int:
    """List entries."""
    with session(given) as (opened, listener):
        zone = opened.settings.zone
        since = given["since"] and parse_since(given["since"], zone, opened.clock.now())
        found = ledgers.verify_own(opened, elsewhere=False)
    first = clock.local(since, UTC).isoformat(timespec="microseconds") if since else ""
    entries = [each for each in found.entries if each.time >= first and given["action"] in {None, each.action}]
    entries = entries[-given["last"] :] if given["last"] else entries
    output.warnings(listener.warnings)
    if given["as_json"]:
        output.emit([each.as_map() | {"hash": each.hash} for each in entries])
    elif entries:
        output.table(_COLUMNS, [_row(each, zone) for each in entries])
    else:
        output.line("no entries")
    if found.problems or found.notices:
        output.problem(
            [*found.problems, *found.notices][0], "'opsd ledger verify' tells all, and docs/runbook.md what to do"
        )
        return 3
    return 0


def _row(entry: Entry, zone: tzinfo) -> tuple[str, ...]:
    details = entry.details
    about = [str(details[name]) for name in ("copy", "kind") if details.get(name)]
    about += [str(details["snapshot"])[:8]] if details.get("snapshot") else []
    about += [entry.reason] if entry.reason else []
    return (
        str(entry.number),
        f"{datetime.fromisoformat(entry.time).astimezone(zone):%Y-%m-%d %H:%M}",
        output.plain(entry.who.login),
        output.plain(entry.action),
        output.paint(output.plain(entry.outcome), _COLOURS.get(entry.outcome, "red")),
        output.plain(", ".join(about)),
    )


@described(
    "export",
    "Write all entries, one JSON object a line; the last one also carries a signature, so that 'opsd ledger verify FILE' notices whatever is "
    "altered, removed, added or cut. Whoever verifies it needs nothing but the file and what 'opsd key public' prints.",
    """{"entries": number, "hash": of the last entry, "key": id}, with -o only""",
    "opsd ledger export > web1.jsonl",
    "opsd ledger export -o web1.jsonl --json",
)
@output_option
def export(**given: Any) -> None:
    """Write the entries."""
    with session(given) as (opened, listener):
        lines = ledgers.export(opened)
    output.warnings(listener.warnings)
    with destination(given["file"], as_json=given["as_json"]) as target:
        target.write(b"".join(line + b"\n" for line in lines))
    if given["as_json"]:
        signed = json.loads(lines[-1])["signed_head"]
        output.emit({"entries": len(lines), "hash": signed["hash"], "key": signed["key"]})


@described(
    "verify",
    "Prove that nothing of the ledger was altered, removed or put in between. Without FILE: this host's own, by its chain, by what the host "
    "remembers, and by what the newest snapshots in the repository and in every copy vouch for. With FILE: an export, by its chain and "
    "its signature. Exits with 4 if anything is wrong, with 3 if entries are missing and somebody has accepted that.",
    """{"entries": number, "first", "last": time or null, "problems": [text], "notices": [text], "vouchers": [place],
    "signed": time or null}""",
    "opsd ledger verify",
    "opsd ledger verify web1.jsonl --public-key web1.pub",
)
@click.argument("file", required=False, type=click.Path())
@click.option(
    "--public-key",
    "key",
    metavar="FILE",
    type=click.Path(),
    help="With FILE: the key ('opsd key public'); otherwise those of the configured repository.",
)
def verify(**given: Any) -> int:
    """Verify."""
    if given["key"] and not given["file"]:
        raise UsageError("--public-key is for an exported FILE", hint="opsd ledger verify FILE --public-key KEY")
    if given["key"]:
        verdict = ledgers.verify_export(Path(given["file"]).read_bytes(), [read_public_key(Path(given["key"]))])
        return _tell(verdict, as_json=given["as_json"])
    with _keys_known(given), session(given) as (opened, listener):
        if given["file"]:
            verdict = ledgers.verify_export(Path(given["file"]).read_bytes(), ledgers.known_keys(opened))
        else:
            verdict = ledgers.verify_own(opened)
    output.warnings(listener.warnings)
    code = _tell(verdict, as_json=given["as_json"])
    return code or (3 if listener.warnings else 0)


@contextmanager
def _keys_known(given: dict[str, Any]) -> Iterator[None]:
    """Where there is no configuration to take the keys from, they can be given."""
    try:
        yield
    except ConfigurationError as error:
        if not given["file"]:
            raise
        hint = "give the key instead, as 'opsd key public' printed it on that host: --public-key FILE"
        raise ConfigurationError(error.mistakes, hint=hint) from error


def _tell(verdict: Verdict, *, as_json: bool) -> int:
    entries = verdict.entries
    first, last = (entries[0].time, entries[-1].time) if entries else (None, None)
    if as_json:
        names = ("problems", "notices", "vouchers")
        lists = {name: list(getattr(verdict, name)) for name in names}
        output.emit({"entries": len(entries), "first": first, "last": last, **lists, "signed": verdict.signed})
        return verdict.exit_code
    for problem in verdict.problems:
        output.line(output.paint(output.plain(problem), "red"))
    for notice in verdict.notices:
        output.line(output.paint(output.plain(notice), "yellow"))
    count = output.count(len(entries), "entry", "entries")
    if verdict.problems:
        output.line(f"the ledger does not verify: {count} left that can be believed; docs/runbook.md says what to do")
    else:
        proof = f"signed {verdict.signed[:16].replace('T', ' ')} UTC" if verdict.signed else ", ".join(verdict.vouchers)
        whole = "the ledger is whole but for that" if verdict.notices else "the ledger is whole"
        output.line(output.paint(f"{whole}: {count}", "green") + f" ({proof or 'nobody else vouches yet'})")
    return verdict.exit_code


@described(
    "accept",
    "Once you know why entries are missing: say so, with a reason. A ledger that was edited is mended first: what can't be believed any "
    "more is put aside, and an entry says which numbers are missing. They stay missing, and 'verify' goes on to say so, with 3 instead of 4.",
    """{"missing": [[first, last]]}""",
    "opsd ledger accept --reason 'disk of the state folder replaced'",
)
@click.option("--reason", metavar="TEXT", required=True, callback=a_reason, help="Why they are missing.")
def accept(**given: Any) -> None:
    """Accept that entries are missing."""
    with session(given) as (opened, listener):
        gaps = ledgers.accept(opened, given["reason"])
    output.warnings(listener.warnings)
    if given["as_json"]:
        output.emit({"missing": [[gap.first, gap.last] for gap in gaps]})
    else:
        output.line(
            f"accepted as missing: {', '.join(map(str, gaps))}" if gaps else "nothing is missing that was not accepted"
        )


for each in (show, export, verify, accept):
    command.add_command(each)
