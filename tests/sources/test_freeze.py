"""Snapshots of file systems: btrfs for real where it can be mounted, ZFS and LVM by programs that note what they are told."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from opsd.errors import OpsdError, SourceError
from opsd.events import Recorder
from opsd.sources import mountinfo
from opsd.sources.files import FileTree
from opsd.sources.freeze import frozen, is_leftover
from opsd.sources.freezers import LvmFreezer, ZfsFreezer
from opsd.sources.options import FilesSource


def run(arguments: Sequence[str], /) -> bytes:
    try:
        return subprocess.run(arguments, check=True, capture_output=True).stdout
    except (OSError, subprocess.CalledProcessError) as cause:
        raise OpsdError(f"{arguments[0]} failed: {getattr(cause, 'stderr', cause)}") from cause


def dead() -> str:
    """The name of a snapshot whose process has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return f"opsd-{process.pid}-1-1"


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A mounted btrfs."""
    if os.geteuid() or not shutil.which("mkfs.btrfs"):
        pytest.skip("needs root and btrfs-progs")
    image, top = tmp_path.resolve() / "image", tmp_path.resolve() / "disk"
    with image.open("wb") as file:
        file.truncate(256 << 20)
    top.mkdir()
    subprocess.run(["mkfs.btrfs", "-q", str(image)], check=True)
    if subprocess.run(["mount", "-o", "loop", str(image), str(top)], check=False, capture_output=True).returncode:
        pytest.skip("can't mount a loop device here")
    yield top
    subprocess.run(["umount", str(top)], check=True)


def content(options: FilesSource, reporter: Recorder, scratch: Path, change: Path) -> dict[str, str]:
    """Every regular file's text, read after `change` was overwritten."""
    texts = {}
    with frozen("www", options, reporter, run, scratch=scratch) as real:
        change.write_text("new")
        for folder in FileTree("www", options, reporter, frozen=real).folders():
            for name, _ in folder.entries:
                path = Path(os.fsdecode(folder.real), os.fsdecode(name))
                if path.is_file():
                    texts[os.path.join(os.fsdecode(folder.path), os.fsdecode(name))] = path.read_text()
    return texts


def test_btrfs_gives_the_content_of_the_moment_under_the_original_paths(volume: Path, tmp_path: Path) -> None:
    (volume / "www/sub").mkdir(parents=True)
    (volume / "www/sub/x").write_text("old")
    (volume / "single").write_text("old")
    options = FilesSource(paths=(str(volume / "www"), str(volume / "single")), snapshot="btrfs")
    heard = Recorder()
    texts = content(options, heard, tmp_path, volume / "www/sub/x")
    assert texts == {str(volume / "www/sub/x"): "old", str(volume / "single"): "old"}
    assert sorted(os.listdir(volume)) == ["single", "www"]
    assert heard.warnings == []


def test_btrfs_subvolumes_and_mounts_inside_a_root_are_read_as_they_are(volume: Path, tmp_path: Path) -> None:
    (volume / "www/tmp").mkdir(parents=True)
    (volume / "www/x").write_text("old")
    run(["btrfs", "subvolume", "create", str(volume / "www/inner")])
    (volume / "www/inner/y").write_text("live")
    subprocess.run(["mount", "-t", "tmpfs", "none", str(volume / "www/tmp")], check=True)
    (volume / "www/tmp/z").write_text("live")
    heard = Recorder()
    try:
        options = FilesSource(paths=(str(volume / "www"), f"{volume}/www/tmp/z"), snapshot="btrfs")
        with pytest.raises(SourceError, match="tmpfs"):
            content(options, heard, tmp_path, volume / "www/x")
        (volume / "www/x").write_text("old")
        options = FilesSource(paths=(str(volume / "www"),), snapshot="btrfs")
        texts = content(options, heard, tmp_path, volume / "www/x")
    finally:
        subprocess.run(["umount", str(volume / "www/tmp")], check=True)
    assert texts == {f"{volume}/www/x": "old", f"{volume}/www/inner/y": "live", f"{volume}/www/tmp/z": "live"}
    assert heard.warnings == []
    assert sorted(os.listdir(volume)) == ["www"]


def test_a_snapshot_is_removed_when_the_run_fails_and_one_left_behind_at_the_next_start(
    volume: Path, tmp_path: Path
) -> None:
    (volume / "www").mkdir()
    left = dead()
    run(["btrfs", "subvolume", "snapshot", "-r", str(volume), str(volume / left)])
    alive = f"opsd-{os.getpid()}-{Path('/proc/self/stat').read_text().rpartition(')')[2].split()[19]}-0"
    (volume / alive).mkdir()
    options = FilesSource(paths=(str(volume / "www"),), snapshot="btrfs")
    heard = Recorder()

    def interrupted() -> None:
        with frozen("www", options, heard, run, scratch=tmp_path):
            assert left not in os.listdir(volume)
            assert len(os.listdir(volume)) == 3
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert sorted(os.listdir(volume)) == sorted([alive, "www"])
    assert left in heard.lines[0]


def test_without_the_option_nothing_is_done(tmp_path: Path) -> None:
    with frozen("www", FilesSource(paths=("/nowhere",)), Recorder(), run, scratch=tmp_path) as real:
        assert real == {}


def test_a_root_on_another_kind_of_file_system_fails_the_source(tmp_path: Path) -> None:
    options = FilesSource(paths=("/proc",), snapshot="zfs")
    with (
        pytest.raises(SourceError, match="/proc is on proc"),
        frozen("www", options, Recorder(), run, scratch=tmp_path),
    ):
        pass


def test_only_names_of_processes_that_are_gone_are_leftovers() -> None:
    assert is_leftover(dead())
    assert is_leftover(f"opsd-{os.getpid()}-1-1")
    assert not is_leftover("opsd-mine")
    assert not is_leftover("nightly")


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs in front of the real ones that note their arguments in `said` and do what a script in `answers` says."""
    folder, answers = tmp_path / "bin", tmp_path / "answers"
    folder.mkdir()
    answers.mkdir()
    for name in ("zfs", "lvs", "lvcreate", "lvremove", "mount", "umount"):
        script = f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/said\n[ ! -e {answers}/{name} ] || . {answers}/{name}\n'
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return tmp_path


def said(tools: Path) -> list[str]:
    return (tools / "said").read_text().splitlines()


def mount(
    *, point: bytes = b"/srv", root: bytes = b"/", kind: str = "xfs", source: bytes = b"/dev/mapper/vg-srv"
) -> mountinfo.Mount:
    return mountinfo.Mount(point=point, root=root, kind=kind, source=source)


def test_zfs_makes_shows_and_destroys_a_snapshot_of_the_dataset(tools: Path) -> None:
    top = tools / "pool"
    (top / ".zfs/snapshot/opsd-1").mkdir(parents=True)
    (tools / "answers/zfs").write_text('[ "$1" != list ] || printf "pool/srv@daily\\npool/srv@opsd-1\\n"\n')
    freezer = ZfsFreezer(run)
    volume = freezer.volume(b"/x", mount(point=os.fsencode(top), kind="zfs", source=b"pool/srv"))
    assert volume is not None
    assert freezer.freeze(volume, "opsd-1") == os.fsencode(top / ".zfs/snapshot/opsd-1")
    freezer.thaw(volume, "opsd-1")
    freezer.thaw(volume, "opsd-2")
    listing = "zfs list -H -t snapshot -o name -d 1 pool/srv"
    assert said(tools) == ["zfs snapshot pool/srv@opsd-1", listing, "zfs destroy pool/srv@opsd-1", listing]


def test_lvm_makes_room_mounts_and_removes_all_again(tools: Path) -> None:
    (tools / "answers/lvs").write_text(
        'case "$3" in vg_name*) echo "  vg srv";; lv_name) printf "  srv\\n  opsd-1\\n";; esac\n'
    )
    freezer = LvmFreezer(run, tools / "mounts")
    volume = freezer.volume(b"/srv/www", mount(root=b"/sub"))
    assert volume is not None
    shown = tools / "mounts/opsd-1"
    assert freezer.freeze(volume, "opsd-1") == os.fsencode(shown / "sub")
    assert freezer.still_good(volume, "opsd-1")
    freezer.thaw(volume, "opsd-1")
    assert not shown.exists()
    done = [line for line in said(tools) if not line.startswith("lvs")]
    assert done == [
        "lvcreate --snapshot --name opsd-1 --extents 20%ORIGIN vg/srv",
        f"mount -o ro,nouuid /dev/vg/opsd-1 {shown}",
        "lvremove --force vg/opsd-1",
    ]


def test_a_thin_volume_needs_no_room_and_is_activated(tools: Path) -> None:
    (tools / "answers/lvs").write_text('case "$3" in vg_name*) echo "  vg srv";; pool_lv) echo "  pool";; esac\n')
    freezer = LvmFreezer(run, tools / "mounts")
    volume = freezer.volume(b"/srv", mount(kind="ext4"))
    assert volume is not None
    freezer.freeze(volume, "opsd-1")
    assert "lvcreate --snapshot --name opsd-1 --setactivationskip n vg/srv" in said(tools)
    assert said(tools)[-1].startswith("mount -o ro /dev/vg/opsd-1")


def test_a_snapshot_that_ran_out_of_room_is_noticed(tools: Path) -> None:
    (tools / "answers/lvs").write_text(
        'case "$3" in vg_name*) echo "  vg srv";; lv_snapshot*) echo "  snapshot invalid";; esac\n'
    )
    freezer = LvmFreezer(run, tools / "mounts")
    volume = freezer.volume(b"/srv", mount())
    assert volume is not None
    assert not freezer.still_good(volume, "opsd-1")
    assert freezer.volume(b"/run", mount(source=b"tmpfs")) is None


def test_mountinfo_is_read_with_its_escapes_and_the_last_mount_of_a_place_counts() -> None:
    text = (
        rb"20 1 8:1 / / rw - ext4 /dev/sda1 rw" + b"\n"
        rb"21 20 8:2 /sub /srv/a\040b rw shared:1 master:2 - xfs /dev/sdb rw" + b"\n"
        rb"22 20 8:3 / /srv/a\040b rw - zfs pool/x rw" + b"\n"
    )
    mounts = mountinfo.parse(text)
    found = mountinfo.holding(b"/srv/a b/c", mounts)
    assert (found.point, found.root, found.kind, found.source) == (b"/srv/a b", b"/", "zfs", b"pool/x")
    assert mountinfo.holding(b"/srv/a bc", mounts).point == b"/"
    assert [each.point for each in mountinfo.nested([b"/srv"], mounts)] == [b"/srv/a b"]
