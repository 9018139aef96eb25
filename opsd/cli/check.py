"""`opsd check`: whether all that is stored is still what it was."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import click

from opsd.app.healing import check_copy, heal, heal_unopened, healable
from opsd.app.recording import Record, recorded
from opsd.app.running import tracked
from opsd.app.session import Session
from opsd.app.slices import check_due, remember, verifying
from opsd.app.upkeep import check, mend, sample
from opsd.cli import output
from opsd.cli.coverage import coverage_json, coverage_text
from opsd.cli.options import described, reading_options, reason_option, session
from opsd.errors import StorageError, UsageError
from opsd.events import Warning
from opsd.verify.check import CheckReport, Problem
from opsd.verify.healing import OVER
from opsd.verify.proof import NO_SNAPSHOT
from opsd.verify.repair import Repaired
from opsd.verify.slices import Coverage


def _share(given: dict[str, Any]) -> float:
    """Which part of all packs to read, 0 to 1."""
    text = given["subset"]
    if given["read_data"] + bool(text) + given["due"] > 1:
        raise UsageError("give one of --read-data, --read-data-subset and --due", hint="--read-data reads all")
    if not text:
        return 1.0 if given["read_data"] else 0.0
    try:
        share = float(text.removesuffix("%")) / 100
    except ValueError:
        share = 0.0
    if not text.endswith("%") or not 0 < share <= 1:
        raise UsageError(f"{text!r} is no share", hint="for example: --read-data-subset 5%")
    return share


@described(
    "check",
    "Verify every object, every frame that a snapshot needs, and the order of history; name what is damaged and what that affects. "
    "Without reading data, packs are checked by their footers. With --repair, damaged packs are marked, so that the next backup stores "
    "anew what they held, the mark of one that is whole again ends, and a damaged index is written again. Before that, what a copy still "
    "has whole is taken from there. With --copy, every object of that copy is compared with its name, for which no key is needed, and with this host's "
    "key, that nothing a snapshot needs is missing; --repair then takes from the repository and the other copies. "
    "With --due, run each night, only so much data is read that all of it is read again within 30 days; a copy may state how, and a budget. "
    "Exits with 4 if anything is damaged and was not healed, with 3 if a copy holds no snapshot yet, or if the keys of a key domain are not at hand, so "
    "that its frames could not be decrypted.",
    """{"problems": [{"object", "problem", "snapshots": [id], "paths": ["SOURCE:PATH"], "hint"}], "notices": [text], "snapshots": number,
    "packs", "packs_read", "bytes_read", "bytes_stored", "decoded": bool, "closed": frames that were not decrypted as the keys of their
    domain are not at hand}; paths are those in the newest snapshot affected;
    decoded: frames were decrypted too, for which a reader's key is needed; with --repair also "repaired": {"packs": [name],
    "whole_again": [name], "index_objects"} (not with --copy), and "healed": {object: the copy that it came from, or "removed, …"}; "coverage": {"verify":
    "read"|"checksum"|"off", "bytes", "read_share": 0 to 1 of them, in 30 days, "vouched_share": only by the store's own checksums,
    "oldest_unread_days"}, or null without a state folder""",
    "opsd check",
    "opsd check --read-data",
    "opsd check --read-data-subset 5% --json",
    "opsd check --read-data --repair",
    "opsd check --due",
    "opsd check --copy paris --due",
    "opsd check --copy paris --repair",
)
@click.option("--read-data", is_flag=True, help="Read all packs.")
@click.option(
    "--read-data-subset", "subset", metavar="PERCENT", help="Read a sample of the packs, another one each time."
)
@click.option("--due", is_flag=True, help="Read what was unread longest, as much as each night must.")
@click.option("--repair", "mends", is_flag=True, help="Heal from the copies, and mend what can be mended without.")
@click.option("--copy", "proved", metavar="NAME", help="Prove this copy instead: all of it, or what is due.")
@reason_option
@reading_options
def command(**given: Any) -> int:
    """Check the repository."""
    share = _share(given)
    _refuse_nonsense(given)
    with (
        session({**given, "copy": given["proved"] or given["copy"]}) as (opened, listener),
        tracked(
            opened, "check", part=bool(given["proved"] or given["copy"]) or not (given["due"] or given["read_data"])
        ) as run,
        _recorded(opened, given) as record,
    ):
        report, healed = _checked(opened, share, given)
        covered = _remembered(opened, report, given)
        how = verifying(opened.settings, opened.access.copy).verify
        mended = mend(opened, report) if given["mends"] and not given["proved"] else None
        code = _code(report, is_kept=bool(covered) or not opened.has_state())
        counts = _counts(report, mended, healed, given["proved"])
        code = run.ended(record.ended(code, **counts) if record else code, **counts)
    known = {problem.object for problem in report.problems} | healed.keys() | {f"copy {given['proved']}"}
    output.warnings([warning for warning in listener.warnings if warning.subject not in known])
    if given["as_json"]:
        coverage = {"coverage": coverage_json(covered, how) if covered else None}
        output.emit(_as_json(report) | coverage | _mended_json(mended, healed, given))
    else:
        for notice in report.notices:
            output.lines(notice)
        for name, donor in healed.items():
            output.line(output.paint(f"{name}: {donor if donor == OVER else f'healed from {donor}'}", "green"))
        for problem in report.problems:
            _print(problem, mended)
        output.line(_summary(report))
        if covered:
            output.line(coverage_text(covered, how))
        if mended and (report.problems or mended.whole):
            output.line(_mended(mended))
    return code


def _code(report: CheckReport, *, is_kept: bool) -> int:
    if report.problems:
        return 4
    return 3 if report.closed or NO_SNAPSHOT in report.notices or not is_kept else 0


def _remembered(opened: Session, report: CheckReport, given: dict[str, Any]) -> Coverage | None:
    """How far all was read; where that can't be kept, what was found is told all the same."""
    try:
        return remember(opened, report, is_slice=given["due"])
    except StorageError as error:
        opened.reporter.warn(Warning(subject="state", problem=str(error), hint=error.hint))
        return None


def _recorded(opened: Session, given: dict[str, Any]) -> AbstractContextManager[Record | None]:
    """An entry in the ledger for a repair; a check that changes nothing leaves none."""
    return recorded(opened, "repair", reason=given["reason"], begins=True) if given["mends"] else nullcontext()


def _counts(report: CheckReport, mended: Repaired | None, healed: dict[str, str], copy: str | None) -> dict[str, Any]:
    """What the ledger keeps of a repair."""
    counts = {"problems": len(report.problems), "healed": len(healed)}
    return {"copy": copy, **counts, "marked_packs": len(mended.packs) if mended else 0}


def _refuse_nonsense(given: dict[str, Any]) -> None:
    if given["proved"] and (given["copy"] or given["read_data"] or given["subset"]):
        raise UsageError(
            "--copy reads all of the copy, or with --due what is due",
            hint="for example: opsd check --copy paris --repair",
        )
    if given["copy"] and given["due"]:
        raise UsageError("--due goes with --copy, not with --from", hint=f"opsd check --copy {given['copy']} --due")
    if given["reason"] and not given["mends"]:
        raise UsageError("--reason is for --repair", hint="a check changes nothing, and is not in the ledger")
    if given["copy"] and given["mends"]:
        raise UsageError(
            "--repair goes with --copy, not with --from", hint=f"opsd check --copy {given['copy']} --repair"
        )


def _checked(opened: Session, share: float, given: dict[str, Any]) -> tuple[CheckReport, dict[str, str]]:
    """What a check finds, and what was healed on the way if that was asked for; a copy without any snapshot says so."""
    report, healed = _found(opened, share, given)
    is_off = given["due"] and verifying(opened.settings, opened.access.copy).verify == "off"
    if opened.access.copy and not (report.snapshots or report.problems or is_off):
        report = replace(report, notices=(*report.notices, NO_SNAPSHOT))
    return report, healed


def _found(opened: Session, share: float, given: dict[str, Any]) -> tuple[CheckReport, dict[str, str]]:
    if given["proved"]:
        report = check_due(opened) if given["due"] else check_copy(opened)
        return heal(opened, report) if given["mends"] else (healable(report, given["proved"]), {})
    if not given["mends"]:
        return _looked(opened, share, given), {}
    first = heal_unopened(opened)
    report, healed = heal(opened, _looked(opened, share, given))
    return report, {**first, **healed}


def _looked(opened: Session, share: float, given: dict[str, Any]) -> CheckReport:
    return check_due(opened) if given["due"] else check(opened, sample(share))


def _mended_json(mended: Repaired | None, healed: dict[str, str], given: dict[str, Any]) -> dict[str, Any]:
    if mended is None:
        return {"healed": healed} if given["mends"] else {}
    packs = {"packs": list(mended.packs), "whole_again": list(mended.whole)}
    return {"repaired": packs | {"index_objects": mended.index_objects}, "healed": healed}


def _mended(mended: Repaired) -> str:
    """What was mended, and the next step."""
    done = []
    if mended.packs:
        done.append(
            f"{output.count(len(mended.packs), 'damaged pack')} marked: run 'opsd backup' to store anew what they held"
        )
    if mended.index_objects:
        done.append(f"{output.count(mended.index_objects, 'index object')} written again")
    if mended.whole:
        done.append(f"{output.count(len(mended.whole), 'marked pack')} whole again: used as before")
    return "; ".join(done) or "nothing more can be mended without a copy"


def _as_json(report: CheckReport) -> dict[str, Any]:
    names = ("snapshots", "packs", "packs_read", "bytes_read", "bytes_stored", "decoded", "closed")
    return {
        "problems": [
            {
                "object": problem.object,
                "problem": problem.problem,
                "snapshots": list(problem.snapshots),
                "paths": list(problem.paths),
                "hint": problem.hint,
            }
            for problem in report.problems
        ],
        "notices": list(report.notices),
        **{name: getattr(report, name) for name in names},
    }


def _print(problem: Problem, mended: Repaired | None) -> None:
    output.line(output.paint(f"{problem.object}: {problem.problem}", "red"))
    if problem.snapshots:
        output.line("  affects " + ", ".join(identity[:8] for identity in problem.snapshots))
    for path in problem.paths:
        output.line(f"    {path}")
    if problem.hint and not (mended and _is_mended(problem, mended)):
        output.line(f"  {problem.hint}")


def _is_mended(problem: Problem, mended: Repaired) -> bool:
    """Whether the last line says what was done about it, and the next step."""
    return problem.object in mended.packs or (bool(mended.index_objects) and problem.object.startswith("index/"))


def _summary(report: CheckReport) -> str:
    looked = f"{output.count(report.snapshots, 'snapshot')}, {output.count(report.packs, 'pack')} of {output.size(report.bytes_stored)}"
    how = ""
    if report.packs_read:
        depth = "decrypted" if report.decoded else "not decrypted"
        how = f", {report.packs_read:,} read ({depth})"
    fine = "nothing to restore" if NO_SNAPSHOT in report.notices else "no problem found"
    verdict = output.count(len(report.problems), "problem") if report.problems else fine
    return f"{looked}{how}: {verdict}"
