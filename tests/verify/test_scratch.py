"""A drill's place is private, one drill's at a time, and gone afterwards, also after a kill."""

import json
import os
import resource
import subprocess
from pathlib import Path

import pytest

from opsd.errors import RestoreError, TryLater
from opsd.events import Recorder
from opsd.verify.scratch import opened, remove


def leftover(place: Path, name: str, marker: object) -> Path:
    folder = place / name
    folder.mkdir(parents=True)
    (folder / "restored").touch()
    (folder / ".opsd-drill").write_text(json.dumps(marker))
    return folder


def test_the_place_is_closed_to_others_and_gone_at_the_end(tmp_path: Path) -> None:
    place = tmp_path / "scratch"
    with opened(place, (), Recorder()) as scratch:
        assert scratch.folder.stat().st_mode & 0o077 == 0
        inner = scratch.files / "closed"
        inner.mkdir(parents=True)
        (inner / "file").touch()
        inner.chmod(0)
    assert [path.name for path in place.iterdir()] == [".opsd-drill.lock"]


def test_the_place_is_cleared_when_the_drill_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), opened(tmp_path, (), Recorder()) as scratch:
        raise ZeroDivisionError
    assert not scratch.folder.exists()


def test_a_second_drill_in_one_place_is_told_to_wait(tmp_path: Path) -> None:
    with opened(tmp_path, (), Recorder()) as scratch:
        with pytest.raises(TryLater, match="another drill"), opened(tmp_path, (), Recorder()):
            pass
        assert scratch.folder.exists()


def test_what_a_killed_drill_left_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    own = leftover(tmp_path, "drill-0123456789abcdef", {"opsd": "drill", "folder": "drill-0123456789abcdef"})
    moved = leftover(tmp_path, "drill-1123456789abcdef", {"opsd": "drill", "folder": "drill-0123456789abcdef"})
    other = leftover(tmp_path, "drill-of-mine", {"opsd": "drill", "folder": "drill-of-mine"})
    foreign = leftover(tmp_path, "drill-2123456789abcdef", ["something"])
    unmarked = tmp_path / "drill-3123456789abcdef"
    unmarked.mkdir()
    elsewhere = leftover(tmp_path / "elsewhere", "x", {"opsd": "drill", "folder": "drill-4123456789abcdef"})
    (tmp_path / "drill-4123456789abcdef").symlink_to(elsewhere)
    recorder = Recorder()
    with opened(tmp_path, (), recorder):
        pass
    assert not own.exists()
    assert not unmarked.exists()
    assert all((folder / "restored").exists() for folder in (moved, other, foreign, elsewhere))
    assert any(str(own) in line for line in recorder.lines)


def test_a_place_without_room_for_the_marker_keeps_no_folder(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(RestoreError, match="can't be used"), opened(tmp_path, (), Recorder()):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == [".opsd-drill.lock"]


def test_what_was_cut_off_before_its_marker_was_written_is_cleared(tmp_path: Path) -> None:
    (tmp_path / "drill-0123456789abcdef").mkdir()
    (tmp_path / "drill-0123456789abcdef" / ".opsd-drill").touch()
    with opened(tmp_path, (), Recorder()) as scratch:
        assert {path.name for path in tmp_path.iterdir()} == {".opsd-drill.lock", scratch.folder.name}


def test_a_process_that_is_no_server_of_the_leftover_is_left_alone(tmp_path: Path) -> None:
    own = leftover(tmp_path, "drill-0123456789abcdef", {"opsd": "drill", "folder": "drill-0123456789abcdef"})
    main = own / "servers" / "shop" / "main"
    main.mkdir(parents=True)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, cwd="/") as process:
        (main / "postmaster.pid").write_text(f"{process.pid}\n/somewhere\n")
        with opened(tmp_path, (), Recorder()):
            pass
        assert process.stdin
        process.stdin.close()
        assert process.wait(10) == 0
    assert not own.exists()


def test_who_still_makes_a_server_in_the_leftover_is_waited_for(tmp_path: Path) -> None:
    own = leftover(tmp_path, "drill-0123456789abcdef", {"opsd": "drill", "folder": "drill-0123456789abcdef"})
    (own / "servers" / "shop").mkdir(parents=True)
    descriptor = os.open(own / "servers" / "shop", os.O_PATH)
    with subprocess.Popen(["sleep", "0.3"], pass_fds=(descriptor,)) as process:
        os.close(descriptor)
        with opened(tmp_path, (), Recorder()):
            assert process.poll() == 0
    assert not own.exists()


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_place_where_others_may_write_is_refused(mode: int, tmp_path: Path) -> None:
    place = tmp_path / "scratch"
    place.mkdir()
    place.chmod(mode)
    with pytest.raises(RestoreError, match="not private") as caught, opened(place, (), Recorder()):
        pass
    assert "chmod 700" in (caught.value.hint or "")


def test_a_place_of_another_user_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    place = tmp_path / "scratch"
    place.mkdir()
    os.chown(place, 4711, 4711)
    with pytest.raises(RestoreError, match="not private"), opened(place, (), Recorder()):
        pass


def test_a_place_on_a_disk_that_is_not_mounted_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="is not there"), opened(tmp_path / "disk" / "scratch", (), Recorder()):
        pass
    assert not (tmp_path / "disk").exists()


def test_a_file_is_no_place(tmp_path: Path) -> None:
    (tmp_path / "scratch").touch()
    with pytest.raises(RestoreError, match="is no folder"), opened(tmp_path / "scratch", (), Recorder()):
        pass


def test_more_stays_free_on_a_disk_that_others_need(tmp_path: Path) -> None:
    with opened(tmp_path, ("/no/such", str(tmp_path)), Recorder()) as shared:
        assert shared.neighbours == (str(tmp_path),)
        less = shared.room()
    with opened(tmp_path, ("/no/such",), Recorder()) as own:
        assert not own.neighbours
        assert own.room() > less


def test_a_removal_follows_no_symlink(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to(kept)
    remove(tmp_path / "tree")
    (tmp_path / "link").symlink_to(kept)
    remove(tmp_path / "link")
    assert (kept / "file").exists()
