"""Plain files are made by a process of its own: they come back the same, whatever happens to it."""

import os
import signal
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from opsd.errors import RestoreError
from opsd.events import Recorder
from opsd.model import Entry
from opsd.restore import maker
from opsd.restore.apply import apply
from opsd.restore.protocol import Pieces
from opsd.restore.request import RestoreRequest
from tests.restore.conftest import needs_root
from tests.restore.test_apply import mounts
from tests.support.reader import MTIME, MemoryReader, entry, observe

FOLDERS, FILES = 8, 100
ROOT = os.geteuid() == 0
MODES = (0o644, 0o600, 0o755, 0o444, 0o000)


@dataclass
class Meddling(MemoryReader):
    """Does something once, before the n-th content."""

    before: int = 0
    meddle: Callable[[], None] = lambda: None

    def _pieces(self, wanted: Entry) -> Pieces:
        self.before -= 1
        if self.before == 0:
            self.meddle()
        return super()._pieces(wanted)


def many(special: tuple[bytes, ...] = ()) -> Meddling:
    """A snapshot of enough files for a maker to start, in folders that end closed, all of another content, mode and time."""
    reader = Meddling()
    folders = {b"/": [entry(b"d%d" % each, mode=0o500, mtime=MTIME + each) for each in range(FOLDERS)]}
    for folder in range(FOLDERS):
        names = sorted([b"f%03d" % each for each in range(FILES)] + (list(special) if folder == FOLDERS - 1 else []))
        folders[b"/d%d" % folder] = [
            reader.file(
                name,
                b"%d %s" % (folder, name) * (number % 60 * 20),
                mode=MODES[number % len(MODES)],
                mtime=MTIME + folder * FILES + number,
                uid=1234 if ROOT and number % 3 == 0 else os.geteuid(),
            )
            for number, name in enumerate(names)
        ]
    reader.add("s", folders)
    return reader


def wanted(reader: MemoryReader) -> dict[bytes, tuple[int, int, int, int]]:
    return {
        folder.path[1:] + b"/" + each.name: (each.mode, each.uid, each.mtime, each.size)
        for folder in reader.sources["s"]
        for each in folder.entries
        if folder.path != b"/"
    }


def found(target: Path) -> dict[bytes, tuple[int, int, int, int]]:
    files = {os.fsencode(path.relative_to(target)): path.lstat() for path in target.rglob("*") if path.is_file()}
    return {name: (stat.S_IMODE(at.st_mode), at.st_uid, at.st_mtime_ns, at.st_size) for name, at in files.items()}


def request(target: Path) -> RestoreRequest:
    return RestoreRequest(snapshot="ab12", target=os.fsencode(target), subtree=b"/")


def makers_of(parent: int) -> list[int]:
    """The makers that a process has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if b"maker.py" in (folder / "cmdline").read_bytes():
                words = (folder / "stat").read_text().rpartition(")")[2].split()
                found += [int(folder.name)] if int(words[1]) == parent else []
    return found


def test_files_and_their_folders_come_back_as_they_were(tmp_path: Path) -> None:
    reader, seen = many(), []
    reader.before, reader.meddle = 700, lambda: seen.extend(makers_of(os.getpid()))
    recorder = Recorder()
    result = apply(reader, request(tmp_path / "out"), recorder)
    assert len(seen) == (len(os.sched_getaffinity(0)) > 1)
    assert makers_of(os.getpid()) == []
    assert found(tmp_path / "out") == wanted(reader)
    for folder in range(FOLDERS):
        status = (tmp_path / f"out/d{folder}").stat()
        assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o500, MTIME + folder)
    for listed in reader.sources["s"][1:]:
        for each in listed.entries:
            content = reader.store[each.content] if isinstance(each.content, bytes) and each.content else b""
            assert (tmp_path / "out" / os.fsdecode(listed.path[1:] + b"/" + each.name)).read_bytes() == content
    assert result.written == {"files": FOLDERS * FILES, "folders": FOLDERS}
    assert (recorder.files, recorder.size) == (FOLDERS * FILES, result.size)
    assert result.exit_code == 0


@pytest.mark.parametrize("before", [300, 450, 700])
def test_a_maker_that_is_killed_costs_time_only(tmp_path: Path, before: int) -> None:
    reader = many()

    def kill() -> None:
        for each in makers_of(os.getpid()):
            os.kill(each, signal.SIGKILL)

    reader.before, reader.meddle = before, kill
    result = apply(reader, request(tmp_path / "out"), Recorder())
    assert result.exit_code == 0
    assert result.written["files"] == FOLDERS * FILES
    assert found(tmp_path / "out") == wanted(reader)
    assert (tmp_path / "out/d3").stat().st_mtime_ns == MTIME + 3


def test_what_a_killed_maker_left_half_made_is_made_again(tmp_path: Path) -> None:
    reader = many()

    def stop() -> None:
        for each in makers_of(os.getpid()):
            os.kill(each, signal.SIGSTOP)
        reader.before, reader.meddle = 250, kill

    def kill() -> None:
        with (tmp_path / "out/d4/f050").open("xb") as file:
            file.write(b"half of")
        for each in makers_of(os.getpid()):
            os.kill(each, signal.SIGKILL)

    reader.before, reader.meddle = 350, stop
    result = apply(reader, request(tmp_path / "out"), Recorder())
    assert result.exit_code == 0
    assert found(tmp_path / "out") == wanted(reader)


def test_what_a_maker_cannot_make_is_told(tmp_path: Path) -> None:
    reader = many(special=(b"f" * 300,))
    result = apply(reader, request(tmp_path / "out"), Recorder())
    assert (result.exit_code, result.warning_count) == (3, 1)
    assert "refuses the name" in result.warnings[0].problem
    assert result.written["files"] == FOLDERS * FILES


def cut(reader: MemoryReader, content: bytes) -> None:
    reader.store[content] = reader.store[content][:-1]


def lengthen(reader: MemoryReader, content: bytes) -> None:
    reader.store[content] += b"more"


@pytest.mark.parametrize("spoil", [lambda reader, content: reader.damaged.add(content), cut, lengthen])
def test_of_a_file_whose_content_is_damaged_nothing_is_made(
    tmp_path: Path, spoil: Callable[[MemoryReader, bytes], None]
) -> None:
    reader = many()
    bad = reader.sources["s"][6].entries[50]
    assert isinstance(bad.content, bytes)
    spoil(reader, bad.content)
    result = apply(reader, request(tmp_path / "out"), Recorder())
    assert [each.path for each in result.damaged] == ["d5/f050"]
    assert not (tmp_path / "out/d5/f050").exists()
    assert found(tmp_path / "out").keys() == wanted(reader).keys() - {b"d5/f050"}


@needs_root
def test_a_full_disk_ends_it_and_the_same_command_goes_on(tmp_path: Path) -> None:
    reader = many()
    (tmp_path / "disk").mkdir()
    for disk in mounts(tmp_path / "disk", "size=2m"):
        with pytest.raises(RestoreError, match="no room left"):
            apply(reader, request(disk / "out"), Recorder())
        assert makers_of(os.getpid()) == []
        os.system(f"mount -o remount,size=20m {disk}")
        result = apply(reader, request(disk / "out"), Recorder())
        assert result.resumed
        assert result.unchanged > 256
        assert found(disk / "out") == wanted(reader)


@pytest.mark.parametrize("before", [300, 500, 740])
def test_killed_the_same_command_goes_on_at_once(tmp_path: Path, before: int) -> None:
    child = os.fork()
    if child == 0:
        try:
            reader = many()
            reader.before, reader.meddle = before, lambda: os.kill(os.getpid(), signal.SIGKILL)
            apply(reader, request(tmp_path / "out"), Recorder())
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    reader = many()
    result = apply(reader, request(tmp_path / "out"), Recorder())
    assert result.resumed
    assert found(tmp_path / "out") == wanted(reader)
    assert makers_of(child) == []


def test_nothing_is_made_through_a_symlink_that_takes_a_folders_place(tmp_path: Path) -> None:
    reader = many()
    (tmp_path / "elsewhere").mkdir()

    def swap() -> None:
        (tmp_path / "out/d5").rename(tmp_path / "moved")
        (tmp_path / "out/d5").symlink_to(tmp_path / "elsewhere")

    reader.before, reader.meddle = 550, swap
    result = apply(reader, request(tmp_path / "out"), Recorder())
    assert os.listdir(tmp_path / "elsewhere") == []
    assert len(os.listdir(tmp_path / "moved")) == FILES
    assert result.written["files"] == FOLDERS * FILES


def test_a_maker_writes_into_no_other_folder_than_the_one_that_is_meant(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    root = os.open(tmp_path, os.O_RDONLY)
    try:
        at = (tmp_path / "a").stat()
        files: list[maker.Plain] = [(b"f", 0o600, None, None, MTIME, 0, 4), (b"f", 0o600, None, None, MTIME, 0, 4)]
        area = memoryview(b"here")
        asked = [(b"a", at.st_dev, at.st_ino + 1, files), (b"b", at.st_dev, at.st_ino, files)]
        assert maker.make(root, area, asked, os.getppid()) == [0, 1, 2, 3]
        assert maker.make(root, area, [(b"a", at.st_dev, at.st_ino, files)], os.getppid()) == [1]
    finally:
        os.close(root)
    assert observe(tmp_path).keys() == {b"", b"a", b"a/f"}
    assert (tmp_path / "a/f").read_bytes() == b"here"
