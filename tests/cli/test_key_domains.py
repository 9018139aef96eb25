"""`opsd key domain` and `opsd key destroy`: domains come later, live outside, and go for good, while all else stays."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import Desk, contents

RESCUE = Path(__file__).parents[2] / "tools" / "rescue.py"
PAY = "the salaries"


def desk_at(folder: Path, domain: str, *, domain_of_pay: str = "staff") -> Desk:
    """A host with sources `www` and `pay`, the latter in a domain, a copy, and a place to drill."""
    Desk.at(folder)
    (folder / "www").mkdir()
    (folder / "www" / "index.html").write_text("hello")
    (folder / "pay").mkdir()
    (folder / "pay" / "roll.txt").write_text(PAY)
    (folder / "scratch").mkdir(mode=0o700)
    return configured(folder, domain, domain_of_pay)


def configured(folder: Path, domain: str, domain_of_pay: str = "staff") -> Desk:
    more = f"copies: {{there: {{folder: {folder}/there}}}}\ndrill: {{scratch: {folder}/scratch}}\n{domain}"
    sources = (
        f"www: {{files: {{paths: [{folder}/www]}}}}\npay: {{files: {{paths: [{folder}/pay]}}, domain: {domain_of_pay}}}"
    )
    return Desk.configured(Desk(folder=folder), sources, more)


def outside(folder: Path) -> str:
    return f"key_domains: {{staff: {{slots: {folder}/stick/staff}}}}"


def host_at(folder: Path) -> Desk:
    """A host whose domain `staff` has its slot outside, with a snapshot, a copy of it, a kit in `kit` and a key in `drill`."""
    desk = desk_at(folder, outside(folder))
    (folder / "kit").write_text(desk.ok("init", "--json").json["kit"])
    desk.ok("key", "generate", "drill")
    desk.ok("key", "add", "--recipient", "drill.pub")
    desk.ok("backup")
    desk.ok("copy")
    return desk


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A host that no test changes."""
    return host_at(tmp_path_factory.mktemp("taken"))


@pytest.fixture
def away(taken: Desk) -> Iterator[Desk]:
    """That host while the folder of the slots is somewhere else: in `away`."""
    stick, elsewhere = taken.folder / "stick", taken.folder / "away"
    stick.rename(elsewhere)
    yield taken
    elsewhere.rename(stick)


def restored(folder: Path) -> set[str]:
    """The contents of all files below."""
    return {text.decode() for text in contents(folder).values() if isinstance(text, bytes)}


def rescue(repository: Path, target: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {"PATH": os.environ["PATH"], **environment}
    command = [sys.executable, str(RESCUE), str(repository), "restore", "latest", str(target)]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


def test_init_says_what_hangs_on_the_folder_and_keeps_the_keys_out_of_the_repository(tmp_path: Path) -> None:
    desk = desk_at(tmp_path, outside(tmp_path))
    text = " ".join(desk.ok("init").text.split())
    assert f"key domain staff stand in {tmp_path}/stick/staff and nowhere else" in text
    assert "lost" in text
    assert "at least two places" in text
    assert [each["kind"] for each in desk.ok("key", "list", "--json").json] == ["kit", "passphrase"]
    assert len(list((tmp_path / "stick" / "staff").iterdir())) == 1


def test_with_the_folder_all_comes_back(taken: Desk, tmp_path: Path) -> None:
    taken.ok("restore", "latest", "--to", str(tmp_path / "a"))
    taken.ok("restore", "latest", "--from", "there", "--to", str(tmp_path / "b"))
    assert restored(tmp_path / "a") == restored(tmp_path / "b") == {"hello", PAY}
    assert "key domain" not in taken.ok("check", "--read-data").text
    done = rescue(
        taken.folder / "there",
        tmp_path / "c",
        OPSD_KIT_FILE=str(taken.folder / "kit"),
        OPSD_SLOTS=str(taken.folder / "stick" / "staff"),
    )
    assert (done.returncode, done.stderr, restored(tmp_path / "c")) == (0, "", {"hello", PAY})


def test_without_the_folder_a_restore_gives_back_all_other_sources_and_says_what_to_do(
    away: Desk, tmp_path: Path
) -> None:
    ran = away.run("restore", "latest", "--to", str(tmp_path / "out"), "--json")
    assert ran.code == 1
    (closed,) = ran.json["closed"]
    assert closed["source"] == "pay"
    assert f"key domain staff are not at hand: no slot can be read in {away.folder}/stick/staff" in closed["problem"]
    assert "OPSD_SLOTS" in closed["hint"]
    assert "source pay: can't be read: the keys of key domain staff" in ran.err
    assert restored(tmp_path / "out") == {"hello"}
    away.ok("restore", "latest", "--source", "www", "--to", str(tmp_path / "www"))


@pytest.mark.parametrize(
    "words",
    [
        ("restore", "latest", "--source", "pay", "--to", "{out}"),
        ("restore", "latest:{pay}", "--to", "{out}"),
        ("cat", "latest:{pay}/roll.txt"),
        ("cat", "latest:{pay}/roll.txt", "--from", "there"),
        ("ls", "latest:{pay}"),
        ("ls", "latest", "--source", "pay"),
        ("export", "latest", "--source", "pay", "-o", "{out}"),
        ("diff", "latest", "latest", "--source", "pay"),
        ("find", "roll.txt", "--source", "pay"),
    ],
    ids=" ".join,
)
def test_what_asks_for_a_closed_source_names_domain_folder_and_next_step(
    away: Desk, tmp_path: Path, words: tuple[str, ...]
) -> None:
    ran = away.run(*(word.format(pay=away.folder / "pay", out=tmp_path / "out") for word in words))
    assert ran.code == 1
    for text in ("key domain staff", f"{away.folder}/stick/staff", "OPSD_SLOTS"):
        assert text in ran.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("ls", "latest"), 3),
        (("find", "*.html"), 3),
        (("diff", "latest", "latest"), 3),
        (("export", "latest", "-o", "{out}"), 1),
        (("restore", "latest", "--to", "{out}", "--plan"), 1),
    ],
)
def test_what_asks_for_all_goes_on_without_and_says_so(
    away: Desk, tmp_path: Path, words: tuple[str, ...], code: int
) -> None:
    ran = away.run(*(word.format(out=tmp_path / "out") for word in words))
    assert (ran.code, ran.err.count("source pay: can't be read")) == (code, 1)


def test_nothing_is_deleted_in_place_while_a_source_is_closed(away: Desk) -> None:
    ran = away.run("restore", "latest", "--in-place", "--delete", "--yes")
    assert ran.code == 1
    assert "--delete" in ran.err
    assert (away.folder / "pay" / "roll.txt").read_text() == PAY


def test_a_folder_elsewhere_is_found_through_the_environment_also_on_a_new_machine(away: Desk, tmp_path: Path) -> None:
    bare = Desk(folder=away.folder, environment={"OPSD_SLOTS": "away/staff"})
    bare.ok("restore", "latest", "--repository", "there", "--kit-file", "kit", "--to", str(tmp_path / "out"))
    assert restored(tmp_path / "out") == {"hello", PAY}


def test_a_check_proves_closed_frames_by_name_and_counts_them(away: Desk) -> None:
    ran = away.run("check", "--read-data", "--json")
    found = ran.json
    assert (ran.code, found["problems"], found["decoded"]) == (3, [], True)
    assert found["closed"] > 0
    (told,) = (text for text in found["notices"] if text.startswith("frames of key domain staff that no key opened"))
    assert f": {found['closed']}; the keys of key domain staff are not at hand" in told


def test_a_drill_fails_where_keys_are_not_at_hand_and_is_not_red(away: Desk) -> None:
    found = away.run("drill", "--json").json
    assert (found["verdict"], found["exit_code"]) == ("failed", 1)
    (deviation,) = found["deviations"]
    assert (deviation["source"], deviation["subject"]) == ("pay", "keys")
    assert [source["label"] for source in found["sources"]] == ["www"]


def test_a_backup_needs_no_slot(away: Desk) -> None:
    away.ok("backup")


def test_slots_are_never_part_of_a_source(tmp_path: Path) -> None:
    folder = tmp_path
    desk = desk_at(folder, f"key_domains: {{staff: {{slots: {folder}/www/keys}}}}")
    desk.ok("init")
    assert "opsd's own and is left out" in desk.run("backup").err
    desk.ok("restore", "latest", "--source", "www", "--to", str(folder / "out"))
    assert list((folder / "www" / "keys").iterdir())
    assert restored(folder / "out") == {"hello"}


@pytest.mark.slow
def test_a_destroyed_domain_is_closed_to_everybody_and_all_else_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "host"
    desk = host_at(folder)
    shutil.copytree(folder / "stick", folder / "aside")
    (folder / "stick").rename(folder / "away")
    ran = desk.run("key", "destroy", "staff", "--reason", "they left", "--yes")
    assert (ran.code, "if it is gone for good" in " ".join(ran.err.split())) == (1, True)
    (folder / "away").rename(folder / "stick")
    assert desk.run("key", "destroy", "staff").code == 2
    assert desk.run("key", "destroy", "staff", "--reason", "they left").code == 2
    ran = desk.ok("key", "destroy", "staff", "--reason", "they left", "--yes", "--json")
    assert ran.json == {
        "name": "staff",
        "number": 2,
        "folder": f"{folder}/stick/staff",
        "slots_removed": 1,
        "sources": ["pay"],
        "snapshots": 1,
    }
    assert list((folder / "stick" / "staff").iterdir()) == []
    # The slot that was put aside is of a pair that the settings do not name any more.
    shutil.copytree(folder / "aside", folder / "stick", dirs_exist_ok=True)
    for number, words in enumerate(((), ("--kit-file", "kit"), ("--key-file", "drill"), ("--from", "there"))):
        out = tmp_path / f"out{number}"
        ran = desk.run("restore", "latest", *words, "--to", str(out))
        assert (ran.code, restored(out)) == (1, {"hello"})
        assert "destroyed on purpose" in ran.err
    # So it stands after a destruction that was cut off, and the same command finishes it.
    again = desk.ok("key", "destroy", "staff", "--reason", "they left", "--yes", "--json").json
    assert (again["slots_removed"], list((folder / "stick" / "staff").iterdir())) == (1, [])
    shutil.rmtree(folder / "stick")
    for number, place in enumerate((folder / "repository", folder / "there")):
        for name, key in (("PASSPHRASE", "passphrase"), ("KIT", "kit")):
            out = tmp_path / f"rescued{number}{key}"
            done = rescue(place, out, **{f"OPSD_{name}_FILE": str(folder / key), "OPSD_SLOTS": f"{folder}/stick"})
            assert (done.returncode, restored(out)) == (1, {"hello"})
    desk.ok("restore", "latest", "--source", "www", "--to", str(tmp_path / "www"))
    drilled = desk.ok("drill", "--json").json
    assert (drilled["verdict"], drilled["copy"]) == ("green", "there")
    assert any("destroyed on purpose" in text for text in drilled["notices"])
    checked = desk.ok("check", "--read-data", "--json").json
    assert (checked["problems"], checked["closed"]) == ([], 0)
    assert any("destroyed on purpose" in text for text in checked["notices"])


@pytest.mark.slow
def test_a_source_of_a_destroyed_domain_fails_until_there_are_new_keys(tmp_path: Path) -> None:
    desk = desk_at(tmp_path, outside(tmp_path))
    desk.ok("init")
    desk.ok("backup")
    desk.ok("key", "destroy", "staff", "--reason", "a try", "--yes")
    told = {each["name"]: each["restorable_to"] is None for each in desk.run("status", "--json").json["sources"]}
    assert told == {"www": False, "pay": True}
    ran = desk.run("backup")
    assert ran.code == 1
    assert "source pay: its key domain staff was destroyed" in ran.err
    assert "opsd key domain staff" in ran.err
    again = desk.ok("key", "destroy", "staff", "--reason", "once more", "--yes")
    assert "was destroyed before: 0 slots removed" in again.text
    added = desk.ok("key", "domain", "staff", "--json").json
    assert (added["number"], added["new"], added["where"]) == (3, True, "folder")
    # Unchanged files are stored again: what the cache and the index know of them nobody can read.
    desk.ok("backup")
    desk.ok("restore", "latest", "--to", str(tmp_path / "out"))
    assert restored(tmp_path / "out") == {"hello", PAY}
    assert desk.ok("key", "domain", "staff", "--json").json["new"] is False


@pytest.mark.slow
def test_a_domain_is_added_later_without_every_passphrase_at_hand(tmp_path: Path) -> None:
    desk = desk_at(tmp_path, "", domain_of_pay="default")
    (tmp_path / "kit").write_text(desk.ok("init", "--json").json["kit"])
    desk.ok("key", "generate", "drill")
    desk.ok("key", "add", "--recipient", "drill.pub")
    desk = configured(tmp_path, "key_domains: {staff: {}}")
    ran = desk.run("backup")
    assert ran.code == 1
    assert "the repository has no key domain staff" in ran.err
    added = desk.ok("key", "domain", "staff")
    assert "every copy" in added.text
    assert "there already" in desk.ok("key", "domain", "staff").text
    desk.ok("backup")
    for number, words in enumerate(((), ("--kit-file", "kit"), ("--key-file", "drill"))):
        desk.ok("restore", "latest", *words, "--to", str(tmp_path / f"out{number}"))
        assert restored(tmp_path / f"out{number}") == {"hello", PAY}
    done = rescue(tmp_path / "repository", tmp_path / "rescued", OPSD_KIT_FILE=str(tmp_path / "kit"))
    assert (done.returncode, done.stderr, restored(tmp_path / "rescued")) == (0, "", {"hello", PAY})
    assert desk.run("key", "domain", "nobody").code == 2
    for name in ("staff", "default"):
        ran = desk.run("key", "destroy", name, "--reason", "a try", "--yes")
        assert ran.code == 2
        assert "every copy" in ran.err


@pytest.mark.slow
def test_the_slot_of_a_domain_is_neither_removed_nor_counted_as_what_opens_the_repository(tmp_path: Path) -> None:
    desk = desk_at(tmp_path, "key_domains: {first: {}}", domain_of_pay="first")
    desk.ok("init")
    desk = configured(tmp_path, "key_domains: {first: {}, staff: {}}")
    desk.ok("key", "domain", "staff")
    slots = {each["kind"]: each["id"] for each in desk.ok("key", "list", "--json").json}
    assert set(slots) == {"kit", "passphrase", "domain"}
    ran = desk.run("key", "remove", slots["domain"])
    assert (ran.code, "key domain staff" in ran.err) == (2, True)
    desk.ok("key", "remove", slots["kit"])
    ran = desk.run("key", "remove", slots["passphrase"])
    assert (ran.code, "last" in ran.err) == (2, True)
    (tmp_path / "repository" / "keys" / slots["passphrase"]).unlink()
    ran = desk.run("check")
    assert (ran.code, "no key slot" in ran.err) == (4, True)


@pytest.mark.slow
def test_keys_that_may_have_to_be_destroyed_stand_apart_from_all_else(tmp_path: Path) -> None:
    for place in ("repository/keys", "there/keys", "state/slots", "state/cache/slots", "scratch/slots"):
        folder = tmp_path / place.replace("/", "-")
        desk = desk_at(folder, f"key_domains: {{staff: {{slots: {folder}/{place}}}}}")
        ran = desk.run("init")
        assert ran.code == 2, place
        assert "key_domains.staff.slots" in ran.err
        assert not (folder / place).exists()
    folder = tmp_path / "through"
    desk = desk_at(folder, f"key_domains: {{staff: {{slots: {folder}/way/slots}}}}")
    (folder / "state").mkdir()
    (folder / "way").symlink_to("state")
    ran = desk.run("init")
    assert (ran.code, "opsd's own" in ran.err) == (2, True)
    assert not (folder / "repository").exists()


@pytest.mark.slow
def test_what_stood_in_place_is_kept_in_the_key_domain_of_what_comes_back(tmp_path: Path) -> None:
    desk = desk_at(tmp_path, outside(tmp_path))
    (tmp_path / "pay").rename(tmp_path / "www" / "pay*")
    desk = Desk.configured(
        Desk(folder=tmp_path),
        f"www: {{files: {{paths: [{tmp_path}/www], exclude: ['/{tmp_path}/www/pay\\*']}}}}\n"
        f"pay: {{files: {{paths: ['{tmp_path}/www/pay*']}}, domain: staff}}",
        outside(tmp_path),
    )
    desk.ok("init")
    desk.ok("backup")
    (tmp_path / "www" / "index.html").write_text("changed")
    (tmp_path / "www" / "pay*" / "roll.txt").write_text("changed salaries")
    safety = desk.ok("restore", "latest", "--in-place", "--yes", "--json").json["safety_snapshot"]
    desk.ok("restore", safety, "--to", str(tmp_path / "kept"))
    assert restored(tmp_path / "kept") == {"changed", "changed salaries"}
    (tmp_path / "stick").rename(tmp_path / "away")
    assert desk.run("restore", safety, "--to", str(tmp_path / "left")).code == 1
    assert restored(tmp_path / "left") == {"changed"}
