"""`opsd check --copy` and `--repair`: what is damaged in one place comes back from another."""

import os
import shutil
from pathlib import Path

import pytest

from opsd.repository.local import HostState
from tests.support.command_line import Desk, contents
from tests.support.sites import Keeper

pytestmark = pytest.mark.slow

PLACES = ("repository", "disk", "usb")


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Keeper:
    """Keeps a host with three snapshots of random files, in a repository and two filled copies."""
    desk = Desk.at(tmp_path_factory.mktemp("host") / "desk")
    root = desk.tree()
    copies = f"copies: {{disk: {{folder: {desk.folder}/disk}}, usb: {{folder: {desk.folder}/usb}}}}"
    desk = desk.configured(f"www: {{files: {{paths: [{root}]}}}}", copies)
    desk.ok("init")
    for number in range(3):
        (root / f"more{number}").write_bytes(os.urandom(200_000))
        desk.ok("backup")
    desk.ok("copy")
    return Keeper(desk.folder)


@pytest.fixture
def host(keeper: Keeper) -> Desk:
    """That host, as it was first made."""
    folder = keeper.touched().folder
    return Desk(folder=folder, environment={"OPSD_CONFIG": f"{folder}/opsd.yaml"})


def packs(host: Desk, place: str) -> list[Path]:
    return sorted((host.folder / place / "packs").glob("*/*"))


def spoil(path: Path) -> None:
    """Change a byte in the middle, as `dd` would."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def check(host: Desk, place: str, *more: str) -> tuple[int, dict[str, object]]:
    arguments = ("--read-data",) if place == "repository" else ("--copy", place)
    ran = host.run("check", *arguments, *more, "--json")
    return ran.code, ran.json


def test_a_whole_copy_is_proved_with_the_keys_of_this_host_and_without_any(host: Desk) -> None:
    code, found = check(host, "disk")
    assert code == 0
    assert found["packs_read"] == len(packs(host, "disk"))
    assert found["notices"] == []
    shutil.rmtree(host.folder / "state" / "keys")
    path = host.folder / "opsd.yaml"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if "passphrase" not in line))
    code, found = check(host, "disk")
    assert code == 0
    assert "no key is at hand" in str(found["notices"])
    spoil(packs(host, "disk")[0])
    code, found = check(host, "disk")
    assert code == 4
    code, found = check(host, "disk", "--repair")
    assert (code, len(found["healed"])) == (0, 1)  # type: ignore[arg-type]


def test_a_damaged_copy_is_told_to_be_healed_first(host: Desk) -> None:
    spoil(packs(host, "disk")[0])
    _, found = check(host, "disk")
    assert "'opsd check --copy disk --repair'" in str(found["problems"])
    for path in (host.folder / "disk" / "settings").iterdir():
        spoil(path)
    _, found = check(host, "disk")
    assert "no key" not in str(found["notices"])


def test_what_a_check_found_is_told_though_it_cannot_be_noted(host: Desk) -> None:
    (host.folder / "state" / "checked").write_text("in the way")
    ran = host.run("check", "--copy", "disk", "--json")
    assert (ran.code, ran.json["coverage"]) == (3, None)
    assert "can't be kept" in ran.err
    spoil(packs(host, "disk")[0])
    code, found = check(host, "disk")
    assert code == 4
    assert found["problems"]


def test_a_copy_without_any_snapshot_is_not_called_whole(desk: Desk) -> None:
    copies = f"copies: {{disk: {{folder: {desk.folder}/disk}}}}"
    desk = desk.configured(f"www: {{files: {{paths: [{desk.tree()}]}}}}", copies)
    for command in ("init", "copy", "backup"):
        desk.ok(command)
    for arguments in (["--copy", "disk"], ["--copy", "disk", "--due"], ["--from", "disk"]):
        ran = desk.run("check", *arguments, "--json")
        assert (ran.code, ran.json["problems"], ran.json["snapshots"]) == (3, [], 0)
        assert "run 'opsd copy'" in str(ran.json["notices"])
    assert "no problem found" not in desk.run("check", "--copy", "disk").text
    desk.ok("copy")
    desk.ok("check", "--copy", "disk")


def test_a_copy_that_is_only_behind_is_whole(host: Desk) -> None:
    host.ok("backup")
    assert check(host, "disk")[0] == 0
    host.ok("snapshots", "--from", "disk")


def test_three_places_damaged_in_different_objects_heal_each_other(host: Desk) -> None:
    spoilt = {}
    for number, place in enumerate(PLACES):
        spoilt[place] = packs(host, place)[number]
        spoil(spoilt[place])
        assert check(host, place)[0] == 4
    for place in PLACES:
        code, found = check(host, place, "--repair")
        name = str(spoilt[place].relative_to(host.folder / place))
        assert code == 0, found
        assert list(found["healed"]) == [name]  # type: ignore[call-overload]
    for place in PLACES:
        assert check(host, place)[0] == 0
    assert not list((host.folder / "repository" / "marks").iterdir())


@pytest.mark.parametrize("kind", ["settings", "keys", "index", "snapshots"])
@pytest.mark.parametrize("place", ["repository", "disk"])
def test_an_object_of_any_kind_is_healed(host: Desk, kind: str, place: str) -> None:
    path = min((host.folder / place / kind).iterdir())
    whole = path.read_bytes()
    spoil(path)
    assert check(host, place)[0] in {1, 4}
    code, found = check(host, place, "--repair")
    assert code == 0, found
    assert path.read_bytes() == whole
    assert check(host, place)[0] == 0


@pytest.mark.parametrize("kind", ["settings", "keys"])
@pytest.mark.parametrize("place", ["repository", "disk"])
def test_a_folder_without_which_nothing_opens_comes_back(host: Desk, kind: str, place: str) -> None:
    folder = host.folder / place / kind
    before = contents(folder)
    for path in folder.iterdir():
        path.unlink()
    ran = host.run("check", *(() if place == "repository" else ("--copy", place)))
    assert ran.code == 4
    assert "create one with" not in ran.err
    code, found = check(host, place, "--repair")
    assert code == 0, found
    assert contents(folder) == before
    assert check(host, place)[0] == 0


@pytest.mark.parametrize("place", ["repository", "disk"])
def test_a_damaged_run_is_removed_where_nobody_is_at_work(host: Desk, place: str) -> None:
    paths = list((host.folder / place / "runs").iterdir())
    for path in paths:
        spoil(path)
    assert check(host, place)[0] == 4
    code, found = check(host, place, "--repair")
    assert code == 0, found
    assert set(found["healed"].values()) == {"removed, since no run is alive"}  # type: ignore[attr-defined]
    host.ok("prune", *(() if place == "repository" else ("--copy", place)))


def test_a_damaged_run_stays_while_a_run_is_alive(host: Desk) -> None:
    spoil(min((host.folder / "repository" / "runs").iterdir()))
    with HostState(host.folder / "state").alive(b"0123456789abcdef"):
        assert check(host, "repository", "--repair")[0] == 4
    assert check(host, "repository", "--repair")[0] == 0


def test_another_repository_in_the_place_of_a_copy_is_refused(host: Desk) -> None:
    other = host.folder / "other"
    text = (host.folder / "opsd.yaml").read_text()
    (host.folder / "other.yaml").write_text(text.replace("/repository", "/other").replace("/state", "/other-state"))
    host.ok("-c", str(host.folder / "other.yaml"), "init")
    shutil.rmtree(host.folder / "disk")
    other.rename(host.folder / "disk")
    for arguments in (
        ["check", "--copy", "disk"],
        ["check", "--copy", "disk", "--repair"],
        ["prune", "--copy", "disk"],
        ["snapshots", "--from", "disk"],
        ["status", "--fleet"],
    ):
        ran = host.run(*arguments)
        assert ran.code == 1, ran
        assert "disk holds another repository" in ran.err
    (host.folder / "state" / "copies" / "disk.json").unlink()
    assert host.run("check", "--copy", "disk").code == 1


def test_what_vanished_is_named(host: Desk) -> None:
    max((host.folder / "repository" / "snapshots").iterdir()).unlink()
    code, found = check(host, "repository")
    assert code == 4
    assert all(each["object"] for each in found["problems"])  # type: ignore[attr-defined]


@pytest.mark.parametrize("place", ["repository", "disk"])
def test_a_pack_that_is_gone_comes_back(host: Desk, place: str) -> None:
    gone = max(packs(host, place), key=lambda path: path.stat().st_size)
    gone.unlink()
    assert check(host, place)[0] == 4
    code, found = check(host, place, "--repair")
    assert code == 0, found
    assert gone.exists()
    root = host.folder / "data"
    host.ok("restore", "latest", "--to", "back", *(() if place == "repository" else ("--from", place)))
    assert contents(host.folder / "back" / "www" / str(root)[1:]) == contents(root)


def test_snapshots_that_somebody_removed_come_back_from_a_copy(host: Desk) -> None:
    for path in [*sorted((host.folder / "repository" / "snapshots").iterdir())[1:], packs(host, "repository")[0]]:
        path.unlink()
    assert check(host, "repository")[0] == 4
    code, found = check(host, "repository", "--repair")
    assert code == 0, found
    assert len(host.ok("snapshots", "--json").json) == 3


def test_what_nobody_has_whole_stays_damaged_and_is_marked(host: Desk) -> None:
    name = packs(host, "disk")[0].relative_to(host.folder / "disk")
    for place in PLACES:
        spoil(host.folder / place / name)
    code, found = check(host, "disk", "--repair")
    assert code == 4
    assert found["healed"] == {}
    code, found = check(host, "repository", "--repair")
    assert code == 4
    assert found["repaired"]["packs"] == [str(name)]  # type: ignore[index]
    assert not list((host.folder / "disk" / "marks").iterdir())


def test_a_donor_that_is_away_is_told_and_the_next_one_asked(host: Desk) -> None:
    shutil.rmtree(host.folder / "disk")
    spoil(packs(host, "repository")[0])
    ran = host.run("check", "--read-data", "--repair")
    assert ran.code == 0, ran
    assert "healing from disk" in ran.err
    assert "healed from usb" in ran.text


def test_a_copy_that_lost_what_it_held_fails_its_check(host: Desk) -> None:
    max((host.folder / "disk" / "snapshots").iterdir()).unlink()
    for more in ((), ("--due",)):
        code, found = check(host, "disk", *more)
        assert code == 4
        assert "older state" in str(found["problems"])
    ran = host.run("check", "--copy", "disk", "--repair")
    assert ran.code == 0, ran
    assert "older state" not in ran.err


def test_a_filled_copy_that_is_empty_or_gone_fails_its_check_with_4(host: Desk) -> None:
    shutil.rmtree(host.folder / "disk")
    assert host.run("check", "--copy", "disk").code == 4
    (host.folder / "disk").mkdir()
    assert host.run("check", "--copy", "disk").code == 4


def test_options_that_do_not_go_together_are_refused(host: Desk) -> None:
    for arguments in (
        ["--copy", "disk", "--read-data"],
        ["--copy", "disk", "--from", "usb"],
        ["--from", "usb", "--repair"],
    ):
        assert host.run("check", *arguments).code == 2


def test_a_copy_that_was_never_filled_is_told_so(host: Desk) -> None:
    path = host.folder / "opsd.yaml"
    path.write_text(path.read_text().replace("copies: {", f"copies: {{new: {{folder: {host.folder}/new}}, "))
    for folder in (None, host.folder / "new"):
        if folder:
            folder.mkdir()
        ran = host.run("check", "--copy", "new")
        assert ran.code == 1
        assert "never filled" in ran.err
        assert "run 'opsd copy'" in ran.err


def test_without_a_key_missing_settings_slots_and_snapshots_are_noticed_and_roots_are_healed(host: Desk) -> None:
    puller = host.folder / "puller.yaml"
    puller.write_text(
        f"state: {host.folder}/pulled\n"
        f"pulls: {{web1: {{from: {{folder: {host.folder}/repository}}, to: {{folder: {host.folder}/web1}}}}}}\n"
    )
    host.ok("-c", str(puller), "copy")
    for kind in ("settings", "keys"):
        for path in (host.folder / "web1" / kind).iterdir():
            path.unlink()
        assert host.run("-c", str(puller), "check", "--copy", "web1").code == 4
        assert host.run("-c", str(puller), "check", "--copy", "web1", "--repair").code == 0
        assert contents(host.folder / "web1" / kind) == contents(host.folder / "repository" / kind)
    max((host.folder / "web1" / "snapshots").iterdir()).unlink()
    ran = host.run("-c", str(puller), "check", "--copy", "web1")
    assert ran.code == 4
    assert "older state" in ran.text


def test_a_damaged_manifest_and_lost_packs_that_only_it_needs_come_back_with_one_repair(host: Desk) -> None:
    known = set(packs(host, "disk"))
    (host.folder / "data" / "last").write_bytes(os.urandom(200_000))
    host.ok("backup")
    host.ok("copy")
    spoil(max((host.folder / "disk" / "snapshots").iterdir()))
    for path in set(packs(host, "disk")) - known:
        path.unlink()
    code, found = check(host, "disk", "--repair")
    assert code == 0, found
    assert check(host, "disk")[0] == 0


def test_settings_and_a_pack_that_are_both_gone_come_back_with_one_repair(host: Desk) -> None:
    for path in [*(host.folder / "disk" / "settings").iterdir(), packs(host, "disk")[0]]:
        path.unlink()
    spoil(packs(host, "disk")[0])
    code, found = check(host, "disk")
    assert "settings/ is empty" in str(found["problems"])
    code, found = check(host, "disk", "--repair")
    assert code == 0, found
    assert check(host, "disk")[0] == 0
