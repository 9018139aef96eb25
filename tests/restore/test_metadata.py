"""Metadata are set in an order in which nothing is lost."""

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from opsd.restore.complaints import Complaints
from opsd.restore.metadata import Metadata
from opsd.restore.owners import Owners
from opsd.restore.placement import Placed
from tests.restore.conftest import ACL, BEFORE_1970, CAPABILITY, NOBODY, as_nobody, needs_root, open_up
from tests.support.reader import MemoryReader

NAMES = Placed(tree=None, source=b"/", path=b"", entries=())  # type: ignore[arg-type] # only its names are looked at


def settle(path: Path, **more: object) -> Complaints:
    complaints = Complaints()
    entry = MemoryReader().file(b"f", b"x", **more)
    found = path.stat()
    given = (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        Metadata(Owners(numeric=True), complaints).settle(descriptor, entry, NAMES, given, b"f")
    finally:
        os.close(descriptor)
    return complaints


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "f"
    path.write_bytes(b"x")
    return path


@needs_root
def test_a_change_of_owner_takes_neither_setuid_nor_capabilities(file: Path) -> None:
    xattrs = {b"security.capability": CAPABILITY, b"user.a": b"1", b"system.posix_acl_access": ACL}
    complaints = settle(file, uid=1234, gid=2345, mode=0o6744, xattrs=xattrs, mtime=BEFORE_1970)
    found = file.stat()
    assert complaints.count() == 0
    assert (found.st_uid, found.st_gid, found.st_mtime_ns) == (1234, 2345, BEFORE_1970)
    # The ACL's mask stands for the group's bits.
    assert stat.S_IMODE(found.st_mode) == 0o6640
    assert {name: os.getxattr(file, name) for name in xattrs} == xattrs


@needs_root
def test_setuid_is_kept_when_only_the_owner_has_to_change(file: Path) -> None:
    file.chmod(0o4755)
    settle(file, uid=1234, gid=0, mode=0o4755)
    assert stat.S_IMODE(file.stat().st_mode) == 0o4755


@needs_root
def test_without_its_owner_a_file_does_not_stay_setuid(file: Path) -> None:
    os.chown(file, NOBODY, NOBODY)
    open_up(file.parent)

    def work() -> None:
        complaints = settle(file, uid=0, gid=0, mode=0o4755)
        assert complaints.count() == 2
        assert all(each.hint == "run the restore as root" for each in complaints.warnings())

    as_nobody(work)
    assert stat.S_IMODE(file.stat().st_mode) == 0o755


def test_numbers_that_no_system_knows_are_complaints(file: Path) -> None:
    complaints = settle(file, uid=2**40, mtime=2**100, xattrs={b"nonsense": b"1", b"user.nul\0": b"1"})
    problems = [each.problem for each in complaints.warnings()]
    assert complaints.count() == len(problems) == 4
    assert any("time" in each for each in problems)


def test_every_difference_is_seen(file: Path) -> None:
    metadata = Metadata(Owners(numeric=True), Complaints())
    os.setxattr(file, "user.a", b"1")
    file.chmod(0o640)
    found = file.stat()
    same = MemoryReader().file(b"f", b"x", mode=0o640, mtime=found.st_mtime_ns, xattrs={b"user.a": b"1"})
    assert not metadata.differs(os.fsencode(file), found, same, NAMES)
    others = [
        replace(same, mode=0o644),
        replace(same, mtime=1),
        replace(same, xattrs={}),
        replace(same, xattrs={b"user.a": b"2"}),
        replace(same, xattrs={b"user.a": b"1", b"user.b": b"1"}),
    ]
    if os.geteuid() == 0:
        others += [replace(same, uid=7), replace(same, gid=7)]
    assert all(metadata.differs(os.fsencode(file), found, each, NAMES) for each in others)
