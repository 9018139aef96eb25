"""What the tests of restores share: running a part of one as an ordinary user, and a tree with one of everything."""

import os
import socket
import struct
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

NOBODY = 65534
BEFORE_1970 = -1_234_567_890_123_456_789
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service=ep


def acl(*entries: tuple[int, int, int]) -> bytes:
    """An ACL's xattr from (tag, permissions, id)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *each) for each in entries)


USER_OBJ, USER, GROUP_OBJ, MASK, OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
NO_ID = 0xFFFFFFFF
ACL = acl((USER_OBJ, 6, NO_ID), (USER, 4, 1234), (GROUP_OBJ, 4, NO_ID), (MASK, 4, NO_ID), (OTHER, 0, NO_ID))
DEFAULT_ACL = acl((USER_OBJ, 7, NO_ID), (USER, 7, 1234), (GROUP_OBJ, 5, NO_ID), (MASK, 7, NO_ID), (OTHER, 0, NO_ID))

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners, devices, mounts")


def as_nobody(work: Callable[[], None]) -> None:
    """Run it in a child that is an ordinary user; its failure fails the test."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
            work()
            code = 0
        except BaseException:  # noqa: BLE001 - the parent shows it
            os.write(writing, traceback.format_exc().encode())
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading, "rb") as file:
        said = file.read().decode()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, said


def open_up(path: Path) -> None:
    """Let an ordinary user reach a test's folder."""
    for folder in (path, *path.parents):
        if folder.stat().st_uid == os.geteuid() and str(folder) not in {"/", "/tmp"}:
            folder.chmod(folder.stat().st_mode | 0o055)


def make_exotic(root: Path, *, privileged: bool) -> None:
    """A tree with one of everything that a file system holds."""
    root.mkdir()
    (root / "empty").mkdir()
    (root / "plain").write_bytes(b"plain\n" * 1000)
    (root / "nothing").write_bytes(b"")
    (root / "large").write_bytes(bytes(range(256)) * 1500)
    (root / "zeros").write_bytes(b"")
    os.truncate(root / "zeros", 1 << 20)
    with (root / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"at the end")
    other = os.fsencode(root) + b"/not utf-8 \xff\xfe\n"
    Path(os.fsdecode(other)).write_bytes(b"name")
    deep = root / "deep"
    for number in range(40):
        deep /= f"level{number}"
    deep.mkdir(parents=True)
    (deep / "bottom").write_bytes(b"deep down")
    (root / "links").mkdir()
    (root / "links" / "one").write_bytes(b"one file, three names")
    os.link(root / "links" / "one", root / "links" / "two")
    os.link(root / "links" / "one", root / "a third name")
    (root / "to folder").symlink_to("deep")
    (root / "dangling").symlink_to("/nowhere/at all")
    os.mkfifo(root / "pipe", 0o640)
    for name in ("dangling", "pipe"):
        os.link(root / name, root / "links" / name, follow_symlinks=False)
    (root / "no access").write_bytes(b"secret")
    os.setxattr(root / "plain", "user.note", b"\0\xff")
    os.setxattr(root / "deep", "user.note", b"folder")
    os.setxattr(root / "plain", "system.posix_acl_access", ACL)
    os.setxattr(root / "deep", "system.posix_acl_default", DEFAULT_ACL)
    if privileged:
        _make_privileged(root)
    for name, mode in {"no access": 0, "links": 0o500, "empty": 0o1777}.items():
        (root / name).chmod(mode)
    for number, (folder, folders, names) in enumerate(os.walk(root, topdown=False)):
        for each in (*names, *folders):
            moment = 1_500_000_000_000_000_001 + number * 1_000_000_007
            os.utime(Path(folder, each), ns=(moment, moment), follow_symlinks=False)
    os.utime(root / "plain", ns=(BEFORE_1970, BEFORE_1970))


def _make_privileged(root: Path) -> None:
    (root / "setuid").write_bytes(b"#!/bin/true")
    os.chown(root / "setuid", 1234, 2345)
    (root / "setuid").chmod(0o6755)
    (root / "capable").write_bytes(b"binary")
    os.setxattr(root / "capable", "security.capability", CAPABILITY)
    os.mknod(root / "null", 0o20666, os.makedev(1, 3))
    os.mknod(root / "disk", 0o60640, os.makedev(7, 200))
    os.link(root / "disk", root / "disk again")
    os.chown(root / "dangling", 1234, 2345, follow_symlinks=False)
    os.chown(root / "empty", 1234, 2345)
    os.setxattr(root / "plain", "trusted.note", b"root only")


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as each:
        each.bind(str(path))
