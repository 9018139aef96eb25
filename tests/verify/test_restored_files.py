"""Restored files are read again by whoever restored them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from opsd.verify.restored_files import opened

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")
USER = 4242


@contextmanager
def being(user: int) -> Iterator[None]:
    """Have the rights of that user."""
    os.setegid(user)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "closed").write_text("content")
    (tmp_path / "closed").chmod(0)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_a_file_that_its_mode_closes_to_its_owner_is_read_and_keeps_its_mode(tmp_path: Path, folder: int) -> None:
    os.chown(tmp_path / "closed", USER, USER)
    os.chown(tmp_path, USER, USER)
    with being(USER):
        descriptor = opened(b"closed", folder, os.stat(b"closed", dir_fd=folder))
    assert os.read(descriptor, 100) == b"content"
    os.close(descriptor)
    assert (tmp_path / "closed").stat().st_mode & 0o7777 == 0


def test_a_file_of_another_stays_closed(folder: int, tmp_path: Path) -> None:
    os.chown(tmp_path, USER, USER)
    with being(USER), pytest.raises(PermissionError):
        opened(b"closed", folder, os.stat(b"closed", dir_fd=folder))
