"""`opsd backup`: what is chosen, how it ends, what it says."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from opsd.cli.output import size
from tests.support.command_line import Desk


def test_all_sources_make_job_all_and_some_make_job_part(desk: Desk) -> None:
    root = desk.tree()
    desk = desk.configured(f"www: {{files: {{paths: [{root}]}}}}\nmail: {{command: {{run: [echo, hi], name: mail}}}}")
    desk.ok("init")
    assert desk.ok("backup", "--json").json["snapshot"]["job"] == "all"
    part = desk.ok("backup", "--source", "mail", "--tag", "before", "--json").json["snapshot"]
    assert (part["job"], part["tags"]) == ("part", ["before"])
    assert [each["name"] for each in part["sources"]] == ["mail"]


def test_a_failed_source_exits_with_1_and_the_others_are_whole(desk: Desk) -> None:
    root = desk.tree()
    desk = desk.configured(f'www: {{files: {{paths: [{root}]}}}}\nbad: {{command: {{run: ["false"], name: x}}}}')
    desk.ok("init")
    ran = desk.run("backup", "--json")
    assert ran.code == 1
    assert ran.json["outcome"] == "failed"
    assert [each["source"] for each in ran.json["failures"]] == ["bad"]
    assert ran.json["snapshot"]["complete"] is False
    outcomes = {each["name"]: each["outcome"] for each in ran.json["snapshot"]["sources"]}
    assert outcomes == {"www": "complete", "bad": "failed"}
    assert "hello.txt" in desk.ok("ls", f"latest:{root}").text
    (told,) = [each for each in desk.run("status", "--json").json["problems"] if each["key"] == "source.bad.failed"]
    assert "false exited with 1" in told["title"]
    assert "exited" not in (desk.folder / "state" / "ledger.jsonl").read_text()


def test_a_warning_exits_with_3_and_is_listed(desk: Desk) -> None:
    root = desk.tree()
    (root / "broken.db").write_bytes(b"SQLite format 3\0" + bytes(84))
    database = root / "locked.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.commit()
    desk.ok("init")
    (root / "cache").mkdir()
    (root / "cache" / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n")
    ran = desk.run("backup", str(root), str(root / "cache"), "--json")
    assert ran.code == 3
    assert ran.json["outcome"] == "warnings"
    assert any("cache" in warning["problem"] for warning in ran.json["warnings"])


def test_an_unknown_source_is_a_usage_error_that_names_the_known(desk: Desk) -> None:
    desk = desk.configured("www: {files: {paths: [/etc]}}")
    ran = desk.run("backup", "--source", "wwww")
    assert ran.code == 2
    assert "configured are www" in ran.err


def test_nothing_to_back_up_is_a_mistake_of_the_configuration(desk: Desk) -> None:
    ran = desk.run("backup")
    assert ran.code == 2
    assert "opsd backup /etc" in ran.err


def test_a_missing_root_fails_and_names_the_path(desk: Desk) -> None:
    desk.ok("init")
    ran = desk.run("backup", "/no/such/place")
    assert ran.code == 1
    assert "/no/such/place" in ran.err


def test_an_emptied_source_fails_until_a_person_accepts_it(desk: Desk) -> None:
    root = desk.tree()
    desk = desk.configured(f"www: {{files: {{paths: [{root}]}}}}")
    desk.ok("init")
    desk.ok("backup")
    shutil.rmtree(root / "deep")
    (root / "sparse").unlink()
    ran = desk.run("backup")
    assert ran.code == 1
    assert "--accept-shrink" in ran.err
    assert desk.ok("snapshots", "--json").json[-1]["complete"] is False
    desk.ok("backup", "--accept-shrink")
    desk.ok("backup")


def test_opsds_own_folders_are_never_backed_up(desk: Desk) -> None:
    desk.tree()
    desk.ok("init")
    desk.run("backup", str(desk.folder))
    names = {each["path"] for each in desk.ok("ls", f"latest:{desk.folder}", "--recursive", "--json").json}
    assert f"{desk.folder}/data/hello.txt" in names
    assert not [name for name in names if name.startswith((f"{desk.folder}/repository/", f"{desk.folder}/state/"))]


def test_a_dry_run_counts_and_stores_nothing(desk: Desk) -> None:
    root = desk.tree()
    found = desk.ok("backup", "--dry-run", str(root), "--json").json
    assert [(each["name"], each["files"]) for each in found] == [("files", 5)]
    assert not (desk.folder / "repository").exists()


def test_a_live_database_in_a_tree_is_stored_as_an_image_without_its_journal(desk: Desk) -> None:
    root = desk.tree()
    desk.ok("init")
    with closing(sqlite3.connect(root / "live.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (a, b)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", ((number, "x" * 500) for number in range(5000)))
        connection.commit()
        assert (root / "live.db-wal").stat().st_size > 0
        desk.ok("backup", str(root))
        connection.execute("UPDATE t SET b = 'changed' WHERE a = 17")
        connection.commit()
        second = desk.ok("backup", str(root), "--json").json
    assert second["snapshot"]["added_bytes"] < 150_000
    names = [each["path"].rpartition("/")[2] for each in desk.ok("ls", f"latest:{root}", "--json").json]
    assert [name for name in names if name.startswith("live")] == ["live.db"]
    desk.ok("cat", f"latest:{root}/live.db", "-o", "back.db")
    with closing(sqlite3.connect(desk.folder / "back.db")) as connection:
        assert connection.execute("SELECT count(*), sum(b = 'changed') FROM t").fetchone() == (5000, 1)


def test_hooks_run_around_sources_and_run_and_75_means_try_later(desk: Desk) -> None:
    log = desk.folder / "log"
    tell = f"echo $OPSD_HOOK $OPSD_JOB $OPSD_SOURCE $OPSD_OUTCOME >> {log}"
    hook = f"{{run: [sh, -c, '{tell}']}}"
    hooks = f"{{before: [{hook}], after: [{hook}]}}"
    desk = desk.configured(f"a: {{command: {{run: [echo, hi], name: x}}, hooks: {hooks}}}", more=f"hooks: {hooks}")
    desk.ok("init")
    desk.ok("backup")
    assert log.read_text().splitlines() == ["before all", "before all a", "after all a complete", "after all complete"]
    later = desk.configured("a: {command: {run: [echo, hi], name: x}, hooks: {before: [{run: [sh, -c, 'exit 75']}]}}")
    assert later.run("backup").code == 75


def test_a_repository_that_is_full_of_something_else_is_not_written_to(desk: Desk, tmp_path: Path) -> None:
    desk.ok("init")
    shutil.rmtree(desk.folder / "repository")
    (desk.folder / "repository").mkdir()
    ran = desk.run("backup", str(desk.tree()))
    assert ran.code == 1
    assert "is the disk mounted" in ran.err
    assert list((tmp_path / "repository").iterdir()) == []


def test_what_was_added_adds_up(desk: Desk) -> None:
    desk.ok("init", "--json")
    root = desk.tree()
    shown = desk.ok("backup", str(root)).text
    rows = {line.split("  ")[0]: line for line in shown.splitlines()}
    own = rows["bookkeeping"].split()[-2:]
    taken = desk.ok("snapshots", "--json").json[0]
    added = taken["added_bytes"] - sum(source["added_bytes"] for source in taken["sources"])
    assert own == size(added).split()
