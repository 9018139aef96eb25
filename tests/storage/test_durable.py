"""Private files and folders, and whose they are."""

import os
import stat
from pathlib import Path

import pytest

from opsd.storage.durable import make_folder, new_file, private_file, private_folder

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
OTHER = 4242


def owner(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, OTHER, OTHER)
    return folder


@root_only
def test_what_root_makes_in_another_s_folder_is_that_other_s(theirs: Path) -> None:
    make_folder(theirs / "a" / "b")
    private_folder(theirs / "c" / "d")
    os.close(new_file(theirs / "a" / "file"))
    os.close(private_file(theirs / "c" / "lock", os.O_WRONLY))
    assert {owner(path) for path in theirs.rglob("*")} == {(OTHER, OTHER)}
    assert len(list(theirs.rglob("*"))) == 6


@root_only
def test_what_belongs_to_a_third_keeps_its_owner_and_root_s_folders_are_root_s(theirs: Path, tmp_path: Path) -> None:
    (theirs / "third").touch()
    os.chown(theirs / "third", 4343, 4343)
    os.close(private_file(theirs / "third", os.O_WRONLY))
    assert owner(theirs / "third") == (4343, 4343)
    private_folder(tmp_path / "own")
    assert owner(tmp_path / "own") == (0, 0)


def test_a_file_is_never_made_where_a_symlink_leads(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        private_file(tmp_path / "link", os.O_WRONLY | os.O_TRUNC)
    assert not (tmp_path / "elsewhere").exists()


def test_folders_and_files_are_private_and_those_that_are_there_stay_as_they_are(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        private_folder(tmp_path / "a" / "b")
        os.close(private_file(tmp_path / "a" / "f", os.O_WRONLY))
    finally:
        os.umask(before)
    (tmp_path / "a").chmod(0o755)
    private_folder(tmp_path / "a" / "b")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b", "a/f")]
    assert modes == [0o755, 0o700, 0o600]
    with pytest.raises(FileExistsError):
        private_folder(tmp_path / "a" / "f")
