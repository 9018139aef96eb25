"""`opsd init`."""

import os
import stat
import subprocess

from opsd.repository.keys import decode_slot
from tests.support.command_line import Desk


def test_the_kit_is_printed_and_written_nowhere(desk: Desk) -> None:
    kit = desk.ok("init", "--json").json["kit"]
    assert len(kit.replace("-", "")) == 48
    secret = kit.replace("-", "").encode()
    for path in desk.folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert secret not in content
            assert kit.encode() not in content


def test_the_text_shows_the_whole_kit_and_what_to_do_with_it(desk: Desk) -> None:
    text = desk.ok("init").text
    assert "RECOVERY KIT" in text
    groups = [
        word for line in text.splitlines() for word in line.strip().split("-") if len(word) == 4 and word.isupper()
    ]
    assert len([group for group in groups if group.isalnum()]) >= 9
    assert max(map(len, text.splitlines()[1:])) <= 84


def test_a_second_init_is_refused_and_changes_nothing(desk: Desk) -> None:
    desk.ok("init")
    before = sorted(path for path in (desk.folder / "repository").rglob("*") if path.is_file())
    ran = desk.run("init")
    assert ran.code == 1
    assert "there is a repository already" in ran.err
    assert sorted(path for path in (desk.folder / "repository").rglob("*") if path.is_file()) == before


def test_a_folder_with_something_else_in_it_is_refused(desk: Desk) -> None:
    (desk.folder / "repository").mkdir()
    (desk.folder / "repository" / "letter.txt").touch()
    ran = desk.run("init")
    assert ran.code == 1
    assert os.listdir(desk.folder / "repository") == ["letter.txt"]


def test_an_empty_passphrase_file_is_a_mistake_of_the_configuration(desk: Desk) -> None:
    (desk.folder / "passphrase").write_text("")
    ran = desk.run("init")
    assert ran.code == 2
    assert not (desk.folder / "repository").exists()


def test_host_keys_are_private(desk: Desk) -> None:
    desk.ok("init")
    keys = list((desk.folder / "state" / "keys").iterdir())
    assert len(keys) == 2
    assert all(stat.S_IMODE(key.stat().st_mode) == 0o600 for key in keys)


def test_a_passphrase_costs_whoever_guesses_64_mib_and_three_passes_each_time(desk: Desk) -> None:
    # Started as it is: in the process that others are forked from, passphrases are cheap.
    subprocess.run(desk.command("init"), check=True, env=desk.variables(), stdout=subprocess.DEVNULL)
    slots = [decode_slot(path.name, path.read_bytes()) for path in (desk.folder / "repository" / "keys").iterdir()]
    (argon2,) = (dict(slot.clear["argon2"]) for slot in slots if slot.kind == "passphrase")
    assert (argon2["memory_kib"], argon2["iterations"], argon2["lanes"]) == (64 * 1024, 3, 4)
