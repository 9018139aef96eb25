"""What Prometheus is told of a host, and what it must never be told."""

import re
import statistics
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from opsd.monitor.deadlines import Past, Plan
from opsd.monitor.metrics import METRICS, OUTCOMES, STAGES, Exposition, View, stage_name
from opsd.monitor.observed import Observed, PlaceSeen, SourceSeen
from opsd.monitor.problems import Severity
from opsd.monitor.state import State, living
from tests.support.figures import DAY, HOUR, NOON, OBSERVED, POINT, SECOND, VIEW, Samples, run, told, value


@pytest.fixture(scope="module")
def samples() -> Samples:
    return told(VIEW)


def at(moment: int) -> float:
    return moment / SECOND


def test_every_metric_is_told_of_a_host_that_has_everything(samples: Samples) -> None:
    assert set(METRICS) - {name for name, _ in samples} == set()


def test_nothing_is_told_that_is_not_listed(samples: Samples) -> None:
    assert {name for name, _ in samples if not name.startswith(("process_", "python_"))} <= set(METRICS)


def test_each_series_is_told_once() -> None:
    exposition = Exposition()
    exposition.show(VIEW)
    series = [line.rpartition(" ")[0] for line in exposition.text().decode().splitlines() if line[0] != "#"]
    assert len(series) == len(set(series))


def test_names_and_units_are_as_prometheus_wants_them() -> None:
    units = ("_total", "_seconds", "_bytes", "_ratio")
    for name, each in METRICS.items():
        assert re.fullmatch(r"opsd_[a-z_]+", name)
        assert each.is_counter == name.endswith("_total")
        assert not re.search(r"_(ms|minutes|hours|days|kib|mib|percent)(_|$)", name)
        if "second" in each.help or "When " in each.help:
            assert name.endswith(units)


def test_labels_hold_only_words_that_anybody_may_read(samples: Samples) -> None:
    allowed = {"job", "source", "place", "tier", "state", "stage", "outcome", "severity", "version"}
    assert {label for each in METRICS.values() for label in each.labels} <= allowed
    assert {label for name, labels in samples for label, _ in labels if name.startswith("opsd_")} <= allowed


def test_runs_are_counted_by_job_and_outcome(samples: Samples) -> None:
    counted = {outcome: value(samples, "opsd_job_runs_total", job="backup", outcome=outcome) for outcome in OUTCOMES}
    assert counted == dict.fromkeys(OUTCOMES, 0) | {"done": 400, "failed": 3, "interrupted": 1}
    assert value(samples, "opsd_job_runs_total", job="copy", outcome="missed") == 0


def test_a_killed_run_counts_as_interrupted_and_one_at_work_not_yet(tmp_path: Path) -> None:
    with State.open(tmp_path, NOON) as state, living(tmp_path, f"backup-{NOON}"):
        state.put(run("backup", moment, seconds=0, outcome="running") for moment in (NOON - DAY, NOON))
        assert state.counts() == {("backup", "interrupted"): 1, ("backup", "running"): 1}


def test_a_counter_does_not_fall_when_old_runs_are_forgotten(tmp_path: Path) -> None:
    killed = run("backup", NOON - 810 * DAY, seconds=0, outcome="running")
    checks = [run("self-check", NOON - day * DAY) for day in (31, 40)]
    with State.open(tmp_path, NOON) as state:
        state.put([run("backup", NOON - 900 * DAY), killed, run("backup", NOON - DAY), *checks])
        before = state.counts()
        state.forget(NOON - 20 * DAY)
        state.forget(NOON)
        assert len(state.runs()) == 1
        assert state.counts() == before
        assert before == {("backup", "done"): 2, ("backup", "interrupted"): 1, ("self-check", "done"): 2}


def test_a_run_at_work_is_told_with_its_beginning() -> None:
    past = replace(VIEW.past, runs={"backup": (run("backup", NOON - HOUR, seconds=0, outcome="running"),)})
    found = told(replace(VIEW, past=past, counts={("backup", "running"): 1}))
    assert value(found, "opsd_job_running", job="backup") == 1
    assert value(found, "opsd_job_last_attempt_timestamp_seconds", job="backup") == at(NOON - HOUR)


def test_last_success_and_last_attempt_are_told_apart(samples: Samples) -> None:
    assert value(samples, "opsd_job_last_success_timestamp_seconds", job="backup") == at(NOON - 8 * HOUR) + 60
    assert value(samples, "opsd_job_last_attempt_timestamp_seconds", job="backup") == at(NOON - HOUR) + 60
    assert value(samples, "opsd_job_running", job="backup") == 0


@pytest.mark.parametrize("other", [{"outcome": "skipped"}, {"outcome": "misdated"}, {"part": True}])
def test_what_answers_no_due_time_is_no_attempt(other: dict[str, Any]) -> None:
    skipped = run("backup", NOON - HOUR, **other)
    past = replace(VIEW.past, runs={"backup": (skipped, *VIEW.past.runs["backup"][1:])})
    found = told(replace(VIEW, past=past))
    assert value(found, "opsd_job_last_attempt_timestamp_seconds", job="backup") == at(NOON - 8 * HOUR) + 60


def test_each_job_of_the_plan_has_one_deadline_and_no_other_job_has(samples: Samples) -> None:
    jobs = {dict(labels)["job"] for name, labels in samples if name == "opsd_job_deadline_timestamp_seconds"}
    assert jobs == set(VIEW.plan.jobs)


def test_the_deadline_is_25_hours_later_in_the_night_that_the_clocks_go_back() -> None:
    zone = ZoneInfo("Europe/Paris")
    plan = Plan(zone=zone, times={"backup": "04:00"})

    def deadline(day: int) -> float:
        night = int(datetime(2026, 10, day, 4, 0, tzinfo=zone).timestamp()) * SECOND
        past = Past(runs={"backup": (run("backup", night),)}, since=night - DAY)
        found = value(
            told(replace(VIEW, now=night + HOUR, plan=plan, past=past)),
            "opsd_job_deadline_timestamp_seconds",
            job="backup",
        )
        assert found is not None
        return found

    assert deadline(24) - deadline(23) == 25 * 3600
    assert deadline(25) - deadline(24) == 24 * 3600


def test_stages_have_few_names_whatever_sources_and_databases_are_called(samples: Samples) -> None:
    told_of = {
        dict(labels)["stage"]: number
        for (name, labels), number in samples.items()
        if name == "opsd_job_last_run_stage_duration_seconds"
    }
    assert told_of == {"store": 1.0, "read": 42.5}
    assert stage_name("drill", "compare pg/customer_ltd") == "compare"
    assert stage_name("copy", "copy to paris") == "copy"
    assert stage_name("restore", "restore files") == "restore"
    assert stage_name("restore", "customer_ltd") == "other"


def test_every_stage_of_a_job_has_a_name_here() -> None:
    stated = re.compile(r"\.stage\(\s*f?\"([^\"{]+)")
    rooms = [Path("opsd") / room for room in ("backup", "restore", "retention", "verify")]
    texts = [path.read_text(encoding="utf-8") for room in rooms for path in room.rglob("*.py")]
    stages = {stage for text in texts for stage in stated.findall(text)}
    assert len(stages) > 8
    assert {stage for stage in stages if stage_name("check", stage) not in STAGES.values()} == set()


def test_recovery_points_are_told_by_source_place_and_state(samples: Samples) -> None:
    def point(place: str, state: str) -> float | None:
        return value(samples, "opsd_recovery_point_timestamp_seconds", source="www", place=place, state=state)

    assert point("repository", "stored") == at(NOON - 9 * HOUR)
    assert point("repository", "verified") == at(NOON - 20 * DAY)
    assert point("repository", "restored") == at(NOON - 4 * DAY)
    assert point("paris", "restored") == 0
    assert point("cold", "stored") == 0


def test_a_source_that_is_configured_no_more_is_not_told_and_a_new_one_was_never_stored() -> None:
    sources = {"new": SourceSeen(), "www": OBSERVED.sources["www"]}
    pulled = PlaceSeen(kind="pull", points={"db2": POINT})
    found = told(replace(VIEW, observed=replace(OBSERVED, sources=sources, places={**OBSERVED.places, "db": pulled})))
    points = [dict(labels) for name, labels in found if name == "opsd_recovery_point_timestamp_seconds"]
    labels = {(each["source"], each["place"]) for each in points}
    assert labels == {(source, place) for source in sources for place in OBSERVED.places} | {("db2", "db")}
    never = value(found, "opsd_recovery_point_timestamp_seconds", source="new", place="repository", state="stored")
    assert never == 0


def test_how_far_a_copy_is_behind_is_told_in_snapshots_and_seconds(samples: Samples) -> None:
    assert value(samples, "opsd_copy_missing_snapshots", place="paris") == 1
    assert value(samples, "opsd_copy_lag_seconds", place="paris") == 24 * 3600
    assert value(samples, "opsd_copy_lag_seconds", place="repository") is None
    assert value(samples, "opsd_copy_lag_seconds", place="cold") is None
    assert value(samples, "opsd_place_readable", place="paris") == 0
    assert value(samples, "opsd_place_readable", place="cold") == 1


def test_a_place_that_is_never_checked_has_no_share_and_one_of_unknown_room_no_room(samples: Samples) -> None:
    assert value(samples, "opsd_place_verified_ratio", place="paris", state="vouched") == 0.75
    assert value(samples, "opsd_place_oldest_unread_timestamp_seconds", place="repository") == at(NOON - 29 * DAY)
    assert value(samples, "opsd_place_oldest_unread_timestamp_seconds", place="cold") is None
    assert value(samples, "opsd_place_verified_ratio", place="cold", state="read") is None
    assert value(samples, "opsd_place_free_bytes", place="repository") == 10**9
    assert value(samples, "opsd_place_free_bytes", place="paris") is None


def test_the_drill_is_told_with_its_targets(samples: Samples) -> None:
    verdicts = [value(samples, "opsd_drill_verdict", outcome=each) for each in ("green", "deviating", "failed", "red")]
    assert verdicts == [0, 1, 0, 0]
    assert value(samples, "opsd_drill_recovery_time_seconds") == 600
    assert value(samples, "opsd_drill_recovery_time_target_seconds") == 500
    assert value(samples, "opsd_drill_green_timestamp_seconds") == at(NOON - 11 * DAY)


def test_a_promise_is_kept_until_something_critical_is_wrong_or_overdue(samples: Samples) -> None:
    assert value(samples, "opsd_promise_kept") == 1
    assert value(samples, "opsd_problems", severity="warning") == 1
    assert value(told(replace(VIEW, is_overdue=True)), "opsd_promise_kept") == 0
    broken = told(replace(VIEW, problems=(replace(VIEW.problems[0], severity=Severity.CRITICAL),)))
    assert value(broken, "opsd_promise_kept") == 0
    assert value(broken, "opsd_problems", severity="critical") == 1


def test_a_host_on_which_nobody_has_looked_yet_tells_what_it_knows() -> None:
    found = told(replace(VIEW, observed=None, past=Past(runs={}, since=NOON), counts={}))
    assert value(found, "opsd_job_deadline_timestamp_seconds", job="backup") is not None
    assert not [name for name, _ in found if name.startswith(("opsd_place", "opsd_source"))]
    quiet = told(replace(VIEW, observed=Observed(time=NOON)))
    assert value(quiet, "opsd_uncovered_databases") is None
    assert value(quiet, "opsd_drill_recovery_time_seconds") is None
    assert value(quiet, "opsd_drill_timestamp_seconds") == 0
    assert value(found, "opsd_job_last_success_timestamp_seconds", job="copy") == 0


def test_the_process_is_told_with_it(samples: Samples) -> None:
    assert (value(samples, "process_resident_memory_bytes") or 0) > 1_000_000


def with_500_sources() -> View:
    source, points = OBSERVED.sources["www"], OBSERVED.places["repository"].points["www"]
    labels = [f"source-{number}" for number in range(500)]
    places = {name: replace(place, points=dict.fromkeys(labels, points)) for name, place in OBSERVED.places.items()}
    return replace(VIEW, observed=replace(OBSERVED, sources=dict.fromkeys(labels, source), places=places))


def figures(exposition: Exposition) -> list[str]:
    """The page but for the figures of this process."""
    return [line for line in exposition.text().decode().splitlines() if "process_" not in line]


def test_what_is_held_is_what_was_shown_last() -> None:
    exposition = Exposition()
    others = [replace(VIEW, now=NOON + SECOND), with_500_sources(), replace(VIEW, observed=None), VIEW]
    for view in (VIEW, *others):
        exposition.show(view)
        fresh = Exposition()
        fresh.show(view)
        assert figures(exposition) == figures(fresh)


def test_what_stands_is_not_rendered_again_for_every_moment() -> None:
    exposition, view = Exposition(), with_500_sources()

    def cost(moment: int) -> float:
        begin = time.process_time()
        exposition.show(replace(view, now=moment))
        return time.process_time() - begin

    first = cost(NOON)
    assert min(cost(NOON + minute * 60 * SECOND) for minute in range(5)) < first / 5


def test_a_scrape_of_500_sources_takes_well_below_50_milliseconds() -> None:
    exposition = Exposition()
    exposition.show(with_500_sources())
    taken = []
    for _ in range(21):
        begin = time.perf_counter()
        page = exposition.text()
        taken.append(time.perf_counter() - begin)
    assert page.count(b"\n") > 7000
    assert statistics.median(taken) < 0.05


def test_each_metric_is_described_once_in_the_order_of_the_list() -> None:
    exposition = Exposition()
    exposition.show(VIEW)
    described = re.findall(r"^# HELP (opsd_\w+)", exposition.text().decode(), re.MULTILINE)
    assert described == list(METRICS)


def test_the_document_lists_every_metric_as_it_is() -> None:
    lines = Path("docs/metrics.md").read_text(encoding="utf-8").splitlines()
    rows = [f"| `{name}` | {', '.join(each.labels)} | {each.help} |" for name, each in METRICS.items()]
    assert [line for line in lines if line.startswith("| `opsd_")] == rows
