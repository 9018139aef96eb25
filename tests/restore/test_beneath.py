"""Folders are opened by path without leaving the one that the path begins in."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsd.restore import beneath
from tests.support.descriptors import settled_descriptors


@pytest.fixture(params=["openat2", "by parts"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    if request.param == "by parts":
        monkeypatch.setattr(beneath, "_OPENAT2", 100_000)
    (tmp_path / "root/a/b").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "root/out").symlink_to(tmp_path / "outside")
    (tmp_path / "root/up").symlink_to("..")
    (tmp_path / "root/inside").symlink_to("a")
    (tmp_path / "root/file").write_bytes(b"")
    descriptor = os.open(tmp_path / "root", os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_a_folder_is_opened_by_its_path(root: int, tmp_path: Path) -> None:
    for path in (b"", b"a", b"a/b"):
        with beneath.folder(root, path, beneath.LISTED) as found:
            assert os.fstat(found).st_ino == (tmp_path / "root" / os.fsdecode(path)).stat().st_ino


@pytest.mark.parametrize(
    "path", [b"..", b"a/../..", b"out", b"up", b"up/outside", b"inside", b"inside/b", b"/", b"/etc", b"file"]
)
def test_nothing_leads_out_and_no_symlink_is_followed(root: int, path: bytes) -> None:
    before = len(settled_descriptors())
    with pytest.raises(OSError, match=r".") as caught:
        beneath.open_folder(root, path)
    assert caught.value.errno in {errno.EXDEV, errno.ELOOP, errno.ENOTDIR}
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_folder_that_is_not_there_is_told(root: int) -> None:
    with pytest.raises(FileNotFoundError):
        beneath.open_folder(root, b"a/none/c")


def test_a_path_longer_than_the_kernel_takes_is_opened(root: int) -> None:
    held = os.dup(root)
    for _ in range(50):
        os.mkdir(b"x" * 200, dir_fd=held)
        held, before = os.open(b"x" * 200, os.O_RDONLY, dir_fd=held), held
        os.close(before)
    path = b"/".join([b"x" * 200] * 50)
    with beneath.folder(root, path) as found:
        assert os.path.samestat(os.fstat(found), os.fstat(held))
    os.close(held)


def test_a_file_system_is_made_durable_or_says_that_it_is_not(root: int) -> None:
    beneath.sync(root)
    with pytest.raises(OSError, match="Bad file descriptor"):
        beneath.sync(-1)
