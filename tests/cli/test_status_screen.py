"""The screen of `opsd status`: it fits a terminal of 80 by 24, and what it leaves out it counts."""

from dataclasses import replace
from datetime import UTC

from opsd.app.status import Status
from opsd.cli.status_screen import screen
from opsd.clock import DAY
from opsd.monitor.deadlines import HOUR
from opsd.monitor.health import Health, JobHealth, Pause
from opsd.monitor.observed import Observed, PlaceSeen, Point, SourceSeen
from opsd.monitor.problems import Problem, Severity
from opsd.monitor.state import Run

#: 2023-11-15 12:00 UTC.
NOON = 1_700_049_600_000_000_000


def standing(*, sources: int = 2, problems: tuple[Problem, ...] = (), **places: PlaceSeen) -> Status:
    labels = [f"source{number}" for number in range(sources)]
    own = PlaceSeen(
        kind="repository",
        looked=NOON,
        points={label: Point(stored=NOON - DAY, verified=NOON - DAY) for label in labels},
    )
    jobs = [JobHealth(job=job, deadline=NOON + DAY, due=NOON) for job in ("backup", "copy", "prune", "check", "drill")]
    return Status(
        health=Health(time=NOON, jobs=(*jobs, JobHealth(job="self-check", deadline=NOON)), problems=problems),
        observed=Observed(
            time=NOON, host="web1", sources=dict.fromkeys(labels, SourceSeen()), places={"repository": own, **places}
        ),
    )


def problem(number: int = 1, severity: Severity = Severity.WARNING) -> Problem:
    title = f"copy paris-{number} can't be read: no route to host paris.example.org, port 22, tried 5 times in 30 s"
    return Problem(key=f"p{number}", severity=severity, title=title, next_step=f"opsd copy --to p{number}", since=NOON)


def lines(found: Status, height: int = 24) -> list[str]:
    return screen(found, UTC, height)


def test_the_first_line_answers_whether_the_promise_is_kept() -> None:
    assert lines(standing())[0] == "web1: the promise is kept"
    assert lines(standing(problems=(problem(),)))[0] == "web1: the promise is kept, with 1 warning"
    bad = standing(problems=(problem(severity=Severity.CRITICAL),))
    assert lines(bad)[0] == "web1: THE PROMISE IS NOT KEPT: 1 critical problem"
    late = replace(bad, health=replace(bad.health, overdue=frozenset({"p1"})))
    assert lines(late)[0] == "web1: THE PROMISE IS NOT KEPT: something is overdue"


def test_a_host_that_has_no_snapshot_yet_says_so() -> None:
    found = standing()
    empty = replace(found, observed=replace(found.observed, places={"repository": PlaceSeen(kind="repository")}))
    assert lines(empty)[0] == "web1: nothing is backed up yet"


def test_each_problem_is_followed_by_its_next_step() -> None:
    said = lines(standing(problems=(problem(),)))
    assert said[1].startswith(" ! copy paris-1 can't be read")
    assert said[3] == "   → opsd copy --to p1"


def test_however_much_there_is_it_fits_80_by_24_and_the_rest_is_counted() -> None:
    said = lines(standing(sources=40, problems=tuple(problem(number) for number in range(12))))
    assert len(said) <= 24
    assert all(len(each) <= 80 for each in said)
    assert any("more problems; 'opsd status --json' has all" in each for each in said)
    assert any("more sources; 'opsd status --json' has all" in each for each in said)
    many = lines(standing(sources=40))
    assert len(many) == 24 - 1
    shown = sum(each.startswith("source") for each in many)
    assert f"… and {40 - shown} more sources" in "\n".join(many)


def test_elsewhere_than_on_a_terminal_everything_is_shown() -> None:
    said = lines(standing(sources=40, problems=tuple(problem(number) for number in range(12))), 10**9)
    assert sum(each.startswith("source") for each in said) == 40
    assert sum("→" in each for each in said) == 12


def test_a_source_tells_from_which_places_it_comes_back_newest_and_how_that_was_proved() -> None:
    newer = Point(stored=NOON, restored=NOON - 3 * DAY)
    disk = PlaceSeen(kind="copy", looked=NOON, points={"source0": newer})
    gone = PlaceSeen(kind="copy", looked=NOON - DAY, error="gone", points={"source0": newer})
    said = "\n".join(lines(standing(disk=disk, gone=gone)))
    assert "source0  2023-11-15 12:00  disk        restored 2023-11-12 12:00" in said
    assert "source1  2023-11-14 12:00  repository  verified 2023-11-14 12:00" in said


def test_a_host_that_is_pulled_is_a_row_of_its_own() -> None:
    pulled = PlaceSeen(kind="pull", looked=NOON, points={"web2": Point(stored=NOON)})
    assert any(each.startswith("web2 (host)  2023-11-15 12:00  paris") for each in lines(standing(paris=pulled)))


def test_what_did_not_answer_in_time_says_when_it_was_seen() -> None:
    old = PlaceSeen(kind="copy", looked=NOON - DAY)
    assert lines(standing(paris=old))[1] == "paris did not answer in time; as seen 2023-11-14 12:00"
    assert lines(standing(paris=replace(old, looked=0)))[1] == "paris did not answer in time; never seen"
    wrong = replace(old, error="the host key has changed", failed=NOON - 2 * HOUR)
    assert lines(standing(paris=wrong))[1] == "paris did not answer in time; as seen 2023-11-15 10:00"
    assert "in time" not in "".join(lines(standing(paris=replace(wrong, failed=NOON))))


def test_a_long_reason_of_a_pause_is_folded() -> None:
    found = standing()
    pause = Pause(until=NOON + DAY, reason="moving the database " * 9)
    assert all(len(each) <= 80 for each in lines(replace(found, health=replace(found.health, pause=pause))))


def test_a_pause_stands_right_below_the_answer() -> None:
    found = standing()
    pause = Pause(until=NOON + DAY, reason="moving\x1b[2J house")
    said = lines(replace(found, health=replace(found.health, pause=pause)))
    assert said[1] == "paused until 2023-11-16 12:00: moving\\x1b[2J house"


def test_what_nothing_protects_is_counted_where_somebody_looked() -> None:
    found = standing()
    bare = replace(found.observed, uncovered_databases=1, uncovered_folders=2)
    assert lines(replace(found, observed=bare))[1] == "not covered: 1 database and 2 folders; 'opsd doctor' names them"
    assert lines(replace(found, observed=replace(bare, uncovered_databases=0, uncovered_folders=0)))[1] == ""


def test_a_job_tells_what_it_does_or_how_it_stands() -> None:
    run = Run(
        id="1", job="backup", cause="daemon", started=NOON - 3 * 10**11, stage="storing", files=12_000, bytes=3 << 30
    )
    failed = replace(run, ended=NOON, outcome="failed", exit_code=1)
    found = standing()
    backup, copy, prune, *others = found.health.jobs
    jobs = (
        replace(backup, running=run, attempt=run),
        replace(copy, due=0, after="backup", attempt=failed),
        replace(prune, is_overdue=True),
        *others,
    )
    said = lines(replace(found, health=replace(found.health, jobs=jobs)))
    assert said[1] == "backup runs for 5 min 0 s: storing, 12,000 files, 3.0 GiB"
    assert said[-5].endswith("  running")
    assert "after backup      failed 2023-11-15 11:55" in said[-4]
    assert "overdue since 2023-11-16 12:00" in said[-3]
    assert not any(each.startswith("self-check") for each in said)
