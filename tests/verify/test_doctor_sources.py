"""Whether files, databases and programs can be taken, before the night."""

import sqlite3
from collections.abc import Iterable
from pathlib import Path

import pytest

from opsd.sources.options import CommandSource, FilesSource, Hook, Hooks, SqliteSource
from opsd.verify import doctor_sources
from opsd.verify.doctor_host import sqlite_is_mended
from opsd.verify.findings import Finding, State


def texts(found: Iterable[Finding], state: State = State.FAILED) -> list[str]:
    return [each.text for each in found if each.state is state]


def files(*paths: Path, own: Iterable[str] = (), all_read: bool = True) -> list[Finding]:
    options = FilesSource(paths=tuple(map(str, paths)))
    return list(doctor_sources.files("www", options, own, all_read=all_read))


def test_paths_that_can_be_read_are_well(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for all_read in (True, False):
        assert [each.state for each in files(tmp_path, all_read=all_read)] == [State.OK]


def test_a_path_that_is_not_there_fails_the_night(tmp_path: Path) -> None:
    assert texts(files(tmp_path, tmp_path / "gone")) == [f"{tmp_path}/gone is not there"]


def test_opsds_own_folder_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    (found,) = texts(files(tmp_path / "link", own=[str(tmp_path)]))
    assert "opsd's own" in found


@pytest.mark.skipif(doctor_sources.reads_everything(), reason="this user reads everything")
def test_a_file_that_this_user_may_not_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    secret = tmp_path / "deep/secret"
    secret.touch(mode=0)
    (found,) = files(tmp_path, all_read=False)
    assert found.text == f"{secret} can't be read by this user"
    assert "CAP_DAC_READ_SEARCH" in (found.next_step or "")


@pytest.mark.parametrize(
    ("capabilities", "all_read"),
    [("0000000000000004", True), ("0000000000000002", True), ("00000000000000c1", False), ("000001ffffffffff", True)],
)
def test_capabilities_tell_who_reads_every_file(capabilities: str, *, all_read: bool) -> None:
    assert doctor_sources.reads_everything(f"Name:\tx\nCapEff:\t{capabilities}\n") is all_read


def test_a_tree_whose_snapshot_needs_a_missing_program_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    options = FilesSource(paths=(str(tmp_path),), snapshot="zfs")
    (found,) = texts(doctor_sources.files("www", options, (), all_read=True))
    assert "zfs" in found


def database(path: Path, mode: str) -> SqliteSource:
    connection = sqlite3.connect(path)
    connection.execute(f"pragma journal_mode={mode}")
    connection.execute("create table t (a)")
    connection.close()
    return SqliteSource(path=str(path))


def test_a_database_that_opens_is_well(tmp_path: Path) -> None:
    found = list(doctor_sources.sqlite("crm", database(tmp_path / "crm.db", "delete")))
    assert [each.state for each in found] == [State.OK]


def test_a_database_with_a_write_ahead_log_needs_a_mended_library(tmp_path: Path) -> None:
    found = list(doctor_sources.sqlite("crm", database(tmp_path / "crm.db", "wal")))
    assert bool(texts(found, State.WARNING)) is not sqlite_is_mended()
    assert texts(found) == []


def test_a_file_that_is_no_database_fails_with_its_next_step(tmp_path: Path) -> None:
    (tmp_path / "crm.db").write_bytes(b"nothing of the kind" * 1000)
    (found,) = doctor_sources.sqlite("crm", SqliteSource(path=str(tmp_path / "crm.db")))
    assert found.state is State.FAILED
    assert found.next_step
    (gone,) = texts(doctor_sources.sqlite("crm", SqliteSource(path=str(tmp_path / "gone.db"))))
    assert "is not there" in gone


def test_a_command_is_looked_for_and_not_run(tmp_path: Path) -> None:
    source = CommandSource(run=("touch", str(tmp_path / "ran")), name="x")
    assert texts(doctor_sources.command("mail", source)) == []
    assert not (tmp_path / "ran").exists()
    assert texts(doctor_sources.command("mail", CommandSource(run=("/no/dump",), name="x")))


def test_every_hook_is_looked_for() -> None:
    missing = (Hook(run=("/no/such",)),)
    for hooks in (Hooks(before=missing), Hooks(after=missing), Hooks(on_error=missing)):
        assert texts(doctor_sources.hooks("hooks", hooks))
