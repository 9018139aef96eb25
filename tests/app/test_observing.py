"""What is really there: seen without a reader's key, in a real repository, its copies and what others pulled."""

import shutil
import socket
from datetime import UTC

import pytest

from opsd.app.fleet import fleet
from opsd.app.observing import observe, remember, remembered, tiers_of
from opsd.app.shots import lost, of_repository
from opsd.clock import DAY
from opsd.model import SnapshotSummary
from opsd.monitor.deadlines import Plan
from opsd.monitor.observed import Observed, PlaceSeen, Tier
from opsd.retention.calendar import calendars
from opsd.retention.policy import DEFAULT_RULES
from tests.support.pruning import Nights, prune
from tests.support.sites import Keeper, Site


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Keeper:
    """A host with two snapshots, a filled copy, and another that was never filled."""
    site = Site.new(tmp_path_factory.mktemp("sites") / "web1")
    site.init()
    site.backup()
    site.backup()
    site.copy("disk")
    return Keeper(site.folder)


@pytest.fixture
def site(keeper: Keeper) -> Site:
    return keeper.touched()


@pytest.fixture
def whole(keeper: Keeper) -> Site:
    return keeper.whole()


def test_each_place_shows_what_stands_there(whole: Site) -> None:
    found = whole.observed()
    own, disk, tape = (found.places[name] for name in ("repository", "disk", "tape"))
    assert found.host == "web1"
    assert [(each.kind, each.snapshots, each.missing, each.lost, each.error) for each in (own, disk, tape)] == [
        ("repository", 2, 0, 0, ""),
        ("copy", 2, 0, 0, ""),
        ("copy", 0, 2, 0, ""),
    ]
    assert own.newest == disk.newest == own.points["www"].stored == disk.points["www"].stored > 0
    assert disk.completed > own.newest
    assert tape.newest == 0
    assert own.free
    assert own.bytes > 1000
    assert 0 < found.kit_made < own.newest


def test_a_source_is_as_the_newest_snapshot_has_it(whole: Site) -> None:
    found = whole.observed().sources["www"]
    assert (found.outcome, found.files, found.warnings) == ("complete", 3, 0)
    assert found.added_bytes > 0


def test_a_source_that_no_snapshot_has_is_there_without_an_outcome(site: Site) -> None:
    file = site.folder / "opsd.yaml"
    file.write_text(file.read_text().replace("sources: {", "sources: {new: {files: {paths: [/etc]}}, "))
    assert site.observed().sources["new"].outcome == ""


def test_a_point_is_verified_once_all_that_was_put_before_it_is_read(site: Site) -> None:
    assert site.observed().places["repository"].points["www"].verified == 0
    site.check()
    point = site.observed().places["repository"].points["www"]
    assert point.verified == point.stored
    site.backup()
    later = site.observed().places["repository"].points["www"]
    assert later.stored > later.verified == point.stored


def test_a_copy_is_verified_by_what_was_read_there_not_in_the_repository(site: Site) -> None:
    site.check()
    assert site.observed().places["disk"].points["www"].verified == 0
    site.check("disk")
    found = site.observed().places["disk"]
    assert found.points["www"].verified == found.points["www"].stored
    assert found.read_share > 0.99


def test_only_a_green_drill_of_the_place_itself_proves_a_restore(site: Site) -> None:
    site.drill("disk")
    found = site.observed()
    assert found.drill.verdict == "green"
    assert found.places["disk"].points["www"].restored == found.places["disk"].newest
    assert found.places["repository"].points["www"].restored == 0
    assert found.kit_used == 0


@pytest.mark.parametrize("gone", [(0,), (1,), (0, 1)])
def test_snapshots_that_are_gone_are_counted_whichever_they_were(site: Site, gone: tuple[int, ...]) -> None:
    shutil.rmtree(site.folder / "state" / "copies")  # No copy tells.
    manifests = site.snapshots()
    for place in gone:
        manifests[place].unlink()
    found = site.observed().places["repository"]
    assert (found.lost, found.snapshots) == (len(gone), 2 - len(gone))


def test_snapshots_whose_packs_are_all_gone_give_nothing_back(site: Site) -> None:
    shutil.rmtree(site.folder / "repository" / "packs")
    found = site.observed().places
    assert (found["repository"].damaged, found["repository"].snapshots, found["repository"].points) == (2, 0, {})
    assert (found["disk"].damaged, found["disk"].snapshots) == (0, 2)


def test_a_manifest_that_was_cut_counts_as_damaged_not_as_never_taken(site: Site) -> None:
    site.snapshots()[0].write_bytes(b"")
    found = site.observed().places["repository"]
    assert (found.damaged, found.snapshots, found.lost) == (1, 1, 0)


def test_what_a_copy_has_seen_tells_of_a_loss_when_this_host_remembers_nothing(site: Site) -> None:
    shutil.rmtree(site.folder / "state" / "seen", ignore_errors=True)
    site.snapshots()[1].unlink()
    assert site.observed().places["repository"].lost == 1


def test_what_prune_dropped_is_not_lost_though_it_was_seen_in_a_copy(nights: Nights) -> None:
    nights.nights(4)
    repository = nights.world.open()
    before = {(each.writer, each.sequence) for each in repository.snapshots()}
    prune(nights.world)
    nights.later_prune()
    memory = nights.world.state.memory(repository.place.ring.repository)
    known = of_repository(nights.world.open(), "host", memory, before)
    assert (len(known.shots), known.lost) == (2, 0)
    nights.store.delete(max(known.shots))
    assert of_repository(nights.world.open(), "host", memory, before).lost == 1


@pytest.fixture
def nights(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    return Nights.new(tmp_path_factory.mktemp("nights"))


def test_a_manifest_that_cannot_be_read_may_be_the_one_that_is_missing() -> None:
    assert lost({(b"w", 3)}, {(b"w", 1)}, {(b"w", 2)}, unreadable=0) == 1
    assert lost({(b"w", 3)}, {(b"w", 1)}, {(b"w", 2)}, unreadable=1) == 0


def test_a_snapshot_that_a_copy_showed_and_shows_no_more_is_lost_there(site: Site) -> None:
    site.snapshots("disk")[0].unlink()
    found = site.observed().places["disk"]
    assert (found.lost, found.missing) == (1, 1)


def test_a_place_that_cannot_be_read_keeps_what_was_known_and_hides_no_other(site: Site) -> None:
    before = site.observed()
    shutil.rmtree(site.folder / "repository")
    found = site.observed(before)
    own = found.places["repository"]
    assert "this host put 2 snapshots into its repository" in own.error
    assert "opsd init" not in own.hint
    assert own.looked == before.places["repository"].looked < found.time
    assert (own.newest, own.lost) == (before.places["repository"].newest, 2)
    assert own.free is None  # Of a disk that is not mounted nothing can be said.
    disk = found.places["disk"]
    assert (disk.error, disk.snapshots, disk.points["www"].stored) == ("", 2, own.newest)
    assert found.sources == before.sources


def test_a_filled_copy_whose_objects_are_all_gone_is_named_and_nobody_told_to_init_there(site: Site) -> None:
    for path in (site.folder / "disk").rglob("*"):
        if path.is_file():
            path.unlink()
    found = site.observed().places["disk"]
    assert "copy disk was filled before" in found.error
    assert "opsd init" not in found.hint
    with site.session() as session:
        (disk,) = (each for each in fleet(session) if each.place == "disk")
    assert "copy disk was filled before" in str(disk.error)
    assert disk.exit_code == 4


def test_a_host_that_lost_its_state_still_sees_all_by_what_writers_signed(site: Site) -> None:
    shutil.rmtree(site.folder / "state")
    found = site.observed().places["repository"]
    assert found.snapshots == 2
    assert found.points["www"].stored == found.newest > 0
    assert not (site.folder / "state").exists()


def test_a_host_that_only_pulls_sees_hosts_and_what_they_promised(site: Site) -> None:
    folder = site.folder
    (folder / "puller.yaml").write_text(
        f"state: {folder}/state2\n"
        f"pulls: {{paris: {{from: {{folder: {folder}/repository}}, to: {{folder: {folder}/pulled}}}}}}\n"
    )
    puller = Site(folder, "puller.yaml")
    assert (puller.observed().places["paris"].snapshots, puller.observed().places["paris"].error) == (0, "")
    puller.copy()
    found = puller.observed()
    paris = found.places["paris"]
    assert (paris.kind, paris.snapshots, paris.points["web1"].stored) == ("pull", 2, paris.newest)
    assert paris.due > paris.newest
    assert found.sources == {}


def test_what_was_found_is_kept_and_comes_back_unchanged(site: Site) -> None:
    with site.session() as session:
        assert remembered(session) is None
        found = observe(session)
        remember(session, found)
        assert remembered(session) == found


def test_a_place_that_does_not_answer_in_time_stands_as_it_was(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        place = f"{{s3: {{bucket: b, endpoint: 'http://127.0.0.1:{port}', access_key: {{env: HOME}}, secret_key: {{env: HOME}}}}}}"
        file = site.folder / "opsd.yaml"
        file.write_text(file.read_text().replace("copies: {", f"copies: {{far: {place}, "))
        before = PlaceSeen(kind="copy", looked=5, newest=4)
        found = site.observed(Observed(time=5, places={"far": before}), seconds=0.2)
    assert found.places["far"] == before
    assert set(found.places) == {"repository", "far", "disk", "tape"}


def summary(started: int) -> SnapshotSummary:
    return SnapshotSummary(
        id=str(started), name=str(started), writer=b"w", run=b"", sequence=1, started=started, ended=started,
        received=started, zone="UTC", host="web1", job="all", tags=(), complete=True, sources=(), files=0, bytes=0,
        added_bytes=0, version="",
    )  # fmt: skip


def test_a_site_that_missed_no_night_keeps_what_its_rules_require_on_each_of_800_days() -> None:
    plan = Plan(zone=UTC, times={"backup": "04:00"})
    for night, standing in zip(range(800), calendars(DEFAULT_RULES, UTC, 1_700_000_000_000_000_000), strict=False):
        if night % 25 == 0 or night > 790:
            found = tiers_of([summary(one.started) for one, _ in standing], DEFAULT_RULES, plan)
            assert all(tier.kept == tier.required for tier in found.values()), (night, found)
    assert found == {"daily": Tier(kept=30, required=30), "monthly": Tier(kept=12, required=12)}


def test_nights_that_were_missed_leave_a_rule_short() -> None:
    plan = Plan(zone=UTC, times={"backup": "04:00"})
    first = 1_700_000_000_000_000_000
    found = tiers_of([summary(first + day * DAY) for day in (0, 1, 2, 6)], DEFAULT_RULES, plan)
    assert found["daily"] == Tier(kept=4, required=7)
