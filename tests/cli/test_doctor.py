"""`opsd doctor`, as a person runs it."""

import os
import pwd
import shutil

import pytest

from tests.support.command_line import Desk


@pytest.fixture
def host(desk: Desk) -> Desk:
    """A host with a tree and one snapshot of it."""
    desk = desk.configured(f"www: {{files: {{paths: [{desk.tree()}]}}}}")
    desk.ok("init")
    desk.ok("backup")
    return desk


def stored(host: Desk) -> set[str]:
    return {str(path) for path in host.folder.rglob("*") if "/cache" not in str(path)}


def test_a_night_that_would_fail_is_told_on_a_terminals_width_and_nothing_is_stored(host: Desk) -> None:
    shutil.rmtree(host.folder / "data")
    before = stored(host)
    ran = host.run("doctor")
    assert ran.code == 1
    assert "data is not there" in " ".join(ran.text.split())
    assert all(len(line) <= 80 or " " not in line.strip().removeprefix("-> ") for line in ran.text.splitlines())
    for group in ("configuration", "credentials", "repository", "sources", "machine", "recovery kit", "not covered"):
        assert f"\n{group}\n" in ran.text
    assert stored(host) == before


def test_json_counts_what_it_lists_and_warnings_end_with_3(host: Desk) -> None:
    ran = host.run("doctor", "--json")
    assert (ran.code, ran.err) == (3, "")  # Nobody has shown the kit.
    found = ran.json
    for name, state in (("ok", "ok"), ("warnings", "warning"), ("failed", "failed")):
        assert found[name] == sum(each["state"] == state for each in found["findings"])
    assert set(found["findings"][0]) == {"group", "subject", "state", "text", "next_step"}
    assert set(found["uncovered"]) == {"databases", "folders"}


def test_a_configuration_with_a_mistake_ends_with_2(desk: Desk) -> None:
    (desk.folder / "opsd.yaml").write_text("version: 1\nsourcs: {}\n")
    assert desk.run("-c", str(desk.folder / "opsd.yaml"), "doctor").code == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_root_asks_as_the_owner_of_the_state_folder_and_hands_credentials_on(desk: Desk) -> None:
    nobody = pwd.getpwnam("nobody")
    passed = desk.folder / "passed"
    passed.mkdir(mode=0o700)
    (passed / "drill").write_text("a key")
    host = desk.configured(f"www: {{files: {{paths: [{desk.tree()}]}}}}", "drill: {key: {credential: drill}}")
    host.ok("init")
    host = Desk(folder=host.folder, environment={**host.environment, "CREDENTIALS_DIRECTORY": str(passed)})
    for path in (host.folder / "state", *(host.folder / "state").rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    found = host.run("doctor", "--json").json
    assert found["user"] == "nobody, who may read every file"
    failed = [each for each in found["findings"] if each["state"] == "failed"]
    assert {each["subject"] for each in failed} == {"repository"}, failed
    assert all("can't be written to" in each["text"] for each in failed)
