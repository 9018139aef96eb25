"""`opsd doctor`: everything that a night needs, asked before the night."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any, Final

from opsd.app.as_owner import owner_of, run_as
from opsd.app.doctor import count_uncovered, examined
from opsd.cli import output
from opsd.cli.options import described, session
from opsd.credentials import references
from opsd.verify.findings import Finding, State, worst

_WIDTH: Final = 80
_INDENT: Final = 10
_COLOURS: Final = {State.OK: "green", State.WARNING: "yellow", State.FAILED: "red"}


@described(
    "doctor",
    "Test everything that a night needs before the night, as the user who owns the state folder: configuration, credentials, repository and "
    "room, logins and rights of every source, copies (host keys, writable, not to be emptied), the clock, versions known to be dangerous, "
    "the recovery kit, what the systemd units hide, and what nothing protects. Each that is amiss comes with its next step. Changes nothing. "
    "Ends with 0 (all well), 3 (warnings), 1 (a night would fail).",
    """{"user": text, "findings": [{"group", "subject", "state": "ok"|"warning"|"failed", "text", "next_step": text or null}],
    "ok": number, "warnings": number, "failed": number, "uncovered": {"databases": number, "folders": number}}""",
    "opsd doctor",
    "opsd doctor --json",
)
def command(**given: Any) -> int:
    """Ask."""
    with session(given) as (opened, _):
        account = owner_of(opened.settings.state)
        if account:
            sys.stdout.flush()
            code = run_as(account, sys.argv[1:], references(opened.settings))
            if code is not None:
                return code
            output.problem(
                "setpriv is not there: asked as root, who may do more than the night", "apt install util-linux"
            )
        found = examined(opened)
    if given["as_json"]:
        numbers = {"ok": State.OK, "warnings": State.WARNING, "failed": State.FAILED}
        counts = {name: sum(each.state is state for each in found.findings) for name, state in numbers.items()}
        findings = [asdict(each) for each in found.findings]
        output.emit({"user": found.user, "findings": findings, **counts, "uncovered": count_uncovered(found.uncovered)})
    else:
        output.line(f"as {found.user}")
        _print(found.findings)
    return worst(found.findings)


def _print(findings: Sequence[Finding]) -> None:
    for group, members in groupby(findings, key=lambda each: each.group):
        output.line()
        output.line(output.paint(group, None, bold=True))
        for each in members:
            _show(each)
    output.line()
    ok, warnings, failed = (sum(each.state is state for each in findings) for state in State)
    output.line(f"{ok} ok, {output.count(warnings, 'warning')}, {failed} failed")


def _show(finding: Finding) -> None:
    """One line, folded where it is long, and the next step below it."""
    state = output.paint(finding.state, _COLOURS[finding.state])
    output.lines(f"{finding.subject}: {finding.text}", first=f"  {state}{' ' * (_INDENT - 2 - len(finding.state))}")
    if finding.next_step:
        output.lines(finding.next_step, indent=_INDENT, first="-> ")
