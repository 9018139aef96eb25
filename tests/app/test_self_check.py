"""The daemon's own look: what it finds stands in the state, and what is wrong with the ledger is told."""

import pytest

from opsd.app.observing import remembered
from opsd.app.self_check import SelfCheck, self_check
from opsd.sources.discovery import Discovery, Found, Kind
from tests.support.sites import Keeper, Site

HERE = Discovery(found=(Found(kind=Kind.SQLITE, place="/var/lib/x.db"), Found(kind=Kind.FOLDER, place="/srv")))


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Keeper:
    site = Site.new(tmp_path_factory.mktemp("sites") / "web1")
    site.init()
    site.backup()
    site.copy()
    return Keeper(site.folder)


@pytest.fixture
def site(keeper: Keeper) -> Site:
    return keeper.touched()


def checked(site: Site, discovery: Discovery | None = None) -> SelfCheck:
    with site.session() as session:
        return self_check(session, discovery=discovery)


def test_what_it_found_is_remembered_with_what_nothing_protects(site: Site) -> None:
    found = checked(site, HERE)
    assert (found.exit_code, found.problems) == (0, ())
    with site.session() as session:
        assert remembered(session) == found.observed
    assert (found.observed.uncovered_databases, found.observed.uncovered_folders) == (1, 1)
    assert checked(site).observed.uncovered_databases == 1  # Known for a day; a look at all folders would take seconds.


def test_snapshots_that_are_gone_end_it_with_4_and_a_place_that_cannot_be_read_with_3(site: Site) -> None:
    checked(site, HERE)
    (site.folder / "tape").chmod(0)
    found = checked(site)
    if found.observed.places["tape"].error:  # Root reads it all the same.
        assert found.exit_code == 3
    (site.folder / "tape").chmod(0o700)
    site.snapshots()[0].unlink()
    assert checked(site).exit_code == 4


def test_a_ledger_that_was_altered_ends_it_with_4(site: Site) -> None:
    ledger = site.folder / "state" / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes().replace(b'"exit_code":0', b'"exit_code":3', 1))
    found = checked(site, HERE)
    assert found.exit_code == 4
    assert found.problems
