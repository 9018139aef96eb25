"""Opening without following, waiting or touching."""

import os
import stat
from pathlib import Path

import pytest

from opsd.sources.opening import open_file, reachable, same_file, unchanged


def test_a_symlink_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    (tmp_path / "link").symlink_to("x")
    with pytest.raises(OSError, match="symbolic"):
        open_file(os.fsencode(tmp_path / "link"))


def test_a_pipe_that_took_a_files_place_does_not_hang_the_run(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.touch()
    found = path.lstat()
    path.rename(tmp_path / "aside")
    os.mkfifo(path)
    descriptor = open_file(os.fsencode(path))
    opened = os.fstat(descriptor)
    os.close(descriptor)
    assert stat.S_ISFIFO(opened.st_mode)
    assert not same_file(found, opened)


def test_reading_leaves_the_access_time_alone(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("content")
    os.utime(path, ns=(0, 10**18))  # So old that a mount with relatime would touch it.
    descriptor = open_file(os.fsencode(path))
    os.read(descriptor, 10)
    os.close(descriptor)
    assert path.stat().st_atime_ns == 0


def test_a_write_of_the_same_length_is_a_change(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("one")
    before = path.lstat()
    assert unchanged(before, path.lstat())
    os.utime(path, ns=(0, before.st_mtime_ns + 1))
    assert not unchanged(before, path.lstat())


def test_a_path_longer_than_the_kernel_takes_is_reachable(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path.resolve())
    for _ in range(45):
        with reachable(path + b"/" + b"d" * 200) as short:
            os.mkdir(short)
        path += b"/" + b"d" * 200
    with reachable(path + b"/x") as short:
        Path(os.fsdecode(short)).write_text("deep")
    descriptor = open_file(path + b"/x")
    assert os.read(descriptor, 10) == b"deep"
    os.close(descriptor)
