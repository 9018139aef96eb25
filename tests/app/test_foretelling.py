"""What a stage comes to is said where it is known, and as an estimate where the past tells."""

from pathlib import Path

import pytest

from opsd.app.backups import BackupRequest, back_up
from opsd.app.restores import RestoreOptions, give_back, prepare
from opsd.app.session import Access, Session
from opsd.events import Recorder, Total
from opsd.restore.browsing import Place
from tests.support.command_line import Desk


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A tree on a host with a repository."""
    desk = Desk.at(tmp_path)
    for name, value in desk.environment.items():
        monkeypatch.setenv(name, value)
    desk.ok("init", "--json")
    return str(desk.tree())


def taken(root: str) -> Recorder:
    """Take a snapshot, and what was heard."""
    heard = Recorder()
    with Session(Access(), heard) as session:
        back_up(session, BackupRequest(paths=(root,)))
    return heard


def restored(options: RestoreOptions) -> Recorder:
    """Restore, and what was heard of it."""
    heard = Recorder()
    with Session(Access(), heard) as session:
        give_back(session, options, prepare(session, options), lambda _plan: None)
    return heard


def test_a_backup_foretells_from_the_last_snapshot_of_the_source(root: str) -> None:
    first, second = taken(root), taken(root)
    assert first.totals[0] is None
    about = second.totals[0]
    assert about
    assert about.estimated
    assert (about.files, about.size) == (5, 400_000 + 2_000_000 + 2 * len("hello\n"))


def test_a_restore_of_all_foretells_from_the_manifest_and_of_a_part_nothing(root: str, tmp_path: Path) -> None:
    taken(root)
    heard = restored(RestoreOptions(place=Place.parse("latest"), target=str(tmp_path / "a"), root=str(tmp_path / "a")))
    assert [total and total.estimated for total in heard.totals] == [True]
    place = Place.parse(f"latest:{root}/deep")
    heard = restored(RestoreOptions(place=place, target=str(tmp_path / "b"), root=str(tmp_path / "b")))
    assert heard.totals == [None]


def test_a_restore_in_place_knows_what_it_will_write(root: str) -> None:
    taken(root)
    (Path(root) / "deep" / "large.bin").unlink()
    heard = restored(RestoreOptions(place=Place.parse("latest"), safety=False))
    assert heard.totals == [Total(files=1, size=400_000)]
    assert (heard.files, heard.size) == (1, 400_000)
