"""A host as the metrics see it: with two sources, three places, and a past."""

import re
from collections.abc import Iterator
from dataclasses import replace
from zoneinfo import ZoneInfo

from prometheus_client.parser import text_string_to_metric_families

from opsd import clock
from opsd.monitor.deadlines import Past, Plan
from opsd.monitor.metrics import Exposition, Service, View
from opsd.monitor.observed import DrillSeen, Observed, PlaceSeen, Point, SourceSeen, Tier
from opsd.monitor.problems import Problem, Severity
from opsd.monitor.state import Run

SECOND = clock.SECOND
HOUR = 3600 * SECOND
DAY = clock.DAY
#: 2026-11-26 12:00 UTC.
NOON = 1_795_694_400 * SECOND

PLAN = Plan(
    zone=ZoneInfo("Europe/Paris"),
    times={"backup": "04:00", "check": "05:00", "drill": "Sun 06:00", "self-check": "every 1h"},
    after={"copy": "backup", "prune": "copy"},
)
POINT = Point(stored=NOON - 9 * HOUR, verified=NOON - 20 * DAY, restored=NOON - 4 * DAY)
OBSERVED = Observed(
    time=NOON - HOUR // 2,
    host="db1",
    sources={
        "www": SourceSeen(outcome="complete", files=1000, bytes=5_000_000, added_bytes=7000),
        "crm": SourceSeen(outcome="warnings", files=1, bytes=9000, warnings=2),
    },
    places={
        "repository": PlaceSeen(
            kind="repository",
            snapshots=42,
            newest=NOON - 9 * HOUR,
            bytes=6_000_000,
            free=10**9,
            unread=NOON - 29 * DAY,
            read_share=0.9,
            points={"www": POINT, "crm": POINT},
        ),
        "paris": PlaceSeen(
            kind="copy",
            error="can't be reached",
            snapshots=41,
            newest=NOON - 33 * HOUR,
            missing=1,
            lost=3,
            completed=NOON - 32 * HOUR,
            bytes=5_500_000,
            read_share=0.25,
            vouched_share=0.75,
            verify="checksum",
            points={"www": replace(POINT, restored=0)},
        ),
        "cold": PlaceSeen(kind="copy", verify="off"),
    },
    tiers={"daily": Tier(kept=29, required=30)},
    drill=DrillSeen(
        time=NOON - 4 * DAY,
        verdict="deviating",
        green=NOON - 11 * DAY,
        recovery_time=600.0,
        recovery_point=7200.0,
        recovery_time_target=500.0,
        recovery_point_target=90000.0,
    ),
    kit_used=NOON - 90 * DAY,
    kit_made=NOON - 400 * DAY,
    uncovered_databases=1,
    uncovered_folders=3,
)


def run(job: str, started: int, *, seconds: int = 60, outcome: str = "done", **more: object) -> Run:
    """A run that ended, or with `seconds=0` one that did not."""
    ended = started + seconds * SECOND if seconds else 0
    given = {"stages": ()} | more
    return Run(id=f"{job}-{started}", job=job, cause="daemon", started=started, ended=ended, outcome=outcome, **given)  # type: ignore[arg-type]


BACKUPS = (
    run("backup", NOON - HOUR, outcome="failed", stages=(("storing", 1.0), ("www", 40.0), ("crm", 2.5))),
    run("backup", NOON - 8 * HOUR),
)
OTHERS = {job: (run(job, NOON - HOUR),) for job in ("copy", "prune", "check", "drill", "self-check")}
VIEW = View(
    now=NOON,
    service=Service(version="1.2", reloaded=False, reload_time=NOON - DAY),
    plan=PLAN,
    past=Past(runs={"backup": BACKUPS, **OTHERS}, since=NOON - 30 * DAY),
    counts={("backup", "done"): 400, ("backup", "failed"): 3, ("backup", "interrupted"): 1, ("drill", "done"): 57},
    observed=OBSERVED,
    paused_until=NOON + HOUR,
    problems=(Problem(key="a", severity=Severity.WARNING, title="t", next_step="n", since=0),),
)

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def told(view: View) -> Samples:
    """What a scrape of this moment gives, as Prometheus' own parser reads it."""
    exposition = Exposition()
    exposition.show(view)
    return dict(_samples(exposition.text().decode()))


def _samples(text: str) -> Iterator[tuple[tuple[str, tuple[tuple[str, str], ...]], float]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield (sample.name, tuple(sorted(sample.labels.items()))), sample.value


def value(samples: Samples, name: str, **labels: str) -> float | None:
    """One figure; None where it is not told."""
    return samples.get((name, tuple(sorted(labels.items()))))


def metric_names(expression: str) -> set[str]:
    """The metrics that a PromQL expression asks for, but opsd's and those of its process only."""
    bare = re.sub(r"\{[^}]*\}|\"[^\"]*\"|'[^']*'", "", expression)
    return set(re.findall(r"\b(?:opsd|process)_\w+|\bup\b", bare))
