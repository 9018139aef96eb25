"""`opsd drill` and what it remembers, as a person meets it."""

import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from opsd.events import Recorder
from opsd.verify.scratch import opened
from tests.support.command_line import Desk
from tests.support.warm import ROOT

MORE = "copies: {{disk: {{folder: {folder}/disk}}}}\ndrill: {{scratch: {folder}/scratch, recovery_point: 25h{more}}}"


def made(folder: Path, more: str = "") -> Desk:
    desk = Desk.at(folder)
    desk = desk.configured(f"www: {{files: {{paths: [{desk.tree()}]}}}}", MORE.format(folder=folder, more=more))
    (folder / "kit").write_text(desk.ok("init", "--json").json["kit"])
    desk.ok("backup")
    desk.ok("copy")
    return desk


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return made(tmp_path_factory.mktemp("drills"))


class Tags(HTMLParser):
    """What a page links to and loads."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.targets += [value or "" for name, value in attrs if name in {"href", "src"}]


def test_drills_are_carried_out_and_remembered(host: Desk) -> None:
    ran = host.run("drill", "--from", "disk")
    assert ran.code == 0, ran
    assert ran.text.splitlines()[-1].startswith("green in")
    assert "target 25 h" in ran.text
    assert host.run("drill", "--seed-failure").code == 4
    assert host.run("drill", "--kit-file", "kit", "--json").json["key"] == "kit file"
    listed = host.ok("drill", "list").text
    assert max(map(len, listed.splitlines())) <= 80
    assert "red (seeded)" in listed
    assert re.search("recovery kit was last used .* by", listed)
    found = host.ok("drill", "list", "--json").json
    assert [each["verdict"] for each in found] == ["green", "red", "green"]
    assert host.ok("drill", "show", found[1]["id"], "--json").json["faults"][0]["found"] is True
    assert "1 of 1 seeded fault found" in host.ok("drill", "show", found[1]["id"].rpartition("-")[2]).text
    host.ok("drill", "report", "--output", "page.html")
    page = (host.folder / "page.html").read_text()
    tags = Tags()
    tags.feed(page)
    assert tags.names.isdisjoint({"script", "link", "img", "iframe"})
    assert all(target.startswith("#") for target in tags.targets)
    assert "A person last used the recovery kit" in page
    assert host.ok("drill", "report").text.strip() == page.strip() or "Made" in page


def test_the_verdict_is_the_same_without_state_and_environment(host: Desk, tmp_path: Path) -> None:
    text = (host.folder / "opsd.yaml").read_text().replace(f"{host.folder}/state", f"{tmp_path}/state")
    (tmp_path / "opsd.yaml").write_text(text)
    command = [sys.executable, "-m", "opsd", "-c", str(tmp_path / "opsd.yaml"), "drill", "--from", "disk", "--json"]
    done = subprocess.run(command, env={}, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"] == "green"
    done = subprocess.run([*command, "--seed-failure"], env={}, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 4, done.stderr


@pytest.mark.slow
def test_the_drill_has_a_key_of_its_own(tmp_path: Path) -> None:
    desk = made(tmp_path, f", key: {{file: {tmp_path}/drill}}")
    ran = desk.run("drill", "--from", "disk")
    assert ran.code == 2
    assert "secret {file:" in ran.err
    desk.ok("key", "generate", "drill")
    ran = desk.run("drill", "--from", "disk")
    assert ran.code == 1
    assert "opens no slot" in ran.err
    desk.ok("key", "add", "--recipient", "drill.pub")
    desk.ok("copy")
    (tmp_path / "passphrase").write_text("wrong")
    ran = desk.run("drill", "--from", "disk", "--json")
    assert (ran.code, ran.json["key"]) == (0, "drill key")
    (tmp_path / "drill").write_text("no key")
    assert "holds no recipient's secret key" in desk.run("drill", "--from", "disk").err
    assert [each["verdict"] for each in desk.ok("drill", "list", "--json").json] == [
        "failed",
        "failed",
        "green",
        "failed",
    ]


@pytest.mark.slow
def test_a_copy_that_was_never_filled_or_was_emptied_is_told_apart(tmp_path: Path) -> None:
    desk = made(tmp_path)
    shutil.move(tmp_path / "disk", tmp_path / "away")
    ran = desk.run("drill", "--from", "disk")
    assert ran.code == 4
    assert "copy disk was filled before" in ran.err
    (tmp_path / "state" / "copies" / "disk.json").unlink()
    ran = desk.run("drill", "--from", "disk")
    assert ran.code == 1
    assert "never filled" in ran.err
    assert "opsd copy" in ran.err


@pytest.mark.parametrize(
    ("kind", "told"),
    [("snapshots", "no complete snapshot"), ("keys", "no key slot"), ("settings", "settings/ is empty")],
)
def test_a_copy_that_lost_all_of_a_kind_is_red(tmp_path: Path, kind: str, told: str) -> None:
    desk = made(tmp_path)
    for path in (tmp_path / "disk" / kind).iterdir():
        path.unlink()
    ran = desk.run("drill", "--from", "disk", "--json")
    assert (ran.code, ran.json["verdict"]) == (4, "red")
    assert told in ran.json["error"]["text"]


def test_a_red_drill_names_the_copy_and_the_next_step(tmp_path: Path) -> None:
    desk = made(tmp_path, ', checks: [{command: ["false"]}]')
    assert desk.run("drill").text.splitlines()[-1].endswith("; docs/runbook.md says what to do")
    (settings,) = (tmp_path / "disk" / "settings").iterdir()
    settings.write_bytes(settings.read_bytes()[:-1] + b"x")
    ran = desk.run("drill")
    assert ran.code == 4
    assert "run 'opsd check --copy disk --repair', then drill again" in " ".join(ran.err.split())
    assert ran.text.strip().endswith("from copy disk")


def test_a_copy_that_lags_says_why_its_snapshot_is_an_older_one(tmp_path: Path) -> None:
    desk = made(tmp_path)
    assert "newest snapshot of this host" not in desk.run("drill").err
    newest = desk.ok("backup", "--json").json["snapshot"]["id"]
    assert f"copy disk does not hold the newest snapshot of this host yet, {newest[:8]}" in desk.run("drill").err


def test_a_second_drill_is_told_to_wait_and_leaves_no_record(host: Desk) -> None:
    before = len(host.ok("drill", "list", "--json").json)
    with opened(host.folder / "scratch", (), Recorder()):
        ran = host.run("drill")
    assert ran.code == 75
    assert len(host.ok("drill", "list", "--json").json) == before


def ended_by(desk: Desk, number: signal.Signals) -> int:
    """How a drill ends that is sent this signal while its check reads `fifo`."""
    os.mkfifo(desk.folder / "fifo")
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(
            desk.command("drill"), env=desk.variables(), cwd=desk.folder, stdout=pipe, stderr=pipe
        ) as process,
        (desk.folder / "fifo").open("w"),
    ):  # Open once the check has begun to read.
        process.send_signal(number)
        return process.wait(30)


@pytest.mark.slow
def test_a_drill_that_was_stopped_clears_its_place_and_a_killed_one_is_cleared_by_the_next(tmp_path: Path) -> None:
    desk = made(tmp_path, f", checks: [{{command: [cat, {tmp_path}/fifo], timeout: 60s}}]")
    assert ended_by(desk, signal.SIGTERM) == 143
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == [".opsd-drill.lock"]
    (tmp_path / "fifo").unlink()
    assert ended_by(desk, signal.SIGKILL) == -signal.SIGKILL
    (left,) = (tmp_path / "scratch").glob("drill-*")
    (tmp_path / "opsd.yaml").write_text((tmp_path / "opsd.yaml").read_text().replace("cat", "test, -p"))
    ran = desk.run("drill")
    assert ran.code == 0, ran
    assert f"cleared {left}" in ran.err
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == [".opsd-drill.lock"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_root_drills_as_the_owner_of_the_state_folder_whose_scratch_is_private(tmp_path: Path) -> None:
    desk = made(tmp_path)
    nobody = pwd.getpwnam("nobody")
    desk.folder.chmod(0o755)
    (desk.folder / "scratch").mkdir(mode=0o700)
    for path in (desk.folder / "scratch", desk.folder / "state", *(desk.folder / "state").rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    (desk.folder / "kit").chmod(0o600)
    ran = desk.run("drill", "--from", "disk", "--kit-file", "kit", "--json")
    assert ran.code == 0, ran
    assert (ran.json["verdict"], ran.json["key"]) == ("green", "kit file")
    assert {path.stat().st_uid for path in (desk.folder / "state").rglob("*")} == {nobody.pw_uid}


def test_a_missed_target_deviates(tmp_path: Path) -> None:
    desk = made(tmp_path, ", recovery_time: 0.001s")
    ran = desk.run("drill", "--json")
    assert (ran.code, ran.json["verdict"]) == (3, "deviating")
    assert [each["subject"] for each in ran.json["deviations"]] == ["recovery time"]


def test_a_drill_shows_no_options_of_its_own_to_its_lists(host: Desk) -> None:
    assert host.run("drill", "--seed-failure", "list").code == 2
    assert host.run("drill", "show", "nothing").code == 1
