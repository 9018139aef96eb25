"""`opsd copy`, and every command that reads a copy instead, as a person runs them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import Desk, contents

pytestmark = pytest.mark.slow

COPIES = "copies: {{disk: {{folder: {folder}/disk}}, usb: {{folder: {folder}/usb}}}}"


@pytest.fixture
def host(desk: Desk) -> Desk:
    """A host with a tree, two snapshots of it and two copies that were never filled."""
    root = desk.tree()
    desk = desk.configured(f"www: {{files: {{paths: [{root}]}}}}", COPIES.format(folder=desk.folder))
    desk.ok("init")
    desk.ok("backup")
    (root / "new.txt").write_text("new\n")
    desk.ok("backup")
    return desk


def names(folder: Path) -> set[str]:
    """The objects in a folder, runs left out: they never travel."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith("runs/")}


def test_two_copies_are_filled_and_filled_again(host: Desk) -> None:
    found = host.ok("copy", "--json").json["copies"]
    assert [(each["name"], each["kind"], each["snapshots"], each["new_snapshots"]) for each in found] == [
        ("disk", "copy", 2, 2),
        ("usb", "copy", 2, 2),
    ]
    whole = names(host.folder / "repository")
    assert names(host.folder / "disk") == names(host.folder / "usb") == whole
    text = host.ok("copy").text
    assert "disk" in text
    assert "complete" in text
    assert host.ok("copy", "--to", "usb", "--json").json["copies"][0]["objects"] == 0


def test_a_copy_is_read_as_the_repository_is(host: Desk) -> None:
    host.ok("copy")
    shutil.rmtree(host.folder / "repository")
    listed = host.ok("snapshots", "--from", "disk", "--json").json
    assert len(listed) == 2
    root = host.folder / "data"
    first = listed[0]["id"][:12]
    assert host.ok("cat", f"latest:{root}/new.txt", "--from", "disk").out == b"new\n"
    assert "new.txt" in host.ok("ls", f"latest:{root}", "--from", "usb").text
    assert "new.txt" in host.ok("find", "new.txt", "--from", "usb").text
    assert host.ok("diff", first, "latest", "--from", "usb", "--json").json["counts"]["added"] == 1
    assert host.ok("export", "latest", "--from", "usb", "-o", "all.tar", "--json").json["files"] >= 5
    assert host.ok("check", "--read-data", "--from", "disk").code == 0
    host.ok("restore", "latest", "--from", "disk", "--to", "back")
    assert contents(host.folder / "back" / "www" / str(root)[1:]) == contents(root)


def test_a_restore_in_place_from_a_copy_takes_its_safety_snapshot_in_the_repository(host: Desk) -> None:
    host.ok("copy")
    root = host.folder / "data"
    (root / "hello.txt").write_text("spoilt\n")
    done = host.ok("restore", "latest", "--from", "disk", "--in-place", "--yes", "--json").json
    assert (root / "hello.txt").read_text() == "hello\n"
    assert done["safety_snapshot"] in {each["id"] for each in host.ok("snapshots", "--json").json}
    assert len(host.ok("snapshots", "--from", "disk", "--json").json) == 2


def test_a_copy_is_no_part_of_a_source(desk: Desk) -> None:
    root = desk.tree()
    desk = desk.configured(f"www: {{files: {{paths: [{root}]}}}}", f"copies: {{disk: {{folder: {root}/disk}}}}")
    desk.ok("init")
    desk.ok("backup")
    desk.ok("copy")
    assert "disk is opsd's own and is left out" in desk.run("backup").err
    assert "packs" not in desk.ok("ls", f"latest:{root}", "--recursive").text


def test_an_unknown_name_and_no_copies_at_all_are_mistakes_of_the_caller(host: Desk, taken: Desk) -> None:
    for arguments in (["copy", "--to", "dsk"], ["copy", "--from", "disk"], ["snapshots", "--from", "dsk"]):
        ran = host.run(*arguments)
        assert ran.code == 2, ran
        assert "configured are" in ran.err
    assert taken.run("copy").code == 2
    assert host.run("snapshots", "--from", "disk", "--repository", "x").code == 2


def test_one_copy_that_fails_does_not_stop_the_other(host: Desk) -> None:
    (host.folder / "disk").mkdir()
    (host.folder / "disk" / "letter.txt").write_text("mine")
    ran = host.run("copy", "--json")
    assert ran.code == 1
    disk, usb = ran.json["copies"]
    assert "holds something else" in disk["error"]["text"]
    assert usb["new_snapshots"] == 2
    assert (host.folder / "disk" / "letter.txt").read_text() == "mine"


@pytest.mark.parametrize("how", ["gone", "empty", "objects gone"])
def test_a_copy_that_was_filled_and_is_empty_exits_with_4_and_is_not_made_again(host: Desk, how: str) -> None:
    host.ok("copy", "--to", "disk")
    disk = host.folder / "disk"
    if how == "objects gone":
        for path in disk.rglob("*"):
            if path.is_file():
                path.unlink()
    else:
        shutil.rmtree(disk)
        if how == "empty":
            disk.mkdir()
    for command in (["copy", "--to", "disk"], ["snapshots", "--from", "disk"], ["prune", "--copy", "disk"]):
        ran = host.run(*command)
        assert ran.code == 4, ran
        assert "filled before" in ran.err
    left = list(disk.rglob("*")) if disk.exists() else None
    assert (left is None) == (how == "gone")
    assert not left or (how == "objects gone" and not any(path.is_file() for path in left))


def test_a_repository_that_is_gone_or_another_exits_with_4_or_is_refused(host: Desk) -> None:
    host.ok("copy")
    (host.folder / "repository").rename(host.folder / "moved")
    assert host.run("copy", "--to", "disk").code == 4
    host.ok("init")
    host.ok("backup")
    ran = host.run("copy", "--to", "disk")
    assert ran.code == 1
    assert "another repository" in ran.err


@pytest.mark.parametrize("how", ["gone", "empty", "objects gone"])
def test_a_repository_that_was_filled_and_is_empty_is_said_to_be_and_nobody_is_told_to_make_one(
    host: Desk, how: str
) -> None:
    newest = host.ok("snapshots", "--json").json[-1]["id"][:8]
    (host.folder / "repository").rename(host.folder / "away")
    if how != "gone":
        (host.folder / "repository" / ("packs" if how == "objects gone" else "")).mkdir(parents=True)
    for command in (["backup"], ["check"], ["check", "--repair"], ["snapshots"], ["prune"], ["restore", "--to", "x"]):
        ran = host.run(*command)
        assert ran.code == 4, ran
        assert f"this host put 2 snapshots into its repository, the newest {newest} on" in ran.err
        assert "opsd restore --from disk" in ran.err
        assert "opsd init" not in ran.err
    ran = host.run("snapshots", "--repository", "repository")
    assert ran.code == 1
    assert "this host" not in ran.err


def test_a_copy_that_is_rolled_back_exits_with_4_and_is_whole_again(host: Desk) -> None:
    host.ok("copy")
    shutil.copytree(host.folder / "disk", host.folder / "old")
    host.ok("backup")
    host.ok("copy")
    shutil.rmtree(host.folder / "disk")
    (host.folder / "old").rename(host.folder / "disk")
    for command in (["snapshots"], ["ls", "latest"], ["restore", "latest", "--to", "back"], ["snapshots", "--json"]):
        ran = host.run(*command, "--from", "disk")
        assert (ran.code, "older state" in ran.err) == (3, True), ran
    assert contents(host.folder / "back")
    assert [each["outcome"] for each in host.ok("ledger", "show", "--json").json[-2:]] == ["begun", "warnings"]
    ran = host.run("copy")
    assert ran.code == 4
    assert "the copy shows an older state of itself" in ran.err
    assert len(host.ok("snapshots", "--from", "disk", "--json").json) == 3
    host.ok("copy")


def test_what_is_damaged_in_the_repository_is_told_and_not_copied(host: Desk) -> None:
    pack = max((host.folder / "repository" / "packs").rglob("*/*"), key=lambda path: path.stat().st_size)
    pack.write_bytes(pack.read_bytes()[:-1] + b"x")
    ran = host.run("copy", "--to", "disk", "--json")
    assert ran.code == 4
    [disk] = ran.json["copies"]
    assert [each["object"] for each in disk["damaged"]] == [f"packs/{pack.parent.name}/{pack.name}"]
    assert disk["held"]
    assert not (host.folder / "disk" / "packs" / pack.parent.name / pack.name).exists()


def puller(desk: Desk, folder: Path) -> Desk:
    """Another machine that fetches a host's repository into a folder of its own."""
    folder.mkdir()
    (folder / "opsd.yaml").write_text(
        f"version: 1\nstate: {folder}/state\n"
        f"pulls: {{web1: {{from: {{folder: {desk.folder}/repository}}, to: {{folder: {folder}/web1}}}}}}\n"
    )
    return Desk(folder=folder, environment={"OPSD_CONFIG": str(folder / "opsd.yaml")})


def test_a_puller_without_any_key_fetches_the_repository_of_another(host: Desk) -> None:
    other = puller(host, host.folder / "puller")
    assert "1 pull" in other.ok("config", "validate").text
    [found] = other.ok("copy", "--json").json["copies"]
    assert (found["kind"], found["new_snapshots"]) == ("pull", 2)
    assert names(other.folder / "web1") == names(host.folder / "repository")
    assert not list((other.folder / "web1" / "runs").iterdir())
    other.ok("copy", "--from", "web1")
    for arguments in (["backup"], ["snapshots"], ["init"], ["prune"], ["check"]):
        ran = other.run(*arguments)
        assert ran.code == 2, ran
        assert "pulls" in ran.err or "nothing to back up" in ran.err
    kit = host.ok("key", "add", "--new-kit", "--json").json["kit"]
    other.ok("copy")
    (other.folder / "kit").write_text(kit)
    assert len(other.ok("snapshots", "--from", "web1", "--kit-file", "kit", "--json").json) == 2


def test_no_heavy_library_is_imported_for_a_copy_in_a_folder(host: Desk) -> None:
    code = """
import sys
from opsd.cli.main import _run
assert _run(["copy"]) == 0
assert not {"boto3", "paramiko"} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", code], env=host.variables(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_what_is_wrong_with_a_copy_and_the_next_step_stand_in_lines_of_their_own(host: Desk) -> None:
    host.ok("copy")
    shutil.rmtree(host.folder / "disk")
    said = host.run("copy", "--to", "disk").err.splitlines()
    assert said[0].startswith("opsd: disk: ")
    assert len(said) > 1
    assert all(line.startswith("      ") for line in said[1:])


def test_whoever_only_pulls_opens_a_pull_with_the_passphrase_file_of_the_environment(host: Desk) -> None:
    path = host.folder / "puller.yaml"
    path.write_text(
        f"state: {host.folder}/state2\n"
        f"pulls: {{web1: {{from: {{folder: {host.folder}/repository}}, to: {{folder: {host.folder}/pulled}}}}}}\n"
    )
    other = Desk(
        folder=host.folder,
        environment={"OPSD_CONFIG": str(path), "OPSD_PASSPHRASE_FILE": str(host.folder / "passphrase")},
    )
    other.ok("copy")
    other.ok("restore", "latest", "--from", "web1", "--to", "back")


def test_the_copy_of_another_host_under_one_passphrase_is_told_and_drills_nothing(host: Desk) -> None:
    other = Desk.at(host.folder / "other")
    other = other.configured(
        f"www: {{files: {{paths: [{other.tree()}]}}}}", f"copies: {{disk: {{folder: {host.folder}/disk}}}}"
    )
    other.ok("init")
    host.ok("copy")
    ran = other.run("snapshots", "--from", "disk")
    assert ran.code == 3
    assert "copy disk: it holds another repository" in ran.err
    ran = other.run("drill")
    assert ran.code == 1
    assert "copy disk holds another repository" in ran.text + ran.err
    shutil.rmtree(other.folder / "repository")  # What is left after a disaster is read without a word.
    assert other.ok("snapshots", "--from", "disk", "--json").json


def test_a_copy_that_lost_a_part_is_healed_and_not_given_up(host: Desk) -> None:
    host.ok("copy")
    shutil.rmtree(host.folder / "disk" / "settings")
    ran = host.run("copy", "--to", "disk")
    assert ran.code == 4
    assert "opsd check --copy disk --repair" in " ".join(ran.err.split())
    assert host.run("check", "--copy", "disk", "--repair").code == 0
    host.ok("copy")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_copy_that_is_full_or_read_only_says_so_and_what_to_do(host: Desk) -> None:
    disk = host.folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(disk)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        (host.folder / "data" / "large").write_bytes(os.urandom(4_000_000))
        host.ok("backup")
        ran = host.run("copy", "--to", "disk")
        assert ran.code == 1
        assert "no space left on device" in ran.err
        assert "'opsd prune --copy NAME' for a copy" in " ".join(ran.err.split())
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        assert host.ok("copy", "--to", "disk", "--json").json["copies"][0]["snapshots"] == 3
        max(disk.glob("packs/*/*"), key=lambda path: path.stat().st_size).write_bytes(b"rotten")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for line in (("prune", "--copy", "disk"), ("check", "--copy", "disk", "--repair")):
            assert "in store folder" in (err := host.run(*line).err)
            assert "read-only file system" in err
    finally:
        subprocess.run(["umount", str(disk)], check=True)
