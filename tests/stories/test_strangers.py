"""What a stranger tries who has only read what opsd promises: odd names, slips of the pen, damage, places that can't be meant."""

import itertools
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import PASSPHRASE, Desk, contents
from tests.support.reader import observe
from tests.support.warm import ROOT

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="owners, devices and mounts need root")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A host with an empty repository."""
    desk = Desk.at(tmp_path)
    desk.ok("init")
    return desk


def objects(desk: Desk, kind: str) -> list[Path]:
    """The objects of a kind, as files."""
    return sorted(path for path in (desk.folder / "repository" / kind).rglob("*") if path.is_file())


def flip(path: Path, place: int) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 0x10
    path.write_bytes(content)


def deep(folder: Path, levels: int) -> None:
    """A chain of folders longer than any path may be, with a file at its end."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d" * 200, dir_fd=here)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    bottom = os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=here)
    os.write(bottom, b"deep")
    os.close(bottom)
    os.close(here)


def odd_names(folder: Path) -> None:
    """Names that trip programs."""
    folder.mkdir()
    for name in (b"caf\xe9\xff", b"new\nline", b"\x1b[31m", b"-rf", b"*", b" ", b"back\\slash", b"~", b"n" * 255):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(name)
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe")).mkdir()


def odd_kinds(folder: Path) -> None:
    """Entries that trip programs."""
    odd_names(folder)
    os.mkfifo(folder / "fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "s"))
    for first, second in itertools.pairwise(("loop1", "loop2", "loop1")):
        (folder / first).symlink_to(second)
    (folder / "to root").symlink_to("/")
    (folder / "far").symlink_to("x" * 4000)
    (folder / "one").write_text("linked")
    (folder / "locked").mkdir()
    for name in ("one", "fifo", "loop1", "to root"):
        os.link(folder / name, folder / f"{name} again", follow_symlinks=False)
        os.link(folder / name, folder / "locked" / name, follow_symlinks=False)
    (folder / "locked" / "inside").write_text("x")
    os.setxattr(folder / "one", "user.binary", b"\0\xff")
    for name, moment in (("old", -(10**18) - 1), ("just before", -1), ("epoch", 0), ("future", 4 * 10**18 + 1)):
        (folder / name).touch()
        os.utime(folder / name, ns=(moment, moment))
    (folder / "locked").chmod(0)
    os.utime(folder, ns=(1, 1))


def as_root(folder: Path) -> None:
    """Entries that only root can make."""
    os.mknod(folder / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (folder / "setuid").touch()
    os.chown(folder / "setuid", 12345, 54321)
    (folder / "setuid").chmod(0o6755)
    os.link(folder / "null", folder / "null again")
    os.chown(folder / "loop1", 77, 78, follow_symlinks=False)
    os.utime(folder, ns=(1, 1))


def differences(one: Path, other: Path) -> list[str]:
    """What an independent reader would change to make one the other."""
    command = ["rsync", "-aHAXni", "--checksum", "--delete", f"{one}/", f"{other}/"]
    return subprocess.run(command, check=True, capture_output=True, text=True, errors="replace").stdout.splitlines()


@root_only
def test_odd_names_kinds_times_and_owners_come_back_as_rsync_sees_them(desk: Desk) -> None:
    source, back = desk.folder / "odd", desk.folder / "back"
    odd_kinds(source)
    as_root(source)
    desk.run("backup", str(source))
    assert desk.run("restore", f"latest:{source}", "--to", str(back)).code == 0
    (source / "s").unlink()
    os.utime(source, ns=(1, 1))
    assert (differences(source, back), observe(back)) == ([], observe(source))
    assert not (back / "s").exists()
    for name in ("loop1", "fifo", "null"):
        (source / f"{name} again").unlink()
        subprocess.run(["cp", "-a", source / name, source / f"{name} again"], check=True)
    assert observe(source) != observe(back)  # rsync does not look at links between such entries that are there.
    assert desk.run("restore", "latest", "--in-place", "--yes", "--no-safety-snapshot").code == 0
    assert (differences(source, back), observe(source)) == ([], observe(back))


@root_only
def test_links_of_all_kinds_come_back_through_tar(desk: Desk) -> None:
    source, target = desk.folder / "odd", desk.folder / "untarred"
    odd_kinds(source)
    as_root(source)
    desk.run("backup", str(source))
    archive = desk.run("export", f"latest:{source}").out
    target.mkdir()
    subprocess.run(["tar", "-C", target, "--xattrs", "--xattrs-include=*", "-xpf", "-"], input=archive, check=True)
    (source / "s").unlink()
    for folder in (source, target):
        os.utime(folder, ns=(1, 1))
    assert (differences(source, target), observe(target)) == ([], observe(source))


def test_names_that_would_steer_a_terminal_are_shown_quoted(desk: Desk) -> None:
    odd_names(desk.folder / "odd")
    desk.ok("backup", str(desk.folder / "odd"))
    for command in (["ls", "--recursive", "latest"], ["find", "*"], ["diff", "latest", "latest"]):
        shown = desk.ok(*command).out
        assert b"\x1b" not in shown
        assert b"new\nline" not in shown


def test_a_tree_deeper_than_any_path_may_be_comes_back(desk: Desk) -> None:
    (desk.folder / "source").mkdir()
    deep(desk.folder / "source", 30)
    desk.ok("backup", str(desk.folder / "source"))
    desk.ok("restore", f"latest:{desk.folder}/source", "--to", str(desk.folder / "back"))
    count = ["find", ".", "-name", "bottom", "-size", "-5c", "-printf", "%s"]
    found = subprocess.run(count, cwd=desk.folder / "back", check=True, capture_output=True, text=True)
    assert found.stdout == "4"


def test_the_rescue_script_restores_names_of_255_bytes(desk: Desk) -> None:
    odd_names(desk.folder / "odd")
    desk.ok("backup", str(desk.folder / "odd"))
    back = desk.folder / "back"
    command = [
        sys.executable,
        str(ROOT / "tools/rescue.py"),
        str(desk.folder / "repository"),
        "restore",
        "latest",
        str(back),
    ]
    done = subprocess.run(command, check=False, env=desk.variables(), capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert contents(Path(f"{back}/files{desk.folder}/odd")) == contents(desk.folder / "odd")


def test_ls_of_a_whole_snapshot_goes_down_when_told_to(desk: Desk) -> None:
    root = desk.tree()
    desk.ok("backup", str(root))
    paths = {item["path"] for item in desk.ok("ls", "--recursive", "latest", "--json").json}
    assert {str(root), f"{root}/deep/er/empty"} <= paths


def test_a_pattern_that_fits_nothing_is_no_restore(desk: Desk) -> None:
    desk.ok("backup", str(desk.tree()))
    ran = desk.run("restore", "latest", "--to", str(desk.folder / "back"), "--path", "helo.txt")
    assert ran.code == 1
    assert "nothing that fits helo.txt" in ran.err


def test_a_failed_after_hook_ends_the_run_with_warnings(desk: Desk) -> None:
    desk = desk.configured(f"www: {{files: {{paths: [{desk.tree()}]}}}}", more="hooks: {after: [{run: ['false']}]}")
    ran = desk.run("backup")
    assert ran.code == 3
    assert "after hook false exited with 1" in ran.err


def test_the_moment_that_the_list_shows_finds_the_snapshot_again(desk: Desk) -> None:
    desk = desk.configured(f"www: {{files: {{paths: [{desk.tree()}]}}}}")
    desk.ok("backup")
    listed = desk.ok("snapshots", "--json").json[0]
    planned = desk.ok(
        "restore", "latest", "--at", listed["time"], "--to", str(desk.folder / "x"), "--plan", "--json"
    ).json
    assert planned["snapshot"] == listed["id"]
    assert not (desk.folder / "x").exists()


@pytest.mark.parametrize("name", ["", "latest:", "zzzz", "../x", " ", "latest:/nope", "latest:/srv/../etc"])
def test_what_is_no_snapshot_is_named_and_writes_nothing(desk: Desk, name: str) -> None:
    desk.ok("backup", str(desk.tree()))
    ran = desk.run("restore", name, "--to", str(desk.folder / "back"))
    assert ran.code in {1, 2}
    assert ran.err.startswith("opsd: ")
    assert not (desk.folder / "back").exists()


@pytest.mark.parametrize("kind", ["index", "keys", "packs", "runs", "snapshots"])
def test_a_flipped_bit_is_named_and_never_gives_wrong_data(desk: Desk, kind: str) -> None:
    root = desk.tree()
    desk.ok("backup", str(root))
    damaged = max(objects(desk, kind), key=lambda path: path.stat().st_size)
    flip(damaged, 777)
    ran = desk.run("check", "--read-data")
    assert ran.code == 4
    assert damaged.name in ran.text + ran.err
    back = desk.folder / "back"
    if desk.run("restore", f"latest:{root}", "--to", str(back)).code == 0:
        assert contents(back) == contents(root)


@pytest.mark.parametrize("content", [b"", b"OPSD"])
def test_a_damaged_key_slot_is_not_called_a_wrong_passphrase_only(desk: Desk, content: bytes) -> None:
    slot = next(path for path in objects(desk, "keys") if b"passphrase" in path.read_bytes())
    slot.write_bytes(content)
    ran = desk.run("check")
    assert ran.code == 4
    assert slot.name in ran.err


def test_a_damaged_hold_does_not_stop_the_nightly_run(desk: Desk) -> None:
    root = desk.tree()
    desk.ok("backup", str(root))
    desk.ok("hold", "latest", "--reason", "audit")
    note = objects(desk, "notes")[0]
    flip(note, 50)
    ran = desk.run("backup", str(root))
    assert ran.code == 3
    assert note.name in ran.err
    assert desk.run("check").code == 4


def test_a_lost_pack_is_stored_anew_by_the_next_run(desk: Desk) -> None:
    root = desk.tree()
    desk.ok("backup", str(root))
    max(objects(desk, "packs"), key=lambda path: path.stat().st_size).unlink()
    desk.run("backup", str(root))
    desk.ok("restore", f"latest:{root}", "--to", str(desk.folder / "back"))
    assert contents(desk.folder / "back") == contents(root)


def test_in_place_never_writes_through_a_symlink_that_took_a_folders_place(desk: Desk) -> None:
    root = desk.tree()
    before = contents(root)
    desk.ok("backup", str(root))
    (root / "deep" / "er").rename(desk.folder / "elsewhere")
    (root / "deep" / "er").symlink_to(desk.folder / "elsewhere")
    (desk.folder / "elsewhere" / "empty").write_text("precious")
    desk.ok("restore", "latest", "--in-place", "--yes")
    assert contents(root) == before
    assert (desk.folder / "elsewhere" / "empty").read_text() == "precious"


def test_what_delete_removes_stands_in_the_safety_snapshot_also_if_it_was_excluded(desk: Desk) -> None:
    root = desk.tree()
    desk = desk.configured(f"www: {{files: {{paths: [{root}], exclude: ['*.tmp']}}}}")
    desk.ok("backup")
    (root / "mine.tmp").write_text("never backed up")
    assert any(
        path.endswith("mine.tmp")
        for path in desk.ok("restore", "--in-place", "--delete", "--plan", "--json").json["deletions"]
    )
    safety = desk.ok("restore", "--in-place", "--delete", "--yes", "--json").json["safety_snapshot"]
    assert not (root / "mine.tmp").exists()
    assert desk.ok("cat", f"{safety}:{root}/mine.tmp").text == "never backed up"


def test_a_place_inside_the_repository_is_refused(desk: Desk) -> None:
    desk.ok("backup", str(desk.tree()))
    ran = desk.run("restore", "latest", "--to", str(desk.folder / "repository" / "back"))
    assert ran.code == 1
    assert not (desk.folder / "repository" / "back").exists()


@root_only
def test_a_full_disk_ends_a_restore_that_goes_on_once_there_is_room(desk: Desk) -> None:
    root = desk.tree()
    (root / "large").write_bytes(os.urandom(3_000_000))
    desk.ok("backup", str(root))
    small = desk.folder / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        ran = desk.run("restore", f"latest:{root}", "--to", str(small / "back"))
        assert ran.code == 1
        assert "no room" in ran.err
        subprocess.run(["mount", "-o", "remount,size=9m", str(small)], check=True)
        desk.ok("restore", f"latest:{root}", "--to", str(small / "back"))
        assert contents(small / "back") == contents(root)
    finally:
        subprocess.run(["umount", str(small)], check=True)


@root_only
def test_what_a_stranger_may_not_read_is_a_warning_and_the_rest_is_kept(tmp_path: Path) -> None:
    desk = Desk.at(tmp_path / "desk")
    root = desk.tree()
    (root / "secret").write_text("x")
    (root / "secret").chmod(0)
    for path in (desk.folder, *desk.folder.rglob("*")):
        os.chown(path, 4242, 4242, follow_symlinks=False)
    for parent in list(tmp_path.parents)[:3]:
        if not parent.stat().st_mode & stat.S_IXOTH:
            parent.chmod(parent.stat().st_mode | stat.S_IXOTH)
    tmp_path.chmod(0o755)

    def as_other(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["setpriv", "--reuid=4242", "--regid=4242", "--clear-groups", *desk.command(*arguments)]
        return subprocess.run(command, check=False, cwd="/", env=desk.variables(), capture_output=True, text=True)

    if as_other("--version").returncode:
        pytest.skip("another user can't run this Python")
    assert as_other("init").returncode == 0
    ran = as_other("backup", str(root))
    assert ran.returncode == 3
    assert f"{root}/secret" in ran.stderr
    restored = as_other("restore", f"latest:{root}", "--to", str(desk.folder / "back"))
    assert restored.returncode in {0, 3}, restored.stderr
    (root / "secret").unlink()
    assert contents(desk.folder / "back") == contents(root)


@pytest.mark.slow
def test_mutated_configurations_are_accepted_or_told_and_never_a_bug(desk: Desk) -> None:
    example = desk.ok("config", "generate").text
    path = desk.folder / "opsd.yaml"
    odd = [
        "null",
        "[]",
        "{}",
        "-1",
        "1e999",
        "!!python/object:os.system x",
        "&a [*a]",
        "'",
        "\t",
        ":",
        "- ",
        "\ufeff",
        "<<: *x",
        "%",
    ]
    for number in range(60):
        place = number * 7919 % len(example)
        path.write_text(example[:place] + odd[number % len(odd)] + example[place + number % 9 :], encoding="utf-8")
        ran = desk.run("-c", str(path), "config", "validate")
        assert ran.code in {0, 2}, (number, ran)
        assert "Traceback" not in ran.err


def test_the_passphrase_stands_nowhere(desk: Desk) -> None:
    desk.ok("backup", str(desk.tree()))
    for path in desk.folder.rglob("*"):
        if path.is_file() and path.name != "passphrase":
            assert PASSPHRASE.encode() not in path.read_bytes(), path
