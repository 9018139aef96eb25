"""What the past and what is there come to; each problem from a case that has it, and only it."""

from dataclasses import replace
from datetime import UTC

import pytest

from opsd.clock import DAY
from opsd.monitor.deadlines import HOUR, Past, Plan
from opsd.monitor.health import Besides, Health, Pause, judge
from opsd.monitor.observed import DrillSeen, Observed, PlaceSeen, Point, SourceSeen, Tier
from opsd.monitor.problems import Problem, Severity
from opsd.monitor.state import Run

#: 2023-11-15 12:00 UTC, a Wednesday.
NOON = 1_700_049_600_000_000_000
NIGHT = NOON - 8 * HOUR
PLAN = Plan(
    zone=UTC,
    times={"backup": "04:00", "check": "05:00", "drill": "Sun 06:00", "self-check": "every 1h"},
    after={"copy": "backup", "prune": "copy"},
)


def run(job: str, started: int, **more: object) -> Run:
    given = {"ended": started + HOUR // 4, "outcome": "done", "exit_code": 0} | more
    return Run(id=f"{job}{started}", job=job, cause="daemon", started=started, **given)  # type: ignore[arg-type]


def nights(*, good: int = 3, now: int = NOON) -> Past:
    """A past in which every job did its work; `good` nights of it."""
    begun = {"backup": 0, "copy": HOUR // 2, "prune": HOUR, "check": HOUR}
    runs = {job: [run(job, NIGHT + apart - day * DAY) for day in range(good)] for job, apart in begun.items()}
    drills = [run("drill", NIGHT - 3 * DAY + 2 * HOUR)]
    return Past(
        runs=runs | {"drill": drills, "self-check": [run("self-check", now - HOUR // 2)]}, since=NOON - 30 * DAY
    )


def place(kind: str = "repository", **more: object) -> PlaceSeen:
    given = {
        "looked": NOON,
        "snapshots": 20,
        "newest": NIGHT,
        "completed": NIGHT + HOUR,
        "free": 10**12,
        "unread": NOON - 20 * DAY,
        "points": {"www": Point(stored=NIGHT)},
    } | more
    return PlaceSeen(kind=kind, **given)  # type: ignore[arg-type]


WELL = Observed(
    time=NOON,
    host="web1",
    sources={"www": SourceSeen(outcome="complete", added_bytes=10**6)},
    places={"repository": place(), "paris": place("copy")},
    tiers={"daily": Tier(kept=20, required=20)},
    drill=DrillSeen(time=NIGHT - 3 * DAY, verdict="green", green=NIGHT - 3 * DAY, recovery_time=60.0),
    kit_made=NOON - 60 * DAY,
)


def seen(**places: PlaceSeen) -> Observed:
    return replace(WELL, places={**WELL.places, **places})


def health(
    observed: Observed | None = WELL, past: Past | None = None, *, now: int = NOON, plan: Plan = PLAN, **more: object
) -> Health:
    return judge(plan, past or nights(), observed, now, Besides(**more))  # type: ignore[arg-type]


def keys(found: Health) -> list[str]:
    return [each.key for each in found.problems]


def test_a_site_that_did_all_has_no_problem_and_ends_with_0() -> None:
    found = health()
    assert (keys(found), found.is_kept, found.exit_code) == ([], True, 0)
    assert [job.job for job in found.jobs] == ["backup", "copy", "prune", "check", "drill", "self-check"]
    backup = found.jobs[0]
    assert backup.due == NIGHT + DAY
    assert backup.success is backup.attempt is not None
    assert found.jobs[1].after == "backup"


@pytest.mark.parametrize(
    ("expected", "severity", "exit_code", "observed"),
    [
        ("repository.emptied", "critical", 4, seen(repository=place(lost=2, snapshots=0, newest=0, points={}))),
        ("repository.damaged", "critical", 4, seen(repository=place(damaged=2, snapshots=0, newest=0, points={}))),
        ("copy.paris.damaged", "critical", 4, seen(paris=place("copy", damaged=2, snapshots=0, newest=0, points={}))),
        ("repository.unreadable", "critical", 4, seen(repository=place(error="input/output error"))),
        ("repository.unreadable", "critical", 3, seen(repository=PlaceSeen(kind="repository", error="nothing there"))),
        ("source.www.failed", "critical", 3, replace(WELL, sources={"www": SourceSeen(outcome="failed")})),
        ("source.www.unread", "warning", 3, replace(WELL, sources={"www": SourceSeen(outcome="warnings", warnings=1)})),
        ("source.new.stale", "warning", 3, replace(WELL, sources={**WELL.sources, "new": SourceSeen()})),
        ("source.www.stale", "critical", 5, seen(repository=place(points={"www": Point(stored=NIGHT - 3 * DAY)}))),
        ("copy.paris.emptied", "critical", 4, seen(paris=place("copy", lost=1))),
        ("copy.paris.unreadable", "warning", 3, seen(paris=place("copy", error="no route to host"))),
        ("copy.paris.behind", "critical", 5, seen(paris=place("copy", newest=NIGHT - 2 * DAY))),
        ("copy.paris.behind", "warning", 3, replace(seen(paris=place("copy", newest=0)), kit_made=NOON - HOUR)),
        ("copy.other.behind", "critical", 5, seen(other=place("pull", due=NOON - 2 * DAY))),
        ("space.low", "warning", 3, seen(repository=place(free=1_000_000))),
        ("copy.paris.space", "critical", 3, seen(paris=place("copy", free=999))),
        ("check.unread", "warning", 3, seen(repository=place(unread=NOON - 40 * DAY))),
        ("copy.paris.unread", "warning", 3, seen(paris=place("copy", unread=NOON - 40 * DAY))),
        ("retention.short", "warning", 3, replace(WELL, tiers={"daily": Tier(kept=19, required=20)})),
        ("drill.red", "critical", 4, replace(WELL, drill=replace(WELL.drill, verdict="red"))),
        ("drill.undone", "warning", 3, replace(WELL, drill=replace(WELL.drill, verdict="failed"))),
        ("drill.deviating", "warning", 3, replace(WELL, drill=replace(WELL.drill, verdict="deviating"))),
        ("drill.slow", "warning", 3, replace(WELL, drill=replace(WELL.drill, recovery_time_target=59.0))),
        ("drill.slow", "warning", 3, replace(WELL, drill=replace(WELL.drill, recovery_point=9e9, recovery_point_target=1.0))),
        ("kit.unused", "warning", 3, replace(WELL, kit_made=NOON - 400 * DAY)),
    ],
)  # fmt: skip
def test_what_stands_there_tells_one_problem(expected: str, severity: str, exit_code: int, observed: Observed) -> None:
    found = health(observed)
    assert keys(found) == [expected]
    (problem,) = found.problems
    assert (problem.severity, found.exit_code) == (Severity(severity), exit_code)
    assert problem.title
    assert "\n" not in problem.title
    assert problem.next_step
    assert found.is_kept == (severity == "warning")


def test_of_a_place_that_never_answered_nothing_is_claimed_before_it_is_overdue() -> None:
    unseen = PlaceSeen(kind="copy")
    assert keys(health(replace(seen(paris=unseen), kit_made=NOON - HOUR))) == []
    assert keys(health(seen(paris=unseen))) == ["copy.paris.behind"]


def test_a_kit_that_was_used_within_a_year_is_known_to_work() -> None:
    assert keys(health(replace(WELL, kit_made=NOON - 400 * DAY, kit_used=NOON - 300 * DAY))) == []


def test_a_site_without_scheduled_drills_is_told_once_that_it_never_had_one() -> None:
    plan = Plan(zone=UTC, times={name: at for name, at in PLAN.times.items() if name != "drill"}, after=PLAN.after)
    assert keys(health(replace(WELL, drill=DrillSeen()), plan=plan)) == ["drill.never"]
    assert keys(health(replace(WELL, drill=DrillSeen(), kit_made=NOON - DAY), plan=plan)) == []


@pytest.mark.parametrize("job", ["backup", "copy", "prune", "check", "drill", "self-check"])
def test_each_job_is_overdue_once_its_deadline_passed(job: str) -> None:
    past = nights()
    old = {"backup": 3, "copy": 3, "prune": 3, "check": 3, "drill": 20, "self-check": 1}[job]
    past = replace(past, runs={**past.runs, job: [run(job, NIGHT - old * DAY)]})
    found = health(None, past)
    assert f"{job}.overdue" in keys(found)
    assert (found.exit_code, found.is_kept) == (5, False)
    told = next(each for each in found.problems if each.key == f"{job}.overdue")
    assert told.since < NOON
    assert told.severity is (Severity.CRITICAL if job in {"backup", "copy", "self-check"} else Severity.WARNING)


def test_overdue_wins_over_doubt_since_both_are_told() -> None:
    past = replace(nights(), runs={**nights().runs, "backup": [run("backup", NIGHT - 3 * DAY)]})
    found = health(replace(WELL, drill=replace(WELL.drill, verdict="red")), past)
    assert {"backup.overdue", "drill.red"} <= set(keys(found))
    assert found.exit_code == 5


def test_a_pause_is_shown_and_hides_no_deadline() -> None:
    past = replace(nights(), runs={**nights().runs, "backup": [run("backup", NIGHT - 3 * DAY)]})
    pause = Pause(until=NOON + DAY, reason="moving house")
    assert health(pause=pause).pause == pause
    assert health(pause=pause).problems == ()
    assert "backup.overdue" in keys(health(None, past, pause=pause))
    assert health(pause=Pause(until=NOON - 1, reason="over")).pause is None


@pytest.mark.parametrize(
    ("outcome", "exit_code", "words", "whole"),
    [
        ("failed", 1, "failed: disk full", 3),
        ("interrupted", None, "was cut off: disk full", 3),
        ("failed", 4, "failed: disk full", 4),
    ],
)
def test_a_run_that_failed_is_told_until_the_next_good_one(
    outcome: str, exit_code: int | None, words: str, whole: int
) -> None:
    bad = run("backup", NOON - HOUR, outcome=outcome, exit_code=exit_code, error="disk full", hint="make room")
    past = nights()
    found = health(past=replace(past, runs={**past.runs, "backup": [bad, *past.runs["backup"]]}))
    assert keys(found) == ["backup.failed"]
    assert found.problems[0].title == f"the last backup {words}"
    assert found.problems[0].next_step == "make room"
    assert found.exit_code == whole
    again = [run("backup", NOON - HOUR // 2), bad, *past.runs["backup"]]
    assert keys(health(past=replace(past, runs={**past.runs, "backup": again}))) == []


@pytest.mark.parametrize("outcome", ["running", "skipped", "missed", "postponed"])
def test_what_only_waits_or_is_at_work_did_not_fail(outcome: str) -> None:
    past = nights()
    waits = run("backup", NOON - 1, outcome=outcome, ended=0, exit_code=None)
    found = health(past=replace(past, runs={**past.runs, "backup": [waits, *past.runs["backup"]]}))
    assert keys(found) == []
    assert (found.jobs[0].running is not None) == (outcome == "running")


def test_a_part_of_a_job_is_no_attempt_at_it() -> None:
    past = nights()
    bad = run("backup", NOON - HOUR, outcome="failed", exit_code=1, part=True)
    found = health(past=replace(past, runs={**past.runs, "backup": [bad, *past.runs["backup"]]}))
    assert keys(found) == []
    assert found.jobs[0].attempt == past.runs["backup"][0]


def test_a_look_by_hand_neither_owes_another_nor_hides_that_the_daemon_is_dead() -> None:
    past = nights()
    by_hand = replace(run("self-check", NOON - 5 * HOUR), cause="person")
    assert keys(health(past=replace(past, runs={**past.runs, "self-check": [by_hand]}))) == []
    now = replace(by_hand, started=NOON - 60)
    dead = run("self-check", NOON - 5 * HOUR)
    assert keys(health(past=replace(past, runs={**past.runs, "self-check": [now, dead]}))) == ["self-check.overdue"]


def test_a_site_that_never_had_a_daemon_owes_no_self_check() -> None:
    past = nights()
    assert keys(health(past=replace(past, runs={**past.runs, "self-check": []}))) == []


def test_one_incident_is_one_problem_though_several_rules_see_it() -> None:
    past = nights()
    late = replace(past, runs={**past.runs, "backup": [run("backup", NIGHT - 3 * DAY)], "copy": [], "prune": []})
    old = place(points={"www": Point(stored=NIGHT - 3 * DAY)})
    told = keys(health(seen(repository=old, paris=place("copy", newest=NIGHT - 4 * DAY)), late))
    assert "source.www.stale" not in told
    assert "copy.overdue" not in told
    assert {"backup.overdue", "copy.paris.behind", "prune.overdue"} <= set(told)
    bad = run("backup", NOON - HOUR, outcome="failed", exit_code=1, error="www failed")
    failed = replace(past, runs={**past.runs, "backup": [bad, *past.runs["backup"]]})
    assert keys(health(replace(WELL, sources={"www": SourceSeen(outcome="failed")}), failed)) == ["source.www.failed"]
    red = replace(
        past, runs={**past.runs, "drill": [run("drill", NOON, outcome="failed", exit_code=4), *past.runs["drill"]]}
    )
    assert keys(health(replace(WELL, drill=replace(WELL.drill, verdict="red")), red)) == ["drill.red"]


def test_a_clock_that_was_set_back_is_told_since_no_deadline_holds_then() -> None:
    found = health(now=NOON - 365 * DAY)
    assert "clock.back" in keys(found)
    assert not found.is_kept


def test_runs_that_the_daemon_dated_right_again_are_told_for_a_day() -> None:
    past = nights()
    wrong = run("copy", NOON - HOUR, outcome="misdated", exit_code=0)
    runs = {**past.runs, "copy": [wrong, *past.runs["copy"]]}
    assert keys(health(past=replace(past, runs=runs))) == ["clock.back"]
    old = replace(wrong, started=NOON - 2 * DAY)
    runs = {**past.runs, "copy": [*past.runs["copy"], old]}
    assert keys(health(past=replace(past, runs=runs))) == []


def test_what_others_found_and_a_state_made_anew_are_told_as_well() -> None:
    other = Problem(key="alerts.anna", severity=Severity.WARNING, title="no mail", next_step="see it", since=NOON)
    assert health(problems=(other,)).problems == (other,)
    assert keys(health(rebuilt=NOON - HOUR)) == ["state.rebuilt"]
    assert keys(health(rebuilt=NOON - 2 * DAY)) == []


def test_a_new_site_owes_nothing_before_its_first_deadline_and_all_after() -> None:
    new = Past(runs={}, since=NOON)
    nothing = replace(WELL, sources={"www": SourceSeen()}, kit_made=NOON, drill=DrillSeen(), tiers={}, places={
        "repository": place(snapshots=0, newest=0, points={}, unread=0), "paris": place("copy", newest=0, snapshots=0, points={}, unread=0),
    })  # fmt: skip
    found = health(nothing, new)
    assert (keys(found), found.exit_code) == (["source.www.stale"], 3)
    later = health(nothing, new, now=NOON + 2 * DAY)
    assert "backup.overdue" in keys(later)
    assert later.exit_code == 5


def test_a_copy_that_did_all_since_the_last_good_backup_is_not_late_because_the_backup_is() -> None:
    past = nights()
    late = replace(past, runs={**past.runs, "backup": [run("backup", NIGHT - 3 * DAY)]})
    found = health(past=late)
    assert "backup.overdue" in keys(found)
    assert not {"copy.overdue", "prune.overdue"} & set(keys(found))


def test_what_is_told_as_another_problem_is_named_as_covered() -> None:
    past = nights()
    failed = replace(past, runs={**past.runs, "backup": [run("backup", NIGHT, outcome="failed", exit_code=1)]})
    found = health(replace(WELL, sources={"www": SourceSeen(outcome="failed")}), failed)
    (told,) = [each for each in found.problems if each.key == "source.www.failed"]
    assert told.covers == ("backup.failed",)


def test_a_source_that_failed_says_why_and_what_to_do_as_its_run_kept_it() -> None:
    past = nights()
    failures = {"www": ["source www: /srv: no such file", "mount it"]}
    kept = run("backup", NIGHT, outcome="failed", exit_code=1, details={"failures": failures})
    failed = replace(past, runs={**past.runs, "backup": [kept]})
    found = health(replace(WELL, sources={"www": SourceSeen(outcome="failed")}), failed)
    (told,) = [each for each in found.problems if each.key == "source.www.failed"]
    assert (told.title, told.next_step) == ("source www failed in the last backup: /srv: no such file", "mount it")


def test_a_daemon_that_looks_again_after_a_sleep_works_and_one_that_hangs_does_not() -> None:
    past = nights()
    slept = [run("self-check", NOON - 9 * HOUR)]
    again = run("self-check", NOON - HOUR // 60, outcome="running", ended=0, exit_code=None)
    for begun, is_told in ((again, False), (replace(again, started=NOON - 5 * HOUR), True)):
        found = health(past=replace(past, runs={**past.runs, "self-check": [begun, *slept]}))
        assert ("self-check.overdue" in keys(found)) is is_told
