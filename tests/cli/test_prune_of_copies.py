"""`opsd prune --copy`: by whom, by which rules, and what it refuses."""

import shutil

import pytest

from tests.support.command_line import Desk

pytestmark = pytest.mark.slow

COPIES = "copies: {{disk: {{folder: {folder}/disk, retention: {{keep_last: 2}}}}, usb: {{folder: {folder}/usb}}}}"


@pytest.fixture
def host(desk: Desk) -> Desk:
    """A host that keeps one snapshot, of three; its copy disk keeps two, and usb what the host's rules keep."""
    root = desk.tree()
    more = COPIES.format(folder=desk.folder) + "\nretention: {keep_last: 1}"
    desk = desk.configured(f"www: {{files: {{paths: [{root}]}}}}", more)
    desk.ok("init")
    for number in range(3):
        (root / f"more{number}").write_text(f"{number}")
        desk.ok("backup")
    desk.ok("copy")
    return desk


def reasons(ran_json: dict[str, list[dict[str, list[str]]]]) -> list[list[str]]:
    return [each["reasons"] for each in ran_json["snapshots"]]


def test_the_rules_of_the_copy_hold_or_else_those_of_the_repository_and_what_the_source_has_stays(host: Desk) -> None:
    plan = host.ok("prune", "--copy", "disk", "--dry-run", "--json").json
    assert reasons(plan) == [["source"], ["last", "source"], ["last", "newest", "source"]]
    plan = host.ok("prune", "--copy", "usb", "--dry-run", "--json").json
    assert reasons(plan) == [["source"], ["source"], ["last", "newest", "source"]]
    done = host.ok("prune", "--copy", "disk", "--json").json
    assert (done["marked_snapshots"], done["locked"], done["locked_until"]) == (0, 0, None)
    assert "nothing to mark" in host.ok("prune", "--copy", "usb").text
    assert len(host.ok("prune", "--simulate", "30", "--copy", "disk", "--json").json["kept"]) == 2
    host.ok("copy")


def test_unknown_copies_are_mistakes_of_the_caller(host: Desk) -> None:
    for arguments in (["--copy", "dsk"], ["--simulate", "9", "--copy", "dsk"]):
        ran = host.run("prune", *arguments)
        assert ran.code == 2
        assert "configured are disk, usb" in ran.err


def test_without_its_source_a_copy_is_left_alone(host: Desk) -> None:
    (host.folder / "repository").rename(host.folder / "away")
    ran = host.run("prune", "--copy", "disk")
    assert ran.code == 4
    assert not list((host.folder / "disk" / "marks").iterdir())


def test_a_copy_that_shows_what_can_not_be_true_is_left_alone_until_a_person_says_so(host: Desk) -> None:
    max((host.folder / "disk" / "snapshots").iterdir()).unlink()
    ran = host.run("prune", "--copy", "disk")
    assert ran.code == 1
    assert "older state" in ran.err
    assert "'opsd prune --copy disk --yes'" in ran.err


def puller(host: Desk, more: str) -> Desk:
    folder = host.folder / "puller"
    folder.mkdir()
    (folder / "opsd.yaml").write_text(
        f"state: {folder}/state\n"
        f"pulls: {{web1: {{from: {{folder: {host.folder}/repository}}, to: {{folder: {folder}/web1}}{more}}}}}\n"
    )
    other = Desk(folder=folder, environment={"OPSD_CONFIG": str(folder / "opsd.yaml")})
    other.ok("copy")
    return other


def test_a_puller_prunes_with_the_maintainers_key_alone_and_says_so_without(host: Desk) -> None:
    other = puller(host, ", retention: {keep_last: 2}")
    ran = other.run("prune", "--copy", "web1")
    assert ran.code == 1
    assert "maintainer's key" in ran.err
    assert "docs/copies.md" in ran.err
    [key] = (host.folder / "state" / "keys").glob("*.maintainer")
    (other.folder / "state" / "keys").mkdir(mode=0o700)
    shutil.copy(key, other.folder / "state" / "keys")
    assert reasons(other.ok("prune", "--copy", "web1", "--json").json)[0] == ["source"]
    other.ok("copy")
    assert other.run("cat", "latest:/x", "--from", "web1").code == 1


def test_a_pulled_copy_without_rules_of_its_own_is_not_pruned_by_anybody_elses(host: Desk) -> None:
    ran = puller(host, "").run("prune", "--copy", "web1")
    assert ran.code == 2
    assert "states no retention" in ran.err


def test_the_maintainer_of_a_host_that_the_copy_does_not_know_yet_waits_for_the_next_copy(host: Desk) -> None:
    shutil.rmtree(host.folder / "state" / "keys")
    host.ok("backup")
    ran = host.run("prune", "--copy", "disk")
    assert ran.code == 1
    assert "'opsd copy' first" in ran.err
    host.ok("copy")
    host.ok("prune", "--copy", "disk")
