"""`opsd key`: readers come and go, the last one stays."""

from tests.support.command_line import Desk


def test_a_recipient_reads_with_nothing_but_its_key(desk: Desk) -> None:
    root = desk.tree()
    desk.ok("init")
    desk.ok("backup", str(root))
    desk.ok("key", "generate", "drill")
    assert (desk.folder / "drill").stat().st_mode & 0o777 == 0o600
    desk.ok("key", "add", "--recipient", "drill.pub", "--label", "drill host")
    drill = ["--repository", "repository", "--key-file", "drill"]
    assert desk.bare().ok("cat", f"latest:{root}/hello.txt", *drill).text == "hello\n"
    assert [each["kind"] for each in desk.ok("key", "list", "--json").json] == ["kit", "passphrase", "recipient"]


def test_a_passphrase_can_be_exchanged(desk: Desk) -> None:
    desk.ok("init")
    (desk.folder / "next").write_text("battery staple\n")
    (desk.folder / "next").chmod(0o600)
    desk.ok("key", "add", "--passphrase-from", "next")
    old = next(each["id"] for each in desk.ok("key", "list", "--json").json if each["kind"] == "passphrase")
    (desk.folder / "passphrase").write_text("battery staple\n")
    assert desk.ok("key", "remove", old[:8], "--json").json["id"] == old
    (desk.folder / "passphrase").write_text("correct horse\n")
    ran = desk.bare().run("key", "add", "--new-kit", "--repository", "repository", "--kit-file", "passphrase")
    assert ran.code == 1


def test_the_last_slot_is_never_removed(desk: Desk) -> None:
    desk.ok("init")
    slots = desk.ok("key", "list", "--json").json
    kit = next(each["id"] for each in slots if each["kind"] == "kit")
    desk.ok("key", "remove", kit)
    last = desk.ok("key", "list", "--json").json
    assert len(last) == 1
    ran = desk.run("key", "remove", last[0]["id"])
    assert ran.code == 2
    assert "last" in ran.err
    assert len(desk.ok("key", "list", "--json").json) == 1


def test_a_new_kit_opens_and_is_shown_once(desk: Desk) -> None:
    desk.ok("init")
    desk.ok("backup", str(desk.tree()))
    kit = desk.ok("key", "add", "--new-kit", "--json").json["kit"]
    (desk.folder / "kit").write_text(kit.lower().replace("-", " "))
    assert desk.bare().ok("ls", "latest", "--repository", "repository", "--kit-file", "kit").text


def test_a_key_file_never_replaces_another(desk: Desk) -> None:
    desk.ok("key", "generate", "drill")
    before = (desk.folder / "drill").read_bytes()
    assert desk.run("key", "generate", "drill").code == 1
    assert (desk.folder / "drill").read_bytes() == before


def test_a_host_that_lost_its_state_enrols_again(desk: Desk) -> None:
    root = desk.tree()
    desk.ok("init")
    desk.ok("backup", str(root))
    (desk.folder / "state").rename(desk.folder / "lost")
    ran = desk.run("key", "enrol", "--json")
    assert (ran.code, len(ran.json["writer"])) == (3, 32)
    assert "ledger.jsonl was cut, edited or lost: entry 1 missing" in ran.err
    desk.ok("backup", str(root))
    assert len(desk.ok("snapshots", "--json").json) == 2
