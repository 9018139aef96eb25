"""`opsd prune`: remove what no rule keeps, and explain it before."""

from datetime import tzinfo
from typing import Any

import click

from opsd import clock
from opsd.app.copy_pruning import plan_prune_of_copy, prune_copy, rules_of
from opsd.app.recording import recorded
from opsd.app.session import find_settings
from opsd.app.stores import place_of
from opsd.app.upkeep import plan_prune, prune, simulated
from opsd.cli import output
from opsd.cli.options import configuration_path, described, reason_option, session
from opsd.cli.output import Column
from opsd.clock import SystemClock
from opsd.errors import ConfigurationError, UsageError
from opsd.retention.policy import DEFAULT_RULES
from opsd.retention.prune import PrunePlan, PruneResult
from opsd.settings import DEFAULT_FILE, Settings

_PLAN = (
    Column("SNAPSHOT"),
    Column("TAKEN"),
    Column("HOST", elastic=True),
    Column("JOB"),
    Column("SIZE", right=True),
    Column("KEPT BY"),
)
_NUMBERS = ("marked_snapshots", "marked_packs", "moved_packs", "swept_snapshots", "swept_bytes", "locked")
_CALENDAR = (Column("TAKEN"), Column("AGE", right=True), Column("KEPT BY"))


@described(
    "prune",
    "Mark the snapshots that no rule keeps, and remove for good what was marked three days ago and no run still relies on. Nothing goes "
    "at once; until it does, 'opsd hold' brings a marked snapshot back. With --copy it prunes that copy by the rules that it states, or "
    "else those of the repository; what its source still has stays there too.",
    """{"marked_snapshots", "marked_packs", "moved_packs", "swept_snapshots", "swept_bytes", "waiting_until": time or null,
    "locked": objects that waited long enough and are locked by the store, "locked_until": time or null,
    "snapshots": as with --dry-run}; with --dry-run {"snapshots": [{"id", "time", "host", "job", "keep": bool, "reasons": [text]}],
    "freed_bytes"}; with --simulate {"kept": [{"time", "age_days", "rule"}]}, oldest first""",
    "opsd prune --dry-run",
    "opsd prune --simulate 800 --json",
    "opsd prune",
    "opsd prune --copy paris --dry-run",
)
@click.option("-n", "--dry-run", is_flag=True, help="Explain which rule keeps each snapshot; change nothing.")
@click.option(
    "--simulate",
    "days",
    type=int,
    metavar="DAYS",
    help="Print the calendar that nightly runs lead to; no repository needed.",
)
@click.option("--copy", metavar="NAME", help="Prune this one of 'copies:' or 'pulls:' instead.")
@click.option("--yes", "confirmed", is_flag=True, help="Also where more than a fifth of all bytes would go.")
@reason_option
def command(**given: Any) -> int:
    """Prune."""
    if given["days"] is not None:
        if given["dry_run"] or given["confirmed"]:
            raise UsageError("--simulate stands alone", hint="for example: opsd prune --simulate 800")
        _simulate(given["days"], given["copy"], as_json=given["as_json"])
        return 0
    with session(given) as (opened, listener):
        zone = opened.settings.zone
        if given["dry_run"]:
            plan = plan_prune_of_copy(opened) if given["copy"] else plan_prune(opened)
            _explain(plan, zone, "opsd copy" if given["copy"] else "opsd backup", as_json=given["as_json"])
        else:
            part = given["copy"] is not None
            with recorded(opened, "prune", reason=given["reason"], begins=True, part=part) as record:
                done = (prune_copy if given["copy"] else prune)(opened, confirmed=given["confirmed"])
                numbers = {name: getattr(done, name) for name in _NUMBERS}
                code = record.ended(copy=given["copy"], **numbers)
    output.warnings(listener.warnings)
    if given["dry_run"]:
        return 0
    waits = None if done.waiting_until is None else clock.iso(done.waiting_until, zone)
    if given["as_json"]:
        locks = None if done.locked_until is None else clock.iso(done.locked_until, zone)
        times = {"waiting_until": waits, "locked_until": locks}
        output.emit({**numbers, **times, "snapshots": _verdicts(done.plan, zone)})
    else:
        _print(done, zone)
    return code


def _print(done: PruneResult, zone: tzinfo) -> None:
    """What was done; both halves are told only where there was anything to do."""
    if done.swept_snapshots or done.swept_bytes:
        gone = output.count(done.swept_snapshots, "snapshot")
        output.line(f"removed {gone} and {output.size(done.swept_bytes)} that were marked before")
    if done.locked_until is not None:
        end = output.moment(done.locked_until, zone)
        output.line(
            f"{output.count(done.locked, 'object')} marked before stay locked in the store, until {end} at the latest"
        )
    if done.waiting_until is None:
        output.line(
            f"nothing to mark: the rules keep what there is ({output.count(len(done.plan.snapshots), 'snapshot')})"
        )
        return
    marked = f"{output.count(done.marked_snapshots, 'snapshot')} and {output.count(done.marked_packs, 'pack')}"
    output.line(f"marked {marked}, to go after {output.moment(done.waiting_until, zone)}")


def _verdicts(plan: PrunePlan, zone: tzinfo) -> list[dict[str, Any]]:
    return [
        {
            "id": each.id,
            "time": clock.iso(each.started, zone),
            "host": each.host,
            "job": each.job,
            "keep": plan.verdicts[each.id].keep,
            "reasons": list(plan.verdicts[each.id].reasons),
        }
        for each in plan.snapshots
    ]


def _explain(plan: PrunePlan, zone: tzinfo, source: str, *, as_json: bool) -> None:
    freed = plan.liveness.freed_bytes
    if as_json:
        output.emit({"snapshots": _verdicts(plan, zone), "freed_bytes": freed})
        return
    if not plan.snapshots:
        output.line(f"no snapshots yet: '{source}' brings them")
        return
    rows = []
    for each in plan.snapshots:
        verdict = plan.verdicts[each.id]
        kept = ", ".join(verdict.reasons) or output.paint("nothing: goes", "yellow")
        rows.append(
            (each.id[:8], output.moment(each.started, zone), each.host, each.job, output.size(each.bytes), kept)
        )
    output.table(_PLAN, rows)
    stay, going = len(plan.snapshots) - len(plan.dropped), output.count(len(plan.dropped), "snapshot")
    output.line(f"{stay} stay{'s' * (stay == 1)}; {going} would be marked, {output.size(freed)} freed after the grace")


def _simulate(days: int, copy: str | None, *, as_json: bool) -> None:
    settings = _settings()
    if copy:
        place_of(settings, copy)
    zone = settings.zone
    kept = simulated(settings, days, SystemClock().now(), rules_of(settings, copy))
    if as_json:
        output.emit(
            {
                "kept": [
                    {"time": clock.iso(each.time_ns, zone), "age_days": each.age_days, "rule": each.rule}
                    for each in kept
                ]
            }
        )
        return
    output.table(_CALENDAR, [(output.moment(each.time_ns, zone), f"{each.age_days} d", each.rule) for each in kept])
    output.line(f"after {output.count(days, 'night')} {output.count(len(kept), 'snapshot')} would stand")


def _settings() -> Settings:
    """The configured rules and zone; the default rules where there is no configuration at all."""
    try:
        return find_settings(configuration_path())
    except ConfigurationError:
        if configuration_path() or DEFAULT_FILE.exists():
            raise
        return Settings(repository="", retention=DEFAULT_RULES)
