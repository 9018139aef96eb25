"""A check names what is damaged, missing or told twice, and what it affects; on a healthy repository it says nothing."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from opsd.clock import DAY
from opsd.errors import OpsdError
from opsd.model import SnapshotSummary
from opsd.repository.catalog import footer_of
from opsd.repository.format import Kind, name_for
from opsd.repository.frames import FrameKind, FrameRow
from opsd.repository.manifest import encode_manifest
from opsd.repository.run import frames_of
from opsd.retention.holds import hold
from opsd.storage.protocol import ObjectInfo
from opsd.verify.check import Check, CheckOptions, CheckReport, Problem
from tests.support.beside import Beside
from tests.support.engine import files
from tests.support.pruning import Nights, noise, prune


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    nights = Nights.new(tmp_path)
    nights.nights(3)
    return nights


def check(nights: Nights, *, share: float = 1.0, reader: bool = True) -> CheckReport:
    return Check(nights.world.open(reader=reader), CheckOptions(share=share, seed=1)).run()


def only(report: CheckReport) -> Problem:
    """The one problem there is."""
    assert len(report.problems) == 1, report.problems
    return report.problems[0]


def pack_rows(nights: Nights) -> list[tuple[ObjectInfo, FrameRow]]:
    place = nights.world.open().place
    return [(info, row) for info in nights.store.list("packs/") for row in footer_of(place, info)[1]]


def affected(nights: Nights, frames: set[tuple[bytes, int]]) -> set[str]:
    """Ids of the snapshots that refer to any of these frames, by the manifests themselves."""
    repository = nights.world.open()
    return {
        manifest.summary.id
        for manifest in repository.manifests()
        if any(frame in frames_of(repository, manifest) for frame in frames)
    }


# Nothing to say


@pytest.mark.parametrize("reader", [True, False])
def test_nothing_is_reported_on_a_healthy_repository(nights: Nights, reader: bool) -> None:  # noqa: FBT001
    report = check(nights, reader=reader)
    assert (report.problems, report.notices) == ((), ())
    assert (report.snapshots, report.packs_read, report.decoded) == (3, report.packs, reader)
    assert report.bytes_read > report.bytes_stored > 0


def test_nothing_is_reported_before_the_first_snapshot(tmp_path: Path) -> None:
    report = check(Nights.new(tmp_path))
    assert (report.problems, report.notices, report.snapshots) == ((), (), 0)


def test_nothing_is_reported_while_prune_marks_moves_and_sweeps(nights: Nights) -> None:
    for number in range(12):
        nights.night({f"data{number}": noise(9000, number), "f1": noise(7000, 50 + number)})
        prune(nights.world)
        report = check(nights)
        assert (report.problems, report.notices) == ((), ())
    nights.later_prune()
    nights.later_prune()
    assert check(nights).problems == ()


# Missing


def test_a_missing_pack_is_reported_with_the_snapshots_that_need_it(nights: Nights) -> None:
    nights.night({"late": noise(40_000, 77)})
    newest = nights.world.open().snapshots()[-1]
    others = {
        birth
        for each in nights.world.open().snapshots()[:-1]
        for birth in frames_of(nights.world.open(), nights.world.open().find(each.id)).births()
    }
    victim = next(info for info, row in pack_rows(nights) if row.birth not in others)
    nights.store.delete(victim.name)
    for share in (0.0, 1.0):
        problem = only(check(nights, share=share))
        assert "missing" in problem.problem
        assert problem.snapshots == (newest.id,)


def test_a_missing_manifest_is_reported_as_a_gap(nights: Nights) -> None:
    nights.store.delete(nights.world.open().snapshots()[1].name)
    assert "number 2 " in only(check(nights)).problem


def test_the_missing_newest_manifest_is_reported_from_what_this_host_remembers(nights: Nights) -> None:
    nights.store.delete(nights.world.open().snapshots()[-1].name)
    assert "newest of this host" in only(check(nights)).problem


def test_a_missing_index_object_costs_nothing_and_is_noticed(nights: Nights) -> None:
    for info in list(nights.store.list("index/")):
        nights.store.delete(info.name)
    report = check(nights)
    assert report.problems == ()
    assert "no index" in report.notices[0]
    nights.require_truth()


def test_a_missing_note_of_prune_is_reported_as_the_gap_that_it_explained(nights: Nights) -> None:
    prune(nights.world, keep_last=2)
    nights.later_prune()
    assert check(nights).problems == ()
    for info in list(nights.store.list("notes/")):
        nights.store.delete(info.name)
    assert "number 1 " in only(check(nights)).problem


def test_missing_settings_are_reported_by_name_before_anything_else(nights: Nights) -> None:
    for info in list(nights.store.list("settings/")):
        nights.store.delete(info.name)
    with pytest.raises(OpsdError, match=r"settings|repository"):
        check(nights)


def test_missing_key_slots_are_reported(nights: Nights) -> None:
    for info in list(nights.store.list("keys/")):
        nights.store.delete(info.name)
    assert only(check(nights)).object == "keys/"


# History


def again(nights: Nights, summary: SnapshotSummary, sequence: int) -> None:
    """What a cloned or rolled-back host would put: another manifest, signed, with that number."""
    repository = nights.world.open()
    manifest = repository.find(summary.id)
    changed = replace(manifest, summary=replace(manifest.summary, sequence=sequence, job="clone"))
    content = encode_manifest(changed, repository.place.ring)
    nights.store.put(name_for(Kind.SNAPSHOT, content, time=summary.started), content)


def test_a_number_used_twice_is_reported(nights: Nights) -> None:
    again(nights, nights.world.open().snapshots()[2], 3)
    assert "same number 3" in only(check(nights)).problem


def test_a_gap_without_prunes_note_is_reported(nights: Nights) -> None:
    again(nights, nights.world.open().snapshots()[2], 6)
    assert "number 4, 5 " in only(check(nights)).problem


def test_a_gap_that_prune_explains_is_not(nights: Nights) -> None:
    nights.nights(3)
    prune(nights.world, keep_last=1)
    nights.later_prune()
    assert len(nights.world.open().snapshots()) == 1
    assert check(nights).problems == ()


# Damage


def test_a_flip_in_any_frame_is_found_and_the_snapshots_are_named(nights: Nights) -> None:
    nights.night({"late": noise(40_000, 77)})
    rows = pack_rows(nights)
    assert {row.domain for _, row in rows} >= {1}
    for info, row in rows[:: max(1, len(rows) // 25)]:
        nights.flip(info.name, row.offset + row.stored_length // 2)
        problem = only(check(nights))
        assert problem.object == info.name
        assert set(problem.snapshots) == affected(nights, {(row.birth, row.number)})
        nights.flip(info.name, row.offset + row.stored_length // 2)


def test_the_paths_whose_content_is_damaged_are_named(nights: Nights) -> None:
    content = noise(40_000, 77)
    nights.night({"deep/late": content})
    repository = nights.world.open(reader=True)
    entry = nights.world.entries()[f"files:{nights.tree}/deep/late"]
    assert isinstance(entry.content, bytes)
    reader = repository.reader(repository.find("latest"))
    frame = next(iter(reader.blobs.references(entry.content))).frame
    info, row = next((info, row) for info, row in pack_rows(nights) if (row.birth, row.number) == frame)
    nights.flip(info.name, row.offset + 50)
    assert only(check(nights)).paths == (f"files:{nights.tree}/deep/late",)


def test_damage_in_a_list_of_names_says_so_instead_of_paths(nights: Nights) -> None:
    found = set()
    for info, row in pack_rows(nights):
        nights.flip(info.name, row.offset + 50)
        found |= set(only(check(nights)).paths)
        nights.flip(info.name, row.offset + 50)
    assert "(the list of names itself is affected)" in found
    assert any(path.startswith(f"files:{nights.tree}/") for path in found)


def test_a_flip_in_padding_affects_no_snapshot_and_is_found_all_the_same(nights: Nights) -> None:
    victim, end = next(
        (info, row.offset + row.stored_length)
        for info in nights.store.list("packs/")
        for row in footer_of(nights.world.open().place, info)[1][-1:]
        if nights.store.read(info.name, row.offset + row.stored_length, 8) == bytes(8)
    )
    nights.flip(victim.name, end + 3)
    problem = only(check(nights))
    assert (problem.object, problem.snapshots) == (victim.name, ())


def test_a_broken_footer_is_found_without_reading_data_and_names_the_snapshots(nights: Nights) -> None:
    info, row = pack_rows(nights)[0]
    inside = {(each.birth, each.number) for other, each in pack_rows(nights) if other.name == info.name}
    nights.flip(info.name, -20)
    problem = only(check(nights, share=0.0))
    assert problem.object == info.name
    nights.flip(info.name, -20)
    assert row
    assert set(problem.snapshots) == affected(nights, inside)


def test_without_readers_keys_every_pack_is_proved_against_its_name(nights: Nights) -> None:
    for info in list(nights.store.list("packs/")):
        nights.flip(info.name, info.size // 2)
        report = check(nights, reader=False)
        assert [problem.object for problem in report.problems] == [info.name]
        assert not report.decoded
        inside = {(row.birth, row.number) for other, row in pack_rows(nights) if other.name == info.name}
        assert set(report.problems[0].snapshots) == affected(nights, inside)
        nights.flip(info.name, info.size // 2)


def test_damage_in_a_page_of_a_disk_image_names_the_image(tmp_path: Path) -> None:
    nights = Nights.new(tmp_path, {"disk.img": noise(400_000, 1), "other": noise(30_000, 2)})
    nights.world.backup(files(nights.tree, page_map=("*.img",)))
    pages = [(info, row) for info, row in pack_rows(nights) if row.kind == FrameKind.PAGES]
    assert pages
    for info, row in pages[::5]:
        nights.flip(info.name, row.offset + 50)
        assert only(check(nights)).paths == (f"files:{nights.tree}/disk.img",)
        nights.flip(info.name, row.offset + 50)


def test_damage_that_another_pack_makes_good_affects_no_snapshot(nights: Nights) -> None:
    """Until the sweep a moved frame stands twice; reading takes the whole one."""
    for number in range(30):
        nights.night({f"small{number}": noise(6000, number)})
    before = {info.name for info in nights.store.list("packs/")}
    prune(nights.world, keep_last=100)
    moved = {(row.birth, row.number) for info, row in pack_rows(nights) if info.name not in before}
    info, row = next(
        (info, row) for info, row in pack_rows(nights) if info.name in before and (row.birth, row.number) in moved
    )
    nights.flip(info.name, row.offset + 50)
    problem = only(check(nights))
    assert (problem.object, problem.snapshots) == (info.name, ())
    nights.require_truth([nights.world.open().snapshots()[0].id])


@pytest.mark.parametrize("prefix", ["settings/", "keys/", "runs/", "index/", "snapshots/", "notes/", "marks/"])
def test_a_flip_in_a_small_object_is_found_without_reading_data(nights: Nights, prefix: str) -> None:
    prune(nights.world, keep_last=2)
    nights.later_prune()
    nights.night()
    prune(nights.world, keep_last=2)
    repository = nights.world.open(reader=True)
    name = min(info.name for info in nights.store.list(prefix))
    nights.flip(name, nights.store.stat(name).size // 2)
    report = Check(repository, CheckOptions()).run()
    assert name in {problem.object for problem in report.problems}


def test_a_damaged_manifest_is_reported_with_its_own_id(nights: Nights) -> None:
    victim = nights.world.open().snapshots()[0]
    nights.flip(victim.name, 100)
    problem = next(problem for problem in check(nights).problems if problem.object == victim.name)
    assert problem.snapshots == (victim.id,)


# Samples


def test_a_sample_reads_its_share_and_a_seed_repeats_it(nights: Nights) -> None:
    for number in range(8):
        nights.night({f"more{number}": noise(200_000, number)})
    repository = nights.world.open(reader=True)
    first = Check(repository, CheckOptions(share=0.5, seed=3)).run()
    assert first.packs_read == round(first.packs / 2)
    assert Check(repository, CheckOptions(share=0.5, seed=3)).run().bytes_read == first.bytes_read
    assert Check(repository, CheckOptions(share=0.0)).run().packs_read == 0
    assert Check(repository, CheckOptions(share=0.0001)).run().packs_read == 1


def test_a_check_changes_nothing(nights: Nights) -> None:
    nights.flip(next(iter(nights.store.list("packs/"))).name, 5000)
    before = nights.objects()
    check(nights)
    assert nights.objects() == before


@pytest.mark.parametrize(
    "prefix", ["settings/", "keys/", "runs/", "marks/", "notes/", "index/", "snapshots/", "packs/"]
)
def test_no_advice_is_to_run_the_check_that_gives_it(nights: Nights, prefix: str) -> None:
    prune(nights.world)
    hold(nights.world.open(), nights.world.open().snapshots()[0], None, "evidence")
    repository = nights.world.open(reader=True)
    nights.flip(min(info.name for info in nights.store.list(prefix)), -1)
    problem = only(Check(repository, CheckOptions(share=1.0)).run())
    assert problem.object.startswith(prefix)
    assert problem.hint
    assert "run 'opsd check'" not in problem.hint
    assert "copy" in problem.hint or "--repair" in problem.hint


# Beside others


def test_what_a_prune_sweeps_at_any_moment_of_a_check_is_no_damage(nights: Nights, tmp_path: Path) -> None:
    nights.nights(3)
    prune(nights.world)
    nights.clock.advance(4 * DAY)
    happened, places = True, iter(range(0, 1000, 3))
    while happened:
        at = next(places)
        each = nights.clone(tmp_path / f"{at}")
        beside = Beside(each.store, at, partial(prune, each.world))
        report = Check(replace(each.world, store=beside).open(), CheckOptions(share=1.0)).run()
        assert report.problems == ()
        assert len(each.world.open().snapshots(marked=True)) == (2 if beside.happened else 6)
        happened = beside.happened
