"""A copy holds what its source holds, bit for bit, and says what can't be true."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from opsd.backup.copies import CopyReport
from opsd.clock import DAY
from opsd.errors import HistoryDisagrees, IntegrityError, KeyMissing, NotARepository, StoreFull, TryLater
from opsd.repository.format import Kind, name_for
from opsd.repository.runs import Mark, Note, Signed
from opsd.retention.marking import put_mark
from opsd.storage.faulty import Fault, FaultyStore, Stop
from opsd.storage.folder import FolderStore
from opsd.storage.memory import MemoryStore
from tests.support.copying import Copier, flip, largest_pack, objects
from tests.support.engine import START, World
from tests.support.pruning import Nights, noise


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    made = Nights.new(tmp_path)
    made.nights(2)
    return made


@pytest.fixture
def copier(nights: Nights, tmp_path: Path) -> Copier:
    return Copier.of(nights, tmp_path / "copier")


def kinds(store: FaultyStore, *wanted: str) -> list[tuple[str, str]]:
    return [each for each in store.operations if each[0] in wanted]


# What arrives


def test_a_copy_holds_the_same_objects_and_restores(nights: Nights, copier: Copier) -> None:
    report = copier.copy()
    assert report.is_sound
    assert report.new_snapshots == report.snapshots == 2
    assert objects(copier.target) == objects(nights.store)
    assert copier.restored() == nights.truth


def test_whoever_holds_no_key_copies_as_well_and_puts_nothing_of_their_own(nights: Nights, tmp_path: Path) -> None:
    copier = Copier.of(nights, tmp_path / "copier", keys=False)
    assert copier.copy().is_sound
    assert {info.name for info in copier.target.list("")} == objects(nights.store).keys()


def test_large_objects_pass_through_the_spool_which_is_empty_afterwards(tmp_path: Path) -> None:
    nights = Nights.new(tmp_path, {"large": noise(3_000_000, 1)})
    nights.store.put(f"packs/{'ab'}/{hashlib.sha256(large := noise(20_000_000, 2)).hexdigest()}", large)
    nights.night()
    copier = Copier.of(nights, tmp_path / "copier")
    assert copier.copy().is_sound
    assert objects(copier.target) == objects(nights.store)
    assert list((tmp_path / "copier" / "spool").iterdir()) == []


def test_a_folder_gets_large_objects_by_a_move(tmp_path: Path) -> None:
    nights = Nights.new(tmp_path)
    content = noise(9_000_000, 2)
    name = f"packs/aa/{hashlib.sha256(content).hexdigest()}"
    nights.store.put(name, content)
    nights.night()
    with FolderStore.create(tmp_path / "disk") as target:
        copier = Copier.of(nights, tmp_path / "copier")
        copier.target = target
        assert copier.copy().is_sound
        assert target.read(name) == content


def test_manifests_come_last_and_the_run_first(copier: Copier) -> None:
    copier.target = watched = FaultyStore(copier.target)
    copier.copy()
    puts = [name.partition("/")[0] for _, name in kinds(watched, "put")]
    order = ["runs", "settings", "keys", "packs", "index", "snapshots", "runs"]
    assert [kind for place, kind in enumerate(puts) if place == 0 or puts[place - 1] != kind] == order


def test_a_copy_that_is_up_to_date_costs_listings_only(copier: Copier) -> None:
    copier.copy()
    copier.source, copier.target = source, target = FaultyStore(copier.source), FaultyStore(copier.target)
    report = copier.copy()
    assert report.objects == 0
    assert source.counts == {"list": 7}
    assert target.counts == {"list": 1}
    assert len({name for _, name in source.operations}) == 7


def test_only_what_is_new_travels_and_a_merged_index_is_no_loss(nights: Nights, copier: Copier) -> None:
    copier.copy()
    nights.night({"new": noise(50_000, 77)})
    report = copier.copy()
    assert 50_000 < report.size < 120_000
    assert report.new_snapshots == 1
    nights.nights(12)
    nights.later_prune()
    nights.later_prune()
    assert copier.copy().is_sound
    assert (
        copier.restored().items()
        >= {each.id: nights.truth[each.id] for each in nights.world.open().snapshots()}.items()
    )


def test_what_prune_removed_from_the_source_stays_in_the_copy_and_is_no_alarm(nights: Nights, copier: Copier) -> None:
    nights.nights(3)
    copier.copy()
    first = nights.later_prune()
    assert first.marked_snapshots == 3
    assert nights.later_prune().swept_snapshots == 3
    nights.night()
    report = copier.copy()
    assert report.is_sound
    assert report.snapshots == 6
    assert len(copier.restored()) == 6
    assert not list(copier.target.list("marks/"))


# What does not


def test_what_is_damaged_in_the_source_is_named_and_holds_back_only_what_needs_it(
    nights: Nights, copier: Copier
) -> None:
    first = copier.copy()
    nights.night({"new": noise(90_000, 5)})
    packs = [info for info in nights.store.list("packs/") if info.name not in objects(copier.target)]
    new = max(packs, key=lambda info: info.size).name  # the content, which the next night needs too; not its listing
    nights.night({"newer": noise(90_000, 6)})
    flip(nights.store, new)
    report = copier.copy()
    assert list(report.damaged) == [new]
    assert len(report.held) == 2
    assert report.snapshots == first.snapshots
    assert new not in objects(copier.target)
    assert not report.is_sound
    flip(nights.store, new)
    assert copier.copy().new_snapshots == 2
    assert copier.restored() == nights.truth


def test_a_snapshot_that_does_not_need_what_is_damaged_arrives(tmp_path: Path) -> None:
    nights = Nights.new(tmp_path)
    copier = Copier.of(nights, tmp_path / "copier")
    content = noise(5000, 9)
    nights.store.put(f"packs/00/{hashlib.sha256(content).hexdigest()}", content[:-1] + b"x")
    nights.nights(2)
    report = copier.copy()
    assert len(report.damaged) == 1
    assert report.held == ()
    assert report.new_snapshots == 2
    keyless = Copier.of(nights, tmp_path / "keyless", keys=False)
    assert len(keyless.copy().held) == 2


def test_damage_in_the_source_does_not_matter_where_the_copy_is_whole(nights: Nights, tmp_path: Path) -> None:
    copier = Copier.of(nights, tmp_path / "copier", keys=False)
    copier.copy()
    pack = largest_pack(nights.store)
    nights.store.put(pack, b"short", replace=True)
    nights.night({"new": noise(9000, 5)})
    report = copier.copy()
    assert list(report.damaged) == [pack]
    assert report.held == ()
    assert replace(copier, world=nights.world).restored() == nights.truth


def test_a_damaged_manifest_does_not_stop_the_others(nights: Nights, copier: Copier) -> None:
    manifest = min(info.name for info in nights.store.list("snapshots/"))
    flip(nights.store, manifest)
    report = copier.copy()
    assert list(report.damaged) == [manifest]
    assert report.new_snapshots == 1
    assert report.alarms == ()


def test_a_torn_object_in_the_copy_is_replaced(nights: Nights, copier: Copier) -> None:
    copier.copy()
    pack = largest_pack(nights.store)
    copier.target.put(pack, copier.target.read(pack)[:100], replace=True)
    assert copier.copy().objects == 1
    assert objects(copier.target) == objects(nights.store)


def test_a_full_copy_ends_the_pass_and_goes_on_later(nights: Nights, copier: Copier) -> None:
    whole = copier.target
    full = Stop(at=5, how=Fault.ERROR, error=StoreFull("no room left"), times=1000, kinds=frozenset({"put"}))
    copier.target = FaultyStore(whole, full)
    with pytest.raises(StoreFull):
        copier.copy()
    copier.target = whole
    assert copier.copy().is_sound
    assert copier.restored() == nights.truth


# Who may fill what


def test_a_source_that_was_made_anew_is_named_and_the_copy_stays_as_it_is(copier: Copier, tmp_path: Path) -> None:
    copier.copy()
    before = objects(copier.target)
    other = Nights.new(tmp_path / "other")
    other.nights(1)
    copier.source = other.store
    with pytest.raises(NotARepository, match="the source of copy disk is another repository now"):
        copier.copy()
    assert objects(copier.target) == before


def test_another_repository_is_refused(nights: Nights, copier: Copier, tmp_path: Path) -> None:
    copier.target = World.new(tmp_path / "other", clock=nights.clock).store
    before = objects(copier.target)
    with pytest.raises(NotARepository, match="another repository"):
        copier.copy()
    assert objects(copier.target) == before


def test_a_place_that_holds_something_else_is_refused(copier: Copier) -> None:
    copier.target.put("packs/ab/" + "0" * 64, b"what")
    with pytest.raises(NotARepository, match="not empty"):
        copier.copy()


def test_a_source_that_is_no_repository_is_refused(nights: Nights, copier: Copier) -> None:
    copier.source = MemoryStore(nights.clock)
    with pytest.raises(NotARepository, match="no repository to copy"):
        copier.copy()


@pytest.mark.parametrize("prefix", ["", "snapshots/", "packs/", "settings/"])
@pytest.mark.parametrize("end", ["source", "target"])
def test_an_empty_listing_where_there_was_something_is_an_alarm(copier: Copier, prefix: str, end: str) -> None:
    copier.copy()
    store = getattr(copier, end)
    for info in list(store.list(prefix)):
        store.delete(info.name)
    left = objects(copier.target)
    with pytest.raises(HistoryDisagrees):
        copier.copy()
    assert objects(copier.target) == left


def test_marks_in_the_copy_need_a_key_and_what_they_name_is_not_relied_on(nights: Nights, tmp_path: Path) -> None:
    copier = Copier.of(nights, tmp_path / "copier")
    keyless = Copier.of(nights, tmp_path / "keyless", keys=False)
    keyless.target = copier.target
    copier.copy()
    nights.night({"new": noise(9000, 5)})
    place = nights.world.open().place
    pack = bytes.fromhex(largest_pack(nights.store).rpartition("/")[2])
    for event, packs in (("damaged", (pack,)), ("mark", (b"\0" * 32,))):
        mark = place.signed.encode_mark(Mark(mark=b"m" * 16, event=event, time=START, packs=packs))
        copier.target.put(f"marks/20261124T040000.000000000Z-{hashlib.sha256(mark).hexdigest()}", mark)
    with pytest.raises(KeyMissing):
        keyless.copy()
    assert copier.copy().is_sound
    nights.night({"newer": noise(9000, 6)})
    mark = place.signed.encode_mark(Mark(mark=b"n" * 16, event="mark", time=START, packs=(pack,)))
    copier.target.put(f"marks/20261124T040000.000000000Z-{hashlib.sha256(mark).hexdigest()}", mark)
    with pytest.raises(IntegrityError, match="means to remove"):
        copier.copy()


@pytest.mark.parametrize(("when", "arrived"), [("index/", 0), ("snapshots/", 2)])
@pytest.mark.parametrize("keys", [True, False])
def test_what_is_removed_from_the_copy_while_it_is_filled_fails_the_pass(
    nights: Nights, tmp_path: Path, when: str, arrived: int, *, keys: bool
) -> None:
    class Swept(MemoryStore):
        def put(self, name: str, content: bytes | memoryview | Path, *, replace: bool = False) -> None:
            super().put(name, content, replace=replace)
            if name.startswith(when):
                self.delete(largest_pack(nights.store))

    copier = Copier.of(nights, tmp_path / "copier", keys=keys)
    copier.target = Swept(nights.clock)
    with pytest.raises(IntegrityError, match="removed from copy disk"):
        copier.copy()
    assert len(list(copier.target.list("snapshots/"))) == arrived


def test_one_copy_is_filled_by_one_pass_at_a_time(copier: Copier) -> None:
    with copier.state.locked(), pytest.raises(TryLater):
        copier.copy()


# Runs


def told(copier: Copier) -> dict[str, str]:
    """What each run object says."""
    assert copier.world
    place = copier.world.open().place
    infos = list(copier.target.list("runs/"))
    found = [place.signed.decode_run(info.name, copier.target.read(info.name), info.modified) for info in infos]
    assert {each.kind for each in found} == {"copy"}
    return {info.name: each.event for info, each in zip(infos, found, strict=True)}


def events(copier: Copier) -> list[str]:
    return sorted(told(copier).values())


def test_a_run_says_that_it_began_and_ended_and_a_dead_one_is_ended_by_the_next(copier: Copier) -> None:
    whole = copier.target
    copier.target = FaultyStore(whole, Stop(at=4, how=Fault.BEFORE, kinds=frozenset({"put"})))
    with pytest.raises(BaseException, match="stopped"):
        copier.copy()
    copier.target = whole
    assert events(copier) == ["begun"]
    copier.copy()
    assert events(copier) == ["begun", "begun", "ended", "ended"]


def test_a_run_that_failed_says_so(copier: Copier) -> None:
    whole = copier.target
    copier.target = FaultyStore(whole, Stop(at=4, how=Fault.ERROR, kinds=frozenset({"put"})))
    with pytest.raises(Exception, match="as a test asked"):
        copier.copy()
    copier.target = whole
    assert events(copier) == ["begun", "failed"]


def test_runs_that_ended_days_ago_are_forgotten_the_end_last(nights: Nights, copier: Copier) -> None:
    for number in range(6):
        nights.night({"new": noise(9000, number)})
        assert copier.copy().is_sound
    # The pass itself, and those of the three days before.
    assert events(copier) == ["begun"] * 4 + ["ended"] * 4
    before = told(copier)
    copier.target = seen = FaultyStore(copier.target)
    nights.clock.advance(9 * DAY)
    nights.night({"new": noise(9000, 7)})
    assert copier.copy().is_sound
    assert events(copier) == ["begun", "ended"]
    forgotten = [name for kind, name in seen.operations if kind == "delete"]
    assert len(forgotten) == 8
    assert (
        sorted(before[name] for name in forgotten)
        == [before[name] for name in forgotten]
        == ["begun"] * 4 + ["ended"] * 4
    )


def test_runs_stay_where_a_mark_stands_for_its_prune_to_forget(nights: Nights, copier: Copier) -> None:
    copier.copy()
    put_mark(copier.there().open(), Mark(mark=bytes(16), event="damaged", time=nights.clock.now()))
    nights.clock.advance(9 * DAY)
    nights.night({"new": noise(9000, 7)})
    assert copier.copy().is_sound
    assert events(copier) == ["begun", "begun", "ended", "ended"]


# Memory


def rolled_back(nights: Nights, copier: Copier, end: str) -> CopyReport:
    """The report of a copy one of whose ends went back to an older state."""
    copier.copy()
    old = getattr(copier, end).clone()
    nights.night({"new": noise(9000, 5)})
    assert copier.copy().is_sound
    setattr(copier, end, old)
    return copier.copy()


def test_a_copy_that_is_rolled_back_is_an_alarm_and_filled_again(nights: Nights, copier: Copier) -> None:
    report = rolled_back(nights, copier, "target")
    assert any("the copy shows an older state" in text for text in report.alarms)
    assert copier.restored() == nights.truth
    assert copier.copy().is_sound


def test_a_source_that_is_rolled_back_is_an_alarm_until_somebody_acts(nights: Nights, copier: Copier) -> None:
    report = rolled_back(nights, copier, "source")
    assert any("the source shows an older state" in text for text in report.alarms)
    assert any("the source shows an older state" in text for text in copier.copy().alarms)
    assert len(copier.restored()) == 3


def test_a_number_that_is_used_again_after_a_roll_back_is_an_alarm(nights: Nights, copier: Copier) -> None:
    rolled_back(nights, copier, "source")
    again = World(folder=nights.world.folder, store=copier.source, clock=nights.clock)
    for path in (nights.world.folder / "state" / "seen").iterdir():
        path.unlink()
    from tests.support.engine import files  # noqa: PLC0415 - one use

    again.backup(files(nights.tree))
    assert any("bear one number" in text for text in copier.copy().alarms)


def test_a_snapshot_removed_without_a_note_is_an_alarm_for_who_has_no_key(nights: Nights, tmp_path: Path) -> None:
    copier = Copier.of(nights, tmp_path / "copier", keys=False)
    nights.nights(1)
    copier.copy()
    names = sorted(info.name for info in nights.store.list("snapshots/"))
    nights.store.delete(names[1])
    assert any("the source shows an older state" in text for text in copier.copy().alarms)


def test_a_note_that_a_stranger_signed_explains_nothing(nights: Nights, copier: Copier, tmp_path: Path) -> None:
    copier.copy()
    stranger, own = World.new(tmp_path / "stranger").open().place, nights.world.open().place
    assert own.ring.writer
    signed = Signed(ring=replace(stranger.ring, repository=own.ring.repository), settings=stranger.settings)
    note = signed.encode_note(Note(event="dropped", time=START, sequences=((own.ring.writer.public().id, 1),)))
    nights.store.put(name_for(Kind.NOTE, note, time=START), note)
    nights.store.delete(min(info.name for info in nights.store.list("snapshots/")))
    assert any("older state" in text for text in copier.copy().alarms)


def test_a_source_of_another_owner_is_refused_by_who_remembers_the_first(nights: Nights, tmp_path: Path) -> None:
    copier = Copier.of(nights, tmp_path / "copier", keys=False)
    copier.copy()
    other = Nights.new(tmp_path / "other")
    other.nights(1)
    copier.source = other.store
    with pytest.raises(NotARepository, match="another repository"):
        copier.copy()


def test_a_copy_goes_on_for_days_with_a_sign_of_life(nights: Nights, copier: Copier) -> None:
    class Slow(MemoryStore):
        def put(self, name: str, content: bytes | memoryview | Path, *, replace: bool = False) -> None:
            super().put(name, content, replace=replace)
            nights.clock.advance(DAY // 3)

    copier.target = Slow(nights.clock)
    copier.copy()
    assert events(copier).count("alive") >= 3
