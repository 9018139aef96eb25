"""`opsd restore` as it is asked for; what it writes is proved in tests/restore."""

import os

import pytest

from tests.support.command_line import Desk, contents


@pytest.fixture
def full(desk: Desk) -> Desk:
    """A desk with a tree in `data` and a snapshot of it."""
    desk.ok("init")
    desk.ok("backup", str(desk.tree()))
    return desk


def test_all_goes_below_the_source_and_its_full_path(taken: Desk) -> None:
    found = taken.ok("restore", "latest", "--to", "all", "--json").json
    root = taken.folder / "data"
    assert contents(taken.folder / "all" / "files" / str(root)[1:]) == contents(root)
    assert found["written"]["files"] == 4
    assert found["damaged"] == []


def test_a_path_gives_the_content_of_that_folder(taken: Desk) -> None:
    taken.ok("restore", f"latest:{taken.folder}/data/deep", "--to", "some/where")
    assert contents(taken.folder / "some" / "where") == contents(taken.folder / "data" / "deep")


def test_patterns_narrow_what_comes_back(taken: Desk) -> None:
    taken.ok("restore", "latest", "--to", "narrow", "--path", "*.txt")
    names = {path.name for path in (taken.folder / "narrow").rglob("*") if path.is_file()}
    assert names == {"hello.txt", "new.txt"}


def test_a_folder_that_holds_something_is_refused(taken: Desk) -> None:
    ran = taken.run("restore", "latest", "--to", "data")
    assert ran.code == 1
    assert "not empty" in ran.err


def test_a_restore_needs_to_be_told_where_to(taken: Desk) -> None:
    assert taken.run("restore", "latest").code == 2
    assert taken.run("restore", "latest", "--to", "x", "--delete").code == 2


def test_an_unknown_path_names_what_helps(taken: Desk) -> None:
    ran = taken.run("restore", "latest:/no/such", "--to", "nothing")
    assert ran.code == 1
    assert "opsd find" in ran.err
    assert not (taken.folder / "nothing").exists()


def test_a_time_picks_the_newest_snapshot_not_after_it(taken: Desk) -> None:
    first, second = (each["id"] for each in taken.ok("snapshots", "--json").json)
    between = (taken.folder / "between.txt").read_text()
    plan = taken.ok("restore", "--at", between, "--to", "then", "--plan", "--json").json
    assert plan["snapshot"] == first
    assert taken.ok("restore", "--at", "now", "--to", "then", "--plan", "--json").json["snapshot"] == second
    assert taken.run("restore", "--at", "1999-12-31", "--to", "then").code == 1
    assert taken.run("restore", "--at", "soon", "--to", "then").code == 2


def test_a_plan_says_what_would_be_written_and_changes_nothing(taken: Desk) -> None:
    plan = taken.ok("restore", "latest", "--to", "planned", "--plan", "--json").json
    assert plan["created"]["files"] == 4
    assert plan["bytes"] > 400_000
    assert not (taken.folder / "planned").exists()


def test_the_kit_alone_lists_and_restores_on_a_new_machine(taken: Desk) -> None:
    stranger = taken.bare()
    kit = ["--repository", f"{taken.folder}/repository", "--kit-file", f"{taken.folder}/kit.txt"]
    assert len(stranger.ok("snapshots", "--json", *kit).json) == 2
    assert stranger.ok("ls", "latest", *kit).text
    stranger.ok("restore", "latest", "--to", "rescued", *kit)
    root = taken.folder / "data"
    assert contents(taken.folder / "rescued" / "files" / str(root)[1:]) == contents(root)


def test_a_mistyped_kit_is_told_from_a_wrong_one(taken: Desk) -> None:
    kit = (taken.folder / "kit.txt").read_text()
    wrong = taken.folder / "mistyped.txt"
    wrong.write_text(kit[:-1] + ("A" if kit[-1] != "A" else "B"))
    ran = taken.bare().run("ls", "latest", "--repository", f"{taken.folder}/repository", "--kit-file", str(wrong))
    assert ran.code == 1
    assert "mistyped" in ran.err


def test_in_place_needs_a_confirmation(full: Desk) -> None:
    (full.folder / "data" / "hello.txt").write_text("spoilt")
    ran = full.run("restore", "latest", "--in-place")
    assert ran.code == 2
    assert "--yes" in ran.err
    assert (full.folder / "data" / "hello.txt").read_text() == "spoilt"


def test_in_place_writes_only_what_differs_after_a_safety_snapshot(full: Desk) -> None:
    root = full.folder / "data"
    before = contents(root)
    (root / "hello.txt").write_text("spoilt")
    (root / "mine.txt").write_text("mine")
    found = full.ok("restore", "latest", "--in-place", "--yes", "--json").json
    assert contents(root) == {**before, "mine.txt": b"mine"}
    assert found["written"] == {"files": 1, "hard links": 1}
    listed = full.ok("snapshots", "--json").json
    assert listed[-1]["job"] == "safety"
    assert listed[-1]["id"] == found["safety_snapshot"]
    assert full.ok("cat", f"{found['safety_snapshot']}:{root}/hello.txt").text == "spoilt"


def test_deletions_are_planned_and_made_only_when_asked_for(full: Desk) -> None:
    root = full.folder / "data"
    before = contents(root)
    (root / "mine.txt").write_text("mine")
    plan = full.ok("restore", "latest", "--in-place", "--delete", "--plan", "--json").json
    assert [os.path.basename(path) for path in plan["deletions"]] == ["mine.txt"]
    assert (root / "mine.txt").exists()
    full.ok("restore", "latest", "--in-place", "--delete", "--yes", "--no-safety-snapshot")
    assert contents(root) == before
    assert [each["job"] for each in full.ok("snapshots", "--json").json] == ["part"]


def test_what_a_program_made_has_no_place_to_go_back_to(desk: Desk) -> None:
    desk = desk.configured("mail: {command: {run: [echo, hi], name: mail}}")
    desk.ok("init")
    desk.ok("backup")
    ran = desk.run("restore", "latest", "--in-place", "--yes")
    assert ran.code == 2
    assert "--to DIR" in ran.err
    assert not os.path.exists("/mail")
    desk.ok("restore", "latest", "--to", "out")
    assert (desk.folder / "out" / "mail" / "mail").read_text() == "hi\n"


def test_a_path_that_several_sources_hold_asks_which(desk: Desk) -> None:
    root = desk.tree()
    desk = desk.configured(f"a: {{files: {{paths: [{root}]}}}}\nb: {{files: {{paths: [{root}/deep]}}}}")
    desk.ok("init")
    desk.ok("backup")
    ran = desk.run("restore", f"latest:{root}/deep", "--to", "x")
    assert ran.code == 2
    assert "a, b" in ran.err
    desk.ok("restore", f"latest:{root}/deep", "--to", "x", "--source", "b")
    assert contents(desk.folder / "x") == contents(root / "deep")
