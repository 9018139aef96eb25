"""`opsd ledger`: every command that changes something leaves an entry, and nobody alters one unseen."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from opsd.cli.main import _run, cli
from opsd.monitor.ledger import REBUILT
from tests.support.command_line import Desk

#: What each command leaves; None where it changes nothing and gives nothing back. A new command must be added.
ACTIONS = {
    "init": "init",
    "backup": "backup",
    "restore": "restore",
    "check": "repair",
    "copy": "copy",
    "drill": "drill",
    "prune": "prune",
    "hold": "hold",
    "export": "export",
    "ack": "ack",
    "pause": "pause",
    "key add": "key-add",
    "key remove": "key-remove",
    "key enrol": "key-enrol",
    "key domain": "key-domain",
    "key destroy": "key-destroy",
    "ledger accept": "ledger-accepted",
    **dict.fromkeys(("snapshots", "ls", "find", "diff", "cat", "stats", "status", "key list", "key public")),
    **dict.fromkeys(("drill list", "drill show", "drill report")),
    **dict.fromkeys(("config generate", "config validate", "config show", "config schema")),
    **dict.fromkeys(("alerts test", "alerts list", "alerts deliver", "alerts failed-unit")),
    **dict.fromkeys(("ledger show", "ledger export", "ledger verify", "demo")),
    **dict.fromkeys(("doctor", "config units")),
    **dict.fromkeys(("setup", "daemon", "run")),  # What they do is done by the commands above.
    "key generate": None,  # Makes two files; the repository learns of them by 'key add'.
}
Opsd = Callable[..., int]
NAMES = ("customer-smith", "accounts.db", "smith-www")


def commands(command: click.Command, path: str = "") -> Iterator[str]:
    if not isinstance(command, click.Group):
        yield path
        return
    if command.invoke_without_command:
        yield path
    context = click.Context(command)
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        yield from commands(below, f"{path} {name}".strip())


def test_every_command_is_known_to_leave_an_entry_or_to_need_none() -> None:
    assert set(commands(cli)) == set(ACTIONS)


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A host on which every command that changes something was given once."""
    desk = Desk.at(tmp_path_factory.mktemp("used"))
    folder = desk.folder
    data = folder / "customer-smith"
    data.mkdir()
    (data / "accounts.db").write_text("rows")
    copies = (
        f"copies: {{elsewhere: {{folder: {folder}/elsewhere}}}}\nkey_domains: {{smith-www: {{slots: {folder}/slots}}}}"
    )
    (folder / "scratch").mkdir(mode=0o700)
    desk = desk.configured(
        f"smith-www: {{files: {{paths: [{data}]}}}}", f"{copies}\ndrill: {{scratch: {folder}/scratch}}"
    )
    opsd = runner(desk)
    (folder / "second").write_text("another passphrase\n")
    assert opsd("init") == 0
    assert opsd("backup") == 0
    assert opsd("restore", "latest", "--to", f"{folder}/back", "--reason", "asked by audit") == 0
    assert opsd("restore", f"latest:{data}/none", "--to", f"{folder}/back2") == 1
    assert opsd("hold", "latest", "--reason", "audit 2026") == 0
    assert opsd("hold", "latest", "--release") == 0
    assert opsd("ack", "--all") == 0
    assert opsd("pause", "--until", "2099-01-01", "--reason", "a move") == 0
    assert opsd("pause", "--end") == 0
    assert opsd("prune") == 0
    assert opsd("check", "--repair") == 0
    assert opsd("export", "latest", "-o", f"{folder}/smith.tar") == 0
    assert opsd("key", "add", "--passphrase-from", f"{folder}/second", "--label", "smith") == 0
    slot = next(json.loads(line) for line in ledger(desk) if b'"key-add"' in line)["details"]["slot"]
    assert opsd("key", "remove", slot, "--reason", "a try") == 0
    assert opsd("key", "domain", "smith-www") == 0
    assert opsd("key", "destroy", "smith-www", "--reason", "they left", "--yes") == 0
    for keys in (folder / "state" / "keys").iterdir():
        keys.unlink()
    assert opsd("key", "enrol") == 0
    assert opsd("backup") == 0
    assert opsd("copy") == 0
    assert opsd("drill") == 0
    return desk


def runner(desk: Desk) -> Opsd:
    """Runs commands in this process: they are many, and a process each would take seconds."""

    def run(*arguments: str) -> int:
        return _run(["-c", desk.environment["OPSD_CONFIG"], *arguments])

    return run


def ledger(desk: Desk) -> list[bytes]:
    return (desk.folder / "state" / "ledger.jsonl").read_bytes().splitlines()


@pytest.fixture
def desk(used: Desk, tmp_path: Path) -> Iterator[Desk]:
    """That host; its state folder is put back afterwards."""
    shutil.copytree(used.folder / "state", tmp_path / "state")
    yield used
    shutil.rmtree(used.folder / "state")
    shutil.copytree(tmp_path / "state", used.folder / "state")


def test_every_command_that_changes_something_left_its_entry(used: Desk) -> None:
    found = [json.loads(line) for line in ledger(used)]
    expected = {action for action in ACTIONS.values() if action} - {"ledger-accepted"}
    assert {each["action"] for each in found} == expected | {"release", "pause-end"}
    begun = {each["number"]: each for each in found if each["outcome"] == "begun"}
    assert {each["action"] for each in begun.values()} == {"restore", "prune", "repair", "drill", "key-destroy"}
    assert {each["begun"] for each in found if each["begun"]} == set(begun)


def test_the_ledger_holds_no_path_and_no_name_of_a_customer(used: Desk) -> None:
    text = b"\n".join(ledger(used)).decode()
    assert not [name for name in (*NAMES, str(used.folder)) if name in text]
    assert "asked by audit" in text


def answer(opsd: Opsd, capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    capfd.readouterr()
    code = opsd(*arguments, "--json")
    return code, json.loads(capfd.readouterr().out)


def test_the_ledger_of_an_honest_host_verifies_by_state_repository_and_copy(
    used: Desk, capfd: pytest.CaptureFixture[str]
) -> None:
    code, found = answer(runner(used), capfd, "ledger", "verify")
    assert (code, found["problems"], found["notices"]) == (0, [], [])
    assert found["vouchers"] == ["the state folder", "repository", "copy elsewhere"]


def test_a_ledger_is_listed_in_80_columns_and_filtered(used: Desk, capfd: pytest.CaptureFixture[str]) -> None:
    opsd = runner(used)
    assert opsd("ledger", "show") == 0
    assert max(map(len, capfd.readouterr().out.splitlines())) <= 80
    _, found = answer(opsd, capfd, "ledger", "show", "--action", "restore", "--last", "1")
    assert [(each["action"], each["outcome"]) for each in found] == [("restore", "failed")]
    assert len(answer(opsd, capfd, "ledger", "show", "--since", "today")[1]) == len(ledger(used))
    assert answer(opsd, capfd, "ledger", "show", "--since", "now")[1] == []


@pytest.fixture(scope="module")
def exported(used: Desk) -> Path:
    """An export, and beside it the public key."""
    path = used.folder / "export.jsonl"
    assert runner(used)("ledger", "export", "-o", str(path)) == 0
    return path


@pytest.fixture
def key(used: Desk, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Path:
    capfd.readouterr()
    assert runner(used)("key", "public") == 0
    (tmp_path / "key").write_text(capfd.readouterr().out)
    return tmp_path / "key"


def test_an_export_has_a_line_for_each_entry_and_verifies_with_the_public_key_alone(
    used: Desk, exported: Path, key: Path
) -> None:
    assert exported.read_bytes().count(b"\n") == len(ledger(used))
    assert _run(["ledger", "verify", str(exported), "--public-key", str(key)]) == 0
    assert runner(used)("ledger", "verify", str(exported)) == 0


CHANGES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "cut": lambda lines: lines[:-1],
    "first removed": lambda lines: lines[1:],
    "one removed": lambda lines: lines[:4] + lines[5:],
    "two swapped": lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]],
    "one altered": lambda lines: [*lines[:3], lines[3].replace(b"audit", b"nobody"), *lines[4:]],
    "last altered": lambda lines: [*lines[:-1], lines[-1].replace(b'"done"', b'"gone"')],
    "one put in": lambda lines: [*lines[:3], lines[2], *lines[3:]],
    "one added": lambda lines: [*lines, lines[0]],
    "signature gone": lambda lines: [*lines[:-1], json.dumps({**json.loads(lines[-1]), "signed_head": None}).encode()],
    "signature of another": lambda lines: [*lines[:-1], lines[-1].replace(b'"signature":"', b'"signature":"00')],
    "nothing": lambda _: [],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_an_export_that_was_changed_does_not_verify(
    change: Callable[[list[bytes]], list[bytes]], exported: Path, key: Path, tmp_path: Path
) -> None:
    path = tmp_path / "changed"
    path.write_bytes(b"".join(line + b"\n" for line in change(exported.read_bytes().splitlines())))
    assert _run(["ledger", "verify", str(path), "--public-key", str(key)]) == 4


def test_an_export_does_not_verify_with_the_key_of_another_host(exported: Path, key: Path) -> None:
    value = json.loads(key.read_text())
    key.write_text(json.dumps({**value, "ed25519": "00" * 32}))
    assert _run(["ledger", "verify", str(exported), "--public-key", str(key)]) == 4
    key.write_text("hello")
    assert _run(["ledger", "verify", str(exported), "--public-key", str(key)]) == 1


def test_a_ledger_rewritten_with_its_memory_is_shown_by_snapshots(
    desk: Desk, capfd: pytest.CaptureFixture[str]
) -> None:
    """Root forges a chain that fits itself; the repository and the copies know better."""
    path = desk.folder / "state" / "ledger.jsonl"
    path.unlink()
    (desk.folder / "state" / "ledger.head").unlink()
    code, found = answer(runner(desk), capfd, "ledger", "verify")
    assert code == 4
    assert "are gone: snapshot" in found["problems"][0]


def test_a_lost_ledger_is_shown_as_lost_while_its_head_is_known(desk: Desk, capfd: pytest.CaptureFixture[str]) -> None:
    path = desk.folder / "state" / "ledger.jsonl"
    path.rename(desk.folder / "kept")
    try:
        assert runner(desk)("ledger", "show") == 3
        assert "are gone: the state folder vouches for entry" in capfd.readouterr().err
    finally:
        (desk.folder / "kept").rename(path)


def test_an_export_without_a_configuration_asks_for_the_key(
    exported: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPSD_CONFIG", str(exported.parent / "none"))
    assert _run(["ledger", "verify", str(exported)]) == 2
    assert "--public-key FILE" in capfd.readouterr().err


def test_another_host_in_the_repository_vouches_only_for_its_own_ledger(
    desk: Desk, capfd: pytest.CaptureFixture[str]
) -> None:
    text = (desk.folder / "opsd.yaml").read_text()
    other = desk.folder / "other.yaml"
    other.write_text(text.replace(f"state: {desk.folder}/state", f"state: {desk.folder}/other\nhost: other"))
    opsd = runner(Desk(folder=desk.folder, environment={"OPSD_CONFIG": str(other)}))
    assert [opsd("backup"), opsd("backup")] == [0, 0]
    for each in (opsd, runner(desk)):
        assert answer(each, capfd, "ledger", "verify")[1]["problems"] == []


def test_a_lost_ledger_goes_on_from_the_copies_says_so_and_can_be_accepted(
    desk: Desk, capfd: pytest.CaptureFixture[str]
) -> None:
    opsd = runner(desk)
    (desk.folder / "state" / "ledger.jsonl").unlink()
    (desk.folder / "state" / "ledger.head").unlink()
    shutil.move(desk.folder / "repository", desk.folder / "away")
    try:
        assert opsd("restore", "latest", "--from", "elsewhere", "--to", str(desk.folder / "back3")) == 3
    finally:
        shutil.move(desk.folder / "away", desk.folder / "repository")
    assert "cut, edited or lost: entries 1 to" in capfd.readouterr().err
    first = json.loads(ledger(desk)[0])
    assert (first["action"], first["number"] > 10) == (REBUILT, True)
    assert opsd("ledger", "verify") == 4
    assert opsd("ledger", "accept", "--reason", "a test") == 0
    code, found = answer(opsd, capfd, "ledger", "verify")
    assert (code, found["problems"]) == (3, [])
    assert "accepted that" in found["notices"][0]


def test_a_host_without_keys_refuses_to_export(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pull = f"{{from: {{folder: {tmp_path}/a}}, to: {{folder: {tmp_path}/b}}}}"
    path = tmp_path / "opsd.yaml"
    path.write_text(f"version: 1\nstate: {tmp_path}/state\npulls: {{web1: {pull}}}\n")
    (tmp_path / "state").mkdir()
    assert _run(["-c", str(path), "copy"]) != 0
    capfd.readouterr()
    assert _run(["-c", str(path), "ledger", "export"]) == 1
    assert "no key to sign with" in capfd.readouterr().err
    assert _run(["-c", str(path), "ledger", "verify"]) == 0
