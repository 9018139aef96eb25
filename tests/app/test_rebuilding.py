"""A lost state: what ran comes back from the ledger and the repository."""

import shutil
from pathlib import Path

import pytest

from opsd.app.planning import besides_of
from opsd.app.rebuilding import found_runs, rebuild
from opsd.app.recording import recorded
from opsd.errors import StorageError
from opsd.monitor.state import INTERRUPTED, Run, State
from tests.support.sites import Site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A host that backed up twice, tried to prune, and was killed in a drill."""
    site = Site.new(tmp_path_factory.mktemp("sites") / "web1")
    site.init()
    site.backup()
    site.backup()
    with site.session() as session:
        with pytest.raises(StorageError), recorded(session, "prune", begins=True):
            raise StorageError("no")
        with recorded(session, "drill", begins=True) as record:
            record.is_ended = True  # As if it had been killed: nothing more is written.
    return site


def lose(site: Site) -> None:
    for path in (site.folder / "state").glob("state.sqlite*"):
        path.unlink()


def made_again(site: Site) -> list[Run]:
    with site.session() as session, State.open(site.folder / "state", session.clock.now()) as state:
        rebuild(session, state)
        return state.runs()


def test_runs_come_back_with_when_they_began_and_how_they_ended(site: Site) -> None:
    before = made_again(site)
    lose(site)
    after = made_again(site)
    assert [(run.job, run.outcome, run.exit_code) for run in after] == [
        ("drill", INTERRUPTED, None),
        ("prune", "failed", 1),
        ("backup", "done", 0),
        ("backup", "done", 0),
    ]
    for old, new in zip(before[1:], after[1:], strict=True):
        assert abs(old.started - new.started) < 2 * 10**9
        assert new.ended >= new.started


def test_what_the_state_knows_already_is_not_made_again(site: Site) -> None:
    lose(site)
    first = made_again(site)
    site.backup()
    with site.session() as session, State.open(site.folder / "state", session.clock.now()) as state:
        assert rebuild(session, state) == 0
        assert len(state.runs()) == len(first) + 1
        assert besides_of(state, session.clock.now()).rebuilt


def test_a_state_that_had_no_past_is_not_called_rebuilt(tmp_path: Path) -> None:
    site = Site.new(tmp_path / "web1")
    site.init()
    site.backup()
    with site.session() as session, State.open(site.folder / "state", session.clock.now()) as state:
        assert rebuild(session, state) == 0
        assert besides_of(state, session.clock.now()).rebuilt == 0
        assert len(state.runs()) == 1


def test_without_state_and_keys_backups_still_come_from_what_was_signed(site: Site) -> None:
    shutil.move(site.folder / "state", site.folder / "elsewhere")
    try:
        with site.session() as session:
            found = found_runs(session)
        assert [run.job for run in found] == ["backup"] * len(site.snapshots())
        assert all(run.is_good for run in found)
    finally:
        shutil.move(site.folder / "elsewhere", site.folder / "state")
