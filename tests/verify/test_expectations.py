"""What was found is judged against what was recorded."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from opsd.clock import DAY
from opsd.model import Entry, EntryType, Outcome, SnapshotSummary, SourceSummary
from opsd.verify.expectations import (
    SERVER_BYTES,
    Part,
    Verdict,
    chosen_snapshot,
    copy_of_week,
    count_problems,
    entry_problems,
    fact_problems,
    listing_deviations,
    pieces,
    role_problems,
    target_deviations,
    week_of,
    worse,
)

MONDAY = 4 * DAY  # 1970-01-05


def entry(path: Path, **changes: object) -> Entry:
    found = path.lstat()
    given = {
        "name": os.fsencode(path.name),
        "type": EntryType.FILE,
        "mode": found.st_mode & 0o7777,
        "uid": found.st_uid,
        "gid": found.st_gid,
        "mtime": found.st_mtime_ns,
        "size": found.st_size,
        **changes,
    }
    return Entry(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, None),
        ({"type": EntryType.FIFO}, "is of another kind"),
        ({"size": 7}, "has 5 bytes instead of 7"),
        ({"mode": 0o600}, "has mode 0640 instead of 0600"),
        ({"mtime": 1}, "has another time of change"),
    ],
    ids=str,
)
def test_an_entry_is_compared_in_all_that_it_says(
    change: dict[str, object], problem: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_text("hello")
    path.chmod(0o640)
    found = path.lstat()
    owner = (found.st_uid, found.st_gid)
    assert list(entry_problems(entry(path, **change), found, owner, None)) == ([problem] if problem else [])


def test_an_owner_counts_only_where_it_could_be_given(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch(mode=0o755)
    found = path.lstat()
    assert any("belongs to" in each for each in entry_problems(entry(path), found, (4711, 4711), None))
    assert list(entry_problems(entry(path, uid=4711, mode=found.st_mode & 0o777 | 0o4000), found, None, None)) == []


def test_a_link_must_lead_where_it_led(tmp_path: Path) -> None:
    path = tmp_path / "link"
    path.symlink_to("here")
    recorded = entry(path, type=EntryType.SYMLINK, target=b"there")
    assert list(entry_problems(recorded, path.lstat(), None, b"here")) == ["leads elsewhere"]


def test_facts_of_sqlite_are_compared_as_far_as_they_were_recorded() -> None:
    recorded = {"checked": True, "page_size": 4096, "schema": "a", "tables": {"one": 1, "two": 2, "three": 3}}
    found = {"page_size": 4096, "page_count": 9, "schema": "b", "tables": {"one": 1, "two": 3}}
    assert list(fact_problems(recorded, found)) == [
        "has another schema",
        "table two has 3 rows instead of 2",
        "table three is missing",
    ]
    assert list(fact_problems({}, found)) == []


def test_rows_and_roles_that_are_missing_are_named() -> None:
    assert list(count_problems({"a": 1}, {})) == ["table a is missing"]
    assert list(role_problems(["app", "web"], 3, ["app", "x"])) == ["role web is missing"]
    assert list(role_problems(["app"], 2, ["app"])) == ["has 1 roles instead of 2"]
    assert list(role_problems(["app"], 2, ["app", "more"])) == []


def test_a_listing_that_has_lost_files_deviates() -> None:
    recorded = SourceSummary(label="www", kind="files", outcome=Outcome.COMPLETE, files=3, bytes=70)
    assert list(listing_deviations(recorded, (3, 70))) == []
    (found,) = listing_deviations(recorded, (2, 70))
    assert "has 2 files of 70 bytes, and 3 of 70 were recorded" in str(found)


def test_a_missed_target_deviates_and_no_target_never_does() -> None:
    found = list(target_deviations({"time": 5.0, "point": 5.0}, {"time": 4.0, "point": None}, str))
    assert [(each.subject, each.severity) for each in found] == [("time", Verdict.DEVIATING)]
    assert "target is 4.0" in found[0].problem


def test_wrong_data_outweighs_all_else_and_exit_codes_tell_them_apart() -> None:
    assert worse(Verdict.RED, Verdict.FAILED) is Verdict.RED
    assert worse(Verdict.DEVIATING, Verdict.FAILED) is Verdict.FAILED
    assert [each.exit_code for each in Verdict] == [0, 3, 1, 4]


def test_each_week_has_its_copy() -> None:
    names = ["disk", "paris", "cold"]
    assert week_of(MONDAY) == week_of(MONDAY + 7 * DAY - 1) == week_of(MONDAY - 1) + 1
    turns = [copy_of_week(names, MONDAY + week * 7 * DAY) for week in range(6)]
    assert set(turns[:3]) == set(names)
    assert turns[:3] == turns[3:]
    assert copy_of_week([], MONDAY) is None


def snapshot(day: int, *, complete: bool = True, job: str = "all", host: str = "") -> SnapshotSummary:
    return SnapshotSummary(
        id=str(day),
        name="",
        writer=b"",
        run=b"",
        sequence=0,
        started=day * DAY,
        ended=0,
        received=0,
        zone="",
        host=host,
        job=job,
        tags=(),
        complete=complete,
        sources=(),
        files=0,
        bytes=0,
        added_bytes=0,
        version="",
    )


def chosen(snapshots: Sequence[SnapshotSummary], day: int, host: str = "") -> str | None:
    found = chosen_snapshot(snapshots, day * DAY, host)
    return found.id if found else None


def test_what_a_wrong_clock_dated_ahead_of_later_ones_is_not_the_newest_to_drill() -> None:
    first, ahead = replace(snapshot(1), sequence=1), replace(snapshot(400), sequence=2)
    assert chosen([first, ahead], 0) == "400"
    assert chosen([first, replace(snapshot(3), sequence=3), ahead], 0) == "3"


def test_the_newest_complete_snapshot_is_drilled_and_now_and_then_an_older_one() -> None:
    snapshots = [snapshot(1), snapshot(5), snapshot(20), snapshot(21, complete=False), snapshot(22, job="safety")]
    picks = [chosen(snapshots, 30 + 7 * week) for week in range(20)]
    assert picks.count("20") == 16
    assert set(picks) == {"20", "1", "5"}
    assert {chosen(snapshots[1:3], 30 + 7 * week) for week in range(20)} == {"20", "5"}
    assert {chosen([snapshot(15), snapshot(20)], 30 + 7 * week) for week in range(20)} == {"20"}
    assert chosen([snapshot(2), snapshot(3, job="part")], 30) == "2"
    assert chosen([snapshot(3, job="part"), snapshot(4, job="safety")], 30) == "3"
    assert chosen(snapshots[3:], 30) is None


def test_in_a_repository_of_several_hosts_a_host_drills_its_own_snapshots_and_a_stranger_the_newest() -> None:
    snapshots = [snapshot(1, host="web"), snapshot(2, host="mail")]
    assert [chosen(snapshots, 3, host) for host in ("web", "mail", "backup")] == ["1", "2", "2"]


def test_what_fits_is_restored_at_once_and_what_does_not_one_by_one() -> None:
    parts = [
        Part(source="www", size=100),
        Part(source="shop", size=50, database="a"),
        Part(source="shop", size=50, database="b"),
    ]
    (whole,) = pieces(parts, SERVER_BYTES + 200)
    assert whole.whole
    assert (whole.files(), whole.databases()) == (("www",), {"shop": ["a", "b"]})
    alone = pieces(parts, SERVER_BYTES + 199)
    assert [each.parts for each in alone] == [(part,) for part in parts]
    assert not any(each.whole for each in alone)
