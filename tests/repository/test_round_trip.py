"""What goes into a repository comes out of it, and what did not change is not stored again."""

import os
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC
from pathlib import Path

import pytest

from opsd.clock import DAY, FixedClock
from opsd.errors import ObjectDamaged
from opsd.model import Outcome
from opsd.repository.catalog import footer_of
from opsd.repository.format import Kind, name_for
from opsd.repository.references import REFERENCE_BYTES, FrameSet
from opsd.repository.run import Run
from opsd.repository.runs import RunEvent
from opsd.repository.settings import Parameters
from opsd.retention.policy import Rules
from opsd.retention.prune import Prune, PruneOptions
from opsd.storage.memory import MemoryStore
from opsd.storage.protocol import ObjectInfo
from tests.support.engine import World, files, make_tree, way_to


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that do not compress."""
    return random.Random(seed).randbytes(size)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Small, large, empty and repeated files."""
    content = {f"small/{number}.txt": f"file {number}\n".encode() * number for number in range(300)}
    content |= {
        "empty": b"",
        "large.bin": noise(500_000),
        "again.bin": noise(500_000),
        "text.log": b"a line of a log\n" * 40_000,
        "one": b"x",
    }
    return make_tree(tmp_path / "tree", content)


def on_disk(root: Path) -> dict[str, bytes]:
    """What a tree holds."""
    return {f"files:{path}": path.read_bytes() for path in root.rglob("*") if path.is_file() and not path.is_symlink()}


def test_all_content_comes_back(tmp_path: Path, tree: Path) -> None:
    world = World.new(tmp_path / "world")
    report = world.backup(files(tree))
    assert report.outcome is Outcome.COMPLETE
    assert world.contents() == on_disk(tree)


def test_little_of_what_is_stored_is_padding(tmp_path: Path) -> None:
    """Padmé adds up to a 32nd; packs are closed where it adds less."""
    tree = make_tree(tmp_path / "tree", {f"f{number:03}": noise(90_000, number) for number in range(300)})
    sizes = Parameters(pack_bytes=2 << 20, frame_bytes=64 << 10)
    world = World.new(tmp_path / "world", parameters=sizes)
    world.backup(files(tree))
    place = world.open().place
    packs = [footer_of(place, info) for info in place.store.list("packs/")]
    used = sum(frame.stored_length for _, frames in packs for frame in frames)
    stored = sum(pack.size - pack.footer_length for pack, _ in packs)
    assert len(packs) > 8
    assert stored - used < stored * 0.012


def test_equal_files_are_stored_once(tmp_path: Path, tree: Path) -> None:
    world = World.new(tmp_path / "world")
    report = world.backup(files(tree))
    assert report.snapshot.bytes > 1_600_000
    assert report.snapshot.added_bytes < 700_000


def test_an_unchanged_tree_adds_nothing(tmp_path: Path, tree: Path) -> None:
    clock = FixedClock(2_000_000_000_000_000_000)
    world = World.new(tmp_path / "world", clock=clock)
    before = way_to(tree)
    world.backup(files(tree))
    clock.advance(10**12)
    second = world.backup(files(tree))
    # Where somebody wrote in /tmp meanwhile, the listing is another; the content is not.
    most = 0 if way_to(tree) == before else second.snapshot.bytes // 50
    assert second.snapshot.added_bytes <= most
    assert world.contents() == on_disk(tree)


def test_a_changed_file_is_stored_and_the_rest_reused(tmp_path: Path, tree: Path) -> None:
    clock = FixedClock(2_000_000_000_000_000_000)
    world = World.new(tmp_path / "world", clock=clock)
    world.backup(files(tree))
    clock.advance(10**12)
    (tree / "small/7.txt").write_bytes(b"changed")
    (tree / "new").write_bytes(noise(1000, 3))
    (tree / "one").unlink()
    second = world.backup(files(tree))
    assert 0 < second.snapshot.added_bytes < 60_000
    assert world.contents() == on_disk(tree)


def test_a_lost_cache_costs_time_and_nothing_else(tmp_path: Path, tree: Path) -> None:
    world = World.new(tmp_path / "world")
    world.backup(files(tree))
    for path in sorted((tmp_path / "world/cache").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    second = world.backup(files(tree))
    assert second.snapshot.added_bytes < 20_000
    assert world.contents() == on_disk(tree)


def test_a_damaged_cache_is_made_anew(tmp_path: Path, tree: Path) -> None:
    world = World.new(tmp_path / "world")
    world.backup(files(tree))
    cache = next((tmp_path / "world/cache").rglob("files.sqlite"))
    for suffix in ("-wal", "-shm"):
        cache.with_name(cache.name + suffix).unlink(missing_ok=True)
    cache.write_bytes(noise(20_000))
    world.backup(files(tree))
    assert world.contents() == on_disk(tree)


def test_a_page_mapped_file_stores_only_changed_pages(tmp_path: Path) -> None:
    image = bytearray(noise(4 * 1024 * 1024))
    image[100_000:200_000] = bytes(100_000)
    root = make_tree(tmp_path / "tree", {"disk.img": bytes(image)})
    clock = FixedClock(2_000_000_000_000_000_000)
    world = World.new(tmp_path / "world", clock=clock)
    world.backup(files(root, page_map=("*.img",)))
    clock.advance(10**12)
    for page in range(0, 1024, 100):
        image[page * 4096 : page * 4096 + 10] = b"0123456789"
    (root / "disk.img").write_bytes(image)
    second = world.backup(files(root, page_map=("*.img",)))
    assert second.snapshot.added_bytes < 0.05 * len(image)
    assert world.contents()[f"files:{root}/disk.img"] == bytes(image)


def test_a_sparse_file_keeps_its_holes(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    with (root / "sparse").open("wb") as file:
        file.write(b"begin")
        file.seek(50_000_000)
        file.write(b"middle")
        file.truncate(80_000_000)
    world = World.new(tmp_path / "world")
    world.backup(files(root))
    entry = world.entries()[f"files:{root}/sparse"]
    assert entry.size == 80_000_000
    assert entry.extents is not None
    assert sum(length for _, length in entry.extents) < 1_000_000
    assert world.contents()[f"files:{root}/sparse"] == (root / "sparse").read_bytes()


def test_hard_links_share_a_group_and_content(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "tree", {"a/first": noise(5000), "alone": b"x"})
    (root / "b").mkdir()
    os.link(root / "a/first", root / "b/second")
    world = World.new(tmp_path / "world")
    world.backup(files(root))
    found = world.entries()
    first, second = found[f"files:{root}/a/first"], found[f"files:{root}/b/second"]
    assert first.link is not None
    assert (first.link, first.content) == (second.link, second.content)
    assert found[f"files:{root}/alone"].link is None


def test_a_file_of_many_blobs_points_to_lists(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "tree", {"huge": noise(30_000_000)})
    world = World.new(tmp_path / "world")
    world.backup(files(root))
    entry = world.entries()[f"files:{root}/huge"]
    assert isinstance(entry.content, tuple)
    assert world.contents()[f"files:{root}/huge"] == (root / "huge").read_bytes()


def test_lists_of_lists_of_blobs_count_among_what_a_snapshot_needs(tmp_path: Path) -> None:
    lists, frames = 1001, FrameSet()
    with Run(World.new(tmp_path / "world").open()) as run:
        content = run.blobs.content(run.blobs.domains[1], noise(lists * 1000 * REFERENCE_BYTES), frames)
        run.blobs.finish()
    assert isinstance(content, tuple)
    assert content[0] == 2
    # Each list but the last of lists is so long that it has a frame of its own.
    assert sum(bitmap.bit_count() for bitmap in frames._bitmaps.values()) == lists + 2


def test_a_very_large_folder_comes_in_parts_and_one_path_needs_few_hunks(tmp_path: Path) -> None:
    names = {f"many/{number:05}": b"%d" % number for number in range(6000)}
    root = make_tree(tmp_path / "tree", names | {"z/last": b"end"})
    world = World.new(tmp_path / "world")
    world.backup(files(root))
    repository = world.open(reader=True)
    reader = repository.reader(repository.find("latest"))
    tree = reader.tree("files")
    every = list(reader.folders(tree))
    some = list(reader.folders(tree, os.fsencode(root / "z")))
    assert sum(len(folder.entries) for folder in every) > 6000
    assert sum(len(folder.entries) for folder in some) < 4000
    assert any(folder.path == os.fsencode(root / "z") for folder in some)
    assert world.contents() == on_disk(root)


def test_a_vanished_root_fails_its_source_and_not_the_other(tmp_path: Path, tree: Path) -> None:
    world = World.new(tmp_path / "world")
    report = world.backup(files(tmp_path / "gone", label="gone"), files(tree))
    assert report.outcome is Outcome.FAILED
    assert list(report.failures) == ["gone"]
    assert not world.open().snapshots()[0].complete
    assert world.contents() == on_disk(tree)


def test_a_marked_snapshot_is_no_ground_for_reuse(tmp_path: Path, tree: Path) -> None:
    """The cache says which blobs a file had, never that they are still stored."""

    clock = FixedClock(2_000_000_000_000_000_000)
    world = World.new(tmp_path / "world", clock=clock)
    world.backup(files(tree))
    clock.advance(10**12)
    other = make_tree(tmp_path / "other", {"x": b"y"})
    world.backup(files(other))
    clock.advance(5 * 86_400 * 10**9)
    options = PruneOptions(rules=Rules(keep_last=1), zone=UTC, confirmed=True)
    Prune(world.open(), options).carry_out()
    world.backup(files(tree, label="files"))
    clock.advance(5 * 86_400 * 10**9)
    Prune(world.open(), options).carry_out()
    clock.advance(5 * 86_400 * 10**9)
    Prune(world.open(), options).carry_out()
    assert world.contents() == on_disk(tree)


def test_a_lost_index_is_rebuilt_from_the_packs_footers(tmp_path: Path, tree: Path) -> None:
    world = World.new(tmp_path / "world")
    world.backup(files(tree))
    for info in list(world.store.list("index/")):
        world.store.delete(info.name)
    assert world.contents() == on_disk(tree)
    second = world.backup(files(tree))
    assert second.snapshot.added_bytes < 20_000
    assert list(world.store.list("index/"))
    assert world.contents() == on_disk(tree)


def test_two_snapshots_of_one_moment_keep_their_order(tmp_path: Path, tree: Path) -> None:
    world = World.new(tmp_path / "world")
    ids = [world.backup(files(tree)).snapshot.id for _ in range(3)]
    assert [each.id for each in world.open().snapshots()] == ids


@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_a_pack_that_is_cut_or_gone_is_told_and_stored_anew(tmp_path: Path, tree: Path, harm: str) -> None:
    clock = FixedClock(2_000_000_000_000_000_000)
    world = World.new(tmp_path / "world", clock=clock)
    world.backup(files(tree))
    pack = max(world.store.list("packs/"), key=lambda info: info.size)
    if harm == "cut":
        world.store.put(pack.name, world.store.read(pack.name)[: pack.size // 2], replace=True)
    else:
        world.store.delete(pack.name)
    clock.advance(10**12)
    second = world.backup(files(tree))
    assert second.outcome is Outcome.WARNINGS
    assert second.snapshot.added_bytes > pack.size // 3
    assert world.recorder.warnings
    assert world.contents() == on_disk(tree)


def test_latest_passes_over_a_safety_snapshot(tmp_path: Path, tree: Path) -> None:
    clock = FixedClock(2_000_000_000_000_000_000)
    world = World.new(tmp_path / "world", clock=clock)
    part = world.backup(files(tree), job="part").snapshot.id
    clock.advance(10**12)
    world.backup(files(tree), job="safety")
    assert world.open().find("latest").summary.id == part


def test_latest_is_what_was_taken_last_whatever_a_wrong_clock_called_it(tmp_path: Path, tree: Path) -> None:
    clock = FixedClock(2_000_000_000_000_000_000)
    world = World.new(tmp_path / "world", clock=clock)
    world.backup(files(tree))
    clock.advance(365 * DAY)
    ahead = world.backup(files(tree)).snapshot.id
    clock.advance(-364 * DAY)
    assert world.open().find("latest").summary.id == ahead  # Nothing newer is there.
    newest = world.backup(files(tree)).snapshot.id
    assert world.open().find("latest").summary.id == newest
    assert {warning.subject for warning in world.recorder.warnings} == {f"snapshot {ahead[:8]}"}
    clock.advance(-10 * DAY)  # Whose own clock is behind still gets what was taken last.
    assert world.open().find("latest").summary.id == newest


def test_the_newest_snapshot_is_found_by_reading_one_manifest(tmp_path: Path, tree: Path) -> None:
    world = World.new(tmp_path / "world")
    made = [world.backup(files(tree)).snapshot for _ in range(5)]
    assert isinstance(world.store, MemoryStore)
    older = world.store.clone()
    for snapshot in made[:-1]:
        older.delete(snapshot.name)
    repository = replace(world, store=_ListingOf(older, world.store)).open()
    assert repository.find("latest").summary.id == made[-1].id


def test_where_every_manifest_is_damaged_that_is_told_not_that_there_is_no_snapshot(tmp_path: Path, tree: Path) -> None:
    world = World.new(tmp_path / "world")
    name = world.backup(files(tree)).snapshot.name
    world.store.put(name, b"other bytes", replace=True)
    with pytest.raises(ObjectDamaged, match=name):
        world.open().find("latest")


def test_a_snapshot_whose_run_failed_after_all_is_not_the_latest(tmp_path: Path, tree: Path) -> None:
    world = World.new(tmp_path / "world")
    whole = world.backup(files(tree)).snapshot
    broken = world.backup(files(tree)).snapshot
    place = world.open().place
    key = place.ring.writer
    assert key
    event = RunEvent(run=broken.run, writer=broken.writer, kind="backup", event="failed", time=broken.ended)
    content = place.signed.encode_run(event, key)
    world.store.put(name_for(Kind.RUN, content, time=event.time), content)
    assert world.open().find("latest").summary.id == whole.id
    assert [each.complete for each in world.open().snapshots()] == [True, False]


def test_a_snapshot_under_a_name_of_another_time_is_damaged(tmp_path: Path, tree: Path) -> None:
    world = World.new(tmp_path / "world")
    old = world.backup(files(tree)).snapshot
    new = world.backup(files(tree)).snapshot
    content = world.store.read(old.name)
    world.store.delete(old.name)
    world.store.put(name_for(Kind.SNAPSHOT, content, time=new.started + 10**15), content)
    assert world.open().find("latest").summary.id == new.id
    assert any("another time" in warning.problem for warning in world.recorder.warnings)


class _ListingOf(MemoryStore):
    """A store that lists what another one has."""

    def __init__(self, held: MemoryStore, shown: MemoryStore) -> None:
        self.__dict__.update(held.__dict__)
        self._shown = shown

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._shown.list(prefix)
