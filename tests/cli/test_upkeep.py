"""`opsd prune`, `hold`, `config`."""

import json
import re
import time

import yaml

from opsd.monitor.state import Run, State, living
from tests.support.command_line import Desk


def test_a_simulation_needs_no_repository_and_gives_42_snapshots(desk: Desk) -> None:
    kept = desk.bare().ok("prune", "--simulate", "800", "--json").json["kept"]
    assert len(kept) == 42
    assert set(kept[0]) == {"time", "age_days", "rule"}
    assert kept[0]["time"] < kept[-1]["time"]
    assert kept[-1]["age_days"] == 1
    assert [each["rule"] for each in kept].count("monthly") == 12


def test_a_dry_run_tells_which_rule_keeps_each_snapshot(taken: Desk) -> None:
    found = taken.ok("prune", "--dry-run", "--json").json["snapshots"]
    assert [each["keep"] for each in found] == [False, True]
    assert "daily" in found[1]["reasons"]
    assert "nothing: goes" in taken.ok("prune", "--dry-run").text


def test_prune_marks_and_a_hold_brings_back(desk: Desk) -> None:
    root = desk.tree()
    desk.ok("init")
    desk.ok("backup", str(root))
    desk.ok("backup", str(root))
    first = desk.ok("snapshots", "--json").json[0]["id"]
    done = desk.ok("prune", "--yes", "--json").json
    assert done["marked_snapshots"] == 1
    assert len(desk.ok("snapshots", "--json").json) == 1
    assert [each["marked"] for each in desk.ok("snapshots", "--all", "--json").json] == [True, False]
    assert desk.ok("hold", first[:8], "--until", "2199-01-01", "--reason", "audit", "--json").json["held"] is True
    verdict = next(each for each in desk.ok("prune", "--dry-run", "--json").json["snapshots"] if each["id"] == first)
    assert verdict["reasons"] == ["hold"]
    assert desk.ok("hold", first[:8], "--release", "--json").json["held"] is False


def test_a_hold_needs_a_reason_and_a_date_to_come(taken: Desk) -> None:
    assert taken.run("hold", "latest").code == 2
    assert taken.run("hold", "latest", "--reason", "x", "--until", "2001-01-01").code == 2
    assert taken.run("hold", "latest", "--reason", "x", "--until", "2999-01-01").code == 2


def test_the_example_is_accepted_as_it_stands(desk: Desk) -> None:
    (desk.folder / "example.yaml").write_text(desk.ok("config", "generate").text)
    found = desk.bare().ok("-c", "example.yaml", "config", "validate", "--json").json
    assert found["valid"] is True
    assert {"name": "www", "domain": "default"} in found["sources"]


def test_the_schema_comes_as_json(desk: Desk) -> None:
    schema = json.loads(desk.bare().ok("config", "schema").text)
    assert {"repository", "sources", "retention"} <= set(schema["properties"])


def test_mistakes_come_all_at_once_with_their_places(desk: Desk) -> None:
    desk = desk.configured("www: {files: {paths: [etc]}}", more="retention: {keep_dayly: 3}")
    ran = desk.run("config", "validate")
    assert ran.code == 2
    assert "did you mean keep_daily?" in ran.err
    assert len(re.findall(r"opsd\.yaml:\d+:\d+ ", ran.err)) >= 2


def test_the_configuration_in_force_shows_no_secret(desk: Desk) -> None:
    desk = desk.configured("www: {files: {paths: [/etc]}}")
    text = desk.ok("config", "show").text
    assert "correct horse" not in text
    assert yaml.safe_load(text)["passphrase"] == {"file": f"{desk.folder}/passphrase"}


def test_a_prune_with_nothing_to_do_says_why(desk: Desk) -> None:
    desk.ok("init", "--json")
    assert desk.ok("prune").text == "nothing to mark: the rules keep what there is (0 snapshots)\n"
    desk.ok("backup", str(desk.tree()))
    assert desk.ok("prune").text == "nothing to mark: the rules keep what there is (1 snapshot)\n"


def test_a_job_that_is_at_work_is_not_done_a_second_time_beside_it(desk: Desk) -> None:
    root = desk.tree()
    desk = desk.configured(f"www: {{files: {{paths: [{root}]}}}}")
    desk.ok("init")
    state = desk.folder / "state"
    now = time.time_ns()
    with State.open(state, now) as opened, living(state, "one"):
        opened.put([Run(id="one", job="backup", cause="daemon", started=now)])
        ran = desk.run("run", "backup")
    assert ran.code == 75
    assert "backup is at work since" in ran.err
    assert "started by the daemon" in ran.err
    assert desk.ok("run", "backup").code == 0


def test_a_backup_stands_also_where_the_disk_of_the_state_takes_nothing_more(desk: Desk) -> None:
    root = desk.tree()
    desk.ok("init")
    desk.ok("backup", str(root))
    (seen,) = (desk.folder / "state" / "seen").iterdir()
    seen.unlink()
    seen.mkdir()  # No file can take its place.
    ran = desk.run("backup", str(root), "--json")
    assert (ran.code, ran.json["outcome"]) == (3, "complete")
    assert "what was put last can't be noted" in ran.json["warnings"][0]["problem"]
    assert list(seen.parent.iterdir()) == [seen]
