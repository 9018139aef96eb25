"""What is due, decided from runs alone."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from opsd.clock import DAY, SECOND
from opsd.daemon.schedule import Decision, Note, Start, decide
from opsd.monitor.deadlines import HOUR, Past, Plan, deadline
from opsd.monitor.state import Run

PARIS = ZoneInfo("Europe/Paris")
PLAN = Plan(zone=PARIS, times={"backup": "04:00", "drill": "Sun 06:00"}, after={"copy": "backup", "prune": "copy"})
MINUTE = 60 * SECOND


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=PARIS).timestamp()) * SECOND


NOW = at("2026-11-26 12:00")
FOUR = at("2026-11-26 04:00")


def run(job: str = "backup", outcome: str = "done", **given: object) -> Run:
    started = given.pop("started", FOUR)
    values: Mapping[str, object] = {"slot": FOUR, "exit_code": 0, "ended": int(str(started)) + MINUTE, **given}
    return Run(id=f"{job}-{started}-{outcome}", job=job, cause="daemon", started=started, outcome=outcome, **values)  # type: ignore[arg-type]


def decided(
    *runs: Run, busy: Sequence[str] = (), now: int = NOW, since: int = FOUR - 5 * HOUR, configured: int = 0
) -> Decision:
    jobs = {each.job for each in runs}
    newest = {job: sorted((r for r in runs if r.job == job), key=lambda r: r.started, reverse=True) for job in jobs}
    return decide(PLAN, Past(runs=newest, since=since, configured=configured), busy, now)


def test_a_new_host_owes_nothing_that_was_due_before_it_was_there() -> None:
    assert decided(since=FOUR + 1) == Decision()


def test_what_was_due_while_nobody_looked_is_started_once() -> None:
    assert decided().starts == (Start(job="backup", slot=FOUR, attempt=1),)
    assert decided(run()).starts == (Start(job="copy", slot=FOUR + MINUTE, attempt=1),)


def test_of_several_times_that_passed_the_newest_is_caught_up_with_and_the_others_were_missed() -> None:
    found = decided(since=FOUR - 3 * DAY + HOUR)
    assert [each.slot for each in found.starts if each.job == "backup"] == [FOUR]
    missed = [Note(job="backup", slot=FOUR - days * DAY, outcome="missed") for days in (2, 1)]
    assert [each for each in found.notes if each.job == "backup"] == missed


def test_a_backup_that_a_person_started_after_it_was_due_answers_it_and_a_part_of_one_does_not() -> None:
    by_hand = run(slot=0, started=FOUR + HOUR)
    assert [each.job for each in decided(by_hand).starts] == ["copy"]
    part = run(slot=0, started=FOUR + HOUR, part=True)
    assert [each.job for each in decided(part).starts] == ["backup"]


@pytest.mark.parametrize(
    ("outcome", "exit_code", "pause"),
    [("failed", 1, 15), ("postponed", 75, 10), ("interrupted", None, 0), ("stopped", 143, 0)],
)
def test_it_is_tried_again_after_a_pause_that_fits_how_it_ended(outcome: str, exit_code: int, pause: int) -> None:
    ended = run(outcome=outcome, exit_code=exit_code)
    due = ended.ended + pause * MINUTE
    assert decided(ended, now=due - 1).starts == ()
    assert decided(ended, now=due).starts == (Start(job="backup", slot=FOUR, attempt=2),)


def test_damage_is_not_tried_again_for_a_person_must_look() -> None:
    assert decided(run(outcome="integrity", exit_code=4), configured=NOW).starts == ()


def test_a_mistake_in_the_configuration_is_tried_again_as_soon_as_another_one_is_taken() -> None:
    refused = run(outcome="refused", exit_code=2)
    soon = refused.ended + MINUTE
    assert decided(refused, now=soon, configured=FOUR).starts == ()
    assert decided(refused, now=soon, configured=soon).starts == (Start(job="backup", slot=FOUR, attempt=2),)
    again = run(outcome="refused", exit_code=2, started=soon)
    assert decided(again, refused, now=soon + 2 * MINUTE, configured=soon).starts == ()


def test_a_secret_that_is_back_needs_no_reload() -> None:
    refused = run(outcome="refused", exit_code=2)
    assert decided(refused, now=refused.ended + 15 * MINUTE).starts == (Start(job="backup", slot=FOUR, attempt=2),)


def test_nights_that_were_kept_are_not_missed_because_the_clock_was_back_for_a_while() -> None:
    """What ran on the nights before was dated in the future then, and so put aside."""
    kept = run(outcome="misdated", slot=0, started=FOUR - 365 * DAY, details={"dated": FOUR - DAY})
    found = decided(kept, since=FOUR - 366 * DAY)
    assert [each for each in found.notes if each.job == "backup"] == []
    assert [each.slot for each in found.starts if each.job == "backup"] == [FOUR]


def test_older_nights_were_missed_also_where_a_person_made_up_for_the_newest() -> None:
    by_hand = run(slot=0, started=FOUR + HOUR)
    found = decided(by_hand, since=FOUR - 2 * DAY + HOUR)
    assert [each.slot for each in found.notes if each.job == "backup"] == [FOUR - DAY]


def test_a_time_that_comes_while_the_last_one_still_runs_is_skipped_and_said_once() -> None:
    still = run(outcome="running", slot=FOUR - DAY, started=FOUR - HOUR, ended=0, exit_code=None)
    found = decided(still, busy=["backup"])
    assert found == Decision(notes=(Note(job="backup", slot=FOUR, outcome="skipped"),))
    skipped = run(outcome="skipped", ended=FOUR)
    assert decided(still, skipped, busy=["backup"]) == Decision()


def test_a_time_that_was_skipped_is_not_made_up_for_when_the_earlier_run_has_ended() -> None:
    late = run(slot=FOUR - DAY, started=FOUR - HOUR, ended=FOUR + HOUR)
    skipped = run(outcome="skipped", ended=FOUR)
    assert [each.job for each in decided(late, skipped).starts] == ["copy"]


def test_copies_follow_a_backup_that_failed_in_part_and_prune_a_copy_that_was_given_up() -> None:
    partly = run(outcome="failed", exit_code=4, details={"snapshot": "abc"})
    assert [each.job for each in decided(partly).starts] == ["copy"]
    slot = partly.ended
    tries = [
        run("copy", "failed", slot=slot, exit_code=1, started=slot + number * HOUR, attempt=number)
        for number in range(1, 4)
    ]
    assert [each.job for each in decided(partly, *tries, now=slot + 4 * HOUR).starts] == []
    given_up = [*tries, run("copy", "failed", slot=slot, exit_code=1, started=slot + 7 * HOUR, attempt=4)]
    assert [each.job for each in decided(partly, *given_up, now=slot + 8 * HOUR).starts] == ["prune"]


def test_a_run_that_a_clock_far_ahead_has_dated_answers_nothing() -> None:
    ahead = run(started=NOW + DAY, slot=NOW + DAY)
    assert [each.job for each in decided(ahead).starts] == ["backup"]


def test_a_deadline_is_right_on_the_day_on_which_summer_time_ends() -> None:
    begun = at("2026-10-24 04:00")
    past = Past(runs={"backup": [run(started=begun, slot=begun)]}, since=begun)
    assert deadline(PLAN, past, "backup", begun + HOUR) == begun + 25 * HOUR + HOUR


def test_a_copy_has_its_deadline_after_the_backup_that_it_brings() -> None:
    made = run(started=FOUR)
    past = Past(
        runs={"backup": [made], "copy": [run("copy", started=FOUR - DAY, slot=FOUR - DAY)]}, since=FOUR - 9 * DAY
    )
    assert deadline(PLAN, past, "copy", NOW) == made.ended + HOUR
