"""Attributes, targets, devices and names, as the system's own programs made them."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from opsd.sources.metadata import MetadataReader

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def read(path: Path) -> object:
    return MetadataReader().read(os.fsencode(path), path.lstat())


def attributes(path: Path) -> dict[bytes, bytes]:
    extra = MetadataReader().read(os.fsencode(path), path.lstat())
    return dict(extra.xattrs) if extra else {}


def test_a_plain_file_has_nothing_extra(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    assert read(tmp_path / "x") is None


def test_attributes_are_read_by_path_and_by_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.touch()
    os.setxattr(path, "user.color", b"\x00blue\xff")
    assert attributes(path) == {b"user.color": b"\x00blue\xff"}
    with path.open() as opened:
        extra = MetadataReader().read(opened.fileno(), path.lstat())
    assert extra is not None
    assert extra.xattrs == {b"user.color": b"\x00blue\xff"}


@pytest.mark.skipif(not shutil.which("setfacl"), reason="needs setfacl")
def test_access_and_default_lists_are_attributes(tmp_path: Path) -> None:
    subprocess.run(["setfacl", "-m", "u:1234:r,d:u:1234:rwx", str(tmp_path)], check=True)
    assert {b"system.posix_acl_access", b"system.posix_acl_default"} <= set(attributes(tmp_path))


@needs_root
@pytest.mark.skipif(not shutil.which("setcap"), reason="needs setcap")
def test_capabilities_and_trusted_attributes_are_read_by_root(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.touch()
    subprocess.run(["setcap", "cap_net_raw+ep", str(path)], check=True)
    os.setxattr(path, "trusted.note", b"1")
    assert set(attributes(path)) == {b"security.capability", b"trusted.note"}


def test_a_symlink_is_read_not_followed(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    os.setxattr(tmp_path / "x", "user.color", b"blue")
    (tmp_path / "link").symlink_to("x")
    extra = MetadataReader().read(os.fsencode(tmp_path / "link"), (tmp_path / "link").lstat())
    assert extra is not None
    assert (extra.target, dict(extra.xattrs)) == (b"x", {})


@needs_root
def test_a_device_has_its_numbers(tmp_path: Path) -> None:
    os.mknod(tmp_path / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    extra = MetadataReader().read(os.fsencode(tmp_path / "null"), (tmp_path / "null").lstat())
    assert extra is not None
    assert extra.device == (1, 3)


def _says_nothing(path: Path) -> bool:
    try:
        os.listxattr(path)
    except OSError:
        return path.exists()
    return False


def test_a_file_system_without_attributes_is_asked_once() -> None:
    folders = map(Path, ("/sys/fs/bpf", "/sys/kernel/debug", "/proc/sys/fs/binfmt_misc", "/dev/mqueue"))
    folder = next(filter(_says_nothing, folders), None)
    if folder is None:
        pytest.skip("no file system without attributes at hand")
    reader = MetadataReader()
    assert reader.read(os.fsencode(folder), folder.lstat()) is None
    # Nothing is there, so asking again would raise.
    assert reader.read(os.fsencode(folder / "not there"), folder.lstat()) is None


def test_an_entry_that_is_gone_raises(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    found = (tmp_path / "x").lstat()
    (tmp_path / "x").unlink()
    with pytest.raises(FileNotFoundError):
        MetadataReader().read(os.fsencode(tmp_path / "x"), found)


def test_owners_have_names_where_the_machine_knows_them() -> None:
    reader = MetadataReader()
    assert reader.owner_name(0) == b"root"
    assert reader.group_name(0) == b"root"
    assert reader.owner_name(3_999_999_999) is None
    assert reader.group_name(3_999_999_999) is None
